//! From HTTP to the books and back.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use tracing::error;
use warp::Filter;
use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, Method, Response, StatusCode};
use warp::path::FullPath;

use super::authentication::{self, Authentication, Settled};
use super::books::{Books, Intent, Record, Replay, new_id};
use super::connections::Connection;
use super::control::control;
use super::endpoints::{Endpoint, disputes};
use super::events::Cause;
use super::faults::{Faults, Mode};
use super::journal::Journal;
use super::params::Params;
use super::refusal::Refusal;
use super::webhooks::Webhooks;
use super::{LedgerEntry, OperatorError, shapes};

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) faults: Faults,
    pub(super) webhooks: Webhooks,
}

#[derive(Debug)]
struct State {
    books: Books,
    journal: Option<Journal>,
    /// Idempotency keys of the requests being worked on.
    in_use: HashSet<String>,
}

struct Answer {
    status: StatusCode,
    body: Value,
    replayed: bool,
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        Self { status: refusal.status, body: refusal.body(), replayed: false }
    }
}

/// A request for `/v1/…`.
struct Request<'a> {
    /// `req_…`
    id: &'a str,
    method: &'a Method,
    path: &'a str,
    headers: &'a HeaderMap,
    params: Params,
    connection: &'a Connection,
}

/// Who asks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// The shop, with its secret key.
    Shop,
    /// A page, with the publishable key and the client secret of one intent.
    Customer,
}

impl Shared {
    pub(super) fn new(books: Books, journal: Option<Journal>, webhooks: Webhooks) -> Self {
        let state = State { books, journal, in_use: HashSet::new() };
        Self { state: Mutex::new(state), faults: Faults::default(), webhooks }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Oldest first.
    pub(super) fn ledger(&self) -> Vec<LedgerEntry> {
        self.state().books.ledger()
    }

    pub(super) fn intent(&self, id: &str) -> Result<Intent, OperatorError> {
        let intent = self.state().books.intents.get(id).cloned();
        intent.ok_or_else(|| OperatorError::NoSuch { id: id.to_owned() })
    }

    /// What a customer does at the bank's page.
    pub(super) fn authenticate(&self, id: &str, outcome: Authentication) -> Result<Settled, OperatorError> {
        self.operate(|books| authentication::settle(books, id, outcome))
    }

    /// Returns the dispute's id.
    pub(super) fn dispute(&self, id: &str) -> Result<String, OperatorError> {
        self.operate(|books| {
            let no_such = || OperatorError::NoSuch { id: id.to_owned() };
            let charge = books.charge_of(books.intents.get(id).ok_or_else(no_such)?);
            match charge {
                Some(charge) if charge.disputed => {
                    Err(OperatorError::Unfit { id: id.to_owned(), reason: "it is disputed already" })
                }
                Some(charge) if charge.captured => Ok(disputes::raise(books, charge.clone())),
                _ => Err(OperatorError::Unfit { id: id.to_owned(), reason: "nothing was captured" }),
            }
        })
    }

    pub(super) fn forget_keys(&self) {
        let state = &mut *self.state();
        state.books.put(Record::KeysForgotten {});
        self.commit(state, &Cause::default());
    }

    fn operate<T>(
        &self,
        act: impl FnOnce(&mut Books) -> Result<T, OperatorError>,
    ) -> Result<T, OperatorError> {
        let state = &mut *self.state();
        let done = act(&mut state.books)?;
        self.commit(state, &Cause::default());
        Ok(done)
    }

    /// Files what has changed, then tells of it. Whether it could be filed.
    fn commit(&self, state: &mut State, cause: &Cause) -> bool {
        let (unsaved, happened) = (state.books.take_unsaved(), state.books.take_happened());
        if let Some(journal) = &mut state.journal
            && !unsaved.is_empty()
            && let Err(e) = journal.append(&unsaved)
        {
            error!(error = %e, "the sandbox cannot keep its books");
            return false;
        }
        self.webhooks.publish(happened, cause);
        true
    }

    async fn call(&self, request: &Request<'_>) -> Result<Answer, Refusal> {
        let Request { method, path, headers, params, connection, .. } = request;
        let caller = self.authorize(request)?;
        let endpoint =
            Endpoint::find(method, path).ok_or_else(|| Refusal::no_such_url(method.as_str(), path))?;
        let key = if *method == Method::POST { idempotency_key(headers)? } else { None };

        let about = endpoint.about(&self.state().books, params);
        let met = self.faults.meet(endpoint.step(), &about);
        match met.mode {
            Some(Mode::Down) => {
                let message = "The sandbox was told to be down.";
                return Err(Refusal::failure(StatusCode::SERVICE_UNAVAILABLE, message));
            }
            Some(Mode::Status500) => return Err(told_to_fail()),
            Some(Mode::Status429) => return Err(Refusal::rate_limit()),
            Some(Mode::ResetBefore) => match connection.reset().await {},
            _ => {}
        }
        let claim = key.map(|key| Claim::new(self, key)).transpose()?;
        // When the client leaves, this future is dropped here, and nothing is done.
        met.hold_if(Mode::HoldBefore).await;
        met.delay().await;
        let answer = self.act(endpoint, request, key, met.mode);
        drop(claim);
        if met.mode == Some(Mode::ResetAfter) {
            match connection.reset().await {}
        }
        met.hold_if(Mode::HoldAfter).await;
        let answer = answer?;
        Ok(match caller {
            Caller::Shop => answer,
            Caller::Customer => Answer { body: shapes::for_customer(answer.body), ..answer },
        })
    }

    /// Does it, unless it was done before. Once here, a request is done and on file, whoever still listens.
    fn act(
        &self,
        endpoint: Endpoint<'_>,
        request: &Request<'_>,
        key: Option<&str>,
        mode: Option<Mode>,
    ) -> Result<Answer, Refusal> {
        let state = &mut *self.state();
        let fingerprint = format!("{}?{}", request.path, request.params.fingerprint());
        if let Some(replay) = key.and_then(|key| state.books.replays.get(key)) {
            if replay.request != fingerprint {
                return Err(Refusal::other_parameters(&replay.key));
            }
            let status = StatusCode::from_u16(replay.status).expect("it was one");
            return Ok(Answer { status, body: replay.body.clone(), replayed: true });
        }
        let (mut answer, mut remembered) = match mode {
            Some(Mode::Status500Stored) => (told_to_fail().into(), true),
            _ => run(endpoint, &mut state.books, &request.params),
        };
        if mode == Some(Mode::Status500After) {
            (answer, remembered) = (told_to_fail().into(), true);
        }
        if let Some(key) = key.filter(|_| remembered) {
            let (key, status, body) = (key.to_owned(), answer.status.as_u16(), answer.body.clone());
            state.books.put(Replay { key, request: fingerprint, status, body });
        }
        let cause = Cause { request: Some(request.id.to_owned()), idempotency_key: key.map(str::to_owned) };
        if !self.commit(state, &cause) {
            let message = "The sandbox cannot keep its books.";
            return Err(Refusal::failure(StatusCode::INTERNAL_SERVER_ERROR, message));
        }
        Ok(answer)
    }

    fn authorize(&self, request: &Request<'_>) -> Result<Caller, Refusal> {
        let bearer = request.headers.get(AUTHORIZATION);
        let key = bearer.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        match key.or_else(|| request.params.get("key")) {
            Some(key) if key.starts_with("sk_test_") || key.starts_with("rk_test_") => Ok(Caller::Shop),
            Some(key) if key.starts_with("pk_test_") => self.authorize_customer(request),
            // A live key is a mistake in somebody's configuration.
            Some(_) => {
                Err(Refusal::unauthorized("Invalid API Key provided: this is test mode, use sk_test_..."))
            }
            None => Err(Refusal::unauthorized(
                "You did not provide an API key. You need to provide your API key in the Authorization header, \
                 using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
            )),
        }
    }

    /// As Stripe.js does, a page may look at the intent whose client secret it has.
    fn authorize_customer(&self, request: &Request<'_>) -> Result<Caller, Refusal> {
        let Some(Endpoint::Intent(id)) = Endpoint::find(request.method, request.path) else {
            return Err(Refusal::secret_key_required());
        };
        let secret = request.params.required("client_secret")?;
        match self.state().books.intents.get(id) {
            Some(intent) if intent.client_secret == secret => Ok(Caller::Customer),
            _ => Err(Refusal::not_found("payment_intent", id, "intent")),
        }
    }
}

/// Runs an endpoint and expands its answer. Whether the answer is remembered: not if it fell at validation.
fn run(endpoint: Endpoint<'_>, books: &mut Books, params: &Params) -> (Answer, bool) {
    let done = endpoint.expansions(params).and_then(|paths| {
        let mut body = endpoint.run(books, params)?;
        paths.expand(books, &mut body);
        Ok(body)
    });
    match done {
        Ok(body) => (Answer { status: StatusCode::OK, body, replayed: false }, true),
        Err(refusal) => {
            let executed = refusal.executed;
            (refusal.into(), executed)
        }
    }
}

fn told_to_fail() -> Refusal {
    Refusal::failure(StatusCode::INTERNAL_SERVER_ERROR, "The sandbox was told to fail.")
}

/// A request at work on an idempotency key. Another one with it is refused meanwhile.
struct Claim<'a> {
    shared: &'a Shared,
    key: &'a str,
}

impl<'a> Claim<'a> {
    fn new(shared: &'a Shared, key: &'a str) -> Result<Self, Refusal> {
        if !shared.state().in_use.insert(key.to_owned()) {
            return Err(Refusal::key_in_use(key));
        }
        Ok(Self { shared, key })
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.shared.state().in_use.remove(self.key);
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    match headers.get("idempotency-key").and_then(|value| value.to_str().ok()) {
        Some(key) if key.len() > 255 => Err(Refusal::key_too_long()),
        key => Ok(key.filter(|key| !key.is_empty())),
    }
}

/// `/v1/…` is Stripe's, `/_sandbox/…` is ours.
pub(super) fn routes(
    shared: Arc<Shared>,
) -> impl Filter<Extract = (Response<String>,), Error = warp::Rejection, Future: Send>
+ Clone
+ Send
+ Sync
+ 'static {
    warp::method()
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::body::bytes())
        .and(warp::ext::get::<Connection>())
        .and(warp::any().map(move || Arc::clone(&shared)))
        .then(answer)
}

async fn answer(
    method: Method,
    path: FullPath,
    headers: HeaderMap,
    query: String,
    body: Bytes,
    connection: Connection,
    shared: Arc<Shared>,
) -> Response<String> {
    let path = path.as_str();
    if let Some(path) = path.strip_prefix("/_sandbox/") {
        return control(&method, path, &body, &shared);
    }
    let form = if method == Method::GET { query.as_bytes() } else { &body[..] };
    let (id, params) = (new_id("req"), Params::parse(form));
    let of_a_page = params.get("client_secret").is_some() && method == Method::GET;
    let request =
        Request { id: &id, method: &method, path, headers: &headers, params, connection: &connection };
    let answer = shared.call(&request).await.unwrap_or_else(Answer::from);
    let mut response = json_response(answer.status, &answer.body);
    let head = response.headers_mut();
    head.insert("request-id", id.parse().expect("plain text"));
    if let Some(key) = headers.get("idempotency-key") {
        head.insert("idempotency-key", key.clone());
    }
    if answer.replayed {
        head.insert("idempotent-replayed", "true".parse().expect("plain text"));
    }
    if of_a_page { allow_any_origin(response) } else { response }
}

pub(super) fn json_response(status: StatusCode, body: &impl Serialize) -> Response<String> {
    let body = serde_json::to_string(body).expect("plain data");
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", "application/json".parse().expect("plain text"));
    response
}

/// Lets pages of other origins read an answer, and send JSON.
pub(super) fn allow_any_origin(mut response: Response<String>) -> Response<String> {
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, POST, OPTIONS"),
        ("access-control-allow-headers", "content-type"),
    ] {
        response.headers_mut().insert(name, value.parse().expect("plain text"));
    }
    response
}
