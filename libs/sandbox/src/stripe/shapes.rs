//! Rows in the shapes of Stripe's API reference: every field of it, null where it does not apply.

use serde_json::{Value, json};

use super::books::{Books, Charge, Dispute, Intent, PaymentMethod, Refund, Status};
use super::cards::Card;

/// The version of Stripe's API whose shapes these are.
pub(super) const API_VERSION: &str = "2026-09-30.endive";

/// What a page sees of a PaymentIntent with nothing but its client secret.
const SEEN_BY_CUSTOMER: [&str; 23] = [
    "id",
    "object",
    "amount",
    "amount_details",
    "automatic_payment_methods",
    "canceled_at",
    "cancellation_reason",
    "capture_method",
    "client_secret",
    "confirmation_method",
    "created",
    "currency",
    "description",
    "last_payment_error",
    "livemode",
    "next_action",
    "payment_method",
    "payment_method_configuration_details",
    "payment_method_types",
    "processing",
    "receipt_email",
    "shipping",
    "status",
];

/// Fields that exist on Stripe and never apply here.
fn with_nulls(mut object: Value, names: &[&str]) -> Value {
    for name in names {
        object[name] = Value::Null;
    }
    object
}

pub(super) fn intent(books: &Books, intent: &Intent) -> Value {
    let capturable = if intent.status == Status::RequiresCapture { intent.amount } else { 0 };
    let object = json!({
        "id": intent.id,
        "object": "payment_intent",
        "amount": intent.amount,
        "amount_capturable": capturable,
        "amount_details": { "tip": {} },
        "amount_received": intent.amount_captured,
        "automatic_payment_methods": intent
            .automatic_payment_methods
            .map(|allow| json!({ "enabled": true, "allow_redirects": allow })),
        "canceled_at": intent.canceled_at,
        "cancellation_reason": intent.cancellation_reason,
        "capture_method": intent.capture_method,
        "client_secret": intent.client_secret,
        "confirmation_method": "automatic",
        "created": intent.created,
        "currency": intent.currency,
        "description": intent.description,
        "last_payment_error": intent.last_payment_error,
        "latest_charge": intent.latest_charge,
        "livemode": false,
        "metadata": intent.metadata,
        "next_action": next_action(books, intent),
        "payment_method": intent.payment_method,
        "payment_method_options": {
            "card": {
                "installments": null,
                "mandate_options": null,
                "network": null,
                "request_three_d_secure": "automatic",
            },
        },
        "payment_method_types": intent.payment_method_types,
        "status": intent.status,
    });
    with_nulls(
        object,
        &[
            "allowed_payment_method_types",
            "application",
            "application_fee_amount",
            "customer",
            "customer_account",
            "excluded_payment_method_types",
            "hooks",
            "managed_payments",
            "on_behalf_of",
            "payment_details",
            "payment_method_configuration_details",
            "payment_record",
            "presentment_details",
            "processing",
            "receipt_email",
            "review",
            "setup_future_usage",
            "shipping",
            "source",
            "statement_descriptor",
            "statement_descriptor_suffix",
            "transfer_data",
            "transfer_group",
        ],
    )
}

/// Where the customer goes, or what Stripe.js opens over the shop's page.
fn next_action(books: &Books, intent: &Intent) -> Value {
    let Some(action) = &intent.action else { return Value::Null };
    let url = format!("{}/_sandbox/payment_intents/{}/authenticate", books.base, intent.id);
    match &action.return_url {
        Some(return_url) => json!({
            "type": "redirect_to_url",
            "redirect_to_url": { "return_url": return_url, "url": url },
        }),
        None => json!({
            "type": "use_stripe_sdk",
            "use_stripe_sdk": {
                "type": "three_d_secure_redirect",
                "known_frame_issues": "false",
                "source": action.source,
                "stripe_js": url,
            },
        }),
    }
}

/// The part that a customer may see.
pub(super) fn for_customer(intent: Value) -> Value {
    let Value::Object(mut fields) = intent else { return intent };
    fields.retain(|name, _| SEEN_BY_CUSTOMER.contains(&name.as_str()));
    Value::Object(fields)
}

pub(super) fn payment_method(method: &PaymentMethod) -> Value {
    json!({
        "id": method.id,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": billing_details(),
        "card": card(method.card()),
        "created": method.created,
        "customer": null,
        "customer_account": null,
        "livemode": false,
        "metadata": method.metadata,
        "radar_options": {},
        "type": "card",
    })
}

fn billing_details() -> Value {
    let address = json!({ "city": null, "country": null, "line1": null, "line2": null, "postal_code": null, "state": null });
    json!({ "address": address, "email": null, "name": null, "phone": null, "tax_id": null })
}

fn checks(cvc: &str) -> Value {
    json!({ "address_line1_check": null, "address_postal_code_check": null, "cvc_check": cvc })
}

fn card(card: &Card) -> Value {
    json!({
        "brand": card.brand,
        "checks": checks("unchecked"),
        "country": "US",
        "display_brand": card.brand,
        "exp_month": 12,
        "exp_year": 2040,
        "fingerprint": card.fingerprint(),
        "funding": card.funding(),
        "generated_from": null,
        "last4": card.last4(),
        "networks": { "available": [card.brand], "preferred": null },
        "regulated_status": "unregulated",
        "three_d_secure_usage": { "supported": true },
        "wallet": null,
    })
}

pub(super) fn charge(books: &Books, charge: &Charge) -> Value {
    let method = charge.payment_method.as_deref().and_then(|id| books.methods.get(id));
    let details =
        method.map(|method| json!({ "type": "card", "card": payment_method_details(charge, method.card()) }));
    let (status, failure) = match &charge.failure {
        Some(failure) => ("failed", failure),
        None => ("succeeded", &Value::Null),
    };
    let object = json!({
        "id": charge.id,
        "object": "charge",
        "amount": charge.amount,
        "amount_captured": charge.amount_captured,
        "amount_refunded": charge.amount_refunded,
        "billing_details": billing_details(),
        "calculated_statement_descriptor": "SANDBOX",
        "captured": charge.captured,
        "created": charge.created,
        "currency": charge.currency,
        "description": charge.description,
        "disputed": charge.disputed,
        "failure_code": failure["code"],
        "failure_message": failure["message"],
        "fraud_details": {},
        "livemode": false,
        "metadata": charge.metadata,
        "outcome": outcome(charge),
        "paid": charge.failure.is_none(),
        "payment_intent": charge.payment_intent,
        "payment_method": charge.payment_method,
        "payment_method_details": details,
        "radar_options": {},
        "refunded": charge.is_refunded(),
        "status": status,
    });
    with_nulls(
        object,
        &[
            "application",
            "application_fee",
            "application_fee_amount",
            "authorization_code",
            "balance_transaction",
            "customer",
            "failure_balance_transaction",
            "level3",
            "on_behalf_of",
            "presentment_details",
            "receipt_email",
            "receipt_number",
            "receipt_url",
            "review",
            "shipping",
            "source",
            "source_transfer",
            "statement_descriptor",
            "statement_descriptor_suffix",
            "transfer",
            "transfer_data",
            "transfer_group",
        ],
    )
}

fn outcome(charge: &Charge) -> Value {
    let (network_status, reason, message, kind) = match &charge.failure {
        None => ("approved_by_network", Value::Null, "Payment complete.", "authorized"),
        Some(failure) => {
            let reason = failure["decline_code"].clone();
            ("declined_by_network", reason, "The bank did not return any further details.", "issuer_declined")
        }
    };
    json!({
        "advice_code": null,
        "network_advice_code": null,
        "network_decline_code": null,
        "network_status": network_status,
        "reason": reason,
        "risk_level": "normal",
        "risk_score": 7,
        "seller_message": message,
        "type": kind,
    })
}

fn payment_method_details(charge: &Charge, card: &Card) -> Value {
    let three_d_secure = charge.authenticated.then(|| {
        json!({
            "authentication_flow": "challenge",
            "electronic_commerce_indicator": "05",
            "exemption_indicator": null,
            "exemption_indicator_applied": null,
            "result": "authenticated",
            "result_reason": null,
            "transaction_id": format!("{}_3ds", charge.id),
            "version": "2.2.0",
        })
    });
    let refused_cvc = charge.failure.as_ref().is_some_and(|failure| failure["code"] == "incorrect_cvc");
    json!({
        "amount_authorized": charge.failure.is_none().then_some(charge.amount),
        "authorization_code": null,
        "brand": card.brand,
        "capture_before": null,
        "checks": checks(if refused_cvc { "fail" } else { "pass" }),
        "country": "US",
        "electronic_commerce_indicator": charge.authenticated.then_some("05"),
        "exp_month": 12,
        "exp_year": 2040,
        "extended_authorization": { "status": "disabled" },
        "fingerprint": card.fingerprint(),
        "funding": card.funding(),
        "incremental_authorization": { "status": "unavailable" },
        "installments": null,
        "last4": card.last4(),
        "mandate": null,
        "moto": null,
        "multicapture": { "status": "unavailable" },
        "network": card.brand,
        "network_token": { "used": false },
        "network_transaction_id": null,
        "overcapture": { "maximum_amount_capturable": charge.amount, "status": "unavailable" },
        "regulated_status": "unregulated",
        "three_d_secure": three_d_secure,
        "transaction_link_id": null,
        "wallet": null,
    })
}

pub(super) fn refund(refund: &Refund) -> Value {
    let object = json!({
        "id": refund.id,
        "object": "refund",
        "amount": refund.amount,
        "charge": refund.charge,
        "created": refund.created,
        "currency": refund.currency,
        "destination_details": {
            "type": "card",
            "card": { "reference": null, "reference_status": "pending", "reference_type": null, "type": "refund" },
        },
        "failure_reason": refund.failure_reason,
        "metadata": refund.metadata,
        "payment_intent": refund.payment_intent,
        "reason": refund.reason,
        "status": if refund.failure_reason.is_some() { "failed" } else { "succeeded" },
    });
    with_nulls(
        object,
        &[
            "balance_transaction",
            "customer",
            "customer_account",
            "description",
            "failure_balance_transaction",
            "instructions_email",
            "next_action",
            "payment_method",
            "pending_reason",
            "presentment_details",
            "receipt_number",
            "source_transfer_reversal",
            "transfer_reversal",
        ],
    )
}

pub(super) fn dispute(books: &Books, dispute: &Dispute) -> Value {
    /// What a bank gives a shop to answer.
    const ANSWER_WITHIN: i64 = 7 * 24 * 60 * 60;
    const EVIDENCE: [&str; 27] = [
        "access_activity_log",
        "billing_address",
        "cancellation_policy",
        "cancellation_policy_disclosure",
        "cancellation_rebuttal",
        "customer_communication",
        "customer_email_address",
        "customer_name",
        "customer_purchase_ip",
        "customer_signature",
        "duplicate_charge_documentation",
        "duplicate_charge_explanation",
        "duplicate_charge_id",
        "product_description",
        "receipt",
        "refund_policy",
        "refund_policy_disclosure",
        "refund_refusal_explanation",
        "service_date",
        "service_documentation",
        "shipping_address",
        "shipping_carrier",
        "shipping_date",
        "shipping_documentation",
        "shipping_tracking_number",
        "uncategorized_file",
        "uncategorized_text",
    ];
    let evidence = with_nulls(json!({ "enhanced_evidence": {} }), &EVIDENCE);
    let charge = books.charges.get(&dispute.charge);
    let method = charge.and_then(|charge| books.methods.get(charge.payment_method.as_deref()?));
    let details = method.map(|method| {
        let brand = method.card().brand;
        json!({
            "type": "card",
            "card": {
                "brand": brand,
                "case_type": "chargeback",
                "network": brand,
                "network_reason_code": "10.4",
            },
        })
    });
    json!({
        "id": dispute.id,
        "object": "dispute",
        "amount": dispute.amount,
        "balance_transactions": [],
        "charge": dispute.charge,
        "created": dispute.created,
        "currency": dispute.currency,
        "enhanced_eligibility_types": [],
        "evidence": evidence,
        "evidence_details": {
            "due_by": dispute.created + ANSWER_WITHIN,
            "enhanced_eligibility": {},
            "has_evidence": false,
            "past_due": false,
            "submission_count": 0,
        },
        "is_charge_refundable": false,
        "livemode": false,
        "metadata": {},
        "network_reason_code": "10.4",
        "payment_intent": dispute.payment_intent,
        "payment_method_details": details,
        "reason": "fraudulent",
        "status": "needs_response",
    })
}
