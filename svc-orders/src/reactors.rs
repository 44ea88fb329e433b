//! What svc-orders does when payments and deadlines tell something.

use contract::{
    ExpirationEvent, OrderId, PaymentEvent, PaymentId,
    stream::{EXPIRATIONS, PAYMENTS, durable},
};
use eventstore::{Event, Reaction, ReactorConfig, Recorded, Store, react};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::commands::{self, App};

/// How many events are in hand at once: enough for their appends to go to the log in batches.
const CONCURRENCY: usize = 512;

/// What an event of another service asks of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Its window is over.
    Expire {
        /// The order.
        order: OrderId,
    },
    /// A card is authorised for it.
    AwaitPayment {
        /// The order.
        order: OrderId,
        /// The try to pay.
        payment: PaymentId,
    },
    /// The card was charged.
    Complete {
        /// The order.
        order: OrderId,
        /// The try to pay.
        payment: PaymentId,
    },
    /// The authorised card could not be charged.
    FailPayment {
        /// The order.
        order: OrderId,
    },
    /// The money went back.
    Refund {
        /// The order.
        order: OrderId,
    },
}

impl Command {
    /// The order that it is about.
    pub(crate) fn order(&self) -> OrderId {
        match *self {
            Command::Expire { order }
            | Command::AwaitPayment { order, .. }
            | Command::Complete { order, .. }
            | Command::FailPayment { order }
            | Command::Refund { order } => order,
        }
    }
}

/// What a payment's event asks for.
pub fn on_payment(event: &PaymentEvent) -> Option<Command> {
    match event {
        PaymentEvent::Authorized(payment) => {
            Some(Command::AwaitPayment { order: payment.order_id, payment: payment.id })
        }
        PaymentEvent::Created(payment) => {
            Some(Command::Complete { order: payment.order_id, payment: payment.id })
        }
        PaymentEvent::Voided(payment) => Some(Command::FailPayment { order: payment.order_id }),
        PaymentEvent::Refunded(payment) => Some(Command::Refund { order: payment.order_id }),
        // After a declined card the buyer may try another, inside the window.
        PaymentEvent::Requested(_) | PaymentEvent::ActionRequired(_) | PaymentEvent::Declined(_) => None,
        // What is asked for is not yet given, and what the bank thinks of it does not unsell the ticket.
        PaymentEvent::RefundRequested(_)
        | PaymentEvent::RefundFailed(_)
        | PaymentEvent::PartiallyRefunded(_)
        | PaymentEvent::Disputed(_) => None,
    }
}

/// What a deadline's event asks for.
pub fn on_expiration(event: &ExpirationEvent) -> Option<Command> {
    match event {
        ExpirationEvent::Complete(expiration) => Some(Command::Expire { order: expiration.order_id }),
    }
}

/// Starts to react, once the projections show what happened before.
pub(crate) fn start(tasks: &TaskTracker, store: &Store, app: &App, shutdown: &CancellationToken) {
    listen(tasks, store, app, PAYMENTS.name, on_payment, shutdown);
    listen(tasks, store, app, EXPIRATIONS.name, on_expiration, shutdown);
}

fn listen<E: Event>(
    tasks: &TaskTracker,
    store: &Store,
    app: &App,
    stream: &str,
    asks: fn(&E) -> Option<Command>,
    shutdown: &CancellationToken,
) {
    let (log, dead_letters) = (store.log(stream), store.dead_letters());
    let (app, shutdown) = (app.clone(), shutdown.clone());
    let handler = app.clone();
    let handle = move |recorded: Recorded<E>| {
        let app = handler.clone();
        async move {
            if let Some(command) = asks(&recorded.event) {
                commands::handle(&app, recorded.id, command).await?;
            }
            Ok::<_, crate::Error>(Reaction::Done)
        }
    };
    tasks.spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = app.orders.view().caught_up() => {}
        }
        let config = ReactorConfig { durable: durable::ORDERS, concurrency: CONCURRENCY };
        react(log, config, dead_letters, handle, shutdown).await;
    });
}
