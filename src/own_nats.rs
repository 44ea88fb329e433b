//! The nats-server of this process.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    time::Duration,
};

use sandbox::nats::{Error, NatsOptions, NatsServer};
use tokio::{task::JoinHandle, time::sleep};
use tokio_util::sync::CancellationToken;

/// Where the `nats` program looks for a server.
const USUAL_PORT: u16 = 4222;

/// How long to wait before a server that cannot be started is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// A nats-server that is started again whenever it dies.
pub(crate) struct OwnNats {
    url: String,
    stop: CancellationToken,
    kept_up: JoinHandle<Result<(), Error>>,
}

impl OwnNats {
    /// Starts one with its log in `store_dir`, at the usual port if nobody else is there.
    ///
    /// # Errors
    /// When there is no program to start, or it does not start.
    pub(crate) async fn start(store_dir: &Path) -> Result<Self, Error> {
        let at = |port| NatsServer::start(NatsOptions { store_dir: store_dir.to_owned(), port, users: None });
        let server = match at(is_free(USUAL_PORT).then_some(USUAL_PORT)).await {
            // Somebody else may have taken the port meanwhile. If that is not why it ended, it will again.
            Err(Error::Ended { .. }) => at(None).await?,
            started => started?,
        };
        let (url, stop) = (server.url().to_owned(), CancellationToken::new());
        let kept_up = tokio::spawn(keep_up(server, stop.clone()));
        Ok(Self { url, stop, kept_up })
    }

    /// Where it is, also after it was started again.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Stops it: what it acknowledged is on the disk before and after.
    ///
    /// # Errors
    /// When it does not end.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.cancel();
        Ok(self.kept_up.await??)
    }
}

async fn keep_up(mut server: NatsServer, stop: CancellationToken) -> Result<(), Error> {
    while let Some(ended) = stop.run_until_cancelled(server.ended()).await {
        let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
        tracing::error!(%status, "nats-server died, and is started again");
        while let Some(Err(error)) = stop.run_until_cancelled(server.restart()).await {
            tracing::error!(%error, "nats-server cannot be started again, and is tried again");
            stop.run_until_cancelled(sleep(RETRY)).await;
        }
    }
    server.shutdown().await
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
