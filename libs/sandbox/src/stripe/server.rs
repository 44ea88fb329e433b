//! From HTTP to the books and back.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tracing::error;
use warp::Filter;
use warp::http::header::AUTHORIZATION;
use warp::http::{HeaderMap, Method, Response, StatusCode};
use warp::path::FullPath;

use super::books::{Books, Journal, Replay, new_id};
use super::endpoints::Endpoint;
use super::faults::{Fault, Faults, Mode};
use super::params::Params;
use super::refusal::Refusal;
use super::{Error, LedgerEntry};

/// Far more than any request has.
const LONGEST_BODY: u64 = 64 * 1024;

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    state: Mutex<State>,
    pub(super) faults: Faults,
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

impl Shared {
    pub(super) fn new(books: Books, journal: Option<Journal>) -> Self {
        let state = State { books, journal, in_use: HashSet::new() };
        Self { state: Mutex::new(state), faults: Faults::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Oldest first.
    pub(super) fn ledger(&self) -> Vec<LedgerEntry> {
        self.state().books.intents.iter().map(|intent| intent.ledger_entry()).collect()
    }

    async fn call(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
        form: &[u8],
    ) -> Result<Answer, Refusal> {
        authorize(headers)?;
        let endpoint =
            Endpoint::find(method, path).ok_or_else(|| Refusal::no_such_url(method.as_str(), path))?;
        let params = Params::parse(form);
        let key = if method == Method::POST { idempotency_key(headers)? } else { None };

        let met = self.faults.meet(endpoint.step());
        match met.mode {
            Some(Mode::Down) => {
                let message = "The sandbox was told to be down.";
                return Err(Refusal::failure(StatusCode::SERVICE_UNAVAILABLE, message));
            }
            Some(Mode::Status500) => {
                let message = "The sandbox was told to fail.";
                return Err(Refusal::failure(StatusCode::INTERNAL_SERVER_ERROR, message));
            }
            Some(Mode::HoldBefore | Mode::HoldAfter) | None => {}
        }
        let claim = key.map(|key| Claim::new(self, key)).transpose()?;
        // When the client leaves, this future is dropped here, and nothing is done.
        met.hold_if(Mode::HoldBefore).await;
        let request = format!("{path}?{}", params.fingerprint());
        let answer = self.act(endpoint, &params, claim.as_ref().map(|claim| claim.key), request);
        drop(claim);
        met.hold_if(Mode::HoldAfter).await;
        answer
    }

    /// Does it, unless it was done before. Once here, a request is done and on file, whoever still listens.
    fn act(
        &self,
        endpoint: Endpoint<'_>,
        params: &Params,
        key: Option<&str>,
        request: String,
    ) -> Result<Answer, Refusal> {
        let state = &mut *self.state();
        if let Some(replay) = key.and_then(|key| state.books.replays.get(key)) {
            if replay.request != request {
                return Err(Refusal::other_parameters(&replay.key));
            }
            let status = StatusCode::from_u16(replay.status).expect("it was one");
            return Ok(Answer { status, body: replay.body.clone(), replayed: true });
        }
        let (answer, executed) = match endpoint.run(&mut state.books, params) {
            Ok(body) => (Answer { status: StatusCode::OK, body, replayed: false }, true),
            Err(refusal) => {
                (Answer { status: refusal.status, body: refusal.body(), replayed: false }, refusal.executed)
            }
        };
        if let Some(key) = key.filter(|_| executed) {
            let (key, status, body) = (key.to_owned(), answer.status.as_u16(), answer.body.clone());
            state.books.put(Replay { key, request, status, body });
        }
        let unsaved = state.books.take_unsaved();
        if let Some(journal) = &mut state.journal
            && !unsaved.is_empty()
            && let Err(e) = journal.append(&unsaved)
        {
            error!(error = %e, "the sandbox cannot keep its books");
            return Err(Refusal::failure(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The sandbox cannot keep its books.",
            ));
        }
        Ok(answer)
    }
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

fn authorize(headers: &HeaderMap) -> Result<(), Refusal> {
    let key = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    match key {
        Some(key) if key.starts_with("sk_test_") || key.starts_with("rk_test_") => Ok(()),
        // A live key is a mistake in somebody's configuration.
        Some(_) => Err(Refusal::unauthorized("Invalid API Key provided: this is test mode, use sk_test_...")),
        None => Err(Refusal::unauthorized(
            "You did not provide an API key. You need to provide your API key in the Authorization header, \
             using Bearer auth (e.g. 'Authorization: Bearer YOUR_SECRET_KEY').",
        )),
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
) -> impl Filter<Extract = (Response<String>,), Error = warp::Rejection> + Clone {
    let with_shared = warp::any().map(move || Arc::clone(&shared));

    let ledger = warp::get()
        .and(warp::path!("_sandbox" / "ledger"))
        .and(with_shared.clone())
        .map(|shared: Arc<Shared>| json_response(StatusCode::OK, &shared.ledger()));
    let report = warp::get()
        .and(warp::path!("_sandbox" / "faults"))
        .and(with_shared.clone())
        .map(|shared: Arc<Shared>| json_response(StatusCode::OK, &shared.faults.report()));
    let add = warp::post()
        .and(warp::path!("_sandbox" / "faults"))
        .and(warp::body::content_length_limit(LONGEST_BODY))
        .and(warp::body::bytes())
        .and(with_shared.clone())
        .map(add_fault);
    let clear = warp::delete().and(warp::path!("_sandbox" / "faults")).and(with_shared.clone()).map(
        |shared: Arc<Shared>| {
            shared.faults.clear();
            json_response(StatusCode::OK, &shared.faults.report())
        },
    );
    let api = warp::method()
        .and(warp::path::full())
        .and(warp::header::headers_cloned())
        .and(warp::query::raw().or(warp::any().map(String::new)).unify())
        .and(warp::body::bytes())
        .and(with_shared)
        .then(stripe);

    ledger.or(report).unify().or(add).unify().or(clear).unify().or(api).unify()
}

async fn stripe(
    method: Method,
    path: FullPath,
    headers: HeaderMap,
    query: String,
    body: Bytes,
    shared: Arc<Shared>,
) -> Response<String> {
    let form = if method == Method::GET { query.as_bytes() } else { &body[..] };
    let answer = shared.call(&method, path.as_str(), &headers, form).await.unwrap_or_else(Answer::from);
    let mut response = json_response(answer.status, &answer.body);
    let head = response.headers_mut();
    head.insert("request-id", new_id("req").parse().expect("plain text"));
    if let Some(key) = headers.get("idempotency-key") {
        head.insert("idempotency-key", key.clone());
    }
    if answer.replayed {
        head.insert("idempotent-replayed", "true".parse().expect("plain text"));
    }
    response
}

fn add_fault(body: Bytes, shared: Arc<Shared>) -> Response<String> {
    match serde_json::from_slice::<Fault>(&body) {
        Ok(fault) => {
            shared.faults.add(fault);
            json_response(StatusCode::OK, &shared.faults.report())
        }
        Err(e) => json_response(StatusCode::BAD_REQUEST, &json!({ "error": { "message": e.to_string() } })),
    }
}

fn json_response(status: StatusCode, body: &impl Serialize) -> Response<String> {
    let body = serde_json::to_string(body).expect("plain data");
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", "application/json".parse().expect("plain text"));
    response
}

/// Reads the file, waiting a little for a predecessor that is just letting go of it.
pub(super) async fn open(path: &std::path::Path) -> Result<(Journal, Books), Error> {
    use std::time::Duration;
    use tokio::time::{Instant, sleep};

    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match Journal::open(path)? {
            Some(opened) => return Ok(opened),
            None if Instant::now() < deadline => sleep(Duration::from_millis(10)).await,
            None => return Err(Error::InUse { path: path.to_owned() }),
        }
    }
}
