//! Events: which there are, how they are signed, and how badly they may get there.

use std::collections::{BTreeMap, BTreeSet};

use ring::hmac;
use sandbox::stripe::{
    Authentication, Delivery, DeliveryReport, OperatorError, StripeOptions, StripeSandbox, WebhookEndpoint,
    sign,
};
use serde_json::{Value, json};
use stripe::StripeRequest;
use stripe_core::payment_intent::{CancelPaymentIntent, CapturePaymentIntent};
use stripe_core::refund::CreateRefund;

use crate::support::{
    SECRET, Shop, authorize, client, get_json, of_card, once, paid, refused, sandbox, within,
};

async fn told(shop: &Shop, delivery: Delivery) -> StripeSandbox {
    let webhooks = vec![shop.endpoint(delivery)];
    StripeSandbox::start(StripeOptions { webhooks, ..StripeOptions::default() }).await.expect("sandbox")
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().expect("type")).collect()
}

/// As a shop does it, not with the sandbox's own function.
fn verify(header: &str, payload: &[u8]) -> i64 {
    let parts: BTreeMap<&str, &str> =
        header.split(',').map(|part| part.split_once('=').expect("name=value")).collect();
    let signature: Vec<u8> = (0..parts["v1"].len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&parts["v1"][at..at + 2], 16).expect("hex"))
        .collect();
    let signed = [parts["t"].as_bytes(), b".", payload].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    hmac::verify(&key, &signed, &signature).expect("the signature is right");
    parts["t"].parse().expect("seconds")
}

#[tokio::test]
async fn a_webhook_is_signed_and_holds_the_object_as_it_was() {
    let mut shop = Shop::open(&[]).await;
    let sandbox = told(&shop, Delivery::default()).await;
    let client = client(&sandbox);
    let create = authorize("pm_card_visa").customize().request_strategy(once("k"));
    let id = create.send(&client).await.expect("authorised").id.to_string();
    CapturePaymentIntent::new(id.as_str()).send(&client).await.expect("captured");

    let mut came = BTreeMap::new();
    for _ in 0..5 {
        let webhook = shop.next().await;
        let at = verify(&webhook.signature, &webhook.payload);
        assert_eq!(sign(SECRET, at, &webhook.payload), webhook.signature);
        let event = webhook.event();
        came.insert(event["type"].as_str().expect("type").to_owned(), event);
    }
    let event = &came["payment_intent.amount_capturable_updated"];
    assert_eq!((&event["object"], &event["livemode"]), (&"event".into(), &false.into()));
    assert_eq!(event["pending_webhooks"], 1);
    assert_eq!(event["request"]["idempotency_key"], "k");
    assert!(event["request"]["id"].as_str().is_some_and(|id| id.starts_with("req_")));
    assert!(event["api_version"].is_string() && event["created"].is_i64());
    let object = &event["data"]["object"];
    assert_eq!((&object["id"], &object["status"]), (&id.as_str().into(), &"requires_capture".into()));
    assert_eq!(object["metadata"]["order_id"], "7");
    assert_eq!(came["payment_intent.succeeded"]["data"]["object"]["status"], "succeeded");
}

#[tokio::test]
async fn what_happens_makes_stripes_events() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let mut told = 0;
    let mut since = || {
        let events = sandbox.events();
        let new = types(&events[told..]).join(" ");
        told = events.len();
        new
    };
    let held = async || authorize("pm_card_visa").send(&client).await.expect("authorised").id.to_string();

    let id = held().await;
    assert_eq!(since(), "payment_intent.created charge.succeeded payment_intent.amount_capturable_updated");
    CapturePaymentIntent::new(id.as_str()).send(&client).await.expect("captured");
    assert_eq!(since(), "charge.captured payment_intent.succeeded");
    CreateRefund::new().payment_intent(id.as_str()).send(&client).await.expect("refunded");
    assert_eq!(since(), "refund.created charge.refunded");

    paid(&client, "pm_card_visa").await;
    assert_eq!(since(), "payment_intent.created charge.succeeded payment_intent.succeeded");
    CancelPaymentIntent::new(held().await).send(&client).await.expect("cancelled");
    since();
    let events = sandbox.events();
    assert_eq!(types(&events[events.len() - 2..]), ["charge.refunded", "payment_intent.canceled"]);

    refused(authorize("pm_card_chargeDeclined").send(&client).await, 402);
    assert_eq!(since(), "payment_intent.created charge.failed payment_intent.payment_failed");

    let id = authorize("pm_card_authenticationRequired").send(&client).await.expect("asked").id.to_string();
    assert_eq!(since(), "payment_intent.created payment_intent.requires_action");
    sandbox.authenticate(&id, Authentication::Fails).expect("settled");
    assert_eq!(since(), "payment_intent.payment_failed");
    assert_eq!(
        sandbox.events().last().expect("an event")["request"],
        json!({ "id": null, "idempotency_key": null })
    );

    let id = authorize("pm_card_createDispute").send(&client).await.expect("authorised").id.to_string();
    since();
    CapturePaymentIntent::new(id.as_str()).send(&client).await.expect("captured");
    assert_eq!(since(), "charge.captured payment_intent.succeeded charge.dispute.created");

    let id = paid(&client, "pm_card_refundFail").await;
    since();
    CreateRefund::new().payment_intent(id.as_str()).send(&client).await.expect("refunded");
    let failed = "charge.refund.updated refund.updated refund.failed";
    assert_eq!(since(), format!("refund.created charge.refunded {failed}"));
}

#[tokio::test]
async fn a_replay_and_a_request_that_falls_at_validation_make_no_event() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    for _ in 0..2 {
        let create = of_card(100).customize().request_strategy(once("k"));
        create.send(&client).await.expect("created");
    }
    assert_eq!(types(&sandbox.events()), ["payment_intent.created"]);
    refused(authorize("pm_nobody").send(&client).await, 400);
    let may_redirect =
        stripe_core::payment_intent::CreatePaymentIntent::new(500, stripe_types::Currency::USD);
    refused(may_redirect.confirm(true).payment_method("pm_card_visa").send(&client).await, 400);
    assert_eq!(sandbox.events().len(), 1);
}

#[tokio::test]
async fn what_is_not_taken_is_sent_again_signed_anew() {
    let mut shop = Shop::open(&[500, 404, 302]).await;
    let sandbox = told(&shop, Delivery::default()).await;
    of_card(100).send(&client(&sandbox)).await.expect("created");
    let mut ids = BTreeSet::new();
    for _ in 0..4 {
        let webhook = shop.next().await;
        verify(&webhook.signature, &webhook.payload);
        ids.insert(webhook.event()["id"].to_string());
    }
    assert_eq!(ids.len(), 1);
    within("it is settled", sandbox.until_deliveries_settled()).await;
    assert_eq!(sandbox.deliveries(), DeliveryReport { delivered: 1, failed: 3, ..DeliveryReport::default() });
}

#[tokio::test]
async fn a_shop_that_is_away_is_waited_for_then_given_up() {
    let sandbox = sandbox().await;
    sandbox.add_webhook_endpoint(WebhookEndpoint {
        // No port for anybody but the superuser, and nobody listens there.
        url: "http://127.0.0.1:1/".into(),
        secret: SECRET.into(),
        delivery: Delivery::default(),
    });
    of_card(100).send(&client(&sandbox)).await.expect("created");
    let settled = sandbox.until_deliveries_settled();
    tokio::time::timeout(std::time::Duration::from_secs(40), settled).await.expect("given up");
    assert_eq!(sandbox.deliveries(), DeliveryReport { failed: 8, given_up: 1, ..DeliveryReport::default() });
}

#[tokio::test]
async fn events_come_twice_when_told_so() {
    let mut shop = Shop::open(&[]).await;
    let sandbox = told(&shop, Delivery { duplicate_percent: 100, ..Delivery::default() }).await;
    of_card(100).send(&client(&sandbox)).await.expect("created");
    let came = shop.all(&sandbox).await;
    assert_eq!(came.len(), 2);
    assert_eq!(came[0]["id"], came[1]["id"]);
}

#[tokio::test]
async fn events_overtake_each_other_when_they_are_late() {
    let mut shop = Shop::open(&[]).await;
    let sandbox = told(&shop, Delivery { delay_ms: (0, 200), ..Delivery::default() }).await;
    let client = client(&sandbox);
    for _ in 0..10 {
        paid(&client, "pm_card_visa").await;
    }
    let ids = |events: &[Value]| events.iter().map(|event| event["id"].to_string()).collect::<Vec<_>>();
    let (came, happened) = (ids(&shop.all(&sandbox).await), ids(&sandbox.events()));
    assert_ne!(came, happened);
    assert_eq!(came.iter().collect::<BTreeSet<_>>(), happened.iter().collect());
}

#[tokio::test]
async fn a_lost_event_comes_when_an_operator_sends_it_again() {
    let mut shop = Shop::open(&[]).await;
    let sandbox = told(&shop, Delivery { lose_percent: 100, ..Delivery::default() }).await;
    of_card(100).send(&client(&sandbox)).await.expect("created");
    assert!(shop.all(&sandbox).await.is_empty());
    assert_eq!(sandbox.deliveries(), DeliveryReport { lost: 1, ..DeliveryReport::default() });

    let id = sandbox.events()[0]["id"].as_str().expect("id").to_owned();
    sandbox.resend(&id).expect("sent");
    assert_eq!(shop.next().await.event()["id"], id.as_str());
    assert!(matches!(sandbox.resend("evt_nobody"), Err(OperatorError::NoSuch { .. })));
}

#[tokio::test]
async fn another_process_has_itself_told() {
    let mut shop = Shop::open(&[]).await;
    let sandbox = sandbox().await;
    let http = reqwest::Client::new();
    let at = |path: &str| format!("{}/_sandbox/{path}", sandbox.url());
    let endpoint = json!({ "url": shop.endpoint(Delivery::default()).url, "secret": SECRET });
    let added = http.post(at("webhook_endpoints")).json(&endpoint).send().await.expect("answer");
    assert_eq!(added.status(), 200);
    of_card(100).send(&client(&sandbox)).await.expect("created");
    let id = shop.next().await.event()["id"].as_str().expect("id").to_owned();
    assert_eq!(get_json(at("events")).await[0]["id"], id.as_str());

    let resent = http.post(at(&format!("events/{id}/resend"))).send().await.expect("answer");
    assert_eq!(resent.status(), 200);
    shop.next().await;
    within("both are settled", sandbox.until_deliveries_settled()).await;
    assert_eq!(get_json(at("deliveries")).await["delivered"], 2);

    let listed = get_json(at("webhook_endpoints")).await;
    assert_eq!(
        listed[0]["delivery"],
        json!({ "delay_ms": [0, 0], "duplicate_percent": 0, "lose_percent": 0 })
    );
    http.delete(at("webhook_endpoints")).send().await.expect("answer");
    of_card(100).send(&client(&sandbox)).await.expect("created");
    assert!(shop.all(&sandbox).await.is_empty());
}

#[tokio::test]
async fn a_sandbox_that_was_shut_down_sends_nothing_more() {
    let mut shop = Shop::open(&[]).await;
    let sandbox = told(&shop, Delivery { delay_ms: (3_600_000, 3_600_000), ..Delivery::default() }).await;
    of_card(100).send(&client(&sandbox)).await.expect("created");
    assert_eq!(sandbox.deliveries().pending, 1);
    sandbox.clear_webhook_endpoints();
    assert!(shop.all(&sandbox).await.is_empty());
    within("it ends", sandbox.shutdown()).await;
}
