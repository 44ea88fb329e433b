//! Whoever asks NATS says where the answer goes. Each service has each of its requests answered wherever that could do
//! harm, and none does: each has an account of its own. The same users within one account show that it would.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, ServerError, StatusCode};
use futures::StreamExt;
use sandbox::nats::{NatsOptions, NatsServer};
use serde_json::{Value, json};
use support::{PATIENCE, nats_keys, text, within};
use tempfile::TempDir;
use tokio::sync::mpsc;

/// Each stream, who makes it, its subjects, and one of them that nobody publishes to.
const STREAMS: [(&str, &str, &str, &str); 12] = [
    ("USERS", "svc-auth", "ticketing.users.*", "ticketing.users.forged"),
    ("TICKETS", "svc-tickets", "ticketing.tickets.*", "ticketing.tickets.forged"),
    ("ORDERS", "svc-orders", "ticketing.orders.*", "ticketing.orders.forged"),
    ("PAYMENTS", "svc-payments", "ticketing.payments.*", "ticketing.payments.forged"),
    ("EXPIRATIONS", "svc-expiration", "ticketing.expirations.*", "ticketing.expirations.forged"),
    ("DEADLETTERS", "svc-auth", "ticketing.deadletters.>", "ticketing.deadletters.forged.X.1"),
    ("KV_user-keys", "svc-auth", "$KV.user-keys.>", "$KV.user-keys.forged"),
    ("OBJ_snapshots-svc-auth", "svc-auth", "$O.snapshots-svc-auth.>", "$O.snapshots-svc-auth.M.forged"),
    (
        "OBJ_snapshots-svc-tickets",
        "svc-tickets",
        "$O.snapshots-svc-tickets.>",
        "$O.snapshots-svc-tickets.M.forged",
    ),
    (
        "OBJ_snapshots-svc-orders",
        "svc-orders",
        "$O.snapshots-svc-orders.>",
        "$O.snapshots-svc-orders.M.forged",
    ),
    (
        "OBJ_snapshots-svc-payments",
        "svc-payments",
        "$O.snapshots-svc-payments.>",
        "$O.snapshots-svc-payments.M.forged",
    ),
    (
        "OBJ_snapshots-svc-expiration",
        "svc-expiration",
        "$O.snapshots-svc-expiration.>",
        "$O.snapshots-svc-expiration.M.forged",
    ),
];

/// Every durable, and a stream that it is on.
const DURABLES: [(&str, &str, &str); 6] = [
    ("svc-tickets", "tickets-service", "ORDERS"),
    ("svc-payments", "payments-service", "ORDERS"),
    ("svc-expiration", "expiration-service", "ORDERS"),
    ("svc-payments", "payments-service", "PAYMENTS"),
    ("svc-orders", "orders-service", "PAYMENTS"),
    ("svc-orders", "orders-service", "EXPIRATIONS"),
];

const SERVICES: [&str; 5] = ["svc-auth", "svc-tickets", "svc-orders", "svc-payments", "svc-expiration"];

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_goes_nowhere_but_to_who_asked() {
    let market = Market::open(Homes::Own).await;
    for service in SERVICES {
        let before = market.seen_beside(service).await;
        let mut member = market.member(service).await;
        let requests = market.requests_of(service);
        assert!(requests.len() > 9 && requests.iter().any(|one| one.contains("MSG.NEXT")), "{requests:?}");
        // They are requests as the service itself makes them, and are answered.
        member.asks_and_is_answered(&requests).await;
        member.misdirects(&requests, &harmful()).await;
        member.asks_and_is_answered(&requests).await;
        for (_, durable, stream) in DURABLES {
            member.may_not_have_answered_at(&format!("$JS.ACK.{stream}.{durable}.1.1.1.1.0")).await;
        }
        assert_eq!(market.seen_beside(service).await, before, "{service}");
    }
}

/// The test above can fail.
#[tokio::test(flavor = "multi_thread")]
async fn in_one_account_with_the_streams_answers_would_forge_and_delete() {
    for service in SERVICES {
        let market = Market::open(Homes::Shared).await;
        let (member, requests) = (market.member(service).await, market.requests_of(service));
        let streams = market.seen_beside(service).await.len();
        // Again and again, until what one request makes is there for the next.
        let forged = || async {
            member.misdirects(&requests, &events()).await;
            let seen = market.seen_beside(service).await;
            seen.values().any(|seen| seen.to_string().contains("forged")).then_some(())
        };
        assert!(within(PATIENCE, forged).await.is_some(), "{service}");
        let deleted = || async {
            member.misdirects(&requests, &changes()).await;
            (market.seen_beside(service).await.len() < streams).then_some(())
        };
        assert!(within(PATIENCE, deleted).await.is_some(), "{service}");
    }
}

/// A consumer that is pushed to says in its body where. Nobody listens to just that subject, so nothing is sent.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_service_has_pushed_goes_nowhere() {
    let market = Market::open(Homes::Own).await;
    for service in SERVICES {
        let before = market.seen_beside(service).await;
        let member = market.member(service).await;
        let made_in = |request: &String| {
            request.strip_prefix("$JS.API.CONSUMER.CREATE.")?.strip_suffix(".own").map(str::to_owned)
        };
        let readable: Vec<_> = market
            .requests_of(service)
            .iter()
            .filter_map(made_in)
            .filter(|stream| !stream.contains('.'))
            .collect();
        assert!(!readable.is_empty());
        for stream in readable {
            let mut pushed = Vec::new();
            for (number, target) in harmful().into_iter().enumerate() {
                let name = format!("pushed-{number}");
                let config = json!({
                    "name": name, "deliver_subject": target, "headers_only": true, "ack_policy": "none",
                });
                let body = json!({ "stream_name": stream, "config": config }).to_string();
                let made = member.asks(&format!("$JS.API.CONSUMER.CREATE.{stream}.{name}"), &body).await;
                match made["error"]["err_code"].as_u64() {
                    None => pushed.push(name),
                    // It would deliver into its own stream.
                    code => assert_eq!(code, Some(10081), "{service}: {made}"),
                }
            }
            assert!(pushed.len() > 20, "{service}: {pushed:?}");
            for name in pushed {
                let info = member.asks(&format!("$JS.API.CONSUMER.INFO.{stream}.{name}"), "").await;
                assert!(info["num_pending"].as_u64() > Some(0), "{service}: {info}");
                assert_eq!(info["delivered"]["consumer_seq"], 0, "{service}: {info}");
            }
        }
        assert_eq!(market.seen_beside(service).await, before, "{service}");
    }
}

/// A running deployment is given accounts by the server's configuration alone.
#[tokio::test(flavor = "multi_thread")]
async fn streams_outlive_the_move_into_accounts() {
    let mut market = Market::open(Homes::Shared).await;
    let before = market.seen_beside("nobody").await;
    assert_eq!(before.len(), STREAMS.len() + DURABLES.len());
    market.moves_to(Homes::Own).await;
    assert_eq!(market.seen_beside("nobody").await, before);
    for service in SERVICES {
        let requests = market.requests_of(service);
        market.member(service).await.asks_and_is_answered(&requests).await;
    }
}

/// The accounts that users are in.
#[derive(Clone, Copy)]
enum Homes {
    /// As `ticketing nats-keys` has them: each service in its own.
    Own,
    /// All in that of the streams, with the same permissions.
    Shared,
}

/// A server with every stream and durable, all made by those who own them, and a message in each stream but that of
/// dead letters.
struct Market {
    server: NatsServer,
    accounts: Value,
    users: PathBuf,
    directory: TempDir,
}

impl Market {
    async fn open(homes: Homes) -> Self {
        let directory = TempDir::new().unwrap();
        nats_keys(&directory.path().join("keys"));
        let made = fs::read_to_string(directory.path().join("keys/server/users.conf")).unwrap();
        let (_, accounts) = made.split_once("accounts: ").unwrap();
        let (accounts, _) = accounts.rsplit_once("system_account").unwrap();
        let accounts: Value = serde_json::from_str(accounts).unwrap();
        let users = directory.path().join("users.conf");
        fs::write(&users, configuration(&accounts, homes)).unwrap();
        let options =
            NatsOptions { store_dir: directory.path().join("store"), port: None, users: Some(users.clone()) };
        let market = Self { server: NatsServer::start(options).await.unwrap(), accounts, users, directory };
        for (stream, owner, subjects, _) in STREAMS {
            let config = json!({
                "name": stream, "subjects": [subjects], "storage": "file", "deny_delete": true, "allow_direct": true,
            });
            let made = market
                .member(owner)
                .await
                .asks(&format!("$JS.API.STREAM.CREATE.{stream}"), &config.to_string())
                .await;
            assert!(made["error"].is_null(), "{made}");
        }
        for (owner, durable, stream) in DURABLES {
            let config = json!({ "durable_name": durable, "ack_policy": "explicit" });
            let body = json!({ "stream_name": stream, "config": config }).to_string();
            let made = market
                .member(owner)
                .await
                .asks(&format!("$JS.API.CONSUMER.CREATE.{stream}.{durable}"), &body)
                .await;
            assert!(made["error"].is_null(), "{made}");
        }
        for (stream, owner, subjects, _) in STREAMS.iter().filter(|(stream, ..)| *stream != "DEADLETTERS") {
            let first = market.member(owner).await.asks(&subjects.replace(['*', '>'], "own"), "{}").await;
            assert_eq!(first["seq"], 1, "{stream}: {first}");
        }
        market
    }

    async fn moves_to(&mut self, homes: Homes) {
        fs::write(&self.users, configuration(&self.accounts, homes)).unwrap();
        self.server.restart().await.unwrap();
    }

    async fn member(&self, name: &str) -> Member {
        let seed = fs::read_to_string(self.directory.path().join("keys").join(name).join("nats.nk")).unwrap();
        let (told, refused) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_nkey(seed.trim().to_owned()).event_callback(move |event| {
            if let Event::ServerError(ServerError::Other(text)) = event {
                let _ = told.send(text.to_lowercase());
            }
            async {}
        });
        let inbox = format!("_INBOX.{name}");
        let client = options.custom_inbox_prefix(inbox).connect(self.server.url()).await.unwrap();
        Member { client, refused }
    }

    /// A request of each kind that a service may make.
    fn requests_of(&self, service: &str) -> Vec<String> {
        let permissions = &self.accounts[service]["users"][0]["permissions"];
        let allowed = permissions["publish"]["allow"].as_array().unwrap().iter().map(text);
        let literal = |subject: String| match subject.strip_suffix(".>") {
            Some(acknowledged) if acknowledged.starts_with("$JS.ACK.") => format!("{acknowledged}.1.1.1.1.0"),
            Some(prefix) => format!("{prefix}.own"),
            None => subject.replace('*', "own"),
        };
        allowed.map(literal).collect()
    }

    /// All that could be harmed, as the operator sees it: streams and what was written where the services publish nothing,
    /// and the durables of the others.
    async fn seen_beside(&self, service: &str) -> BTreeMap<String, Value> {
        let operator = self.member("operator").await;
        let mut seen = BTreeMap::new();
        for (stream, ..) in STREAMS {
            let body = json!({ "subjects_filter": ">" }).to_string();
            let info = operator.asks(&format!("$JS.API.STREAM.INFO.{stream}"), &body).await;
            let Some(created) = info["created"].as_str() else { continue };
            let subjects = info["state"]["subjects"].as_object().cloned().unwrap_or_default();
            let beside: BTreeSet<_> = subjects.keys().filter(|subject| !subject.ends_with("own")).collect();
            seen.insert(stream.to_owned(), json!([created, beside]));
        }
        for (_, durable, stream) in DURABLES.iter().filter(|(owner, ..)| *owner != service) {
            let info = operator.asks(&format!("$JS.API.CONSUMER.INFO.{stream}.{durable}"), "").await;
            if info["created"].is_string() {
                let place = [&info["created"], &info["config"], &info["delivered"], &info["num_waiting"]];
                seen.insert(format!("{stream}.{durable}"), json!(place));
            }
        }
        seen
    }
}

/// What the server is told.
fn configuration(accounts: &Value, homes: Homes) -> String {
    let mut accounts = accounts.clone();
    if let Homes::Shared = homes {
        let all = accounts.as_object_mut().unwrap();
        let services = SERVICES.map(|service| all.remove(service).unwrap()["users"][0].clone());
        let streams = all["TICKETING"].as_object_mut().unwrap();
        streams.remove("exports").unwrap();
        streams["users"].as_array_mut().unwrap().extend(services);
    }
    format!("accounts: {accounts:#}\nsystem_account: SYSTEM\n")
}

/// Subjects at which a message would be taken for an event.
fn events() -> Vec<String> {
    STREAMS.iter().map(|(_, _, _, forged)| (*forged).to_owned()).collect()
}

/// Subjects at which a message asks for something to be changed.
fn changes() -> Vec<String> {
    let streams = STREAMS
        .iter()
        .flat_map(|(stream, ..)| ["DELETE", "PURGE"].map(|call| format!("$JS.API.STREAM.{call}.{stream}")));
    let durables = DURABLES.iter().flat_map(|(_, durable, stream)| {
        ["CREATE", "DELETE"].map(|call| format!("$JS.API.CONSUMER.{call}.{stream}.{durable}"))
    });
    streams.chain(durables).collect()
}

fn harmful() -> Vec<String> {
    [events(), changes()].concat()
}

/// What is to be said in a request, for an answer that is worth having: that nothing is there to be pulled is empty.
fn body(request: &str) -> String {
    let tokens: Vec<_> = request.split('.').collect();
    match tokens[..] {
        ["$JS", "API", "CONSUMER", "CREATE", stream, name] => {
            let config = json!({ "name": name, "ack_policy": "none", "deliver_policy": "new" });
            json!({ "stream_name": stream, "config": config }).to_string()
        }
        ["$JS", "API", "CONSUMER", "MSG", "NEXT", ..] => json!({ "batch": 1, "no_wait": true }).to_string(),
        ["$JS", "API", "STREAM", "MSG", "GET", _] => json!({ "seq": 1 }).to_string(),
        ["$JS", ..] => String::new(),
        _ => "{}".to_owned(),
    }
}

/// One who is connected with a key.
struct Member {
    client: Client,
    refused: mpsc::UnboundedReceiver<String>,
}

impl Member {
    /// The first answer, `null` if there is nothing in it.
    async fn asks(&self, request: &str, body: &str) -> Value {
        // What is pulled keeps its own subject: the client's way to wait for answers would not know it.
        let inbox = self.client.new_inbox();
        let mut answers = self.client.subscribe(inbox.clone()).await.unwrap();
        self.client.publish_with_reply(request.to_owned(), inbox, body.to_owned().into()).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, answers.next()).await;
        let answer = answer.unwrap_or_else(|_| panic!("{request} is not answered")).unwrap();
        assert_ne!(answer.status, Some(StatusCode::NO_RESPONDERS), "{request}");
        serde_json::from_slice(&answer.payload).unwrap_or_default()
    }

    async fn asks_and_is_answered(&self, requests: &[String]) {
        for request in requests {
            self.asks(request, &body(request)).await;
        }
    }

    /// Has each of its requests answered at each of the targets.
    async fn misdirects(&self, requests: &[String], targets: &[String]) {
        for request in requests {
            for target in targets {
                self.client
                    .publish_with_reply(request.clone(), target.clone(), body(request).into())
                    .await
                    .unwrap();
            }
        }
        self.client.flush().await.unwrap();
    }

    /// Answers that are acknowledgements in somebody's name are the one kind that the server refuses by itself. It would
    /// not put an address of its own in place of these.
    async fn may_not_have_answered_at(&mut self, target: &str) {
        let request = "$JS.API.STREAM.INFO.DEADLETTERS";
        self.client.publish_with_reply(request, target.to_owned(), "".into()).await.unwrap();
        self.client.flush().await.unwrap();
        let refusal =
            format!("permissions violation for publish with reply of \"{}\"", target.to_lowercase());
        let heard = async {
            while let Some(text) = self.refused.recv().await {
                if text.contains(&refusal) {
                    return;
                }
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(5), heard).await.is_ok(), "answered at {target}");
    }
}
