//! Answers other than success, in the shape Stripe gives them: `{"error": {"type", "code", "message", …}}`.

use serde_json::{Value, json};
use warp::http::StatusCode;

/// Why a request is not done.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    error: Value,
    /// Whether the endpoint had begun. If so its idempotency key answers the same from now on; if the request
    /// fell at validation, the key is still free.
    pub(super) executed: bool,
}

impl Refusal {
    fn new(status: StatusCode, kind: &str, message: impl Into<String>) -> Self {
        let error = json!({ "type": kind, "message": message.into() });
        Self { status, error, executed: false }
    }

    fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.error[field] = value.into();
        self
    }

    fn code(self, code: &str) -> Self {
        self.with("code", code).with("doc_url", format!("https://stripe.com/docs/error-codes/{code}"))
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// What is sent.
    pub(super) fn body(&self) -> Value {
        json!({ "error": self.error })
    }

    pub(super) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message)
    }

    pub(super) fn no_such_url(method: &str, path: &str) -> Self {
        let message = format!("Unrecognized request URL ({method}: {path}).");
        Self { status: StatusCode::NOT_FOUND, ..Self::bad_request(message) }
    }

    pub(super) fn missing(param: &str) -> Self {
        Self::bad_request(format!("Missing required param: {param}."))
            .code("parameter_missing")
            .with("param", param)
    }

    pub(super) fn not_an_integer(param: &str, value: &str) -> Self {
        Self::bad_request(format!("Invalid integer: {value}"))
            .code("parameter_invalid_integer")
            .with("param", param)
    }

    pub(super) fn too_small(param: &str, least: i64) -> Self {
        Self::bad_request(format!("This value must be greater than or equal to {least}."))
            .code("parameter_invalid_integer")
            .with("param", param)
    }

    pub(super) fn too_large(param: &str, message: impl Into<String>) -> Self {
        Self::bad_request(message).code("amount_too_large").with("param", param)
    }

    pub(super) fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::bad_request(message).with("param", param)
    }

    /// A parameter names what does not exist.
    pub(super) fn no_such(what: &str, id: &str, param: &str) -> Self {
        Self::bad_request(format!("No such {what}: '{id}'")).code("resource_missing").with("param", param)
    }

    /// The path names what does not exist.
    pub(super) fn not_found(what: &str, id: &str, param: &str) -> Self {
        Self { status: StatusCode::NOT_FOUND, ..Self::no_such(what, id, param) }
    }

    pub(super) fn unexpected_state(message: impl Into<String>, intent: Value) -> Self {
        let refusal =
            Self::bad_request(message).code("payment_intent_unexpected_state").with("payment_intent", intent);
        Self { executed: true, ..refusal }
    }

    pub(super) fn already_refunded(charge: &str) -> Self {
        let refusal = Self::bad_request(format!("Charge {charge} has already been refunded."))
            .code("charge_already_refunded");
        Self { executed: true, ..refusal }
    }

    /// `error` is the card error as the payment intent keeps it, too.
    pub(super) fn declined(error: Value) -> Self {
        Self { status: StatusCode::PAYMENT_REQUIRED, error, executed: true }
    }

    pub(super) fn other_parameters(key: &str) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "idempotency_error",
            format!(
                "Keys for idempotent requests can only be used with the same parameters they were first \
                 used with. Try using a key other than '{key}' if you meant to execute a different request."
            ),
        )
    }

    pub(super) fn key_in_use(key: &str) -> Self {
        let message =
            format!("There is currently another in-progress request using the Idempotency Key '{key}'.");
        Self { status: StatusCode::CONFLICT, ..Self::bad_request(message).code("idempotency_key_in_use") }
    }

    pub(super) fn key_too_long() -> Self {
        Self::bad_request("Idempotency keys can be up to 255 characters long.")
    }

    pub(super) fn failure(status: StatusCode, message: &str) -> Self {
        Self::new(status, "api_error", message)
    }
}
