//! `ticketing audit`: a real system is sound, also while it works; whatever is wrong in a log is found, by its name.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Stdio,
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::{self, consumer::pull, stream},
};
use bytes::Bytes;
use contract::Timestamp;
use futures::{StreamExt, future::join_all};
use reqwest::StatusCode;
use sandbox::{nats::NatsServer, stripe::LedgerEntry};
use serde_json::{Value, json};
use support::{
    Layout, PATIENCE,
    Service::Auth,
    System,
    purchase::{Purchase, VISA, ledger_equals_log},
};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::process::Command;
use uuid::Uuid;

const STREAMS: [&str; 6] = ["USERS", "TICKETS", "ORDERS", "PAYMENTS", "EXPIRATIONS", "KV_user-keys"];

#[tokio::test(flavor = "multi_thread")]
async fn a_system_at_work_is_sound_in_the_eyes_of_who_may_only_look() {
    let layout = Layout { nats_users: true, window_seconds: 12, orders_replicas: 2, ..Layout::default() };
    let system = System::start(layout).await;
    let scenes = Scenes::play(&system).await;
    let key = TempDir::new().unwrap();
    let key = key.path().join("operator.nk");
    std::fs::write(&key, system.nats_seed("operator")).unwrap();
    let operator = [("NATS_URL", system.nats.url()), ("NATS_NKEY", key.to_str().unwrap())];

    let ledger = system.stripe.url();
    let settled = audit(&operator, &["--grace", "0", "--stripe-ledger", ledger]).await;
    assert_eq!((settled.code, settled.codes()), (0, BTreeSet::new()), "{}", settled.report);
    assert_eq!(settled.report["stripeIntents"], scenes.intents);
    let orders = settled.report["streams"].as_array().unwrap().iter().find(|one| one["stream"] == "ORDERS");
    assert_eq!(orders.unwrap()["messages"], system.length("ORDERS").await);
    assert!(!settled.stderr.to_lowercase().contains("permissions violation"), "{}", settled.stderr);

    // Purchases under way, and a look at them again and again: what is not yet so is not wrong.
    let buying = async {
        join_all((0..40).map(|_| Purchase::bought(&system))).await;
    };
    tokio::pin!(buying);
    let (mut looks, arguments) = (0, ["--stripe-ledger", ledger]);
    loop {
        tokio::select! {
            look = audit(&operator, &arguments) => assert_eq!((look.code, look.codes()), (0, BTreeSet::new()), "{}", look.report),
            () = &mut buying => break,
        }
        looks += 1;
    }
    assert!(looks > 0, "nobody looked");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_in_a_log_is_found_by_its_name() {
    let system = System::start(Layout { window_seconds: 6, ..Layout::default() }).await;
    let scenes = Scenes::play(&system).await;
    let log = Log::copy(&system).await;
    drop(system);

    let looking = corruptions().into_iter().map(|planted| {
        let (mut log, scenes) = (log.clone(), &scenes);
        async move {
            (planted.plant)(&mut log, scenes);
            let found = log.audited(&planted).await;
            let expected: BTreeSet<_> = planted.finds.iter().map(|code| (*code).to_owned()).collect();
            assert_eq!(found.codes(), expected, "{}: {}", planted.what, found.report);
            assert_eq!(found.code, i32::from(!expected.is_empty()), "{}", planted.what);
            format!("{:60} {}", planted.what, planted.finds.join(", "))
        }
    });
    let told: Vec<String> = futures::stream::iter(looking).buffered(3).collect().await;
    println!("{}", told.join("\n"));
    assert!(told.len() > 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn stripes_ledger_and_the_log_say_the_same() {
    let system = System::start(Layout { window_seconds: 6, ..Layout::default() }).await;
    let scenes = Scenes::play(&system).await;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("ledger.json");
    let ledger = system.stripe.ledger();
    type Falsify = fn(&mut Vec<LedgerEntry>, &Scenes);
    let falsified: [(&str, Falsify, &[&str]); 6] = [
        ("as it is", |_, _| {}, &[]),
        (
            "another sum was taken",
            |ledger, scenes| entry(ledger, &scenes.bought).amount_captured += 1,
            &["ledger-differs"],
        ),
        (
            "it was taken twice",
            |ledger, scenes| entry(ledger, &scenes.bought).captures = 2,
            &["ledger-differs"],
        ),
        (
            "it was never taken",
            |ledger, scenes| {
                ledger.retain(|entry| entry.metadata.get("order_id") != Some(&scenes.bought.order));
            },
            &["ledger-differs"],
        ),
        (
            "it did not go back",
            |ledger, scenes| entry(ledger, &scenes.refunded).amount_refunded = 0,
            &["ledger-refund-differs"],
        ),
        (
            "it was taken of somebody who did not pay",
            |ledger, scenes| {
                let mut taken = entry(ledger, &scenes.bought).clone();
                taken.metadata.insert("order_id".into(), scenes.expired.order.clone());
                taken.metadata.insert("payment_id".into(), Uuid::now_v7().to_string());
                ledger.push(taken);
            },
            &["ledger-unrecorded"],
        ),
    ];
    // Of Stripe itself, its list is asked for.
    let environment = [("NATS_URL", system.nats.url()), ("STRIPE_KEY", support::STRIPE_KEY)];
    let listed = audit(&environment, &["--grace", "0", "--stripe-ledger", system.stripe.url()]).await;
    assert_eq!((listed.code, listed.codes()), (0, BTreeSet::new()), "{}{}", listed.report, listed.stderr);
    assert_eq!(listed.report["stripeIntents"], scenes.intents);
    let arguments = ["--stripe-ledger", "http://127.0.0.1:9"];
    let away = audit(&environment, &arguments).await;
    assert_eq!(away.code, 2, "{}", away.stderr);

    for (what, falsify, finds) in falsified {
        let mut ledger = ledger.clone();
        falsify(&mut ledger, &scenes);
        std::fs::write(&file, serde_json::to_vec(&ledger).unwrap()).unwrap();
        let environment = [("NATS_URL", system.nats.url())];
        let found = audit(&environment, &["--grace", "0", "--stripe-ledger", file.to_str().unwrap()]).await;
        let expected: BTreeSet<_> = finds.iter().map(|code| (*code).to_owned()).collect();
        assert_eq!(found.codes(), expected, "{what}: {}", found.report);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_read_is_neither_sound_nor_wrong() {
    let nothing = audit(&[("NATS_URL", "nats://127.0.0.1:9")], &[]).await;
    assert_eq!(nothing.code, 2, "{}", nothing.stderr);
    assert!(nothing.stderr.contains("127.0.0.1:9"), "{}", nothing.stderr);
    let empty = NatsServer::temporary().await.unwrap();
    let environment = [("NATS_URL", empty.url())];
    let no_streams = audit(&environment, &[]).await;
    assert_eq!(no_streams.code, 2, "{}", no_streams.stderr);
    let no_ledger = audit(&environment, &["--stripe-ledger", "/nowhere/ledger.json"]).await;
    assert_eq!(no_ledger.code, 2, "{}", no_ledger.stderr);
    let unknown = audit(&environment, &["--grace", "soon"]).await;
    assert_eq!(unknown.code, 2, "{}", unknown.stderr);
}

/// `cargo test --release --test audit -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "writes for a minute, and its time is that of an optimised build"]
async fn a_million_events_are_audited_within_twenty_seconds() {
    let server = NatsServer::temporary().await.unwrap();
    let purchases = 1_000_000 / PurchaseMade::EVENTS + 1;
    fill(&server, purchases).await;
    let found = audit(&[("NATS_URL", server.url())], &["--grace", "0"]).await;
    assert_eq!((found.code, found.codes()), (0, BTreeSet::new()), "{}", found.stderr);
    let streams = found.report["streams"].as_array().unwrap();
    let events: u64 = streams.iter().map(|stream| stream["messages"].as_u64().unwrap()).sum();
    let seconds = found.report["seconds"].as_f64().unwrap();
    println!("{events} events in {seconds:.1} s, {:.0} a second", events as f64 / seconds);
    assert_eq!(events, purchases * PurchaseMade::EVENTS);
    assert!(seconds < 20.0, "{seconds} s");
}

/// Writes what so many purchases leave.
async fn fill(server: &NatsServer, purchases: u64) {
    let client = async_nats::connect(server.url()).await.unwrap();
    // Two of them stay empty.
    for name in ["USERS", "TICKETS", "ORDERS", "PAYMENTS", "EXPIRATIONS"] {
        let subject = format!("ticketing.{}.*", name.to_lowercase());
        let config = json!({ "name": name, "subjects": [subject], "allow_atomic": true, "storage": "file",
            "retention": "limits", "num_replicas": 1 });
        let created =
            client.request(format!("$JS.API.STREAM.CREATE.{name}"), config.to_string().into()).await;
        let created: Value = serde_json::from_slice(&created.unwrap().payload).unwrap();
        assert!(created["error"].is_null(), "{created}");
    }
    let mut left = purchases;
    while left > 0 {
        // As many as a batch takes.
        let now = left.min(1000 / 3);
        let made: Vec<_> = (0..now).map(|_| PurchaseMade::new()).collect();
        let part = |part: usize| made.iter().flat_map(move |made| made.0[part].clone());
        tokio::join!(
            commit(&client, part(0).collect()),
            commit(&client, part(1).collect()),
            commit(&client, part(2).collect())
        );
        left -= now;
    }
}

/// Appends all at once: one after the other, each would wait for the disk.
async fn commit(client: &async_nats::Client, messages: Vec<Message>) {
    let (batch, last) = (Uuid::now_v7().to_string(), messages.len());
    for (number, Message { subject, mut headers, payload }) in (1..).zip(messages) {
        headers.insert("Nats-Batch-Id", &*batch);
        headers.insert("Nats-Batch-Sequence", number.to_string());
        if number < last {
            client.publish_with_headers(subject, headers, payload).await.unwrap();
            continue;
        }
        headers.insert("Nats-Batch-Commit", "1");
        let answer = client.request_with_headers(subject, headers, payload).await.unwrap();
        let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
        assert_eq!(answer["count"], last, "{answer}");
    }
}

/// The events of one purchase: of the ticket, of its order, of the payment.
struct PurchaseMade([Vec<Message>; 3]);

impl PurchaseMade {
    const EVENTS: u64 = 9;

    fn new() -> Self {
        let [ticket, order, payment, seller, buyer] = std::array::from_fn(|_| Uuid::now_v7().to_string());
        let listed = json!({ "id": ticket, "title": "Concert", "priceCents": 1999, "userId": seller });
        let held = |sold: bool, version: u64| {
            let mut data = listed.clone();
            data["orderId"] = json!(order);
            data["sold"] = sold.into();
            data["orderVersion"] = version.into();
            data
        };
        let ordered = json!({ "id": order, "status": "created", "userId": buyer,
            "expiresAt": "2026-11-22T05:38:55.120Z",
            "ticket": { "id": ticket, "title": "Concert", "priceCents": 1999 } });
        let paid = json!({ "id": order, "paymentId": payment, "ticket": { "id": ticket } });
        let request = json!({ "id": payment, "orderId": order, "userId": buyer, "amountCents": 1999,
            "currency": "usd", "paymentMethod": "pm_card_visa" });
        let settled = json!({ "id": payment, "orderId": order, "stripeId": format!("pi_{payment}") });

        let (mut tickets, mut orders, mut payments) = (Vec::new(), Vec::new(), Vec::new());
        let mut ticket_event =
            |name, data, cause| happened(&mut tickets, "tickets", &ticket, name, data, cause);
        let mut order_event = |name, data, cause| happened(&mut orders, "orders", &ticket, name, data, cause);
        let mut payment_event =
            |name, data, cause| happened(&mut payments, "payments", &order, name, data, cause);
        ticket_event("ticket:created", listed.clone(), None);
        let created = order_event("order:created", ordered, None);
        ticket_event("ticket:updated", held(false, 0), Some(created));
        let requested = payment_event("payment:requested", request, None);
        let authorized = payment_event("payment:authorized", settled.clone(), Some(requested));
        let awaiting = order_event("order:awaiting-payment", paid.clone(), Some(authorized));
        let captured = payment_event("payment:created", settled, Some(awaiting));
        let completed = order_event("order:completed", paid, Some(captured));
        ticket_event("ticket:updated", held(true, 2), Some(completed));
        Self([tickets, orders, payments])
    }
}

/// Puts the next event of a subject behind the others, as its service would have written it; returns its id.
fn happened(
    before: &mut Vec<Message>,
    stream: &str,
    key: &str,
    event_type: &str,
    mut data: Value,
    cause: Option<Uuid>,
) -> Uuid {
    let id = cause.map_or_else(Uuid::now_v7, |cause| Uuid::new_v5(&cause, event_type.as_bytes()));
    let subject = format!("ticketing.{stream}.{key}");
    data["version"] = before.len().into();
    data["_trace"] = json!({ "uber-trace-id": "0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:0:1" });
    let (id_text, source) = (id.to_string(), format!("svc-{stream}"));
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("Nats-Msg-Id", &*id_text),
        ("ce-specversion", "1.0"),
        ("ce-id", &id_text),
        ("ce-type", event_type),
        ("ce-source", &source),
        ("ce-subject", &subject),
        ("ce-time", "2026-11-22T05:23:55.120Z"),
        ("ce-schemaversion", "1"),
        ("content-type", "application/json"),
    ] {
        headers.insert(name, value);
    }
    if let Some(cause) = cause {
        headers.insert("ce-causationid", cause.to_string());
    }
    before.push(Message { subject, headers, payload: serde_json::to_vec(&data).unwrap().into() });
    id
}

/// What an audit said.
struct Audited {
    code: i32,
    report: Value,
    stderr: String,
}

impl Audited {
    fn codes(&self) -> BTreeSet<String> {
        let findings = self.report["findings"].as_array().cloned().unwrap_or_default();
        findings.iter().map(|finding| support::text(&finding["code"])).collect()
    }
}

async fn audit(environment: &[(&str, &str)], arguments: &[&str]) -> Audited {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
    command
        .args(["audit", "--json"])
        .args(arguments)
        .env_clear()
        .env("RUST_LOG", "info")
        .envs(environment.iter().copied());
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("ends by itself").unwrap();
    Audited {
        code: output.status.code().unwrap(),
        report: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// What happened in the log: one of each.
struct Scenes {
    bought: Purchase,
    refunded: Purchase,
    expired: Purchase,
    given_up: Purchase,
    erased: String,
    /// How many intents Stripe has of it.
    intents: usize,
}

impl Scenes {
    /// Plays them all, and waits until every service has said its last word.
    async fn play(system: &System) -> Self {
        let expired = Purchase::reserved(system).await;
        let bought = Purchase::bought(system).await;
        let refunded = Purchase::bought(system).await;
        refunded.start_to_refund(system, 0).await.unwrap();
        refunded.is_refunded(system).await;
        let given_up = Purchase::reserved(system).await;
        assert_eq!(given_up.pays(system, "pm_card_chargeDeclined").await.0, StatusCode::PAYMENT_REQUIRED);
        given_up.cancel(system).await;
        given_up.is_not_bought(system, "buyer").await;
        let second_try = Purchase::reserved(system).await;
        assert_eq!(second_try.pays(system, "pm_card_chargeDeclined").await.0, StatusCode::PAYMENT_REQUIRED);
        assert_eq!(second_try.pays(system, VISA).await.0, StatusCode::CREATED);
        second_try.is_bought(system).await;
        let erased = signs_up_and_leaves(system).await;
        expired.is_not_bought(system, "expired").await;
        ledger_equals_log(system).await;
        Self { bought, refunded, expired, given_up, erased, intents: system.stripe.ledger().len() }
    }
}

/// One who stays, and one who has all that is known of them erased: their id.
async fn signs_up_and_leaves(system: &System) -> String {
    let anybody = reqwest::Client::new();
    let mut leaver = String::new();
    for email in ["stays@example.com", "leaves@example.com"] {
        let body = json!({ "email": email, "password": "correct horse battery" });
        let answer = anybody.post(system.url(Auth, 0, "/api/users/signup")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
        let token = cookie.trim_start_matches("session=").split(';').next().unwrap().to_owned();
        leaver = support::text(&answer.json::<Value>().await.unwrap()["id"]);
        if email.starts_with("leaves") {
            let url = system.url(Auth, 0, "/api/users/me");
            let answer = anybody.delete(url).bearer_auth(token).json(&body).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        }
    }
    leaver
}

fn entry<'a>(ledger: &'a mut [LedgerEntry], purchase: &Purchase) -> &'a mut LedgerEntry {
    let is_its = |entry: &&mut LedgerEntry| entry.metadata.get("order_id") == Some(&purchase.order);
    ledger.iter_mut().find(is_its).unwrap()
}

/// Every message of every stream, as somebody could write them anew.
#[derive(Clone)]
struct Log(BTreeMap<&'static str, Vec<Message>>);

#[derive(Clone)]
struct Message {
    subject: String,
    headers: HeaderMap,
    payload: Bytes,
}

impl Message {
    fn event_type(&self) -> &str {
        self.headers.get("ce-type").map_or("", |value| value.as_str())
    }

    fn set(&mut self, header: &'static str, value: impl Into<String>) {
        let value: String = value.into();
        self.headers.insert(header, &*value);
    }

    /// As if written by somebody of their own accord: with an id of its own.
    fn of_its_own(mut self) -> Self {
        let id = Uuid::now_v7().to_string();
        self.set("ce-id", &*id);
        self.set("Nats-Msg-Id", &*id);
        let mut headers = HeaderMap::new();
        for (name, values) in self.headers.iter() {
            if name.to_string() != "ce-causationid" {
                values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
            }
        }
        Self { headers, ..self }
    }

    fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        let mut data = serde_json::from_slice(&self.payload).unwrap();
        change(&mut data);
        self.payload = serde_json::to_vec(&data).unwrap().into();
    }

    fn version(&self) -> u64 {
        serde_json::from_slice::<Value>(&self.payload).unwrap()["version"].as_u64().unwrap()
    }
}

impl Log {
    async fn copy(system: &System) -> Self {
        let jetstream = system.jetstream().await;
        let mut log = BTreeMap::new();
        for name in STREAMS {
            let mut stream = jetstream.get_stream(name).await.unwrap();
            let last = stream.info().await.unwrap().state.last_sequence;
            let consumer_name = Some(format!("look-{}", Uuid::now_v7().simple()));
            let config = pull::OrderedConfig { name: consumer_name, ..pull::OrderedConfig::default() };
            let consumer = stream.create_consumer(config).await.unwrap();
            let mut messages = consumer.messages().await.unwrap();
            let mut copied = Vec::new();
            let mut sequence = 0;
            while sequence < last {
                let message = messages.next().await.unwrap().unwrap();
                sequence = message.info().unwrap().stream_sequence;
                let mut headers = HeaderMap::new();
                for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
                    // What was expected then cannot be expected of a copy, nor what it came together with.
                    let of_its_time = ["Nats-Expected", "Nats-Batch"];
                    if !of_its_time.iter().any(|of| name.to_string().starts_with(of)) {
                        values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
                    }
                }
                let (subject, payload) = (message.subject.to_string(), message.payload.clone());
                copied.push(Message { subject, headers, payload });
            }
            log.insert(name, copied);
        }
        Self(log)
    }

    fn of(&mut self, stream: &str) -> &mut Vec<Message> {
        self.0.get_mut(stream).unwrap()
    }

    /// Where the last such event of that subject is.
    fn at(&mut self, stream: &str, id: &str, event_type: &str) -> usize {
        let is_it = |message: &Message| message.subject.ends_with(id) && message.event_type() == event_type;
        self.of(stream).iter().rposition(is_it).unwrap_or_else(|| panic!("no {event_type} of {id}"))
    }

    fn message(&mut self, stream: &str, id: &str, event_type: &str) -> &mut Message {
        let at = self.at(stream, id, event_type);
        &mut self.of(stream)[at]
    }

    fn remove(&mut self, stream: &str, id: &str, event_type: &str) -> Message {
        let at = self.at(stream, id, event_type);
        self.of(stream).remove(at)
    }

    /// Written to streams of a server of its own, past everybody, and audited.
    async fn audited(&self, planted: &Planted) -> Audited {
        let server = NatsServer::temporary().await.unwrap();
        let jetstream = jetstream::new(async_nats::connect(server.url()).await.unwrap());
        for (name, messages) in &self.0 {
            let subjects = match name.strip_prefix("KV_") {
                Some(bucket) => format!("$KV.{bucket}.>"),
                None => format!("ticketing.{}.*", name.to_lowercase()),
            };
            // A key is destroyed by rolling up what was there.
            let (name, allow_rollup) = (*name, name.starts_with("KV_"));
            let config = stream::Config {
                name: name.into(),
                subjects: vec![subjects],
                allow_rollup,
                ..Default::default()
            };
            let stream = jetstream.create_stream(config).await.unwrap();
            let mut sent = Vec::new();
            for Message { subject, headers, payload } in messages.iter().cloned() {
                sent.push(jetstream.publish_with_headers(subject, headers, payload).await.unwrap());
            }
            for acknowledgement in sent {
                assert!(!acknowledgement.await.unwrap().duplicate, "the server has dropped it");
            }
            if let Some(which) = planted.deletes.filter(|_| name == "PAYMENTS") {
                let sequence = which(messages.len() as u64);
                #[expect(
                    clippy::disallowed_methods,
                    reason = "what must not be done is what is to be found"
                )]
                stream.delete_message(sequence).await.unwrap();
            }
        }
        audit(&[("NATS_URL", server.url())], &["--grace", "0"]).await
    }
}

/// Something that is wrong with a log.
struct Planted {
    what: &'static str,
    plant: fn(&mut Log, &Scenes),
    /// Which sequence of PAYMENTS is deleted by the server, of so many.
    deletes: Option<fn(u64) -> u64>,
    /// Everything that is found then.
    finds: &'static [&'static str],
}

fn corruptions() -> Vec<Planted> {
    let planted = |what, finds, plant| Planted { what, plant, deletes: None, finds };
    vec![
        planted("a copy as it is", &[], |_, _| {}),
        planted("an event in the middle is left out", &["cause-unknown", "version-gap"], |log, scenes| {
            log.remove("PAYMENTS", &scenes.bought.order, "payment:authorized");
        }),
        planted("the last event of a ticket is left out", &["ticket-disagrees"], |log, scenes| {
            log.remove("TICKETS", &scenes.bought.ticket, "ticket:updated");
        }),
        Planted {
            what: "a message is deleted",
            plant: |_, _| {},
            deletes: Some(|_| 2),
            finds: &["cause-unknown", "messages-missing", "version-gap"],
        },
        Planted {
            what: "the last message is deleted",
            plant: |_, _| {},
            deletes: Some(|messages| messages),
            finds: &["cause-unknown", "completed-unpaid", "messages-missing", "payment-unsettled"],
        },
        planted("a lost stream", &["stream-missing"], |log, _| {
            log.0.remove("USERS");
        }),
        planted("a lost stream that others follow from", &["cause-unknown", "stream-missing"], |log, _| {
            log.0.remove("EXPIRATIONS");
        }),
        planted("the bucket of keys is lost", &["keys-missing"], |log, _| {
            log.0.remove("KV_user-keys");
        }),
        planted("a sold ticket is sold again", &["double-sale", "ticket-disagrees"], |log, scenes| {
            let mut order =
                log.message("ORDERS", &scenes.bought.ticket, "order:created").clone().of_its_own();
            let version = log.message("ORDERS", &scenes.bought.ticket, "order:completed").version() + 1;
            order.edit(|data| {
                data["id"] = json!(Uuid::now_v7());
                data["version"] = version.into();
                let in_an_hour = OffsetDateTime::now_utc() + Duration::from_secs(3600);
                data["expiresAt"] = json!(Timestamp::from(in_an_hour));
            });
            log.of("ORDERS").push(order);
        }),
        planted(
            "two writers decided on one state",
            &["illegal-transition", "version-repeated"],
            |log, scenes| {
                let again =
                    log.message("ORDERS", &scenes.given_up.ticket, "order:cancelled").clone().of_its_own();
                log.of("ORDERS").push(again);
            },
        ),
        planted(
            "an event is there twice",
            &["header-unfit", "id-repeated", "illegal-transition", "version-repeated"],
            |log, scenes| {
                let mut again = log.message("PAYMENTS", &scenes.bought.order, "payment:created").clone();
                again.set("Nats-Msg-Id", "past the server's memory");
                log.of("PAYMENTS").push(again);
            },
        ),
        planted("a payment is of another sum", &["payment-unfit"], |log, scenes| {
            let request = log.message("PAYMENTS", &scenes.bought.order, "payment:requested");
            request.edit(|data| data["amountCents"] = 1.into());
        }),
        planted("an order is at another price", &["order-unfit", "payment-unfit"], |log, scenes| {
            let order = log.message("ORDERS", &scenes.bought.ticket, "order:created");
            order.edit(|data| data["ticket"]["priceCents"] = 1.into());
        }),
        planted(
            "an order is complete, and nobody paid",
            &["cause-unknown", "completed-unpaid"],
            |log, scenes| {
                log.of("PAYMENTS").retain(|message| !message.subject.ends_with(&scenes.bought.order));
            },
        ),
        planted(
            "a paid order is cancelled",
            &["captured-in-vain", "cause-unknown", "illegal-transition", "ticket-disagrees"],
            |log, scenes| {
                let completed = log.message("ORDERS", &scenes.bought.ticket, "order:completed");
                *completed = completed.clone().of_its_own();
                completed.set("ce-type", "order:cancelled");
                completed.edit(|data| data["reason"] = "buyer".into());
            },
        ),
        planted(
            "money goes back, and no word of it",
            &["cause-unknown", "payment-unsettled"],
            |log, scenes| {
                log.remove("PAYMENTS", &scenes.refunded.order, "payment:refunded");
            },
        ),
        planted("an order is never over", &["order-overdue"], |log, scenes| {
            log.remove("EXPIRATIONS", &scenes.expired.order, "expiration:complete");
            log.remove("ORDERS", &scenes.expired.ticket, "order:cancelled");
            log.remove("TICKETS", &scenes.expired.ticket, "ticket:updated");
        }),
        planted("a window has no end", &["window-unfit"], |log, scenes| {
            let order = log.message("ORDERS", &scenes.bought.ticket, "order:created");
            order.edit(|data| data["expiresAt"] = "2999-01-01T00:00:00.000Z".into());
        }),
        planted("an order awaits another payment", &["cause-unfit"], |log, scenes| {
            let awaiting = log.message("ORDERS", &scenes.bought.ticket, "order:awaiting-payment");
            awaiting.edit(|data| data["paymentId"] = json!(Uuid::now_v7()));
        }),
        planted("a window ends early", &["expiration-unfit"], |log, scenes| {
            let over = log.message("EXPIRATIONS", &scenes.expired.order, "expiration:complete");
            over.set("ce-time", "2020-01-01T00:00:00Z");
        }),
        planted("a ticket names another order", &["cause-unfit", "ticket-disagrees"], |log, scenes| {
            let sold = log.message("TICKETS", &scenes.bought.ticket, "ticket:updated");
            let another = scenes.expired.order.clone();
            sold.edit(|data| data["orderId"] = another.into());
        }),
        planted(
            "a ticket reflects a version to come",
            &["cause-unfit", "ticket-disagrees"],
            |log, scenes| {
                let sold = log.message("TICKETS", &scenes.bought.ticket, "ticket:updated");
                sold.edit(|data| data["orderVersion"] = 99.into());
            },
        ),
        planted("a cause is in no stream", &["cause-unknown", "id-not-derived"], |log, scenes| {
            let completed = log.message("ORDERS", &scenes.bought.ticket, "order:completed");
            completed.set("ce-causationid", Uuid::now_v7().to_string());
        }),
        planted("a service writes what another owns", &["header-unfit"], |log, scenes| {
            log.message("ORDERS", &scenes.bought.ticket, "order:created").set("ce-source", "svc-tickets");
        }),
        planted("an event stands on another's subject", &["subject-unfit"], |log, scenes| {
            let order = log.message("ORDERS", &scenes.expired.ticket, "order:created");
            order.edit(|data| data["ticket"]["id"] = json!(Uuid::now_v7()));
        }),
        planted("somebody writes what is no event", &["unreadable"], |log, scenes| {
            let mut poison =
                log.message("ORDERS", &scenes.bought.ticket, "order:created").clone().of_its_own();
            poison.payload = "hello".into();
            log.of("ORDERS").push(poison);
        }),
        planted("the key of an erased user is kept", &["key-kept"], |log, scenes| {
            let key = log.of("KV_user-keys").iter_mut().find(|key| key.subject.ends_with(&scenes.erased));
            key.unwrap().headers = HeaderMap::new();
        }),
        planted("two have one address", &["illegal-transition"], |log, scenes| {
            let erased = scenes.erased.clone();
            let mut again = log.of("USERS").first().unwrap().clone().of_its_own();
            again.edit(|data| {
                data["id"] = json!(erased);
                data["version"] = 1.into();
            });
            log.of("USERS").push(again);
        }),
    ]
}
