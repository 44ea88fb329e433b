//! Constructs and spawns: the five services and the pages behind one socket, and the stand-ins around them.

use std::time::Duration;

use anyhow::Context;
use contract::stream::{EXPIRATIONS, ORDERS, PAYMENTS, Stream, TICKETS, USERS};
use sandbox::stripe::{Delivery, StripeOptions, StripeSandbox, WebhookEndpoint};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;
use web::{Env, Front, env::Invalid};

use crate::{
    own_nats::OwnNats,
    say,
    settings::{Around, Settings},
};

/// How long the services may take to finish what runs: with the stand-ins' own end, less than ten seconds.
const GRACE: Duration = Duration::from_secs(9);

/// Each service by the stream that it owns, and where it is reached.
const SERVICES: [(Stream, Option<&str>); 5] = [
    (USERS, Some("/api/users")),
    (TICKETS, Some("/api/tickets")),
    (ORDERS, Some("/api/orders")),
    (PAYMENTS, Some("/api/payments")),
    (EXPIRATIONS, None),
];

/// Runs everything until `shutdown`; then finishes what runs, and returns.
///
/// # Errors
/// When a setting is wrong, a stand-in cannot be started, or a service fails.
pub(crate) async fn run(env: &Env, shutdown: CancellationToken) -> anyhow::Result<()> {
    // Before anything counts: what is counted earlier is lost.
    web::metrics::handle();
    let settings = Settings::from_env(env)?;
    // All of it is read before anything is started, so that a wrong value is told at once.
    let known = settings.for_services(env, &Around::unknown())?;
    Configs::from_env(&known)?;
    let socket = web::listen(settings.port);
    let socket = socket.with_context(|| format!("PORT {} cannot be listened on", settings.port))?;
    let own_url = format!("http://127.0.0.1:{}", socket.local_addr()?.port());
    let url = format!("{own_url}/api/payments/webhook");
    let secret = known.optional_secret("STRIPE_WEBHOOK_SECRET", "the signing secret of a webhook")?;
    let webhook = secret.map(|secret| WebhookEndpoint { url, secret, delivery: Delivery::default() });

    let Some(started) = shutdown.run_until_cancelled(StandIns::start(&settings, webhook)).await else {
        return Ok(());
    };
    let stand_ins = started?;
    let around = stand_ins.around(&settings, own_url);
    let configs = Configs::from_env(&settings.for_services(env, &around)?)?;
    let served = serve(socket, configs, &around, shutdown).await;
    // Last, whatever came of the services: they write to the log until their end.
    let stopped = stand_ins.stop().await;
    served.and(stopped)
}

/// What takes the place of the outside world, where the environment names none.
struct StandIns {
    nats: Option<OwnNats>,
    stripe: Option<StripeSandbox>,
}

impl StandIns {
    /// A sandbox tells `webhook` what happens to money.
    async fn start(settings: &Settings, webhook: Option<WebhookEndpoint>) -> anyhow::Result<Self> {
        let nats = match settings.nats_url {
            None => Some(OwnNats::start(&settings.data_dir.join("nats")).await?),
            Some(_) => None,
        };
        let stripe = match settings.stripe_is_sandbox {
            true => {
                let file = Some(settings.data_dir.join("stripe.jsonl"));
                let webhooks = webhook.into_iter().collect();
                let options = StripeOptions { file, webhooks, ..StripeOptions::default() };
                Some(StripeSandbox::start(options).await?)
            }
            false => None,
        };
        Ok(Self { nats, stripe })
    }

    fn around(&self, settings: &Settings, own_url: String) -> Around {
        let own_nats = self.nats.as_ref().map(|nats| nats.url().to_owned());
        Around {
            own_url,
            nats_url: own_nats.or_else(|| settings.nats_url.clone()).unwrap_or_default(),
            stripe_sandbox_url: self.stripe.as_ref().map(|stripe| stripe.url().to_owned()),
        }
    }

    async fn stop(self) -> anyhow::Result<()> {
        if let Some(stripe) = self.stripe {
            stripe.shutdown().await;
        }
        match self.nats {
            Some(nats) => nats.stop().await,
            None => Ok(()),
        }
    }
}

/// What each service is told.
struct Configs {
    auth: svc_auth::Config,
    tickets: svc_tickets::Config,
    orders: svc_orders::Config,
    payments: svc_payments::Config,
    expiration: svc_expiration::Config,
    client: client::Config,
}

impl Configs {
    fn from_env(env: &Env) -> Result<Self, Invalid> {
        Ok(Self {
            auth: svc_auth::Config::from_env(env)?,
            tickets: svc_tickets::Config::from_env(env)?,
            orders: svc_orders::Config::from_env(env)?,
            payments: svc_payments::Config::from_env(env)?,
            expiration: svc_expiration::Config::from_env(env)?,
            client: client::Config::from_env(env)?,
        })
    }
}

/// Serves all of them until `shutdown`, or until one fails: then none is left running alone.
async fn serve(
    socket: TcpListener,
    configs: Configs,
    around: &Around,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let port = socket.local_addr()?.port();
    let mut front = Front::new();
    let places = SERVICES.map(|(stream, path)| match path {
        Some(path) => front.mount(stream.source, path),
        None => front.mount_hidden(stream.source),
    });
    let [users, tickets, orders, payments, expirations] = places;
    let pages = front.mount("client", "/");
    let health = front.health();

    let mut running = Running::new(&shutdown);
    running.spawn(USERS.source, svc_auth::run(configs.auth, users, shutdown.clone()));
    running.spawn(TICKETS.source, svc_tickets::run(configs.tickets, tickets, shutdown.clone()));
    running.spawn(ORDERS.source, svc_orders::run(configs.orders, orders, shutdown.clone()));
    running.spawn(PAYMENTS.source, svc_payments::run(configs.payments, payments, shutdown.clone()));
    running.spawn(EXPIRATIONS.source, svc_expiration::run(configs.expiration, expirations, shutdown.clone()));
    running.spawn("client", client::run(configs.client, pages, shutdown.clone()));
    running.spawn("http", front.serve(socket, shutdown.clone()));

    if shutdown.run_until_cancelled(health.ready()).await.is_some() {
        say(&summary(port, around));
    }
    shutdown.cancelled().await;
    running.ended().await
}

/// What runs at once, and ends together.
struct Running<'a> {
    tasks: JoinSet<anyhow::Result<()>>,
    shutdown: &'a CancellationToken,
}

impl<'a> Running<'a> {
    fn new(shutdown: &'a CancellationToken) -> Self {
        Self { tasks: JoinSet::new(), shutdown }
    }

    fn spawn<E>(&mut self, name: &'static str, run: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        // Dropped however it ends, by a panic too.
        let ends_all = self.shutdown.clone().drop_guard();
        self.tasks.spawn(async move {
            let _ends_all = ends_all;
            run.await.context(name)
        });
    }

    /// Waits for all of them; the first error is the cause, what follows is only its consequence.
    async fn ended(mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                let ended = ended.map_err(anyhow::Error::from).flatten();
                outcome = std::mem::replace(&mut outcome, Ok(())).and(ended);
            }
        };
        if timeout(GRACE, all).await.is_err() {
            // Nothing acknowledged is lost: projections are replayed from where they last were.
            tracing::warn!(services = self.tasks.len(), "cut off at shutdown");
        }
        outcome
    }
}

/// What a person needs to know once all is ready.
fn summary(port: u16, around: &Around) -> String {
    let mut lines = vec![format!("ready: http://localhost:{port}")];
    let service = |(stream, path): (Stream, Option<&str>)| {
        format!("  {:14}  {:13}  stream {}", stream.source, path.unwrap_or("-"), stream.name)
    };
    lines.extend(SERVICES.map(service));
    lines.push(format!("  {:14}  /", "client"));
    lines.push(format!("  {:14}  {}", "nats", around.nats_url));
    lines.push(match &around.stripe_sandbox_url {
        Some(url) => {
            format!("  {:14}  sandbox at {url}: no card is ever charged (STRIPE_KEY is not set)", "stripe")
        }
        None => format!("  {:14}  as STRIPE_KEY says: cards are charged if it is a live one", "stripe"),
    });
    lines.join("\n")
}
