//! What svc-tickets does when orders tell something.

use contract::{
    OrderEvent, TicketId,
    stream::{ORDERS, durable},
};
use eventstore::{Reaction, ReactorConfig, Recorded, Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    commands::{self, App},
    domain::Hold,
};

/// How many events are in hand at once: enough for their appends to go to the log in batches.
const CONCURRENCY: usize = 512;

/// What an order's event asks of its ticket: to show who holds it from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowOrder {
    /// The ticket.
    pub ticket: TicketId,
    /// The order that holds it.
    pub hold: Hold,
}

/// What an order's event asks for.
pub fn react(event: &OrderEvent) -> Option<FollowOrder> {
    match event {
        OrderEvent::Created(order) => {
            Some(FollowOrder { ticket: order.ticket.id, hold: Hold::Reserved(order.id) })
        }
        OrderEvent::Completed(order) => {
            Some(FollowOrder { ticket: order.ticket.id, hold: Hold::Sold(order.id) })
        }
        OrderEvent::Cancelled(order) => Some(FollowOrder { ticket: order.ticket.id, hold: Hold::Free }),
        // Reserved it is already, and stays so.
        OrderEvent::AwaitingPayment(_) => None,
    }
}

/// Starts to react, once the projection shows what happened before.
pub(crate) fn start(tasks: &TaskTracker, store: &Store, app: &App, shutdown: &CancellationToken) {
    let (log, dead_letters) = (store.log(ORDERS.name), store.dead_letters());
    let (app, shutdown) = (app.clone(), shutdown.clone());
    let handler = app.clone();
    let handle = move |recorded: Recorded<OrderEvent>| {
        let app = handler.clone();
        async move {
            if let Some(command) = react(&recorded.event) {
                commands::follow_order(&app, recorded.id, recorded.version, command).await?;
            }
            Ok::<_, crate::Error>(Reaction::Done)
        }
    };
    tasks.spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = app.tickets.view().caught_up() => {}
        }
        let config = ReactorConfig { durable: durable::TICKETS, concurrency: CONCURRENCY };
        eventstore::react(log, config, dead_letters, handle, shutdown).await;
    });
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use contract::{
        Cents, OrderId, PaymentId, Timestamp, UserId,
        event::{
            CancelReason, OrderAwaitingPayment, OrderCancelled, OrderCompleted, OrderCreated, OrderStatus,
            OrderedTicket, TicketRef,
        },
    };
    use uuid::Uuid;

    use super::*;

    const TICKET: TicketId = TicketId(Uuid::from_u128(1));
    const ORDER: OrderId = OrderId(Uuid::from_u128(2));
    const PAYMENT: PaymentId = PaymentId(Uuid::from_u128(3));

    fn check(event: OrderEvent, hold: Option<Hold>) {
        assert_eq!(react(&event), hold.map(|hold| FollowOrder { ticket: TICKET, hold }), "{event:?}");
    }

    #[test]
    fn a_reservation_reserves() {
        let created = OrderCreated {
            id: ORDER,
            status: OrderStatus::Created,
            user_id: UserId(Uuid::from_u128(4)),
            expires_at: Timestamp::from(SystemTime::UNIX_EPOCH),
            ticket: OrderedTicket { id: TICKET, title: "concert".into(), price_cents: Cents(1999) },
        };
        check(OrderEvent::Created(created), Some(Hold::Reserved(ORDER)));
    }

    #[test]
    fn a_payment_under_way_shows_nothing_new() {
        let awaiting =
            OrderAwaitingPayment { id: ORDER, payment_id: PAYMENT, ticket: TicketRef { id: TICKET } };
        check(OrderEvent::AwaitingPayment(awaiting), None);
    }

    #[test]
    fn a_completed_order_sells() {
        let completed = OrderCompleted { id: ORDER, payment_id: PAYMENT, ticket: TicketRef { id: TICKET } };
        check(OrderEvent::Completed(completed), Some(Hold::Sold(ORDER)));
    }

    #[test]
    fn a_cancelled_order_frees_its_ticket_whatever_the_reason() {
        for reason in
            [CancelReason::Buyer, CancelReason::Expired, CancelReason::PaymentFailed, CancelReason::Refunded]
        {
            let cancelled = OrderCancelled { id: ORDER, reason, ticket: TicketRef { id: TICKET } };
            check(OrderEvent::Cancelled(cancelled), Some(Hold::Free));
        }
    }
}
