//! A sandbox, the real client for it, and a shop that takes its webhooks.

use std::collections::{HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use sandbox::stripe::{Delivery, LedgerEntry, StripeOptions, StripeSandbox, WebhookEndpoint};
use serde_json::Value;
use stripe::{ApiErrors, Client, ClientBuilder, IdempotencyKey, RequestStrategy, StripeError};
use stripe_core::PaymentIntentCaptureMethod;
use stripe_core::payment_intent::{
    CreatePaymentIntent, CreatePaymentIntentAutomaticPaymentMethods,
    CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects,
};
use stripe_types::Currency;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use warp::Filter;
use warp::http::{HeaderMap, StatusCode};

pub(crate) async fn sandbox() -> StripeSandbox {
    StripeSandbox::start(StripeOptions::default()).await.expect("sandbox")
}

pub(crate) fn client(sandbox: &StripeSandbox) -> Client {
    ClientBuilder::new("sk_test_sandbox").url(sandbox.url()).build().expect("client")
}

/// A payment that sends the customer nowhere: no `return_url` is needed.
pub(crate) fn of_card(cents: i64) -> CreatePaymentIntent {
    let automatic = CreatePaymentIntentAutomaticPaymentMethods {
        allow_redirects: Some(CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects::Never),
        enabled: true,
    };
    CreatePaymentIntent::new(cents, Currency::USD).automatic_payment_methods(automatic)
}

/// An authorisation of 19.99 for order 7.
pub(crate) fn authorize(payment_method: &str) -> CreatePaymentIntent {
    authorize_for("7", payment_method)
}

pub(crate) fn authorize_for(order: &str, payment_method: &str) -> CreatePaymentIntent {
    of_card(1999)
        .capture_method(PaymentIntentCaptureMethod::Manual)
        .confirm(true)
        .payment_method(payment_method)
        .metadata(HashMap::from([("order_id".into(), order.into())]))
}

/// A payment of 5.00, taken at once. Returns the intent's id.
pub(crate) async fn paid(client: &Client, payment_method: &str) -> String {
    let pay = of_card(500).confirm(true).payment_method(payment_method);
    pay.send(client).await.expect("paid").id.to_string()
}

pub(crate) fn once(key: &str) -> RequestStrategy {
    RequestStrategy::Idempotent(IdempotencyKey::new(key).expect("key"))
}

pub(crate) fn refused<T>(result: Result<T, StripeError>, status: u16) -> Box<ApiErrors> {
    match result {
        Err(StripeError::Stripe(error, actual)) => {
            assert_eq!(actual, status, "{error:?}");
            error
        }
        Err(other) => panic!("not an answer of Stripe's: {other}"),
        Ok(_) => panic!("it was to be refused with {status}"),
    }
}

pub(crate) fn only(ledger: Vec<LedgerEntry>) -> LedgerEntry {
    let [entry] = ledger.try_into().expect("one payment intent");
    entry
}

pub(crate) async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future).await.unwrap_or_else(|_| panic!("too long: {what}"))
}

pub(crate) async fn get(url: String) -> reqwest::Response {
    reqwest::Client::new().get(url).bearer_auth("sk_test_sandbox").send().await.expect("answer")
}

pub(crate) async fn post(url: String, form: &[(&str, &str)]) -> (u16, Value) {
    let request = reqwest::Client::new().post(url).bearer_auth("sk_test_sandbox").form(form);
    let response = request.send().await.expect("answer");
    (response.status().as_u16(), response.json().await.expect("JSON"))
}

pub(crate) async fn get_json(url: String) -> Value {
    get(url).await.json().await.expect("JSON")
}

pub(crate) const SECRET: &str = "whsec_of_the_shop";

/// A shop that takes webhooks, and may refuse some first.
pub(crate) struct Shop {
    url: String,
    received: mpsc::UnboundedReceiver<Webhook>,
}

pub(crate) struct Webhook {
    pub(crate) signature: String,
    pub(crate) payload: Bytes,
}

impl Webhook {
    pub(crate) fn event(&self) -> Value {
        serde_json::from_slice(&self.payload).expect("JSON")
    }
}

impl Shop {
    /// Answers with these, then with 200.
    pub(crate) async fn open(first_answers: &[u16]) -> Self {
        let (told, received) = mpsc::unbounded_channel();
        let answers = Arc::new(Mutex::new(VecDeque::from(first_answers.to_vec())));
        let routes = warp::post().and(warp::header::headers_cloned()).and(warp::body::bytes()).map(
            move |headers: HeaderMap, payload: Bytes| {
                let signature = headers["stripe-signature"].to_str().expect("text").to_owned();
                let _ = told.send(Webhook { signature, payload });
                let status = answers.lock().expect("answers").pop_front().unwrap_or(200);
                StatusCode::from_u16(status).expect("status")
            },
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("port");
        let url = format!("http://{}/webhook", listener.local_addr().expect("address"));
        tokio::spawn(warp::serve(routes).incoming(listener).run());
        Self { url, received }
    }

    pub(crate) fn endpoint(&self, delivery: Delivery) -> WebhookEndpoint {
        WebhookEndpoint { url: self.url.clone(), secret: SECRET.into(), delivery }
    }

    pub(crate) async fn next(&mut self) -> Webhook {
        within("a webhook comes", self.received.recv()).await.expect("the shop is open")
    }

    /// What has come, when nothing more will.
    pub(crate) async fn all(&mut self, sandbox: &StripeSandbox) -> Vec<Value> {
        within("all is delivered", sandbox.until_deliveries_settled()).await;
        std::iter::from_fn(|| self.received.try_recv().ok()).map(|webhook| webhook.event()).collect()
    }
}
