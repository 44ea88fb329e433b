//! Everybody on the stage: nats-server, Stripe, and the ten processes between them.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use anyhow::{Context, ensure};
use reqwest::StatusCode;
use sandbox::{
    nats::{NatsOptions, NatsServer},
    stripe::{Delivery, StripeOptions, StripeSandbox, WebhookEndpoint},
};
use tokio::time::Instant;

use crate::{
    clock::Clocks,
    disk::Disk,
    proxy::Proxy,
    replica::Replica,
    schedule::{self, Kind, Who},
    service::Service,
};

const JWT_KEY: &str = "a key that only chaos signs with, 32 characters or more";
const MASTER_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const WEBHOOK_SECRET: &str = "whsec_that_only_chaos_signs_with";
/// Stripe's events come late, twice, and not at all.
const DELIVERY: Delivery = Delivery { delay_ms: (0, 1_500), duplicate_percent: 15, lose_percent: 15 };
/// How long a request may take. svc-payments waits for 7 s for Stripe.
const PATIENCE: Duration = Duration::from_secs(12);
/// How long all may take to be ready.
const READY_WITHIN: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(100);

/// How it is to be.
pub(crate) struct Layout {
    pub(crate) seed: u64,
    /// `EXPIRATION_WINDOW_SECONDS`; clocks differ by half of it, either way.
    pub(crate) window: Duration,
    /// How large the log's own disk is, in megabytes; `None`: there is none that could be full.
    pub(crate) disk_megabytes: Option<u64>,
}

impl Layout {
    /// How far a clock may be ahead, or behind.
    pub(crate) fn skew(&self) -> Duration {
        self.window / 2
    }
}

/// Everything, running.
pub(crate) struct Cast {
    pub(crate) nats: tokio::sync::Mutex<NatsServer>,
    pub(crate) nats_url: String,
    pub(crate) stripe: StripeSandbox,
    pub(crate) replicas: BTreeMap<Who, Replica>,
    pub(crate) disk: Option<Disk>,
    pub(crate) clocks: Option<Clocks>,
    pub(crate) http: reqwest::Client,
    pub(crate) signer: web::Signer,
    /// Faults that this machine cannot have, and why.
    pub(crate) skipped: BTreeMap<Kind, String>,
    /// How many requests to Stripe have met a fault that is over.
    pub(crate) stripe_faults_met: AtomicU64,
    directory: PathBuf,
    /// What nobody has done, and has happened all the same.
    surprises: Mutex<Vec<String>>,
}

impl Cast {
    /// Starts everything in `directory`, which is made, and waits until it is ready.
    ///
    /// # Errors
    /// When something does not start.
    pub(crate) async fn start(layout: &Layout, directory: &Path) -> anyhow::Result<Self> {
        let store_dir = directory.join("nats");
        // Not what an earlier run has left.
        let made = std::fs::create_dir(directory).and_then(|()| std::fs::create_dir(&store_dir));
        made.with_context(|| format!("{} cannot be made", store_dir.display()))?;
        let mut skipped = BTreeMap::new();
        let mut or_skip = |kind, error: anyhow::Error| drop(skipped.insert(kind, format!("{error:#}")));
        let disk = match layout.disk_megabytes {
            Some(megabytes) => Disk::mount(&store_dir, megabytes),
            None => Err(anyhow::anyhow!("no tmpfs can be mounted: it takes root, or `unshare` as anybody")),
        };
        let disk = disk.map_err(|error| or_skip(Kind::DiskFull, error)).ok();
        let clocks = Clocks::compile(directory).map_err(|error| or_skip(Kind::Clock, error)).ok();

        let nats = NatsServer::start(NatsOptions { store_dir, port: None, users: None });
        let (nats, stripe) = (nats.await?, StripeSandbox::start(StripeOptions::default()).await?);
        let nats_url = nats.url().to_owned();
        let server =
            nats_url.trim_start_matches("nats://").parse().context("nats-server has an odd address")?;
        let mut replicas = BTreeMap::new();
        for (who, ahead_ms) in schedule::clocks(layout.seed, layout.skew()) {
            let way = Proxy::start(server).await?;
            let replica = Replica::new(who, directory, way, variables(layout, stripe.url()), ahead_ms)?;
            replicas.insert(who, replica);
        }
        let cast = Self {
            nats: tokio::sync::Mutex::new(nats),
            nats_url,
            stripe,
            replicas,
            disk,
            clocks,
            http: reqwest::Client::builder().timeout(PATIENCE).build()?,
            signer: web::Signer::new(JWT_KEY),
            skipped,
            stripe_faults_met: AtomicU64::default(),
            directory: directory.to_owned(),
            surprises: Mutex::default(),
        };
        for replica in cast.of(Service::Payments) {
            cast.stripe.add_webhook_endpoint(WebhookEndpoint {
                url: format!("{}/api/payments/webhook", replica.url()),
                secret: WEBHOOK_SECRET.into(),
                delivery: DELIVERY,
            });
        }
        for replica in cast.replicas.values() {
            replica.start(cast.clocks.as_ref()).await?;
        }
        cast.ready().await?;
        Ok(cast)
    }

    /// The processes of a service.
    pub(crate) fn of(&self, service: Service) -> impl Iterator<Item = &Replica> {
        self.replicas.iter().filter(move |(who, _)| who.service == service).map(|(_, replica)| replica)
    }

    /// Waits until everybody says that they are ready.
    ///
    /// # Errors
    /// When somebody does not.
    pub(crate) async fn ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        for (who, replica) in &self.replicas {
            let url = format!("{}/readyz", replica.url());
            loop {
                let said = match self.http.get(&url).send().await {
                    Ok(answer) if answer.status() == StatusCode::OK => break,
                    Ok(answer) => answer.text().await.unwrap_or_default(),
                    Err(error) => error.to_string(),
                };
                ensure!(
                    Instant::now() < deadline,
                    "{who} is not ready: {said}; its log ends:\n{}",
                    end(&replica.log())
                );
                tokio::time::sleep(POLL).await;
            }
        }
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub(crate) async fn kill(&self, who: Who) -> anyhow::Result<()> {
        if let Some(status) = self.replicas[&who].kill().await? {
            let log = self.replicas[&who].log();
            self.surprise(format!("{who} ended by itself ({status}); its log ends:\n{}", end(&log)));
        }
        Ok(())
    }

    /// Starts it again.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) async fn start_again(&self, who: Who) -> anyhow::Result<()> {
        self.replicas[&who].start(self.clocks.as_ref()).await
    }

    /// Something happened that must not.
    pub(crate) fn surprise(&self, what: String) {
        self.surprises.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// All that must not have happened: who ended by itself, and who panicked.
    pub(crate) fn surprises(&self) -> Vec<String> {
        let mut surprises = self.surprises.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (who, replica) in &self.replicas {
            let log = replica.log();
            let panics = log.lines().filter(|line| line.contains("panicked at"));
            surprises.extend(panics.map(|line| format!("{who}: {line}")));
        }
        surprises
    }

    /// Stops everything. Who wants to see what is left finds all of it in the directory.
    ///
    /// # Errors
    /// When something cannot be stopped or copied.
    pub(crate) async fn stop(self, keep: bool) -> anyhow::Result<()> {
        for replica in self.replicas.values() {
            replica.kill().await?;
        }
        let ledger = serde_json::to_string_pretty(&self.stripe.ledger())?;
        self.nats.into_inner().shutdown().await?;
        if let Some(disk) = self.disk {
            disk.unmount(keep.then(|| self.directory.join("nats-kept")).as_deref())?;
        }
        match keep {
            true => std::fs::write(self.directory.join("ledger.json"), ledger)?,
            false => std::fs::remove_dir_all(&self.directory)?,
        }
        Ok(())
    }
}

fn variables(layout: &Layout, stripe: &str) -> HashMap<&'static str, String> {
    HashMap::from([
        ("JWT_KEY", JWT_KEY.to_owned()),
        // A few people do what thousands would.
        ("USER_REQUESTS_PER_MINUTE", "0".to_owned()),
        ("MAX_OPEN_ORDERS", "0".to_owned()),
        ("MASTER_KEY", MASTER_KEY.into()),
        ("STRIPE_KEY", "sk_test_sandbox".into()),
        ("STRIPE_API_BASE", stripe.into()),
        ("STRIPE_TIMEOUT_SECONDS", "2".into()),
        ("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET.into()),
        ("RECONCILE_SECONDS", "15".into()),
        ("EXPIRATION_WINDOW_SECONDS", layout.window.as_secs().to_string()),
        // Often enough that whoever lost its projections finds some.
        ("SNAPSHOT_EVERY_EVENTS", "300".into()),
        ("SIGNUPS_PER_MINUTE", "0".into()),
        ("SIGNIN_FAILURES_PER_MINUTE", "0".into()),
        ("SCRYPT_LOG_N", "14".into()),
    ])
}

/// The last lines of a text.
fn end(text: &str) -> String {
    let lines: Vec<_> = text.lines().rev().take(12).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join("\n")
}
