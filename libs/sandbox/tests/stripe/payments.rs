//! Authorised, captured, cancelled, declined.

use sandbox::stripe::Status;
use stripe::{ApiErrorsCode, ApiErrorsType};
use stripe_core::PaymentIntentStatus;
use stripe_core::payment_intent::{
    CancelPaymentIntent, CapturePaymentIntent, ConfirmPaymentIntent, CreatePaymentIntent,
};
use stripe_payment::payment_method::{
    CreatePaymentMethod, CreatePaymentMethodCard, CreatePaymentMethodTokenParams, CreatePaymentMethodType,
};
use stripe_types::Currency;

use crate::support::{authorize, client, of_card, only, post, refused, sandbox};

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
    assert!(sandbox.ledger().is_empty() && sandbox.events().is_empty());
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
async fn a_confirmation_without_a_card_leaves_an_intent_that_takes_one() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let error = refused(of_card(500).confirm(true).send(&client).await, 400);
    assert_eq!(error.code, Some(ApiErrorsCode::PaymentIntentUnexpectedState));
    let id = error.payment_intent.expect("the intent").id;
    let paid = ConfirmPaymentIntent::new(id).payment_method("pm_card_visa").send(&client).await;
    assert_eq!(paid.expect("paid").status, PaymentIntentStatus::Succeeded);
    assert_eq!(only(sandbox.ledger()).captures, 1);
}
