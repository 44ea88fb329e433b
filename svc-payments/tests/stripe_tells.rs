//! What Stripe tells, is asked, and is compared with: webhooks, authentication, the reconciler.

mod service;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contract::{
    Cents, OrderId, PaymentEvent, PaymentId,
    event::{OrderStatus, PaymentRequested, PaymentSettled, PaymentUnsettled},
};
use reqwest::{Method, StatusCode};
use sandbox::stripe::{Authentication, Fault, Mode, Status, Step, sign};
use serde_json::{Value, json};
use service::{
    BUYER, IMPATIENT, PATIENT, SELLER, STRANGER, Service, WEBHOOK_SECRET, WEBHOOK_SECRET_PREVIOUS, World,
    eventually, ledger,
};
use uuid::Uuid;

const OWN_CARD: &str = "pm_card_authenticationRequired";

fn stripe_id(payment: &Value) -> String {
    payment["stripeId"].as_str().unwrap().to_owned()
}

/// Pays with a card whose bank wants to hear from the buyer; returns what the buyer is told.
async fn pays_with_own_card(service: &Service, order: OrderId) -> Value {
    let asked = service.pay(order, OWN_CARD).await;
    assert_eq!(asked.status(), StatusCode::ACCEPTED);
    let payment: Value = asked.json().await.unwrap();
    assert_eq!(payment["status"], "requires_action");
    assert!(payment["clientSecret"].as_str().unwrap().starts_with(&stripe_id(&payment)));
    payment
}

#[tokio::test(flavor = "multi_thread")]
async fn who_proves_to_be_the_cards_owner_has_paid_as_soon_as_stripe_tells() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    world.tell(&service);
    let _following = world.orders.follow_payments();
    let order = world.orders.place(Cents(1999)).await;

    let payment = pays_with_own_card(&service, order).await;
    // Asked again it is the same, with the secret; for nobody else.
    assert_eq!(pays_with_own_card(&service, order).await, payment);
    assert_eq!(service.get(BUYER, &order.to_string()).await.json::<Value>().await.unwrap(), payment);
    assert_eq!(service.get(STRANGER, &order.to_string()).await.status(), StatusCode::UNAUTHORIZED);

    world.stripe.authenticate(&stripe_id(&payment), Authentication::Succeeds).unwrap();
    world.orders.becomes(order, OrderStatus::Complete).await;
    let paid = service.shows(order, "created").await;
    assert_eq!(paid.get("clientSecret"), None);
    assert_eq!(world.at_stripe(order), (Status::Succeeded, 1, 1, 0));
    let told =
        ["requested", "action-required", "authorized", "created"].map(|name| format!("payment:{name}"));
    assert_eq!(world.log_of(order).await, told);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_word_of_stripes_a_look_shows_it() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    let _following = world.orders.follow_payments();
    let order = world.orders.place(Cents(1999)).await;
    let payment = pays_with_own_card(&service, order).await;
    world.stripe.authenticate(&stripe_id(&payment), Authentication::Succeeds).unwrap();
    service.shows(order, "created").await;
    assert_eq!(world.at_stripe(order), (Status::Succeeded, 1, 1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_pays_with_another_card() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    world.tell(&service);
    let _following = world.orders.follow_payments();
    let order = world.orders.place(Cents(1999)).await;
    let payment = pays_with_own_card(&service, order).await;
    world.stripe.authenticate(&stripe_id(&payment), Authentication::Fails).unwrap();
    service.shows(order, "declined").await;
    // Nobody uses the first intent any more, whoever knows its secret.
    assert_eq!(world.at_stripe(order).0, Status::Canceled);
    assert_eq!(service.pay(order, "pm_card_visa").await.status(), StatusCode::CREATED);
    assert_eq!(world.charged(order), 1999);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_ends_meanwhile_is_not_charged() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    world.tell(&service);
    let order = world.orders.place(Cents(1999)).await;
    let payment = pays_with_own_card(&service, order).await;
    assert!(world.orders.cancel(order).await);
    service.shows(order, "voided").await;
    assert!(world.stripe.authenticate(&stripe_id(&payment), Authentication::Succeeds).is_err());
    assert_eq!(world.at_stripe(order), (Status::Canceled, 0, 0, 1));
}

/// Posts a body to the webhook with this signature.
async fn post(service: &Service, signature: Option<&str>, body: &str) -> (StatusCode, Value) {
    let mut request = service.request(Method::POST, "/api/payments/webhook").body(body.to_owned());
    if let Some(signature) = signature {
        request = request.header("stripe-signature", signature);
    }
    let answer = request.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

fn now() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_stripe_is_believed() {
    let world = World::new().await;
    let service = world.service(IMPATIENT).await;
    let order = world.orders.place(Cents(1999)).await;
    service.pay(order, "pm_card_visa").await;
    let payment = service.shows(order, "authorized").await;
    let intent = stripe_id(&payment);
    // What would be news if it were believed: and Stripe, asked, would confirm it.
    world.at_the_dashboard(&format!("payment_intents/{intent}/capture"), &[]).await;
    let told = |kind: &str| {
        let object = json!({
            "object": "payment_intent", "id": intent,
            "metadata": { "order_id": order, "payment_id": payment["id"] },
        });
        json!({ "id": "evt_1", "object": "event", "type": kind, "data": { "object": object } }).to_string()
    };
    let body = told("payment_intent.succeeded");
    let good = sign(WEBHOOK_SECRET, now(), body.as_bytes());

    let cut = &good[..good.len() - 2];
    let others = sign("whsec_other", now(), body.as_bytes());
    let stale = sign(WEBHOOK_SECRET, now() - 301, body.as_bytes());
    let early = sign(WEBHOOK_SECRET, now() + 3600, body.as_bytes());
    for (signature, body) in [
        (None, body.as_str()),
        (Some(""), &body),
        (Some("t=1,v1=00"), &body),
        (Some(cut), &body),
        (Some(&others), &body),
        (Some(&stale), &body),
        (Some(&early), &body),
        // Another body, and one that was cut off.
        (Some(&good), &body.replace("evt_1", "evt_2")),
        (Some(&good), &body[..body.len() - 1]),
        (Some(&good), ""),
    ] {
        let (status, answer) = post(&service, signature, body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{signature:?} {body} {answer}");
        assert!(answer["errors"][0]["message"].is_string());
    }
    let no_event = sign(WEBHOOK_SECRET, now(), b"[]");
    assert_eq!(post(&service, Some(&no_event), "[]").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(world.log_of(order).await, ["payment:requested", "payment:authorized"]);

    // What is nothing to us is received.
    for unknown in ["payment_intent.created", "customer.created", "whatever.comes"] {
        let body = told(unknown);
        let signature = sign(WEBHOOK_SECRET, now(), body.as_bytes());
        assert_eq!(post(&service, Some(&signature), &body).await.0, StatusCode::OK);
    }
    assert_eq!(world.log_of(order).await, ["payment:requested", "payment:authorized"]);
    assert!(service.metric(r#"payments_webhooks_total{type="other""#).await >= 3.0);

    // The true one; the same again, be it signed with the secret before: replayed, it changes nothing.
    let before = sign(WEBHOOK_SECRET_PREVIOUS, now(), body.as_bytes());
    for signature in [&good, &good, &before, &format!("{others},{}", good.split_once(',').unwrap().1)] {
        assert_eq!(post(&service, Some(signature), &body).await.0, StatusCode::OK);
        let log = world.log_of(order).await;
        assert_eq!(log, ["payment:requested", "payment:authorized", "payment:created"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_does_at_stripe_ends_up_in_the_log() {
    let world = World::new().await;
    let service = world.service(IMPATIENT).await;
    world.tell(&service);
    let charged = async || {
        let order = world.orders.place(Cents(1999)).await;
        service.pay(order, "pm_card_visa").await;
        let payment = service.shows(order, "authorized").await;
        world.at_the_dashboard(&format!("payment_intents/{}/capture", stripe_id(&payment)), &[]).await;
        service.shows(order, "created").await;
        (order, stripe_id(&payment))
    };
    let until_told = async |order: OrderId, expected: &[&str]| {
        let known = ["payment:requested", "payment:authorized", "payment:created"];
        let expected = [&known, expected].concat();
        eventually("the log tells", async || (world.log_of(order).await == expected).then_some(())).await;
    };

    let (order, intent) = charged().await;
    world.at_the_dashboard("refunds", &[("payment_intent", &intent), ("amount", "500")]).await;
    until_told(order, &["payment:partially-refunded"]).await;
    service.shows(order, "created").await;
    // The seller gives back what is left.
    service.refund(SELLER, &order.to_string()).await;
    until_told(order, &["payment:partially-refunded", "payment:refund-requested", "payment:refunded"]).await;
    assert_eq!(world.charged(order), 0);

    let (order, intent) = charged().await;
    world.at_the_dashboard("refunds", &[("payment_intent", &intent)]).await;
    until_told(order, &["payment:refunded"]).await;

    let (order, intent) = charged().await;
    world.stripe.dispute(&intent).unwrap();
    until_told(order, &["payment:disputed"]).await;

    let order = world.orders.place(Cents(1999)).await;
    service.pay(order, "pm_card_visa").await;
    let payment = service.shows(order, "authorized").await;
    world.at_the_dashboard(&format!("payment_intents/{}/cancel", stripe_id(&payment)), &[]).await;
    service.shows(order, "voided").await;
}

const A_DAY_AND_MORE: Duration = Duration::from_secs(25 * 3600);

fn requested(order: OrderId, payment: Uuid) -> PaymentEvent {
    PaymentEvent::Requested(PaymentRequested {
        id: PaymentId(payment),
        order_id: order,
        user_id: BUYER,
        amount_cents: Cents(1999),
        currency: "usd".into(),
        payment_method: "pm_card_visa".into(),
    })
}

/// An intent as one of ours, made by hand.
fn by_hand(order: OrderId, payment: Uuid) -> Vec<(&'static str, String)> {
    let mut form = vec![
        ("metadata[order_id]", order.to_string()),
        ("metadata[payment_id]", payment.to_string()),
        ("amount", "1999".into()),
        ("currency", "usd".into()),
        ("confirm", "true".into()),
        ("payment_method", "pm_card_visa".into()),
        ("capture_method", "manual".into()),
    ];
    form.push(("payment_method_types[]", "card".into()));
    form
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_told_is_found() {
    let world = World::new().await;
    let service = world.service(IMPATIENT).await;
    let _following = world.orders.follow_payments();
    let (refunded, lost, authenticated) = (
        world.orders.place(Cents(1)).await,
        world.orders.place(Cents(2)).await,
        world.orders.place(Cents(3)).await,
    );
    service.pay(refunded, "pm_card_visa").await;
    let intent = stripe_id(&service.shows(refunded, "created").await);
    service.pay(authenticated, OWN_CARD).await;
    let waiting = stripe_id(&service.shows(authenticated, "requires_action").await);
    service.stop().await;

    // While nobody listens: money goes back, a bank is content, and somebody makes intents by hand.
    world.at_the_dashboard("refunds", &[("payment_intent", &intent)]).await;
    world.stripe.authenticate(&waiting, Authentication::Succeeds).unwrap();
    let nobodys = OrderId(Uuid::now_v7());
    for order in [lost, nobodys] {
        let form = by_hand(order, Uuid::now_v7());
        let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        world.at_the_dashboard("payment_intents", &form).await;
    }

    let service = world.reconciling_service(IMPATIENT).await;
    world.until_stripe(lost, |entry| entry.status == Status::Canceled).await;
    eventually("the log tells", async || {
        (world.log_of(refunded).await.last()? == "payment:refunded").then_some(())
    })
    .await;
    world.orders.becomes(refunded, OrderStatus::Cancelled).await;
    world.orders.becomes(authenticated, OrderStatus::Complete).await;
    // An order that is not in our log may be another system's: it is counted, and left alone.
    eventually("it is counted", async || (service.metric("payments_foreign").await == 1.0).then_some(()))
        .await;
    assert_eq!(world.at_stripe(nobodys).0, Status::RequiresCapture);
}

/// Months later: the intent is far behind what a sweep looks at, and its refund is not.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_fails_after_it_was_said_to_succeed_and_is_asked_for_again() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    let _following = world.orders.follow_payments();
    let order = world.orders.place(Cents(1999)).await;
    service.pay(order, "pm_card_refundFail").await;
    world.orders.becomes(order, OrderStatus::Complete).await;
    service.refund(SELLER, &order.to_string()).await;
    world.orders.becomes(order, OrderStatus::Cancelled).await;
    service.stop().await;

    // Nobody told, and yet it is found: the buyer has neither ticket nor money.
    let service = world.reconciling_service(PATIENT).await;
    eventually("the log tells", async || {
        (world.log_of(order).await.last()? == "payment:refund-failed").then_some(())
    })
    .await;
    eventually("it waits", async || (service.metric("payments_unsettled").await == 1.0).then_some(())).await;
    assert_eq!(world.charged(order), 1999);
}

/// Stripe is at work on the first request when the second comes: that is no reason for a second hold.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_takes_too_long_is_not_made_under_another_key() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    let _following = world.orders.follow_payments();
    let order = world.orders.place(Cents(1999)).await;
    // Longer than a request may take, and than its further tries.
    let late = Fault::new(Mode::Delay).at(Step::Create).delay(Duration::from_millis(2500)).times(1);
    world.stripe.add_fault(late);
    service.pay(order, "pm_card_visa").await;
    service.shows(order, "created").await;
    assert_eq!(world.at_stripe(order), (Status::Succeeded, 1, 1, 0));
    assert_eq!(ledger(&world.stripe, order).len(), 1);
}

/// Two intents for one try, as when Stripe did after all what it said to have failed at.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_intent_of_a_payment_is_given_up_as_soon_as_stripe_tells_of_it() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    world.tell(&service);
    let _following = world.orders.follow_payments();
    let order = world.orders.place(Cents(1999)).await;
    let payment: Value = service.pay(order, "pm_card_visa").await.json().await.unwrap();
    let form = by_hand(order, payment["id"].as_str().unwrap().parse().unwrap());
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let second = world.at_the_dashboard("payment_intents", &form).await;
    eventually("it is given up", async || {
        let entries = ledger(&world.stripe, order);
        let entry = entries.iter().find(|entry| second["id"] == entry.id)?;
        (entry.status == Status::Canceled).then_some(())
    })
    .await;
    assert_eq!(world.charged(order), 1999);
}

/// Asked a day ago, done, and never recorded: Stripe has forgotten the key by now.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_stripe_may_have_forgotten_is_searched_for_first() {
    let world = World::new().await;
    let _following = world.orders.follow_payments();
    let order = world.orders.place(Cents(1999)).await;
    let asked = SystemTime::now() - A_DAY_AND_MORE;
    let seconds = asked.duration_since(UNIX_EPOCH).unwrap().as_secs();
    let payment = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0));
    let form = by_hand(order, payment);
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let made = world.at_the_dashboard("payment_intents", &form).await;
    world.has_logged(order, A_DAY_AND_MORE, &[requested(order, payment)]).await;

    let service = world.service(IMPATIENT).await;
    let paid = service.shows(order, "created").await;
    assert_eq!(paid["stripeId"], made["id"]);
    assert_eq!(world.at_stripe(order), (Status::Succeeded, 1, 1, 0));
}

/// What was charged for a lost order and refused is not forgotten: Stripe may have had no money that day.
#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_stripe_refused_is_asked_for_again_the_next_day() {
    let world = World::new().await;
    let order = world.orders.place(Cents(1999)).await;
    let payment = Uuid::now_v7();
    let form = by_hand(order, payment);
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let made = world.at_the_dashboard("payment_intents", &form).await;
    let stripe_id = made["id"].as_str().unwrap().to_owned();
    world.at_the_dashboard(&format!("payment_intents/{stripe_id}/capture"), &[]).await;
    assert!(world.orders.cancel(order).await);
    let (id, why) = (PaymentId(payment), String::new());
    let charged = PaymentSettled { id, order_id: order, stripe_id: stripe_id.clone() };
    let refund = PaymentUnsettled { id, order_id: order, stripe_id: Some(stripe_id), reason: why };
    let log = [
        requested(order, payment),
        PaymentEvent::Created(charged),
        PaymentEvent::RefundRequested(refund.clone()),
        PaymentEvent::RefundFailed(refund),
    ];
    world.has_logged(order, A_DAY_AND_MORE, &log).await;

    let service = world.reconciling_service(IMPATIENT).await;
    service.shows(order, "refunded").await;
    assert_eq!(world.charged(order), 0);
}

/// Each half of a sweep goes its way: Stripe's lists may fail for ever, as for a key that must not read them.
#[tokio::test(flavor = "multi_thread")]
async fn payments_that_wait_are_counted_while_stripe_lists_nothing() {
    let world = World::new().await;
    let service = world.reconciling_service(IMPATIENT).await;
    let order = world.orders.place(Cents(1999)).await;
    service.pay(order, OWN_CARD).await;
    service.shows(order, "requires_action").await;
    // To look at the payment takes long; to list fails at once.
    let hold = Fault::new(Mode::HoldBefore).at(Step::Retrieve).only(("order_id", order.to_string()));
    world.stripe.add_fault(hold);
    world.stripe.add_fault(Fault::new(Mode::Down).at(Step::Retrieve));
    eventually("it is counted", async || (service.metric("payments_unsettled").await >= 1.0).then_some(()))
        .await;
}

/// A request that Stripe failed at, under a key that repeats the failure from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_remembers_a_failure_is_not_asked_for_ever() {
    let world = World::new().await;
    let service = world.service(PATIENT).await;
    let _following = world.orders.follow_payments();
    for (step, mode) in [
        (Step::Create, Mode::Status500Stored),
        (Step::Create, Mode::Status500After),
        (Step::Capture, Mode::Status500Stored),
        (Step::Capture, Mode::Status500After),
    ] {
        let order = world.orders.place(Cents(1999)).await;
        world.stripe.add_fault(Fault::new(mode).at(step).times(1));
        let paid = service.pay(order, "pm_card_visa").await;
        assert_eq!(paid.status(), StatusCode::CREATED, "{step:?} {mode:?}");
        assert_eq!(world.at_stripe(order), (Status::Succeeded, 1, 1, 0), "{step:?} {mode:?}");
        assert!(world.stripe.faults().faults.is_empty(), "a fault was not met");
    }
    let order = world.orders.place(Cents(1999)).await;
    let hold = Fault::new(Mode::HoldAfter).at(Step::Create).only(("order_id", order.to_string()));
    world.stripe.add_fault(hold.times(1));
    world.stripe.add_fault(Fault::new(Mode::Status500Stored).at(Step::Cancel).times(1));
    let (_, ended) = tokio::join!(service.pay(order, "pm_card_visa"), async {
        tokio::time::timeout(PATIENT, world.stripe.until_held(Step::Create)).await.expect("held in time");
        let ended = world.orders.cancel(order).await;
        world.stripe.clear_faults_of(&order.to_string());
        ended
    });
    assert!(ended);
    service.shows(order, "voided").await;
    assert_eq!(world.at_stripe(order), (Status::Canceled, 1, 0, 1));
    assert_eq!(ledger(&world.stripe, order).len(), 1);
}
