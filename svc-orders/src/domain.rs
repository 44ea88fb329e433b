//! The rules of orders. Pure: time and ids are arguments.
//!
//! The aggregate is *all orders for one ticket*: that is why a ticket cannot be sold twice. At most one of them is
//! alive or complete, and that is always the latest, so the latest is all that has to be remembered.

use contract::{
    OrderEvent, OrderId, PaymentId, Timestamp, UserId,
    event::{
        CancelReason, OrderAwaitingPayment, OrderCancelled, OrderCompleted, OrderCreated, OrderStatus,
        OrderedTicket, TicketRef,
    },
};
use serde::{Deserialize, Serialize};

/// All orders for one ticket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketOrders {
    /// The latest order. Every earlier one is cancelled.
    pub latest: Option<Order>,
}

/// One order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The order.
    pub id: OrderId,
    /// Who reserved.
    pub buyer: UserId,
    /// Where it is in its life.
    pub status: OrderStatus,
    /// When the reservation ends unless a card was authorised before.
    pub expires_at: Timestamp,
    /// The ticket as it was ordered.
    pub ticket: OrderedTicket,
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Another order holds the ticket, or bought it.
    AlreadyReserved,
    /// It is somebody else's order.
    NotYourOrder,
    /// A card is authorised and about to be charged.
    BeingPaid,
    /// It was paid.
    Paid,
    /// The buyer holds as many tickets as anybody may at once.
    HoldsTooMany {
        /// How many that is.
        most: usize,
    },
}

/// What follows from an event. Neither fails nor judges.
pub fn evolve(mut orders: TicketOrders, event: &OrderEvent) -> TicketOrders {
    match event {
        OrderEvent::Created(created) => {
            orders.latest = Some(Order {
                id: created.id,
                buyer: created.user_id,
                status: OrderStatus::Created,
                expires_at: created.expires_at,
                ticket: created.ticket.clone(),
            });
        }
        OrderEvent::AwaitingPayment(event) => orders.enter(event.id, OrderStatus::AwaitingPayment),
        OrderEvent::Completed(event) => orders.enter(event.id, OrderStatus::Complete),
        OrderEvent::Cancelled(event) => orders.enter(event.id, OrderStatus::Cancelled),
    }
    orders
}

impl TicketOrders {
    fn enter(&mut self, order: OrderId, status: OrderStatus) {
        if let Some(latest) = self.latest.as_mut().filter(|latest| latest.id == order) {
            latest.status = status;
        }
    }

    /// The order `id` while it is not known to be over: an order that is not the latest was cancelled long ago.
    fn current(&self, id: OrderId) -> Option<&Order> {
        self.latest.as_ref().filter(|latest| latest.id == id)
    }
}

/// Whether somebody who has reservations open may have another: nobody can hold the whole house.
///
/// # Errors
/// When it would be more than `most`; 0 is no limit.
pub fn may_reserve_another(open: usize, most: usize) -> Result<(), Rejection> {
    if most > 0 && open >= most { Err(Rejection::HoldsTooMany { most }) } else { Ok(()) }
}

/// Reserves the ticket for `buyer` until `expires_at`.
pub fn reserve(
    orders: &TicketOrders,
    id: OrderId,
    buyer: UserId,
    ticket: &OrderedTicket,
    expires_at: Timestamp,
) -> Result<OrderEvent, Rejection> {
    match orders.latest.as_ref().map(|latest| latest.status) {
        Some(OrderStatus::Created | OrderStatus::AwaitingPayment | OrderStatus::Complete) => {
            Err(Rejection::AlreadyReserved)
        }
        Some(OrderStatus::Cancelled) | None => Ok(OrderEvent::Created(OrderCreated {
            id,
            status: OrderStatus::Created,
            user_id: buyer,
            expires_at,
            ticket: ticket.clone(),
        })),
    }
}

/// The buyer gives the reservation up.
pub fn cancel(orders: &TicketOrders, id: OrderId, by: UserId) -> Result<Option<OrderEvent>, Rejection> {
    // Not the latest: cancelled before, and somebody else has reserved since.
    let Some(order) = orders.current(id) else { return Ok(None) };
    if order.buyer != by {
        return Err(Rejection::NotYourOrder);
    }
    match order.status {
        OrderStatus::Cancelled => Ok(None),
        OrderStatus::AwaitingPayment => Err(Rejection::BeingPaid),
        OrderStatus::Complete => Err(Rejection::Paid),
        OrderStatus::Created => Ok(Some(cancelled(order, CancelReason::Buyer))),
    }
}

/// The window is over: ends the reservation, unless a card was authorised or it ended before.
pub fn expire(orders: &TicketOrders, id: OrderId) -> Option<OrderEvent> {
    let order = orders.current(id)?;
    match order.status {
        OrderStatus::Created => Some(cancelled(order, CancelReason::Expired)),
        OrderStatus::AwaitingPayment | OrderStatus::Complete | OrderStatus::Cancelled => None,
    }
}

/// A card is authorised for it: from here it no longer expires, and the card may be charged.
///
/// Nothing when the order was over first; then the authorisation is let go.
pub fn await_payment(orders: &TicketOrders, id: OrderId, payment: PaymentId) -> Option<OrderEvent> {
    let order = orders.current(id)?;
    match order.status {
        OrderStatus::Created => Some(OrderEvent::AwaitingPayment(OrderAwaitingPayment {
            id,
            payment_id: payment,
            ticket: TicketRef { id: order.ticket.id },
        })),
        OrderStatus::AwaitingPayment | OrderStatus::Complete | OrderStatus::Cancelled => None,
    }
}

/// The card was charged.
pub fn complete(orders: &TicketOrders, id: OrderId, payment: PaymentId) -> Option<OrderEvent> {
    let order = orders.current(id)?;
    match order.status {
        OrderStatus::Created | OrderStatus::AwaitingPayment => Some(OrderEvent::Completed(OrderCompleted {
            id,
            payment_id: payment,
            ticket: TicketRef { id: order.ticket.id },
        })),
        OrderStatus::Complete | OrderStatus::Cancelled => None,
    }
}

/// The authorised card could not be charged.
///
/// Also when nothing is known here of the authorisation: the payment's events may overtake each other.
pub fn fail_payment(orders: &TicketOrders, id: OrderId) -> Option<OrderEvent> {
    let order = orders.current(id)?;
    match order.status {
        OrderStatus::Created | OrderStatus::AwaitingPayment => {
            Some(cancelled(order, CancelReason::PaymentFailed))
        }
        OrderStatus::Complete | OrderStatus::Cancelled => None,
    }
}

/// The money went back: the only way out of a completed order.
///
/// Also out of one that is not known to be complete: what was refunded was paid, whether that was heard of or not.
pub fn refund(orders: &TicketOrders, id: OrderId) -> Option<OrderEvent> {
    let order = orders.current(id)?;
    match order.status {
        OrderStatus::Created | OrderStatus::AwaitingPayment | OrderStatus::Complete => {
            Some(cancelled(order, CancelReason::Refunded))
        }
        OrderStatus::Cancelled => None,
    }
}

fn cancelled(order: &Order, reason: CancelReason) -> OrderEvent {
    OrderEvent::Cancelled(OrderCancelled { id: order.id, reason, ticket: TicketRef { id: order.ticket.id } })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use contract::{Cents, TicketId};
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn order(number: u128) -> OrderId {
        OrderId(Uuid::from_u128(number))
    }

    fn user(number: u128) -> UserId {
        UserId(Uuid::from_u128(number))
    }

    fn payment(number: u128) -> PaymentId {
        PaymentId(Uuid::from_u128(number))
    }

    fn deadline() -> Timestamp {
        Timestamp::from(UNIX_EPOCH + Duration::from_secs(1_800_000_000))
    }

    fn ticket() -> OrderedTicket {
        OrderedTicket { id: TicketId(Uuid::from_u128(7)), title: "Concert".into(), price_cents: Cents(1999) }
    }

    fn reserved(number: u128) -> OrderEvent {
        reserve(&TicketOrders::default(), order(number), user(number), &ticket(), deadline()).unwrap()
    }

    fn given(events: &[OrderEvent]) -> TicketOrders {
        events.iter().fold(TicketOrders::default(), evolve)
    }

    fn over(number: u128, reason: CancelReason) -> OrderEvent {
        OrderEvent::Cancelled(OrderCancelled {
            id: order(number),
            reason,
            ticket: TicketRef { id: ticket().id },
        })
    }

    fn awaiting(number: u128) -> OrderEvent {
        await_payment(&given(&[reserved(number)]), order(number), payment(number)).unwrap()
    }

    fn completed(number: u128) -> OrderEvent {
        complete(&given(&[reserved(number), awaiting(number)]), order(number), payment(number)).unwrap()
    }

    fn check<T: std::fmt::Debug + PartialEq>(
        history: &[OrderEvent],
        decide: impl FnOnce(&TicketOrders) -> T,
        expected: T,
    ) {
        assert_eq!(decide(&given(history)), expected, "given {history:#?}");
    }

    #[test]
    fn nobody_holds_more_than_so_many_at_once() {
        assert_eq!(may_reserve_another(9, 10), Ok(()));
        assert_eq!(may_reserve_another(10, 10), Err(Rejection::HoldsTooMany { most: 10 }));
        assert_eq!(may_reserve_another(10_000, 0), Ok(()));
    }

    #[test]
    fn a_free_ticket_is_reserved() {
        let reserve = |orders: &TicketOrders| reserve(orders, order(2), user(2), &ticket(), deadline());
        check(&[], reserve, Ok(reserved(2)));
        check(&[reserved(1), over(1, CancelReason::Buyer)], reserve, Ok(reserved(2)));
        let refunded = [reserved(1), awaiting(1), completed(1), over(1, CancelReason::Refunded)];
        check(&refunded, reserve, Ok(reserved(2)));
    }

    #[test]
    fn a_held_or_sold_ticket_is_not_reserved() {
        let reserve = |orders: &TicketOrders| reserve(orders, order(2), user(2), &ticket(), deadline());
        check(&[reserved(1)], reserve, Err(Rejection::AlreadyReserved));
        check(&[reserved(1), awaiting(1)], reserve, Err(Rejection::AlreadyReserved));
        check(&[reserved(1), awaiting(1), completed(1)], reserve, Err(Rejection::AlreadyReserved));
    }

    #[test]
    fn only_its_buyer_cancels_an_order() {
        check(&[reserved(1)], |orders| cancel(orders, order(1), user(2)), Err(Rejection::NotYourOrder));
        check(
            &[reserved(1)],
            |orders| cancel(orders, order(1), user(1)),
            Ok(Some(over(1, CancelReason::Buyer))),
        );
    }

    #[test]
    fn a_cancelled_order_stays_as_it_is() {
        let history = [reserved(1), over(1, CancelReason::Expired)];
        check(&history, |orders| cancel(orders, order(1), user(1)), Ok(None));
        check(&history, |orders| expire(orders, order(1)), None);
        check(&history, |orders| await_payment(orders, order(1), payment(1)), None);
        check(&history, |orders| complete(orders, order(1), payment(1)), None);
        check(&history, |orders| fail_payment(orders, order(1)), None);
        check(&history, |orders| refund(orders, order(1)), None);
    }

    #[test]
    fn nothing_ends_an_order_that_is_being_paid_but_its_payment() {
        let history = [reserved(1), awaiting(1)];
        check(&history, |orders| cancel(orders, order(1), user(1)), Err(Rejection::BeingPaid));
        check(&history, |orders| expire(orders, order(1)), None);
        check(&history, |orders| complete(orders, order(1), payment(1)), Some(completed(1)));
        check(&history, |orders| fail_payment(orders, order(1)), Some(over(1, CancelReason::PaymentFailed)));
    }

    #[test]
    fn a_paid_order_is_only_undone_by_a_refund() {
        let history = [reserved(1), awaiting(1), completed(1)];
        check(&history, |orders| cancel(orders, order(1), user(1)), Err(Rejection::Paid));
        check(&history, |orders| expire(orders, order(1)), None);
        check(&history, |orders| fail_payment(orders, order(1)), None);
        check(&history, |orders| refund(orders, order(1)), Some(over(1, CancelReason::Refunded)));
    }

    /// Two replicas may handle two events of one payment in either order.
    #[test]
    fn payments_events_that_overtake_each_other_end_alike() {
        let (failed, refunded) = (over(1, CancelReason::PaymentFailed), over(1, CancelReason::Refunded));
        for history in [vec![reserved(1)], vec![reserved(1), awaiting(1)]] {
            check(&history, |orders| fail_payment(orders, order(1)), Some(failed.clone()));
            check(&history, |orders| refund(orders, order(1)), Some(refunded.clone()));
        }
        for end in [failed, refunded] {
            let history = [reserved(1), end];
            check(&history, |orders| await_payment(orders, order(1), payment(1)), None);
            check(&history, |orders| complete(orders, order(1), payment(1)), None);
        }
    }

    #[test]
    fn what_comes_late_for_an_earlier_order_leaves_the_present_one_alone() {
        let history = [reserved(1), over(1, CancelReason::Buyer), reserved(2)];
        check(&history, |orders| expire(orders, order(1)), None);
        check(&history, |orders| cancel(orders, order(1), user(1)), Ok(None));
        check(&history, |orders| await_payment(orders, order(1), payment(1)), None);
        check(&history, |orders| complete(orders, order(1), payment(1)), None);
        check(&history, |orders| refund(orders, order(1)), None);
    }

    #[derive(Clone, Debug)]
    enum Command {
        Reserve(u128),
        Cancel(u128, u128),
        Expire(u128),
        AwaitPayment(u128),
        Complete(u128),
        FailPayment(u128),
        Refund(u128),
    }

    fn decide(orders: &TicketOrders, command: &Command) -> Option<OrderEvent> {
        match *command {
            Command::Reserve(id) => reserve(orders, order(id), user(id), &ticket(), deadline()).ok(),
            Command::Cancel(id, by) => cancel(orders, order(id), user(by)).ok().flatten(),
            Command::Expire(id) => expire(orders, order(id)),
            Command::AwaitPayment(id) => await_payment(orders, order(id), payment(id)),
            Command::Complete(id) => complete(orders, order(id), payment(id)),
            Command::FailPayment(id) => fail_payment(orders, order(id)),
            Command::Refund(id) => refund(orders, order(id)),
        }
    }

    fn commands() -> impl Strategy<Value = Vec<Command>> {
        let id = 1..5_u128;
        let command = prop_oneof![
            id.clone().prop_map(Command::Reserve),
            (id.clone(), id.clone()).prop_map(|(id, by)| Command::Cancel(id, by)),
            id.clone().prop_map(Command::Expire),
            id.clone().prop_map(Command::AwaitPayment),
            id.clone().prop_map(Command::Complete),
            id.clone().prop_map(Command::FailPayment),
            id.prop_map(Command::Refund),
        ];
        prop::collection::vec(command, 0..60)
    }

    proptest! {
        /// Told from the events alone, without `evolve`: whoever holds the ticket gave it back before the next had it.
        #[test]
        fn whatever_is_asked_a_ticket_has_one_holder(commands in commands()) {
            let mut orders = TicketOrders::default();
            let mut holder: Option<OrderId> = None;
            let mut paid = false;
            for command in &commands {
                let Some(event) = decide(&orders, command) else { continue };
                match &event {
                    OrderEvent::Created(event) => {
                        prop_assert_eq!(holder.replace(event.id), None);
                        paid = false;
                    }
                    OrderEvent::AwaitingPayment(event) => prop_assert_eq!(holder, Some(event.id)),
                    OrderEvent::Completed(event) => {
                        prop_assert_eq!(holder, Some(event.id));
                        prop_assert!(!std::mem::replace(&mut paid, true), "paid twice");
                    }
                    OrderEvent::Cancelled(event) => {
                        prop_assert_eq!(holder.take(), Some(event.id));
                        prop_assert!(!paid || event.reason == CancelReason::Refunded);
                    }
                }
                orders = evolve(orders, &event);
            }
        }

        #[test]
        fn what_was_decided_is_not_decided_again(commands in commands()) {
            let mut orders = TicketOrders::default();
            for command in &commands {
                if let Some(event) = decide(&orders, command) {
                    orders = evolve(orders, &event);
                    // An order id is never used twice, so neither is asking for it.
                    if !matches!(command, Command::Reserve(_)) {
                        prop_assert_eq!(decide(&orders, command), None, "{:?}", command);
                    }
                }
            }
        }
    }
}
