//! `ticketing audit`: reads every stream and proves or disproves what the marketplace promises.
//!
//! | room | what is there |
//! |---|---|
//! | `record` | an event, as far as the rules look at it |
//! | `book` | one stream, message by message: whole, numbered, its ids in order |
//! | `users` `tickets` `orders` `payments` `expirations` | what may follow what on each stream |
//! | `verdict` | what the streams say of each other |
//! | `ledger` | what Stripe says |
//! | `finding` `report` | what is wrong, and how it is told |
//!
//! The rules are stated once more here, as tables, apart from the services' own. Nothing but this module does IO.

mod book;
mod expirations;
mod finding;
mod ledger;
mod orders;
mod payments;
mod record;
mod report;
#[cfg(test)]
mod tests;
mod tickets;
mod users;
mod verdict;

use std::{
    cmp::Ordering,
    ops::ControlFlow,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use contract::{
    Timestamp,
    stream::{ALL, DEAD_LETTERS},
};
use eventstore::Settings;
use indicatif::{ProgressBar, ProgressStyle};
use time::OffsetDateTime;
use tokio::sync::mpsc;
use uuid::Uuid;
use web::Env;

use self::{
    book::{Book, Fold},
    finding::{Code, Finding, Findings, Note},
    report::{Report, StreamRead},
    verdict::{Books, Found, Keys, Moment},
};
use crate::{
    say,
    streams::{self, At, Reading, Stored},
};

/// Batches that wait to be folded. Reading pauses when they do.
const WAITING: usize = 16;
/// How often the progress bar is drawn.
const DRAWN: Duration = Duration::from_millis(100);

/// What to audit, and how.
#[derive(Args)]
#[command(
    after_help = "Ends with 0 when nothing is wrong, with 1 when something is, and with 2 when it cannot be told."
)]
pub struct Audit {
    #[command(flatten)]
    at: At,
    /// How long, in seconds, what has to follow from an event may take before it counts as missing
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    grace: u32,
    /// Compares with Stripe's books too: the http address of a Stripe sandbox, or a file with what it shows at
    /// /_sandbox/ledger; with STRIPE_KEY, the address of Stripe's own API
    #[arg(long, value_name = "URL|FILE")]
    stripe_ledger: Option<String>,
    /// Tells what it found as one JSON document
    #[arg(long)]
    json: bool,
}

impl Audit {
    /// Audits, tells, and returns whether all is well.
    ///
    /// # Errors
    /// When something cannot be read.
    pub async fn run(self, env: &Env) -> anyhow::Result<ExitCode> {
        let started = Instant::now();
        let settings = self.at.settings(env, "ticketing-audit")?;
        // Before the streams: what Stripe has done by now, the log knows soon.
        let ledger = match &self.stripe_ledger {
            Some(place) => {
                let key = env.optional_secret::<String>("STRIPE_KEY", "a Stripe secret key")?;
                Some(ledger::read(place, key.as_deref()).await?)
            }
            None => None,
        };
        let now = OffsetDateTime::now_utc();
        let moment = Moment {
            as_of_ms: i64::try_from(now.unix_timestamp_nanos() / 1_000_000).context("the clock is wrong")?,
            grace_ms: i64::from(self.grace) * 1000,
        };
        let (found, streams) = Read::all(&settings).await?.judge(ledger.as_deref(), moment);
        let Found { findings, notes } = found;
        let (findings, counts) = findings.sorted(by_place);
        let report = Report {
            as_of: Timestamp::from(now),
            grace_seconds: self.grace.into(),
            streams,
            stripe_intents: ledger.map(|ledger| ledger.len()),
            sound: counts.is_empty(),
            findings_left_out: counts.values().sum::<u64>() - findings.len() as u64,
            findings,
            counts,
            notes,
            seconds: started.elapsed().as_secs_f64(),
        };
        say(&if self.json { serde_json::to_string_pretty(&report)? } else { report.text() });
        Ok(if report.sound { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// All that an audit reads of NATS.
struct Read {
    books: Books,
    /// Who has a key; `None` when there is no bucket of them.
    keys: Option<Keys>,
    /// The streams that are gone.
    findings: Findings,
    notes: Vec<Note>,
}

impl Read {
    /// Reads everything, the streams side by side.
    async fn all(settings: &Settings) -> anyhow::Result<Self> {
        let connection = streams::connect(settings).await?;
        let mut judged = [0; ALL.len()];
        for (stream, judged) in ALL.iter().zip(&mut judged) {
            *judged = streams::end(&connection, stream.name).await?.unwrap_or_default();
        }
        // Again: between the two ends stands whatever led to something before the first.
        let mut known = judged;
        let mut missing = Vec::new();
        for (stream, known) in ALL.iter().zip(&mut known) {
            match streams::end(&connection, stream.name).await? {
                Some(end) => *known = end,
                None => missing.push(*stream),
            }
        }
        anyhow::ensure!(missing.len() < ALL.len(), "there is no stream of the marketplace at this NATS");
        let (mut findings, mut notes) = (Findings::default(), Vec::new());
        for stream in missing {
            // Before anything has happened, a service may not have made its own yet.
            if known.iter().all(|end| *end == 0) {
                notes.push(Note { stream: stream.name, text: "there is no such stream".into() });
                continue;
            }
            findings.push(Finding {
                code: Code::StreamMissing,
                stream: stream.name,
                sequence: None,
                subject: stream.subjects.to_owned(),
                explanation: "there is no such stream, and others have messages".into(),
            });
        }

        let bar = progress(known.iter().sum());
        let books = Books::until(judged);
        let [users, tickets, orders, payments, expirations] = known;
        let (users, tickets, orders, payments, expirations) = tokio::try_join!(
            fill(settings, books.users, users, &bar),
            fill(settings, books.tickets, tickets, &bar),
            fill(settings, books.orders, orders, &bar),
            fill(settings, books.payments, payments, &bar),
            fill(settings, books.expirations, expirations, &bar),
        )?;
        bar.finish_and_clear();
        let keys = read_keys(&connection).await?;
        notes.extend(dead_letters(&connection).await?);
        let books = Books { users, tickets, orders, payments, expirations };
        Ok(Self { books, keys, findings, notes })
    }
}

impl Read {
    /// All that is wrong, and what was read.
    fn judge(self, ledger: Option<&[ledger::Intent]>, moment: Moment) -> (Found, Vec<StreamRead>) {
        let mut found = verdict::conclude(&self.books, moment, self.keys.as_ref());
        if let Some(ledger) = ledger {
            ledger::compare(&self.books, moment, ledger, &mut found);
        }
        let streams = self.books.streams();
        found.notes.splice(0..0, self.notes);
        found.findings.append(self.findings);
        self.books.into_findings().into_iter().for_each(|of_a_stream| found.findings.append(of_a_stream));
        (found, streams)
    }
}

/// By stream and sequence. What is at Stripe comes last.
fn by_place(a: &Finding, b: &Finding) -> Ordering {
    let place = |stream: &str| ALL.iter().position(|known| known.name == stream).unwrap_or(ALL.len());
    let key = |one: &Finding| (place(one.stream), one.sequence, one.code);
    key(a).cmp(&key(b)).then_with(|| a.explanation.cmp(&b.explanation))
}

impl Books {
    fn streams(&self) -> Vec<StreamRead> {
        fn of<F>(book: &Book<F>) -> StreamRead {
            StreamRead { stream: book.stream.name, messages: book.messages, as_of_sequence: book.judged }
        }
        let Self { users, tickets, orders, payments, expirations } = self;
        vec![of(users), of(tickets), of(orders), of(payments), of(expirations)]
    }

    /// What each stream shows to be wrong by itself.
    fn into_findings(self) -> [Findings; 5] {
        let Self { users, tickets, orders, payments, expirations } = self;
        [users.findings, tickets.findings, orders.findings, payments.findings, expirations.findings]
    }
}

/// Reads a stream into its book: on a connection of its own, and folded on a thread of its own.
async fn fill<F: Fold>(
    settings: &Settings,
    mut book: Book<F>,
    until: u64,
    bar: &ProgressBar,
) -> anyhow::Result<Book<F>> {
    if until == 0 {
        return Ok(book);
    }
    let connection = streams::connect(settings).await?;
    let name = book.stream.name;
    let (give, mut take) = mpsc::channel::<Vec<Stored>>(WAITING);
    let folding = tokio::task::spawn_blocking(move || {
        while let Some(batch) = take.blocking_recv() {
            batch.iter().for_each(|stored| book.take(stored));
        }
        book.end(until);
        book
    });
    let reading = streams::read(&connection, Reading::all(name, until), async |batch| {
        bar.inc(batch.len() as u64);
        give.send(batch).await?;
        Ok(ControlFlow::Continue(()))
    });
    let outcome = reading.await;
    drop(give);
    let book = folding.await?;
    outcome.map(|()| book)
}

/// Who has a key: what it is, nobody asks.
async fn read_keys(connection: &eventstore::Connection) -> anyhow::Result<Option<Keys>> {
    let stream = format!("KV_{}", svc_auth::user_keys::BUCKET);
    let Some(until) = streams::end(connection, &stream).await? else { return Ok(None) };
    let mut keys = Keys::new();
    let what = Reading { headers_only: true, ..Reading::all(&stream, until) };
    streams::read(connection, what, async |batch| {
        for Stored { message, .. } in batch {
            let user = message.subject.rsplit('.').next().and_then(|token| token.parse::<Uuid>().ok());
            let is_gone =
                message.headers.as_ref().is_some_and(|headers| headers.get("KV-Operation").is_some());
            keys.extend(user.map(|user| (user, !is_gone)));
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    Ok(Some(keys))
}

/// What nobody could read, with who could not and why.
async fn dead_letters(connection: &eventstore::Connection) -> anyhow::Result<Vec<Note>> {
    let Some(until) = streams::end(connection, DEAD_LETTERS).await? else { return Ok(Vec::new()) };
    let mut notes = Vec::new();
    let what = Reading { headers_only: true, ..Reading::all(DEAD_LETTERS, until) };
    streams::read(connection, what, async |batch| {
        for Stored { message, .. } in batch {
            let header = |name: &str| {
                let value = message.headers.as_ref().and_then(|headers| headers.get(name));
                value.map_or("?", |value| value.as_str())
            };
            let text = format!(
                "{} could not read {} at {}: {}",
                header("dead-letter-reader"),
                header("dead-letter-stream"),
                header("dead-letter-sequence"),
                header("dead-letter-reason")
            );
            notes.push(Note { stream: DEAD_LETTERS, text });
        }
        Ok(ControlFlow::Continue(()))
    })
    .await?;
    Ok(notes)
}

/// On stderr, and only if somebody looks.
fn progress(events: u64) -> ProgressBar {
    let bar = ProgressBar::new(events);
    let style = ProgressStyle::with_template("{wide_bar} {human_pos}/{human_len} events, {eta} left");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.enable_steady_tick(DRAWN);
    bar
}
