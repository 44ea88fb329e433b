//! The use cases: load, decide, append.

use std::{sync::Arc, time::Duration};

use contract::{TicketId, UserId, http::Ticket, stream::ticket_subject};
use eventstore::{Cause, Decided, Decider};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::{
    domain::{self, Rejection, Terms},
    error::Error,
    projections::{self, Page, Search, Tickets, Which},
    reactors::FollowOrder,
};

/// How long to wait for the projection to reach the end of its stream before a ticket is said not to exist.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the use cases work on. Clones share it.
#[derive(Clone, Debug)]
pub struct App {
    pub(crate) tickets: Decider<Tickets>,
    /// How many search at once.
    pub(crate) searches: Arc<Semaphore>,
}

/// A ticket, and the sequence that a reader must have seen to see it.
pub(crate) struct Written {
    pub(crate) ticket: Ticket,
    pub(crate) sequence: u64,
}

/// Lists a ticket.
pub(crate) async fn list(app: &App, seller: UserId, terms: Terms) -> Result<Written, Error> {
    let id = TicketId(Uuid::now_v7());
    telemetry::attribute("ticket.id", id.to_string());
    let decided = app
        .tickets
        .transact(&ticket_subject(id), Cause::Command, |state| {
            Ok::<_, Rejection>(domain::list(state, id, seller, terms.clone()))
        })
        .await?;
    written(decided)
}

/// Changes a ticket's terms.
pub(crate) async fn edit(app: &App, id: TicketId, by: UserId, terms: Terms) -> Result<Written, Error> {
    telemetry::attribute("ticket.id", id.to_string());
    read(app, id).await?;
    let decided = app
        .tickets
        .transact(&ticket_subject(id), Cause::Command, |state| {
            domain::edit(domain::listed(state)?, by, terms.clone())
        })
        .await?;
    written(decided)
}

/// The ticket `id`. Another replica may have listed it a moment ago.
pub(crate) async fn read(app: &App, id: TicketId) -> Result<Ticket, Error> {
    let view = app.tickets.view();
    if let Some(ticket) = projections::ticket(view, id)? {
        return Ok(ticket);
    }
    view.catch_up(PATIENCE).await?;
    projections::ticket(view, id)?.ok_or(Error::Rejected(Rejection::NoSuchTicket))
}

/// Up to `limit` tickets that the search finds, newest first, beginning behind `after`.
pub(crate) async fn find(
    app: &App,
    which: Which,
    search: Search,
    after: Option<TicketId>,
    limit: usize,
) -> Result<Page, Error> {
    let view = app.tickets.view().clone();
    if search.is_empty() {
        return Ok(projections::find(&view, which, &search, after, limit)?);
    }
    // Off the async threads, and few at once: a search may look at thousands of rows.
    let _turn = app.searches.acquire().await.map_err(|error| Error::Internal(error.to_string()))?;
    let finding = tokio::task::spawn_blocking(move || projections::find(&view, which, &search, after, limit));
    Ok(finding.await.map_err(|error| Error::Internal(error.to_string()))??)
}

/// Lets the ticket show what its order's event, `cause`, says; nothing, when it shows that or something newer.
///
/// An unknown ticket is an error, to be tried again: orders know tickets from our own log.
pub(crate) async fn follow_order(
    app: &App,
    cause: Uuid,
    order_version: u64,
    FollowOrder { ticket, hold }: FollowOrder,
) -> Result<(), Error> {
    telemetry::attribute("ticket.id", ticket.to_string());
    app.tickets
        .transact(&ticket_subject(ticket), Cause::Event(cause), |state| {
            Ok::<_, Rejection>(domain::follow_order(domain::listed(state)?, order_version, hold))
        })
        .await?;
    Ok(())
}

fn written(decided: Decided<Tickets>) -> Result<Written, Error> {
    match (decided.state, decided.version) {
        (Some(ticket), Some(version)) => {
            Ok(Written { ticket: projections::shown(&ticket, version), sequence: decided.sequence })
        }
        _ => Err(Error::Internal("a command left no ticket".into())),
    }
}
