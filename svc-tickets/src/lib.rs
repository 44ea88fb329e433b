//! svc-tickets: what is for sale.
//!
//! It owns stream TICKETS, one subject for each ticket. It listens to ORDERS, so that a ticket shows which order holds
//! it; whether it can be bought is not decided here but by the log of its orders.
//!
//! | room | what is there |
//! |---|---|
//! | [`domain`] | the rules |
//! | `commands` | the use cases: load, decide, append |
//! | [`projections`] | the rows that queries and decisions read |
//! | [`reactors`] | other services' events as commands |
//! | `http` | the routes |
//! | [`config`] [`error`] | what it is told, what can go wrong |

mod commands;
pub mod config;
pub mod domain;
pub mod error;
mod http;
pub mod projections;
pub mod reactors;

use std::sync::Arc;

use contract::stream::TICKETS;
use eventstore::{Decider, Readiness, StartError, Store};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use web::{Health, Listener, Status};

pub use crate::{commands::App, config::Config, error::Error};

/// How many search at once: each keeps a processor busy.
const SEARCHES: usize = 2;

/// Runs the service until `shutdown`; then finishes what runs, and returns.
///
/// # Errors
/// When it cannot start: a setting that cannot work, a directory that cannot be used, a stream that is not ours.
pub async fn run(config: Config, listener: Listener, shutdown: CancellationToken) -> Result<(), StartError> {
    let store = Store::open(config.store, shutdown.clone()).await?;
    let sessions = service::sessions(&store, &config.keys, config.requests_per_minute)?;
    let app = App {
        tickets: Decider::new(store.project(TICKETS.name)?),
        searches: Arc::new(Semaphore::new(SEARCHES)),
    };

    let health = Health::new();
    let readiness = store.clone();
    health.check("log", move || match readiness.readiness() {
        Readiness::Ready => Status::Ready,
        Readiness::Starting(why) => Status::Starting(why),
        Readiness::Disconnected(why) => Status::Disconnected(why),
        Readiness::Broken(why) => Status::Broken(why),
    });

    let tasks = TaskTracker::new();
    reactors::start(&tasks, &store, &app, &shutdown);
    tasks.close();

    let routes = http::routes(&app, &sessions, &config.trusted_proxies);
    let serve = async { Ok(web::serve(listener, health, routes, shutdown.clone()).await?) };
    let served = tokio::try_join!(store.create_stream(TICKETS.name, TICKETS.subjects), serve);

    // Also when it could not start: what was begun is finished before the process ends.
    shutdown.cancel();
    tasks.wait().await;
    store.close().await;
    served.map(|_| ())
}
