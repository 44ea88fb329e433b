//! `/_sandbox/…`: what no Stripe has, for tests, operators and the customer's bank.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use warp::http::{Method, Response, StatusCode};

use super::OperatorError;
use super::authentication::{self, Authentication};
use super::faults::Fault;
use super::server::{Shared, allow_any_origin, json_response};
use super::webhooks::WebhookEndpoint;

/// `path` is what follows `/_sandbox/`.
pub(super) fn control(method: &Method, path: &str, body: &[u8], shared: &Arc<Shared>) -> Response<String> {
    let segments: Vec<&str> = path.split('/').collect();
    match (method.as_str(), segments.as_slice()) {
        ("GET", ["ledger"]) => ok(&shared.ledger()),

        ("GET", ["faults"]) => ok(&shared.faults.report()),
        ("POST", ["faults"]) => with(body, |fault: Fault| match fault.check() {
            Ok(()) => {
                shared.faults.add(fault);
                ok(&shared.faults.report())
            }
            Err(wrong) => failed(StatusCode::BAD_REQUEST, wrong),
        }),
        ("DELETE", ["faults"]) => {
            shared.faults.clear();
            ok(&shared.faults.report())
        }
        ("DELETE", ["faults", value]) => {
            shared.faults.clear_of(value);
            ok(&shared.faults.report())
        }

        ("GET", ["webhook_endpoints"]) => ok(&shared.webhooks.endpoints()),
        ("POST", ["webhook_endpoints"]) => with(body, |endpoint: WebhookEndpoint| {
            shared.webhooks.add(endpoint);
            ok(&shared.webhooks.endpoints())
        }),
        ("DELETE", ["webhook_endpoints"]) => {
            shared.webhooks.clear();
            ok(&shared.webhooks.endpoints())
        }
        ("GET", ["deliveries"]) => ok(&shared.webhooks.report()),
        ("GET", ["events"]) => ok(&shared.webhooks.events()),
        ("POST", ["events", id, "resend"]) => {
            settled(shared.webhooks.resend(id).map(|()| ok(&shared.webhooks.report())))
        }

        ("DELETE", ["idempotency_keys"]) => {
            shared.forget_keys();
            ok(&json!({}))
        }
        ("POST", ["payment_intents", id, "dispute"]) => {
            settled(shared.dispute(id).map(|dispute| ok(&json!({ "id": dispute }))))
        }
        ("GET", ["payment_intents", id, "authenticate"]) => settled(shared.intent(id).map(|intent| {
            let mut response = Response::new(authentication::page(&intent));
            let html = "text/html; charset=utf-8".parse().expect("plain text");
            response.headers_mut().insert("content-type", html);
            response
        })),
        // A shop's page calls these, from its own origin.
        ("POST", ["payment_intents", id, "authenticate"]) => {
            allow_any_origin(with(body, |Decision { outcome }| {
                settled(shared.authenticate(id, outcome).map(|settled| ok(&settled)))
            }))
        }
        ("OPTIONS", ["payment_intents", _, "authenticate"]) => allow_any_origin(ok(&json!({}))),

        _ => failed(StatusCode::NOT_FOUND, "The sandbox has no such page."),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    outcome: Authentication,
}

fn ok(body: &impl serde::Serialize) -> Response<String> {
    json_response(StatusCode::OK, body)
}

fn failed(status: StatusCode, message: &str) -> Response<String> {
    json_response(status, &json!({ "error": { "message": message } }))
}

fn with<T: DeserializeOwned>(body: &[u8], then: impl FnOnce(T) -> Response<String>) -> Response<String> {
    match serde_json::from_slice(body) {
        Ok(parsed) => then(parsed),
        Err(error) => failed(StatusCode::BAD_REQUEST, &error.to_string()),
    }
}

fn settled(result: Result<Response<String>, OperatorError>) -> Response<String> {
    result.unwrap_or_else(|error| {
        let status = match error {
            OperatorError::NoSuch { .. } => StatusCode::NOT_FOUND,
            OperatorError::Unfit { .. } => StatusCode::CONFLICT,
        };
        failed(status, &error.to_string())
    })
}
