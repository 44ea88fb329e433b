//! A small Stripe: stateful, honest about money, on 127.0.0.1.
//!
//! It answers the part of Stripe's API that a shop needs in the shapes of its reference, so that a Stripe client with
//! its base URL set to [`StripeSandbox::url`] talks to it unchanged. Any key that begins with `sk_test_` or `rk_test_`
//! will do.
//!
//! | | |
//! |---|---|
//! | `POST`, `GET /v1/payment_intents`, `GET`, `POST …/:id` | made, listed, read, metadata and description changed |
//! | `POST /v1/payment_intents/:id/confirm`, `…/capture`, `…/cancel` | |
//! | `GET /v1/payment_intents/search` | `metadata['key']:'value'`, joined by `AND` |
//! | `POST /v1/payment_methods`, `GET …/:id` | of test cards, by token or number |
//! | `GET /v1/charges`, `…/:id` | `?payment_intent=` |
//! | `POST`, `GET /v1/refunds`, `GET …/:id` | never more than was captured, nothing of a disputed charge |
//! | `GET /v1/disputes`, `…/:id` | `?payment_intent=`, `?charge=` |
//!
//! As on Stripe, who confirms a payment without a `return_url` has to have ruled out redirects
//! (`automatic_payment_methods[allow_redirects]` `never`) or named the types (`payment_method_types`); `expand[]` is
//! honoured, and refused where there is nothing to expand; a page with a publishable key reads the one intent whose
//! client secret it has.
//!
//! # Cards
//!
//! `pm_card_visa` and its like pay, `pm_card_chargeDeclined…` are declined. Three ask for 3-D Secure:
//! `pm_card_authenticationRequired`, `pm_card_threeDSecure2Required`, and
//! `pm_card_authenticationRequiredChargeDeclinedInsufficientFunds`, which is declined afterwards. Confirmed with
//! `error_on_requires_action` they are declined at once; else the intent `requires_action`, and `next_action` leads
//! to a page of the sandbox's, where the customer decides (or [`StripeSandbox::authenticate`] does).
//! `pm_card_createDispute` is disputed as soon as it is captured; a refund to `pm_card_refundFail` succeeds, then
//! fails. All of them exist as `tok_…`, too.
//!
//! # Webhooks
//!
//! Events go to [`WebhookEndpoint`]s, signed as Stripe signs ([`sign`]), each delivery on its own: late, twice or never
//! as [`Delivery`] says. One that is not answered with 2xx is sent again, 8 times in all within about 13 seconds. The
//! types: `payment_intent.created`, `.requires_action`, `.amount_capturable_updated`, `.succeeded`,
//! `.payment_failed`, `.canceled`; `charge.succeeded`, `.captured`, `.failed`, `.refunded`, `.refund.updated`,
//! `.dispute.created`; `refund.created`, `.updated`, `.failed`. A replay by idempotency key makes none.
//!
//! # `/_sandbox/…`
//!
//! For tests in another process, for operators, and for the customer's browser:
//!
//! | | |
//! |---|---|
//! | `GET /_sandbox/ledger` | an array of [`LedgerEntry`], oldest first |
//! | `POST /_sandbox/faults` | adds a [`Fault`] |
//! | `GET /_sandbox/faults` | a [`FaultReport`]: faults to come, who hangs, what was met |
//! | `DELETE /_sandbox/faults` | clears the faults and lets all go on that hang |
//! | `DELETE /_sandbox/faults/:value` | those for one metadata value |
//! | `POST /_sandbox/webhook_endpoints` | adds a [`WebhookEndpoint`] |
//! | `GET /_sandbox/webhook_endpoints` | an array of them |
//! | `DELETE /_sandbox/webhook_endpoints` | removes all and stops what is on its way |
//! | `GET /_sandbox/events` | an array of Stripe's Events, oldest first |
//! | `POST /_sandbox/events/:id/resend` | sends one again |
//! | `GET /_sandbox/deliveries` | a [`DeliveryReport`] |
//! | `GET /_sandbox/payment_intents/:id/authenticate` | the bank's page |
//! | `POST /_sandbox/payment_intents/:id/authenticate` | `{"outcome": "succeeds"}` or `"fails"`, from any origin |
//! | `POST /_sandbox/payment_intents/:id/dispute` | the cardholder disputes what was captured |
//! | `DELETE /_sandbox/idempotency_keys` | all are forgotten, as after Stripe's 24 hours |
//!
//! # Where it differs from Stripe
//!
//! There is no least amount (Stripe's is 50 cents). Idempotency keys are forgotten when told to, not by the clock.
//! Unknown parameters are ignored, except where an intent is changed. Search finds what is new at once; Stripe may
//! take a minute. What a partial capture lets go is not counted as refunded. Webhooks are retried within seconds, not
//! days, events are not kept in the file, and deliveries do not outlive the process. The status `processing`,
//! balance transactions, customers and the evidence of disputes do not exist: null where they would be. A dispute is of
//! the whole charge and never decided.
//!
//! # The rooms
//!
//! `connections` sockets, and how one is cut; `server` from HTTP to an endpoint, with idempotency and faults on the
//! way; `control` the pages of `/_sandbox`; `endpoints` what each does; `authentication` the customer's bank; `books`
//! what is remembered, and `journal` its file; `shapes` how that is shown, `expand` with more of it; `events` and
//! `webhooks` who is told; `cards` who pays and who declines; `refusal` the errors.

mod authentication;
mod books;
mod cards;
mod connections;
mod control;
mod endpoints;
mod events;
mod expand;
mod faults;
mod journal;
mod params;
mod refusal;
mod server;
mod shapes;
mod webhooks;

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub use authentication::Authentication;
pub use books::Status;
pub use faults::{Fault, FaultReport, Mode, Step};
pub use webhooks::{Delivery, DeliveryReport, WebhookEndpoint, sign};

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

/// Why something that is not asked of Stripe's API is not done.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// There is none with this id.
    #[error("no such PaymentIntent or Event: {id}")]
    NoSuch {
        /// `pi_…` or `evt_…`
        id: String,
    },
    /// It does not stand as it would have to.
    #[error("not possible for {id}: {reason}")]
    Unfit {
        /// `pi_…`
        id: String,
        /// Why not.
        reason: &'static str,
    },
}

/// What a sandbox is started with.
#[derive(Clone, Debug, Default)]
pub struct StripeOptions {
    /// Where it listens; `None`: on 127.0.0.1. It believes everybody: let it be heard of in a network of your own only.
    pub listen: Option<Ipv4Addr>,
    /// The port; `None`: a free one.
    pub port: Option<u16>,
    /// Where the customer's browser finds the bank's page, `http://host:port`; `None`: where it listens.
    pub public_url: Option<String>,
    /// Where the books are kept over a restart (JSON lines; its directory must exist); `None`: in memory alone.
    pub file: Option<PathBuf>,
    /// Where events are sent from the start.
    pub webhooks: Vec<WebhookEndpoint>,
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
    /// How often a card said no, or its customer failed to authenticate.
    pub declines: u32,
    /// How often money was taken.
    pub captures: u32,
    /// How often it was given up.
    pub cancellations: u32,
    /// How often money was given back and stayed there.
    #[serde(default)]
    pub refunds: u32,
    /// Whether the cardholder disputes it.
    #[serde(default)]
    pub disputed: bool,
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
        let (journal, mut books) = match &options.file {
            Some(path) => journal::open(path).await.map(|(journal, books)| (Some(journal), books))?,
            None => (None, books::Books::default()),
        };
        let listen = options.listen.unwrap_or(Ipv4Addr::LOCALHOST);
        let address = SocketAddr::from((listen, options.port.unwrap_or(0)));
        let failed = |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let url = format!("http://{}", listener.local_addr().map_err(failed)?);
        books.base = options.public_url.unwrap_or_else(|| url.clone());

        let shared = Arc::new(server::Shared::new(books, journal, webhooks::Webhooks::new(options.webhooks)));
        let (stop, stopped) = oneshot::channel();
        let server = connections::serve(listener, server::routes(Arc::clone(&shared)), stopped);
        Ok(Self { url, shared, stop, server: tokio::spawn(server) })
    }

    /// The base URL for a Stripe client: `http://127.0.0.1:<port>`, or what it was told to listen on.
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

    /// Clears the faults for one metadata value and lets the requests go on that hang by them.
    pub fn clear_faults_of(&self, metadata_value: &str) {
        self.shared.faults.clear_of(metadata_value);
    }

    /// The faults to come, how many requests hang, and what was met.
    #[must_use]
    pub fn faults(&self) -> FaultReport {
        self.shared.faults.report()
    }

    /// Waits until a request hangs at `step`.
    pub async fn until_held(&self, step: Step) {
        self.shared.faults.until_held(step).await;
    }

    /// Waits until a fault for this metadata value was met; the empty string stands for faults without one.
    pub async fn until_met(&self, metadata_value: &str) {
        self.shared.faults.until_met(metadata_value).await;
    }

    /// Decides for the customer whose bank is asked by an intent that `requires_action`. Returns where it stands then.
    pub fn authenticate(&self, intent_id: &str, outcome: Authentication) -> Result<Status, OperatorError> {
        self.shared.authenticate(intent_id, outcome).map(|settled| settled.status)
    }

    /// The cardholder disputes what was captured. Returns the dispute's id, `dp_…`.
    pub fn dispute(&self, intent_id: &str) -> Result<String, OperatorError> {
        self.shared.dispute(intent_id)
    }

    /// Forgets all idempotency keys, as Stripe does after 24 hours.
    pub fn forget_keys(&self) {
        self.shared.forget_keys();
    }

    /// Events are sent there, too, from now on.
    pub fn add_webhook_endpoint(&self, endpoint: WebhookEndpoint) {
        self.shared.webhooks.add(endpoint);
    }

    /// Nothing is sent to anybody any more, what is on its way included.
    pub fn clear_webhook_endpoints(&self) {
        self.shared.webhooks.clear();
    }

    /// Stripe's Events since the start, oldest first, sent to somebody or not.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.shared.webhooks.events()
    }

    /// Sends one event again, to every endpoint, at once.
    pub fn resend(&self, event_id: &str) -> Result<(), OperatorError> {
        self.shared.webhooks.resend(event_id)
    }

    /// What became of the deliveries.
    #[must_use]
    pub fn deliveries(&self) -> DeliveryReport {
        self.shared.webhooks.report()
    }

    /// Waits until every delivery is settled: taken, or given up.
    pub async fn until_deliveries_settled(&self) {
        self.shared.webhooks.until_settled().await;
    }

    /// Stops webhooks and listening, and waits, for a few seconds, until all requests are answered.
    pub async fn shutdown(self) {
        self.shared.webhooks.clear();
        self.clear_faults();
        let _ = self.stop.send(());
        let _ = self.server.await;
    }
}
