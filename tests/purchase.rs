//! One purchase through HTTP, and the three other ways an order ends.

mod support;

use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{
    Layout, Person, Service,
    Service::{Auth, Orders, Payments, Tickets},
    System, text,
};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn from_sign_up_to_complete() {
    let system = System::start(Layout::default()).await;
    let seller = sign_up(&system, "seller@example.com").await;
    let buyer = sign_up(&system, "buyer@example.com").await;

    let ticket =
        post(&system, &seller, Tickets, "/api/tickets", json!({ "title": "Concert", "price": 19.99 })).await;
    assert_eq!((&ticket["price"], &ticket["status"]), (&json!(19.99), &json!("available")));

    let order = post(&system, &buyer, Orders, "/api/orders", json!({ "ticketId": ticket["id"] })).await;
    assert_eq!((&order["status"], &order["ticket"]["price"]), (&json!("created"), &json!(19.99)));
    system.until_ticket(&text(&ticket["id"]), "reserved").await;

    let pay = json!({ "token": "pm_card_visa", "orderId": order["id"] });
    let payment = post(&system, &buyer, Payments, "/api/payments", pay).await;
    assert_eq!(payment["status"], "created");
    assert!(text(&payment["stripeId"]).starts_with("pi_"));

    let path = format!("/api/orders/{}", text(&order["id"]));
    let complete =
        || async { (get(&system, &buyer, Orders, &path).await["status"] == "complete").then_some(()) };
    support::within(support::PATIENCE, complete).await.expect("complete in time");
    system.until_ticket(&text(&ticket["id"]), "sold").await;

    let history = get(&system, &buyer, Orders, &format!("{path}/history")).await;
    let types: Vec<_> = history.as_array().unwrap().iter().map(|entry| text(&entry["type"])).collect();
    assert_eq!(types, ["order:created", "order:awaiting-payment", "order:completed"]);
    let ledger = system.stripe.ledger();
    assert_eq!(ledger.len(), 1);
    assert_eq!((ledger[0].amount, ledger[0].amount_captured, ledger[0].captures), (1999, 1999, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_frees_its_ticket() {
    let system = System::start(Layout::default()).await;
    let (seller, buyer, other) = (system.person(), system.person(), system.person());
    let ticket = system.list_ticket(&seller, 10.0).await;
    let order = system.reserve(&buyer, &ticket).await;
    let url = system.url(Orders, 0, &format!("/api/orders/{order}"));
    assert_eq!(other.delete(&url).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(buyer.delete(&url).await.0, StatusCode::NO_CONTENT);
    assert_eq!(buyer.delete(&url).await.0, StatusCode::NO_CONTENT, "also when it was cancelled before");
    system.until_ticket(&ticket, "available").await;

    let (status, body) = system.try_pay(&buyer, &order, "pm_card_visa").await;
    assert_eq!(
        (status, message(&body)),
        (StatusCode::BAD_REQUEST, "Cannot pay for a cancelled order".into())
    );
    system.reserve(&other, &ticket).await;
    assert!(system.stripe.ledger().iter().all(|intent| intent.amount_captured == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unpaid_order_expires_and_frees_its_ticket() {
    let system = System::start(Layout { window_seconds: 2, ..Layout::default() }).await;
    let (seller, buyer) = (system.person(), system.person());
    let ticket = system.list_ticket(&seller, 10.0).await;
    let order = system.reserve(&buyer, &ticket).await;
    system.until_order(&buyer, &order, "cancelled").await;
    system.until_ticket(&ticket, "available").await;
    let (_, history) = buyer.get(&system.url(Orders, 0, &format!("/api/orders/{order}/history"))).await;
    assert_eq!(history[1]["data"]["reason"], "expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_card_leaves_room_for_another() {
    let system = System::start(Layout::default()).await;
    let (seller, buyer) = (system.person(), system.person());
    let ticket = system.list_ticket(&seller, 10.0).await;
    let order = system.reserve(&buyer, &ticket).await;
    let (status, body) = system.try_pay(&buyer, &order, "pm_card_chargeDeclined").await;
    assert_eq!(status, StatusCode::PAYMENT_REQUIRED, "{body}");
    assert!(message(&body).contains("declined"), "{body}");
    assert_eq!(system.order(&buyer, &order).await["status"], "created");

    let (status, body) = system.try_pay(&buyer, &order, "pm_card_visa").await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    system.until_order(&buyer, &order, "complete").await;
    let url = system.url(Orders, 0, &format!("/api/orders/{order}"));
    let (status, body) = buyer.delete(&url).await;
    assert_eq!(
        (status, message(&body)),
        (StatusCode::BAD_REQUEST, "Cannot cancel an order that is paid".into())
    );
    let captured: i64 = system.stripe.ledger().iter().map(|intent| intent.amount_captured).sum();
    assert_eq!(captured, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_leads_through_all_services() {
    let system = System::start(Layout::default()).await;
    let (seller, buyer) = (system.person(), system.person());
    let trace = Uuid::now_v7().simple().to_string();

    let ticket = json!({ "title": "Concert", "price": 10 });
    let ticket = traced(&system, &trace, &seller, Tickets, "/api/tickets", ticket).await;
    let order = traced(&system, &trace, &buyer, Orders, "/api/orders", json!({ "ticketId": ticket })).await;
    let pay = json!({ "token": "pm_card_visa", "orderId": order });
    traced(&system, &trace, &buyer, Payments, "/api/payments", pay).await;
    system.until_ticket(&ticket, "sold").await;

    let followed = |events: &[&str]| -> Vec<_> {
        events.iter().map(|event| ((*event).to_owned(), trace.clone())).collect()
    };
    let tickets = ["ticket:created", "ticket:updated", "ticket:updated"];
    assert_eq!(traces(&system, "TICKETS").await, followed(&tickets));
    let orders = ["order:created", "order:awaiting-payment", "order:completed"];
    assert_eq!(traces(&system, "ORDERS").await, followed(&orders));
    let payments = ["payment:requested", "payment:authorized", "payment:created"];
    assert_eq!(traces(&system, "PAYMENTS").await, followed(&payments));
    // And at Stripe one finds the way back.
    let [intent] = &system.stripe.ledger()[..] else { panic!("one intent") };
    for (name, id) in [("trace_id", &trace), ("order_id", &order), ("ticket_id", &ticket)] {
        assert_eq!(intent.metadata.get(name), Some(id), "{name}");
    }
    assert_eq!(intent.metadata["user_id"], buyer.id.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_expires_stays_in_its_trace() {
    let system = System::start(Layout { window_seconds: 2, ..Layout::default() }).await;
    let (seller, buyer) = (system.person(), system.person());
    let ticket = system.list_ticket(&seller, 10.0).await;
    let trace = Uuid::now_v7().simple().to_string();
    traced(&system, &trace, &buyer, Orders, "/api/orders", json!({ "ticketId": ticket })).await;
    let told = || async { (traces(&system, "TICKETS").await.len() == 3).then_some(()) };
    support::within(support::PATIENCE, told).await.expect("reserved and freed again");

    let of_ours = async |stream| -> Vec<String> {
        let events = traces(&system, stream).await.into_iter();
        events.filter(|(_, of)| *of == trace).map(|(event, _)| event).collect()
    };
    assert_eq!(of_ours("ORDERS").await, ["order:created", "order:cancelled"]);
    assert_eq!(of_ours("EXPIRATIONS").await, ["expiration:complete"]);
    // Listing it was another matter.
    assert_eq!(of_ours("TICKETS").await, ["ticket:updated", "ticket:updated"]);
}

/// Posts within a trace; returns the id of what was made. The answer has to name the trace.
async fn traced(
    system: &System,
    trace: &str,
    person: &Person,
    service: Service,
    path: &str,
    body: Value,
) -> String {
    let request = reqwest::Client::new().post(system.url(service, 0, path)).bearer_auth(person.token());
    let span = Uuid::now_v7().as_u64_pair().1;
    let request = request.header("uber-trace-id", format!("{trace}:{span:016x}:0:1"));
    let answer = request.json(&body).send().await.unwrap();
    assert_eq!(answer.headers()["x-trace-id"], trace);
    let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
    assert_eq!(status, StatusCode::CREATED, "{body}");
    text(&body["id"])
}

/// The events of a stream in order: the type of each, and its trace.
async fn traces(system: &System, stream: &str) -> Vec<(String, String)> {
    let events = system.read_stream(stream).await.into_iter();
    let trace = |payload: &Value| {
        let context = payload["_trace"]["uber-trace-id"].as_str().unwrap_or_default();
        context.split(':').next().unwrap_or_default().to_owned()
    };
    events.map(|event| (event.event_type.clone(), trace(&event.payload))).collect()
}

fn message(body: &Value) -> String {
    text(&body["errors"][0]["message"])
}

/// A browser: it keeps cookies, and sends them to every service as the ingress would have it.
async fn sign_up(system: &System, email: &str) -> reqwest::Client {
    let browser = reqwest::Client::builder().cookie_store(true).build().unwrap();
    let body = json!({ "email": email, "password": "correct horse battery" });
    let answer = browser.post(system.url(Auth, 0, "/api/users/signup")).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let cookie = answer.headers().get("set-cookie").unwrap().to_str().unwrap();
    // Secure cookies stay off plain http in a browser; a test carries the pair by hand.
    let pair = cookie.split(';').next().unwrap();
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("cookie", pair.parse().unwrap());
    reqwest::Client::builder().default_headers(headers).build().unwrap()
}

async fn post(
    system: &System,
    browser: &reqwest::Client,
    service: Service,
    path: &str,
    body: Value,
) -> Value {
    let answer = browser.post(system.url(service, 0, path)).json(&body).send().await.unwrap();
    let (status, body) = (answer.status(), answer.json().await.unwrap());
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body
}

async fn get(system: &System, browser: &reqwest::Client, service: Service, path: &str) -> Value {
    browser.get(system.url(service, 0, path)).send().await.unwrap().json().await.unwrap()
}
