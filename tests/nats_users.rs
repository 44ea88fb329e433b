//! Each service as the NATS user that `ticketing nats-keys` makes for it: all its work is possible, and nothing else is.

mod support;

use std::{path::Path, process::Command, time::Duration};

use async_nats::{Client, ConnectOptions, Event, ServerError};
use futures::StreamExt;
use reqwest::StatusCode;
use serde_json::json;
use support::{
    Layout, PATIENCE,
    Service::{Auth, Orders, Payments, Tickets},
    System,
    purchase::{Purchase, VISA},
};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Each service, the stream that it owns, and those that it reads.
const SERVICES: [(&str, &str, &[&str]); 5] = [
    ("svc-auth", "USERS", &["USERS", "KV_user-keys"]),
    ("svc-tickets", "TICKETS", &["TICKETS", "ORDERS"]),
    ("svc-orders", "ORDERS", &["ORDERS", "TICKETS", "PAYMENTS", "EXPIRATIONS"]),
    ("svc-payments", "PAYMENTS", &["PAYMENTS", "ORDERS", "TICKETS"]),
    ("svc-expiration", "EXPIRATIONS", &["EXPIRATIONS", "ORDERS"]),
];

/// Every durable and the streams it is on.
const DURABLES: [(&str, &str, &[&str]); 4] = [
    ("svc-tickets", "tickets-service", &["ORDERS"]),
    ("svc-orders", "orders-service", &["PAYMENTS", "EXPIRATIONS"]),
    ("svc-payments", "payments-service", &["ORDERS", "PAYMENTS"]),
    ("svc-expiration", "expiration-service", &["ORDERS"]),
];

const STREAMS: [&str; 7] =
    ["USERS", "TICKETS", "ORDERS", "PAYMENTS", "EXPIRATIONS", "DEADLETTERS", "KV_user-keys"];

#[tokio::test(flavor = "multi_thread")]
async fn each_service_does_all_its_work_as_its_own_user() {
    let layout = Layout { nats_users: true, orders_replicas: 2, window_seconds: 6, ..Layout::default() };
    let mut system = System::start(layout).await;
    let email = json!({ "email": "ann@example.com", "password": "correct horse" });
    for (path, status) in [("signup", StatusCode::CREATED), ("signin", StatusCode::OK)] {
        let url = system.url(Auth, 0, &format!("/api/users/{path}"));
        assert_eq!(system.person().post(&url, email.clone()).await.0, status, "{path}");
    }
    let bought = Purchase::bought(&system).await;
    let given_back = Purchase::bought(&system).await;
    given_back.start_to_refund(&system, 0).await.unwrap();
    given_back.until_logged(&system, "refunded").await;
    let expires = Purchase::reserved(&system).await;
    system.until_order(&expires.buyer, &expires.order, "cancelled").await;

    // Again from nothing: with a new consumer each, and what was in hand.
    for service in [Tickets, Orders, Payments] {
        system.kill(service, 0).await;
        std::fs::remove_dir_all(system.data_dir(service, 0)).unwrap();
        system.restart(service, 0).await;
    }
    let after = Purchase::reserved(&system).await;
    assert_eq!(after.pays(&system, VISA).await.0, StatusCode::CREATED);
    bought.is_bought(&system).await;
    for (service, replica) in system.running() {
        let log = system.log(service, replica);
        assert!(!log.to_lowercase().contains("permissions violation"), "{service:?}:\n{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_else_they_try_is_refused() {
    let system = System::start(Layout { nats_users: true, ..Layout::default() }).await;
    let bought = Purchase::bought(&system).await;
    // Until then, there are events to come.
    system.until_ticket(&bought.ticket, "sold").await;
    let before = contents(&system).await;
    for (service, _, reads) in SERVICES {
        let mut thief = Member::connect(&system, service).await;
        for (other, stream, _) in SERVICES.iter().filter(|(other, ..)| *other != service) {
            let subject = format!("ticketing.{}.x", stream.to_lowercase());
            thief.may_not_publish(&subject).await;
            thief
                .may_not_publish(&format!("ticketing.deadletters.{other}-{}.X.1", stream.to_lowercase()))
                .await;
        }
        for stream in STREAMS {
            for call in ["DELETE", "PURGE", "UPDATE", "MSG.DELETE", "SNAPSHOT", "RESTORE", "LEADER.STEPDOWN"]
            {
                thief.may_not_ask(&format!("STREAM.{call}.{stream}")).await;
            }
            thief.may_not_ask(&format!("CONSUMER.DELETE.{stream}.x")).await;
            if !reads.contains(&stream) {
                thief.may_not_ask(&format!("CONSUMER.CREATE.{stream}.x")).await;
                thief.may_not_ask(&format!("CONSUMER.MSG.NEXT.{stream}.x")).await;
                thief.may_not_ask(&format!("DIRECT.GET.{stream}")).await;
                if stream != "DEADLETTERS" {
                    thief.may_not_ask(&format!("STREAM.MSG.GET.{stream}")).await;
                    thief.may_not_ask(&format!("STREAM.INFO.{stream}")).await;
                }
            }
        }
        for (_, durable, streams) in DURABLES.iter().filter(|(owner, ..)| *owner != service) {
            for stream in *streams {
                thief.may_not_ask(&format!("CONSUMER.CREATE.{stream}.{durable}")).await;
                thief.may_not_ask(&format!("CONSUMER.MSG.NEXT.{stream}.{durable}")).await;
                thief.may_not_publish(&format!("$JS.ACK.{stream}.{durable}.1.1.1.1.1")).await;
            }
        }
        if service != "svc-auth" {
            thief.may_not_publish("$KV.user-keys.x").await;
        }
        for subject in ["ticketing.>", ">", "_INBOX.>", "_INBOX.svc-x.>", "$JS.API.>", "$SYS.>", "$KV.>"] {
            thief.may_not_hear(subject).await;
        }
        thief.may_not_publish("$SYS.REQ.SERVER.PING").await;
    }
    assert_eq!(contents(&system).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_everything_and_changes_nothing() {
    let system = System::start(Layout { nats_users: true, ..Layout::default() }).await;
    let bought = Purchase::bought(&system).await;
    // Until then, there are events to come.
    system.until_ticket(&bought.ticket, "sold").await;
    let before = contents(&system).await;
    assert!(before.contains(&("TICKETS", 3)), "it sees what was listed, reserved and sold: {before:?}");
    let mut operator = Member::connect(&system, "operator").await;
    let mut live = operator.client.subscribe("ticketing.>").await.unwrap();
    let reserved = Purchase::reserved(&system).await;
    let seen = tokio::time::timeout(PATIENCE, live.next()).await;
    assert!(seen.unwrap().is_some(), "what happens now");

    system.until_ticket(&reserved.ticket, "reserved").await;
    let before = contents(&system).await;
    for stream in STREAMS {
        for call in ["CREATE", "DELETE", "PURGE", "UPDATE", "MSG.DELETE", "SNAPSHOT", "RESTORE"] {
            operator.may_not_ask(&format!("STREAM.{call}.{stream}")).await;
        }
        operator.may_not_publish(&format!("ticketing.{}.x", stream.to_lowercase())).await;
        operator.may_not_ask(&format!("CONSUMER.DELETE.{stream}.x")).await;
    }
    for (_, durable, streams) in DURABLES {
        for stream in streams {
            operator.may_not_ask(&format!("CONSUMER.CREATE.{stream}.{durable}")).await;
            operator.may_not_ask(&format!("CONSUMER.MSG.NEXT.{stream}.{durable}")).await;
            operator.may_not_publish(&format!("$JS.ACK.{stream}.{durable}.1.1.1.1.1")).await;
        }
    }
    operator.may_not_publish("$KV.user-keys.x").await;
    assert_eq!(contents(&system).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_no_key_is_not_let_in() {
    let system = System::start(Layout { nats_users: true, ..Layout::default() }).await;
    let connecting = async_nats::connect(system.nats.url());
    let refused = tokio::time::timeout(PATIENCE, connecting).await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), async_nats::ConnectErrorKind::AuthorizationViolation);
    let another = nkeys::KeyPair::new_user().seed().unwrap();
    let refused = ConnectOptions::with_nkey(another).connect(system.nats.url()).await.unwrap_err();
    assert_eq!(refused.kind(), async_nats::ConnectErrorKind::AuthorizationViolation);
}

#[test]
fn keys_are_made_once_and_kept_private() {
    let directory = TempDir::new().unwrap();
    make_keys(directory.path());
    let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
    let (seed, users) = (read("svc-orders.nk"), read("users.conf"));
    assert!(!users.contains(seed.trim()), "a secret is in the server's configuration");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(directory.path().join("svc-orders.nk")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    std::fs::remove_file(directory.path().join("operator.nk")).unwrap();
    make_keys(directory.path());
    assert_eq!(read("svc-orders.nk"), seed);
    assert_ne!(read("users.conf"), users, "the operator has a new key");
    std::fs::write(directory.path().join("operator.nk"), "hunter2").unwrap();
    let output = nats_keys(directory.path());
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("operator.nk holds no seed") && !said.contains("hunter2"), "{said}");
}

/// How many messages each stream holds.
async fn contents(system: &System) -> Vec<(&'static str, u64)> {
    let mut contents = Vec::new();
    for stream in STREAMS {
        contents.push((stream, system.length(stream).await));
    }
    contents
}

fn make_keys(directory: &Path) {
    let output = nats_keys(directory);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn nats_keys(directory: &Path) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
    command.args(["nats-keys", "--out"]).arg(directory).env_clear().output().unwrap()
}

/// One who is connected with a key, and hears what the server refuses.
struct Member {
    name: String,
    client: Client,
    refused: mpsc::UnboundedReceiver<String>,
}

impl Member {
    async fn connect(system: &System, name: &str) -> Self {
        let (told, refused) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_nkey(system.nats_seed(name)).event_callback(move |event| {
            if let Event::ServerError(ServerError::Other(text)) = event {
                let _ = told.send(text.to_lowercase());
            }
            async {}
        });
        let inbox = format!("_INBOX.{name}");
        let client = options.custom_inbox_prefix(inbox).connect(system.nats.url()).await.unwrap();
        Self { name: name.to_owned(), client, refused }
    }

    async fn may_not_ask(&mut self, call: &str) {
        self.may_not_publish(&format!("$JS.API.{call}")).await;
    }

    async fn may_not_publish(&mut self, subject: &str) {
        self.client.publish(subject.to_owned(), "{}".into()).await.unwrap();
        self.is_refused("publish", subject).await;
    }

    async fn may_not_hear(&mut self, subject: &str) {
        let _subscribed = self.client.subscribe(subject.to_owned()).await.unwrap();
        self.is_refused("subscription", subject).await;
    }

    /// Waits for the server to say so: that nothing comes of it could have other reasons.
    async fn is_refused(&mut self, what: &str, subject: &str) {
        self.client.flush().await.unwrap();
        let refusal = format!("permissions violation for {what} to \"{}\"", subject.to_lowercase());
        let heard = async {
            while let Some(text) = self.refused.recv().await {
                if text.contains(&refusal) {
                    return;
                }
            }
        };
        let heard = tokio::time::timeout(Duration::from_secs(5), heard).await;
        assert!(heard.is_ok(), "{} may: {what} {subject}", self.name);
    }
}
