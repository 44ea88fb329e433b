//! PAYMENTS: the tries to pay for an order, one after the other, each at one PaymentIntent of Stripe's.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    book::Fold,
    finding::Code,
    record::{Fact, Kind, Record, Wrong},
};

/// What PAYMENTS says: the tries for each order, oldest first.
#[derive(Default)]
pub(crate) struct Payments {
    pub(crate) orders: HashMap<Uuid, Vec<Try>>,
}

/// One try to pay for an order.
pub(crate) struct Try {
    pub(crate) payment: Uuid,
    pub(crate) buyer: Uuid,
    pub(crate) amount: i64,
    pub(crate) status: Status,
    /// Stripe's PaymentIntent, once it is known.
    pub(crate) intent: Option<Box<str>>,
    /// The sequence of its request.
    pub(crate) requested: u64,
    /// The sequence at which the money was taken, and when that was stored.
    pub(crate) captured: Option<(u64, i64)>,
    /// How much went back by somebody's hand at Stripe: less than all.
    pub(crate) refunded: i64,
    /// The sequence of its last event, and when that was stored.
    pub(crate) last: (u64, i64),
}

/// How far a try is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Requested,
    ActionRequired,
    Authorized,
    Declined,
    Voided,
    Captured,
    Refunding,
    Refunded,
}

use Status::{ActionRequired, Authorized, Captured, Declined, Refunded, Refunding, Requested, Voided};

impl Status {
    /// Whether somebody has yet to say what becomes of it.
    pub(crate) fn waits(self) -> bool {
        matches!(self, Requested | ActionRequired | Authorized | Refunding)
    }
}

/// What may follow what: the event, from where, and to where; `None`: it stays.
const LAWFUL: [(Kind, &[Status], Option<Status>); 10] = [
    (Kind::PaymentActionRequired, &[Requested], Some(ActionRequired)),
    (Kind::PaymentAuthorized, &[Requested, ActionRequired], Some(Authorized)),
    (Kind::PaymentDeclined, &[Requested, ActionRequired], Some(Declined)),
    // Stripe may have taken what was given up here.
    (Kind::PaymentCreated, &[Requested, ActionRequired, Authorized, Declined, Voided], Some(Captured)),
    (Kind::PaymentVoided, &[ActionRequired, Authorized], Some(Voided)),
    (Kind::PaymentRefundRequested, &[Captured], Some(Refunding)),
    // Also after it had been said to succeed.
    (Kind::PaymentRefundFailed, &[Refunding, Refunded], Some(Captured)),
    (Kind::PaymentPartiallyRefunded, &[Captured, Refunding], None),
    (Kind::PaymentDisputed, &[Captured, Refunding], None),
    (Kind::PaymentRefunded, &[Captured, Refunding], Some(Refunded)),
];

impl Fold for Payments {
    fn take(&mut self, record: &mut Record, wrong: &mut Vec<Wrong>) {
        let last = (record.sequence, record.stored_ms);
        match &mut record.fact {
            Fact::PaymentRequested { payment, buyer, amount } => {
                let (payment, buyer, amount) = (*payment, *buyer, *amount);
                let tries = self.orders.entry(record.key).or_default();
                if let Some(before) = tries.last().filter(|before| before.status != Declined) {
                    let what = format!("another try, while {} is {:?}", before.payment, before.status);
                    wrong.push((Code::IllegalTransition, what));
                }
                if tries.iter().any(|before| before.payment == payment) {
                    let what = format!("payment {payment} is requested a second time");
                    wrong.push((Code::IllegalTransition, what));
                }
                tries.push(Try {
                    payment,
                    buyer,
                    amount,
                    status: Requested,
                    intent: None,
                    requested: record.sequence,
                    captured: None,
                    refunded: 0,
                    last,
                });
            }
            Fact::PaymentChanged { payment, intent, refunded } => {
                let tries = self.orders.get_mut(&record.key).map_or(&mut [][..], Vec::as_mut_slice);
                let newest = tries.last().map(|newest| newest.payment);
                let Some(one) = tries.iter_mut().rfind(|one| one.payment == *payment) else {
                    let what = format!("payment {payment} was never requested");
                    wrong.push((Code::IllegalTransition, what));
                    return;
                };
                if newest != Some(*payment) {
                    let what = format!("payment {payment} is over, and another was requested since");
                    wrong.push((Code::IllegalTransition, what));
                }
                let law = LAWFUL.iter().find(|(kind, ..)| *kind == record.kind);
                let Some((kind, from, to)) = law else { return };
                if !from.contains(&one.status) {
                    let what = format!("{kind} of payment {payment}, which is {:?}", one.status);
                    wrong.push((Code::IllegalTransition, what));
                }
                match (&one.intent, intent.take()) {
                    (Some(before), Some(now)) if *before != now => {
                        let what = format!("payment {payment} was at {before} and is at {now}");
                        wrong.push((Code::IllegalTransition, what));
                    }
                    (None, Some(now)) => one.intent = Some(now),
                    _ => {}
                }
                if *kind == Kind::PaymentCreated {
                    one.captured = Some(last);
                }
                if *kind == Kind::PaymentPartiallyRefunded {
                    one.refunded = *refunded;
                }
                one.status = to.unwrap_or(one.status);
                one.last = last;
            }
            _ => {}
        }
    }
}
