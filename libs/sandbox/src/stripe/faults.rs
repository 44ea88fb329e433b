//! Faults that a test asks for: requests that hang, fail, or find nobody there.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// A PaymentIntent is made, confirmed at once or not.
    Create,
    /// A PaymentIntent is confirmed later.
    Confirm,
    /// Authorised money is taken.
    Capture,
    /// A PaymentIntent is given up.
    Cancel,
    /// Taken money is given back.
    Refund,
    /// Something is read.
    Retrieve,
    /// A PaymentMethod is made, of a token for one.
    PaymentMethod,
}

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// The request hangs before anything is done. It is done at the release, unless the client has left.
    HoldBefore,
    /// The request is done and its answer hangs until the release.
    HoldAfter,
    /// 500, nothing done. Not remembered for the idempotency key.
    #[serde(rename = "status_500")]
    Status500,
    /// 503, nothing done.
    Down,
}

/// A fault to meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
}

/// The faults still to be met, and who hangs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultReport {
    /// In the order in which they are tried.
    pub faults: Vec<Fault>,
    /// How many requests hang at each step, before or after being done.
    pub held: BTreeMap<Step, u32>,
}

/// The faults of one sandbox.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults(Arc<watch::Sender<State>>);

#[derive(Debug, Default)]
struct State {
    report: FaultReport,
    /// Goes up with each release.
    releases: u64,
}

/// What one request has met.
#[derive(Debug)]
pub(super) struct Met {
    step: Step,
    pub(super) mode: Option<Mode>,
    releases: u64,
    faults: Faults,
}

impl Faults {
    pub(super) fn add(&self, fault: Fault) {
        if fault.times == Some(0) {
            return;
        }
        self.0.send_modify(|state| state.report.faults.push(fault));
    }

    /// Clears all faults and releases all who hang.
    pub(super) fn clear(&self) {
        self.0.send_modify(|state| {
            state.report.faults.clear();
            state.releases += 1;
        });
    }

    pub(super) fn report(&self) -> FaultReport {
        self.0.borrow().report.clone()
    }

    /// Waits until a request hangs at `step`.
    pub(super) async fn until_held(&self, step: Step) {
        let mut state = self.0.subscribe();
        // The sender lives in `self`: it cannot have gone.
        let _ = state.wait_for(|state| state.report.held.contains_key(&step)).await;
    }

    /// The first fault that is meant for a request at `step`, once less for the next one.
    pub(super) fn meet(&self, step: Step) -> Met {
        let mut met = Met { step, mode: None, releases: 0, faults: self.clone() };
        self.0.send_modify(|state| {
            met.releases = state.releases;
            let faults = &mut state.report.faults;
            let Some(index) = faults.iter().position(|fault| fault.step.is_none_or(|meant| meant == step))
            else {
                return;
            };
            met.mode = Some(faults[index].mode);
            if let Some(times) = &mut faults[index].times {
                *times -= 1;
                if *times == 0 {
                    faults.remove(index);
                }
            }
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
        let _held = Held::enter(self);
        let mut state = self.faults.0.subscribe();
        let _ = state.wait_for(|state| state.releases > self.releases).await;
    }
}

/// Counts a request as held, until it is released or its client leaves.
struct Held<'a>(&'a Met);

impl<'a> Held<'a> {
    fn enter(met: &'a Met) -> Self {
        met.faults.0.send_modify(|state| *state.report.held.entry(met.step).or_default() += 1);
        Self(met)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let Met { step, faults, .. } = self.0;
        faults.0.send_modify(|state| {
            let held = state.report.held.entry(*step).or_default();
            *held = held.saturating_sub(1);
            if *held == 0 {
                state.report.held.remove(step);
            }
        });
    }
}
