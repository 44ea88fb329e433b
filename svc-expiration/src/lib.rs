//! svc-expiration: the deadlines of orders.
//!
//! It keeps no timers: an `order:created` that is not due is given back to JetStream with the time left, and comes
//! again. When it is due, stream EXPIRATIONS gets `expiration:complete`; whether that ends the order, svc-orders
//! decides.
//!
//! | room | what is there |
//! |---|---|
//! | [`domain`] | the rules |
//! | `commands` | the use case |
//! | [`projections`] | the orders that wait, the deadlines that were told |
//! | [`reactors`] | orders' events as commands |
//! | [`config`] [`error`] | what it is told, what can go wrong |
//!
//! Absent: routes of its own. It answers `/healthz`, `/readyz` and `/metrics` alone.

mod commands;
pub mod config;
pub mod domain;
pub mod error;
pub mod projections;
pub mod reactors;

use contract::stream::{EXPIRATIONS, ORDERS};
use eventstore::{Decider, Readiness, StartError, Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use warp::{Filter, reply::Response};
use web::{Health, Listener, Status};

pub use crate::{commands::App, config::Config, error::Error};

/// Runs the service until `shutdown`; then finishes what runs, and returns.
///
/// # Errors
/// When it cannot start: a setting that cannot work, a directory that cannot be used, a stream that is not ours.
pub async fn run(config: Config, listener: Listener, shutdown: CancellationToken) -> Result<(), StartError> {
    let store = Store::open(config.store, shutdown.clone()).await?;
    let app = App {
        expirations: Decider::new(store.project(EXPIRATIONS.name)?),
        orders: store.project(ORDERS.name)?,
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
    reactors::start(&tasks, &store, app, &shutdown);
    tasks.close();

    let no_routes = warp::any().and_then(async || Err::<Response, _>(warp::reject::not_found()));
    let serve = async { Ok(web::serve(listener, health, no_routes, shutdown.clone()).await?) };
    let served = tokio::try_join!(store.create_stream(EXPIRATIONS.name, EXPIRATIONS.subjects), serve);

    // Also when it could not start: what was begun is finished before the process ends.
    shutdown.cancel();
    tasks.wait().await;
    store.close().await;
    served.map(|_| ())
}
