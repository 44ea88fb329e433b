//! `ticketing sandbox stripe`: Stripe alone, as a process, for a service or a client at work.

mod support;

use std::{
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use reqwest::{Client, StatusCode};
use sandbox::stripe::LedgerEntry;
use serde_json::Value;
use support::{PATIENCE, STRIPE_KEY, WEBHOOK_SECRET, send};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::timeout,
};

/// How long the process may take to end when it is asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(10);

/// A running one. Dropping it kills it.
struct Alone {
    child: Child,
    url: String,
    summary: Vec<String>,
}

impl Alone {
    async fn start(arguments: &[&str]) -> Self {
        let mut child = command(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut summary = Vec::new();
        while !summary.last().is_some_and(|line: &String| line.trim().starts_with("by hand")) {
            let line = timeout(PATIENCE, lines.next_line()).await.expect("ready in time").unwrap();
            summary.push(line.unwrap_or_else(|| panic!("it ended: {summary:?}")));
        }
        let url = summary[0].strip_prefix("ready: ").expect("where it is").to_owned();
        Self { child, url, summary }
    }

    async fn ledger(&self) -> Vec<LedgerEntry> {
        let answer = reqwest::get(format!("{}/_sandbox/ledger", self.url)).await.unwrap();
        answer.json().await.unwrap()
    }

    /// SIGTERM or SIGINT, by name; waits until it has ended.
    async fn stop(mut self, signal: &str) -> bool {
        send(signal, self.child.id().unwrap());
        timeout(ENDS_WITHIN, self.child.wait()).await.expect("ends in time").unwrap().success()
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
    command.env_clear().args(["sandbox", "stripe"]).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

#[tokio::test]
async fn it_takes_payments_tells_of_them_and_remembers_them() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("stripe.jsonl");
    let file = file.to_str().unwrap();
    let shop = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let webhook = format!("http://{}/webhook", shop.local_addr().unwrap());
    let told = ["--webhook-url", &webhook, "--webhook-secret", WEBHOOK_SECRET];

    let alone = Alone::start(&[&["--port", "0", "--file", file], &told[..]].concat()).await;
    for word in [STRIPE_KEY, "pm_card_visa", file, &webhook, "/_sandbox/faults"] {
        assert!(alone.summary.iter().any(|line| line.contains(word)), "{word}: {:?}", alone.summary);
    }
    let form = [
        ("amount", "1999"),
        ("currency", "usd"),
        ("confirm", "true"),
        ("payment_method", "pm_card_visa"),
        ("payment_method_types[]", "card"),
    ];
    let request = Client::new().post(format!("{}/v1/payment_intents", alone.url)).bearer_auth(STRIPE_KEY);
    let answer = request.form(&form).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let intent: Value = answer.json().await.unwrap();
    assert_eq!(intent["status"], "succeeded");

    let head = timeout(PATIENCE, first_request(&shop)).await.expect("told in time");
    assert!(head[0].starts_with("POST /webhook "), "{head:?}");
    assert!(
        head.iter().any(|line| line.to_ascii_lowercase().starts_with("stripe-signature: t=")),
        "{head:?}"
    );

    let ledger = alone.ledger().await;
    assert_eq!((ledger.len(), ledger[0].amount_captured), (1, 1999));
    assert!(alone.stop("TERM").await);
    let alone = Alone::start(&["--file", file]).await;
    assert_eq!(alone.ledger().await, ledger);
    assert!(alone.stop("INT").await);
}

#[tokio::test]
async fn what_it_cannot_work_with_is_told() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (arguments, said) in [
        (&["--port", &*port][..], "cannot listen on 127.0.0.1:"),
        (&["--file", "/nowhere/at/all"], "/nowhere/at/all"),
        (&["--port", "http"], "--port"),
        (&["--webhook-url", "http://127.0.0.1:9/webhook"], "--webhook-secret"),
        (&["--webhook-secret", WEBHOOK_SECRET], "--webhook-url"),
        (
            &["--webhook-url", "https://shop.example/webhook", "--webhook-secret", WEBHOOK_SECRET],
            "it must be an http address",
        ),
        (
            &["--webhook-url", "http://127.0.0.1:9/", "--webhook-secret", "hunter2"],
            "it must begin with whsec_",
        ),
    ] {
        let Output { status, stdout, stderr } =
            timeout(PATIENCE, command(arguments).output()).await.unwrap().unwrap();
        let stderr = String::from_utf8(stderr).unwrap();
        assert!(!status.success() && stdout.is_empty(), "{arguments:?}");
        assert!(stderr.starts_with("error: ") && stderr.contains(said), "{arguments:?}: {stderr}");
    }
    assert!(!Path::new("/nowhere").exists());
}

/// Reads the head of a request, and takes it.
async fn first_request(listener: &TcpListener) -> Vec<String> {
    let (mut connection, _) = listener.accept().await.unwrap();
    let mut lines = BufReader::new(&mut connection).lines();
    let mut head = Vec::new();
    while let Some(line) = lines.next_line().await.unwrap().filter(|line| !line.is_empty()) {
        head.push(line);
    }
    connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
    head
}
