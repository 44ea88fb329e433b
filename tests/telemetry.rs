//! One purchase, one trace, through all services as processes of their own; and a collector that is no use.

mod support;

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{
    Layout,
    Service::{Auth, Orders, Payments, Tickets},
    System,
    collector::{Answers, Collector, Span, drawn, services},
};

const FIVE: [&str; 5] = ["svc-auth", "svc-tickets", "svc-orders", "svc-payments", "svc-expiration"];

async fn traced_by(collector: &Collector, layout: Layout) -> System {
    System::start_with(layout, HashMap::from([("JAEGER_COLLECTOR_URL", collector.url.clone())])).await
}

/// Somebody whose client traces what it asks for: every request belongs to one trace, and follows one span of theirs.
struct Client {
    trace: String,
    span: &'static str,
    http: reqwest::Client,
    token: Option<String>,
}

impl Client {
    fn new(trace: &str) -> Self {
        Self { trace: trace.into(), span: "00f067aa0ba902b7", http: reqwest::Client::new(), token: None }
    }

    async fn post(&self, url: String, body: Value) -> (StatusCode, Value) {
        let mut request = self.http.post(url).json(&body);
        request = request.header("uber-trace-id", format!("{}:{}:0:1", self.trace, self.span));
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        let answer = request.send().await.unwrap();
        assert_eq!(answer.headers()["x-trace-id"], *self.trace);
        (answer.status(), answer.json().await.unwrap())
    }
}

/// Waits until the trace has a span of that name for each of these, and all that came before it.
async fn until_complete(collector: &Collector, trace: &str, names: &[(&str, &str)]) -> Vec<Span> {
    let complete = || async {
        let spans = collector.trace(trace);
        let has = |(service, name): &(&str, &str)| {
            spans.iter().any(|span| span.service == *service && span.name == *name)
        };
        (names.iter().all(has) && unlinked(&spans).is_empty()).then_some(spans)
    };
    match support::within(support::PATIENCE, complete).await {
        Some(spans) => spans,
        None => panic!("the trace lacks some of {names:?}:\n{}", drawn(&collector.trace(trace))),
    }
}

/// The spans whose parent is neither in the trace nor the client's.
fn unlinked(spans: &[Span]) -> Vec<&Span> {
    let is_linked = |span: &&Span| {
        span.parent == "00f067aa0ba902b7" || spans.iter().any(|parent| parent.id == span.parent)
    };
    spans.iter().filter(|span| !is_linked(span)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_purchase_is_one_trace_through_all_five_services() {
    let collector = Collector::start(Answers::Well).await;
    let system = traced_by(&collector, Layout::default()).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut client = Client::new(trace);

    let account = json!({ "email": "buyer@example.com", "password": "correct horse battery" });
    let (status, _) = client.post(system.url(Auth, 0, "/api/users/signup"), account).await;
    assert_eq!(status, StatusCode::CREATED);
    let buyer = system.person();
    client.token = Some(buyer.token().to_owned());
    let ticket = json!({ "title": "Concert", "price": 19.99 });
    let (_, ticket) = client.post(system.url(Tickets, 0, "/api/tickets"), ticket).await;
    let order = json!({ "ticketId": ticket["id"] });
    let (_, order) = client.post(system.url(Orders, 0, "/api/orders"), order).await;
    let payment = json!({ "orderId": order["id"], "token": "pm_card_visa" });
    let (status, payment) = client.post(system.url(Payments, 0, "/api/payments"), payment).await;
    assert_eq!(status, StatusCode::CREATED, "{payment}");

    let spans = until_complete(
        &collector,
        trace,
        &[
            ("svc-auth", "POST /api/users/signup"),
            ("svc-auth", "publish user:signed-up"),
            ("svc-tickets", "POST /api/tickets"),
            ("svc-tickets", "publish ticket:created"),
            ("svc-orders", "POST /api/orders"),
            ("svc-orders", "publish order:created"),
            ("svc-expiration", "process order:created"),
            ("svc-tickets", "process order:created"),
            ("svc-payments", "POST /api/payments"),
            ("svc-payments", "publish payment:requested"),
            ("svc-payments", "process payment:requested"),
            ("svc-payments", "stripe authorize"),
            ("svc-payments", "publish payment:authorized"),
            ("svc-orders", "process payment:authorized"),
            ("svc-orders", "publish order:awaiting-payment"),
            ("svc-payments", "process order:awaiting-payment"),
            ("svc-payments", "stripe capture"),
            ("svc-payments", "publish payment:created"),
            ("svc-orders", "process payment:created"),
            ("svc-orders", "publish order:completed"),
            ("svc-tickets", "process order:completed"),
            ("svc-tickets", "publish ticket:updated"),
            ("svc-expiration", "process order:completed"),
        ],
    )
    .await;
    println!("{}", drawn(&spans));
    assert_eq!(services(&spans), FIVE.map(str::to_owned).into());

    // What each carries: enough to find the order by.
    let id = |value: &Value| value.as_str().unwrap().to_owned();
    let named = |service: &str, name: &str| {
        let found = spans.iter().find(|span| span.service == service && span.name == name);
        found.unwrap_or_else(|| panic!("{service} {name}"))
    };
    let reserve = named("svc-orders", "POST /api/orders");
    assert_eq!(reserve.attributes["http.route"], "/api/orders");
    assert_eq!(reserve.attributes["http.response.status_code"], "201");
    assert_eq!(reserve.attributes["order.id"], id(&order["id"]));
    assert_eq!(reserve.attributes["ticket.id"], id(&ticket["id"]));
    assert_eq!(named("svc-payments", "POST /api/payments").attributes["payment.id"], id(&payment["id"]));
    let process = named("svc-orders", "process payment:authorized");
    assert_eq!(process.attributes["messaging.system"], "nats");
    assert_eq!(process.attributes["messaging.destination.name"], "PAYMENTS");
    assert_eq!(process.attributes["messaging.consumer.group.name"], "orders-service");
    assert_eq!(process.attributes["messaging.nats.delivery"], "1");
    assert_eq!(process.attributes["order.id"], id(&order["id"]));
    // A reaction follows the span that published its event.
    let publish = named("svc-payments", "publish payment:authorized");
    assert_eq!(process.parent, publish.id);
    assert_eq!(publish.attributes["messaging.nats.sequence"].parse(), Ok(2));
    let stripe = named("svc-payments", "stripe authorize");
    let kinds = [SpanKind::Server, SpanKind::Producer, SpanKind::Consumer, SpanKind::Client];
    assert_eq!([reserve, publish, process, stripe].map(|span| span.kind), kinds);

    // And what none may carry.
    for secret in [
        "buyer@example.com",
        "correct horse",
        buyer.token(),
        "eyJ",
        support::STRIPE_KEY,
        "whsec_",
        "_secret_",
    ] {
        assert!(!collector.holds(secret.as_bytes()), "a span tells {secret}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_expiry_is_in_the_trace_of_its_order_and_its_wait_can_be_seen() {
    let collector = Collector::start(Answers::Well).await;
    let system = traced_by(&collector, Layout { window_seconds: 2, ..Layout::default() }).await;
    let trace = "a3ce929d0e0e47364bf92f3577b34da6";
    let mut client = Client::new(trace);
    client.token = Some(system.person().token().to_owned());
    let ticket = json!({ "title": "Concert", "price": 19.99 });
    let (_, ticket) = client.post(system.url(Tickets, 0, "/api/tickets"), ticket).await;
    client.post(system.url(Orders, 0, "/api/orders"), json!({ "ticketId": ticket["id"] })).await;

    let spans = until_complete(
        &collector,
        trace,
        &[
            ("svc-expiration", "wait order:created"),
            ("svc-expiration", "publish expiration:complete"),
            ("svc-orders", "process expiration:complete"),
            ("svc-orders", "publish order:cancelled"),
            ("svc-tickets", "process order:cancelled"),
        ],
    )
    .await;
    println!("{}", drawn(&spans));
    let wait = spans.iter().find(|span| span.name == "wait order:created").unwrap();
    let waited = Duration::from_nanos(wait.end - wait.start);
    assert!(waited >= Duration::from_millis(1900), "{waited:?}");
    // It was looked at twice: when it was created, and when it was due.
    let looks: Vec<_> = spans
        .iter()
        .filter(|span| span.service == "svc-expiration" && span.name == "process order:created")
        .collect();
    assert!(looks.iter().any(|look| look.attributes["messaging.nats.delivery"] == "1"));
    assert!(looks.iter().any(|look| look.attributes.contains_key("messaging.nats.delay_ms")));
    let last = looks.iter().max_by_key(|look| look.start).unwrap();
    let published = spans.iter().find(|span| span.name == "publish expiration:complete").unwrap();
    assert_eq!(published.parent, last.id);
}

/// Away, answering with errors, or slower than anyone has patience for: requests do not notice.
#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_no_use_fails_no_request() {
    let late = Collector::start(Answers::Late(Duration::from_secs(30))).await;
    let failing = Collector::start(Answers::WithAnError).await;
    // One that takes connections and never says a word; and one that nobody listens at.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = (silent.local_addr().unwrap(), silent);
    let away = "127.0.0.1:9";
    for url in [
        late.url.clone(),
        failing.url.clone(),
        format!("http://{away}"),
        format!("grpc://{away}"),
        format!("http://{}", silent.0),
        format!("grpc://{}", silent.0),
    ] {
        let variables = HashMap::from([("JAEGER_COLLECTOR_URL", url.clone())]);
        let mut system = System::start_with(Layout::default(), variables).await;
        let seller = system.person();
        let mut fastest = Duration::MAX;
        // A disk may be slow once; who waits for the collector does each time.
        for _ in 0..3 {
            let ordering = (0..50).map(|_| async {
                let ticket = system.list_ticket(&seller, 19.99).await;
                system.reserve(&system.person(), &ticket).await
            });
            let started = std::time::Instant::now();
            futures::future::join_all(ordering).await;
            fastest = fastest.min(started.elapsed());
        }
        // By far less than the collector's own patience.
        assert!(fastest < Duration::from_secs(2), "{url}: {fastest:?}");
        // Nor does the end: what is left is given up after a moment.
        let (succeeded, took) = system.terminate(Orders, 0).await;
        assert!(succeeded && took < Duration::from_secs(10), "{url}: {succeeded} after {took:?}");
    }
}

/// An event as another program may have written it: its trace is missing, or no trace.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_a_trace_that_can_be_read_starts_a_new_one() {
    let collector = Collector::start(Answers::Well).await;
    let system = traced_by(&collector, Layout::default()).await;
    let (seller, buyer) = (system.person(), system.person());
    let mut traces = Vec::new();
    for trace in [Value::Null, json!({}), json!({ "uber-trace-id": "garbage" }), json!("garbage"), json!(7)] {
        let ticket = system.list_ticket(&seller, 19.99).await;
        let order = system.reserve(&buyer, &ticket).await;
        let mut payload = json!({ "orderId": order, "version": 0, "_trace": trace });
        if trace.is_null() {
            payload.as_object_mut().unwrap().remove("_trace");
        }
        let (id, now) = (uuid::Uuid::now_v7().to_string(), "2026-11-22T08:00:00Z");
        let subject = format!("ticketing.expirations.{order}");
        let mut headers = async_nats::HeaderMap::new();
        for (name, value) in [
            ("ce-id", id.as_str()),
            ("ce-type", "expiration:complete"),
            ("ce-subject", subject.as_str()),
            ("ce-time", now),
        ] {
            headers.insert(name, value);
        }
        let jetstream = system.jetstream().await;
        let published = jetstream.publish_with_headers(subject, headers, payload.to_string().into());
        published.await.unwrap().await.unwrap();
        system.until_order(&buyer, &order, "cancelled").await;

        let root = || async {
            let spans = collector.all();
            let is_it = |span: &&Span| {
                span.name == "process expiration:complete"
                    && span.attributes.get("order.id") == Some(&order)
                    && span.parent.is_empty()
            };
            spans.iter().find(is_it).map(|span| span.trace.clone())
        };
        traces.push(
            support::within(support::PATIENCE, root).await.unwrap_or_else(|| panic!("no root: {trace}")),
        );
    }
    traces.sort();
    traces.dedup();
    assert_eq!(traces.len(), 5, "each has a trace of its own");
}

/// Who calls decides for the traces that they begin; of ours, as many as were asked for.
#[tokio::test(flavor = "multi_thread")]
async fn a_trace_is_exported_as_its_caller_decided_and_of_others_the_wanted_part() {
    let collector = Collector::start(Answers::Well).await;
    let variables = HashMap::from([
        ("JAEGER_COLLECTOR_URL", collector.url.clone()),
        ("TRACE_SAMPLE_RATIO", "0".to_owned()),
    ]);
    let system = System::start_with(Layout::default(), variables).await;
    system.list_ticket(&system.person(), 19.99).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let mut client = Client::new(trace);
    client.token = Some(system.person().token().to_owned());
    client.post(system.url(Tickets, 0, "/api/tickets"), json!({ "title": "Concert", "price": 1 })).await;
    until_complete(&collector, trace, &[("svc-tickets", "publish ticket:created")]).await;
    assert!(collector.all().iter().all(|span| span.trace == trace), "{:?}", collector.all());
}

/// A projection that is replayed would tell old stories again.
#[tokio::test(flavor = "multi_thread")]
async fn a_replay_makes_no_spans() {
    let collector = Collector::start(Answers::Well).await;
    let mut system = traced_by(&collector, Layout::default()).await;
    let old = "4bf92f3577b34da6a3ce929d0e0e4736";
    let mut client = Client::new(old);
    client.token = Some(system.person().token().to_owned());
    let ticket = json!({ "title": "Concert", "price": 19.99 });
    let (_, ticket) = client.post(system.url(Tickets, 0, "/api/tickets"), ticket).await;
    client.post(system.url(Orders, 0, "/api/orders"), json!({ "ticketId": ticket["id"] })).await;
    let names = [
        ("svc-tickets", "publish ticket:updated"),
        ("svc-payments", "process order:created"),
        ("svc-expiration", "process order:created"),
    ];
    until_complete(&collector, old, &names).await;
    assert!(system.terminate(Orders, 0).await.0);
    let before = collector.all().len();
    std::fs::remove_dir_all(system.data_dir(Orders, 0)).unwrap();
    system.spawn(Orders, 0);
    system.ready(Orders, 0).await;
    // Something new, and with it all that is older was exported.
    client.trace = "b7ad6b7169203331b7ad6b7169203331".into();
    let (_, orders) =
        client.post(system.url(Orders, 0, "/api/orders"), json!({ "ticketId": ticket["id"] })).await;
    assert!(orders["errors"].is_array(), "it is reserved: {orders}");
    until_complete(&collector, &client.trace, &[("svc-orders", "POST /api/orders")]).await;
    let since = collector.all().split_off(before);
    let of_orders: Vec<_> = since.iter().filter(|span| span.service == "svc-orders").collect();
    assert!(of_orders.iter().all(|span| span.trace == client.trace), "{of_orders:#?}");
}

/// What is logged through a purchase: for machines, with the trace in each line, and nobody's secrets.
#[tokio::test(flavor = "multi_thread")]
async fn a_log_for_machines_names_the_trace_and_no_secret() {
    // Ours in detail. The NATS client prints whole messages at that level: what events hold, but in another coat.
    let ours =
        ["svc_auth", "svc_tickets", "svc_orders", "svc_payments", "svc_expiration", "web", "eventstore"];
    let filter = ours.map(|name| format!("{name}=debug")).join(",");
    let json = HashMap::from([("LOG_FORMAT", "json".to_owned()), ("RUST_LOG", format!("info,{filter}"))]);
    let system = System::start_with(Layout::default(), json).await;
    let trace = "5af7651916cd43dd8448eb211c80319c";
    let mut client = Client::new(trace);
    let (email, password) = ("somebody.special@example.com", "correct horse battery");
    let account = json!({ "email": email, "password": password });
    client.post(system.url(Auth, 0, "/api/users/signup"), account.clone()).await;
    client.post(system.url(Auth, 0, "/api/users/signin"), account).await;
    let buyer = system.person();
    client.token = Some(buyer.token().to_owned());
    let ticket = json!({ "title": "Concert", "price": 19.99 });
    let (_, ticket) = client.post(system.url(Tickets, 0, "/api/tickets"), ticket).await;
    let (_, order) =
        client.post(system.url(Orders, 0, "/api/orders"), json!({ "ticketId": ticket["id"] })).await;
    let payment = json!({ "orderId": order["id"], "token": "pm_card_authenticationRequired" });
    let (_, payment) = client.post(system.url(Payments, 0, "/api/payments"), payment).await;
    let client_secret = support::text(&payment["clientSecret"]);

    for (service, route) in [
        (Auth, "/api/users/signup"),
        (Tickets, "/api/tickets"),
        (Orders, "/api/orders"),
        (Payments, "/api/payments"),
    ] {
        let log = system.log(service, 0);
        let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let answered: Vec<_> = lines
            .iter()
            .filter(|line| line["message"] == "answered" && line["http.route"] == route)
            .collect();
        let [line] = &answered[..] else { panic!("one line for one request, not {answered:?}") };
        assert_eq!((&line["level"], &line["trace_id"]), (&json!("INFO"), &json!(trace)));
        assert_eq!(line["service"], format!("svc-{}", format!("{service:?}").to_lowercase()));
        assert_eq!(line["http.request.method"], "POST");
        assert!(
            line["http.response.status_code"].is_u64()
                && line["duration.ms"].is_f64()
                && line["span_id"].is_string()
        );
        for secret in [
            email,
            password,
            buyer.token(),
            &client_secret,
            support::WEBHOOK_SECRET,
            support::STRIPE_KEY,
            "eyJ",
        ] {
            let told = log.lines().find(|line| line.contains(secret));
            assert_eq!(told, None, "{service:?} tells {secret}");
        }
    }
}

/// The table of metrics, held against what a running system tells; `tests/laws.rs` holds it against the source.
#[tokio::test(flavor = "multi_thread")]
async fn every_metric_that_is_exported_is_in_the_reference() {
    let system = System::start(Layout::default()).await;
    let (seller, buyer) = (system.person(), system.person());
    let ticket = system.list_ticket(&seller, 19.99).await;
    let order = system.reserve(&buyer, &ticket).await;
    system.try_pay(&buyer, &order, "pm_card_visa").await;
    system.until_ticket(&ticket, "sold").await;

    let reference =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md")).unwrap();
    let rows =
        reference.split("## Metrics").nth(1).unwrap().lines().filter_map(|line| line.strip_prefix("| `"));
    let told: HashSet<&str> = rows.filter_map(|row| row.split(['`', '{']).next()).collect();
    // Each order counts once, where it is now.
    let counted = || async {
        let mut counts = Vec::new();
        for status in ["created", "awaiting-payment", "complete", "cancelled"] {
            counts.push(system.metric(Orders, 0, "orders", &format!("status=\"{status}\"")).await);
        }
        (counts == [0.0, 0.0, 1.0, 0.0]).then_some(())
    };
    support::within(support::PATIENCE, counted).await.expect("one order, and it is complete");

    let mut exported = HashSet::new();
    for service in support::ALL {
        let text = reqwest::get(system.url(service, 0, "/metrics")).await.unwrap().text().await.unwrap();
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        exported.extend(types.filter_map(|line| line.split(' ').next().map(str::to_owned)));
    }
    let untold: Vec<_> = exported.iter().filter(|name| !told.contains(name.as_str())).collect();
    assert!(untold.is_empty(), "the reference lacks {untold:?}");
    // What a purchase moves; the rest tells of trouble.
    for name in ["eventstore_appends_total", "orders", "payments_total", "stripe_request_seconds"] {
        assert!(exported.contains(name), "{name} is not among {exported:?}");
    }
}
