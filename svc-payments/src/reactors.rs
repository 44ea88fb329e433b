//! What svc-payments does when its own log and that of orders tell something: here money is moved.

use contract::{
    OrderEvent, OrderId, PaymentEvent, PaymentId,
    stream::{ORDERS, PAYMENTS, durable},
};
use eventstore::{Event, Reaction, ReactorConfig, Recorded, Store, react};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::commands::{self, App, Place};

/// What an event asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Have the card hold the money.
    Authorize {
        /// What is paid for.
        order: OrderId,
        /// The try to pay.
        payment: PaymentId,
    },
    /// Take money that is held, let it go, or give it back, as the order and the log have decided.
    Settle {
        /// What is paid for.
        order: OrderId,
    },
}

impl Command {
    /// The order that it is about.
    pub(crate) fn order(&self) -> OrderId {
        match *self {
            Command::Authorize { order, .. } | Command::Settle { order } => order,
        }
    }
}

/// What a payment's event asks for.
pub fn on_payment(event: &PaymentEvent) -> Option<Command> {
    match event {
        PaymentEvent::Requested(payment) => {
            Some(Command::Authorize { order: payment.order_id, payment: payment.id })
        }
        // The order may have ended while the card was being asked, or charged.
        PaymentEvent::ActionRequired(payment)
        | PaymentEvent::Authorized(payment)
        | PaymentEvent::Created(payment) => Some(Command::Settle { order: payment.order_id }),
        PaymentEvent::RefundRequested(payment) => Some(Command::Settle { order: payment.order_id }),
        PaymentEvent::Declined(_)
        | PaymentEvent::Voided(_)
        | PaymentEvent::RefundFailed(_)
        | PaymentEvent::PartiallyRefunded(_)
        | PaymentEvent::Disputed(_)
        | PaymentEvent::Refunded(_) => None,
    }
}

/// What an order's event asks for.
pub fn on_order(event: &OrderEvent) -> Option<Command> {
    match event {
        OrderEvent::AwaitingPayment(order) => Some(Command::Settle { order: order.id }),
        OrderEvent::Cancelled(order) => Some(Command::Settle { order: order.id }),
        OrderEvent::Created(_) | OrderEvent::Completed(_) => None,
    }
}

/// Starts to react, once the projections show what happened before.
pub(crate) fn start(tasks: &TaskTracker, store: &Store, app: &App, shutdown: &CancellationToken) {
    listen(tasks, store, app, PAYMENTS.name, |_| Place::Payments, on_payment, shutdown);
    listen(tasks, store, app, ORDERS.name, Place::Orders, on_order, shutdown);
}

fn listen<E: Event>(
    tasks: &TaskTracker,
    store: &Store,
    app: &App,
    stream: &str,
    place: fn(u64) -> Place,
    asks: fn(&E) -> Option<Command>,
    shutdown: &CancellationToken,
) {
    let (log, dead_letters) = (store.log(stream), store.dead_letters());
    let (app, shutdown) = (app.clone(), shutdown.clone());
    let handler = app.clone();
    let handle = move |recorded: Recorded<E>| {
        let app = handler.clone();
        async move {
            match asks(&recorded.event) {
                Some(command) => {
                    let (trace, at) = (recorded.trace_text(), place(recorded.sequence));
                    commands::handle(&app, recorded.id, trace.as_deref(), at, command).await
                }
                None => Ok(Reaction::Done),
            }
        }
    };
    tasks.spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = async { tokio::join!(app.payments.view().caught_up(), app.orders.caught_up()) } => {}
        }
        let config = ReactorConfig { durable: durable::PAYMENTS, concurrency: 64 };
        react(log, config, dead_letters, handle, shutdown).await;
    });
}

#[cfg(test)]
mod tests {
    use contract::{
        TicketId,
        event::{
            CancelReason, OrderAwaitingPayment, OrderCancelled, OrderCompleted, PaymentSettled, TicketRef,
        },
    };
    use uuid::Uuid;

    use super::*;

    const ORDER: OrderId = OrderId(Uuid::from_u128(1));
    const PAYMENT: PaymentId = PaymentId(Uuid::from_u128(2));
    const TICKET: TicketRef = TicketRef { id: TicketId(Uuid::from_u128(3)) };

    #[test]
    fn held_money_is_settled_whoever_comes_last() {
        let settle = Some(Command::Settle { order: ORDER });
        let held = PaymentSettled { id: PAYMENT, order_id: ORDER, stripe_id: "pi_1".into() };
        assert_eq!(on_payment(&PaymentEvent::ActionRequired(held.clone())), settle);
        assert_eq!(on_payment(&PaymentEvent::Authorized(held.clone())), settle);
        assert_eq!(on_payment(&PaymentEvent::Created(held.clone())), settle);
        let awaiting = OrderAwaitingPayment { id: ORDER, payment_id: PAYMENT, ticket: TICKET };
        assert_eq!(on_order(&OrderEvent::AwaitingPayment(awaiting)), settle);
        let cancelled = OrderCancelled { id: ORDER, reason: CancelReason::Expired, ticket: TICKET };
        assert_eq!(on_order(&OrderEvent::Cancelled(cancelled)), settle);

        assert_eq!(on_payment(&PaymentEvent::Disputed(held)), None);
        let completed = OrderCompleted { id: ORDER, payment_id: PAYMENT, ticket: TICKET };
        assert_eq!(on_order(&OrderEvent::Completed(completed)), None);
    }
}
