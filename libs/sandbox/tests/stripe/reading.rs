//! Lists, searches, expansions, and who may read.

use std::collections::HashMap;

use serde_json::Value;
use stripe::{ApiErrorsCode, ClientBuilder, StripeRequest};
use stripe_core::PaymentIntent;
use stripe_core::charge::{ListCharge, RetrieveCharge};
use stripe_core::payment_intent::{
    CapturePaymentIntent, CreatePaymentIntent, ListPaymentIntent, RetrievePaymentIntent, SearchPaymentIntent,
    UpdatePaymentIntent,
};
use stripe_core::refund::{CreateRefund, ListRefund};
use stripe_types::Currency;

use crate::support::{authorize, authorize_for, client, get, get_json, once, paid, post, refused, sandbox};

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
async fn intents_are_found_by_their_metadata_page_by_page() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let mut made = Vec::new();
    for order in ["7", "8", "7", "7"] {
        let id = authorize_for(order, "pm_card_visa").send(&client).await.expect("authorised").id;
        if order == "7" {
            made.insert(0, id);
        }
    }
    let search = |page: Option<String>| {
        let search = SearchPaymentIntent::new("metadata['order_id']:'7'").limit(2);
        match page {
            Some(page) => search.page(page),
            None => search,
        }
    };
    let first = search(None).send(&client).await.expect("page");
    assert!(first.has_more);
    let rest = search(first.next_page.clone()).send(&client).await.expect("page");
    assert_eq!((rest.has_more, &rest.next_page), (false, &None));
    let found: Vec<_> = first.data.iter().chain(&rest.data).map(|intent| intent.id.clone()).collect();
    assert_eq!(found, made);

    let both = SearchPaymentIntent::new("metadata['order_id']:'7' AND metadata['x']:'y'").send(&client).await;
    assert!(both.expect("page").data.is_empty());
    refused(SearchPaymentIntent::new("status:'succeeded'").send(&client).await, 400);
}

#[tokio::test]
async fn a_charge_comes_with_its_intent_when_asked_for() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let latest_charge = || vec!["latest_charge".to_owned()];
    let charge = |intent: &PaymentIntent| {
        let charge = intent.latest_charge.as_ref().expect("a charge").as_object().expect("expanded");
        (charge.paid, charge.captured, charge.amount_captured)
    };
    let intent = authorize("pm_card_visa").expand(latest_charge()).send(&client).await.expect("authorised");
    assert_eq!(charge(&intent), (true, false, 0));
    let captured = CapturePaymentIntent::new(intent.id.clone()).expand(latest_charge());
    assert_eq!(charge(&captured.send(&client).await.expect("captured")), (true, true, 1999));
    let read = RetrievePaymentIntent::new(intent.id.clone()).expand(latest_charge());
    assert_eq!(charge(&read.send(&client).await.expect("read")), (true, true, 1999));

    let of_each = vec!["data.latest_charge".to_owned()];
    let list = ListPaymentIntent::new().expand(of_each.clone()).send(&client).await.expect("list");
    assert_eq!(charge(&list.data[0]), (true, true, 1999));
    let found = SearchPaymentIntent::new("metadata['order_id']:'7'").expand(of_each).send(&client).await;
    assert_eq!(charge(&found.expect("found").data[0]), (true, true, 1999));

    let url = format!("{}/v1/payment_intents/{}", sandbox.url(), intent.id);
    let deep = get_json(format!("{url}?expand[]=latest_charge.payment_intent&expand[]=payment_method")).await;
    assert_eq!(deep["latest_charge"]["payment_intent"]["id"], intent.id.as_str());
    assert_eq!(deep["payment_method"]["card"]["last4"], "4242");
}

#[tokio::test]
async fn nothing_is_done_for_an_expansion_that_does_not_exist() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let create = |expand: &str| {
        let create = authorize("pm_card_visa").expand(vec![expand.to_owned()]);
        create.customize().request_strategy(once("k")).send(&client)
    };
    for path in ["nonsense", "amount", "data.latest_charge", "latest_charge.nonsense", "data"] {
        refused(create(path).await, 400);
    }
    assert!(sandbox.ledger().is_empty() && sandbox.events().is_empty());
    refused(ListPaymentIntent::new().expand(vec!["latest_charge".into()]).send(&client).await, 400);
    create("latest_charge").await.expect("authorised");
}

#[tokio::test]
async fn charges_and_refunds_are_read_and_listed_by_their_intent() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let refused_once = refused(authorize("pm_card_chargeDeclined").send(&client).await, 402);
    let id = refused_once.payment_intent.expect("the intent").id.to_string();
    let form = [("payment_method", "pm_card_visa")];
    let confirmed = post(format!("{}/v1/payment_intents/{id}/confirm", sandbox.url()), &form).await;
    assert_eq!(confirmed.0, 200, "{confirmed:?}");
    CapturePaymentIntent::new(id.as_str()).send(&client).await.expect("captured");
    CreateRefund::new().payment_intent(id.as_str()).amount(9).send(&client).await.expect("refunded");
    paid(&client, "pm_card_visa").await;

    let charges = ListCharge::new().payment_intent(id.as_str()).send(&client).await.expect("list").data;
    let shown: Vec<_> = charges
        .iter()
        .map(|charge| (charge.status.as_str().to_owned(), charge.amount_captured, charge.amount_refunded))
        .collect();
    assert_eq!(shown, [("succeeded".to_owned(), 1999, 9), ("failed".to_owned(), 0, 0)]);
    assert_eq!(charges[1].failure_code.as_deref(), Some("card_declined"));
    assert_eq!(charges[0].metadata["order_id"], "7");

    let charge = RetrieveCharge::new(charges[0].id.clone()).send(&client).await.expect("read");
    assert_eq!(charge.payment_intent.expect("intent").id().as_str(), id);
    let refunds = ListRefund::new().payment_intent(id.as_str()).send(&client).await.expect("list").data;
    assert_eq!(refunds.iter().map(|refund| refund.amount).collect::<Vec<_>>(), [9]);
    refused(RetrieveCharge::new("ch_nobody").send(&client).await, 404);
}

#[tokio::test]
async fn metadata_is_merged_and_taken_away() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = authorize("pm_card_visa").send(&client).await.expect("authorised").id;
    let change = HashMap::from([("payment_id".to_owned(), "p".to_owned())]);
    let update = UpdatePaymentIntent::new(id.clone()).metadata(change).description("Two seats");
    let intent = update.send(&client).await.expect("updated");
    assert_eq!((intent.metadata.len(), intent.description.as_deref()), (2, Some("Two seats")));

    let url = format!("{}/v1/payment_intents/{id}", sandbox.url());
    let (_, intent) = post(url.clone(), &[("metadata[order_id]", "")]).await;
    assert_eq!(intent["metadata"], serde_json::json!({ "payment_id": "p" }));
    let (status, error) = post(url, &[("amount", "1")]).await;
    assert_eq!((status, &error["error"]["code"]), (400, &"parameter_unknown".into()));
}

#[tokio::test]
async fn a_page_reads_the_intent_whose_client_secret_it_has_and_nothing_else() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let intent = authorize("pm_card_visa").send(&client).await.expect("authorised");
    let secret = intent.client_secret.expect("client secret");
    let url = |path: &str, secret: &str| {
        format!("{}/v1/{path}?key=pk_test_page&client_secret={secret}", sandbox.url())
    };
    let one = format!("payment_intents/{}", intent.id);

    let answer = reqwest::get(url(&one, &secret)).await.expect("answer");
    assert_eq!(answer.headers()["access-control-allow-origin"], "*");
    let seen: Value = answer.json().await.expect("JSON");
    assert_eq!(seen["status"], "requires_capture");
    assert_eq!(seen.get("metadata"), None);

    assert_eq!(reqwest::get(url(&one, "guessed")).await.expect("answer").status(), 404);
    assert_eq!(reqwest::get(url("payment_intents", &secret)).await.expect("answer").status(), 401);
    let capture = reqwest::Client::new().post(url(&format!("{one}/capture"), &secret));
    assert_eq!(capture.send().await.expect("answer").status(), 401);
}

/// Every field of the client's own types, which are made from Stripe's reference; `refunds` of a charge is left out
/// unless it is expanded, on Stripe as well.
#[tokio::test]
async fn objects_have_the_fields_of_the_reference() {
    let sandbox = sandbox().await;
    let client = client(&sandbox);
    let id = paid(&client, "pm_card_visa").await;
    CreateRefund::new().payment_intent(id.as_str()).amount(1).send(&client).await.expect("refunded");
    sandbox.dispute(&id).expect("disputed");
    let url = format!("{}/v1/payment_intents/{id}", sandbox.url());
    let expand = "expand[]=latest_charge.refunds&expand[]=payment_method";
    let intent = get_json(format!("{url}?{expand}")).await;
    let refund = &get_json(format!("{}/v1/refunds", sandbox.url())).await["data"][0];
    let dispute = &get_json(format!("{}/v1/disputes", sandbox.url())).await["data"][0];
    let events = sandbox.events();
    let charge = &intent["latest_charge"];
    assert_eq!(charge["refunds"]["data"][0], *refund);

    let card = "brand checks country display_brand exp_month exp_year fingerprint funding generated_from \
        last4 networks regulated_status three_d_secure_usage wallet";
    let details_card = "amount_authorized authorization_code brand capture_before checks country \
        electronic_commerce_indicator exp_month exp_year extended_authorization fingerprint funding \
        incremental_authorization installments last4 mandate moto multicapture network network_token \
        network_transaction_id overcapture regulated_status three_d_secure transaction_link_id wallet";
    for (object, fields) in [
        (&intent, INTENT),
        (charge, CHARGE),
        (refund, REFUND),
        (dispute, DISPUTE),
        (&events[0], EVENT),
        (&intent["payment_method"], PAYMENT_METHOD),
        (&intent["payment_method"]["card"], card),
        (&charge["payment_method_details"]["card"], details_card),
    ] {
        for field in fields.split_whitespace() {
            assert!(object.get(field).is_some(), "{field} of {object:#}");
        }
    }
}

const INTENT: &str = "allowed_payment_method_types amount amount_capturable amount_details amount_received application \
    application_fee_amount automatic_payment_methods canceled_at cancellation_reason capture_method \
    client_secret confirmation_method created currency customer customer_account description \
    excluded_payment_method_types hooks id last_payment_error latest_charge livemode managed_payments \
    metadata next_action on_behalf_of payment_details payment_method \
    payment_method_configuration_details payment_method_options payment_method_types payment_record \
    presentment_details processing receipt_email review setup_future_usage shipping source \
    statement_descriptor statement_descriptor_suffix status transfer_data transfer_group";

const CHARGE: &str = "amount amount_captured amount_refunded application application_fee application_fee_amount \
    authorization_code balance_transaction billing_details calculated_statement_descriptor captured \
    created currency customer description disputed failure_balance_transaction failure_code \
    failure_message fraud_details id level3 livemode metadata on_behalf_of outcome paid payment_intent \
    payment_method payment_method_details presentment_details radar_options receipt_email receipt_number \
    receipt_url refunded refunds review shipping source source_transfer statement_descriptor \
    statement_descriptor_suffix status transfer transfer_data transfer_group";

const REFUND: &str = "amount balance_transaction charge created currency customer customer_account description \
    destination_details failure_balance_transaction failure_reason id instructions_email metadata \
    next_action payment_intent payment_method pending_reason presentment_details reason receipt_number \
    source_transfer_reversal status transfer_reversal";

const DISPUTE: &str = "amount balance_transactions charge created currency enhanced_eligibility_types evidence \
    evidence_details id is_charge_refundable livemode metadata network_reason_code payment_intent \
    payment_method_details reason status";

const EVENT: &str = "account api_version context created data id livemode pending_webhooks request type";

const PAYMENT_METHOD: &str = "allow_redisplay billing_details card created customer customer_account id livemode metadata \
    radar_options type";
