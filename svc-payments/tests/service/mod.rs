//! svc-payments in this process, a Stripe sandbox, its neighbour svc-orders as far as its log goes, and a client.

// Each file of tests uses its own part of this.
#![allow(dead_code)]

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use async_nats::jetstream;
use contract::{
    Cents, OrderEvent, OrderId, PaymentEvent, PaymentId, TicketEvent, TicketId, Timestamp, UserId,
    event::{
        CancelReason, OrderAwaitingPayment, OrderCancelled, OrderCompleted, OrderCreated, OrderStatus,
        OrderedTicket, TicketCreated, TicketRef,
    },
    stream::{
        DEAD_LETTERS, DEAD_LETTERS_PREFIX, ORDERS, PAYMENTS, Stream, TICKETS, USERS, durable, order_subject,
        payment_subject, ticket_subject,
    },
};
use eventstore::{
    AppendError, Auth, Cause, Connection, DeadLetters, Log, Reaction, ReactorConfig, Recorded, Settings,
    StreamConfig, react,
};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use sandbox::{
    nats::NatsServer,
    stripe::{LedgerEntry, Status, StripeOptions, StripeSandbox, WebhookEndpoint},
};
use serde_json::{Value, json};
use svc_payments::Config;
use tokio::{
    net::TcpListener,
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;
use web::{Claims, Env, Signer};

pub(crate) const BUYER: UserId = UserId(Uuid::from_u128(0xb07e4));
pub(crate) const STRANGER: UserId = UserId(Uuid::from_u128(0x57a4));
pub(crate) const SELLER: UserId = UserId(Uuid::from_u128(0x5e11e4));

/// What Stripe signs with, and what it signed with before.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_now";
pub(crate) const WEBHOOK_SECRET_PREVIOUS: &str = "whsec_before";
/// A reconciler that does nothing while a test runs, and one that does nothing else.
pub(crate) const SELDOM: Duration = Duration::from_secs(3600);
pub(crate) const OFTEN: Duration = Duration::from_millis(250);

/// Long enough for everything that is on this machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(20);
/// Too short for anything.
pub(crate) const IMPATIENT: Duration = Duration::from_millis(1);

/// The sandbox answers at once, or as late as a test tells it to.
const STRIPE_TIMEOUT: Duration = Duration::from_secs(1);

const JWT_KEY: &str = "a key for tests, of more than 32 characters";

/// What all these tests need: a server, a Stripe, orders.
pub(crate) struct World {
    pub(crate) nats: NatsServer,
    pub(crate) data: tempfile::TempDir,
    pub(crate) stripe: StripeSandbox,
    pub(crate) orders: Orders,
}

impl World {
    pub(crate) async fn new() -> Self {
        let nats = NatsServer::temporary().await.unwrap();
        let orders = Orders::create(nats.url()).await;
        let stripe = StripeSandbox::start(StripeOptions::default()).await.unwrap();
        Self { nats, data: tempfile::tempdir().unwrap(), stripe, orders }
    }

    pub(crate) async fn service(&self, patience: Duration) -> Service {
        Service::start(self.nats.url(), self.data.path(), self.stripe.url(), patience, SELDOM).await
    }

    /// A service that lays log and Stripe side by side all the time.
    pub(crate) async fn reconciling_service(&self, patience: Duration) -> Service {
        Service::start(self.nats.url(), self.data.path(), self.stripe.url(), patience, OFTEN).await
    }

    /// Lets Stripe tell the service what happens.
    pub(crate) fn tell(&self, service: &Service) {
        let (url, secret) = (service.webhook_url(), WEBHOOK_SECRET.to_owned());
        self.stripe.add_webhook_endpoint(WebhookEndpoint { url, secret, delivery: Default::default() });
    }

    /// Asks Stripe behind the service's back, as a person at its dashboard.
    pub(crate) async fn at_the_dashboard(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let url = format!("{}/v1/{path}", self.stripe.url());
        let request = reqwest::Client::new().post(url).bearer_auth("sk_test_1").form(form);
        let done = request.send().await.unwrap();
        let (status, body) = (done.status(), done.json().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// What Stripe did for the order: the status, how often money was held, taken, let go.
    pub(crate) fn at_stripe(&self, order: OrderId) -> (Status, u32, u32, u32) {
        let [entry] = &ledger(&self.stripe, order)[..] else { panic!("one PaymentIntent") };
        (entry.status, entry.authorizations, entry.captures, entry.cancellations)
    }

    /// How much Stripe took for the order and did not give back, in cents.
    pub(crate) fn charged(&self, order: OrderId) -> i64 {
        ledger(&self.stripe, order).iter().map(|entry| entry.amount_captured - entry.amount_refunded).sum()
    }

    /// Waits until Stripe has of the order's only intent what is asked for.
    pub(crate) async fn until_stripe(&self, order: OrderId, has: impl Fn(&LedgerEntry) -> bool) {
        eventually("stripe has it", async || {
            let [entry] = &ledger(&self.stripe, order)[..] else { panic!("one PaymentIntent") };
            has(entry).then_some(())
        })
        .await;
    }

    /// Writes the log of a service that recorded these events of an order's payment so long ago, and does not run.
    pub(crate) async fn has_logged(&self, order: OrderId, age: Duration, events: &[PaymentEvent]) {
        create(self.nats.url(), PAYMENTS).await;
        let jetstream = jetstream::new(async_nats::connect(self.nats.url()).await.unwrap());
        let time = Timestamp::from(std::time::SystemTime::now() - age).to_string();
        for (version, event) in events.iter().enumerate() {
            let mut tagged = serde_json::to_value(event).unwrap();
            let mut data = tagged["data"].take();
            data["version"] = version.into();
            let subject = payment_subject(order);
            let mut headers = async_nats::HeaderMap::new();
            headers.insert("ce-id", Uuid::now_v7().to_string());
            headers.insert("ce-type", tagged["type"].as_str().unwrap());
            headers.insert("ce-subject", subject.as_str());
            headers.insert("ce-time", time.as_str());
            let published = jetstream.publish_with_headers(subject, headers, data.to_string().into());
            published.await.unwrap().await.unwrap();
        }
    }

    pub(crate) async fn log_of(&self, order: OrderId) -> Vec<String> {
        log_of(self.nats.url(), order).await
    }
}

/// The service, ready.
pub(crate) struct Service {
    url: String,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), eventstore::StartError>>,
    client: reqwest::Client,
}

impl Service {
    /// Starts the service on a free port and waits until it is ready. A request to pay waits for `patience`.
    async fn start(
        nats: &str,
        data: &Path,
        stripe: &str,
        patience: Duration,
        reconcile_every: Duration,
    ) -> Self {
        let (nats, data) = (nats.to_owned(), data.to_str().unwrap().to_owned());
        let stripe = stripe.to_owned();
        let env = Env::from(move |name| match name {
            "NATS_URL" => Some(nats.clone()),
            "DATA_DIR" => Some(data.clone()),
            "JWT_KEY" => Some(JWT_KEY.into()),
            // One buyer asks as often as many would.
            "USER_REQUESTS_PER_MINUTE" => Some("0".into()),
            "STRIPE_KEY" => Some("sk_test_1".into()),
            "STRIPE_API_BASE" => Some(stripe.clone()),
            "STRIPE_WEBHOOK_SECRET" => Some(WEBHOOK_SECRET.into()),
            "STRIPE_WEBHOOK_SECRET_PREVIOUS" => Some(WEBHOOK_SECRET_PREVIOUS.into()),
            _ => None,
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let config = Config {
            patience,
            reconcile_every,
            stripe_timeout: STRIPE_TIMEOUT,
            ..Config::from_env(&env).unwrap()
        };
        let running = tokio::spawn(svc_payments::run(config, listener.into(), shutdown.clone()));
        let service = Self { url, shutdown, running, client: reqwest::Client::new() };
        eventually("the service is ready", async || {
            let ready = service.request(Method::GET, "/readyz").send().await.ok()?;
            (ready.status() == StatusCode::OK).then_some(())
        })
        .await;
        service
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) async fn post(&self, user: UserId, body: &Value) -> Response {
        let request = self.request(Method::POST, "/api/payments").bearer_auth(token(user));
        request.json(body).send().await.unwrap()
    }

    pub(crate) async fn pay(&self, order: OrderId, with: &str) -> Response {
        self.post(BUYER, &json!({ "token": with, "orderId": order })).await
    }

    pub(crate) async fn get(&self, user: UserId, order: &str) -> Response {
        let request = self.request(Method::GET, &format!("/api/payments/{order}")).bearer_auth(token(user));
        request.send().await.unwrap()
    }

    /// Asks for the order's money to go back.
    pub(crate) async fn refund(&self, user: UserId, order: &str) -> Response {
        let request = self.request(Method::POST, &format!("/api/payments/{order}/refund"));
        request.bearer_auth(token(user)).send().await.unwrap()
    }

    pub(crate) fn webhook_url(&self) -> String {
        format!("{}/api/payments/webhook", self.url)
    }

    /// What a metric says, 0 if nothing was counted. All services of this process count together.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let text = self.request(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let values =
            text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.split(' ').next_back());
        values.filter_map(|value| value.parse::<f64>().ok()).sum()
    }

    /// Waits until the order's payment has the status; returns it.
    pub(crate) async fn shows(&self, order: OrderId, status: &str) -> Value {
        eventually(status, async || {
            let payment: Value = self.get(BUYER, &order.to_string()).await.json().await.ok()?;
            (payment["status"] == status).then_some(payment)
        })
        .await
    }
}

/// A session of the user's, as svc-auth makes them.
pub(crate) fn token(user: UserId) -> String {
    token_of(user, 0)
}

/// One of an epoch of their sessions.
pub(crate) fn token_of(user: UserId, epoch: u32) -> String {
    let claims = Claims::new(user.0, "somebody@example.com", epoch, Duration::from_secs(60));
    Signer::new(JWT_KEY).sign(&claims)
}

/// The messages of an error, each with its field.
pub(crate) async fn errors(response: Response) -> Vec<(String, Option<String>)> {
    let body: Value = response.json().await.unwrap();
    let entries = body["errors"].as_array().unwrap_or_else(|| panic!("no errors: {body}"));
    let text = |value: &Value| value.as_str().map(str::to_owned);
    entries.iter().map(|entry| (text(&entry["message"]).unwrap(), text(&entry["field"]))).collect()
}

/// Asks again and again until there is an answer, for 20 seconds at most.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENT;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// What Stripe has of an order, the first try first.
pub(crate) fn ledger(stripe: &StripeSandbox, order: OrderId) -> Vec<LedgerEntry> {
    let order = order.to_string();
    stripe.ledger().into_iter().filter(|entry| entry.metadata["order_id"] == order).collect()
}

/// The types of the events in the log of an order's payment.
pub(crate) async fn log_of(nats: &str, order: OrderId) -> Vec<String> {
    let client = async_nats::connect(nats).await.unwrap();
    let stream = jetstream::new(client).get_stream(PAYMENTS.name).await.unwrap();
    let mut types = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        if message.subject.as_str() == payment_subject(order) {
            types.push(message.headers.get("ce-type").unwrap().to_string());
        }
    }
    types
}

/// The stream of a neighbour.
async fn create(nats: &str, stream: Stream) -> Log {
    let settings = Settings { url: nats.into(), auth: Auth::None, ca: None, name: stream.source.into() };
    let connection = Connection::open(settings).await.unwrap();
    let config = StreamConfig {
        name: stream.name.into(),
        subjects: stream.subjects.into(),
        replicas: 1,
        source: stream.source.into(),
    };
    eventually("nats answers", async || Log::create(&connection, &config).await.ok()).await
}

/// The log of svc-orders, written as svc-orders does, and that of the tickets.
#[derive(Clone)]
pub(crate) struct Orders(Arc<Mutex<Known>>, Log, Log);

#[derive(Default)]
struct Known {
    orders: HashMap<OrderId, Order>,
}

struct Order {
    ticket: TicketId,
    status: OrderStatus,
    next_version: u64,
    last_sequence: u64,
}

impl Orders {
    pub(crate) async fn create(nats: &str) -> Self {
        // Whose sessions have ended.
        create(nats, USERS).await;
        Self(Arc::default(), create(nats, ORDERS).await, create(nats, TICKETS).await)
    }

    /// An order of [`BUYER`]'s for a ticket of [`SELLER`]'s.
    pub(crate) async fn place(&self, price: Cents) -> OrderId {
        let (id, ticket) = (OrderId(Uuid::now_v7()), TicketId(Uuid::now_v7()));
        let title = "concert".into();
        let listed =
            TicketEvent::Created(TicketCreated { id: ticket, title, price_cents: price, user_id: SELLER });
        self.2.append(&ticket_subject(ticket), &listed, 0, 0, Cause::Command).await.unwrap();
        let order = Order { ticket, status: OrderStatus::Created, next_version: 0, last_sequence: 0 };
        self.0.lock().await.orders.insert(id, order);
        let created = OrderEvent::Created(OrderCreated {
            id,
            status: OrderStatus::Created,
            user_id: BUYER,
            expires_at: Timestamp::from(std::time::SystemTime::now()).plus(Duration::from_secs(900)),
            ticket: OrderedTicket { id: ticket, title: "concert".into(), price_cents: price },
        });
        self.decide(id, |_, _| Some((OrderStatus::Created, created.clone()))).await.unwrap();
        id
    }

    /// The buyer gives it up, if it is not being paid; whether it is cancelled now.
    pub(crate) async fn cancel(&self, id: OrderId) -> bool {
        self.end(id, &[OrderStatus::Created], CancelReason::Buyer).await;
        self.0.lock().await.orders[&id].status == OrderStatus::Cancelled
    }

    pub(crate) async fn await_payment(&self, id: OrderId, payment_id: PaymentId) {
        self.decide(id, |status, ticket| {
            let event = OrderAwaitingPayment { id, payment_id, ticket };
            (status == OrderStatus::Created)
                .then_some((OrderStatus::AwaitingPayment, OrderEvent::AwaitingPayment(event)))
        })
        .await
        .unwrap();
    }

    async fn complete(&self, id: OrderId, payment_id: PaymentId) {
        self.decide(id, |status, ticket| {
            let event = OrderCompleted { id, payment_id, ticket };
            matches!(status, OrderStatus::Created | OrderStatus::AwaitingPayment)
                .then_some((OrderStatus::Complete, OrderEvent::Completed(event)))
        })
        .await
        .unwrap();
    }

    async fn end(&self, id: OrderId, from: &[OrderStatus], reason: CancelReason) {
        self.decide(id, |status, ticket| {
            let event = OrderCancelled { id, reason, ticket };
            from.contains(&status).then_some((OrderStatus::Cancelled, OrderEvent::Cancelled(event)))
        })
        .await
        .unwrap();
    }

    async fn decide(
        &self,
        id: OrderId,
        decide: impl Fn(OrderStatus, TicketRef) -> Option<(OrderStatus, OrderEvent)>,
    ) -> Result<(), AppendError> {
        let mut known = self.0.lock().await;
        let order = known.orders.get_mut(&id).unwrap();
        let Some((status, event)) = decide(order.status, TicketRef { id: order.ticket }) else {
            return Ok(());
        };
        let subject = order_subject(order.ticket);
        let appended =
            self.1.append(&subject, &event, order.next_version, order.last_sequence, Cause::Command).await?;
        order.status = status;
        order.next_version += 1;
        order.last_sequence = appended.sequence;
        Ok(())
    }

    /// Reacts to payments as svc-orders does, until the guard is dropped.
    pub(crate) fn follow_payments(&self) -> DropGuard {
        let shutdown = CancellationToken::new();
        let log = Log::reader(self.1.connection(), PAYMENTS.name, ORDERS.source);
        let dead_letters =
            DeadLetters::new(self.1.connection(), DEAD_LETTERS, DEAD_LETTERS_PREFIX, ORDERS.source);
        let orders = self.clone();
        let handle = move |recorded: Recorded<PaymentEvent>| {
            let orders = orders.clone();
            async move {
                match recorded.event {
                    PaymentEvent::Authorized(event) => orders.await_payment(event.order_id, event.id).await,
                    PaymentEvent::Created(event) => orders.complete(event.order_id, event.id).await,
                    PaymentEvent::Voided(event) => {
                        let from = [OrderStatus::Created, OrderStatus::AwaitingPayment];
                        orders.end(event.order_id, &from, CancelReason::PaymentFailed).await;
                    }
                    PaymentEvent::Refunded(event) => {
                        let from =
                            [OrderStatus::Created, OrderStatus::AwaitingPayment, OrderStatus::Complete];
                        orders.end(event.order_id, &from, CancelReason::Refunded).await;
                    }
                    _ => {}
                }
                Ok::<_, AppendError>(Reaction::Done)
            }
        };
        let config = ReactorConfig { durable: durable::ORDERS, concurrency: 4 };
        tokio::spawn(react(log, config, dead_letters, handle, shutdown.clone()));
        shutdown.drop_guard()
    }

    /// Waits until the order has the status.
    pub(crate) async fn becomes(&self, id: OrderId, status: OrderStatus) {
        eventually("the order's status", async || {
            (self.0.lock().await.orders[&id].status == status).then_some(())
        })
        .await;
    }
}
