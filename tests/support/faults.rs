//! What can go wrong with a request to Stripe.

use std::time::Duration;

use sandbox::stripe::{Fault, Mode, StripeSandbox};

/// Everything.
pub(crate) const ALL: [Mode; 10] = [
    Mode::Delay,
    Mode::HoldBefore,
    Mode::HoldAfter,
    Mode::Status500,
    Mode::Status500Stored,
    Mode::Status500After,
    Mode::Status429,
    Mode::ResetBefore,
    Mode::ResetAfter,
    Mode::Down,
];

/// From now on a fifth of all requests meets one of them.
pub(crate) fn let_a_fifth_fail(stripe: &StripeSandbox) {
    for mode in ALL {
        // Each is tried after those before it have spared the request: 1 - 0.98^8 * 0.97^2 = 0.20.
        let percent = if matches!(mode, Mode::Status500 | Mode::Down) { 3 } else { 2 };
        let fault = Fault::new(mode).percent(percent);
        stripe.add_fault(match mode {
            Mode::Delay => fault.delay(Duration::from_millis(300)),
            _ => fault,
        });
    }
}

/// How many requests have met one since they were last cleared.
pub(crate) fn met(stripe: &StripeSandbox) -> u32 {
    stripe.faults().met.values().sum()
}
