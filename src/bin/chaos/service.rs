//! One service as a process of its own: this program again, told which.

use std::{
    fmt, io,
    os::{fd::AsFd, unix::process::parent_id},
    time::Duration,
};

use anyhow::Context;
use clap::ValueEnum;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use web::{Env, Listener};

/// How often a service looks whether whoever started it is still there.
const LOOK: Duration = Duration::from_millis(500);

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum)]
pub(crate) enum Service {
    Auth,
    Tickets,
    Orders,
    Payments,
    Expiration,
}

impl Service {
    pub(crate) const ALL: [Self; 5] =
        [Self::Auth, Self::Tickets, Self::Orders, Self::Payments, Self::Expiration];

    /// As the command line has it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Tickets => "tickets",
            Self::Orders => "orders",
            Self::Payments => "payments",
            Self::Expiration => "expiration",
        }
    }

    /// Runs it until SIGTERM, or until who started it is gone. It does as its own `main.rs` does, but listens on the socket
    /// that it finds as its standard input: so nobody else gets the port while it is down.
    ///
    /// # Errors
    /// When it cannot start.
    pub(crate) async fn run(self) -> anyhow::Result<()> {
        let env = Env::process();
        let _telemetry = telemetry::init(web::telemetry_settings(&env, &format!("svc-{self}"))?);
        // Before anything counts: what is counted earlier is lost.
        web::metrics::handle();
        let listener = inherited_listener().context("standard input is no socket that listens")?;
        let shutdown = web::shutdown_signal();
        tokio::spawn(end_with_parent(shutdown.clone()));
        match self {
            Self::Auth => svc_auth::run(svc_auth::Config::from_env(&env)?, listener, shutdown).await?,
            Self::Tickets => {
                svc_tickets::run(svc_tickets::Config::from_env(&env)?, listener, shutdown).await?
            }
            Self::Orders => svc_orders::run(svc_orders::Config::from_env(&env)?, listener, shutdown).await?,
            Self::Payments => {
                svc_payments::run(svc_payments::Config::from_env(&env)?, listener, shutdown).await?;
            }
            Self::Expiration => {
                svc_expiration::run(svc_expiration::Config::from_env(&env)?, listener, shutdown).await?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

fn inherited_listener() -> io::Result<Listener> {
    let socket = std::net::TcpListener::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    Ok(TcpListener::from_std(socket)?.into())
}

/// Nobody is left over when chaos itself is killed.
async fn end_with_parent(shutdown: CancellationToken) {
    let parent = parent_id();
    while parent_id() == parent {
        tokio::time::sleep(LOOK).await;
    }
    shutdown.cancel();
}
