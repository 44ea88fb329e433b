//! Each way to fail, as a client meets it.

use std::error::Error;
use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use sandbox::stripe::{Fault, LedgerEntry, Mode, Status, Step, StripeSandbox};
use serde_json::Value;
use stripe::{ApiErrorsCode, ApiErrorsType, StripeError, StripeRequest};
use stripe_core::payment_intent::{
    CancelPaymentIntent, CapturePaymentIntent, ConfirmPaymentIntent, RetrievePaymentIntent,
};
use stripe_core::refund::CreateRefund;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{
    authorize, authorize_for, client, get, of_card, once, only, paid, refused, sandbox, within,
};

#[tokio::test]
async fn a_request_held_before_is_not_done_when_its_client_leaves() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = authorize("pm_card_visa").send(&client).await.expect("authorised").id;
    sandbox.add_fault(Fault::new(Mode::HoldBefore).at(Step::Capture).times(1));
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
    sandbox.add_fault(Fault::new(Mode::HoldAfter).at(Step::Create).times(1));
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
    assert_eq!(report, serde_json::json!({ "faults": [], "held": {}, "met": {} }));
    let ledger: Vec<LedgerEntry> =
        get(format!("{}/_sandbox/ledger", sandbox.url())).await.json().await.expect("ledger");
    assert_eq!(ledger, sandbox.ledger());
}

/// Sends a capture by hand; what reading the answer ends with.
async fn capture_by_hand(sandbox: &StripeSandbox, id: &str, key: &str) -> io::Result<String> {
    let address = sandbox.url().strip_prefix("http://").expect("HTTP");
    let mut stream = TcpStream::connect(address).await.expect("connected");
    let request = format!(
        "POST /v1/payment_intents/{id}/capture HTTP/1.1\r\nhost: stripe\r\nauthorization: Bearer sk_test_x\r\n\
         idempotency-key: {key}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.map(|_| answer)
}

#[tokio::test]
async fn a_reset_is_a_reset_and_not_a_clean_close() {
    let sandbox = sandbox().await;
    let id = authorize("pm_card_visa").send(&client(&sandbox)).await.expect("authorised").id.to_string();

    sandbox.add_fault(Fault::new(Mode::ResetBefore).at(Step::Capture).times(1));
    let error = within("reset", capture_by_hand(&sandbox, &id, "k")).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(only(sandbox.ledger()).captures, 0);

    sandbox.add_fault(Fault::new(Mode::ResetAfter).at(Step::Capture).times(1));
    let error = within("reset", capture_by_hand(&sandbox, &id, "k")).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(only(sandbox.ledger()).captures, 1);

    // The key knows the answer that nobody got.
    let answer = within("answer", capture_by_hand(&sandbox, &id, "k")).await.expect("answer");
    assert!(answer.contains("idempotent-replayed: true") && answer.contains("succeeded"), "{answer}");
    assert_eq!(only(sandbox.ledger()).captures, 1);
}

#[tokio::test]
async fn a_reset_reaches_http_clients_as_an_error_of_the_connection() {
    let sandbox = sandbox().await;
    sandbox.add_fault(Fault::new(Mode::ResetBefore));
    let error = authorize("pm_card_visa").send(&client(&sandbox)).await.expect_err("no answer");
    assert!(matches!(error, StripeError::ClientError(_)), "{error}");

    let url = format!("{}/v1/payment_intents", sandbox.url());
    let error = reqwest::Client::new().get(url).bearer_auth("sk_test_x").send().await.expect_err("no answer");
    let mut sources = std::iter::successors(error.source(), |error| (*error).source());
    let reset = sources.any(|error| {
        error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::ConnectionReset)
    });
    assert!(reset, "{error:?}");
}

#[tokio::test]
async fn a_connection_lives_on_after_anothers_was_reset() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    authorize("pm_card_visa").send(&client).await.expect("authorised");
    for _ in 0..20 {
        sandbox.add_fault(Fault::new(Mode::ResetAfter).at(Step::Create).times(1));
        authorize("pm_card_visa").send(&client).await.expect_err("no answer");
        authorize("pm_card_visa").send(&client).await.expect("authorised");
    }
    assert_eq!(sandbox.ledger().len(), 41);
}

#[tokio::test]
async fn a_500_is_repeated_by_its_key_if_it_was_stored() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = authorize("pm_card_visa").send(&client).await.expect("authorised").id;
    let capture = |key: &str| {
        CapturePaymentIntent::new(id.clone()).customize().request_strategy(once(key)).send(&client)
    };

    sandbox.add_fault(Fault::new(Mode::Status500).at(Step::Capture).times(1));
    refused(capture("forgotten").await, 500);
    sandbox.add_fault(Fault::new(Mode::Status500Stored).at(Step::Capture).times(1));
    for _ in 0..2 {
        let error = refused(capture("stored").await, 500);
        assert_eq!(error.type_, ApiErrorsType::ApiError);
    }
    assert_eq!(only(sandbox.ledger()).captures, 0);

    capture("forgotten").await.expect("captured");
    refused(capture("stored").await, 500);
    sandbox.forget_keys();
    // Captured, and the key is new: refused for what it is.
    refused(capture("stored").await, 400);
}

#[tokio::test]
async fn a_500_after_hides_that_it_was_done() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = authorize("pm_card_visa").send(&client).await.expect("authorised").id;
    let capture =
        || CapturePaymentIntent::new(id.clone()).customize().request_strategy(once("k")).send(&client);

    sandbox.add_fault(Fault::new(Mode::Status500After).at(Step::Capture).times(1));
    refused(capture().await, 500);
    refused(capture().await, 500);
    let entry = only(sandbox.ledger());
    assert_eq!((entry.status, entry.captures), (Status::Succeeded, 1));
    let intent = RetrievePaymentIntent::new(id.clone()).send(&client).await.expect("read");
    assert_eq!(intent.amount_received, 1999);
}

#[tokio::test]
async fn too_many_requests_are_told_so_and_forgotten() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    sandbox.add_fault(Fault::new(Mode::Status429).at(Step::Create).times(1));
    let create = || authorize("pm_card_visa").customize().request_strategy(once("k")).send(&client);
    let error = refused(create().await, 429);
    assert_eq!(error.code, Some(ApiErrorsCode::RateLimit));
    assert!(sandbox.ledger().is_empty());
    create().await.expect("authorised");
}

#[tokio::test]
async fn a_delayed_request_is_done_late() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let delay = Duration::from_millis(300);
    sandbox.add_fault(Fault::new(Mode::Delay).at(Step::Create).times(1).delay(delay));
    let asked = Instant::now();
    authorize("pm_card_visa").send(&client).await.expect("authorised");
    assert!(asked.elapsed() >= delay);
}

#[tokio::test]
async fn a_delay_is_not_done_when_its_client_leaves() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let delay = Fault::new(Mode::Delay).at(Step::Create).only(("order_id", "7"));
    sandbox.add_fault(delay.delay(Duration::from_secs(3600)));
    let leaving = tokio::spawn({
        let client = client.clone();
        async move { authorize_for("7", "pm_card_visa").send(&client).await }
    });
    within("the request waits", sandbox.until_met("7")).await;
    leaving.abort();
    authorize_for("8", "pm_card_visa").send(&client).await.expect("authorised");
    assert_eq!(only(sandbox.ledger()).metadata["order_id"], "8");
}

#[tokio::test]
async fn a_fault_follows_one_order_through_all_its_steps() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let authorized = async |order: &str| {
        authorize_for(order, "pm_card_visa").send(&client).await.expect("authorised").id.to_string()
    };
    let (seven, eight) = (authorized("7").await, authorized("8").await);
    let of_seven = |mode| Fault::new(mode).only(("order_id", "7"));

    sandbox.add_fault(of_seven(Mode::Status500));
    refused(authorize_for("7", "pm_card_visa").send(&client).await, 500);
    refused(CapturePaymentIntent::new(seven.as_str()).send(&client).await, 500);
    refused(CancelPaymentIntent::new(seven.as_str()).send(&client).await, 500);
    refused(ConfirmPaymentIntent::new(seven.as_str()).send(&client).await, 500);
    refused(RetrievePaymentIntent::new(seven.as_str()).send(&client).await, 500);
    refused(CreateRefund::new().payment_intent(seven.as_str()).send(&client).await, 500);
    let intent = RetrievePaymentIntent::new(eight.as_str()).send(&client).await.expect("read");
    CapturePaymentIntent::new(eight.as_str()).send(&client).await.expect("captured");
    let charge = intent.latest_charge.expect("charge").id().to_string();
    assert_eq!(get(format!("{}/v1/charges/{charge}", sandbox.url())).await.status(), 200);
    CreateRefund::new().charge(charge).send(&client).await.expect("refunded");
    within("it was met", sandbox.until_met("7")).await;
    assert_eq!(sandbox.faults().met["7"], 6);

    sandbox.clear_faults_of("8");
    refused(RetrievePaymentIntent::new(seven.as_str()).send(&client).await, 500);
    sandbox.clear_faults_of("7");
    RetrievePaymentIntent::new(seven.as_str()).send(&client).await.expect("read");
}

#[tokio::test]
async fn clearing_one_orders_faults_releases_only_that_one() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    for order in ["7", "8"] {
        sandbox.add_fault(Fault::new(Mode::HoldAfter).at(Step::Create).only(("order_id", order)));
    }
    let held = ["7", "8"].map(|order| {
        let client = client.clone();
        tokio::spawn(async move { authorize_for(order, "pm_card_visa").send(&client).await })
    });
    within("both are met", async { tokio::join!(sandbox.until_met("7"), sandbox.until_met("8")) }).await;
    let [seven, eight] = held;
    sandbox.clear_faults_of("7");
    within("order 7 goes on", seven).await.expect("no panic").expect("authorised");
    within("order 8 hangs", sandbox.until_held(Step::Create)).await;
    assert!(!eight.is_finished());
    sandbox.clear_faults();
    within("order 8 goes on", eight).await.expect("no panic").expect("authorised");
}

#[tokio::test]
async fn a_fifth_of_all_requests_can_fail_by_chance() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    sandbox.add_fault(Fault::new(Mode::Status500).at(Step::Create).percent(20));
    let mut failed = 0_u32;
    for _ in 0..500 {
        failed += u32::from(of_card(100).send(&client).await.is_err());
    }
    // Six standard deviations around 100.
    assert!((47..=153).contains(&failed), "{failed}");
    assert_eq!(sandbox.faults().met[""], failed);
    assert_eq!(sandbox.ledger().len() + failed as usize, 500);
}

/// Payments at once, each with keys of its own and asked for until there is an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_under_a_hail_of_faults_are_made_once_each() {
    const PAYMENTS: usize = 200;
    let sandbox = sandbox().await;
    for mode in [Mode::ResetBefore, Mode::ResetAfter, Mode::Status500, Mode::Status429, Mode::Down] {
        sandbox.add_fault(Fault::new(mode).percent(8));
    }
    sandbox.add_fault(Fault::new(Mode::Delay).percent(20).delay(Duration::from_millis(5)));
    let client = client(&sandbox);
    let payments: Vec<_> = (0..PAYMENTS)
        .map(|payment| {
            let client = client.clone();
            tokio::spawn(async move {
                let order = payment.to_string();
                let id = loop {
                    let create = authorize_for(&order, "pm_card_visa").customize();
                    let create = create.request_strategy(once(&format!("create-{order}")));
                    if let Ok(intent) = create.send(&client).await {
                        break intent.id;
                    }
                };
                loop {
                    let capture = CapturePaymentIntent::new(id.clone()).customize();
                    let capture = capture.request_strategy(once(&format!("capture-{order}")));
                    if capture.send(&client).await.is_ok() {
                        break;
                    }
                }
            })
        })
        .collect();
    for payment in payments {
        within("it is paid", payment).await.expect("no panic");
    }
    let ledger = sandbox.ledger();
    assert_eq!(ledger.len(), PAYMENTS);
    assert!(ledger.iter().all(|entry| (entry.captures, entry.amount_captured) == (1, 1999)));
}

#[tokio::test]
async fn nonsense_faults_are_refused_over_http() {
    let sandbox = sandbox().await;
    let url = format!("{}/_sandbox/faults", sandbox.url());
    for fault in [
        r#"{"mode":"down","percent":0}"#,
        r#"{"mode":"down","percent":101}"#,
        r#"{"mode":"delay"}"#,
        r#"{"mode":"down","delay_ms":1}"#,
        r#"{"mode":"down","step":"lunch"}"#,
        r#"{"step":"create"}"#,
    ] {
        let answer = reqwest::Client::new().post(&url).body(fault).send().await.expect("answer");
        assert_eq!(answer.status(), 400, "{fault}");
    }
    assert!(sandbox.faults().faults.is_empty());
}

#[tokio::test]
async fn one_orders_faults_are_cleared_over_http() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    paid(&client, "pm_card_visa").await;
    for order in ["7", "8"] {
        sandbox.add_fault(Fault::new(Mode::ResetAfter).only(("order_id", order)));
    }
    let url = format!("{}/_sandbox/faults/7", sandbox.url());
    let report: Value =
        reqwest::Client::new().delete(url).send().await.expect("cleared").json().await.expect("JSON");
    let faults = serde_json::json!([{ "step": null, "mode": "reset_after", "times": null, "percent": null,
        "metadata": ["order_id", "8"], "delay_ms": null }]);
    assert_eq!(report["faults"], faults);
}
