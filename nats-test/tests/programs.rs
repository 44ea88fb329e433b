//! The two programs as processes, on a real nats-server.

use std::{
    collections::BTreeSet,
    process::{ExitStatus, Output, Stdio},
    time::Duration,
};

use async_nats::jetstream::{self, consumer::pull};
use contract::{
    Cents, TicketEvent, TicketId, UserId,
    event::TicketCreated,
    stream::{TICKETS, ticket_subject},
};
use eventstore::{Auth, Cause, Connection, Log, Settings, StreamConfig};
use nats_test::{DURABLE, STREAM};
use sandbox::nats::NatsServer;
use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader, Lines},
    process::{Child, ChildStderr, ChildStdout, Command},
    time::timeout,
};
use uuid::Uuid;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn command(program: &str, nats: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("NATS_URL", nats).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn publish(nats: &str, arguments: &[&str]) -> Output {
    let output = command(env!("CARGO_BIN_EXE_publisher"), nats, arguments).output();
    timeout(PATIENCE, output).await.expect("the publisher takes too long").unwrap()
}

/// A running listener.
struct Listener {
    process: Child,
    messages: Lines<BufReader<ChildStdout>>,
    remarks: Lines<BufReader<ChildStderr>>,
}

impl Listener {
    /// Starts one and waits until it listens.
    async fn start(nats: &str, arguments: &[&str]) -> Self {
        let mut command = command(env!("CARGO_BIN_EXE_listener"), nats, arguments);
        let mut process = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let messages = BufReader::new(process.stdout.take().unwrap()).lines();
        let remarks = BufReader::new(process.stderr.take().unwrap()).lines();
        let mut listener = Self { process, messages, remarks };
        let remark = line(&mut listener.remarks).await.expect("it ended at once");
        assert!(remark.ends_with("Ctrl-C ends it"), "{remark}");
        listener
    }

    /// Presses Ctrl-C; returns how it ended, and what it printed since it was last read.
    async fn interrupt(mut self) -> (ExitStatus, Vec<String>) {
        let pid = self.process.id().unwrap().to_string();
        // The shell's own `kill`: not every machine has a program of that name.
        let sent = Command::new("sh").args(["-c", "kill -INT \"$0\"", &pid]).status();
        assert!(sent.await.unwrap().success());
        let mut rest = Vec::new();
        while let Some(message) = line(&mut self.messages).await {
            rest.push(message);
        }
        assert_eq!(line(&mut self.remarks).await, None);
        (timeout(PATIENCE, self.process.wait()).await.expect("it does not end").unwrap(), rest)
    }
}

async fn line<R: AsyncRead + Unpin>(lines: &mut Lines<BufReader<R>>) -> Option<String> {
    timeout(PATIENCE, lines.next_line()).await.expect("nothing is said").unwrap()
}

/// What stands behind `name=` in a line.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let start =
        line.find(&format!("{name}=")).unwrap_or_else(|| panic!("no {name} in {line}")) + name.len() + 1;
    line[start..].split(' ').next().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_listeners_share_the_work_and_end_by_ctrl_c() {
    let nats = NatsServer::temporary().await.unwrap();
    let mut first = Listener::start(nats.url(), &[]).await;
    let mut second = Listener::start(nats.url(), &[]).await;

    let published = publish(nats.url(), &["--count", "20"]).await;
    assert!(published.status.success(), "{published:?}");
    let published = String::from_utf8(published.stdout).unwrap();
    let told = |line: &str| (field(line, "subject").to_owned(), field(line, "sequence").to_owned());
    let sent: BTreeSet<_> = published.lines().map(told).collect();
    assert_eq!(sent.len(), 20, "{published}");
    assert!(published.lines().all(|line| line.starts_with("stream=NATS_TEST ")), "{published}");

    let (mut by_first, mut by_second) = (Vec::new(), Vec::new());
    while by_first.len() + by_second.len() < 20 {
        tokio::select! {
            message = line(&mut first.messages) => by_first.push(message.unwrap()),
            message = line(&mut second.messages) => by_second.push(message.unwrap()),
        }
    }
    assert!(!by_first.is_empty() && !by_second.is_empty(), "one did it all");
    for listener in [first, second] {
        let (status, rest) = listener.interrupt().await;
        assert_eq!((status.code(), rest), (Some(0), vec![]));
    }
    let printed: Vec<_> = by_first.iter().chain(&by_second).collect();
    assert_eq!(printed.iter().map(|line| told(line)).collect::<BTreeSet<_>>(), sent, "each, and each once");
    for line in printed {
        assert_eq!(field(line, "version"), "0");
        let data: serde_json::Value = serde_json::from_str(line.split_once("data=").unwrap().1).unwrap();
        assert_eq!((&data["title"], &data["priceCents"]), (&"Sample ticket".into(), &1999.into()));
        assert_eq!(data["_trace"], serde_json::Value::Null);
    }

    // The next one goes on behind them.
    publish(nats.url(), &[]).await;
    let mut third = Listener::start(nats.url(), &[]).await;
    assert_eq!(field(&line(&mut third.messages).await.unwrap(), "sequence"), "21");
    third.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_watched_without_touching_it() {
    let nats = NatsServer::temporary().await.unwrap();
    let log = tickets(nats.url()).await;
    let real = append(&log).await;
    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let stream = jetstream.get_stream(TICKETS.name).await.unwrap();
    let durable = pull::Config { durable_name: Some("orders-service".into()), ..Default::default() };
    stream.create_consumer(durable).await.unwrap();

    let mut listener = Listener::start(nats.url(), &["--stream", TICKETS.name]).await;
    let mut other = Listener::start(nats.url(), &["--stream", TICKETS.name]).await;
    for listener in [&mut listener, &mut other] {
        assert_eq!(field(&line(&mut listener.messages).await.unwrap(), "subject"), ticket_subject(real));
    }
    let later = append(&log).await;
    assert_eq!(field(&line(&mut listener.messages).await.unwrap(), "subject"), ticket_subject(later));
    let (status, rest) = listener.interrupt().await;
    assert_eq!((status.code(), rest), (Some(0), vec![]));
    other.interrupt().await;

    let consumer = stream.consumer_info("orders-service").await.unwrap();
    assert_eq!((consumer.num_pending, consumer.num_ack_pending), (2, 0));
    assert!(stream.consumer_info(DURABLE).await.is_err(), "nothing durable is left behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_looks_like_the_real_ones() {
    let nats = NatsServer::temporary().await.unwrap();
    append(&tickets(nats.url()).await).await;
    publish(nats.url(), &[]).await;
    let jetstream = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let shape = async |stream: &str| {
        let message = jetstream.get_stream(stream).await.unwrap().get_raw_message(1).await.unwrap();
        let headers: BTreeSet<String> = message.headers.iter().map(|(name, _)| name.to_string()).collect();
        let payload: serde_json::Map<_, _> = serde_json::from_slice(&message.payload).unwrap();
        (headers, payload.keys().cloned().collect::<BTreeSet<_>>())
    };
    assert_eq!(shape(STREAM).await, shape(TICKETS.name).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_wrong_is_one_line() {
    let nats = NatsServer::temporary().await.unwrap();
    let fails = async |nats: &str, arguments: &[&str], expected: &str| {
        let output = command(env!("CARGO_BIN_EXE_listener"), nats, arguments).output();
        let output = timeout(PATIENCE, output).await.expect("it does not end").unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
        assert!(error.contains(expected) && !error.contains("secret"), "{error}");
    };
    fails(nats.url(), &["--stream", "NOWHERE"], "there is no stream NOWHERE").await;
    fails("nats://me:secret@127.0.0.1:1", &[], "no NATS server at nats://127.0.0.1:1").await;
    fails("nats://me:secret@127.0.0.1:port", &[], "NATS_URL").await;
}

/// The log of svc-tickets.
async fn tickets(nats: &str) -> Log {
    let settings = Settings { url: nats.into(), auth: Auth::None, ca: None, name: TICKETS.source.into() };
    let connection = Connection::open(settings).await.unwrap();
    let config = StreamConfig {
        name: TICKETS.name.into(),
        subjects: TICKETS.subjects.into(),
        replicas: 1,
        source: TICKETS.source.into(),
    };
    Log::create(&connection, &config).await.unwrap()
}

async fn append(log: &Log) -> TicketId {
    let id = TicketId(Uuid::now_v7());
    let event = TicketEvent::Created(TicketCreated {
        id,
        title: "a real one".into(),
        price_cents: Cents(500),
        user_id: UserId(Uuid::from_u128(1)),
    });
    log.append(&ticket_subject(id), &event, 0, 0, Cause::Command).await.unwrap();
    id
}
