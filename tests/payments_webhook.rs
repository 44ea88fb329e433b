//! What Stripe tells by itself: believed if Stripe said it, whenever and however often it comes.

mod support;

use std::time::UNIX_EPOCH;

use futures::{StreamExt, stream};
use reqwest::StatusCode;
use sandbox::stripe::{Authentication, Delivery, sign};
use serde_json::Value;
use support::{
    Layout, PATIENCE,
    Service::{Orders, Payments},
    System, WEBHOOK, WEBHOOK_SECRET,
    purchase::{ASKS_ITS_OWNER, Purchase, VISA, ledger_equals_log},
    text,
};
use tokio::time::timeout;

const PURCHASES: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn late_twice_and_in_any_order_stripes_events_change_nothing() {
    let delivery = Delivery { delay_ms: (0, 2_000), duplicate_percent: 50, lose_percent: 0 };
    let system = System::start(Layout { webhook: Some(delivery), ..Layout::default() }).await;
    let purchases = Purchase::many(&system, PURCHASES).await;
    // Of five purchases, one meets a bank that asks, and one a card that is declined at first.
    stream::iter(purchases.iter().enumerate())
        .for_each_concurrent(PURCHASES, async |(number, purchase)| match number % 5 {
            0 => {
                let (status, payment) = purchase.pays(&system, ASKS_ITS_OWNER).await;
                assert_eq!(status, StatusCode::ACCEPTED, "{payment}");
                let intent = text(&payment["stripeId"]);
                system.stripe.authenticate(&intent, Authentication::Succeeds).unwrap();
            }
            1 => {
                let (status, answer) = purchase.pays(&system, "pm_card_chargeDeclined").await;
                assert_eq!(status, StatusCode::PAYMENT_REQUIRED, "{answer}");
                assert_eq!(purchase.pays(&system, VISA).await.0, StatusCode::CREATED);
            }
            _ => assert_eq!(purchase.pays(&system, VISA).await.0, StatusCode::CREATED),
        })
        .await;
    for purchase in &purchases {
        purchase.is_bought(&system).await;
    }
    until_delivered(&system).await;
    assert_eq!(system.stripe.deliveries().given_up, 0);
    ledger_equals_log(&system).await;

    for (number, purchase) in purchases.iter().enumerate() {
        let expected: &[&str] = match number % 5 {
            0 => &["requested", "action-required", "authorized", "created"],
            1 => &["requested", "declined", "requested", "authorized", "created"],
            _ => &["requested", "authorized", "created"],
        };
        assert_eq!(purchase.logged(&system).await, expected, "as if stripe had said nothing");
    }
    let told = system.metric(Payments, 0, "payments_webhooks_total", "").await;
    println!("{told} events of stripe's were taken, about {PURCHASES} purchases");
    assert!(told > 4.0 * PURCHASES as f64);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_stripe_did_not_say_is_refused_and_changes_nothing() {
    let system = System::start(Layout { webhook: None, ..Layout::default() }).await;
    let purchase = Purchase::reserved(&system).await;
    assert_eq!(purchase.pays(&system, ASKS_ITS_OWNER).await.0, StatusCode::ACCEPTED);
    system.stripe.authenticate(&purchase.intent(&system).id, Authentication::Succeeds).unwrap();
    // True, what is more: but who says so?
    let held = |event: &Value| event["type"] == "payment_intent.amount_capturable_updated";
    let event = system.stripe.events().into_iter().find(held).unwrap().to_string();
    let now = UNIX_EPOCH.elapsed().unwrap().as_secs() as i64;
    let signature = sign(WEBHOOK_SECRET, now, event.as_bytes());

    let another = event.replace("amount_capturable_updated", "succeeded");
    let truncated = &event[..event.len() / 2];
    let hex = signature.rsplit('=').next().unwrap();
    for (what, signature, body) in [
        ("unsigned", None, &*event),
        ("by somebody else", Some(sign("whsec_another", now, event.as_bytes())), &event),
        ("of another event", Some(signature.clone()), &another),
        ("truncated", Some(signature.clone()), truncated),
        ("truncated by who signed it", Some(sign(WEBHOOK_SECRET, now, truncated.as_bytes())), truncated),
        ("empty", Some(sign(WEBHOOK_SECRET, now, b"")), ""),
        ("stale", Some(sign(WEBHOOK_SECRET, now - 301, event.as_bytes())), &event),
        ("of the future", Some(sign(WEBHOOK_SECRET, now + 330, event.as_bytes())), &event),
        ("of an older scheme", Some(format!("t={now},v0={hex}")), &event),
        ("with another time", Some(format!("t={},v1={hex}", now - 1)), &event),
        ("with half a signature", Some(signature[..signature.len() - 32].to_owned()), &event),
        ("with no signature in it", Some("t=,v1=".into()), &event),
    ] {
        assert_eq!(tell(&system, signature.as_deref(), body).await, StatusCode::BAD_REQUEST, "{what}");
    }
    assert_eq!(purchase.logged(&system).await, ["requested", "action-required"]);
    let refused = system.metric(Payments, 0, "payments_webhooks_total", "refused").await;
    assert_eq!(refused, 12.0);

    // What Stripe does say, with a second signature that is not for us; and whoever replays it says nothing new.
    let (time, rest) = signature.split_once(',').unwrap();
    let two = format!("{time},v1={},{rest}", "0".repeat(64));
    assert_eq!(tell(&system, Some(&two), &event).await, StatusCode::OK);
    purchase.is_bought(&system).await;
    for _ in 0..3 {
        assert_eq!(tell(&system, Some(&signature), &event).await, StatusCode::OK);
    }
    assert_eq!(purchase.logged(&system).await, ["requested", "action-required", "authorized", "created"]);
    // What is nothing to us, or about nobody we know, is taken and counted.
    for (event, outcome) in [
        (r#"{"id":"evt_1","type":"customer.created","data":{"object":{"id":"cus_1"}}}"#, "ignored"),
        (
            r#"{"id":"evt_2","type":"payment_intent.succeeded","data":{"object":{"id":"pi_1","object":"payment_intent"}}}"#,
            "foreign",
        ),
    ] {
        let signature = sign(WEBHOOK_SECRET, now, event.as_bytes());
        assert_eq!(tell(&system, Some(&signature), event).await, StatusCode::OK);
        assert_eq!(system.metric(Payments, 0, "payments_webhooks_total", outcome).await, 1.0);
    }
    ledger_equals_log(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_at_the_dashboard_completes_the_order() {
    let mut system = System::start(Layout::default()).await;
    let purchase = Purchase::reserved(&system).await;
    // Nobody awaits the payment, so nobody but the dashboard takes the money.
    system.kill(Orders, 0).await;
    let paying = purchase.start_to_pay(&system, VISA, 0);
    purchase.until_payment(&system, "authorized").await;
    let intent = purchase.intent(&system).id;
    system.at_dashboard(&format!("/v1/payment_intents/{intent}/capture"), &[]).await;
    assert_eq!(paying.await.unwrap().0, StatusCode::CREATED);

    system.restart(Orders, 0).await;
    purchase.is_bought(&system).await;
    ledger_equals_log(&system).await;
    assert_eq!(purchase.logged(&system).await, ["requested", "authorized", "created"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_to_a_charge_at_stripe_is_in_the_log() {
    let system = System::start(Layout::default()).await;
    let purchase = Purchase::bought(&system).await;
    let intent = purchase.intent(&system).id;
    system.at_dashboard("/v1/refunds", &[("payment_intent", &intent), ("amount", "500")]).await;
    purchase.until_logged(&system, "partially-refunded").await;
    assert_eq!(
        system.order(&purchase.buyer, &purchase.order).await["status"],
        "complete",
        "a part is no refund"
    );

    system.at_dashboard("/v1/refunds", &[("payment_intent", &intent)]).await;
    system.until_order(&purchase.buyer, &purchase.order, "cancelled").await;
    assert_eq!(purchase.reason(&system).await.as_deref(), Some("refunded"));
    system.until_ticket(&purchase.ticket, "available").await;
    purchase.until_payment(&system, "refunded").await;

    let disputed = Purchase::bought(&system).await;
    system.stripe.dispute(&disputed.intent(&system).id).unwrap();
    disputed.until_logged(&system, "disputed").await;
    assert_eq!(system.metric(Payments, 0, "payments_disputed_total", "").await, 1.0);
    disputed.is_bought(&system).await;

    until_delivered(&system).await;
    ledger_equals_log(&system).await;
    assert_eq!(
        purchase.logged(&system).await,
        ["requested", "authorized", "created", "partially-refunded", "refunded"]
    );
    assert_eq!(disputed.logged(&system).await, ["requested", "authorized", "created", "disputed"]);
}

/// Posts what may be an event of Stripe's.
async fn tell(system: &System, signature: Option<&str>, body: &str) -> StatusCode {
    let mut request = reqwest::Client::new().post(system.url(Payments, 0, WEBHOOK)).body(body.to_owned());
    request = request.header("content-type", "application/json");
    if let Some(signature) = signature {
        request = request.header("stripe-signature", signature);
    }
    request.send().await.unwrap().status()
}

/// Waits until the sandbox has told all it has to tell.
async fn until_delivered(system: &System) {
    let settled = timeout(PATIENCE, system.stripe.until_deliveries_settled()).await;
    assert!(settled.is_ok(), "{:?}", system.stripe.deliveries());
}
