//! `ticketing history`: what the log says of a ticket, an order or a user, and how they stood then.

mod support;

use std::process::Stdio;

use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{
    Layout, PATIENCE,
    Service::Auth,
    System,
    purchase::{Purchase, VISA},
};
use tempfile::TempDir;
use tokio::process::Command;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_is_told_from_all_sides_by_who_may_only_look() {
    let system = System::start(Layout { nats_users: true, ..Layout::default() }).await;
    // Somebody else's business, to be left out.
    Purchase::bought(&system).await;
    let purchase = Purchase::reserved(&system).await;
    let (status, _) = purchase.pays(&system, "pm_card_chargeDeclined").await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED);
    assert_eq!(purchase.pays(&system, VISA).await.0, StatusCode::CREATED);
    purchase.is_bought(&system).await;
    let log = Look::of(&system);

    let told = log.json(&["ticket", &purchase.ticket]).await;
    let happened = [
        "ticket:created",
        "order:created",
        "ticket:updated",
        "order:awaiting-payment",
        "order:completed",
        "ticket:updated",
    ];
    assert_eq!(told.events(), happened, "{}", told.0);
    let state = &told.0["state"];
    assert_eq!((&state["status"], &state["price"]), (&json!("sold"), &json!("19.99")));
    assert_eq!((&state["order"], &state["version"]), (&json!(purchase.order), &json!(2)));

    let told = log.json(&["order", &purchase.order]).await;
    let happened = [
        "order:created",
        "payment:requested",
        "payment:declined",
        "payment:requested",
        "payment:authorized",
        "order:awaiting-payment",
        "payment:created",
        "order:completed",
    ];
    assert_eq!(told.events(), happened, "{}", told.0);
    assert_eq!(told.0["state"]["status"], "complete");
    assert_eq!(told.0["state"]["paymentStatus"], "created");
    assert_eq!(told.0["state"]["ticket"], json!(purchase.ticket));

    let told = log.json(&["user", &purchase.buyer.id.to_string()]).await;
    assert_eq!(told.events(), happened, "{}", told.0);
    assert_eq!(told.0["state"]["orders"], json!({ "complete": 1 }));
    assert_eq!(told.0["state"]["paid"], "19.99");
    let told = log.json(&["user", &purchase.seller.id.to_string()]).await;
    assert_eq!(told.events(), ["ticket:created", "ticket:updated", "ticket:updated"], "{}", told.0);
    assert_eq!((&told.0["state"]["ticketsListed"], &told.0["state"]["ticketsSold"]), (&json!(1), &json!(1)));

    let text = log.run(&["ticket", &purchase.ticket]).await;
    assert_eq!(text.code, 0, "{}", text.stderr);
    assert!(text.stdout.contains("sold to order"), "{}", text.stdout);
    let lines: Vec<_> = text.stdout.lines().collect();
    let column = lines[2].find("event").unwrap();
    assert!(lines[3..9].iter().all(|line| line[column..].contains(':')), "aligned:\n{}", text.stdout);
    assert!(!text.stderr.to_lowercase().contains("permissions violation"), "{}", text.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_told_as_of_any_moment() {
    let system = System::start(Layout::default()).await;
    let purchase = Purchase::bought(&system).await;
    let log = Look::of(&system);
    let whole = log.json(&["ticket", &purchase.ticket]).await;
    let events = whole.0["events"].as_array().unwrap();
    let reserved = events.iter().find(|event| event["type"] == "ticket:updated").unwrap();

    let at = reserved["sequence"].to_string();
    let then = log.json(&["ticket", &purchase.ticket, "--at", &at]).await;
    assert_eq!(then.0["state"]["status"], "reserved", "{}", then.0);
    assert_eq!(then.0["asOf"], reserved["time"]);
    assert!(then.0["events"].as_array().unwrap().len() < events.len());

    let then = log.json(&["ticket", &purchase.ticket, "--at", "2020-01-01T00:00:00Z"]).await;
    assert_eq!((&then.0["state"]["status"], then.events().len()), (&json!("not listed"), 0));
    let then = log.json(&["order", &purchase.order, "--at", "2999-01-01T00:00:00+02:00"]).await;
    assert_eq!(then.0["state"]["status"], "complete");
    let created = log.json(&["order", &purchase.order, "--at", "1"]).await;
    assert_eq!((created.events(), &created.0["state"]["status"]), (vec!["order:created"], &json!("created")));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_is_told_without_what_is_sealed_in_it_being_opened() {
    let system = System::start(Layout::default()).await;
    let body = json!({ "email": "somebody@example.com", "password": "correct horse battery" });
    let answer =
        reqwest::Client::new().post(system.url(Auth, 0, "/api/users/signup")).json(&body).send().await;
    let user = support::text(&answer.unwrap().json::<Value>().await.unwrap()["id"]);
    let log = Look::of(&system);
    let told = log.json(&["user", &user]).await;
    assert_eq!((told.events(), &told.0["state"]["account"]), (vec!["user:signed-up"], &json!("signed up")));
    assert!(!told.0.to_string().contains("somebody@example.com"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_told_in_a_line() {
    let system = System::start(Layout::default()).await;
    let purchase = Purchase::reserved(&system).await;
    let log = Look::of(&system);
    let unknown = Uuid::now_v7().to_string();
    for (arguments, says) in [
        (&["ticket", &unknown][..], "the log has no ticket"),
        (&["order", &unknown], "the log has no order"),
        (&["user", &unknown], "the log has no user"),
        (&["ticket", "7"], "invalid value '7'"),
        (&["concert", &purchase.ticket], "invalid value 'concert'"),
        (&["ticket", &purchase.ticket, "--at", "yesterday"], "neither a sequence"),
        (&["ticket", &purchase.ticket, "--at", "0"], "neither a sequence"),
        (&["ticket", &purchase.ticket, "--at", "999"], "TICKETS has no event at sequence 999"),
        (&["ticket", &purchase.ticket, "--nats", "nats://127.0.0.1:9"], "127.0.0.1:9"),
    ] {
        let said = log.run(arguments).await;
        assert_eq!(said.code, 2, "{arguments:?}: {}", said.stderr);
        assert!(said.stderr.contains(says), "{arguments:?}: {}", said.stderr);
    }
}

/// Somebody who looks at a system's log.
struct Look {
    url: String,
    key: Option<String>,
    _directory: TempDir,
}

struct Said {
    code: i32,
    stdout: String,
    stderr: String,
}

/// What was said as JSON.
struct Told(Value);

impl Told {
    fn events(&self) -> Vec<&str> {
        let events = self.0["events"].as_array().unwrap();
        events.iter().map(|event| event["type"].as_str().unwrap()).collect()
    }
}

impl Look {
    /// As the operator, where there are users.
    fn of(system: &System) -> Self {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("operator.nk");
        let key = system.has_nats_users().then(|| {
            std::fs::write(&path, system.nats_seed("operator")).unwrap();
            path.display().to_string()
        });
        Self { url: system.nats.url().to_owned(), key, _directory: directory }
    }

    async fn run(&self, arguments: &[&str]) -> Said {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
        command.arg("history").args(arguments).env_clear();
        command.envs([("NATS_URL", &*self.url), ("RUST_LOG", "info")]);
        command.envs(self.key.iter().map(|key| ("NATS_NKEY", key)));
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = tokio::time::timeout(PATIENCE, output).await.expect("ends by itself").unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Said { code: output.status.code().unwrap(), stdout: text(output.stdout), stderr: text(output.stderr) }
    }

    async fn json(&self, arguments: &[&str]) -> Told {
        let said = self.run(&[arguments, &["--json"]].concat()).await;
        assert_eq!(said.code, 0, "{arguments:?}: {}", said.stderr);
        Told(serde_json::from_str(&said.stdout).unwrap())
    }
}
