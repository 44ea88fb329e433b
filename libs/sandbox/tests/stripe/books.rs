//! What is kept: over a restart, and for an idempotency key.

use sandbox::stripe::{Error, StripeOptions, StripeSandbox};
use stripe::{ApiErrorsType, StripeRequest};
use stripe_core::payment_intent::CapturePaymentIntent;

use crate::support::{authorize, client, get_json, once, only, paid, post, refused, sandbox};

#[tokio::test]
async fn the_same_key_gets_the_same_answer_and_does_nothing_more() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let send = |card: &str, key: &str| authorize(card).customize().request_strategy(once(key)).send(&client);

    let first = send("pm_card_visa", "a").await.expect("authorised");
    let again = send("pm_card_visa", "a").await.expect("authorised");
    assert_eq!(first.id, again.id);

    let other = refused(send("pm_card_mastercard", "a").await, 400);
    assert_eq!(other.type_, ApiErrorsType::IdempotencyError);

    let first = refused(send("pm_card_chargeDeclined", "b").await, 402);
    let again = refused(send("pm_card_chargeDeclined", "b").await, 402);
    assert_eq!(first.charge, again.charge);
    assert_eq!(sandbox.ledger().len(), 2);

    // It fell at validation: the key is free for what was meant.
    refused(send("pm_x", "c").await, 400);
    send("pm_card_visa", "c").await.expect("authorised");
}

#[tokio::test]
async fn a_replay_says_so() {
    let sandbox = sandbox().await;
    let send = || async {
        let request = reqwest::Client::new().post(format!("{}/v1/payment_intents", sandbox.url()));
        let request = request.bearer_auth("sk_test_sandbox").header("Idempotency-Key", "k");
        request.form(&[("amount", "100"), ("currency", "usd")]).send().await.expect("answer")
    };
    assert!(!send().await.headers().contains_key("idempotent-replayed"));
    assert_eq!(send().await.headers()["idempotent-replayed"], "true");
}

#[tokio::test]
async fn the_books_are_kept_over_a_restart() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("stripe.jsonl");
    let start =
        || StripeSandbox::start(StripeOptions { file: Some(file.clone()), ..StripeOptions::default() });
    let create = || authorize("pm_card_visa").customize().request_strategy(once("create"));

    let sandbox = start().await.expect("sandbox");
    let id = create().send(&client(&sandbox)).await.expect("authorised").id;
    let before = sandbox.ledger();
    sandbox.shutdown().await;

    // The power went while a line was being written.
    let mut text = std::fs::read_to_string(&file).expect("books");
    text.push_str(r#"[{"intent":{"id":"pi_"#);
    std::fs::write(&file, text).expect("torn line");

    let sandbox = start().await.expect("sandbox");
    assert_eq!(sandbox.ledger(), before);
    assert_eq!(create().send(&client(&sandbox)).await.expect("replayed").id, id);
    CapturePaymentIntent::new(id).send(&client(&sandbox)).await.expect("captured");
    let before = sandbox.ledger();
    sandbox.shutdown().await;
    assert_eq!(start().await.expect("sandbox").ledger(), before);
}

#[tokio::test]
async fn a_file_that_is_something_else_is_left_alone() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("letter.txt");
    std::fs::write(&file, "Dear Ann,\nall is well.\n").expect("letter");
    let error =
        StripeSandbox::start(StripeOptions { file: Some(file.clone()), ..StripeOptions::default() }).await;
    assert!(matches!(error, Err(Error::Unreadable { line: 1, .. })));
    assert_eq!(std::fs::read_to_string(&file).expect("letter"), "Dear Ann,\nall is well.\n");
}

#[tokio::test]
async fn a_file_of_before_charges_had_rows_is_read() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("stripe.jsonl");
    let intent = |id: &str, status: &str, captured: i64| {
        serde_json::json!({ "intent": {
            "id": id, "client_secret": format!("{id}_secret_x"), "created": 1_700_000_000, "amount": 1999,
            "currency": "usd", "capture_method": "manual", "payment_method_types": ["card"],
            "automatic_payment_methods": "never", "description": null, "metadata": { "order_id": "7" },
            "status": status, "payment_method": "pm_old", "latest_charge": format!("ch_of_{id}"),
            "last_payment_error": null, "canceled_at": null, "cancellation_reason": null,
            "amount_captured": captured, "amount_refunded": 0, "authorizations": 1, "declines": 0,
            "captures": u32::from(captured > 0), "cancellations": 0,
        }})
    };
    let method = serde_json::json!({ "payment_method": {
        "id": "pm_old", "created": 1_700_000_000, "number": "4242424242424242", "metadata": {},
    }});
    let line = serde_json::json!([
        method,
        intent("pi_held", "requires_capture", 0),
        intent("pi_paid", "succeeded", 1999)
    ]);
    std::fs::write(&file, format!("{line}\n")).expect("books");

    let options = || StripeOptions { file: Some(file.clone()), ..StripeOptions::default() };
    let sandbox = StripeSandbox::start(options()).await.expect("sandbox");
    CapturePaymentIntent::new("pi_held").send(&client(&sandbox)).await.expect("captured");
    let charge = get_json(format!("{}/v1/charges/ch_of_pi_paid", sandbox.url())).await;
    assert_eq!((&charge["amount_captured"], &charge["paid"]), (&1999.into(), &true.into()));
    let (status, refund) =
        post(format!("{}/v1/refunds", sandbox.url()), &[("charge", "ch_of_pi_paid"), ("amount", "99")]).await;
    assert_eq!((status, &refund["status"]), (200, &"succeeded".into()), "{refund}");
    let before = sandbox.ledger();
    sandbox.shutdown().await;
    assert_eq!(StripeSandbox::start(options()).await.expect("sandbox").ledger(), before);
}

#[tokio::test]
async fn forgotten_keys_are_free_and_stay_so_over_a_restart() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("stripe.jsonl");
    let start =
        || StripeSandbox::start(StripeOptions { file: Some(file.clone()), ..StripeOptions::default() });
    let create = || authorize("pm_card_visa").customize().request_strategy(once("create"));

    let sandbox = start().await.expect("sandbox");
    create().send(&client(&sandbox)).await.expect("authorised");
    let url = format!("{}/_sandbox/idempotency_keys", sandbox.url());
    reqwest::Client::new().delete(url).send().await.expect("forgotten");
    sandbox.shutdown().await;

    let sandbox = start().await.expect("sandbox");
    create().send(&client(&sandbox)).await.expect("authorised once more");
    assert_eq!(sandbox.ledger().len(), 2);
    sandbox.forget_keys();
    create().send(&client(&sandbox)).await.expect("and again");
    assert_eq!(sandbox.ledger().len(), 3);
}

#[tokio::test]
async fn refunds_and_disputes_are_in_the_ledger_after_a_restart() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("stripe.jsonl");
    let start =
        || StripeSandbox::start(StripeOptions { file: Some(file.clone()), ..StripeOptions::default() });
    let sandbox = start().await.expect("sandbox");
    let id = paid(&client(&sandbox), "pm_card_visa").await;
    for amount in ["100", "50"] {
        let form = [("payment_intent", id.as_str()), ("amount", amount)];
        assert_eq!(post(format!("{}/v1/refunds", sandbox.url()), &form).await.0, 200);
    }
    sandbox.dispute(&id).expect("disputed");
    let before = sandbox.ledger();
    sandbox.shutdown().await;

    let sandbox = start().await.expect("sandbox");
    assert_eq!(sandbox.ledger(), before);
    let entry = only(before);
    assert_eq!((entry.amount_refunded, entry.refunds, entry.disputed), (150, 2, true));
}
