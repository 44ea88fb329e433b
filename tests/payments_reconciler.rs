//! Where no event of Stripe's arrives: log and Stripe are laid side by side, and what differs is put right.

mod support;

use reqwest::StatusCode;
use sandbox::stripe::{Authentication, LedgerEntry, Status};
use support::{
    Layout, PATIENCE,
    Service::Payments,
    System,
    purchase::{ASKS_ITS_OWNER, Purchase, VISA, ledger_equals_log},
    text, within,
};
use uuid::Uuid;

const UNHEARD: Layout = Layout {
    orders_replicas: 1,
    payments_replicas: 1,
    window_seconds: 900,
    stripe_timeout_seconds: 8,
    reconcile_seconds: 1,
    webhook: None,
    nats_users: false,
    nats_tls: false,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refunded_meanwhile_is_found_after_a_restart() {
    let mut system = System::start(UNHEARD).await;
    let purchase = Purchase::bought(&system).await;
    system.kill(Payments, 0).await;
    system.at_dashboard("/v1/refunds", &[("payment_intent", &purchase.intent(&system).id)]).await;
    system.restart(Payments, 0).await;
    purchase.is_refunded(&system).await;
    ledger_equals_log(&system).await;
    until_metric(&system, "payments_reconciled_total", 1.0).await;
    until_metric(&system, "payments_unmatched", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_asked_for_is_given_up_or_given_back() {
    let system = System::start(UNHEARD).await;
    let purchase = Purchase::reserved(&system).await;
    let held = by_hand(&system, &purchase.order, "manual").await;
    let taken = by_hand(&system, &purchase.order, "automatic").await;
    let foreign = by_hand(&system, &Uuid::now_v7().to_string(), "manual").await;

    let of = |id: &str| system.stripe.ledger().into_iter().find(|intent| intent.id == id).unwrap();
    until(&system, || of(&held), |intent| intent.status == Status::Canceled).await;
    until(&system, || of(&taken), |intent| intent.amount_refunded == purchase.cents).await;
    until_metric(&system, "payments_charged_in_vain_total", 1.0).await;
    // Another system's, perhaps: counted, and not touched.
    until_metric(&system, "payments_foreign", 1.0).await;
    until_metric(&system, "payments_unmatched", 0.0).await;
    assert_eq!(of(&foreign).status, Status::RequiresCapture);
    system.at_dashboard(&format!("/v1/payment_intents/{foreign}/cancel"), &[]).await;

    // And whoever ordered it pays as if nothing had been.
    let (status, payment) = purchase.pays(&system, VISA).await;
    assert_eq!(status, StatusCode::CREATED, "{payment}");
    system.until_order(&purchase.buyer, &purchase.order, "complete").await;
    system.until_ticket(&purchase.ticket, "sold").await;
    ledger_equals_log(&system).await;
    assert_eq!(of(&text(&payment["stripeId"])).amount_captured, purchase.cents);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_charge_for_a_lost_order_goes_back_by_itself_and_is_told() {
    let mut system = System::start(UNHEARD).await;
    let purchase = Purchase::reserved(&system).await;
    assert_eq!(purchase.pays(&system, ASKS_ITS_OWNER).await.0, StatusCode::ACCEPTED);
    let intent = purchase.intent(&system).id;
    // The order is over before anything is held; then its owner agrees, and somebody takes the money by hand.
    system.kill(Payments, 0).await;
    purchase.cancel(&system).await;
    system.stripe.authenticate(&intent, Authentication::Succeeds).unwrap();
    system.at_dashboard(&format!("/v1/payment_intents/{intent}/capture"), &[]).await;

    system.restart(Payments, 0).await;
    purchase.until_payment(&system, "refunded").await;
    ledger_equals_log(&system).await;
    let intent = purchase.intent(&system);
    assert_eq!((intent.captures, intent.refunds, intent.amount_refunded), (1, 1, purchase.cents));
    assert_eq!(purchase.reason(&system).await.as_deref(), Some("buyer"));
    system.until_ticket(&purchase.ticket, "available").await;
    let told = system.metric(Payments, 0, "payments_charged_in_vain_total", "").await;
    assert!(told >= 1.0, "{told}");
    assert!(system.log(Payments, 0).contains("a card was charged for a lost order"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refund_that_failed_after_all_is_found_and_told() {
    let system = System::start(UNHEARD).await;
    let purchase = Purchase::bought_with(&system, "pm_card_refundFail").await;
    let (status, payment) = purchase.start_to_refund(&system, 0).await.unwrap();
    assert_eq!((status, &payment["status"]), (StatusCode::OK, &"refunded".into()), "{payment}");

    purchase.until_logged(&system, "refund-failed").await;
    // The ticket is for sale again, and the money still here: only a person can give it back.
    until_metric(&system, "payments_unsettled", 1.0).await;
    assert_eq!(purchase.reason(&system).await.as_deref(), Some("refunded"));
    assert_eq!(purchase.payment(&system).await["status"], "created");
    assert_eq!(purchase.intent(&system).amount_refunded, 0);
    assert!(system.log(Payments, 0).contains("stripe did not refund"));
    ledger_equals_log(&system).await;
}

/// An intent with our metadata that our log knows nothing of. Returns its id.
async fn by_hand(system: &System, order: &str, capture: &str) -> String {
    let payment = Uuid::now_v7().to_string();
    let form = [
        ("amount", "1999"),
        ("currency", "usd"),
        ("capture_method", capture),
        ("confirm", "true"),
        ("payment_method", VISA),
        ("payment_method_types[]", "card"),
        ("metadata[order_id]", order),
        ("metadata[payment_id]", &payment),
    ];
    let intent = system.at_dashboard("/v1/payment_intents", &form).await;
    text(&intent["id"])
}

async fn until(system: &System, look: impl Fn() -> LedgerEntry, right: impl Fn(&LedgerEntry) -> bool) {
    let is_right = || async { right(&look()).then_some(()) };
    let found = within(PATIENCE, is_right).await;
    assert!(found.is_some(), "{:?}\n{}", look(), system.log(Payments, 0));
}

async fn until_metric(system: &System, name: &str, value: f64) {
    let has_it = || async { (system.metric(Payments, 0, name, "").await == value).then_some(()) };
    let found = within(PATIENCE, has_it).await;
    let stands = system.metric(Payments, 0, name, "").await;
    assert!(found.is_some(), "{name} is {stands}\n{}", system.log(Payments, 0));
}
