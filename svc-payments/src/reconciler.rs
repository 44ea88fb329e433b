//! Log and Stripe side by side, again and again: what every guard and every message has missed is found here.

use std::{
    collections::HashSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use contract::Timestamp;
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::{
    commands::{self, App, Looked},
    error::Error,
    projections,
};

/// What is younger is left to those who are at work on it.
const YOUNG: Duration = Duration::from_secs(60);
/// How far back a full sweep looks: a card's hold lasts seven days
/// (<https://docs.stripe.com/payments/place-a-hold-on-a-payment-method>).
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often a sweep is a full one. The others look at what is new, and an hour back.
const DAY: Duration = Duration::from_secs(24 * 3600);
const OVERLAP: Duration = Duration::from_secs(3600);
/// How many payments are looked at together.
const CONCURRENCY: usize = 8;
/// Unsettled payments to a read.
const BATCH: usize = 256;

/// What is known from one sweep to the next.
#[derive(Default)]
struct Memory {
    full: Option<SystemTime>,
    last: Option<SystemTime>,
    /// Intents that differ from the log, and did so when they were last looked at.
    unmatched: HashSet<String>,
}

/// Sweeps at the start and then every so often, more or less by a tenth, so that replicas do not do it in step.
///
/// Replicas may sweep at once: what one has brought together, the other finds alike.
pub(crate) async fn run(app: App, every: Duration, shutdown: CancellationToken) {
    let sweeping = async {
        tokio::join!(app.payments.view().caught_up(), app.orders.caught_up());
        let mut memory = Memory::default();
        loop {
            let job = tracing::info_span!("job", otel.name = "job reconcile", service = "svc-payments");
            sweep(&app, every.min(YOUNG), &mut memory).instrument(job).await;
            tokio::time::sleep(every.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
        }
    };
    // Cut off anywhere: whatever was appended stands, and the next sweep finds the rest.
    let _: Option<()> = shutdown.run_until_cancelled(sweeping).await;
}

/// Looks at all that is at least as old as `young`: payments that wait for somebody, and what is new at Stripe.
///
/// What fails is told and tried again in the next sweep; it keeps the rest of this one from nothing.
async fn sweep(app: &App, young: Duration, memory: &mut Memory) {
    let started = SystemTime::now();
    let is_full = memory.full.is_none_or(|at| at.elapsed().unwrap_or_default() >= DAY);
    let since = match memory.last {
        Some(last) if !is_full => last - OVERLAP,
        _ => started - WEEK,
    };
    let until = started - young;
    // Side by side: when many payments wait, Stripe is what they wait for, and its own news must not wait behind.
    let (resumed, compared) =
        tokio::join!(resume_unsettled(app, until), compare(app, since, until, &memory.unmatched));
    if let Err(error) = resumed {
        tracing::warn!(%error, "payments that wait could not be read");
    }
    match compared {
        Ok(unmatched) => memory.unmatched = unmatched,
        Err(error) => return tracing::warn!(%error, "log and stripe could not be compared"),
    }
    memory.last = Some(started);
    if is_full {
        memory.full = Some(started);
    }
    let now = started.duration_since(UNIX_EPOCH).unwrap_or_default();
    metrics::gauge!("payments_reconciled_timestamp_seconds").set(now.as_secs_f64());
}

/// Goes on with each payment without an outcome, and counts them.
async fn resume_unsettled(app: &App, until: SystemTime) -> Result<(), Error> {
    let now = Timestamp::from(SystemTime::now());
    let until = Timestamp::from(until);
    let waiting = AtomicU64::new(0);
    let mut after = None;
    loop {
        let batch = projections::unsettled(app.payments.view(), after, BATCH)?;
        let Some((last, _)) = batch.last() else { break };
        after = Some(*last);
        stream::iter(batch.into_iter().filter(|(_, unsettled)| unsettled.since <= until))
            .for_each_concurrent(CONCURRENCY, async |(order, unsettled)| {
                let waited = now.since(unsettled.since);
                let span = tracing::info_span!("resume", otel.name = "resume payment", service = "svc-payments", order.id = %order);
                telemetry::http::continue_text(&span, unsettled.trace.as_deref());
                let resumed = commands::resume(app, order, unsettled.trace.as_deref(), waited);
                match resumed.instrument(span).await {
                    Ok(false) => return,
                    Ok(true) => {}
                    Err(error) => tracing::warn!(order.id = %order, %error, "a payment waits"),
                }
                waiting.fetch_add(1, Relaxed);
            })
            .await;
    }
    metrics::gauge!("payments_unsettled").set(waiting.into_inner() as f64);
    Ok(())
}

/// Looks at each intent made between `since` and `until`, at each of which money went back since then, and again at
/// those that were `unmatched` before; counts those that differ, and returns them.
async fn compare(
    app: &App,
    since: SystemTime,
    until: SystemTime,
    unmatched: &HashSet<String>,
) -> Result<HashSet<String>, Error> {
    let mut again = app.stripe.reversed(since).await?;
    again.extend(unmatched.iter().cloned());
    let seen = Seen::default();
    let mut after = None;
    loop {
        let page = app.stripe.intents(since, Some(until), after).await?;
        after = page.next;
        stream::iter(page.found)
            .for_each_concurrent(CONCURRENCY, async |found| {
                let intent = found.intent.id.clone();
                let looked = commands::reconcile(app, found).await;
                seen.note(intent, looked);
            })
            .await;
        if after.is_none() {
            break;
        }
    }
    stream::iter(again)
        .for_each_concurrent(CONCURRENCY, async |intent| {
            let looked = commands::look_at(app, &intent).await;
            seen.note(intent, looked);
        })
        .await;
    let unmatched = seen.unmatched.into_inner().unwrap_or_else(PoisonError::into_inner);
    metrics::gauge!("payments_unmatched").set(unmatched.len() as f64);
    metrics::gauge!("payments_foreign").set(seen.foreign.into_inner() as f64);
    Ok(unmatched)
}

/// What one sweep has seen at Stripe.
#[derive(Default)]
struct Seen {
    unmatched: Mutex<HashSet<String>>,
    foreign: AtomicU64,
}

impl Seen {
    fn note(&self, intent: String, looked: Result<Looked, Error>) {
        match looked {
            Ok(Looked::Alike) => return,
            Ok(Looked::Mended) => {
                tracing::warn!(stripe.id = intent, "log and stripe were brought together");
                metrics::counter!("payments_reconciled_total").increment(1);
                return;
            }
            // Another system's, or of a log that is gone: not ours to touch.
            Ok(Looked::Foreign) => {
                self.foreign.fetch_add(1, Relaxed);
                return;
            }
            Ok(Looked::Differs) => {}
            Err(error) => tracing::warn!(stripe.id = intent, %error, "an intent was not compared"),
        }
        self.unmatched.lock().unwrap_or_else(PoisonError::into_inner).insert(intent);
    }
}
