//! `cargo run`: the whole system in one process, started, stopped, killed and misused.

mod support;
mod whole;

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::UNIX_EPOCH,
};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::{Client, StatusCode};
use sandbox::{
    nats::NatsServer,
    stripe::{StripeOptions, StripeSandbox, sign},
};
use serde_json::{Value, json};
use support::{
    PATIENCE,
    collector::{Answers, Collector, Span},
    send, text, within,
};
use tempfile::TempDir;
use tokio::time::timeout;
use whole::{Whole, nats_servers_of};

/// Somebody with a browser: it keeps their cookies.
struct Visitor(Client);

impl Visitor {
    fn new() -> Self {
        Self(Client::builder().cookie_store(true).timeout(PATIENCE).build().unwrap())
    }

    async fn signed_up(whole: &Whole, email: &str) -> Self {
        let visitor = Self::new();
        let account = json!({ "email": email, "password": "correct horse" });
        let (status, user) = visitor.post(whole, "/api/users/signup", account).await;
        assert_eq!(status, StatusCode::CREATED, "{user}");
        visitor
    }

    async fn post(&self, whole: &Whole, path: &str, body: Value) -> (StatusCode, Value) {
        let answer = self.0.post(format!("{}{path}", whole.url)).json(&body).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap_or_default())
    }

    async fn get(&self, whole: &Whole, path: &str) -> Value {
        let answer = self.0.get(format!("{}{path}", whole.url)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.unwrap()
    }

    async fn list(&self, whole: &Whole, title: &str) -> (StatusCode, Value) {
        self.post(whole, "/api/tickets", json!({ "title": title, "price": 19.99 })).await
    }
}

#[tokio::test]
async fn a_purchase_is_still_there_after_ctrl_c_and_a_new_start() {
    let directory = TempDir::new().unwrap();
    let whole = Whole::start(directory.path(), &[]).await;
    let parts = ["svc-auth", "svc-tickets", "svc-orders", "svc-payments", "svc-expiration", "client"];
    for name in parts.into_iter().chain(["nats", "stripe"]) {
        assert!(
            whole.summary.iter().any(|line| line.trim().starts_with(name)),
            "{name}: {:?}",
            whole.summary
        );
    }
    async_nats::connect(whole.nats_url()).await.expect("its nats-server is open to other programs");

    let seller = Visitor::signed_up(&whole, "seller@example.com").await;
    let buyer = Visitor::signed_up(&whole, "buyer@example.com").await;
    let (status, ticket) = seller.list(&whole, "Concert").await;
    assert_eq!(status, StatusCode::CREATED, "{ticket}");
    let ticket = text(&ticket["id"]);
    let (status, order) = buyer.post(&whole, "/api/orders", json!({ "ticketId": ticket })).await;
    assert_eq!(status, StatusCode::CREATED, "{order}");
    let order = text(&order["id"]);
    let payment = json!({ "orderId": order, "token": "pm_card_visa" });
    let (status, payment) = buyer.post(&whole, "/api/payments", payment).await;
    assert_eq!(status, StatusCode::CREATED, "{payment}");

    let (ticket, order) = (format!("/api/tickets/{ticket}"), format!("/api/orders/{order}"));
    until(&whole, &buyer, &order, "complete").await;
    until(&whole, &buyer, &ticket, "sold").await;
    let payment = format!("/api/payments/{}", text(&payment["orderId"]));
    let history = format!("{order}/history");
    let paths = [
        "/api/users/currentuser",
        "/api/tickets?status=all",
        "/api/orders",
        &ticket,
        &order,
        &history,
        &payment,
    ];
    let before = all(&whole, &buyer, &paths).await;
    assert_eq!(before[0]["currentUser"]["email"], "buyer@example.com");

    let log = whole.log();
    assert!(whole.stop("INT").await.success(), "{log}");
    assert_eq!(nats_servers_of(directory.path()), Vec::<u32>::new());

    let whole = Whole::start(directory.path(), &[]).await;
    let after = all(&whole, &buyer, &paths).await;
    assert_eq!(after, before);
    let again = json!({ "email": "seller@example.com", "password": "correct horse" });
    let (status, _) = Visitor::new().post(&whole, "/api/users/signin", again).await;
    assert_eq!(status, StatusCode::OK);
    assert!(whole.stop("TERM").await.success());
}

#[tokio::test]
async fn the_sandbox_tells_of_what_happens_there_by_itself() {
    let directory = TempDir::new().unwrap();
    let whole = Whole::start(directory.path(), &[]).await;
    let seller = Visitor::signed_up(&whole, "seller@example.com").await;
    let buyer = Visitor::signed_up(&whole, "buyer@example.com").await;
    let (_, ticket) = seller.list(&whole, "Concert").await;
    let (_, order) = buyer.post(&whole, "/api/orders", json!({ "ticketId": ticket["id"] })).await;
    let payment = json!({ "orderId": order["id"], "token": "pm_card_authenticationRequired" });
    let (status, payment) = buyer.post(&whole, "/api/payments", payment).await;
    assert_eq!((status, &payment["status"]), (StatusCode::ACCEPTED, &json!("requires_action")), "{payment}");

    // The bank's page, where the buyer agrees. Nobody looks at the payment from here on.
    let (_, sandbox) = whole.summary.last().unwrap().split_once("sandbox at ").unwrap();
    let (sandbox, _) = sandbox.split_once(": ").unwrap();
    let page = format!("{sandbox}/_sandbox/payment_intents/{}/authenticate", text(&payment["stripeId"]));
    let answer = buyer.0.post(page).json(&json!({ "outcome": "succeeds" })).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    until(&whole, &buyer, &format!("/api/orders/{}", text(&order["id"])), "complete").await;

    let key = fs::read_to_string(directory.path().join("data/stripe-webhook.key")).unwrap();
    assert_eq!(key.trim_end().len(), 64);
    assert!(!whole.log().contains(key.trim_end()));
}

#[tokio::test]
async fn with_a_key_of_stripes_its_webhook_is_believed_by_the_secrets_that_are_set() {
    let stripe = StripeSandbox::start(StripeOptions::default()).await.unwrap();
    let directory = TempDir::new().unwrap();
    let variables = [
        ("STRIPE_KEY", "sk_test_1"),
        ("STRIPE_API_BASE", stripe.url()),
        ("STRIPE_WEBHOOK_SECRET", "whsec_new"),
        ("STRIPE_WEBHOOK_SECRET_PREVIOUS", "whsec_old"),
    ];
    let whole = Whole::start(directory.path(), &variables).await;
    assert!(whole.summary.last().unwrap().contains("as STRIPE_KEY says"), "{:?}", whole.summary);
    let event = r#"{"id":"evt_1","type":"customer.created","data":{"object":{}}}"#;
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    for (secret, status) in [
        ("whsec_new", StatusCode::OK),
        ("whsec_old", StatusCode::OK),
        ("whsec_older", StatusCode::BAD_REQUEST),
    ] {
        let signature = sign(secret, now, event.as_bytes());
        let request = Client::new().post(format!("{}/api/payments/webhook", whole.url)).body(event);
        let answer = request.header("stripe-signature", signature).send().await.unwrap();
        assert_eq!(answer.status(), status, "{secret}");
    }
    for made in ["stripe-webhook.key", "stripe.jsonl"] {
        assert!(!directory.path().join("data").join(made).exists(), "{made} is the sandbox's");
    }
}

async fn until(whole: &Whole, visitor: &Visitor, path: &str, status: &str) {
    let has_it = async || (visitor.get(whole, path).await["status"] == status).then_some(());
    assert!(within(PATIENCE, has_it).await.is_some(), "{}\n{}", visitor.get(whole, path).await, whole.log());
}

async fn all(whole: &Whole, visitor: &Visitor, paths: &[&str]) -> Vec<Value> {
    let mut answers = Vec::new();
    for path in paths {
        answers.push(visitor.get(whole, path).await);
    }
    answers
}

#[tokio::test]
async fn what_was_acknowledged_survives_sigkill_and_no_nats_server_is_left_over() {
    let directory = TempDir::new().unwrap();
    let whole = Whole::start(directory.path(), &[]).await;
    let seller = Visitor::signed_up(&whole, "seller@example.com").await;
    // Killed in the middle of writing.
    let (acknowledged, mut so_far) = tokio::sync::mpsc::unbounded_channel();
    let writing = tokio::spawn({
        let (client, url) = (seller.0.clone(), format!("{}/api/tickets", whole.url));
        async move {
            let ticket = json!({ "title": "Concert", "price": 19.99 });
            while let Ok(answer) = client.post(&url).json(&ticket).send().await {
                if answer.status() == StatusCode::CREATED
                    && let Ok(ticket) = answer.json::<Value>().await
                {
                    acknowledged.send(ticket).unwrap();
                }
            }
        }
    });
    let mut tickets = Vec::new();
    while tickets.len() < 50 {
        tickets.push(timeout(PATIENCE, so_far.recv()).await.unwrap().unwrap());
    }
    whole.kill().await;
    writing.await.unwrap();
    while let Ok(ticket) = so_far.try_recv() {
        tickets.push(ticket);
    }

    // At once: the nats-server before may not have ended yet.
    let whole = Whole::start(directory.path(), &[]).await;
    assert_eq!(nats_servers_of(directory.path()).len(), 1);
    for ticket in &tickets {
        assert_eq!(seller.get(&whole, &format!("/api/tickets/{}", text(&ticket["id"]))).await, *ticket);
    }

    whole.kill().await;
    let gone = async || nats_servers_of(directory.path()).is_empty().then_some(());
    assert!(within(PATIENCE, gone).await.is_some(), "a nats-server is left over");
}

#[tokio::test]
async fn a_nats_server_that_dies_is_started_again() {
    let directory = TempDir::new().unwrap();
    let whole = Whole::start(directory.path(), &[]).await;
    let seller = Visitor::signed_up(&whole, "seller@example.com").await;
    let (_, ticket) = seller.list(&whole, "Before").await;

    let [nats] = nats_servers_of(directory.path())[..] else { panic!("there is one nats-server") };
    send("KILL", nats);

    let writes = async || match seller.list(&whole, "After").await {
        (StatusCode::CREATED, _) => Some(()),
        (status, answer) => {
            assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
            None
        }
    };
    assert!(within(PATIENCE, writes).await.is_some(), "{}", whole.log());
    assert_eq!(seller.get(&whole, &format!("/api/tickets/{}", text(&ticket["id"]))).await, ticket);
    assert!(whole.log().contains("nats-server died"), "{}", whole.log());
    assert!(whole.stop("INT").await.success());
    assert_eq!(nats_servers_of(directory.path()), Vec::<u32>::new());
}

#[tokio::test]
async fn a_service_that_fails_ends_the_whole_with_its_error() {
    let nats = NatsServer::temporary().await.unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let another = async_nats::jetstream::stream::Config {
        name: "TICKETS".into(),
        subjects: vec!["somebody.elses.*".into()],
        ..Default::default()
    };
    jetstream.create_stream(another).await.unwrap();

    let directory = TempDir::new().unwrap();
    let ended = Whole::attempt(directory.path(), &[("NATS_URL", nats.url()), ("RUST_LOG", "off")]).await;
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.starts_with("error: svc-tickets: stream TICKETS exists"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    // Somebody else's server was used, and none of our own started.
    assert!(!directory.path().join("data/nats").exists());
}

#[tokio::test]
async fn a_wrong_value_is_one_line_that_names_it() {
    for (variable, value, line) in [
        ("PORT", "http", r#"PORT is "http"; it must be a port number from 0 to 65535, 0 for a free one"#),
        ("SCRYPT_LOG_N", "3", r#"SCRYPT_LOG_N is "3"; it must be a whole number from 14 to 20"#),
        (
            "MASTER_KEY",
            "hunter2",
            "MASTER_KEY is set to something else (not shown); it must be 32 random bytes as 64 hexadecimal digits, behind 2: if it is the second",
        ),
        (
            "STRIPE_API_BASE",
            "http://127.0.0.1:9",
            "STRIPE_KEY is not set; it must be the key for the server at STRIPE_API_BASE",
        ),
        (
            "STRIPE_WEBHOOK_SECRET",
            "hunter2",
            "STRIPE_WEBHOOK_SECRET is set to something else (not shown); it must be the signing secret of a Stripe webhook endpoint, whsec_…",
        ),
        ("LOG_FORMAT", "xml", r#"LOG_FORMAT is "xml"; it must be pretty or json"#),
    ] {
        refused(&[(variable, value)], line).await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_one_line() {
    let taken = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let line = format!("PORT {port} cannot be listened on: Address already in use (os error 98)");
    refused(&[("PORT", &port.to_string())], &line).await;
}

async fn refused(variables: &[(&str, &str)], line: &str) {
    let directory = TempDir::new().unwrap();
    let ended = Whole::attempt(directory.path(), variables).await;
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(String::from_utf8(ended.stderr).unwrap(), format!("error: {line}\n"));
    assert!(ended.stdout.is_empty());
    assert!(!directory.path().join("data/nats").exists(), "something was started nevertheless");
}

#[test]
fn help_explains_the_subcommands_and_every_variable_that_is_read() {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ticketing"));
    let output = command.arg("--help").env_clear().stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success());
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("run"), "{help}");

    let explained: Vec<&str> = help.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let services =
        ["auth", "tickets", "orders", "payments", "expiration"].map(|name| format!("svc-{name}/src"));
    let mut read: Vec<String> = services
        .iter()
        .map(String::as_str)
        // What all of them are told in the same way is read in these two.
        .chain(["libs/service/src", "libs/web/src", "client/src", "src"])
        .flat_map(|room| variables_in(&root.join(room)))
        .collect();
    // By the library that writes the log.
    read.push("RUST_LOG".into());
    assert!(read.iter().any(|name| name == "MASTER_KEY") && read.iter().any(|name| name == "PORT"));
    for name in &read {
        assert!(explained.contains(&name.as_str()), "{name} is not in --help");
    }
    for name in explained.iter().filter(|word| word.len() > 2 && word.chars().all(is_variable)) {
        assert!(read.iter().any(|read| read == name), "{name} is in --help, but nobody reads it");
    }
}

/// The names that `env.…("NAME", …)` asks for, outside of tests.
fn variables_in(room: &Path) -> Vec<String> {
    let sources = files(room).into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "rs"));
    let mut names = Vec::new();
    for source in sources {
        let code = fs::read_to_string(source).unwrap();
        let code = code.split("#[cfg(test)]").next().unwrap_or_default();
        // What is asked for comes first among the arguments, on the same line or the next.
        for method in ["or", "optional", "required", "secret", "optional_secret"] {
            for rest in code.split(&format!(".{method}")).skip(1) {
                let typed = rest.strip_prefix("::<").and_then(|rest| rest.split_once('>'));
                let arguments = typed.map_or(rest, |(_, rest)| rest).strip_prefix('(');
                let quoted =
                    arguments.and_then(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
                names.extend(quoted.filter(|name| name.chars().all(is_variable)).map(str::to_owned));
            }
        }
    }
    names
}

fn is_variable(letter: char) -> bool {
    letter.is_ascii_uppercase() || letter == '_'
}

fn files(room: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(room).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// There is one process, so one service in Jaeger: what tells them apart is said by the spans themselves.
#[tokio::test(flavor = "multi_thread")]
async fn each_span_says_of_which_service_it_is() {
    let collector = Collector::start(Answers::Well).await;
    let directory = TempDir::new().unwrap();
    let whole = Whole::start(directory.path(), &[("JAEGER_COLLECTOR_URL", &collector.url)]).await;
    let seller = Visitor::signed_up(&whole, "seller@example.com").await;
    let (_, ticket) = seller.list(&whole, "Concert").await;
    seller.post(&whole, "/api/orders", json!({ "ticketId": ticket["id"] })).await;

    let told = || async {
        let spans = collector.all();
        let is_told = |(name, service): (&str, &str)| {
            let says = |span: &Span| span.attributes.get("service").is_some_and(|said| said == service);
            spans.iter().any(|span| span.name == name && says(span))
        };
        let expected = [
            ("POST /api/users/signup", "svc-auth"),
            ("POST /api/tickets", "svc-tickets"),
            ("publish ticket:created", "svc-tickets"),
            ("POST /api/orders", "svc-orders"),
            ("process order:created", "svc-tickets"),
            ("process order:created", "svc-payments"),
            ("process order:created", "svc-expiration"),
        ];
        (expected.into_iter().all(is_told) && spans.iter().all(|span| span.service == "ticketing"))
            .then_some(())
    };
    assert!(within(PATIENCE, told).await.is_some(), "{:#?}", collector.all());
}

/// What a browser does continues in the API: one click is one trace.
#[tokio::test(flavor = "multi_thread")]
async fn a_click_on_a_page_is_one_trace_down_to_the_log() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let collector = Collector::start(Answers::Well).await;
    let directory = TempDir::new().unwrap();
    let whole = Whole::start(directory.path(), &[("JAEGER_COLLECTOR_URL", &collector.url)]).await;
    let seller = Visitor::signed_up(&whole, "seller@example.com").await;
    let (_, ticket) = seller.list(&whole, "Concert").await;
    let buyer = Visitor::signed_up(&whole, "buyer@example.com").await;
    let click = buyer.0.post(format!("{}/tickets/{}/buy", whole.url, text(&ticket["id"])));
    let click = click.header("uber-trace-id", format!("{TRACE}:b7ad6b7169203331:0:1"));
    assert_eq!(click.send().await.unwrap().status(), StatusCode::OK);

    let told = || async {
        let spans = collector.all();
        let find = |name: &str, kind: SpanKind, parent: &str| {
            let found =
                spans.iter().find(|span| span.name == name && span.kind == kind && span.parent == parent);
            found.filter(|span| span.trace == TRACE).cloned()
        };
        let page = find("POST /tickets/:id/buy", SpanKind::Server, "b7ad6b7169203331")?;
        assert_eq!(page.attributes["service"], "client");
        let asked = find("POST /api/orders", SpanKind::Client, &page.id)?;
        let answered = find("POST /api/orders", SpanKind::Server, &asked.id)?;
        assert_eq!(answered.attributes["service"], "svc-orders");
        find("publish order:created", SpanKind::Producer, &answered.id)
    };
    assert!(within(PATIENCE, told).await.is_some(), "{:#?}", collector.all());
}
