//! A small Stripe: stateful, honest about money, on 127.0.0.1.
//!
//! It answers the part of Stripe's API that a shop needs (PaymentIntents, PaymentMethods of test cards,
//! refunds) in Stripe's shapes, so that a Stripe client with its base URL set to [`StripeSandbox::url`] talks
//! to it unchanged. Any key that begins with `sk_test_` or `rk_test_` will do. As on Stripe, who confirms a
//! payment without a `return_url` has to have ruled out redirects (`automatic_payment_methods[allow_redirects]`
//! `never`) or named the types (`payment_method_types`).
//!
//! It differs from Stripe where it must: there is no least amount (Stripe's is 50 cents), an idempotency key
//! is never forgotten, unknown parameters and `expand` are ignored, and no payment asks for the customer's bank.
//!
//! Beside `/v1/…` there is `/_sandbox/…`, for tests in another process:
//!
//! | | |
//! |---|---|
//! | `GET /_sandbox/ledger` | an array of [`LedgerEntry`], oldest first |
//! | `POST /_sandbox/faults` | adds a [`Fault`] |
//! | `GET /_sandbox/faults` | a [`FaultReport`]: faults to come, and how many requests hang at each step |
//! | `DELETE /_sandbox/faults` | clears the faults and lets all go on that hang |
//!
//! The rooms: `server` from HTTP to an endpoint, with idempotency and faults on the way; `endpoints` what each
//! does; `books` what is remembered, and the file; `cards` who pays and who declines; `refusal` the errors.

mod books;
mod cards;
mod endpoints;
mod faults;
mod params;
mod refusal;
mod server;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub use books::Status;
pub use faults::{Fault, FaultReport, Mode, Step};

/// How long requests at work may take when the sandbox is shut down.
const DRAIN: Duration = Duration::from_secs(5);

/// Why there is no sandbox.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be had.
    #[error("cannot listen on {address} for the Stripe sandbox: {source}")]
    Listen {
        /// Where it was to listen.
        address: SocketAddr,
        /// The refusal.
        source: io::Error,
    },
    /// The file cannot be opened, read or written.
    #[error("cannot keep the Stripe sandbox's books in {}: {source}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The refusal.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{}:{line} is no line of the Stripe sandbox's books: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Another sandbox has the file open.
    #[error("{} is in use by another Stripe sandbox", .path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
}

/// What a sandbox is started with.
#[derive(Clone, Debug, Default)]
pub struct StripeOptions {
    /// The port on 127.0.0.1; `None`: a free one.
    pub port: Option<u16>,
    /// Where the books are kept over a restart (JSON lines; its directory must exist); `None`: in memory alone.
    pub file: Option<PathBuf>,
}

/// What became of one PaymentIntent. Amounts are in the currency's smallest unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LedgerEntry {
    /// `pi_…`
    pub id: String,
    /// What was asked for.
    pub amount: i64,
    /// ISO 4217, lowercase.
    pub currency: String,
    /// Where it stands.
    pub status: Status,
    /// What was taken.
    pub amount_captured: i64,
    /// What was given back of it.
    pub amount_refunded: i64,
    /// As the creator set it.
    pub metadata: BTreeMap<String, String>,
    /// How often a card said yes. Replays by idempotency key count nowhere.
    pub authorizations: u32,
    /// How often a card said no.
    pub declines: u32,
    /// How often money was taken.
    pub captures: u32,
    /// How often it was given up.
    pub cancellations: u32,
}

/// A running sandbox. Dropping it stops it listening.
#[derive(Debug)]
pub struct StripeSandbox {
    url: String,
    shared: Arc<server::Shared>,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

impl StripeSandbox {
    /// Starts to listen, with what the file remembers.
    pub async fn start(options: StripeOptions) -> Result<Self, Error> {
        let shared = match &options.file {
            Some(path) => {
                let (journal, books) = server::open(path).await?;
                server::Shared::new(books, Some(journal))
            }
            None => server::Shared::new(books::Books::default(), None),
        };
        let shared = Arc::new(shared);

        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port.unwrap_or(0)));
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;

        let (stop, stopped) = oneshot::channel();
        let server = warp::serve(server::routes(Arc::clone(&shared)))
            .incoming(listener)
            .graceful(async {
                // Dropped is as good as sent.
                let _ = stopped.await;
            })
            .run();
        Ok(Self { url: format!("http://{address}"), shared, stop, server: tokio::spawn(server) })
    }

    /// The base URL for a Stripe client: `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Every PaymentIntent there is, oldest first.
    #[must_use]
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        self.shared.ledger()
    }

    /// Adds a fault for requests to come.
    pub fn add_fault(&self, fault: Fault) {
        self.shared.faults.add(fault);
    }

    /// Clears the faults and lets all requests go on that hang.
    pub fn clear_faults(&self) {
        self.shared.faults.clear();
    }

    /// The faults to come, and how many requests hang.
    #[must_use]
    pub fn faults(&self) -> FaultReport {
        self.shared.faults.report()
    }

    /// Waits until a request hangs at `step`.
    pub async fn until_held(&self, step: Step) {
        self.shared.faults.until_held(step).await;
    }

    /// Stops listening and waits, for a few seconds, until all requests are answered.
    pub async fn shutdown(self) {
        self.clear_faults();
        let _ = self.stop.send(());
        let _ = timeout(DRAIN, self.server).await;
    }
}
