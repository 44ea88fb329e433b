//! The routes of svc-orders.

use std::time::Duration;

use contract::{
    OrderId, TicketId, UserId,
    stream::{ORDERS, TICKETS, order_subject},
};
use futures::{Stream, StreamExt, stream};
use serde::Serialize;
use uuid::Uuid;
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    http::StatusCode,
    path,
    reply::{Response, json, with_status},
    sse::Event,
};
use web::{ApiError, Body, Query, Seen, Session, Sessions, limit::AtOnce};

use crate::{
    commands::{self, App},
    error::Error,
    projections::{self, Page},
};

/// How long a read waits for what its caller has written or seen elsewhere.
const PATIENCE: Duration = Duration::from_secs(2);

/// How many orders one user may watch at once.
const WATCHED: usize = 20;

/// When to ask again for what too many have.
const RETRY_AFTER_SECONDS: u64 = 10;

/// Of how many tickets at once the latest sales may be asked for.
const SALES_OF: usize = 100;

pub(crate) fn routes(app: &App, sessions: &Sessions) -> BoxedFilter<(Response,)> {
    let app = {
        let app = app.clone();
        warp::any().map(move || app.clone())
    };
    let caller = app.and(web::session(sessions)).and(web::seen());

    let all = path!("api" / "orders").and(web::route("/api/orders"));
    let sales = path!("api" / "orders" / "sales").and(web::route("/api/orders/sales"));
    let one = path!("api" / "orders" / String).and(web::route("/api/orders/:id"));
    let history = path!("api" / "orders" / String / "history").and(web::route("/api/orders/:id/history"));
    let events = path!("api" / "orders" / String / "events").and(web::route("/api/orders/:id/events"));

    let create = all.and(web::post()).and(caller.clone()).and(web::body()).then(create).map(web::reply);
    let list = all.and(web::get()).and(caller.clone()).and(web::query()).then(list).map(web::reply);
    // Before the one order, whose id could be any word.
    let other_sales = sales.and(web::nothing_else());
    let sales = sales.and(web::get()).and(caller.clone()).and(web::query()).then(self::sales).map(web::reply);
    let read = one.and(web::get()).and(caller.clone()).then(read).map(web::reply);
    let cancel = one.and(web::delete()).and(caller.clone()).then(cancel).map(web::reply);
    let history = history.and(web::get()).and(caller.clone()).then(self::history).map(web::reply);
    let watchers = web::with(AtOnce::new(WATCHED));
    let events = events.and(web::get()).and(caller).and(watchers).then(self::events).map(web::reply);

    create
        .or(list)
        .unify()
        .or(sales)
        .unify()
        .or(other_sales)
        .unify()
        .or(read)
        .unify()
        .or(cancel)
        .unify()
        .or(history)
        .unify()
        .or(events)
        .unify()
        .boxed()
}

async fn create(app: App, session: Session, seen: Seen, body: Body) -> Result<Response, Error> {
    let buyer = UserId(session.user()?.id);
    let mut fields = body.fields()?;
    let ticket = fields.text("ticketId", "TicketId must be provided", |text| text.parse::<TicketId>().ok());
    let ticket = fields.finish(ticket)?;
    catch_up_with(&app, &seen).await;
    let placed = commands::create(&app, buyer, ticket).await?;
    let reply = with_status(json(&placed.order), StatusCode::CREATED);
    Ok(web::with_position(reply, ORDERS.name, placed.sequence))
}

async fn list(app: App, session: Session, seen: Seen, query: Query) -> Result<Response, Error> {
    let buyer = UserId(session.user()?.id);
    let page = query.page()?;
    let direction = match query.get("order") {
        None => eventstore::Order::Ascending,
        Some("newest") => eventstore::Order::Descending,
        Some(_) => return Err(ApiError::invalid("order", "Order must be newest, or left out").into()),
    };
    let after = page.cursor.as_deref().map(order_of_cursor).transpose()?;
    catch_up_with(&app, &seen).await;
    let orders = projections::orders_of(app.orders.view(), buyer, direction, after, page.limit)?;
    Ok(paged(&query, &orders))
}

async fn sales(app: App, session: Session, seen: Seen, query: Query) -> Result<Response, Error> {
    let seller = UserId(session.user()?.id);
    let page = query.page()?;
    let after = page.cursor.as_deref().map(order_of_cursor).transpose()?;
    let tickets = query.get_all("ticketId").map(str::parse::<TicketId>).collect::<Result<Vec<_>, _>>();
    let tickets = tickets.ok().filter(|tickets| tickets.len() <= SALES_OF);
    let tickets =
        tickets.ok_or_else(|| ApiError::invalid("ticketId", "TicketId must be an id, at most 100 times"))?;
    catch_up_with(&app, &seen).await;
    if !tickets.is_empty() {
        return Ok(json(&commands::latest_sales(&app, seller, &tickets)?).into_response());
    }
    Ok(paged(&query, &commands::sales(&app, seller, after, page.limit).await?))
}

async fn read(id: String, app: App, session: Session, seen: Seen) -> Result<Response, Error> {
    let reader = UserId(session.user()?.id);
    catch_up_with(&app, &seen).await;
    let order = commands::read(&app, order_id(&id)?, reader).await?;
    Ok(json(&order).into_response())
}

async fn cancel(id: String, app: App, session: Session, seen: Seen) -> Result<Response, Error> {
    let by = UserId(session.user()?.id);
    catch_up_with(&app, &seen).await;
    let sequence = commands::cancel(&app, order_id(&id)?, by).await?;
    Ok(web::with_position(StatusCode::NO_CONTENT, ORDERS.name, sequence))
}

async fn history(id: String, app: App, session: Session, seen: Seen) -> Result<Response, Error> {
    let reader = UserId(session.user()?.id);
    catch_up_with(&app, &seen).await;
    let order = commands::read(&app, order_id(&id)?, reader).await?;
    Ok(json(&projections::history(app.orders.view(), order.id)?).into_response())
}

async fn events(
    id: String,
    app: App,
    session: Session,
    seen: Seen,
    watchers: AtOnce<UserId>,
) -> Result<Response, Error> {
    let reader = UserId(session.user()?.id);
    catch_up_with(&app, &seen).await;
    let order = commands::read(&app, order_id(&id)?, reader).await?;
    let watcher = watchers.take(reader).ok_or_else(|| ApiError::too_many_requests(RETRY_AFTER_SECONDS))?;
    Ok(web::sse(watcher, changes(app, order).take_until(session.over())))
}

/// The order as it is now, then as it is after each of its events.
fn changes(app: App, order: contract::http::Order) -> impl Stream<Item = Event> {
    let watch = app.orders.view().watch(&order_subject(order.ticket.id));
    let told: Option<u64> = None;
    stream::unfold((app, watch, order.id, told), |(app, mut watch, id, told)| async move {
        loop {
            // Marked as seen before it is read: what happens in between is told next.
            watch.mark_unchanged();
            let order = projections::order(app.orders.view(), id).ok()??;
            if told != Some(order.version) {
                let event = Event::default().event("order").id(order.version.to_string());
                let event = event.json_data(&order).ok()?;
                return Some((event, (app, watch, id, Some(order.version))));
            }
            watch.changed().await.ok()?;
        }
    })
}

/// Waits for what the caller has written or seen on another replica. In vain is no error: it reads what there is.
async fn catch_up_with(app: &App, seen: &Seen) {
    if let Some(sequence) = seen.at(ORDERS.name) {
        let _ = app.orders.view().wait_for(sequence, PATIENCE).await;
    }
    if let Some(sequence) = seen.at(TICKETS.name) {
        let _ = app.tickets.wait_for(sequence, PATIENCE).await;
    }
}

fn paged<T: Serialize>(query: &Query, page: &Page<T>) -> Response {
    match page.next {
        Some(last) => query.with_next(json(&page.items), last.as_bytes()),
        None => json(&page.items).into_response(),
    }
}

fn order_of_cursor(cursor: &[u8]) -> Result<OrderId, ApiError> {
    Uuid::from_slice(cursor).map(OrderId).map_err(|_| web::page::invalid_cursor())
}

fn order_id(text: &str) -> Result<OrderId, Error> {
    text.parse().map_err(|_| Error::NotFound)
}
