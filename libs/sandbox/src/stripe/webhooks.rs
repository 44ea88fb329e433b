//! Webhooks: events sent to a shop, signed, again until it takes them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::Client;
use reqwest::redirect::Policy;
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::debug;

use super::OperatorError;
use super::books::now;
use super::events::{self, Cause, Happening};

/// How often an event is sent before it is given up.
const ATTEMPTS: u32 = 8;

/// The pause after the first attempt that failed; each is twice the one before. Stripe's are hours.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How long the other side may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// Where events are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookEndpoint {
    /// `http://…`; the sandbox has no TLS.
    pub url: String,
    /// `whsec_…`, the whole of which is the key.
    pub secret: String,
    /// How badly they get there.
    #[serde(default)]
    pub delivery: Delivery,
}

/// How events get to an endpoint. The default is at once and exactly once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Each delivery waits a random time of this range first, in milliseconds: so they overtake each other.
    pub delay_ms: (u64, u64),
    /// How many of a hundred are sent twice.
    pub duplicate_percent: u8,
    /// How many of a hundred are never sent: what a reconciler is for.
    pub lose_percent: u8,
}

/// What became of the deliveries so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryReport {
    /// Not settled yet.
    pub pending: u32,
    /// Answered with 2xx.
    pub delivered: u32,
    /// Attempts that were answered by anything else, or not at all.
    pub failed: u32,
    /// Failed as often as they were to be tried.
    pub given_up: u32,
    /// Never sent, as was asked for.
    pub lost: u32,
}

/// The `Stripe-Signature` of a payload: `t=<timestamp>,v1=<hex HMAC-SHA256 of "<timestamp>.<payload>">`.
///
/// `timestamp` is in seconds of the Unix epoch.
#[must_use]
pub fn sign(secret: &str, timestamp: i64, payload: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut context = hmac::Context::with_key(&key);
    context.update(format!("{timestamp}.").as_bytes());
    context.update(payload);
    let hex: String = context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={timestamp},v1={hex}")
}

/// The events of one sandbox and their deliveries.
#[derive(Debug)]
pub(super) struct Webhooks {
    client: Client,
    /// Events may come of a call from outside the runtime.
    runtime: Handle,
    state: Mutex<State>,
    report: Arc<watch::Sender<DeliveryReport>>,
}

#[derive(Debug)]
struct State {
    endpoints: Vec<WebhookEndpoint>,
    /// Oldest first. In memory alone: a file keeps what is, not what was told.
    events: Vec<Value>,
    /// Goes with the sandbox, and the deliveries with it.
    tasks: JoinSet<()>,
}

impl Webhooks {
    /// Within a runtime.
    pub(super) fn new(endpoints: Vec<WebhookEndpoint>) -> Self {
        let client = Client::builder().no_proxy().redirect(Policy::none()).timeout(ANSWER_WITHIN).build();
        Self {
            client: client.expect("nothing in it depends on the machine"),
            runtime: Handle::current(),
            state: Mutex::new(State { endpoints, events: Vec::new(), tasks: JoinSet::new() }),
            report: Arc::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, endpoint: WebhookEndpoint) {
        self.state().endpoints.push(endpoint);
    }

    pub(super) fn endpoints(&self) -> Vec<WebhookEndpoint> {
        self.state().endpoints.clone()
    }

    /// Nothing is sent any more, what is on its way included.
    pub(super) fn clear(&self) {
        let mut state = self.state();
        state.endpoints.clear();
        state.tasks.abort_all();
    }

    pub(super) fn events(&self) -> Vec<Value> {
        self.state().events.clone()
    }

    pub(super) fn report(&self) -> DeliveryReport {
        *self.report.borrow()
    }

    /// Waits until no delivery is pending.
    pub(super) async fn until_settled(&self) {
        // The sender lives in `self`: it cannot have gone.
        let _ = self.report.subscribe().wait_for(|report| report.pending == 0).await;
    }

    /// Keeps events and sends them, each on its own: nobody promises an order.
    pub(super) fn publish(&self, happenings: Vec<Happening>, cause: &Cause) {
        let mut state = self.state();
        for happening in happenings {
            let event = events::event(happening, cause, state.endpoints.len());
            for endpoint in state.endpoints.clone() {
                self.send(&mut state.tasks, endpoint, &event);
            }
            state.events.push(event);
        }
    }

    /// Sends an event once more, at once and without bad luck.
    pub(super) fn resend(&self, id: &str) -> Result<(), OperatorError> {
        let mut state = self.state();
        let Some(event) = state.events.iter().find(|event| event["id"] == id).cloned() else {
            return Err(OperatorError::NoSuch { id: id.to_owned() });
        };
        for endpoint in state.endpoints.clone() {
            self.send(
                &mut state.tasks,
                WebhookEndpoint { delivery: Delivery::default(), ..endpoint },
                &event,
            );
        }
        Ok(())
    }

    fn send(&self, tasks: &mut JoinSet<()>, endpoint: WebhookEndpoint, event: &Value) {
        while tasks.try_join_next().is_some() {}
        let Delivery { delay_ms: (least, most), duplicate_percent, lose_percent } = endpoint.delivery;
        if by_chance(lose_percent) {
            self.report.send_modify(|report| report.lost += 1);
            return;
        }
        let payload = Bytes::from(event.to_string());
        for _ in 0..if by_chance(duplicate_percent) { 2 } else { 1 } {
            let delay = Duration::from_millis(fastrand::u64(least..=most.max(least)));
            let pending = Pending::count(Arc::clone(&self.report));
            let delivery = deliver(self.client.clone(), endpoint.clone(), payload.clone(), delay, pending);
            tasks.spawn_on(delivery, &self.runtime);
        }
    }
}

fn by_chance(percent: u8) -> bool {
    fastrand::u8(0..100) < percent
}

async fn deliver(
    client: Client,
    endpoint: WebhookEndpoint,
    payload: Bytes,
    delay: Duration,
    pending: Pending,
) {
    sleep(delay).await;
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            sleep(FIRST_PAUSE * 2_u32.pow(attempt - 1)).await;
        }
        let request = client
            .post(&endpoint.url)
            .header("content-type", "application/json; charset=utf-8")
            .header("user-agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
            // Signed anew: a shop refuses a signature that is minutes old.
            .header("stripe-signature", sign(&endpoint.secret, now(), &payload))
            .body(payload.clone());
        match request.send().await {
            Ok(answer) if answer.status().is_success() => {
                pending.report.send_modify(|report| report.delivered += 1);
                return;
            }
            Ok(answer) => debug!(status = answer.status().as_u16(), attempt, "a webhook was not taken"),
            Err(error) => debug!(%error, attempt, "a webhook did not get there"),
        }
        pending.report.send_modify(|report| report.failed += 1);
    }
    pending.report.send_modify(|report| report.given_up += 1);
}

/// Counts a delivery as pending until it is settled or stopped.
#[derive(Debug)]
struct Pending {
    report: Arc<watch::Sender<DeliveryReport>>,
}

impl Pending {
    fn count(report: Arc<watch::Sender<DeliveryReport>>) -> Self {
        report.send_modify(|report| report.pending += 1);
        Self { report }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.report.send_modify(|report| report.pending -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Worked out with another program.
    #[test]
    fn a_signature_is_as_stripe_documents_it() {
        assert_eq!(
            sign("whsec_test", 1_700_000_000, b"{\"id\":\"evt_1\"}"),
            "t=1700000000,v1=c89214b5b5da833daed6f0b8c5bb6bd58cea9022bd80ccc78230f3942d632925"
        );
    }
}
