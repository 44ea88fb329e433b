//! Each service as the NATS user that `ticketing nats-keys` makes for it: all its work is possible, and it may
//! ask for nothing else. Two users are for people. By TLS nobody passes for the server, and no stranger joins a cluster.

mod support;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
    process::Command,
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, Message, ServerError};
use bytes::Bytes;
use eventstore::{Auth, Readiness, Settings, StartError, Store, StoreConfig};
use futures::StreamExt;
use reqwest::StatusCode;
use sandbox::nats::{NatsOptions, NatsServer};
use serde_json::{Value, json};
use support::{
    Layout, PATIENCE,
    Service::{Auth as Accounts, Expiration, Orders, Payments, Tickets},
    System, nats_keys,
    port::Port,
    purchase::{Purchase, VISA},
    within,
};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Each service, the stream that it owns, and those that it reads.
const SERVICES: [(&str, &str, &[&str]); 5] = [
    ("svc-auth", "USERS", &["USERS", "KV_user-keys"]),
    ("svc-tickets", "TICKETS", &["TICKETS", "ORDERS", "USERS"]),
    ("svc-orders", "ORDERS", &["ORDERS", "TICKETS", "PAYMENTS", "EXPIRATIONS", "USERS"]),
    ("svc-payments", "PAYMENTS", &["PAYMENTS", "ORDERS", "TICKETS", "USERS"]),
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
async fn each_service_does_all_its_work_as_its_own_user_and_over_tls() {
    let layout = Layout {
        nats_users: true,
        nats_tls: true,
        orders_replicas: 2,
        window_seconds: 6,
        ..Layout::default()
    };
    let often = HashMap::from([("SNAPSHOT_EVERY_EVENTS", "1".to_owned())]);
    let mut system = System::start_with(layout, often).await;
    let email = json!({ "email": "ann@example.com", "password": "correct horse" });
    for (path, status) in [("signup", StatusCode::CREATED), ("signin", StatusCode::OK)] {
        let url = system.url(Accounts, 0, &format!("/api/users/{path}"));
        assert_eq!(system.person().post(&url, email.clone()).await.0, status, "{path}");
    }
    let bought = Purchase::bought(&system).await;
    let given_back = Purchase::bought(&system).await;
    given_back.start_to_refund(&system, 0).await.unwrap();
    given_back.until_logged(&system, "refunded").await;
    let expires = Purchase::reserved(&system).await;
    system.until_order(&expires.buyer, &expires.order, "cancelled").await;

    // Again from nothing: with a new consumer each, and what was in hand. From snapshots, which each has made by then.
    let operator = Member::connect(&system, "operator").await;
    for (service, name) in [(Tickets, "svc-tickets"), (Orders, "svc-orders"), (Payments, "svc-payments")] {
        let made = || async { operator.sees_object_in(&format!("snapshots-{name}")).await.then_some(()) };
        assert!(within(PATIENCE, made).await.is_some(), "{name}: {}", system.log(service, 0));
        system.kill(service, 0).await;
        std::fs::remove_dir_all(system.data_dir(service, 0)).unwrap();
        system.restart(service, 0).await;
        assert!(
            system.log(service, 0).contains("projections start from a snapshot"),
            "{name}: {}",
            system.log(service, 0)
        );
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
    let before = (contents(&system).await, durables(&system).await);
    for (service, _, reads) in SERVICES {
        let mut thief = Member::connect(&system, service).await;
        for (other, stream, _) in SERVICES.iter().filter(|(other, ..)| *other != service) {
            let subject = format!("ticketing.{}.x", stream.to_lowercase());
            thief.may_not_publish(&subject).await;
            thief
                .may_not_publish(&format!("ticketing.deadletters.{other}-{}.X.1", stream.to_lowercase()))
                .await;
            let bucket = format!("snapshots-{other}");
            thief.may_not_publish(&format!("$O.{bucket}.M.x")).await;
            for call in ["STREAM.PURGE", "STREAM.INFO", "DIRECT.GET", "CONSUMER.CREATE", "STREAM.DELETE"] {
                thief.may_not_ask(&format!("{call}.OBJ_{bucket}")).await;
            }
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
        for (_, durable, streams) in DURABLES {
            for stream in streams {
                thief.may_not_make_by_body(stream, durable).await;
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
    assert_eq!((contents(&system).await, durables(&system).await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_everything_and_may_ask_for_no_change() {
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
    let before = (contents(&system).await, durables(&system).await);
    for stream in STREAMS {
        for call in ["CREATE", "DELETE", "PURGE", "UPDATE", "MSG.DELETE", "RESTORE"] {
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
            operator.may_not_make_by_body(stream, durable).await;
            // The name in the subject is what counts.
            let look = format!("look-{durable}");
            let made =
                operator.asks(&format!("CONSUMER.CREATE.{stream}.{look}"), stolen(stream, durable)).await;
            assert_eq!(made["name"], look, "{made}");
        }
    }
    operator.may_not_publish("$KV.user-keys.x").await;
    assert_eq!((contents(&system).await, durables(&system).await), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_backs_up_the_admin_restores() {
    let mut system = System::start(Layout { nats_users: true, ..Layout::default() }).await;
    let sold = Purchase::bought(&system).await;
    system.until_ticket(&sold.ticket, "sold").await;
    let waits = Purchase::reserved(&system).await;
    system.until_ticket(&waits.ticket, "reserved").await;
    let before = contents(&system).await;
    for service in [Accounts, Tickets, Orders, Payments, Expiration] {
        system.kill(service, 0).await;
    }
    let operator = Member::connect(&system, "operator").await;
    let admin = Member::connect(&system, "admin").await;
    for stream in STREAMS {
        let backup = operator.backs_up(stream).await;
        assert_eq!(admin.asks(&format!("STREAM.DELETE.{stream}"), json!({})).await["success"], true);
        admin.restores(stream, backup).await;
    }
    assert_eq!(contents(&system).await, before);
    for service in [Accounts, Tickets, Orders, Payments, Expiration] {
        system.restart(service, 0).await;
    }
    // Rows were wiped and replayed, and durables know where they were.
    sold.is_bought(&system).await;
    assert_eq!(waits.pays(&system, VISA).await.0, StatusCode::CREATED);
    waits.is_bought(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_admin_changes_anything_but_what_happened() {
    let mut system = System::start(Layout { nats_users: true, ..Layout::default() }).await;
    let bought = Purchase::bought(&system).await;
    system.until_ticket(&bought.ticket, "sold").await;
    let before = contents(&system).await;
    let mut admin = Member::connect(&system, "admin").await;
    for stream in STREAMS {
        admin.may_not_publish(&format!("ticketing.{}.x", stream.to_lowercase())).await;
    }
    admin.may_not_publish("$KV.user-keys.x").await;
    admin.may_not_publish("ticketing.deadletters.orders-service.PAYMENTS.1").await;
    for (_, durable, streams) in DURABLES {
        for stream in streams {
            admin.may_not_ask(&format!("CONSUMER.MSG.NEXT.{stream}.{durable}")).await;
            admin.may_not_publish(&format!("$JS.ACK.{stream}.{durable}.1.1.1.1.1")).await;
        }
    }
    for subject in [">", "$JS.API.>", "$SYS.>", "$KV.>"] {
        admin.may_not_hear(subject).await;
    }
    admin.may_not_publish("$SYS.REQ.SERVER.PING").await;
    assert_eq!(contents(&system).await, before);

    // A durable that is gone is made anew by its service, which finds everything done.
    for (_, durable, streams) in DURABLES {
        for stream in streams {
            let answer = admin.asks(&format!("CONSUMER.DELETE.{stream}.{durable}"), json!({})).await;
            assert_eq!(answer["success"], true, "{answer}");
        }
    }
    for service in [Tickets, Orders, Payments, Expiration] {
        system.kill(service, 0).await;
        system.restart(service, 0).await;
    }
    let after = Purchase::bought(&system).await;
    system.until_ticket(&after.ticket, "sold").await;
    bought.is_bought(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_authority_does_not_know_is_not_believed() {
    let system = System::start(Layout { nats_users: true, nats_tls: true, ..Layout::default() }).await;
    let directory = TempDir::new().unwrap();
    nats_keys(directory.path());
    let another = directory.path().join("operator/ca.pem");
    let operator = || Auth::Nkey(system.nats_key("operator"));
    // Somebody else's authority, none at all (then those of this machine), and the right one.
    for (ca, says) in [
        (Some(another.as_path()), Some("invalid peer certificate: BadSignature")),
        (None, Some("invalid peer certificate: UnknownIssuer")),
        (Some(system.nats_authority().as_path()), None),
    ] {
        let database = TempDir::new().unwrap();
        let config = told(system.nats.url(), operator(), ca, database.path());
        let store = Store::open(config, CancellationToken::new()).await.unwrap();
        let settled = || async {
            match (store.readiness(), says) {
                (Readiness::Disconnected(reason), Some(says)) => reason.contains(says).then_some(()),
                (readiness, None) => (readiness == Readiness::Ready).then_some(()),
                _ => None,
            }
        };
        assert!(within(PATIENCE, settled).await.is_some(), "{ca:?}: {:?}", store.readiness());
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_wants_tls_does_not_do_without() {
    let system = System::start(Layout { nats_users: true, ..Layout::default() }).await;
    let database = TempDir::new().unwrap();
    let operator = Auth::Nkey(system.nats_key("operator"));
    let config = told(system.nats.url(), operator, Some(&system.nats_authority()), database.path());
    let store = Store::open(config, CancellationToken::new()).await.unwrap();
    let refused = || async {
        let Readiness::Disconnected(reason) = store.readiness() else { return None };
        reason.starts_with("nats is not connected: ").then_some(())
    };
    assert!(within(PATIENCE, refused).await.is_some(), "{:?}", store.readiness());
    store.close().await;
}

#[tokio::test]
async fn a_file_without_an_authority_stops_the_start() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("ca.pem");
    for (text, says) in [
        (None, "cannot be read"),
        (Some(""), "there is none in it"),
        (Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "holds no certificate"),
    ] {
        if let Some(text) = text {
            fs::write(&file, text).unwrap();
        }
        let config = told("nats://127.0.0.1:9", Auth::None, Some(&file), &directory.path().join("rows"));
        let opened = Store::open(config, CancellationToken::new());
        let error = opened.await.err().map(|error: StartError| error.to_string()).unwrap_or_default();
        assert!(error.contains(says) && error.contains("ca.pem"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_stranger_joins_the_cluster() {
    let directory = TempDir::new().unwrap();
    let (ours, strangers) = (directory.path().join("ours"), directory.path().join("strangers"));
    nats_keys(&ours);
    nats_keys(&strangers);
    let ports = [Port::reserve(), Port::reserve(), Port::reserve(), Port::reserve()];
    let routes: Vec<_> = ports[..2].iter().map(|port| format!("nats://127.0.0.1:{}", port.number)).collect();
    let server = async |name: &str, port: &Port, keys: &Path, tls: bool| {
        let conf = clustered(name, port.number, &routes, keys, tls);
        let (store_dir, users) = (directory.path().join(name), directory.path().join(format!("{name}.conf")));
        fs::write(&users, conf).unwrap();
        NatsServer::start(NatsOptions { store_dir, port: None, users: Some(users) }).await.unwrap()
    };
    let members =
        [server("nats-1", &ports[0], &ours, true).await, server("nats-2", &ports[1], &ours, true).await];
    let seed = fs::read_to_string(ours.join("system/nats.nk")).unwrap().trim().to_owned();
    let system = ConnectOptions::with_nkey(seed).connect(members[0].url()).await.unwrap();
    let neighbours = || async { routed(&system).await };
    let both = || async { (neighbours().await == ["nats-2".to_owned()].into()).then_some(()) };
    assert!(within(PATIENCE, both).await.is_some(), "{:?}", neighbours().await);

    // They believe our servers. One has a certificate of an authority of its own, the other none.
    fs::copy(ours.join("server/ca.pem"), strangers.join("server/ca.pem")).unwrap();
    let log = || fs::read_to_string(directory.path().join("nats-1/nats.log")).unwrap();
    for (name, port, tls) in [("stranger-1", &ports[2], true), ("stranger-2", &ports[3], false)] {
        let before = log().len();
        let _stranger = server(name, port, &strangers, tls).await;
        // Said by the one that was asked.
        let refused = || async { log()[before..].contains("TLS route handshake error").then_some(()) };
        assert!(within(PATIENCE, refused).await.is_some(), "{name}:\n{}", &log()[before..]);
        assert_eq!(neighbours().await, ["nats-2".to_owned()].into(), "{name}");
    }
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
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    let (seed, users) = (read("svc-orders/nats.nk"), read("server/users.conf"));
    assert!(!users.contains(seed.trim()), "a secret is in the server's configuration");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for (name, private) in [("svc-orders", 0o700), ("svc-orders/nats.nk", 0o600)] {
            let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, private, "{name}");
        }
    }
    fs::remove_file(directory.path().join("operator/nats.nk")).unwrap();
    make_keys(directory.path());
    assert_eq!(read("svc-orders/nats.nk"), seed);
    assert_ne!(read("server/users.conf"), users, "the operator has a new key");
    // As a crash leaves it between making and writing.
    fs::write(directory.path().join("operator/nats.nk"), "").unwrap();
    make_keys(directory.path());
    assert!(read("operator/nats.nk").starts_with("SU"), "an empty file is no key");
    assert_eq!(read("svc-orders/nats.nk"), seed);
    assert!(!directory.path().join("svc-orders/ca.pem").exists(), "nobody asked for TLS");
    nats_keys(directory.path());
    let (authority, certificate) = (read("svc-orders/ca.pem"), read("server/server.pem"));
    nats_keys(directory.path());
    assert_eq!(read("svc-orders/ca.pem"), authority, "who believed the one before believes this one");
    assert_ne!(read("server/server.pem"), certificate, "renewed");
    fs::write(directory.path().join("operator/nats.nk"), "hunter2").unwrap();
    let output = try_to_make_keys(directory.path());
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("operator/nats.nk holds no seed") && !said.contains("hunter2"), "{said}");
}

/// How many messages each stream holds.
async fn contents(system: &System) -> Vec<(&'static str, u64)> {
    let mut contents = Vec::new();
    for stream in STREAMS {
        contents.push((stream, system.length(stream).await));
    }
    contents
}

/// What each durable is, and since when.
async fn durables(system: &System) -> Vec<(Value, Value)> {
    let operator = Member::connect(system, "operator").await;
    let mut durables = Vec::new();
    for (_, durable, streams) in DURABLES {
        for stream in streams {
            let info = operator.asks(&format!("CONSUMER.INFO.{stream}.{durable}"), json!({})).await;
            durables.push((info["created"].clone(), info["config"].clone()));
        }
    }
    durables
}

/// A request for a consumer by the name of somebody's durable, which would no longer be one.
fn stolen(stream: &str, durable: &str) -> Value {
    let config = json!({ "name": durable, "ack_policy": "explicit", "description": "stolen" });
    json!({ "stream_name": stream, "config": config })
}

fn make_keys(directory: &Path) {
    let output = try_to_make_keys(directory);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn try_to_make_keys(directory: &Path) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
    command.args(["nats-keys", "--out"]).arg(directory).env_clear().output().unwrap()
}

/// How somebody is told to reach NATS, and to keep rows in `database`.
fn told(url: &str, auth: Auth, ca: Option<&Path>, database: &Path) -> StoreConfig {
    StoreConfig {
        nats: Settings { url: url.into(), auth, ca: ca.map(Path::to_owned), name: "operator".into() },
        replicas: 1,
        database: database.to_owned(),
        cache_bytes: 1 << 20,
        snapshots: None,
        dead_letters: "DEADLETTERS".into(),
        dead_letters_prefix: "ticketing.deadletters".into(),
    }
}

/// The configuration of one of a cluster as it is deployed, with its own addresses and files.
fn clustered(name: &str, port: u16, routes: &[String], keys: &Path, tls: bool) -> String {
    let deployed = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/nats/cluster.conf"));
    let deployed = deployed.unwrap().replace("include nats.conf", "");
    let files = keys.join("server").display().to_string();
    let mut cluster = deployed
        .replace("/etc/nats/keys/server", &files)
        .replace("port: 6222", &format!("listen: 127.0.0.1:{port}"))
        .replace("$NATS_ROUTES", &json!(routes).to_string());
    if !tls {
        let (before, rest) = cluster.split_once("tls {").unwrap();
        cluster = before.to_owned() + rest.split_once('}').unwrap().1;
    }
    let users = fs::read_to_string(keys.join("server/users.conf")).unwrap();
    format!("server_name: {name}\n{cluster}\n{users}")
}

/// The names of the servers that the system account's server has routes to.
async fn routed(system: &Client) -> BTreeSet<String> {
    let id = system.server_info().server_id;
    let answer = system.request(format!("$SYS.REQ.SERVER.{id}.ROUTEZ"), "".into()).await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    let routes = answer["data"]["routes"].as_array().cloned().unwrap_or_default();
    routes.iter().map(|route| support::text(&route["remote_name"])).collect()
}

/// A stream as `nats stream backup` keeps it.
struct Backup {
    /// What it is, and how far it was.
    stream: Value,
    chunks: Vec<Bytes>,
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
        let options = options.custom_inbox_prefix(format!("_INBOX.{name}"));
        // Believed where the server insists on TLS.
        let options = options.add_root_certificates(system.nats_authority());
        let client = options.connect(system.nats.url()).await.unwrap();
        Self { name: name.to_owned(), client, refused }
    }

    /// The answer of JetStream.
    async fn asks(&self, call: &str, body: Value) -> Value {
        let answer = self.client.request(format!("$JS.API.{call}"), body.to_string().into()).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert!(answer["error"].is_null(), "{}: {call}: {answer}", self.name);
        answer
    }

    /// Whether there is something in that bucket of the object store.
    async fn sees_object_in(&self, bucket: &str) -> bool {
        let call = format!("$JS.API.STREAM.INFO.OBJ_{bucket}");
        let answer = self.client.request(call, "".into()).await.unwrap();
        let info: Value = serde_json::from_slice(&answer.payload).unwrap();
        // A piece of it, and what tells of it.
        info["state"]["messages"].as_u64().is_some_and(|messages| messages >= 2)
    }

    /// By the same requests as the nats CLI.
    async fn backs_up(&self, stream: &str) -> Backup {
        let inbox = self.client.new_inbox();
        let mut delivered = self.client.subscribe(inbox.clone()).await.unwrap();
        let wish = json!({ "deliver_subject": inbox, "chunk_size": 4096, "jsck": true });
        let stream = self.asks(&format!("STREAM.SNAPSHOT.{stream}"), wish).await;
        let mut chunks = Vec::new();
        loop {
            let next = tokio::time::timeout(PATIENCE, delivered.next()).await;
            let Message { payload, reply, .. } = next.expect("a chunk in time").unwrap();
            // An empty one is the end.
            if payload.is_empty() {
                return Backup { stream, chunks };
            }
            chunks.push(payload);
            if let Some(reply) = reply {
                self.client.publish(reply, "".into()).await.unwrap();
            }
        }
    }

    async fn restores(&self, stream: &str, backup: Backup) {
        let what = json!({ "config": backup.stream["config"], "state": backup.stream["state"] });
        let ready = self.asks(&format!("STREAM.RESTORE.{stream}"), what).await;
        let subject = support::text(&ready["deliver_subject"]);
        for chunk in backup.chunks {
            self.client.request(subject.clone(), chunk).await.unwrap();
        }
        let done = self.client.request(subject, "".into()).await.unwrap();
        let done: Value = serde_json::from_slice(&done.payload).unwrap();
        assert!(done["error"].is_null(), "{done}");
    }

    async fn may_not_ask(&mut self, call: &str) {
        self.may_not_publish(&format!("$JS.API.{call}")).await;
    }

    /// Without a name in the subject: of what the body says, no rule knows.
    async fn may_not_make_by_body(&mut self, stream: &str, durable: &str) {
        let subject = format!("$JS.API.CONSUMER.CREATE.{stream}");
        self.client.publish(subject.clone(), stolen(stream, durable).to_string().into()).await.unwrap();
        self.is_refused("publish", &subject).await;
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
