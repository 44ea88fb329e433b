//! What happened, as Stripe tells it: an Event holds the object as it was at that moment.

use serde_json::{Value, json};

use super::books::{new_id, now};
use super::shapes::API_VERSION;

/// Something a shop may want to hear of.
#[derive(Debug)]
pub(super) struct Happening {
    /// `payment_intent.succeeded`
    pub(super) kind: &'static str,
    pub(super) object: Value,
}

/// The request that it came of. Nothing for what a customer, a bank or an operator did.
#[derive(Debug, Default)]
pub(super) struct Cause {
    /// `req_…`
    pub(super) request: Option<String>,
    pub(super) idempotency_key: Option<String>,
}

/// The Event, as it is sent and listed.
pub(super) fn event(happening: Happening, cause: &Cause, pending_webhooks: usize) -> Value {
    json!({
        "id": new_id("evt"),
        "object": "event",
        "account": null,
        "api_version": API_VERSION,
        "context": null,
        "created": now(),
        "data": { "object": happening.object },
        "livemode": false,
        "pending_webhooks": pending_webhooks,
        "request": { "id": cause.request, "idempotency_key": cause.idempotency_key },
        "type": happening.kind,
    })
}
