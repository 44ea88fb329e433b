//! warp plumbing for a JSON service: who asks, the error body, limits, serving, health, metrics.
//!
//! A service is a table of routes over thin handlers, given to [`serve`]:
//! ```
//! use http::StatusCode;
//! use warp::{Filter, Reply, path};
//! use web::{ApiError, Body, Health, Keys, Listener, Session, Sessions, Status};
//!
//! /// Path first, then method: a known path with another method is 405, an unknown path 404.
//! fn routes(sessions: Sessions, notes: Notes) -> impl Filter<Extract = (impl Reply,), Error = warp::Rejection> + Clone {
//!     let (notes, session) = (web::with(notes), web::session(&sessions));
//!     let add = path!("api" / "notes").and(web::post()).and(notes.clone()).and(session).and(web::body()).then(add);
//!     let read = path!("api" / "notes" / usize).and(web::get()).and(notes).then(read);
//!     add.map(web::reply).or(read.map(web::reply))
//! }
//!
//! async fn add(notes: Notes, session: Session, body: Body) -> Result<impl Reply, ApiError> {
//!     session.user()?;
//!     let mut fields = body.fields()?;
//!     let text = fields.text("text", "Text is required", |text| (!text.is_empty()).then(|| text.to_owned()));
//!     let text = fields.finish(text)?;
//!     let id = notes.add(text);
//!     Ok(warp::reply::with_status(warp::reply::json(&id), StatusCode::CREATED))
//! }
//!
//! async fn read(id: usize, notes: Notes) -> Result<impl Reply, ApiError> {
//!     notes.get(id).ok_or_else(ApiError::not_found)
//! }
//!
//! # #[derive(Clone, Default)]
//! # struct Notes(std::sync::Arc<std::sync::Mutex<Vec<String>>>);
//! # impl Notes {
//! #     fn add(&self, text: String) -> usize { let mut notes = self.0.lock().unwrap(); notes.push(text); notes.len() - 1 }
//! #     fn get(&self, id: usize) -> Option<String> { self.0.lock().unwrap().get(id).cloned() }
//! # }
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let env = web::Env::process();
//! let keys = Keys::from_env(&env)?;
//! let listener = Listener::bind(env.or("PORT", 3000, "a port number from 1 to 65535")?)?;
//! let health = Health::new();
//! health.check("notes", || Status::Ready);
//! let sessions = Sessions::new(&keys);
//! web::serve(listener, health, routes(sessions, Notes::default()), web::shutdown_signal()).await?;
//! # Ok(())
//! # }
//! ```
//!
//! | room | what it holds |
//! |---|---|
//! | `serve` `front` `service` | sockets, many services behind one, what happens around each request |
//! | `error` | [`ApiError`], [`reply`]: from a handler's result to an answer |
//! | `route` | which one took a request, and which methods there are |
//! | `session` `jwt` `origin` `cookie` `client` | who asks, from where, and whether a page of ours makes them ask |
//! | [`limit`] | how often, and how much at once |
//! | `body` [`page`] `position` | what a request brings |
//! | `sse` | an answer without end |
//! | `health` [`metrics`] `shutdown` [`env`](mod@env) | what operators see and set |
//!
//! What is absent: business nouns, TLS (the ingress ends it), CORS (pages come from the same origin), HTTP/2
//! (nothing speaks it to a service behind the ingress).

mod body;
mod client;
mod cookie;
pub mod env;
mod error;
mod front;
mod health;
mod jwt;
pub mod limit;
pub mod metrics;
mod origin;
pub mod page;
mod position;
mod route;
mod serve;
mod service;
mod session;
mod shutdown;
mod sse;

use std::convert::Infallible;

use warp::Filter;

pub use warp::sse::Event;

pub use self::{
    body::{Body, Fields, body, body_up_to},
    client::{Client, Proxies, client},
    cookie::with_cookie,
    env::{Env, telemetry_settings},
    error::{ApiError, Entry, reply},
    front::Front,
    health::{Health, Status},
    jwt::{Claims, KeyPairText, Keys, Signer},
    page::{Page, Query, query},
    position::{Seen, seen, with_position},
    route::{delete, get, nothing_else, post, put, route},
    serve::{Listener, Peer, listen, peer, serve},
    session::{Session, SessionCookie, Sessions, session},
    shutdown::shutdown_signal,
    sse::sse,
};

/// Extracts a clone of what handlers share. Takes every request.
pub fn with<T>(shared: T) -> impl Filter<Extract = (T,), Error = Infallible> + Clone + Send + Sync + 'static
where
    T: Clone + Send + Sync + 'static,
{
    warp::any().map(move || shared.clone())
}
