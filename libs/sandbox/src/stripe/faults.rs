//! Faults that a test asks for: requests that hang, fail, are late, or find nobody there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::timeout;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A PaymentIntent is made, confirmed at once or not.
    Create,
    /// A PaymentIntent's metadata or description is changed.
    Update,
    /// A PaymentIntent is confirmed later.
    Confirm,
    /// Authorised money is taken.
    Capture,
    /// A PaymentIntent is given up.
    Cancel,
    /// Taken money is given back.
    Refund,
    /// Something is read: one, a list or a search.
    Retrieve,
    /// A PaymentMethod is made, of a token for one.
    PaymentMethod,
}

/// What goes wrong. "Remembered" is what the request's idempotency key answers from then on; a request whose key
/// has an answer already is a replay and gets that one from every mode that lets it act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The request hangs before anything is done. It is done at the release, unless the client has left.
    /// Nothing is remembered before that.
    HoldBefore,
    /// The request is done and its answer hangs until the release. The answer is remembered.
    HoldAfter,
    /// The request waits for [`Fault::delay_ms`] before it is done. The answer is remembered.
    Delay,
    /// 500, nothing done. Not remembered.
    #[serde(rename = "status_500")]
    Status500,
    /// 500, nothing done. The 500 is remembered, as Stripe documents for a failure after it had begun.
    #[serde(rename = "status_500_stored")]
    Status500Stored,
    /// 500, although it is done. The 500 is remembered.
    #[serde(rename = "status_500_after")]
    Status500After,
    /// 429 with code `rate_limit`, nothing done. Not remembered.
    #[serde(rename = "status_429")]
    Status429,
    /// The connection is reset (RST) without an answer, nothing done. Not remembered.
    ResetBefore,
    /// The connection is reset (RST) without an answer, although it is done. The answer is remembered.
    ResetAfter,
    /// 503, nothing done. Not remembered.
    Down,
}

/// A fault to meet. Made by [`Fault::new`] and narrowed by the rest:
///
/// ```
/// # use sandbox::stripe::{Fault, Mode, Step};
/// Fault::new(Mode::ResetAfter).at(Step::Capture).times(1).only(("order_id", "7"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// Which requests meet it; `None`: all.
    #[serde(default)]
    pub step: Option<Step>,
    /// What they meet.
    pub mode: Mode,
    /// How many of them; `None`: all until the faults are cleared.
    #[serde(default)]
    pub times: Option<u32>,
    /// How many of a hundred, by chance: 1 to 100; `None`: all.
    #[serde(default)]
    pub percent: Option<u8>,
    /// Only requests about a PaymentIntent with this key and value. A creation is judged by its own metadata,
    /// a charge, refund or dispute by its intent's. Searches and lists of intents are about none.
    #[serde(default)]
    pub metadata: Option<(String, String)>,
    /// How long [`Mode::Delay`] waits.
    #[serde(default)]
    pub delay_ms: Option<u64>,
}

impl Fault {
    /// Met by every request until the faults are cleared.
    #[must_use]
    pub fn new(mode: Mode) -> Self {
        Self { step: None, mode, times: None, percent: None, metadata: None, delay_ms: None }
    }

    /// Only at one step.
    #[must_use]
    pub fn at(mut self, step: Step) -> Self {
        self.step = Some(step);
        self
    }

    /// Only so often.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Only by chance: so many of a hundred.
    #[must_use]
    pub fn percent(mut self, percent: u8) -> Self {
        self.percent = Some(percent);
        self
    }

    /// Only about PaymentIntents that carry this in their metadata.
    #[must_use]
    pub fn only(mut self, (key, value): (impl Into<String>, impl Into<String>)) -> Self {
        self.metadata = Some((key.into(), value.into()));
        self
    }

    /// How long [`Mode::Delay`] waits.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay_ms = Some(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// What is wrong with one that came by HTTP.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match self.percent {
            Some(0 | 101..) => Err("percent is 1 to 100"),
            _ if (self.mode == Mode::Delay) != self.delay_ms.is_some() => {
                Err("delay_ms belongs to the mode delay")
            }
            _ => Ok(()),
        }
    }

    /// The metadata's value, or nothing.
    fn of(&self) -> &str {
        self.metadata.as_ref().map_or("", |(_, value)| value)
    }

    fn is_for(&self, step: Step, metadata: &BTreeMap<String, String>) -> bool {
        self.step.is_none_or(|meant| meant == step)
            && self.metadata.as_ref().is_none_or(|(key, value)| metadata.get(key) == Some(value))
            && self.percent.is_none_or(|percent| fastrand::u8(0..100) < percent)
    }
}

/// The faults still to be met, who hangs, and what was met.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// In the order in which they are tried.
    pub faults: Vec<Fault>,
    /// How many requests hang at each step, before or after being done.
    pub held: BTreeMap<Step, u32>,
    /// How many requests have met a fault since the faults were last cleared, by the value of
    /// [`Fault::metadata`]; those of faults without one under the empty string.
    pub met: BTreeMap<String, u32>,
}

/// The faults of one sandbox.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(Arc<watch::Sender<State>>);

#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    met: BTreeMap<String, u32>,
    /// The requests that a fault has in its hands. One that is taken out goes on.
    caught: BTreeMap<u64, Caught>,
    /// The number of the next one.
    next: u64,
}

#[derive(Debug)]
struct Caught {
    step: Step,
    /// Whose fault it is: the metadata's value.
    of: String,
    hangs: bool,
}

/// What one request has met.
#[derive(Debug)]
pub(super) struct Met {
    pub(super) mode: Option<Mode>,
    delay: Duration,
    /// Its number among the caught.
    number: u64,
    faults: Faults,
}

impl Faults {
    pub(super) fn add(&self, fault: Fault) {
        if fault.times == Some(0) {
            return;
        }
        self.0.send_modify(|state| state.faults.push(fault));
    }

    /// Clears all faults and releases all who hang.
    pub(super) fn clear(&self) {
        self.0.send_modify(|state| {
            state.faults.clear();
            state.met.clear();
            state.caught.clear();
        });
    }

    /// Clears the faults for one metadata value and releases those who hang by them.
    pub(super) fn clear_of(&self, value: &str) {
        self.0.send_modify(|state| {
            state.faults.retain(|fault| fault.of() != value);
            state.met.remove(value);
            state.caught.retain(|_, caught| caught.of != value);
        });
    }

    pub(super) fn report(&self) -> FaultReport {
        let state = self.0.borrow();
        let mut held = BTreeMap::new();
        for caught in state.caught.values().filter(|caught| caught.hangs) {
            *held.entry(caught.step).or_default() += 1;
        }
        FaultReport { faults: state.faults.clone(), held, met: state.met.clone() }
    }

    /// Waits until a request hangs at `step`.
    pub(super) async fn until_held(&self, step: Step) {
        self.until(|state| state.caught.values().any(|caught| caught.hangs && caught.step == step)).await;
    }

    /// Waits until a fault for this metadata value was met.
    pub(super) async fn until_met(&self, value: &str) {
        self.until(|state| state.met.contains_key(value)).await;
    }

    async fn until(&self, condition: impl FnMut(&State) -> bool) {
        // The sender lives in `self`: it cannot have gone.
        let _ = self.0.subscribe().wait_for(condition).await;
    }

    /// The first fault that is meant for this request, once less for the next one.
    pub(super) fn meet(&self, step: Step, metadata: &BTreeMap<String, String>) -> Met {
        let mut met = Met { mode: None, delay: Duration::ZERO, number: 0, faults: self.clone() };
        self.0.send_if_modified(|state| {
            let Some(index) = state.faults.iter().position(|fault| fault.is_for(step, metadata)) else {
                return false;
            };
            let fault = &mut state.faults[index];
            let of = fault.of().to_owned();
            met.mode = Some(fault.mode);
            met.delay = Duration::from_millis(fault.delay_ms.unwrap_or(0));
            met.number = state.next;
            if let Some(times) = &mut fault.times {
                *times -= 1;
                if *times == 0 {
                    state.faults.remove(index);
                }
            }
            state.next += 1;
            *state.met.entry(of.clone()).or_default() += 1;
            state.caught.insert(met.number, Caught { step, of, hangs: false });
            true
        });
        met
    }
}

impl Met {
    /// Hangs until the release if the fault says `mode`.
    pub(super) async fn hold_if(&self, mode: Mode) {
        if self.mode != Some(mode) {
            return;
        }
        self.faults.0.send_if_modified(|state| {
            state.caught.get_mut(&self.number).map(|caught| caught.hangs = true).is_some()
        });
        self.released().await;
    }

    /// Waits if the fault says so. A release ends that, too.
    pub(super) async fn delay(&self) {
        if self.mode == Some(Mode::Delay) {
            let _ = timeout(self.delay, self.released()).await;
        }
    }

    async fn released(&self) {
        self.faults.until(|state| !state.caught.contains_key(&self.number)).await;
    }
}

impl Drop for Met {
    /// Answered, or its client has left.
    fn drop(&mut self) {
        if self.mode.is_some() {
            self.faults.0.send_if_modified(|state| state.caught.remove(&self.number).is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_json_with_all_but_its_mode_left_out() {
        let fault: Fault = serde_json::from_str(r#"{"mode": "status_500_stored"}"#).unwrap();
        assert_eq!(fault, Fault::new(Mode::Status500Stored));
        let fault =
            r#"{"mode":"delay","step":"refund","percent":20,"metadata":["order_id","7"],"delay_ms":5}"#;
        let expected = Fault::new(Mode::Delay).at(Step::Refund).percent(20).only(("order_id", "7"));
        assert_eq!(serde_json::from_str::<Fault>(fault).unwrap(), expected.delay(Duration::from_millis(5)));
        assert!(serde_json::from_str::<Fault>(r#"{"mode":"down","tmies":1}"#).is_err());
    }

    #[test]
    fn chance_meets_about_as_many_as_it_says() {
        let faults = Faults::default();
        faults.add(Fault::new(Mode::Down).percent(20));
        let met = (0..10_000).filter(|_| faults.meet(Step::Create, &BTreeMap::new()).mode.is_some()).count();
        assert!((1_700..2_300).contains(&met), "{met}");
    }

    #[test]
    fn a_fault_for_one_order_leaves_the_others_alone() {
        let faults = Faults::default();
        faults.add(Fault::new(Mode::Down).at(Step::Capture).times(1).only(("order_id", "7")));
        let of = |order: &str| BTreeMap::from([("order_id".to_owned(), order.to_owned())]);
        let meet = |step, order| faults.meet(step, &of(order)).mode;
        assert_eq!(meet(Step::Capture, "8"), None);
        assert_eq!(meet(Step::Create, "7"), None);
        assert_eq!(meet(Step::Capture, "7"), Some(Mode::Down));
        assert_eq!(meet(Step::Capture, "7"), None);
        assert_eq!(faults.report().met, BTreeMap::from([("7".to_owned(), 1)]));
    }
}
