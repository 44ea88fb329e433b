//! Cards whose bank wants to hear from their owner first: the order waits, inside its window.

mod support;

use reqwest::StatusCode;
use sandbox::stripe::{Authentication, Status};
use serde_json::Value;
use support::{
    Layout, System,
    purchase::{ASKS_ITS_OWNER, Purchase, VISA, ledger_equals_log},
    text,
};

/// Asks to pay; the answer has to be that the bank wants to hear from the buyer.
async fn ask_the_owner(system: &System, purchase: &Purchase) -> Value {
    let (status, payment) = purchase.pays(system, ASKS_ITS_OWNER).await;
    assert_eq!((status, &payment["status"]), (StatusCode::ACCEPTED, &"requires_action".into()), "{payment}");
    let intent = purchase.intent(system);
    assert_eq!((&*text(&payment["stripeId"]), intent.status), (&*intent.id, Status::RequiresAction));
    assert!(text(&payment["clientSecret"]).starts_with(&format!("{}_secret_", intent.id)), "{payment}");
    payment
}

fn decide(system: &System, purchase: &Purchase, outcome: Authentication) {
    system.stripe.authenticate(&purchase.intent(system).id, outcome).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn once_the_owner_agrees_stripes_events_alone_complete_the_order() {
    let system = System::start(Layout::default()).await;
    let purchase = Purchase::reserved(&system).await;
    let payment = ask_the_owner(&system, &purchase).await;
    assert_eq!(system.order(&purchase.buyer, &purchase.order).await["status"], "created");
    assert_eq!(ask_the_owner(&system, &purchase).await, payment, "asked again, it is the same");
    assert_eq!(purchase.payment(&system).await, payment);

    decide(&system, &purchase, Authentication::Succeeds);
    purchase.is_bought(&system).await;
    ledger_equals_log(&system).await;
    assert_eq!(purchase.payment(&system).await["clientSecret"], Value::Null);
    // Whoever reads the log could act as the buyer.
    for event in system.read_stream("PAYMENTS").await {
        assert!(!event.payload.to_string().contains("_secret_"), "{event:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_stripes_events_are_lost_a_look_completes_the_order() {
    let system = System::start(Layout { webhook: None, ..Layout::default() }).await;
    let purchase = Purchase::reserved(&system).await;
    ask_the_owner(&system, &purchase).await;
    decide(&system, &purchase, Authentication::Succeeds);
    purchase.until_payment(&system, "created").await;
    purchase.is_bought(&system).await;
    ledger_equals_log(&system).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whom_the_bank_does_not_believe_pays_with_another_card() {
    for webhook in [Layout::default().webhook, None] {
        let system = System::start(Layout { webhook, ..Layout::default() }).await;
        let purchase = Purchase::reserved(&system).await;
        ask_the_owner(&system, &purchase).await;
        let refused = purchase.intent(&system).id;
        decide(&system, &purchase, Authentication::Fails);
        purchase.until_payment(&system, "declined").await;
        assert_eq!(system.order(&purchase.buyer, &purchase.order).await["status"], "created");

        let (status, payment) = purchase.pays(&system, VISA).await;
        assert_eq!(status, StatusCode::CREATED, "{payment}");
        purchase.is_bought(&system).await;
        let intents = purchase.intents(&system);
        let of = |id: &str| intents.iter().find(|intent| intent.id == id).unwrap().status;
        // Its secret is known to the buyer: it must not come alive again.
        assert_eq!((of(&refused), of(&text(&payment["stripeId"]))), (Status::Canceled, Status::Succeeded));
        ledger_equals_log(&system).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_never_answers_the_bank_loses_the_ticket_and_no_money_is_held() {
    let system = System::start(Layout { window_seconds: 3, ..Layout::default() }).await;
    let purchase = Purchase::reserved(&system).await;
    ask_the_owner(&system, &purchase).await;
    purchase.is_not_bought(&system, "expired").await;
    ledger_equals_log(&system).await;
    let intent = purchase.intent(&system);
    assert_eq!((intent.status, intent.authorizations), (Status::Canceled, 0));
    assert!(system.stripe.authenticate(&intent.id, Authentication::Succeeds).is_err(), "too late");
}
