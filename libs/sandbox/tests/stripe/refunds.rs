//! Money that goes back: refunds and disputes.

use sandbox::stripe::{OperatorError, Status};
use stripe::ApiErrorsCode;
use stripe_core::charge::RetrieveCharge;
use stripe_core::dispute::{ListDispute, RetrieveDispute};
use stripe_core::payment_intent::{CancelPaymentIntent, CapturePaymentIntent, RetrievePaymentIntent};
use stripe_core::refund::{CreateRefund, RetrieveRefund};

use crate::support::{authorize, client, only, paid, post, refused, sandbox};

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
async fn more_than_is_left_is_refused_in_stripes_words() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = paid(&client, "pm_card_visa").await;
    CreateRefund::new().payment_intent(id.as_str()).amount(300).send(&client).await.expect("refunded");
    let error = refused(CreateRefund::new().payment_intent(id.as_str()).amount(201).send(&client).await, 400);
    let message = "Refund amount ($2.01) is greater than unrefunded amount on charge ($2.00)";
    assert_eq!((error.message.as_deref(), error.param.as_deref()), (Some(message), Some("amount")));
    assert_eq!(only(sandbox.ledger()).amount_refunded, 300);
}

#[tokio::test]
async fn a_refund_may_fail_after_it_succeeded() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = paid(&client, "pm_card_refundFail").await;
    let refund = CreateRefund::new().payment_intent(id.as_str()).send(&client).await.expect("refunded");
    assert_eq!(refund.status.as_deref(), Some("succeeded"));
    let refund = RetrieveRefund::new(refund.id).send(&client).await.expect("read");
    assert_eq!(refund.status.as_deref(), Some("failed"));
    assert!(refund.failure_reason.is_some());
    let entry = only(sandbox.ledger());
    assert_eq!((entry.amount_captured, entry.amount_refunded, entry.refunds), (500, 0, 0));
}

#[tokio::test]
async fn a_released_authorisation_reads_as_refunded_without_a_capture() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let intent = authorize("pm_card_visa").send(&client).await.expect("authorised");
    CancelPaymentIntent::new(intent.id).send(&client).await.expect("cancelled");
    let charge = RetrieveCharge::new(intent.latest_charge.expect("charge").id().clone());
    let charge = charge.send(&client).await.expect("read");
    assert_eq!((charge.captured, charge.refunded, charge.amount_refunded), (false, true, 1999));
    let entry = only(sandbox.ledger());
    assert_eq!((entry.status, entry.amount_refunded, entry.refunds), (Status::Canceled, 0, 0));
}

#[tokio::test]
async fn a_disputed_charge_cannot_be_refunded() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = authorize("pm_card_createDispute").send(&client).await.expect("authorised").id.to_string();
    assert!(!only(sandbox.ledger()).disputed);
    CapturePaymentIntent::new(id.as_str()).send(&client).await.expect("captured");
    assert!(only(sandbox.ledger()).disputed);

    let error = refused(CreateRefund::new().payment_intent(id.as_str()).send(&client).await, 400);
    assert_eq!(error.code, Some(ApiErrorsCode::ChargeDisputed));
    let disputes = ListDispute::new().payment_intent(id.as_str()).send(&client).await.expect("list").data;
    let dispute = RetrieveDispute::new(disputes[0].id.clone()).send(&client).await.expect("read");
    assert_eq!((dispute.amount, dispute.reason.as_str()), (1999, "fraudulent"));
    assert_eq!(dispute.status.as_str(), "needs_response");
}

#[tokio::test]
async fn an_operator_makes_a_cardholder_dispute() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = paid(&client, "pm_card_visa").await;
    let url = format!("{}/_sandbox/payment_intents/{id}/dispute", sandbox.url());
    let (status, dispute) = post(url.clone(), &[]).await;
    assert_eq!(status, 200, "{dispute}");
    assert!(dispute["id"].as_str().is_some_and(|id| id.starts_with("dp_")), "{dispute}");
    assert_eq!(post(url, &[]).await.0, 409);
    assert!(matches!(sandbox.dispute("pi_nobody"), Err(OperatorError::NoSuch { .. })));

    let intent = authorize("pm_card_visa").send(&client).await.expect("authorised");
    assert!(matches!(sandbox.dispute(intent.id.as_str()), Err(OperatorError::Unfit { .. })));
    let intent = RetrievePaymentIntent::new(id.as_str()).expand(vec!["latest_charge".into()]);
    let intent = intent.send(&client).await.expect("read");
    assert!(intent.latest_charge.expect("charge").as_object().expect("expanded").disputed);
}
