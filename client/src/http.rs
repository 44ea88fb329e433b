//! The routes of the pages.

use std::{sync::Arc, time::Duration};

use ::http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE},
};
use contract::{
    OrderId, TicketId,
    event::OrderStatus,
    http::{Order, Ticket, TicketStatus},
};
use maud::Markup;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};
use warp::{
    Filter, Reply,
    filters::BoxedFilter,
    path,
    path::FullPath,
    reply::{Response, html, with_status},
};
use web::{ApiError, Body, Query};

use crate::{
    api::{Answer, Api, Tickets, Upstream, encoded},
    assets,
    config::Stripe,
    error::{Error, Part, Problem, Refusal},
    forms::{Form, local_path},
    live::{self, TicketFeed},
    pages::{self, Frame, Page, orders::Standing},
};

/// How many tickets a page of them has, and how many orders.
const PAGE: usize = 50;
/// In how many of somebody's orders the one is looked for that a first click has just made.
const LATEST: usize = 20;
/// How often, and how far apart, a ticket is looked at that is known to be held.
const LOOKS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);
/// How many characters of a search the API takes.
const LONGEST_SEARCH: usize = 200;
/// When to ask again for what is not available.
const RETRY_AFTER_SECONDS: u64 = 2;

/// What all pages are made from. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) upstream: Upstream,
    pub(crate) tickets: TicketFeed,
    pub(crate) stripe: Stripe,
    /// What a page that changes by itself takes one of: each holds connections for as long as somebody looks.
    pub(crate) streams: Arc<Semaphore>,
}

/// Who looks at which page.
#[derive(Clone, Debug)]
struct Visit {
    site: Site,
    api: Api,
    path: String,
}

type Made = Result<Response, Error>;

pub(crate) fn routes(site: Site) -> BoxedFilter<(Response,)> {
    let visit = visit(site);
    let get = web::get().and(visit.clone());
    let post = web::post().and(visit.clone()).and(web::body());

    let home = path::end().and(web::route("/")).and(get.clone()).and(web::query()).then(tickets);
    let new = path!("tickets" / "new").and(web::route("/tickets/new"));
    let ticket = path!("tickets" / TicketId).and(web::route("/tickets/:id"));
    let buy = path!("tickets" / TicketId / "buy").and(web::route("/tickets/:id/buy"));
    let orders = path!("orders").and(web::route("/orders"));
    let order = path!("orders" / OrderId).and(web::route("/orders/:id"));
    let pay = path!("orders" / OrderId / "pay").and(web::route("/orders/:id/pay"));
    let cancel = path!("orders" / OrderId / "cancel").and(web::route("/orders/:id/cancel"));
    let listings = path!("listings").and(web::route("/listings"));
    let refund = path!("listings" / OrderId / "refund").and(web::route("/listings/:orderId/refund"));
    let sign_up = path!("auth" / "signup").and(web::route("/auth/signup"));
    let sign_in = path!("auth" / "signin").and(web::route("/auth/signin"));
    let sign_out = path!("auth" / "signout").and(web::route("/auth/signout"));
    let account = path!("account").and(web::route("/account"));
    let everywhere = path!("account" / "signout-all").and(web::route("/account/signout-all"));
    let erased = path!("account" / "erased").and(web::route("/account/erased"));
    let erase = path!("account" / "erase").and(web::route("/account/erase"));
    let live_tickets = path!("live" / "tickets").and(web::route("/live/tickets"));
    let live_ticket = path!("live" / "tickets" / TicketId).and(web::route("/live/tickets/:id"));
    let live_order = path!("live" / "orders" / OrderId).and(web::route("/live/orders/:id"));
    let asset = path!("assets" / String).and(web::route("/assets/:name"));
    let docs = path!("api" / "docs").and(web::route("/api/docs"));
    let openapi = path!("api" / "docs" / "openapi.json").and(web::route("/api/docs/openapi.json"));

    let reading = home
        .or(new.and(get.clone()).then(new_ticket))
        .unify()
        .or(ticket.and(get.clone()).then(self::ticket))
        .unify()
        .or(orders.and(get.clone()).and(web::query()).then(self::orders))
        .unify()
        .or(order.and(get.clone()).then(self::order))
        .unify()
        .or(listings.and(get.clone()).and(web::query()).then(self::listings))
        .unify()
        .or(sign_up.and(get.clone()).and(web::query()).then(sign_up_form))
        .unify()
        .or(sign_in.and(get.clone()).and(web::query()).then(sign_in_form))
        .unify()
        .or(sign_out.and(get.clone()).then(sign_out_form))
        .unify()
        .or(account.and(get.clone()).then(self::account))
        .unify()
        .or(erased.and(get.clone()).then(self::erased))
        .unify()
        .or(refund.and(get.clone()).and(web::query()).then(confirm_refund))
        .unify()
        .or(live_tickets.and(get.clone()).then(self::live_tickets))
        .unify()
        .or(live_ticket.and(get.clone()).then(self::live_ticket))
        .unify()
        .or(live_order.and(get.clone()).then(self::live_order))
        .unify()
        .or(docs.and(get.clone()).then(self::docs))
        .unify()
        .or(openapi.and(web::get()).map(self::openapi))
        .unify()
        // Where a form was sent to, the page is that it was on: for whoever reloads, or comes back.
        .or(buy.map(|_| ()).untuple_one().and(get.clone()).then(page_of_form))
        .unify()
        .or(pay.map(|_| ()).untuple_one().and(get.clone()).then(page_of_form))
        .unify()
        .or(cancel.map(|_| ()).untuple_one().and(get.clone()).then(page_of_form))
        .unify()
        .or(everywhere.and(get.clone()).then(page_of_form))
        .unify()
        .or(erase.and(get).then(page_of_form))
        .unify()
        .or(asset.and(web::get()).and(web::query()).map(asset_file))
        .unify()
        .boxed();
    let writing = new
        .and(post.clone())
        .then(list_ticket)
        .or(ticket.and(post.clone()).then(edit_ticket))
        .unify()
        .or(buy.and(post.clone()).then(self::buy))
        .unify()
        .or(pay.and(post.clone()).then(self::pay))
        .unify()
        .or(cancel.and(post.clone()).then(self::cancel))
        .unify()
        .or(refund.and(post.clone()).then(self::refund))
        .unify()
        .or(sign_up.and(post.clone()).then(self::sign_up))
        .unify()
        .or(sign_in.and(post.clone()).then(self::sign_in))
        .unify()
        .or(sign_out.and(post.clone()).then(self::sign_out))
        .unify()
        .or(everywhere.and(post.clone()).then(sign_out_everywhere))
        .unify()
        .or(erase.and(post).then(self::erase))
        .unify()
        .boxed();
    // Last: what nobody took is a page too.
    let nothing = warp::any().map(|| Err(Error::NotFound));

    visit.and(reading.or(writing).unify().or(nothing).unify()).then(finish).boxed()
}

fn visit(
    site: Site,
) -> impl Filter<Extract = (Visit,), Error = std::convert::Infallible> + Clone + Send + Sync {
    let peer = web::peer().map(Some).or(warp::any().map(|| None)).unify();
    warp::header::headers_cloned().and(peer).and(path::full()).map(
        move |headers: HeaderMap, peer, path: FullPath| Visit {
            api: site.upstream.on_behalf_of(&headers, peer),
            site: site.clone(),
            path: path.as_str().to_owned(),
        },
    )
}

async fn tickets(visit: Visit, query: Query) -> Made {
    let search: String =
        query.get("search").unwrap_or_default().trim().chars().take(LONGEST_SEARCH).collect();
    let (search, cursor) = (search.as_str(), query.get("cursor"));
    let tickets = visit.api.tickets(Tickets::ForSale { search }, cursor, PAGE).await?;
    Ok(visit.page("Tickets for sale", pages::tickets::list(&tickets, search, cursor)))
}

async fn new_ticket(visit: Visit) -> Made {
    // Now, and not when the form is filled in.
    visit.api.current_user().await?.ok_or(Error::NotAuthorized)?;
    Ok(visit.page("Sell a ticket", pages::tickets::new(&Form::default())))
}

async fn list_ticket(visit: Visit, body: Body) -> Made {
    let form = sent(&body)?;
    match visit.api.list_ticket(form.value("title"), form.value("price")).await {
        Ok(Answer { body: ticket, cookies }) => Ok(see(&format!("/tickets/{}", ticket.id), cookies)),
        Err(error) => {
            let (status, form) = form.refused(error)?;
            Ok(visit.form(status, "Sell a ticket", &form, pages::tickets::new(&form)))
        }
    }
}

async fn ticket(id: TicketId, visit: Visit) -> Made {
    let (ticket, viewer) = tokio::join!(visit.api.ticket(id), visit.viewer());
    let ticket = ticket?;
    Ok(visit.page(&ticket.title, pages::tickets::one(&ticket, viewer, None)))
}

async fn edit_ticket(id: TicketId, visit: Visit, body: Body) -> Made {
    let form = sent(&body)?;
    match visit.api.edit_ticket(id, form.value("title"), form.value("price")).await {
        Ok(Answer { body: ticket, cookies }) => Ok(see(&format!("/tickets/{}", ticket.id), cookies)),
        Err(error) => {
            let (status, form) = form.refused(error)?;
            let (ticket, viewer) = tokio::join!(visit.api.ticket(id), visit.viewer());
            let ticket = ticket?;
            let content = pages::tickets::one(&ticket, viewer, Some(&form));
            Ok(visit.form(status, &ticket.title, &form, content))
        }
    }
}

async fn buy(id: TicketId, visit: Visit, _: Body) -> Made {
    match visit.api.reserve(id).await {
        Ok(Answer { body: order, cookies }) => Ok(see(&format!("/orders/{}", order.id), cookies)),
        Err(Error::Refused(refusal)) => {
            // Whoever clicked twice has it already.
            let latest = visit.api.orders(None, LATEST).await?.items;
            let live = |order: &&Order| order.ticket.id == id && order.status != OrderStatus::Cancelled;
            if let Some(order) = latest.iter().find(live) {
                return Ok(see(&format!("/orders/{}", order.id), Vec::new()));
            }
            let (ticket, viewer) = tokio::join!(visit.held_ticket(id), visit.viewer());
            let ticket = ticket?;
            let content = pages::tickets::one(&ticket, viewer, None);
            Ok(visit.problems(refusal.status, &ticket.title, &refusal.problems, content))
        }
        Err(error) => Err(error),
    }
}

async fn orders(visit: Visit, query: Query) -> Made {
    let cursor = query.get("cursor");
    let orders = visit.api.orders(cursor, PAGE).await?;
    Ok(visit.page("My orders", pages::orders::list(&orders, cursor)))
}

async fn order(id: OrderId, visit: Visit) -> Made {
    let standing = Standing::of(&visit.api, id).await?;
    Ok(visit.page(standing.title(), pages::orders::one(&standing, &visit.site.stripe)))
}

async fn pay(id: OrderId, visit: Visit, body: Body) -> Made {
    let form = sent(&body)?;
    match visit.api.pay(id, form.value("token")).await {
        Ok(Answer { cookies, .. }) => Ok(see(&format!("/orders/{id}"), cookies)),
        Err(Error::Refused(refusal)) => visit.order_with(id, refusal).await,
        Err(error) => Err(error),
    }
}

async fn cancel(id: OrderId, visit: Visit, _: Body) -> Made {
    match visit.api.cancel(id).await {
        Ok(Answer { cookies, .. }) => Ok(see(&format!("/orders/{id}"), cookies)),
        Err(Error::Refused(refusal)) => visit.order_with(id, refusal).await,
        Err(error) => Err(error),
    }
}

async fn listings(visit: Visit, query: Query) -> Made {
    let content = visit.listings(query.get("cursor")).await?;
    Ok(visit.page("My listings", content))
}

async fn confirm_refund(order: OrderId, visit: Visit, query: Query) -> Made {
    let ticket = query.get("ticket").and_then(|id| id.parse().ok()).ok_or(Error::NotFound)?;
    let sales = visit.api.sales(&[ticket]).await?;
    let sale = sales.iter().find(|sale| sale.order_id == order).ok_or(Error::NotFound)?;
    Ok(visit.page("Give the money back?", pages::listings::confirm(sale)))
}

async fn refund(order: OrderId, visit: Visit, _: Body) -> Made {
    match visit.api.refund(order).await {
        Ok(Answer { cookies, .. }) => Ok(see("/listings", cookies)),
        Err(Error::Refused(refusal)) => {
            let content = visit.listings(None).await?;
            Ok(visit.problems(refusal.status, "My listings", &refusal.problems, content))
        }
        Err(error) => Err(error),
    }
}

async fn sign_up_form(visit: Visit, query: Query) -> Made {
    Ok(visit.page("Sign up", pages::account::sign_up(&going_on(&query))))
}

async fn sign_up(visit: Visit, body: Body) -> Made {
    let form = sent(&body)?;
    match visit.api.sign_up(form.value("email"), form.value("password")).await {
        Ok(Answer { cookies, .. }) => Ok(see(local_path(form.value("next")), cookies)),
        Err(error) => {
            let (status, form) = form.refused(error)?;
            Ok(visit.form(status, "Sign up", &form, pages::account::sign_up(&form)))
        }
    }
}

async fn sign_in_form(visit: Visit, query: Query) -> Made {
    Ok(visit.page("Sign in", pages::account::sign_in(&going_on(&query))))
}

async fn sign_in(visit: Visit, body: Body) -> Made {
    let form = sent(&body)?;
    match visit.api.sign_in(form.value("email"), form.value("password")).await {
        Ok(Answer { cookies, .. }) => Ok(see(local_path(form.value("next")), cookies)),
        Err(error) => {
            let (status, form) = form.refused(error)?;
            Ok(visit.form(status, "Sign in", &form, pages::account::sign_in(&form)))
        }
    }
}

async fn sign_out_form(visit: Visit) -> Made {
    Ok(visit.page("Sign out", pages::account::sign_out()))
}

async fn sign_out(visit: Visit, _: Body) -> Made {
    Ok(see("/", visit.api.sign_out().await?.cookies))
}

async fn sign_out_everywhere(visit: Visit, _: Body) -> Made {
    Ok(see("/", visit.api.sign_out_everywhere().await?.cookies))
}

async fn account(visit: Visit) -> Made {
    let content = visit.account(&Form::default()).await?;
    Ok(visit.page("My account", content))
}

async fn erase(visit: Visit, body: Body) -> Made {
    let form = sent(&body)?;
    match visit.api.erase(form.value("password")).await {
        Ok(Answer { cookies, .. }) => Ok(see("/account/erased", cookies)),
        Err(error) => {
            let (status, form) = form.refused(error)?;
            let content = visit.account(&form).await?;
            Ok(visit.form(status, "My account", &form, content))
        }
    }
}

async fn erased(visit: Visit) -> Made {
    Ok(visit.page("Your account is erased", pages::account::erased()))
}

async fn page_of_form(visit: Visit) -> Made {
    Ok(see(page_of(&visit.path), Vec::new()))
}

async fn live_tickets(visit: Visit) -> Made {
    let place = visit.place()?;
    Ok(live::tickets(&visit.site.tickets, place))
}

async fn live_ticket(id: TicketId, visit: Visit) -> Made {
    let place = visit.place()?;
    live::ticket(&visit.site.tickets, &visit.api, id, place).await
}

async fn live_order(id: OrderId, visit: Visit) -> Made {
    let place = visit.place()?;
    live::order(visit.api, visit.site.stripe, id, place).await
}

fn asset_file(name: String, query: Query) -> Made {
    assets::asset(&name, query.get("v"))
}

async fn docs(visit: Visit) -> Made {
    Ok(visit.page("The API", pages::docs::page()))
}

fn openapi() -> Made {
    let mut response = pages::docs::for_programs().into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

impl Visit {
    /// The ticket, of which somebody's order holds it: it may take a moment until it shows that.
    async fn held_ticket(&self, id: TicketId) -> Result<Ticket, Error> {
        for _ in 0..LOOKS {
            let ticket = self.api.ticket(id).await?;
            if ticket.status != TicketStatus::Available {
                return Ok(ticket);
            }
            sleep(BETWEEN_LOOKS).await;
        }
        self.api.ticket(id).await
    }

    /// A place among those who look at pages that change by themselves.
    fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        let place = self.site.streams.clone().try_acquire_owned();
        place.map_err(|_| Error::Unavailable(Part::Tickets))
    }

    /// Who looks, as far as that can be said: a page does not fail for it.
    async fn viewer(&self) -> Option<contract::UserId> {
        self.api.current_user().await.ok().flatten().map(|user| user.id)
    }

    async fn account(&self, form: &Form) -> Result<Markup, Error> {
        let user = self.api.current_user().await?.ok_or(Error::NotAuthorized)?;
        Ok(pages::account::account(&user.email, form))
    }

    async fn listings(&self, cursor: Option<&str>) -> Result<Markup, Error> {
        let user = self.api.current_user().await?.ok_or(Error::NotAuthorized)?;
        let tickets = self.api.tickets(Tickets::Of(user.id), cursor, PAGE).await?;
        let ids: Vec<TicketId> = tickets.items.iter().map(|ticket| ticket.id).collect();
        let sales = self.api.sales(&ids).await?;
        Ok(pages::listings::list(&tickets, &sales, cursor))
    }

    /// The order's page, with why what was just asked for came to nothing.
    async fn order_with(&self, id: OrderId, refusal: Refusal) -> Made {
        let standing = Standing::of(&self.api, id).await?;
        let content = pages::orders::one(&standing, &self.site.stripe);
        Ok(self.problems(refusal.status, standing.title(), &refusal.problems, content))
    }

    fn page(&self, title: &str, content: Markup) -> Response {
        self.problems(StatusCode::OK, title, &[], content)
    }

    fn form(&self, status: StatusCode, title: &str, form: &Form, content: Markup) -> Response {
        self.problems(status, title, form.problems(), content)
    }

    fn problems(&self, status: StatusCode, title: &str, problems: &[Problem], content: Markup) -> Response {
        let frame = Frame { path: &self.path, signed_in: self.api.has_session(), stripe: &self.site.stripe };
        let page = Page { title, problems, content }.render(frame);
        let page = with_status(html(page.into_string()), status).into_response();
        // Of a session that was renewed while the page was made.
        keeping(page, self.api.renewed())
    }
}

/// What a form sent.
fn sent(body: &Body) -> Result<Form, Error> {
    Form::sent(body).map_err(|error| {
        let problems = error.entries().iter();
        let problems =
            problems.map(|entry| Problem { message: entry.message.clone(), field: None }).collect();
        Error::Refused(Refusal { status: error.status(), problems, retry_after: None })
    })
}

/// An empty form that remembers where to go on to.
fn going_on(query: &Query) -> Form {
    match query.get("next").map(local_path) {
        Some(next) if next != "/" => Form::holding([("next", next.to_owned())]),
        _ => Form::default(),
    }
}

/// 303: the answer to a form that was taken. Reloading it sends nothing again.
fn see(path: &str, cookies: Vec<HeaderValue>) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    let location = HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static("/"));
    response.headers_mut().insert(LOCATION, location);
    keeping(response, cookies)
}

fn keeping(mut response: Response, cookies: Vec<HeaderValue>) -> Response {
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// Makes a page of what went wrong, and says what a browser may do with any page.
async fn finish(visit: Visit, made: Made) -> Response {
    let mut response = match made {
        Ok(response) => response,
        // Behind an ingress this is where unknown routes of the API end, too.
        Err(Error::NotFound) if visit.path == "/api" || visit.path.starts_with("/api/") => {
            ApiError::not_found().into_response()
        }
        Err(error) => failed(&visit, error).await,
    };
    if response.status() == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS.into());
    }
    let headers = response.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, policy(&visit.site.stripe));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

async fn failed(visit: &Visit, error: Error) -> Response {
    let (status, title, content) = match error {
        Error::NotAuthorized => match visit.api.current_user().await {
            Ok(Some(_)) => (StatusCode::UNAUTHORIZED, "This is not yours", pages::errors::not_yours()),
            Ok(None) => return see(&sign_in_first(&visit.path), Vec::new()),
            Err(_) => {
                let content = pages::errors::unavailable(Part::Accounts);
                (StatusCode::SERVICE_UNAVAILABLE, "Not available", content)
            }
        },
        Error::NotFound => (StatusCode::NOT_FOUND, "Page not found", pages::errors::not_found()),
        Error::Unavailable(part) => {
            (StatusCode::SERVICE_UNAVAILABLE, "Not available", pages::errors::unavailable(part))
        }
        Error::Refused(refusal) => {
            (refusal.status, "That did not work", pages::errors::refused(&refusal.problems))
        }
        Error::Unexpected(reason) => {
            tracing::error!(%reason, "no page");
            (StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong", pages::errors::wrong())
        }
    };
    visit.problems(status, title, &[], content)
}

/// The page to sign in on, which leads back to where the visitor was.
fn sign_in_first(path: &str) -> String {
    format!("/auth/signin?{}", encoded([("next", page_of(path))].into_iter()))
}

/// The page that a form was on; a page's own path else. What was sent by a button is not sent again from an address.
fn page_of(path: &str) -> &str {
    let page =
        ["/buy", "/pay", "/cancel", "/erase", "/signout-all"].iter().find_map(|verb| path.strip_suffix(verb));
    page.unwrap_or(if path.ends_with("/refund") { "/listings" } else { path })
}

/// What a browser may load: what is ours, and where cards are taken, Stripe's
/// (<https://docs.stripe.com/security/guide#content-security-policy>).
fn policy(stripe: &Stripe) -> HeaderValue {
    HeaderValue::from_static(match stripe {
        Stripe::Live(_) => {
            "default-src 'none'; script-src 'self' https://js.stripe.com https://*.js.stripe.com; \
             frame-src https://js.stripe.com https://*.js.stripe.com https://hooks.stripe.com; \
             connect-src 'self' https://api.stripe.com; style-src 'self'; img-src 'self'; \
             form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        }
        Stripe::Sandbox { .. } => {
            "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self'; img-src 'self'; \
             form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_signing_in_one_is_back_on_the_page_and_not_on_its_button() {
        let check = |path: &str, expected: &str| assert_eq!(sign_in_first(path), expected);
        check("/orders", "/auth/signin?next=%2Forders");
        check("/tickets/1/buy", "/auth/signin?next=%2Ftickets%2F1");
        check("/account/erase", "/auth/signin?next=%2Faccount");
        check("/account/signout-all", "/auth/signin?next=%2Faccount");
        check("/listings/1/refund", "/auth/signin?next=%2Flistings");
    }
}
