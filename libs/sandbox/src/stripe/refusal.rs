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
        self.with("code", code).with("doc_url", doc_url(code))
    }

    fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request_error", message)
    }

    /// For every request that fails in a way that is nobody's fault: 500, 503.
    pub(super) fn failure(status: StatusCode, message: &str) -> Self {
        Self::new(status, "api_error", message)
    }

    pub(super) fn rate_limit() -> Self {
        let message = "Request rate limit exceeded. Learn more about rate limits here https://stripe.com/docs/rate-limits.";
        Self { status: StatusCode::TOO_MANY_REQUESTS, ..Self::bad_request(message).code("rate_limit") }
    }

    /// What is sent.
    pub(super) fn body(&self) -> Value {
        json!({ "error": self.error })
    }

    pub(super) fn unauthorized(message: &str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "invalid_request_error", message)
    }

    /// A publishable key, which a page may have, where a secret one is asked for.
    pub(super) fn secret_key_required() -> Self {
        Self::unauthorized(
            "This API call cannot be made with a publishable API key. Please use a secret API key. You can find a \
             list of your API keys at https://dashboard.stripe.com/account/apikeys.",
        )
        .code("secret_key_required")
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

    pub(super) fn charged_back(charge: &str) -> Self {
        let message = format!("Charge {charge} has been charged back; cannot issue a refund.");
        Self { executed: true, ..Self::bad_request(message).code("charge_disputed") }
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
        Self::new(StatusCode::CONFLICT, "idempotency_error", message).code("idempotency_key_in_use")
    }

    pub(super) fn key_too_long() -> Self {
        Self::bad_request("Idempotency keys can be up to 255 characters long.")
    }

    pub(super) fn not_expandable(path: &str) -> Self {
        Self::bad_request(format!("This property cannot be expanded ({path})."))
    }

    pub(super) fn expanded_too_deep() -> Self {
        Self::bad_request("You cannot expand more than 4 levels of a property.")
    }

    pub(super) fn unknown(param: &str) -> Self {
        Self::bad_request(format!("Received unknown parameter: {param}"))
            .code("parameter_unknown")
            .with("param", param)
    }
}

/// Where Stripe tells about an error code.
pub(super) fn doc_url(code: &str) -> String {
    format!("https://stripe.com/docs/error-codes/{}", code.replace('_', "-"))
}
