//! The rules of deadlines. Pure: time is an argument.

use std::time::Duration;

use contract::{ExpirationEvent, OrderId, Timestamp, event::ExpirationComplete};
use serde::{Deserialize, Serialize};

/// One order's deadline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deadline {
    /// Whether it has been told that the window is over.
    pub complete: bool,
}

/// What follows from an event.
pub fn evolve(_: Deadline, event: &ExpirationEvent) -> Deadline {
    match event {
        ExpirationEvent::Complete(_) => Deadline { complete: true },
    }
}

/// What to do about an order's deadline now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing: the order no longer waits for a card.
    Nothing,
    /// Look again after this time.
    Wait(Duration),
    /// Tell that the window is over.
    Complete,
}

/// What to do at `now` about an order that waits for a card until `expires_at`, or no longer waits.
///
/// That a delivery comes says nothing about the time: after a kill of the server all of them come at once.
pub fn next(waits_until: Option<Timestamp>, now: Timestamp) -> Next {
    match waits_until {
        None => Next::Nothing,
        Some(expires_at) if now < expires_at => Next::Wait(expires_at.since(now)),
        Some(_) => Next::Complete,
    }
}

/// Tells, once, that the order's window is over.
pub fn complete(deadline: &Deadline, order: OrderId) -> Option<ExpirationEvent> {
    match deadline.complete {
        true => None,
        false => Some(ExpirationEvent::Complete(ExpirationComplete { order_id: order })),
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn at(millis: u64) -> Timestamp {
        Timestamp::from(UNIX_EPOCH + Duration::from_millis(millis))
    }

    #[test]
    fn a_deadline_is_told_once() {
        let order = OrderId(Uuid::from_u128(1));
        let told = complete(&Deadline::default(), order).unwrap();
        assert_eq!(complete(&evolve(Deadline::default(), &told), order), None);
    }

    #[test]
    fn an_order_that_no_longer_waits_has_no_deadline() {
        assert_eq!(next(None, at(9)), Next::Nothing);
    }

    proptest! {
        #[test]
        fn however_often_it_comes_up_a_deadline_is_told_once(times in 0..20_usize) {
            let order = OrderId(Uuid::from_u128(1));
            let (mut deadline, mut told) = (Deadline::default(), 0);
            for _ in 0..times {
                if let Some(event) = complete(&deadline, order) {
                    deadline = evolve(deadline, &event);
                    told += 1;
                }
            }
            prop_assert_eq!(told, times.min(1));
        }

        #[test]
        fn a_deadline_is_never_early_and_never_put_off_once_due(
            expires_at in 0..10_000_000_000_000_u64,
            now in 0..10_000_000_000_000_u64,
        ) {
            match next(Some(at(expires_at)), at(now)) {
                Next::Nothing => prop_assert!(false, "an order that waits was forgotten"),
                Next::Wait(left) => prop_assert_eq!(left.as_millis() as u64, expires_at - now),
                Next::Complete => prop_assert!(now >= expires_at),
            }
        }
    }
}
