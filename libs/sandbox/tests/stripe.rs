//! The real Stripe client against the sandbox, and what a test needs to see and to break.

use std::collections::HashMap;
use std::time::Duration;

use sandbox::stripe::{Error, Fault, LedgerEntry, Mode, Status, Step, StripeOptions, StripeSandbox};
use serde_json::Value;
use stripe::{
    ApiErrors, ApiErrorsCode, ApiErrorsType, Client, ClientBuilder, IdempotencyKey, RequestStrategy,
    StripeError, StripeRequest,
};
use stripe_core::payment_intent::{
    CancelPaymentIntent, CapturePaymentIntent, ConfirmPaymentIntent, CreatePaymentIntent,
    CreatePaymentIntentAutomaticPaymentMethods, CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects,
    ListPaymentIntent, RetrievePaymentIntent,
};
use stripe_core::refund::{CreateRefund, RetrieveRefund};
use stripe_core::{PaymentIntent, PaymentIntentCaptureMethod, PaymentIntentStatus};
use stripe_payment::payment_method::{
    CreatePaymentMethod, CreatePaymentMethodCard, CreatePaymentMethodTokenParams, CreatePaymentMethodType,
};
use stripe_types::Currency;

async fn sandbox() -> StripeSandbox {
    StripeSandbox::start(StripeOptions::default()).await.expect("sandbox")
}

fn client(sandbox: &StripeSandbox) -> Client {
    ClientBuilder::new("sk_test_sandbox").url(sandbox.url()).build().expect("client")
}

/// A payment that sends the customer nowhere: no `return_url` is needed.
fn of_card(cents: i64) -> CreatePaymentIntent {
    let automatic = CreatePaymentIntentAutomaticPaymentMethods {
        allow_redirects: Some(CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects::Never),
        enabled: true,
    };
    CreatePaymentIntent::new(cents, Currency::USD).automatic_payment_methods(automatic)
}

/// An authorisation of 19.99 for order 7.
fn authorize(payment_method: &str) -> CreatePaymentIntent {
    of_card(1999)
        .capture_method(PaymentIntentCaptureMethod::Manual)
        .confirm(true)
        .payment_method(payment_method)
        .metadata(HashMap::from([("order_id".into(), "7".into())]))
}

fn once(key: &str) -> RequestStrategy {
    RequestStrategy::Idempotent(IdempotencyKey::new(key).expect("key"))
}

fn refused<T>(result: Result<T, StripeError>, status: u16) -> Box<ApiErrors> {
    match result {
        Err(StripeError::Stripe(error, actual)) => {
            assert_eq!(actual, status, "{error:?}");
            error
        }
        Err(other) => panic!("not an answer of Stripe's: {other}"),
        Ok(_) => panic!("it was to be refused with {status}"),
    }
}

fn only(ledger: Vec<LedgerEntry>) -> LedgerEntry {
    let [entry] = ledger.try_into().expect("one payment intent");
    entry
}

async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.unwrap_or_else(|_| panic!("too long: {what}"))
}

async fn get(url: String) -> reqwest::Response {
    reqwest::Client::new().get(url).bearer_auth("sk_test_sandbox").send().await.expect("answer")
}

async fn post(url: String, form: &[(&str, &str)]) -> (u16, Value) {
    let request = reqwest::Client::new().post(url).bearer_auth("sk_test_sandbox").form(form);
    let response = request.send().await.expect("answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

#[tokio::test]
async fn money_is_authorised_then_captured() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);

    let intent = authorize("pm_card_visa").send(&client).await.expect("authorised");
    assert_eq!(intent.status, PaymentIntentStatus::RequiresCapture);
    assert_eq!((intent.amount, intent.amount_capturable, intent.amount_received), (1999, 1999, 0));
    assert_eq!(intent.metadata["order_id"], "7");
    assert!(intent.latest_charge.is_some());

    let intent = CapturePaymentIntent::new(intent.id).send(&client).await.expect("captured");
    assert_eq!(intent.status, PaymentIntentStatus::Succeeded);
    assert_eq!((intent.amount_capturable, intent.amount_received), (0, 1999));

    let entry = only(sandbox.ledger());
    assert_eq!((entry.status, entry.amount_captured, entry.captures), (Status::Succeeded, 1999, 1));
    assert_eq!(entry.metadata["order_id"], "7");
}

#[tokio::test]
async fn an_authorisation_that_is_cancelled_takes_nothing() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = authorize("pm_card_mastercard").send(&client).await.expect("authorised").id;

    let intent = CancelPaymentIntent::new(id.clone()).send(&client).await.expect("cancelled");
    assert_eq!(intent.status, PaymentIntentStatus::Canceled);

    let error = refused(CapturePaymentIntent::new(id.clone()).send(&client).await, 400);
    assert_eq!(error.code, Some(ApiErrorsCode::PaymentIntentUnexpectedState));
    assert_eq!(error.payment_intent.map(|intent| intent.status), Some(PaymentIntentStatus::Canceled));
    refused(CancelPaymentIntent::new(id).send(&client).await, 400);

    let entry = only(sandbox.ledger());
    assert_eq!((entry.amount_captured, entry.captures, entry.cancellations), (0, 0, 1));
}

#[tokio::test]
async fn a_captured_payment_can_be_neither_captured_again_nor_cancelled() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = authorize("pm_card_visa").send(&client).await.expect("authorised").id;
    CapturePaymentIntent::new(id.clone()).send(&client).await.expect("captured");

    for error in [
        refused(CapturePaymentIntent::new(id.clone()).send(&client).await, 400),
        refused(CancelPaymentIntent::new(id.clone()).send(&client).await, 400),
        refused(ConfirmPaymentIntent::new(id).send(&client).await, 400),
    ] {
        assert_eq!(error.code, Some(ApiErrorsCode::PaymentIntentUnexpectedState));
    }
    assert_eq!(only(sandbox.ledger()).captures, 1);
}

#[tokio::test]
async fn each_test_card_is_declined_in_its_own_way() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    for (card, code, reason) in [
        ("pm_card_chargeDeclined", ApiErrorsCode::CardDeclined, "generic_decline"),
        ("pm_card_visa_chargeDeclined", ApiErrorsCode::CardDeclined, "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", ApiErrorsCode::CardDeclined, "insufficient_funds"),
        ("pm_card_chargeDeclinedLostCard", ApiErrorsCode::CardDeclined, "lost_card"),
        ("pm_card_chargeDeclinedStolenCard", ApiErrorsCode::CardDeclined, "stolen_card"),
        ("pm_card_chargeDeclinedExpiredCard", ApiErrorsCode::ExpiredCard, "expired_card"),
        ("pm_card_chargeDeclinedIncorrectCvc", ApiErrorsCode::IncorrectCvc, "incorrect_cvc"),
        ("pm_card_chargeDeclinedProcessingError", ApiErrorsCode::ProcessingError, "processing_error"),
    ] {
        let error = refused(authorize(card).send(&client).await, 402);
        assert_eq!(error.type_, ApiErrorsType::CardError, "{card}");
        assert_eq!(error.code, Some(code), "{card}");
        assert_eq!(error.decline_code.as_deref(), Some(reason), "{card}");
        assert!(error.charge.is_some_and(|id| id.starts_with("ch_")), "{card}");
        let intent = error.payment_intent.expect("the intent");
        assert_eq!(intent.status, PaymentIntentStatus::RequiresPaymentMethod, "{card}");
        assert!(intent.last_payment_error.is_some(), "{card}");
    }
}

#[tokio::test]
async fn a_declined_intent_takes_another_card() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let error = refused(authorize("pm_card_chargeDeclined").send(&client).await, 402);
    let id = error.payment_intent.expect("the intent").id;

    let intent = ConfirmPaymentIntent::new(id).payment_method("pm_card_visa").send(&client).await;
    assert_eq!(intent.expect("authorised").status, PaymentIntentStatus::RequiresCapture);
    let entry = only(sandbox.ledger());
    assert_eq!((entry.declines, entry.authorizations), (1, 1));
}

#[tokio::test]
async fn a_legacy_token_becomes_a_payment_method() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let method = |token: &str| {
        CreatePaymentMethod::new()
            .type_(CreatePaymentMethodType::Card)
            .card(CreatePaymentMethodCard::TokenParams(CreatePaymentMethodTokenParams::new(token)))
    };

    let good = method("tok_visa").send(&client).await.expect("payment method");
    assert_eq!(good.card.expect("card").last4, "4242");
    authorize(good.id.as_str()).send(&client).await.expect("authorised");

    let bad = method("tok_chargeDeclinedInsufficientFunds").send(&client).await.expect("payment method");
    let error = refused(authorize(bad.id.as_str()).send(&client).await, 402);
    assert_eq!(error.decline_code.as_deref(), Some("insufficient_funds"));

    let error = refused(method("tok_nonsense").send(&client).await, 400);
    assert_eq!(error.code, Some(ApiErrorsCode::ResourceMissing));
}

#[tokio::test]
async fn a_legacy_token_can_come_with_the_intent() {
    let sandbox = sandbox().await;
    let form = [
        ("amount", "1"),
        ("currency", "usd"),
        ("confirm", "true"),
        ("payment_method_types[]", "card"),
        ("payment_method_data[type]", "card"),
        ("payment_method_data[card][token]", "tok_visa"),
    ];
    let (status, intent) = post(format!("{}/v1/payment_intents", sandbox.url()), &form).await;
    assert_eq!((status, &intent["status"]), (200, &"succeeded".into()), "{intent}");
    assert_eq!(intent["amount_received"], 1);
}

#[tokio::test]
async fn a_payment_that_may_redirect_needs_a_way_back() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let pay = || CreatePaymentIntent::new(500, Currency::USD).confirm(true).payment_method("pm_card_visa");
    let error = refused(pay().send(&client).await, 400);
    assert_eq!(error.param.as_deref(), Some("return_url"));
    pay().return_url("https://tickets.example/paid").send(&client).await.expect("paid");
}

#[tokio::test]
async fn a_step_at_a_time_is_as_good() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let intent = of_card(500).send(&client).await.expect("created");
    assert_eq!(intent.status, PaymentIntentStatus::RequiresPaymentMethod);
    refused(ConfirmPaymentIntent::new(intent.id.clone()).send(&client).await, 400);

    let intent = of_card(500).payment_method("pm_card_amex");
    let intent = intent.send(&client).await.expect("created");
    assert_eq!(intent.status, PaymentIntentStatus::RequiresConfirmation);
    let intent = ConfirmPaymentIntent::new(intent.id).send(&client).await.expect("confirmed");
    assert_eq!(intent.status, PaymentIntentStatus::Succeeded);
}

#[tokio::test]
async fn no_more_is_refunded_than_was_captured() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = authorize("pm_card_visa").send(&client).await.expect("authorised").id;
    let refund = |cents: i64| CreateRefund::new().payment_intent(id.as_str()).amount(cents);

    refused(refund(1).send(&client).await, 400);
    CapturePaymentIntent::new(id.clone()).amount_to_capture(1500).send(&client).await.expect("captured");

    let made = refund(1000).send(&client).await.expect("refunded");
    let read = RetrieveRefund::new(made.id).send(&client).await.expect("read");
    assert_eq!((read.amount, read.status.as_deref()), (1000, Some("succeeded")));
    refused(refund(501).send(&client).await, 400);
    CreateRefund::new().payment_intent(id.as_str()).send(&client).await.expect("the rest is refunded");
    let error = refused(refund(1).send(&client).await, 400);
    assert_eq!(error.code, Some(ApiErrorsCode::ChargeAlreadyRefunded));

    let entry = only(sandbox.ledger());
    assert_eq!((entry.amount_captured, entry.amount_refunded), (1500, 1500));
}

#[tokio::test]
async fn bad_requests_are_refused_with_stripes_codes() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let missing = refused(RetrievePaymentIntent::new("pi_nobody").send(&client).await, 404);
    assert_eq!(missing.code, Some(ApiErrorsCode::ResourceMissing));
    let card = refused(authorize("pm_x").send(&client).await, 400);
    assert_eq!(card.message.as_deref(), Some("No such PaymentMethod: 'pm_x'"));
    let large = CreatePaymentIntent::new(100_000_000, Currency::USD).send(&client).await;
    assert_eq!(refused(large, 400).code, Some(ApiErrorsCode::AmountTooLarge));
    let nothing = CreatePaymentIntent::new(0, Currency::USD).send(&client).await;
    assert_eq!(refused(nothing, 400).code, Some(ApiErrorsCode::ParameterInvalidInteger));

    let (status, body) = post(format!("{}/v1/payment_intents", sandbox.url()), &[("amount", "100")]).await;
    assert_eq!((status, &body["error"]["code"]), (400, &"parameter_missing".into()));
    let (status, body) = post(format!("{}/v1/nonsense", sandbox.url()), &[]).await;
    assert_eq!((status, &body["error"]["type"]), (404, &"invalid_request_error".into()));
    assert!(sandbox.ledger().is_empty());
}

#[tokio::test]
async fn no_key_and_a_live_key_are_refused() {
    let sandbox = sandbox().await;
    let url = format!("{}/v1/payment_intents", sandbox.url());
    assert_eq!(reqwest::get(&url).await.expect("answer").status(), 401);
    let client = ClientBuilder::new("sk_live_mistake").url(sandbox.url()).build().expect("client");
    refused(authorize("pm_card_visa").send(&client).await, 401);
}

#[tokio::test]
async fn intents_are_listed_newest_first_page_by_page() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let mut made = Vec::new();
    for _ in 0..5 {
        made.insert(0, authorize("pm_card_visa").send(&client).await.expect("authorised").id);
    }
    let ids = |page: &[PaymentIntent]| page.iter().map(|intent| intent.id.clone()).collect::<Vec<_>>();

    let first = ListPaymentIntent::new().limit(3).send(&client).await.expect("page");
    assert_eq!((ids(&first.data), first.has_more), (made[..3].to_vec(), true));
    let rest = ListPaymentIntent::new().limit(3).starting_after(made[2].as_str()).send(&client).await;
    let rest = rest.expect("page");
    assert_eq!((ids(&rest.data), rest.has_more), (made[3..].to_vec(), false));

    let future = get(format!("{}/v1/payment_intents?created[gt]=9999999999", sandbox.url())).await;
    assert_eq!(future.json::<Value>().await.expect("page")["data"], Value::Array(Vec::new()));
}

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
async fn a_request_held_before_is_not_done_when_its_client_leaves() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = authorize("pm_card_visa").send(&client).await.expect("authorised").id;
    sandbox.add_fault(Fault { step: Some(Step::Capture), mode: Mode::HoldBefore, times: Some(1) });
    let capture = || CapturePaymentIntent::new(id.clone()).customize().request_strategy(once("capture"));

    let leaving = tokio::spawn({
        let (request, client) = (capture(), client.clone());
        async move { request.send(&client).await }
    });
    within("the capture hangs", sandbox.until_held(Step::Capture)).await;
    let busy = refused(capture().send(&client).await, 409);
    assert_eq!(busy.code, Some(ApiErrorsCode::IdempotencyKeyInUse));

    leaving.abort();
    within("the client has left", async {
        while !sandbox.faults().held.is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    sandbox.clear_faults();
    assert_eq!(only(sandbox.ledger()).captures, 0);
    capture().send(&client).await.expect("captured");
    assert_eq!(only(sandbox.ledger()).captures, 1);
}

#[tokio::test]
async fn a_request_held_after_was_done_and_is_replayed() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    sandbox.add_fault(Fault { step: Some(Step::Create), mode: Mode::HoldAfter, times: Some(1) });
    let create = || authorize("pm_card_visa").customize().request_strategy(once("create"));

    let held = tokio::spawn({
        let (request, client) = (create(), client.clone());
        async move { request.send(&client).await }
    });
    within("the answer hangs", sandbox.until_held(Step::Create)).await;
    let replayed = create().send(&client).await.expect("authorised");
    assert_eq!(only(sandbox.ledger()).authorizations, 1);

    sandbox.clear_faults();
    let released = within("the answer comes", held).await.expect("no panic").expect("authorised");
    assert_eq!(released.id, replayed.id);
}

#[tokio::test]
async fn another_process_breaks_and_mends_it_over_http() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let url = format!("{}/_sandbox/faults", sandbox.url());
    let http = reqwest::Client::new();
    let add = |fault: Value| http.post(&url).json(&fault).send();

    add(serde_json::json!({ "step": "create", "mode": "status_500", "times": 1 })).await.expect("added");
    add(serde_json::json!({ "mode": "down" })).await.expect("added");
    refused(authorize("pm_card_visa").customize().request_strategy(once("k")).send(&client).await, 500);
    refused(authorize("pm_card_visa").customize().request_strategy(once("k")).send(&client).await, 503);
    refused(RetrievePaymentIntent::new("pi_x").send(&client).await, 503);
    assert_eq!(add(serde_json::json!({ "mode": "nonsense" })).await.expect("answer").status(), 400);

    http.delete(&url).send().await.expect("cleared");
    authorize("pm_card_visa")
        .customize()
        .request_strategy(once("k"))
        .send(&client)
        .await
        .expect("authorised");

    let report: Value = get(url.clone()).await.json().await.expect("report");
    assert_eq!(report, serde_json::json!({ "faults": [], "held": {} }));
    let ledger: Vec<LedgerEntry> =
        get(format!("{}/_sandbox/ledger", sandbox.url())).await.json().await.expect("ledger");
    assert_eq!(ledger, sandbox.ledger());
}

#[tokio::test]
async fn the_books_are_kept_over_a_restart() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let file = dir.path().join("stripe.jsonl");
    let start = || StripeSandbox::start(StripeOptions { port: None, file: Some(file.clone()) });
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
    let error = StripeSandbox::start(StripeOptions { port: None, file: Some(file.clone()) }).await;
    assert!(matches!(error, Err(Error::Unreadable { line: 1, .. })));
    assert_eq!(std::fs::read_to_string(&file).expect("letter"), "Dear Ann,\nall is well.\n");
}
