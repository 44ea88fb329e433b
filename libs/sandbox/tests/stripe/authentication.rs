//! 3-D Secure: asked for, passed, failed, and too much for a shop that cannot handle it.

use sandbox::stripe::{Authentication, OperatorError, Status, StripeSandbox};
use serde_json::Value;
use stripe::{ApiErrorsCode, ApiErrorsType, Client};
use stripe_core::payment_intent::{CancelPaymentIntent, ConfirmPaymentIntent, RetrievePaymentIntent};
use stripe_core::{PaymentIntent, PaymentIntentCaptureMethod, PaymentIntentStatus};

use crate::support::{authorize, client, get, get_json, of_card, only, post, refused, sandbox};

async fn asked(client: &Client, card: &str) -> PaymentIntent {
    let intent = authorize(card).send(client).await.expect("asked");
    assert_eq!(intent.status, PaymentIntentStatus::RequiresAction, "{card}");
    intent
}

async fn read(client: &Client, id: &str) -> PaymentIntent {
    RetrievePaymentIntent::new(id).send(client).await.expect("read")
}

#[tokio::test]
async fn a_customer_who_authenticates_is_authorised() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    for card in ["pm_card_authenticationRequired", "pm_card_threeDSecure2Required"] {
        let intent = asked(&client, card).await;
        assert!(intent.latest_charge.is_none() && intent.payment_method.is_some());
        let action = intent.next_action.expect("what to do next");
        assert_eq!(action.type_, "use_stripe_sdk");

        let status = sandbox.authenticate(intent.id.as_str(), Authentication::Succeeds).expect("settled");
        assert_eq!(status, Status::RequiresCapture);
        let intent = read(&client, intent.id.as_str()).await;
        assert_eq!((intent.status, intent.amount_capturable), (PaymentIntentStatus::RequiresCapture, 1999));
        assert!(intent.next_action.is_none() && intent.latest_charge.is_some());
    }
    let taken = of_card(500).confirm(true).payment_method("pm_card_threeDSecure2Required");
    let id = taken.send(&client).await.expect("asked").id.to_string();
    assert_eq!(sandbox.authenticate(&id, Authentication::Succeeds).expect("settled"), Status::Succeeded);
    let path = format!("{}/v1/payment_intents/{id}?expand[]=latest_charge", sandbox.url());
    let card = &get_json(path).await["latest_charge"]["payment_method_details"]["card"];
    assert_eq!(card["three_d_secure"]["result"], "authenticated");
}

#[tokio::test]
async fn a_customer_who_fails_to_authenticate_may_try_another_card() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = asked(&client, "pm_card_authenticationRequired").await.id.to_string();
    let status = sandbox.authenticate(&id, Authentication::Fails).expect("settled");
    assert_eq!(status, Status::RequiresPaymentMethod);
    let intent = read(&client, &id).await;
    let error = intent.last_payment_error.expect("why");
    assert_eq!(error.code, Some(ApiErrorsCode::PaymentIntentAuthenticationFailure));
    let entry = only(sandbox.ledger());
    assert_eq!((entry.authorizations, entry.declines), (0, 1));

    let intent = ConfirmPaymentIntent::new(id).payment_method("pm_card_visa").send(&client).await;
    assert_eq!(intent.expect("authorised").status, PaymentIntentStatus::RequiresCapture);
}

#[tokio::test]
async fn a_card_may_be_declined_after_its_customer_authenticated() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let card = "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds";
    let id = asked(&client, card).await.id.to_string();
    let status = sandbox.authenticate(&id, Authentication::Succeeds).expect("settled");
    assert_eq!(status, Status::RequiresPaymentMethod);
    let error = read(&client, &id).await.last_payment_error.expect("why");
    assert_eq!(error.decline_code.as_deref(), Some("insufficient_funds"));
    assert!(error.charge.is_some());
}

#[tokio::test]
async fn a_shop_that_handles_no_actions_gets_a_decline() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let pay = authorize("pm_card_authenticationRequired").error_on_requires_action(true);
    let error = refused(pay.send(&client).await, 402);
    assert_eq!(error.type_, ApiErrorsType::CardError);
    assert_eq!(error.code, Some(ApiErrorsCode::AuthenticationRequired));
    assert_eq!(error.decline_code.as_deref(), Some("authentication_not_handled"));
    let intent = error.payment_intent.expect("the intent");
    assert_eq!(intent.status, PaymentIntentStatus::RequiresPaymentMethod);
    authorize("pm_card_visa").error_on_requires_action(true).send(&client).await.expect("authorised");
}

#[tokio::test]
async fn what_waits_for_its_customer_can_be_cancelled_and_is_settled_once() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = asked(&client, "pm_card_authenticationRequired").await.id;
    let intent = CancelPaymentIntent::new(id.clone()).send(&client).await.expect("cancelled");
    assert_eq!(intent.status, PaymentIntentStatus::Canceled);
    assert!(intent.next_action.is_none());
    let late = sandbox.authenticate(id.as_str(), Authentication::Succeeds);
    assert!(matches!(late, Err(OperatorError::Unfit { .. })));
    let nobody = sandbox.authenticate("pi_nobody", Authentication::Fails);
    assert!(matches!(nobody, Err(OperatorError::NoSuch { .. })));
}

async fn decide(sandbox: &StripeSandbox, id: &str, outcome: &str) -> reqwest::Response {
    let url = format!("{}/_sandbox/payment_intents/{id}/authenticate", sandbox.url());
    let request = reqwest::Client::new().post(url).json(&serde_json::json!({ "outcome": outcome }));
    request.send().await.expect("answer")
}

#[tokio::test]
async fn the_banks_page_is_where_the_next_action_leads_and_any_origin_may_decide() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = asked(&client, "pm_card_authenticationRequired").await.id.to_string();
    let intent = get_json(format!("{}/v1/payment_intents/{id}", sandbox.url())).await;
    let page = intent["next_action"]["use_stripe_sdk"]["stripe_js"].as_str().expect("a page").to_owned();
    let answer = get(page.clone()).await;
    assert!(answer.headers()["content-type"].to_str().expect("text").starts_with("text/html"));
    let html = answer.text().await.expect("text");
    assert!(html.contains("Complete authentication") && html.contains("Fail authentication"), "{html}");
    assert!(html.contains("19.99") && html.contains(&id), "{html}");

    let preflight =
        reqwest::Client::new().request(reqwest::Method::OPTIONS, &page).send().await.expect("answer");
    assert_eq!(preflight.headers()["access-control-allow-headers"], "content-type");
    assert_eq!(decide(&sandbox, &id, "perhaps").await.status(), 400);
    let answer = decide(&sandbox, &id, "succeeds").await;
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    let settled: Value = answer.json().await.expect("JSON");
    assert_eq!(settled, serde_json::json!({ "id": id, "status": "requires_capture", "return_url": null }));
    assert_eq!(decide(&sandbox, &id, "succeeds").await.status(), 409);
    assert_eq!(get(page.replace(&id, "pi_nobody")).await.status(), 404);
}

#[tokio::test]
async fn a_shop_that_redirects_gets_its_customer_back() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let intent = authorize("pm_card_authenticationRequired").return_url("https://shop.example/paid?order=7");
    let intent =
        intent.capture_method(PaymentIntentCaptureMethod::Manual).send(&client).await.expect("asked");
    let redirect = intent.next_action.expect("what to do next").redirect_to_url.expect("a redirect");
    assert!(redirect.url.expect("page").ends_with("/authenticate"));

    let settled: Value = decide(&sandbox, intent.id.as_str(), "fails").await.json().await.expect("JSON");
    let back = settled["return_url"].as_str().expect("the way back");
    let start = format!("https://shop.example/paid?order=7&payment_intent={}", intent.id);
    assert!(back.starts_with(&start) && back.ends_with("&redirect_status=failed"), "{back}");
}

#[tokio::test]
async fn a_legacy_token_asks_as_its_payment_method_does() {
    let sandbox = sandbox().await;
    let form = [
        ("amount", "1"),
        ("currency", "usd"),
        ("confirm", "true"),
        ("payment_method_types[]", "card"),
        ("payment_method_data[type]", "card"),
        ("payment_method_data[card][token]", "tok_threeDSecure2Required"),
    ];
    let (status, intent) = post(format!("{}/v1/payment_intents", sandbox.url()), &form).await;
    assert_eq!((status, &intent["status"]), (200, &"requires_action".into()), "{intent}");
}
