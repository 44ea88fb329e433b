//! The one use case: watch a deadline.

use std::time::{Duration, SystemTime};

use contract::{OrderId, Timestamp, stream::expiration_subject};
use eventstore::{Cause, Decider, Reaction, View};
use uuid::Uuid;

use crate::{
    domain::{self, Next},
    error::Error,
    projections::{self, Expirations, Orders},
};

/// How long to wait for the projection to show what was just delivered.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the use case works on. Clones share it.
#[derive(Clone, Debug)]
pub struct App {
    pub(crate) expirations: Decider<Expirations>,
    pub(crate) orders: View<Orders>,
}

/// Looks after the deadline of `order`, which was created by event `cause` at `sequence` of ORDERS.
pub(crate) async fn watch(app: &App, cause: Uuid, sequence: u64, order: OrderId) -> Result<Reaction, Error> {
    telemetry::attribute("order.id", order.to_string());
    // Otherwise an order that the projection has not heard of yet would look like one that is over.
    app.orders.wait_for(sequence, PATIENCE).await?;
    let waits_until = projections::waits_until(&app.orders, order)?;
    match domain::next(waits_until, Timestamp::from(SystemTime::now())) {
        Next::Nothing => Ok(Reaction::Done),
        Next::Wait(left) => Ok(Reaction::Later(left)),
        Next::Complete => {
            let subject = expiration_subject(order);
            let decided = app
                .expirations
                .transact(&subject, Cause::Event(cause), |deadline| Ok(domain::complete(deadline, order)))
                .await?;
            if let (Some(_), Some(due)) = (decided.appended, waits_until) {
                let late = Timestamp::from(SystemTime::now()).since(due);
                metrics::histogram!("expirations_late_seconds").record(late);
            }
            Ok(Reaction::Done)
        }
    }
}
