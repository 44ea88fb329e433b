//! svc-payments: money, through Stripe.
//!
//! It owns stream PAYMENTS, where each order has a subject: so an order is paid once, however many replicas run. It
//! listens to its own stream and to ORDERS: a card is first authorised, then the order's log decides, and only what
//! the order awaits is captured. Nobody is charged for an order that ended in between.
//!
//! | room | what is there |
//! |---|---|
//! | [`domain`] | the rules |
//! | `commands` | the use cases: load, decide, append, and what is asked of Stripe |
//! | [`projections`] | the rows that queries and decisions read |
//! | [`reactors`] | events as commands |
//! | `stripe` | the gateway to Stripe, which decides nothing |
//! | [`webhook`] | what Stripe tells by itself, and whether it is Stripe who tells |
//! | `reconciler` | log and Stripe side by side, again and again |
//! | `http` | the routes |
//! | [`config`] [`error`] | what it is told, what can go wrong |
//!
//! Whatever is heard of Stripe, by its answer, its webhook, a poll or the reconciler, is a reason to look how an intent
//! stands there now and to lay it beside the log ([`domain::compare`]): so nothing depends on what comes twice, late or
//! never.
//!
//! What is absent: charging inside a request (a handler appends and waits; it looks, and at most gives up or back what
//! nobody waits for), card numbers (Stripe's references to them are all that comes here), and the secrets with which a
//! buyer talks to their bank.

// Stripe's objects contain each other, deeper than the compiler looks by itself.
#![recursion_limit = "256"]

mod commands;
pub mod config;
pub mod domain;
pub mod error;
mod http;
pub mod projections;
pub mod reactors;
mod reconciler;
mod stripe;
pub mod webhook;

use contract::stream::{ORDERS, PAYMENTS, TICKETS};
use eventstore::{Decider, Readiness, StartError, Store};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use web::{Health, Listener, Status};

pub use crate::{commands::App, config::Config, error::Error};

/// Runs the service until `shutdown`; then finishes what runs, and returns.
///
/// # Errors
/// When it cannot start: a setting that cannot work, a directory that cannot be used, a stream that is not ours.
pub async fn run(config: Config, listener: Listener, shutdown: CancellationToken) -> Result<(), StartError> {
    let store = Store::open(config.store, shutdown.clone()).await?;
    let sessions = service::sessions(&store, &config.keys, config.requests_per_minute)?;
    let app = App {
        payments: Decider::new(store.project(PAYMENTS.name)?),
        orders: store.project(ORDERS.name)?,
        tickets: store.project(TICKETS.name)?,
        stripe: stripe::Stripe::new(
            &config.stripe_key,
            &config.stripe_api_base,
            config.stripe_timeout,
            shutdown.clone(),
        ),
        currency: config.currency,
        patience: config.patience,
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
    tasks.spawn(reconciler::run(app.clone(), config.reconcile_every, shutdown.clone()));
    tasks.close();

    if config.webhook_secrets.is_empty() {
        tracing::warn!("STRIPE_WEBHOOK_SECRET is not set: what stripe tells by itself is not believed");
    }
    let routes = http::routes(&app, &sessions, config.webhook_secrets);
    let serve = async { Ok(web::serve(listener, health, routes, shutdown.clone()).await?) };
    let served = tokio::try_join!(store.create_stream(PAYMENTS.name, PAYMENTS.subjects), serve);

    // Also when it could not start: what was begun is finished before the process ends.
    shutdown.cancel();
    tasks.wait().await;
    store.close().await;
    served.map(|_| ())
}
