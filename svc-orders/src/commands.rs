//! The use cases: load, decide, append.

use std::time::{Duration, SystemTime};

use contract::{
    OrderId, TicketId, Timestamp, UserId,
    event::OrderedTicket,
    http::{Order, Sale},
    stream::order_subject,
};
use eventstore::{Cause, Decider, View};
use uuid::Uuid;
use web::limit::{AtOnce, Held};

use crate::{
    domain::{self, Rejection, TicketOrders},
    error::Error,
    projections::{self, Orders, Page, Ticket, Tickets},
    reactors::Command,
};

/// How long to wait for a projection to reach the end of its stream before something is said not to exist.
const PATIENCE: Duration = Duration::from_secs(2);

/// How far another replica's clock may be off, and how late an expiry may come.
const CLOCKS: Duration = Duration::from_secs(60);

/// What the use cases work on. Clones share it.
#[derive(Clone, Debug)]
pub struct App {
    pub(crate) orders: Decider<Orders>,
    pub(crate) tickets: View<Tickets>,
    pub(crate) window: Duration,
    pub(crate) reservations: Reservations,
}

/// How many reservations each user may have open at once. Clones share those that are being made.
///
/// The log has a place for each ticket and none for a buyer, so this is judged by what this replica has read and what it
/// is making now: with several, somebody may get as many more as there are replicas.
#[derive(Clone, Debug)]
pub(crate) struct Reservations {
    most: usize,
    being_made: AtOnce<UserId>,
}

impl Reservations {
    /// 0 is no limit.
    pub(crate) fn at_most(most: usize) -> Self {
        Self { most, being_made: AtOnce::new(if most == 0 { usize::MAX } else { most }) }
    }

    /// The right to make one more, until it is dropped.
    fn one_more(&self, app: &App, buyer: UserId) -> Result<Held<UserId>, Error> {
        let making = self.being_made.take(buyer);
        let making = making.ok_or(Error::Rejected(Rejection::HoldsTooMany { most: self.most }))?;
        if self.most > 0 {
            let since = SystemTime::now().checked_sub(app.window + CLOCKS).unwrap_or(SystemTime::UNIX_EPOCH);
            // Those that came first: of two for the last place one gets it.
            let others = making.before();
            let open = projections::open_orders(app.orders.view(), buyer, since, self.most - others)?;
            domain::may_reserve_another(open + others, self.most).map_err(Error::Rejected)?;
        }
        Ok(making)
    }
}

/// An order, and the sequence that a reader must have seen to see it.
pub(crate) struct Placed {
    pub(crate) order: Order,
    pub(crate) sequence: u64,
}

/// Reserves `ticket` for `buyer`.
pub(crate) async fn create(app: &App, buyer: UserId, ticket: TicketId) -> Result<Placed, Error> {
    let Ticket { title, price } = known_ticket(app, ticket).await?;
    let _making = app.reservations.one_more(app, buyer)?;
    let ordered = OrderedTicket { id: ticket, title, price_cents: price };
    let id = OrderId(Uuid::now_v7());
    let expires_at = Timestamp::from(SystemTime::now()).plus(app.window);
    telemetry::attribute("ticket.id", ticket.to_string());
    telemetry::attribute("order.id", id.to_string());
    let decided = app
        .orders
        .transact(&order_subject(ticket), Cause::Command, |orders| {
            domain::reserve(orders, id, buyer, &ordered, expires_at).map(Some)
        })
        .await?;
    match (decided.state.latest, decided.version) {
        (Some(order), Some(version)) => {
            Ok(Placed { order: projections::shown(&order, version), sequence: decided.sequence })
        }
        _ => Err(Error::Internal("a reservation left no order".into())),
    }
}

/// Gives the reservation up; returns the sequence that a reader must have seen.
pub(crate) async fn cancel(app: &App, id: OrderId, by: UserId) -> Result<u64, Error> {
    telemetry::attribute("order.id", id.to_string());
    let order = known_order(app, id).await?;
    if order.user_id != by {
        return Err(Error::Rejected(Rejection::NotYourOrder));
    }
    let subject = order_subject(order.ticket.id);
    let decided =
        app.orders.transact(&subject, Cause::Command, |orders| domain::cancel(orders, id, by)).await?;
    Ok(decided.sequence)
}

/// The order `id`, of `reader` alone.
pub(crate) async fn read(app: &App, id: OrderId, reader: UserId) -> Result<Order, Error> {
    let order = known_order(app, id).await?;
    match order.user_id == reader {
        true => Ok(order),
        false => Err(Error::Rejected(Rejection::NotYourOrder)),
    }
}

/// Up to `limit` orders that others placed for the seller's tickets, newest first, beginning behind `after`.
pub(crate) async fn sales(
    app: &App,
    seller: UserId,
    after: Option<OrderId>,
    limit: usize,
) -> Result<Page<Sale>, Error> {
    let (orders, tickets) = (app.orders.view().clone(), app.tickets.clone());
    // Off the async threads: it looks at each ticket of the seller's.
    let merging =
        tokio::task::spawn_blocking(move || projections::sales(&orders, &tickets, seller, after, limit));
    Ok(merging.await.map_err(|error| Error::Internal(error.to_string()))??)
}

/// The latest orders that others placed for each of these tickets, as far as the seller's they are.
pub(crate) fn latest_sales(app: &App, seller: UserId, tickets: &[TicketId]) -> Result<Vec<Sale>, Error> {
    Ok(projections::latest_sales(app.orders.view(), &app.tickets, seller, tickets)?)
}

/// Does what an event of another service asks for. Nothing, when it is done or was overtaken.
pub(crate) async fn handle(app: &App, cause: Uuid, command: Command) -> Result<(), Error> {
    let id = command.order();
    telemetry::attribute("order.id", id.to_string());
    let view = app.orders.view();
    let subject = match projections::subject_of(view, id)? {
        Some(subject) => subject,
        None => {
            view.catch_up(PATIENCE).await?;
            let Some(subject) = projections::subject_of(view, id)? else {
                tracing::warn!(order.id = %id, "ignoring an event about an unknown order");
                return Ok(());
            };
            subject
        }
    };
    let decide = |orders: &TicketOrders| {
        Ok::<_, Rejection>(match command {
            Command::Expire { order } => domain::expire(orders, order),
            Command::AwaitPayment { order, payment } => domain::await_payment(orders, order, payment),
            Command::Complete { order, payment } => domain::complete(orders, order, payment),
            Command::FailPayment { order } => domain::fail_payment(orders, order),
            Command::Refund { order } => domain::refund(orders, order),
        })
    };
    app.orders.transact(&subject, Cause::Event(cause), decide).await?;
    Ok(())
}

/// A ticket may be ordered the moment it is listed, so "not found" waits for what svc-tickets has written by now.
async fn known_ticket(app: &App, id: TicketId) -> Result<Ticket, Error> {
    if let Some(ticket) = projections::ticket(&app.tickets, id)? {
        return Ok(ticket);
    }
    app.tickets.catch_up(PATIENCE).await?;
    projections::ticket(&app.tickets, id)?.ok_or(Error::NotFound)
}

/// Another replica may have taken the order a moment ago.
async fn known_order(app: &App, id: OrderId) -> Result<Order, Error> {
    let view = app.orders.view();
    if let Some(order) = projections::order(view, id)? {
        return Ok(order);
    }
    view.catch_up(PATIENCE).await?;
    projections::order(view, id)?.ok_or(Error::NotFound)
}
