//! The gateway to Stripe: a function for each thing that is asked of it. It decides nothing and remembers nothing.
//!
//! Whatever moves money carries an idempotency key made of the payment's id and the step: asked again, after a crash
//! or by two processes at once, Stripe does it once and answers the same.
//!
//! A key remembers failures, too: Stripe answers a 500 with that same 500 from then on
//! (<https://docs.stripe.com/api/idempotent_requests>). So whoever keeps meeting one looks what became of it, and asks
//! under another key only when nothing did. Capture, cancel and refund are safe under any key, as Stripe does each
//! once for an intent. To authorise twice would make two intents: of those the log knows one, only that one is ever
//! captured, and the reconciler gives up the other.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    future::Future,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use contract::{Cents, OrderId, PaymentId, TicketId};
use stripe::{
    ApiErrors, ApiErrorsCode, ApiErrorsType, Client, ClientBuilder, IdempotencyKey, RequestStrategy,
    StripeError, StripeRequest,
};
use stripe_core::{
    PaymentIntent, PaymentIntentCaptureMethod, PaymentIntentStatus,
    dispute::ListDispute,
    payment_intent::{
        CancelPaymentIntent, CapturePaymentIntent, CreatePaymentIntent,
        CreatePaymentIntentAutomaticPaymentMethods, CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects,
        ListPaymentIntent, RetrievePaymentIntent, SearchPaymentIntent,
    },
    refund::{CreateRefund, ListRefund},
};
use stripe_types::{Expandable, RangeBoundsTs, RangeQueryTs};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, field};
use uuid::Uuid;
use warp::http::{Uri, uri::Scheme};

use crate::domain::{Intent, IntentRef, Money, Payment, Undone};

/// How often one thing is asked before it is left for later.
const TRIES: u32 = 3;
/// How long to wait before the second try; four times as long before each further one, more or less by half.
const BACKOFF: Duration = Duration::from_millis(100);
/// Stripe forgets a key after 24 hours at the earliest. An older request may have been done and forgotten.
const KEY_LIFETIME: Duration = Duration::from_secs(23 * 3600);
/// After this time an intent can be searched for (Stripe says a minute, mostly); a younger one is looked for in the list.
const SEARCHABLE: Duration = Duration::from_secs(120);
/// How far Stripe's clock may be from ours.
const SKEW: Duration = Duration::from_secs(10);
/// Requests at once. Stripe takes a hundred a second of an account, and answers the rest with 429
/// (<https://docs.stripe.com/rate-limits>).
const REQUESTS: usize = 64;
/// Looks for somebody who waits, at once; and how long one may take.
const GLANCES: usize = 16;
const GLANCE: Duration = Duration::from_secs(2);
/// Intents to a page of a list: Stripe's most.
const PAGE: i64 = 100;
/// How many pages one payment is looked for in. More intents than that in two minutes: the search is left to tell.
const PAGES: usize = 10;

/// Stripe's HTTP API. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Stripe {
    client: Client,
    /// Its host, for the traces.
    address: Arc<str>,
    /// How much is asked at once: what Stripe is too slow for waits here, not there.
    requests: Arc<Semaphore>,
    /// How many look at once for somebody who waits.
    glances: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// Why Stripe did not do what was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The card's issuer says no, in words for its owner.
    Declined(Undone),
    /// Stripe says no and will say so again; for operators.
    Refused(String),
    /// Stripe fails, and may do so for ever under this key.
    Broken(String),
    /// Nobody knows whether it was done. Asked again with the same key, it is done once.
    Unavailable(String),
}

/// What became of an intent that was to be given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    /// Nothing is held any more, and nothing was taken.
    Gone,
    /// Too late: the money was taken.
    Taken,
}

/// An intent of ours, as its metadata says. Not to be printed, for the secret's sake.
pub(crate) struct Found {
    pub(crate) order: OrderId,
    pub(crate) intent: Intent,
    /// What Stripe.js needs to let the buyer talk to their bank. For the buyer alone, and never kept.
    pub(crate) client_secret: Option<String>,
    /// The trace of the request to pay.
    pub(crate) trace: Option<String>,
}

/// A page of intents.
pub(crate) struct Page {
    /// Those of ours, newest first.
    pub(crate) found: Vec<Found>,
    /// Where the next page starts; `None`: this is the last.
    pub(crate) next: Option<String>,
}

impl Stripe {
    /// After `timeout` the outcome of a request counts as unknown. From the `shutdown` on nothing is tried again.
    pub(crate) fn new(
        key: &SecretKey,
        base: &ApiBase,
        timeout: Duration,
        shutdown: CancellationToken,
    ) -> Self {
        let client = ClientBuilder::new(&key.0).url(&base.0).timeout(timeout).build();
        Self {
            client: client.expect("a key and an address were checked when they were read"),
            address: base.host().into(),
            requests: Arc::new(Semaphore::new(REQUESTS)),
            glances: Arc::new(Semaphore::new(GLANCES)),
            shutdown,
        }
    }

    /// Has the card hold the payment's amount. `trace` is that of the request to pay, however often it is tried:
    /// with another one, Stripe would take it for another request.
    pub(crate) async fn authorize(
        &self,
        payment: &Payment,
        ticket: TicketId,
        trace: Option<&str>,
    ) -> Result<Intent, Failure> {
        match self.authorized(payment, ticket, trace).await? {
            // Money may yet be held: no answer so far.
            intent if intent.money == Money::Moving => {
                Err(Failure::Unavailable(format!("{} is on its way", intent.id)))
            }
            intent => Ok(intent),
        }
    }

    async fn authorized(
        &self,
        payment: &Payment,
        ticket: TicketId,
        trace: Option<&str>,
    ) -> Result<Intent, Failure> {
        if age(payment.id) > KEY_LIFETIME
            && let Some(found) = self.find(payment.id).await?
        {
            return Ok(found.intent);
        }
        let key = format!("{}:authorize", payment.id);
        let broken = match self.create(payment, ticket, trace, &key).await {
            Err(Failure::Broken(reason)) => reason,
            answer => return answer,
        };
        tracing::warn!(payment.id = %payment.id, reason = broken, "looking what became of a request to stripe");
        match self.find(payment.id).await? {
            Some(found) => Ok(found.intent),
            // The same for whoever comes here at the same time.
            None => {
                let key = format!("{key}:{}", age(payment.id).as_secs() / 5);
                self.create(payment, ticket, trace, &key).await
            }
        }
    }

    async fn create(
        &self,
        payment: &Payment,
        ticket: TicketId,
        trace: Option<&str>,
        key: &str,
    ) -> Result<Intent, Failure> {
        let Ok(currency) = payment.currency.parse::<stripe_types::Currency>();
        // Cards alone, in effect: whatever would send the buyer elsewhere is left out, or fails.
        let methods = CreatePaymentIntentAutomaticPaymentMethods {
            allow_redirects: Some(CreatePaymentIntentAutomaticPaymentMethodsAllowRedirects::Never),
            enabled: true,
        };
        let mut metadata = HashMap::from([
            (PAYMENT_ID.to_owned(), payment.id.to_string()),
            (ORDER_ID.to_owned(), payment.order.to_string()),
            ("ticket_id".to_owned(), ticket.to_string()),
            ("user_id".to_owned(), payment.buyer.to_string()),
        ]);
        if let Some(trace) = trace {
            let id = trace.split(':').next().unwrap_or_default();
            metadata.insert("trace_id".to_owned(), id.to_owned());
            metadata.insert(TRACE.to_owned(), trace.to_owned());
        }
        let mut intent = CreatePaymentIntent::new(payment.amount.0, currency)
            .capture_method(PaymentIntentCaptureMethod::Manual)
            .confirm(true)
            .automatic_payment_methods(methods)
            .metadata(metadata);
        let is_token = payment.method.starts_with("tok_");
        if !is_token {
            intent = intent.payment_method(&payment.method);
        }
        let send = || {
            let mut request = intent.build();
            if is_token {
                // The typed client knows no `payment_method_data[card]`. A token is letters, digits and
                // underscores: nothing in it needs escaping.
                let body = request.body.get_or_insert_default();
                body.push_str("&payment_method_data[type]=card&payment_method_data[card][token]=");
                body.push_str(&payment.method);
            }
            request.customize::<PaymentIntent>().request_strategy(under(key)).send(&self.client)
        };
        let created = self.ask("authorize", send).await?;
        let found = found(&created).map(|found| found.intent);
        found.ok_or_else(|| Failure::Unavailable(format!("{} has lost its metadata", created.id)))
    }

    /// Takes the held money.
    pub(crate) async fn capture(&self, of: &IntentRef) -> Result<(), Failure> {
        let capture = |key: String| async move {
            let capture = CapturePaymentIntent::new(of.stripe_id.as_str());
            let send = || capture.customize().request_strategy(under(&key)).send(&self.client);
            let intent = self.ask("capture", send).await?;
            expect(&intent, PaymentIntentStatus::Succeeded)
        };
        match capture(step(of, "capture")).await {
            Err(Failure::Broken(reason)) => match self.money(of, reason).await? {
                Money::Taken { .. } => Ok(()),
                _ => capture(another(of, "capture")).await,
            },
            answer => answer,
        }
    }

    /// Gives the intent up: lets go what is held, or might yet be, unless it was taken.
    pub(crate) async fn cancel(&self, of: &IntentRef) -> Result<Cancelled, Failure> {
        let cancel = |key: String| async move {
            let cancel = CancelPaymentIntent::new(of.stripe_id.as_str());
            let send = || cancel.customize().request_strategy(under(&key)).send(&self.client);
            let intent = self.ask("void", send).await?;
            expect(&intent, PaymentIntentStatus::Canceled).map(|()| Cancelled::Gone)
        };
        match cancel(step(of, "void")).await {
            // A refusal may be one of an earlier moment, as of money that was just moving: the key repeats it.
            Err(Failure::Broken(reason) | Failure::Refused(reason)) => match self.money(of, reason).await? {
                Money::Gone => Ok(Cancelled::Gone),
                Money::Taken { .. } => Ok(Cancelled::Taken),
                _ => cancel(another(of, "void")).await,
            },
            answer => answer,
        }
    }

    /// Gives back all that was taken and has not gone back yet, after it was refused `refusals` times.
    pub(crate) async fn refund(&self, of: &IntentRef, refusals: u32) -> Result<(), Failure> {
        let refund = |key: String| async move {
            let refund = CreateRefund::new().payment_intent(&of.stripe_id);
            let send = || refund.customize().request_strategy(under(&key)).send(&self.client);
            let refund = self.ask("refund", send).await?;
            // Pending is on its way: Stripe counts it as given back, too.
            match refund.status.as_deref() {
                Some("succeeded" | "pending") => Ok(()),
                status => Err(Failure::Refused(format!("{} is {}", refund.id, status.unwrap_or("unclear")))),
            }
        };
        // What was refused is refused again under the same key.
        match refund(step(of, &format!("refund:{refusals}"))).await {
            Err(Failure::Broken(reason)) => match self.money(of, reason).await? {
                Money::Taken { in_full: true, .. } => Ok(()),
                _ => refund(another(of, "refund")).await,
            },
            answer => answer,
        }
    }

    /// Looks what became of a request that Stripe failed at.
    async fn money(&self, of: &IntentRef, reason: String) -> Result<Money, Failure> {
        tracing::warn!(stripe.id = of.stripe_id, reason, "looking what became of a request to stripe");
        match self.retrieve(&of.stripe_id).await? {
            Some(found) if found.intent.money != Money::Moving => Ok(found.intent.money),
            _ => Err(Failure::Unavailable(reason)),
        }
    }

    /// One look, for somebody who waits: no second try.
    pub(crate) async fn glance(&self, stripe_id: &str) -> Option<Found> {
        let _permit = self.glances.try_acquire().ok()?;
        let retrieve = RetrievePaymentIntent::new(stripe_id).expand(["latest_charge".to_owned()]);
        let looking = self.observed("retrieve", 1, retrieve.send(&self.client));
        found(&tokio::time::timeout(GLANCE, looking).await.ok()?.ok()?)
    }

    /// Looks how an intent stands; `None` if there is none, or it is not ours.
    pub(crate) async fn retrieve(&self, stripe_id: &str) -> Result<Option<Found>, Failure> {
        let retrieve = RetrievePaymentIntent::new(stripe_id).expand(["latest_charge".to_owned()]);
        let send = || async {
            match retrieve.send(&self.client).await {
                Ok(intent) => Ok(found(&intent)),
                Err(StripeError::Stripe(_, 404)) => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.ask("retrieve", send).await
    }

    /// A page of the intents made from `since` to `until`, after the one that the page before ended with.
    pub(crate) async fn intents(
        &self,
        since: SystemTime,
        until: Option<SystemTime>,
        after: Option<String>,
    ) -> Result<Page, Failure> {
        let bounds =
            RangeBoundsTs { gte: Some(seconds(since)), lte: until.map(seconds), ..Default::default() };
        let mut list = ListPaymentIntent::new()
            .created(RangeQueryTs::Bounds(bounds))
            .limit(PAGE)
            .expand(["data.latest_charge".to_owned()]);
        if let Some(after) = after {
            list = list.starting_after(after);
        }
        let page = self.ask("list", || list.send(&self.client)).await?;
        let last = page.data.last().map(|intent| intent.id.to_string());
        Ok(Page { found: page.data.iter().filter_map(found).collect(), next: last.filter(|_| page.has_more) })
    }

    /// The intents of which money went back since then, or was to, or is disputed.
    pub(crate) async fn reversed(&self, since: SystemTime) -> Result<HashSet<String>, Failure> {
        let mut intents = HashSet::new();
        let created = RangeQueryTs::gte(seconds(since));
        let mut after: Option<String> = None;
        loop {
            let mut list = ListRefund::new().created(created).limit(PAGE);
            if let Some(after) = after.take() {
                list = list.starting_after(after);
            }
            let page = self.ask("list", || list.send(&self.client)).await?;
            intents.extend(page.data.iter().filter_map(|refund| refund.payment_intent.as_ref()).map(id_of));
            after = page.data.last().map(|refund| refund.id.to_string()).filter(|_| page.has_more);
            if after.is_none() {
                break;
            }
        }
        loop {
            let mut list = ListDispute::new().created(created).limit(PAGE);
            if let Some(after) = after.take() {
                list = list.starting_after(after);
            }
            let page = self.ask("list", || list.send(&self.client)).await?;
            intents.extend(page.data.iter().filter_map(|dispute| dispute.payment_intent.as_ref()).map(id_of));
            after = page.data.last().map(|dispute| dispute.id.to_string()).filter(|_| page.has_more);
            if after.is_none() {
                return Ok(intents);
            }
        }
    }

    /// The intent of a payment, if one was ever made.
    pub(crate) async fn find(&self, payment: PaymentId) -> Result<Option<Found>, Failure> {
        let age = age(payment);
        let since = SystemTime::now() - age.min(SEARCHABLE) - SKEW;
        let (mut pages, mut after) = (0, None);
        loop {
            let page = self.intents(since, None, after).await?;
            if let Some(found) = page.found.into_iter().find(|found| found.intent.payment == payment) {
                return Ok(Some(found));
            }
            after = page.next;
            pages += 1;
            match after {
                None => break,
                Some(_) if pages < PAGES => {}
                Some(_) if age >= SEARCHABLE => break,
                Some(_) => return Err(Failure::Unavailable("too many payments to look through".into())),
            }
        }
        if age < SEARCHABLE {
            return Ok(None);
        }
        let query = format!("metadata['{PAYMENT_ID}']:'{payment}'");
        let search = SearchPaymentIntent::new(query).expand(["data.latest_charge".to_owned()]);
        let list = self.ask("search", || search.send(&self.client)).await?;
        Ok(list.data.iter().find_map(found))
    }

    /// Asks until there is an answer, a few times at most.
    async fn ask<T, F>(&self, step: &'static str, send: impl Fn() -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, StripeError>>,
    {
        let mut tries = 0;
        loop {
            tries += 1;
            let permit = self.requests.acquire().await.expect("it is never closed");
            let answer = self.observed(step, tries, send()).await;
            drop(permit);
            let failure = match answer {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let may_pass = matches!(failure, Failure::Broken(_) | Failure::Unavailable(_));
            if !may_pass || tries == TRIES || self.shutdown.is_cancelled() {
                return Err(failure);
            }
            let delay = (BACKOFF * 4_u32.pow(tries - 1)).mul_f64(0.5 + fastrand::f64());
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.shutdown.cancelled() => return Err(failure),
            }
        }
    }

    /// One request, with its span and its metrics.
    async fn observed<T>(
        &self,
        step: &'static str,
        tries: u32,
        request: impl Future<Output = Result<T, StripeError>>,
    ) -> Result<T, Failure> {
        let span = tracing::info_span!(
            "stripe",
            otel.name = format!("stripe {step}"),
            otel.kind = "client",
            otel.status_code = field::Empty,
            peer.service = "stripe",
            service = "svc-payments",
            server.address = &*self.address,
            http.request.resend_count = tries - 1,
            error.r#type = field::Empty,
        );
        let started = Instant::now();
        let answer = request.instrument(span.clone()).await.map_err(Failure::from);
        let outcome = answer.as_ref().err().map_or("ok", Failure::outcome);
        metrics::counter!("stripe_requests_total", "step" => step, "outcome" => outcome).increment(1);
        metrics::histogram!("stripe_request_seconds", "step" => step).record(started.elapsed());
        match &answer {
            // A card that is declined is an answer like another.
            Ok(_) | Err(Failure::Declined(_)) => {}
            Err(failure) => {
                span.record("otel.status_code", "ERROR");
                span.record("error.type", failure.outcome());
            }
        }
        answer
    }
}

/// The names of the metadata by which an intent is found to be ours.
const PAYMENT_ID: &str = "payment_id";
const ORDER_ID: &str = "order_id";
/// Where the trace of the request to pay is found again: its id alone would not say after which span.
const TRACE: &str = "uber-trace-id";

fn seconds(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()).unwrap_or(i64::MAX)
}

fn id_of(intent: &Expandable<PaymentIntent>) -> String {
    intent.id().to_string()
}

/// The idempotency key of a step with an intent.
fn step(of: &IntentRef, step: &str) -> String {
    format!("{}:{step}:{}", of.payment, of.stripe_id)
}

/// A key that nothing was asked under yet.
fn another(of: &IntentRef, step: &str) -> String {
    format!("{}:{step}:{}", of.payment, Uuid::new_v4())
}

/// Sent once: how often it is tried, and under which key, is decided here.
fn under(key: &str) -> RequestStrategy {
    RequestStrategy::Idempotent(IdempotencyKey::new(key).expect("an id and a few words are a key"))
}

/// How long ago the payment was asked for. An id that does not tell counts as very old.
fn age(payment: PaymentId) -> Duration {
    let asked = payment.0.get_timestamp().map(|at| {
        let (seconds, nanos) = at.to_unix();
        UNIX_EPOCH + Duration::new(seconds, nanos)
    });
    SystemTime::now().duration_since(asked.unwrap_or(UNIX_EPOCH)).unwrap_or_default()
}

fn expect(intent: &PaymentIntent, status: PaymentIntentStatus) -> Result<(), Failure> {
    match intent.status == status {
        true => Ok(()),
        false => Err(Failure::Refused(format!("{} is {}", intent.id, intent.status))),
    }
}

/// The intent as the rules know it; `None` if its metadata does not say that it is ours.
fn found(intent: &PaymentIntent) -> Option<Found> {
    let id = |name| intent.metadata.get(name)?.parse::<Uuid>().ok();
    let charge = intent.latest_charge.as_ref().and_then(|charge| charge.as_object());
    let money = match &intent.status {
        PaymentIntentStatus::RequiresAction => Money::ActionRequired,
        PaymentIntentStatus::RequiresPaymentMethod | PaymentIntentStatus::RequiresConfirmation => {
            Money::Refused
        }
        PaymentIntentStatus::RequiresCapture => Money::Held,
        PaymentIntentStatus::Succeeded => Money::Taken {
            refunded: Cents(charge.map_or(0, |charge| charge.amount_refunded)),
            in_full: charge.is_some_and(|charge| charge.refunded),
            disputed: charge.is_some_and(|charge| charge.disputed),
        },
        PaymentIntentStatus::Canceled => Money::Gone,
        _ => Money::Moving,
    };
    Some(Found {
        order: OrderId(id(ORDER_ID)?),
        intent: Intent {
            id: intent.id.to_string(),
            payment: PaymentId(id(PAYMENT_ID)?),
            money,
            amount: Cents(intent.amount_received),
            refusal: intent.last_payment_error.as_ref().and_then(|error| error.message.clone()),
        },
        client_secret: intent.client_secret.clone(),
        trace: intent.metadata.get(TRACE).cloned(),
    })
}

impl Failure {
    /// For the metrics.
    fn outcome(&self) -> &'static str {
        match self {
            Failure::Declined(_) => "declined",
            Failure::Refused(_) => "refused",
            Failure::Broken(_) => "broken",
            Failure::Unavailable(_) => "unavailable",
        }
    }
}

impl From<StripeError> for Failure {
    /// Which answers are final: <https://docs.stripe.com/error-low-level>.
    fn from(error: StripeError) -> Self {
        // What Stripe says about an intent holds its client secret: code and parameter alone are shown.
        match error {
            // Under this key something else was asked once, as by an earlier version of ours.
            StripeError::Stripe(error, status)
                if error.type_ == ApiErrorsType::IdempotencyError && !is_busy(&error) =>
            {
                Failure::Broken(told(&error, status))
            }
            StripeError::Stripe(error, 402) if error.type_ == ApiErrorsType::CardError => {
                Failure::Declined(Undone {
                    stripe_id: error.payment_intent.as_ref().map(|intent| intent.id.to_string()),
                    reason: error.message.clone().unwrap_or_else(|| "Your card was declined.".into()),
                })
            }
            StripeError::Stripe(error, status @ (400 | 402 | 404)) if !is_busy(&error) => {
                Failure::Refused(told(&error, status))
            }
            StripeError::Stripe(error, status @ 500..) => Failure::Broken(told(&error, status)),
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

impl ApiBase {
    /// `api.stripe.com`.
    fn host(&self) -> String {
        Uri::from_str(&self.0).ok().and_then(|uri| Some(uri.host()?.to_owned())).unwrap_or_default()
    }
}

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
