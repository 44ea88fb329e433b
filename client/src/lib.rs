//! The web pages: buying and selling in a browser.
//!
//! Rendered here, from what the HTTP API says to the visitor who asks: their cookies go along with each question, and
//! nothing is kept between two of them. Every page works by links and forms; the script makes it live.
//!
//! | room | what is there |
//! |---|---|
//! | `http` | the routes |
//! | `api` | the API, asked for a visitor |
//! | `pages` | what people see |
//! | `forms` | what people typed, and what was wrong with it |
//! | `live` | pages that change by themselves |
//! | `assets` | stylesheet, script, icon |
//! | [`config`] `error` | what it is told, what can go wrong |
//!
//! What is absent: NATS, other services' crates, sessions of its own, inline scripts and styles, and any third party but
//! Stripe.

mod api;
mod assets;
pub mod config;
mod error;
mod forms;
mod http;
mod live;
mod pages;

use std::{io, sync::Arc};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use web::{Health, Listener, Status};

pub use crate::config::Config;
use crate::{api::Upstream, http::Site, live::TicketFeed};

/// How many pages may change by themselves at once. Who comes later sees a page that does not.
const STREAMS: usize = 10_000;

/// Runs the service until `shutdown`; then finishes what runs, and returns.
///
/// It is ready at once, and stays so: while a service behind the API is down, its pages say that.
///
/// # Errors
/// When the socket cannot be listened on.
pub async fn run(config: Config, listener: Listener, shutdown: CancellationToken) -> io::Result<()> {
    let upstream = Upstream::new(&config.api_url);
    let tickets = TicketFeed::new();
    let following = tokio::spawn({
        let (tickets, upstream, shutdown) = (tickets.clone(), upstream.clone(), shutdown.clone());
        async move { shutdown.run_until_cancelled(tickets.follow(upstream)).await }
    });

    let health = Health::new();
    health.check("pages", || Status::Ready);
    let streams = Arc::new(Semaphore::new(STREAMS));
    let routes = http::routes(Site { upstream, tickets, stripe: config.stripe, streams });
    let served = web::serve(listener, health, routes, shutdown.clone()).await;

    shutdown.cancel();
    let _ = following.await;
    served
}
