//! A run: everybody starts, people come, faults happen, all is mended, and what is left is judged.

use std::{
    collections::BTreeMap,
    process::{ExitCode, Stdio},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::Value;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    cast::{Cast, Layout},
    disk, faults, judge,
    load::Market,
    log::Log,
    replica::this_program,
    replicas,
    report::Report,
    say,
    schedule::{self, Kind, Who},
    tell,
};

/// How often it is told how far it is.
const PROGRESS: Duration = Duration::from_secs(15);
/// How long it may take, after the last fault, until nothing is left to be done.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);
const POLL: Duration = Duration::from_secs(1);
/// How large the log's disk is: several times what the log of so long a run needs, as nats-server takes no more than three quarters
/// of what was free when it started last.
const DISK_MEGABYTES: u64 = 64;
const DISK_MEGABYTES_A_MINUTE: u64 = 24;

/// How to hurt it.
#[derive(Args)]
pub(crate) struct Run {
    /// For how long there are faults
    #[arg(long, default_value_t = 5, conflicts_with = "seconds", value_parser = clap::value_parser!(u64).range(1..))]
    minutes: u64,
    /// The same, in seconds; with fewer than 40 not each kind of fault comes
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Which faults, where and when; without it, others each time
    #[arg(long)]
    seed: Option<u64>,
    /// How long reservations last; clocks differ by up to half of it, either way
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(2..=60))]
    window: u64,
    /// Its mounts are its own by now
    #[arg(long, hide = true)]
    apart: bool,
}

impl Run {
    /// Runs it, and says whether all is well.
    ///
    /// # Errors
    /// When it comes to no verdict.
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        if !self.apart {
            disk::start_apart("--apart");
        }
        let seed = self.seed.unwrap_or_else(|| fastrand::u64(..));
        let lasts = Duration::from_secs(self.seconds.unwrap_or(self.minutes * 60));
        let arguments = format!("--seed {seed} --seconds {} --window {}", lasts.as_secs(), self.window);
        let layout = Layout {
            seed,
            window: Duration::from_secs(self.window),
            disk_megabytes: self
                .apart
                .then(|| DISK_MEGABYTES + DISK_MEGABYTES_A_MINUTE * lasts.as_secs() / 60),
        };
        let directory = std::env::temp_dir().join(format!("ticketing-chaos-{}", std::process::id()));
        let shutdown = web::shutdown_signal();
        tell(&format!("{arguments}; all of it is in {}", directory.display()));

        let cast = Arc::new(Cast::start(&layout, &directory).await?);
        tell("everybody is ready");
        let outcome = Self::hurt_and_judge(&cast, &layout, lasts, &shutdown).await;
        let is_sound = outcome.as_ref().is_ok_and(|report| report.sound);
        // Everybody else who had it has ended by now.
        if let Some(cast) = Arc::into_inner(cast) {
            cast.stop(!is_sound).await?;
        }
        let report =
            outcome.with_context(|| format!("{arguments}; what is left is in {}", directory.display()))?;
        say(&report.text());
        if !is_sound {
            let left = directory.display();
            say(&format!("again: cargo run --release --bin chaos -- {arguments}\nwhat is left: {left}"));
        }
        say(&format!("\n{}", serde_json::to_string(&report)?));
        Ok(ExitCode::from(u8::from(!is_sound)))
    }

    async fn hurt_and_judge(
        cast: &Arc<Cast>,
        layout: &Layout,
        lasts: Duration,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<Report> {
        let (market, closing) = (Market::new(cast.clone()), CancellationToken::new());
        let load = {
            let (market, closing, seed) = (market.clone(), closing.clone(), layout.seed);
            tokio::spawn(async move { market.open(seed, &closing).await })
        };
        let progress = {
            let market = market.clone();
            tokio::spawn(
                closing.clone().run_until_cancelled_owned(async move { tell_progress(&market).await }),
            )
        };
        let started = Instant::now();
        let plan = schedule::plan(layout.seed, lasts, layout.skew());
        let faults = faults::play(cast, plan, shutdown).await?;
        shutdown.run_until_cancelled(sleep(lasts.saturating_sub(started.elapsed()))).await;
        let seconds = started.elapsed().as_secs();
        closing.cancel();
        load.await??;
        let _ = progress.await;
        tell("no more faults, and nobody buys any more");

        let mended = Instant::now();
        cast.ready().await?;
        let (log, mut findings) = settle(cast).await?;
        let settled_seconds = mended.elapsed().as_secs_f64();
        tell("nothing is left to be done");

        let notes = market.notes.read();
        findings.extend(notes.wrong.iter().chain(&log.wrong).cloned());
        let promises = judge::promises(&notes, &log, &mut findings);
        let money = judge::money(&log, &cast.stripe.ledger(), &mut findings);
        let mut compared = replicas::agree(cast, &market, &log, &mut findings).await?;
        tell("one of each is started again without its projections");
        for who in Who::all().filter(|who| who.replica == 0) {
            cast.kill(who).await?;
            cast.replicas[&who].wipe()?;
            cast.start_again(who).await?;
        }
        cast.ready().await?;
        compared += replicas::agree(cast, &market, &log, &mut findings).await?;
        findings.extend(cast.surprises());
        if log.dead_letters > 0 {
            findings.push(format!("{} messages were buried", log.dead_letters));
        }

        let mut answers: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for ((route, status), count) in notes.answers {
            answers.entry(route).or_default().insert(status, count);
        }
        Ok(Report {
            seed: layout.seed,
            seconds,
            faults: Kind::all()
                .map(|kind| (kind.name(), faults.get(&kind).copied().unwrap_or_default()))
                .collect(),
            skipped: cast.skipped.iter().map(|(kind, why)| (kind.name(), why.clone())).collect(),
            stripe_faults_met: cast.stripe_faults_met.load(Relaxed),
            answers,
            promises,
            events: log.events.clone(),
            orders: log.ends(),
            money,
            clocks: log.clocks,
            compared,
            settled_seconds,
            sound: findings.is_empty(),
            findings,
        })
    }
}

async fn tell_progress(market: &Market) {
    loop {
        sleep(PROGRESS).await;
        tell(&format!("{} promises so far", market.notes.count()));
    }
}

/// Waits until every order has ended and the audit finds nothing, with no grace. Returns the log, and what the audit still
/// finds when time is up.
async fn settle(cast: &Cast) -> anyhow::Result<(Log, Vec<String>)> {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let log = Log::read(&cast.nats_url).await?;
        let is_over = Instant::now() > deadline;
        if log.alive().is_empty() || is_over {
            let mut findings = audited(cast).await?;
            if findings.is_empty() || is_over {
                findings.extend(log.alive().iter().map(|order| format!("order {order} has not ended")));
                return Ok((log, findings));
            }
        }
        sleep(POLL).await;
    }
}

/// What the audit finds.
async fn audited(cast: &Cast) -> anyhow::Result<Vec<String>> {
    let mut command = this_program();
    let command = command
        .args(["audit", "--json", "--grace", "0", "--nats", &cast.nats_url])
        .args(["--stripe-ledger", cast.stripe.url()])
        .env_clear()
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command.output().await.context("the audit cannot be started")?;
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the audit says: {}", String::from_utf8_lossy(&output.stderr)))?;
    let findings = report["findings"].as_array().context("an audit has findings")?;
    ensure!(
        output.status.success() == findings.is_empty(),
        "the audit ended with {}: {report}",
        output.status
    );
    let word = |finding: &Value, name: &str| finding[name].to_string().trim_matches('"').to_owned();
    let told = |finding: &Value| {
        let words = ["code", "stream", "sequence", "subject", "explanation"].map(|name| word(finding, name));
        format!("audit: {}", words.join(" "))
    };
    Ok(findings.iter().map(told).collect())
}
