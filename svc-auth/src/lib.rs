//! svc-auth: accounts and sessions.
//!
//! It owns stream USERS, with a subject for each email address: so one address has one account, however many replicas
//! sign up at once. The address itself is nowhere in it, see [`sealing`].
//!
//! | room | what is there |
//! |---|---|
//! | [`domain`] | the rules |
//! | `commands` | the use cases: load, decide, append |
//! | [`projections`] | what decisions read |
//! | [`sealing`] | what stands for an address, what hides it, with which key |
//! | [`user_keys`] | where each user's key is kept |
//! | [`passwords`] | slow hashing, a few at a time |
//! | `http` | the routes |
//! | [`config`] [`error`] | what it is told, what can go wrong |
//!
//! There is no room for reactors: it listens to nobody.

mod commands;
pub mod config;
pub mod domain;
pub mod error;
mod http;
pub mod passwords;
pub mod projections;
pub mod sealing;
pub mod user_keys;

use std::{io, sync::Arc};

use contract::stream::USERS;
use eventstore::{Decider, Readiness, StartError, Store};
use tokio_util::sync::CancellationToken;
use web::{Health, Listener, Status, limit::Limit};

use crate::{commands::SigninFailures, passwords::Passwords, user_keys::UserKeys};

pub use crate::{
    commands::App,
    config::Config,
    error::Error,
    sealing::{MasterKey, MasterKeys},
};

/// Runs the service until `shutdown`; then finishes what runs, and returns.
///
/// # Errors
/// When it cannot start: a setting that cannot work, a directory that cannot be used, a stream that is not ours, a
/// master key that is not the one people's data was sealed with.
pub async fn run(config: Config, listener: Listener, shutdown: CancellationToken) -> Result<(), StartError> {
    let passwords = Passwords::new(config.scrypt_log_n).await.map_err(io::Error::other)?;
    let replicas = config.store.replicas;
    let store = Store::open(config.store, shutdown.clone()).await?;
    let app = App {
        users: Decider::new(store.project(USERS.name)?),
        user_keys: UserKeys::new(store.connection(), config.master_keys),
        passwords,
        signups: Arc::new(Limit::per_minute(config.signups_per_minute)),
        signin_failures: SigninFailures::per_minute(config.signin_failures_per_minute),
    };

    let health = Health::new();
    let readiness = store.clone();
    health.check("log", move || match readiness.readiness() {
        Readiness::Ready => Status::Ready,
        Readiness::Starting(why) => Status::Starting(why),
        Readiness::Disconnected(why) => Status::Disconnected(why),
        Readiness::Broken(why) => Status::Broken(why),
    });
    let user_keys = app.user_keys.clone();
    health.check("user keys", move || match user_keys.is_open() {
        true => Status::Ready,
        false => Status::Starting("waiting for their bucket".into()),
    });

    let routes = http::routes(&app, &config.signer, config.cookie, &config.trusted_proxies);
    let create = store.create_stream(USERS.name, USERS.subjects);
    let open = async {
        app.user_keys.open(replicas, &shutdown).await?;
        app.user_keys.wrap_again(&shutdown).await;
        Ok(())
    };
    let serve = async { Ok(web::serve(listener, health, routes, shutdown.clone()).await?) };
    let served = tokio::try_join!(create, open, serve);

    // Also when it could not start: what was begun is finished before the process ends.
    shutdown.cancel();
    store.close().await;
    served.map(|_| ())
}
