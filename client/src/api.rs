//! The HTTP API, asked for a visitor: their cookies go along, and what it sets goes back to them.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{COOKIE, LINK, RETRY_AFTER, SET_COOKIE},
};
use contract::{
    OrderId, TicketId, UserId,
    http::{HistoryEntry, Order, Payment, Sale, Ticket, User},
};
use eventsource_stream::Eventsource;
use futures::{Stream, StreamExt};
use reqwest::Client;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tracing::{Instrument, field};

use crate::{
    config::ApiUrl,
    error::{Error, Part, Problem, Refusal},
};

/// How long an answer may take. Paying waits for Stripe, and says so after eight seconds.
const PATIENCE: Duration = Duration::from_secs(15);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// How long a stream of events may be silent: the API says something every 15 s.
const SILENCE: Duration = Duration::from_secs(40);

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Where the API is. Clones share its connections.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    base: Arc<str>,
    client: Client,
}

impl Upstream {
    pub(crate) fn new(url: &ApiUrl) -> Self {
        let client = Client::builder()
            .connect_timeout(CONNECT_WITHIN)
            .read_timeout(SILENCE)
            .redirect(reqwest::redirect::Policy::none())
            // What the environment of a process says of proxies is not meant for its own ingress.
            .no_proxy()
            .build()
            .expect("a client without TLS needs nothing that could fail");
        Self { base: url.as_str().into(), client }
    }

    /// The API as somebody without cookies sees it.
    pub(crate) fn anonymous(&self) -> Api {
        Api { upstream: self.clone(), headers: HeaderMap::new(), renewed: Arc::default() }
    }

    /// The API as the sender of these headers sees it.
    pub(crate) fn on_behalf_of(&self, headers: &HeaderMap, peer: Option<web::Peer>) -> Api {
        let mut own = HeaderMap::new();
        for cookie in headers.get_all(COOKIE) {
            own.append(COOKIE, cookie.clone());
        }
        let before = headers.get_all(FORWARDED_FOR).into_iter().filter_map(|value| value.to_str().ok());
        let peer = peer.map(|peer| peer.0.ip().to_string());
        let way: Vec<_> = before.chain(peer.as_deref()).collect();
        if let Ok(way) = HeaderValue::try_from(way.join(", ")) {
            own.insert(FORWARDED_FOR, way);
        }
        Api { upstream: self.clone(), headers: own, renewed: Arc::default() }
    }
}

/// The API as one visitor sees it.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    upstream: Upstream,
    headers: HeaderMap,
    /// The cookies of a session that was renewed meanwhile. Clones share them.
    renewed: Arc<Mutex<Vec<HeaderValue>>>,
}

/// What came of asking, and the cookies that the visitor is to keep.
#[derive(Debug)]
pub(crate) struct Answer<T> {
    pub(crate) body: T,
    pub(crate) cookies: Vec<HeaderValue>,
}

/// A part of a list, and where the next one begins.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next: Option<String>,
}

/// One event of a stream of the API's.
#[derive(Debug)]
pub(crate) enum Told<T> {
    /// As it is now.
    Changed(T),
    /// Too much happened at once: what was missed has to be asked for.
    Missed,
}

/// Which tickets are asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Tickets<'a> {
    /// Those that can be bought and whose titles have these words.
    ForSale { search: &'a str },
    /// Those of one seller, whatever became of them.
    Of(UserId),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CurrentUser {
    current_user: Option<User>,
}

impl Api {
    /// Whether the visitor brings a session. Whether that is good, only an answer shows.
    pub(crate) fn has_session(&self) -> bool {
        let cookies = self.headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
        cookies.flat_map(|pairs| pairs.split(';')).any(|pair| pair.trim().starts_with("session="))
    }

    /// Who the visitor is; `None` when signed out.
    pub(crate) async fn current_user(&self) -> Result<Option<User>, Error> {
        if !self.has_session() {
            return Ok(None);
        }
        let route = "/api/users/currentuser";
        let answer = self.ask::<CurrentUser>(Method::GET, route, route, None).await?;
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner).extend(answer.cookies);
        Ok(answer.body.current_user)
    }

    /// The cookies that the visitor is to keep, as their session was renewed by asking who they are.
    pub(crate) fn renewed(&self) -> Vec<HeaderValue> {
        std::mem::take(&mut *self.renewed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) async fn sign_up(&self, email: &str, password: &str) -> Result<Answer<User>, Error> {
        let route = "/api/users/signup";
        self.ask(Method::POST, route, route, Some(json!({ "email": email, "password": password }))).await
    }

    pub(crate) async fn sign_in(&self, email: &str, password: &str) -> Result<Answer<User>, Error> {
        let route = "/api/users/signin";
        self.ask(Method::POST, route, route, Some(json!({ "email": email, "password": password }))).await
    }

    pub(crate) async fn sign_out(&self) -> Result<Answer<()>, Error> {
        let route = "/api/users/signout";
        self.tell(Method::POST, route, route, Some(json!({}))).await
    }

    /// Ends all of the visitor's sessions.
    pub(crate) async fn sign_out_everywhere(&self) -> Result<Answer<()>, Error> {
        let route = "/api/users/signout-all";
        self.tell(Method::POST, route, route, Some(json!({}))).await
    }

    /// Erases the visitor's account.
    pub(crate) async fn erase(&self, password: &str) -> Result<Answer<()>, Error> {
        let route = "/api/users/me";
        self.tell(Method::DELETE, route, route, Some(json!({ "password": password }))).await
    }

    pub(crate) async fn tickets(
        &self,
        which: Tickets<'_>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listed<Ticket>, Error> {
        let (name, value) = match which {
            Tickets::ForSale { search } => ("search", search.to_owned()),
            Tickets::Of(seller) => ("userId", seller.to_string()),
        };
        self.list("/api/tickets", &[(name, &value)], after, limit).await
    }

    pub(crate) async fn ticket(&self, id: TicketId) -> Result<Ticket, Error> {
        let path = format!("/api/tickets/{id}");
        Ok(self.ask(Method::GET, "/api/tickets/:id", &path, None).await?.body)
    }

    /// Lists a ticket. The price goes along as it was typed: the API knows what is one.
    pub(crate) async fn list_ticket(&self, title: &str, price: &str) -> Result<Answer<Ticket>, Error> {
        let route = "/api/tickets";
        self.ask(Method::POST, route, route, Some(json!({ "title": title, "price": price }))).await
    }

    pub(crate) async fn edit_ticket(
        &self,
        id: TicketId,
        title: &str,
        price: &str,
    ) -> Result<Answer<Ticket>, Error> {
        let path = format!("/api/tickets/{id}");
        let body = json!({ "title": title, "price": price });
        self.ask(Method::PUT, "/api/tickets/:id", &path, Some(body)).await
    }

    pub(crate) async fn reserve(&self, ticket: TicketId) -> Result<Answer<Order>, Error> {
        let route = "/api/orders";
        self.ask(Method::POST, route, route, Some(json!({ "ticketId": ticket }))).await
    }

    /// The visitor's orders, newest first.
    pub(crate) async fn orders(&self, after: Option<&str>, limit: usize) -> Result<Listed<Order>, Error> {
        self.list("/api/orders", &[("order", "newest")], after, limit).await
    }

    /// The newest orders for each of these tickets, which the visitor sells.
    pub(crate) async fn sales(&self, tickets: &[TicketId]) -> Result<Vec<Sale>, Error> {
        if tickets.is_empty() {
            return Ok(Vec::new());
        }
        let ids: Vec<String> = tickets.iter().map(ToString::to_string).collect();
        let query = encoded(ids.iter().map(|id| ("ticketId", id.as_str())));
        let path = format!("/api/orders/sales?{query}");
        Ok(self.ask(Method::GET, "/api/orders/sales", &path, None).await?.body)
    }

    pub(crate) async fn order(&self, id: OrderId) -> Result<Order, Error> {
        let path = format!("/api/orders/{id}");
        Ok(self.ask(Method::GET, "/api/orders/:id", &path, None).await?.body)
    }

    pub(crate) async fn history(&self, id: OrderId) -> Result<Vec<HistoryEntry>, Error> {
        let path = format!("/api/orders/{id}/history");
        Ok(self.ask(Method::GET, "/api/orders/:id/history", &path, None).await?.body)
    }

    pub(crate) async fn cancel(&self, id: OrderId) -> Result<Answer<()>, Error> {
        let path = format!("/api/orders/{id}");
        self.tell(Method::DELETE, "/api/orders/:id", &path, None).await
    }

    pub(crate) async fn pay(&self, order: OrderId, token: &str) -> Result<Answer<Payment>, Error> {
        let route = "/api/payments";
        self.ask(Method::POST, route, route, Some(json!({ "orderId": order, "token": token }))).await
    }

    /// The last try to pay for the order; `None` when nobody has tried.
    pub(crate) async fn payment(&self, order: OrderId) -> Result<Option<Payment>, Error> {
        let path = format!("/api/payments/{order}");
        match self.ask(Method::GET, "/api/payments/:orderId", &path, None).await {
            Ok(answer) => Ok(Some(answer.body)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Gives the money back that was paid for what the visitor sells.
    pub(crate) async fn refund(&self, order: OrderId) -> Result<Answer<Payment>, Error> {
        let path = format!("/api/payments/{order}/refund");
        self.ask(Method::POST, "/api/payments/:orderId/refund", &path, Some(json!({}))).await
    }

    /// Each ticket as it changes, until the connection ends.
    pub(crate) async fn ticket_changes(
        &self,
    ) -> Result<impl Stream<Item = Told<Ticket>> + Send + use<>, Error> {
        let route = "/api/tickets/events";
        Ok(events(self.open(route, route).await?))
    }

    /// The order as it is, then as it changes, until the connection ends.
    pub(crate) async fn order_changes(
        &self,
        id: OrderId,
    ) -> Result<impl Stream<Item = Told<Order>> + Send + use<>, Error> {
        let path = format!("/api/orders/{id}/events");
        Ok(events(self.open("/api/orders/:id/events", &path).await?))
    }

    async fn list<T: DeserializeOwned>(
        &self,
        route: &'static str,
        query: &[(&str, &str)],
        after: Option<&str>,
        limit: usize,
    ) -> Result<Listed<T>, Error> {
        let limit = limit.to_string();
        let cursor = after.map(|cursor| ("cursor", cursor));
        let pairs = query.iter().copied().chain([("limit", limit.as_str())]).chain(cursor);
        let path = format!("{route}?{}", encoded(pairs));
        let answer = self.send(Method::GET, route, &path, None, Some(PATIENCE)).await?;
        let next = answer.headers().get(LINK).and_then(|link| next_cursor(link.to_str().ok()?));
        Ok(Listed { items: read(answer).await?, next })
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        route: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer<T>, Error> {
        let answer = self.send(method, route, path, body, Some(PATIENCE)).await?;
        let cookies = cookies(&answer);
        Ok(Answer { body: read(answer).await?, cookies })
    }

    /// Likewise, where the answer says nothing.
    async fn tell(
        &self,
        method: Method,
        route: &'static str,
        path: &str,
        body: Option<Value>,
    ) -> Result<Answer<()>, Error> {
        let answer = self.send(method, route, path, body, Some(PATIENCE)).await?;
        Ok(Answer { body: (), cookies: cookies(&answer) })
    }

    /// Begins a stream, which may last.
    async fn open(&self, route: &'static str, path: &str) -> Result<reqwest::Response, Error> {
        self.send(Method::GET, route, path, None, None).await
    }

    /// One request, with its span: the trace of the visitor's request goes on in the API.
    async fn send(
        &self,
        method: Method,
        route: &'static str,
        path: &str,
        body: Option<Value>,
        patience: Option<Duration>,
    ) -> Result<reqwest::Response, Error> {
        let span = tracing::info_span!(
            "api",
            otel.name = format!("{method} {route}"),
            otel.kind = "client",
            otel.status_code = field::Empty,
            http.request.method = method.as_str(),
            http.response.status_code = field::Empty,
            url.path = path.split('?').next(),
            error.type = field::Empty,
        );
        let asking = async {
            let mut headers = self.headers.clone();
            telemetry::http::inject(&telemetry::http::current(), &mut headers);
            let url = format!("{}{path}", self.upstream.base);
            let mut request = self.upstream.client.request(method, url).headers(headers);
            if let Some(body) = body {
                request = request.json(&body);
            }
            if let Some(patience) = patience {
                request = request.timeout(patience);
            }
            let answer = request.send().await.map_err(|error| {
                tracing::warn!(http.route = route, %error, "the API does not answer");
                Error::Unavailable(Part::of(route))
            })?;
            tracing::Span::current().record("http.response.status_code", answer.status().as_u16());
            accepted(route, answer).await
        };
        let answer = asking.instrument(span.clone()).await;
        if let Err(error @ (Error::Unavailable(_) | Error::Unexpected(_))) = &answer {
            span.record("otel.status_code", "ERROR");
            span.record("error.type", field::display(error));
        }
        answer
    }
}

/// The answer if it is a yes, and otherwise what it says.
async fn accepted(route: &'static str, answer: reqwest::Response) -> Result<reqwest::Response, Error> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    let problems = read::<Problems>(answer).await.map(|body| body.errors).unwrap_or_default();
    Err(match status {
        StatusCode::UNAUTHORIZED => Error::NotAuthorized,
        StatusCode::NOT_FOUND => Error::NotFound,
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            Error::Unavailable(Part::of(route))
        }
        _ if status.is_client_error() && !problems.is_empty() => {
            Error::Refused(Refusal { status, problems, retry_after })
        }
        _ => {
            tracing::error!(http.route = route, http.response.status_code = status.as_u16(), "unexpected");
            Error::Unexpected(format!("{route} answered {status}"))
        }
    })
}

#[derive(Deserialize)]
struct Problems {
    errors: Vec<Problem>,
}

async fn read<T: DeserializeOwned>(answer: reqwest::Response) -> Result<T, Error> {
    let part = Part::of(answer.url().path());
    answer.json().await.map_err(|error| match error.is_decode() {
        true => Error::Unexpected(error.to_string()),
        false => Error::Unavailable(part),
    })
}

fn cookies(answer: &reqwest::Response) -> Vec<HeaderValue> {
    answer.headers().get_all(SET_COOKIE).into_iter().cloned().collect()
}

fn events<T: DeserializeOwned + Send + 'static>(
    answer: reqwest::Response,
) -> impl Stream<Item = Told<T>> + Send {
    let events = answer.bytes_stream().eventsource();
    // A connection that breaks ends the stream.
    let events = events.take_while(|event| std::future::ready(event.is_ok()));
    events.filter_map(|event| {
        let told = event.ok().and_then(|event| match event.event.as_str() {
            "reload" => Some(Told::Missed),
            _ => serde_json::from_str(&event.data).ok().map(Told::Changed),
        });
        std::future::ready(told)
    })
}

/// Pairs as a query string; those without a value are left out.
pub(crate) fn encoded<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = pairs.filter(|(_, value)| !value.is_empty());
    form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
}

/// The cursor of `<…&cursor=abc>; rel="next"`.
fn next_cursor(link: &str) -> Option<String> {
    let target = link.strip_prefix('<')?.split_once('>')?.0;
    let (_, query) = target.split_once('?')?;
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| name == "cursor")
        .map(|(_, cursor)| cursor.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_found_in_the_link() {
        let check = |link: &str, expected: Option<&str>| {
            assert_eq!(next_cursor(link).as_deref(), expected, "{link}");
        };
        check(r#"</api/tickets?limit=2&cursor=01ff>; rel="next""#, Some("01ff"));
        check(r#"</api/tickets?cursor=01&limit=2>; rel="next""#, Some("01"));
        check("nonsense", None);
    }

    #[test]
    fn cookies_and_the_way_that_a_request_came_go_along() {
        let upstream = Upstream::new(&"http://localhost:9".parse().unwrap());
        let sent = [(COOKIE, "session=abc; position_ORDERS=3"), (FORWARDED_FOR, "203.0.113.7")];
        let headers = sent.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        let api = upstream.on_behalf_of(&headers, Some(web::Peer(([127, 0, 0, 1], 1).into())));
        assert!(api.has_session());
        assert_eq!(api.headers[COOKIE], sent[0].1);
        assert_eq!(api.headers[FORWARDED_FOR], "203.0.113.7, 127.0.0.1");
        assert!(!upstream.anonymous().has_session());
    }
}
