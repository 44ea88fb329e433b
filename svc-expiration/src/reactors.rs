//! What svc-expiration does when orders tell something.

use contract::{
    OrderEvent, OrderId,
    stream::{ORDERS, durable},
};
use eventstore::{Reaction, ReactorConfig, Recorded, Store, react};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::commands::{self, App};

/// What an order's event asks for: to watch its deadline.
pub fn on_order(event: &OrderEvent) -> Option<OrderId> {
    match event {
        OrderEvent::Created(order) => Some(order.id),
        // How an order ends is seen in the projection when its deadline comes up.
        OrderEvent::AwaitingPayment(_) | OrderEvent::Cancelled(_) | OrderEvent::Completed(_) => None,
    }
}

/// Starts to react, once the projections show what happened before.
pub(crate) fn start(tasks: &TaskTracker, store: &Store, app: App, shutdown: &CancellationToken) {
    let (log, dead_letters) = (store.log(ORDERS.name), store.dead_letters());
    let shutdown = shutdown.clone();
    let handler = app.clone();
    let handle = move |recorded: Recorded<OrderEvent>| {
        let app = handler.clone();
        async move {
            match on_order(&recorded.event) {
                Some(order) => commands::watch(&app, recorded.id, recorded.sequence, order).await,
                None => Ok(Reaction::Done),
            }
        }
    };
    tasks.spawn(async move {
        let caught_up = async {
            app.orders.caught_up().await;
            app.expirations.view().caught_up().await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = caught_up => {}
        }
        // Many at once: a whole sale may be due in the same second.
        let config = ReactorConfig { durable: durable::EXPIRATION, concurrency: 256 };
        react(log, config, dead_letters, handle, shutdown).await;
    });
}
