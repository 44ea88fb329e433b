//! The gateway to Stripe: a function for each thing that is asked of it. It decides nothing and remembers nothing.
//!
//! Whatever moves money carries an idempotency key made of the payment's id and the step: asked again, after a crash
//! or by two processes at once, Stripe does it once and answers the same.

use std::{collections::HashMap, fmt, str::FromStr, time::Duration};

use contract::{PaymentId, TicketId};
use stripe::{
    ApiErrors, ApiErrorsCode, ApiErrorsType, Client, ClientBuilder, IdempotencyKey, RequestStrategy,
    StripeError, StripeRequest,
};
use stripe_core::{
    PaymentIntent, PaymentIntentCaptureMethod, PaymentIntentStatus,
    payment_intent::{
        CancelPaymentIntent, CapturePaymentIntent, CreatePaymentIntent,
        CreatePaymentIntentAutomaticPaymentMethods, CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects,
        RetrievePaymentIntent,
    },
};
use warp::http::{Uri, uri::Scheme};

use crate::domain::{Held, Payment, Undone};

/// Stripe's HTTP API. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Stripe {
    client: Client,
}

/// Why Stripe did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The card's issuer says no, in words for its owner.
    Declined(Undone),
    /// Stripe says no and will say so again; for operators.
    Refused(String),
    /// Nobody knows whether it was done. Asked again with the same key, it is done once.
    Unavailable(String),
}

/// What Stripe has of a payment.
#[derive(Debug)]
pub(crate) enum Intent {
    /// The money is held.
    Held,
    /// The money is taken.
    Taken,
    /// Neither, for good.
    Gone,
    /// Not decided yet, or nothing that is known here.
    Unclear(String),
}

impl Stripe {
    /// After `timeout` the outcome of a request counts as unknown.
    pub(crate) fn new(key: &SecretKey, base: &ApiBase, timeout: Duration) -> Self {
        let client = ClientBuilder::new(&key.0).url(&base.0).timeout(timeout).build();
        Self { client: client.expect("a key and an address were checked when they were read") }
    }

    /// Has the card hold the payment's amount; returns the PaymentIntent.
    pub(crate) async fn authorize(&self, payment: &Payment, ticket: TicketId) -> Result<String, Failure> {
        let Ok(currency) = payment.currency.parse::<stripe_types::Currency>();
        // Cards alone, in effect: whatever would send the buyer elsewhere is left out, or fails.
        let methods = CreatePaymentIntentAutomaticPaymentMethods {
            allow_redirects: Some(CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects::Never),
            enabled: true,
        };
        let mut intent = CreatePaymentIntent::new(payment.amount.0, currency)
            .capture_method(PaymentIntentCaptureMethod::Manual)
            .confirm(true)
            .automatic_payment_methods(methods)
            .error_on_requires_action(true)
            .metadata(HashMap::from([
                ("payment_id".to_owned(), payment.id.to_string()),
                ("order_id".to_owned(), payment.order.to_string()),
                ("ticket_id".to_owned(), ticket.to_string()),
                ("user_id".to_owned(), payment.buyer.to_string()),
            ]));
        let is_token = payment.method.starts_with("tok_");
        if !is_token {
            intent = intent.payment_method(&payment.method);
        }
        let mut request = intent.build();
        if is_token {
            // The typed client knows no `payment_method_data[card]`. A token is letters, digits and underscores:
            // nothing in it needs escaping.
            let body = request.body.get_or_insert_default();
            body.push_str("&payment_method_data[type]=card&payment_method_data[card][token]=");
            body.push_str(&payment.method);
        }
        let sent = request.customize::<PaymentIntent>().request_strategy(once(payment.id, "authorize"));
        let intent = sent.send(&self.client).await?;
        match intent.status {
            PaymentIntentStatus::RequiresCapture => Ok(intent.id.to_string()),
            // Money may yet be held: no answer so far.
            PaymentIntentStatus::Processing => {
                Err(Failure::Unavailable(format!("{} is processing", intent.id)))
            }
            status => Err(Failure::Refused(format!("{} is {status}", intent.id))),
        }
    }

    /// Takes the held money.
    pub(crate) async fn capture(&self, held: &Held) -> Result<(), Failure> {
        let capture = CapturePaymentIntent::new(held.stripe_id.as_str()).customize();
        let sent = capture.request_strategy(once(held.payment, "capture"));
        let intent = sent.send(&self.client).await?;
        match intent.status {
            PaymentIntentStatus::Succeeded => Ok(()),
            status => Err(Failure::Refused(format!("{} is {status}", intent.id))),
        }
    }

    /// Lets the held money go.
    pub(crate) async fn cancel(&self, held: &Held) -> Result<(), Failure> {
        let cancel = CancelPaymentIntent::new(held.stripe_id.as_str()).customize();
        let sent = cancel.request_strategy(once(held.payment, "void"));
        let intent = sent.send(&self.client).await?;
        match intent.status {
            PaymentIntentStatus::Canceled => Ok(()),
            status => Err(Failure::Refused(format!("{} is {status}", intent.id))),
        }
    }

    /// Looks how a payment stands.
    pub(crate) async fn retrieve(&self, held: &Held) -> Result<Intent, Failure> {
        let retrieve = RetrievePaymentIntent::new(held.stripe_id.as_str()).customize();
        let intent = match retrieve.send(&self.client).await {
            Ok(intent) => intent,
            Err(StripeError::Stripe(_, 404)) => return Ok(Intent::Gone),
            Err(error) => return Err(error.into()),
        };
        Ok(match intent.status {
            PaymentIntentStatus::RequiresCapture => Intent::Held,
            PaymentIntentStatus::Succeeded => Intent::Taken,
            PaymentIntentStatus::Canceled => Intent::Gone,
            status => Intent::Unclear(format!("{} is {status}", intent.id)),
        })
    }
}

/// Sent once, under a key of its own: it is the reactor that tries again.
fn once(payment: PaymentId, step: &str) -> RequestStrategy {
    let key = IdempotencyKey::new(format!("{payment}:{step}"));
    RequestStrategy::Idempotent(key.expect("an id and a word are a key"))
}

impl From<StripeError> for Failure {
    /// Which answers are final: <https://docs.stripe.com/error-low-level>.
    fn from(error: StripeError) -> Self {
        // What Stripe says about an intent holds its client secret: code and parameter alone are shown.
        match error {
            StripeError::Stripe(error, 402) if error.type_ == ApiErrorsType::CardError => {
                Failure::Declined(Undone {
                    stripe_id: error.payment_intent.as_ref().map(|intent| intent.id.to_string()),
                    reason: error.message.clone().unwrap_or_else(|| "Your card was declined.".into()),
                })
            }
            StripeError::Stripe(error, status @ (400 | 402 | 404)) if !is_busy(&error) => {
                Failure::Refused(told(&error, status))
            }
            // 401 and 403 too: our key is wrong, not the card.
            StripeError::Stripe(error, status) => Failure::Unavailable(told(&error, status)),
            StripeError::ClientError(reason)
            | StripeError::JSONDeserialize(reason)
            | StripeError::ConfigError(reason) => Failure::Unavailable(reason),
            StripeError::Timeout => Failure::Unavailable("no answer in time".into()),
        }
    }
}

/// Whether another request with the key, or about the intent, is at work: no answer to ours.
fn is_busy(error: &ApiErrors) -> bool {
    use ApiErrorsCode::{IdempotencyKeyInUse, LockTimeout, RateLimit};
    matches!(error.code, Some(IdempotencyKeyInUse | LockTimeout | RateLimit))
}

fn told(error: &ApiErrors, status: u16) -> String {
    let code = error.code.as_ref().map_or("no code", ApiErrorsCode::as_str);
    let param = error.param.as_deref().unwrap_or("no parameter");
    format!("stripe answers {status} {}: {code}, {param}", error.type_.as_str())
}

/// Stripe's secret key, `sk_…` or a restricted one, `rk_…`. Never shown.
#[derive(Clone)]
pub struct SecretKey(String);

/// A text that is no such key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidKey;

impl FromStr for SecretKey {
    type Err = InvalidKey;

    /// # Errors
    /// When it does not begin as one, as a publishable key does not, or has blanks in it.
    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        let begins = text.starts_with("sk_") || text.starts_with("rk_");
        match begins && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidKey),
        }
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey")
    }
}

/// Where Stripe is: what `v1/payment_intents` is appended to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiBase(String);

/// A text that is no address of an HTTP server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidBase;

impl Default for ApiBase {
    fn default() -> Self {
        Self("https://api.stripe.com/".into())
    }
}

impl FromStr for ApiBase {
    type Err = InvalidBase;

    /// # Errors
    /// When it is not an http or https address, or has a query.
    fn from_str(text: &str) -> Result<Self, InvalidBase> {
        let uri = Uri::from_str(text).map_err(|_| InvalidBase)?;
        let is_http = uri.scheme().is_some_and(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
        match is_http && uri.query().is_none() {
            true => Ok(Self(format!("{}/", text.trim_end_matches('/')))),
            false => Err(InvalidBase),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_key_is_not_a_publishable_one() {
        for text in ["sk_test_1", "rk_live_1"] {
            assert!(text.parse::<SecretKey>().is_ok(), "{text}");
        }
        for text in ["", "pk_test_1", "1", "sk_test_1\n", "sk_test é"] {
            assert!(text.parse::<SecretKey>().is_err(), "{text:?}");
        }
        assert_eq!(format!("{:?}", "sk_test_1".parse::<SecretKey>()), "Ok(SecretKey)");
    }

    #[test]
    fn an_address_of_stripe_ends_in_a_slash() {
        for (text, base) in [
            ("http://127.0.0.1:9000", "http://127.0.0.1:9000/"),
            ("https://stripe.example/proxy/", "https://stripe.example/proxy/"),
        ] {
            assert_eq!(text.parse(), Ok(ApiBase(base.into())));
        }
        for text in
            ["", "api.stripe.com", "/v1", "ftp://stripe.example", "https://", "http://stripe.example/?a"]
        {
            assert_eq!(text.parse::<ApiBase>(), Err(InvalidBase), "{text:?}");
        }
    }
}
