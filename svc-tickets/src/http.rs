//! The routes of svc-tickets.

use std::time::Duration;

use contract::{Cents, TicketEvent, TicketId, UserId, money::ParseError, stream::TICKETS};
use eventstore::Recorded;
use futures::{Stream, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};
use uuid::Uuid;
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    http::StatusCode,
    path,
    reply::{Response, json, with_status},
    sse::Event,
};
use web::{ApiError, Body, Client, Proxies, Query, Seen, Session, Sessions, limit::AtOnce};

use crate::{
    commands::{self, App},
    domain::{NoTitle, Price, Rejection, Terms, Ticket, Title},
    error::Error,
    projections::{self, Search, Which},
};

/// How long a read waits for what its caller has written or seen elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);

/// When to ask again for what too many have.
const RETRY_AFTER_SECONDS: u64 = 10;

/// How many may listen at once from one address. Behind it may be many: the pages ask once for all their visitors.
const LISTENERS: usize = 100;

pub(crate) fn routes(app: &App, sessions: &Sessions, proxies: &Proxies) -> BoxedFilter<(Response,)> {
    let app = {
        let app = app.clone();
        warp::any().map(move || app.clone())
    };
    let (session, seen) = (web::session(sessions), web::seen());

    let all = path!("api" / "tickets").and(web::route("/api/tickets"));
    let events = path!("api" / "tickets" / "events").and(web::route("/api/tickets/events"));
    let one = path!("api" / "tickets" / String).and(web::route("/api/tickets/:id"));

    let list = all.and(web::get()).and(app.clone()).and(seen).and(web::query()).then(list);
    let create = all.and(web::post()).and(app.clone()).and(session.clone()).and(web::body()).then(create);
    // Before the one ticket, whose id could be any word.
    let listeners = AtOnce::new(LISTENERS);
    let other_events = events.and(web::nothing_else()).map(Ok);
    let events = events.and(web::get()).and(app.clone()).and(web::with(listeners)).and(web::client(proxies));
    let events = events.then(self::events);
    let read = one.and(web::get()).and(app.clone()).and(seen).then(read);
    let edit = one.and(web::put()).and(app).and(seen).and(session).and(web::body()).then(edit);

    list.or(create)
        .unify()
        .or(events)
        .unify()
        .or(other_events)
        .unify()
        .or(read)
        .unify()
        .or(edit)
        .unify()
        .map(web::reply)
        .boxed()
}

async fn list(app: App, seen: Seen, query: Query) -> Result<Response, Error> {
    let page = query.page()?;
    let which = which(&query)?;
    let search = Search::parse(query.get("search").unwrap_or_default())
        .map_err(|_| ApiError::invalid("search", "Search must be at most 200 characters"))?;
    let after = page.cursor.as_deref().map(ticket_of_cursor).transpose()?;
    catch_up_with(&app, &seen).await;
    let found = commands::find(&app, which, search, after, page.limit).await?;
    Ok(match found.next {
        Some(last) => query.with_next(json(&found.tickets), last.as_bytes()),
        None => json(&found.tickets).into_response(),
    })
}

async fn create(app: App, session: Session, body: Body) -> Result<Response, Error> {
    let seller = UserId(session.user()?.id);
    let terms = terms(&body)?;
    let written = commands::list(&app, seller, terms).await?;
    let reply = with_status(json(&written.ticket), StatusCode::CREATED);
    Ok(web::with_position(reply, TICKETS.name, written.sequence))
}

async fn read(id: String, app: App, seen: Seen) -> Result<Response, Error> {
    let id = ticket_id(&id)?;
    catch_up_with(&app, &seen).await;
    Ok(json(&commands::read(&app, id).await?).into_response())
}

async fn edit(id: String, app: App, seen: Seen, session: Session, body: Body) -> Result<Response, Error> {
    let by = UserId(session.user()?.id);
    let terms = terms(&body)?;
    let id = ticket_id(&id)?;
    catch_up_with(&app, &seen).await;
    let written = commands::edit(&app, id, by, terms).await?;
    Ok(web::with_position(json(&written.ticket), TICKETS.name, written.sequence))
}

async fn events(app: App, listeners: AtOnce<Client>, client: Client) -> Result<Response, Error> {
    let listener = listeners.take(client).ok_or_else(|| ApiError::too_many_requests(RETRY_AFTER_SECONDS))?;
    Ok(web::sse(listener, told(app.tickets.view().changes(), |recorded| change(recorded))))
}

/// What happens from now on; `reload` in place of what came too fast for this reader.
fn told<T: Clone>(
    changes: Receiver<T>,
    tell: impl Fn(&T) -> Option<Event> + Copy,
) -> impl Stream<Item = Event> {
    stream::unfold(changes, move |mut changes| async move {
        let event = match changes.recv().await {
            Ok(change) => tell(&change)?,
            Err(RecvError::Lagged(missed)) => Event::default().event("reload").data(missed.to_string()),
            Err(RecvError::Closed) => return None,
        };
        Some((event, changes))
    })
}

/// The ticket as it is after the event.
fn change(recorded: &Recorded<TicketEvent>) -> Option<Event> {
    let ticket = projections::shown(&Ticket::from(&recorded.event), recorded.version);
    Event::default().event("ticket").id(recorded.sequence.to_string()).json_data(ticket).ok()
}

/// What a body says of a ticket, or one message for each field that is wrong.
fn terms(body: &Body) -> Result<Terms, ApiError> {
    let mut fields = body.fields()?;
    let title = fields.judge("title", |value| {
        Title::parse(value.as_str().unwrap_or_default()).map_err(|wrong| match wrong {
            NoTitle::Empty => "Title is required",
            NoTitle::TooLong => "Title must be at most 200 characters",
        })
    });
    let price = fields.judge("price", |value| match Cents::try_from(value) {
        Ok(amount) => Price::of(amount).ok_or("Price must be greater than 0"),
        Err(ParseError::NotDecimal) => Err("Price must be greater than 0"),
        Err(ParseError::TooPrecise) => Err("Price must have at most 2 decimals"),
        Err(ParseError::TooLarge) => Err("Price must be at most 999999.99"),
    });
    let (title, price) = fields.finish(title.zip(price))?;
    Ok(Terms { title, price })
}

/// Which tickets are asked for. A seller's are listed whatever their status.
fn which(query: &Query) -> Result<Which, ApiError> {
    let of_status = match query.get("status") {
        None => Which::Available,
        Some("all") => Which::All,
        Some(_) => return Err(ApiError::invalid("status", "Status must be all, or left out")),
    };
    match query.get("userId").map(str::parse::<UserId>) {
        None => Ok(of_status),
        Some(Ok(seller)) => Ok(Which::Of(seller)),
        Some(Err(_)) => Err(ApiError::invalid("userId", "UserId must be an id")),
    }
}

/// Waits for what the caller has written or seen on another replica. In vain is no error: it reads what there is.
async fn catch_up_with(app: &App, seen: &Seen) {
    if let Some(sequence) = seen.at(TICKETS.name) {
        let _ = app.tickets.view().wait_for(sequence, PATIENCE).await;
    }
}

/// What is no id names no ticket.
fn ticket_id(text: &str) -> Result<TicketId, Rejection> {
    text.parse().map_err(|_| Rejection::NoSuchTicket)
}

fn ticket_of_cursor(cursor: &[u8]) -> Result<TicketId, ApiError> {
    Uuid::from_slice(cursor).map(TicketId).map_err(|_| web::page::invalid_cursor())
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;
    use tokio::sync::broadcast;

    use super::*;

    #[tokio::test]
    async fn a_reader_that_missed_changes_is_told_to_reload() {
        let (sender, receiver) = broadcast::channel(2);
        for change in 1..=5 {
            sender.send(change).unwrap();
        }
        drop(sender);
        let events = told(receiver, |change| Some(Event::default().data(change.to_string())));
        let events: Vec<_> = events.map(|event| event.to_string()).collect().await;
        assert_eq!(events, ["event:reload\ndata:3\n\n", "data:4\n\n", "data:5\n\n"]);
    }
}
