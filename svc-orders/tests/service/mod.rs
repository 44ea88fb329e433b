//! svc-orders in this process, its neighbours as far as their logs go, and a client.

// Each file of tests uses its own part of this.
#![allow(dead_code)]

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, SystemTime},
};

use async_nats::jetstream;
use contract::{
    Cents, ExpirationEvent, OrderEvent, OrderId, PaymentEvent, PaymentId, TicketEvent, TicketId, Timestamp,
    UserEvent, UserId,
    event::{
        CancelReason, ExpirationComplete, OrderCancelled, OrderCreated, OrderStatus, OrderedTicket,
        PaymentSettled, PaymentUnsettled, TicketCreated, TicketRef, TicketUpdated,
    },
    http::Order,
    stream::{
        EXPIRATIONS, ORDERS, PAYMENTS, Stream, TICKETS, USERS, durable, expiration_subject, order_subject,
        payment_subject, ticket_subject, user_subject,
    },
};
use eventstore::{Auth, Cause, Connection, Event, Log, Settings, StreamConfig};
use futures::{StreamExt, stream};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header::LINK};
use serde_json::{Value, json};
use svc_orders::Config;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use web::{Claims, Env, Signer};

pub(crate) const BUYER: UserId = UserId(Uuid::from_u128(0xb04e4));
pub(crate) const SELLER: UserId = UserId(Uuid::from_u128(0x5e11e4));
pub(crate) const STRANGER: UserId = UserId(Uuid::from_u128(0x57a4));

const JWT_KEY: &str = "a key for tests, of more than 32 characters";

/// What the environment tells the service.
pub(crate) fn config(nats: &str, data: &Path) -> Config {
    config_with(nats, data, &[])
}

/// With further variables.
pub(crate) fn config_with(nats: &str, data: &Path, set: &'static [(&'static str, &'static str)]) -> Config {
    let (nats, data) = (nats.to_owned(), data.to_str().unwrap().to_owned());
    let env = Env::from(move |name| match name {
        name if set.iter().any(|(set, _)| *set == name) => {
            set.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned())
        }
        "NATS_URL" => Some(nats.clone()),
        "DATA_DIR" => Some(data.clone()),
        "JWT_KEY" => Some(JWT_KEY.into()),
        // One buyer does what many would.
        "MAX_OPEN_ORDERS" | "USER_REQUESTS_PER_MINUTE" => Some("0".into()),
        _ => None,
    });
    Config::from_env(&env).unwrap()
}

/// The service, ready.
pub(crate) struct Service {
    url: String,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), eventstore::StartError>>,
    client: reqwest::Client,
}

impl Service {
    /// Starts the service on a free port and waits until it is ready, which it is not before its neighbours are.
    pub(crate) async fn start(nats: &str, data: &Path) -> Self {
        let service = Self::launch(nats, data).await;
        service.ready().await;
        service
    }

    /// Starts the service on a free port.
    pub(crate) async fn launch(nats: &str, data: &Path) -> Self {
        Self::launch_as(config(nats, data)).await
    }

    /// Starts the service with further variables, and waits until it is ready.
    pub(crate) async fn start_with(
        nats: &str,
        data: &Path,
        set: &'static [(&'static str, &'static str)],
    ) -> Self {
        let service = Self::launch_as(config_with(nats, data, set)).await;
        service.ready().await;
        service
    }

    async fn launch_as(config: Config) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(svc_orders::run(config, listener.into(), shutdown.clone()));
        Self { url, shutdown, running, client: reqwest::Client::new() }
    }

    pub(crate) async fn ready(&self) {
        eventually("the service is ready", async || {
            let ready = self.request(Method::GET, "/readyz").send().await.ok()?;
            (ready.status() == StatusCode::OK).then_some(())
        })
        .await;
    }

    /// Stops it as SIGTERM does.
    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        self.running.await.unwrap().unwrap();
    }

    /// A request of nobody's.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    pub(crate) fn get(&self, user: UserId, path: &str) -> RequestBuilder {
        self.request(Method::GET, path).bearer_auth(token(user))
    }

    /// What a GET that succeeds answers.
    pub(crate) async fn read(&self, user: UserId, path: &str) -> Value {
        let response = self.get(user, path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    /// The pages of a list, from the first to the last. The link to each keeps what was asked for.
    pub(crate) async fn pages(&self, user: UserId, path: &str) -> Vec<Vec<Value>> {
        let (mut next, mut pages) = (path.to_owned(), Vec::new());
        loop {
            let response = self.get(user, &next).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{next}");
            let link = response.headers().get(LINK).map(|link| link.to_str().unwrap().to_owned());
            pages.push(response.json().await.unwrap());
            let Some(link) = link else { return pages };
            let (_, asked) = path.split_once('?').unwrap_or_default();
            assert!(asked.split('&').all(|pair| link.contains(pair)), "{path} goes on at {link}");
            next =
                link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).unwrap().into();
        }
    }

    pub(crate) async fn post(&self, user: UserId, body: &Value) -> Response {
        let request = self.request(Method::POST, "/api/orders").bearer_auth(token(user));
        request.json(body).send().await.unwrap()
    }

    pub(crate) async fn order(&self, user: UserId, ticket: TicketId) -> Response {
        self.post(user, &json!({ "ticketId": ticket })).await
    }

    /// Orders a ticket that is free.
    pub(crate) async fn reserve(&self, user: UserId, ticket: TicketId) -> Order {
        let response = self.order(user, ticket).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        response.json().await.unwrap()
    }

    pub(crate) async fn cancel(&self, user: UserId, order: OrderId) -> Response {
        let request = self.request(Method::DELETE, &format!("/api/orders/{order}"));
        request.bearer_auth(token(user)).send().await.unwrap()
    }

    /// Waits until the order has that status.
    pub(crate) async fn shows(&self, order: &Order, status: &str) -> Value {
        let path = format!("/api/orders/{}", order.id);
        eventually(&format!("order {} is {status}", order.id), async || {
            let order = self.read(order.user_id, &path).await;
            (order["status"] == status).then_some(order)
        })
        .await
    }

    /// The types of the order's events and, where it was cancelled, why.
    pub(crate) async fn history(&self, order: &Order) -> Vec<String> {
        let history = self.read(order.user_id, &format!("/api/orders/{}/history", order.id)).await;
        let told = |entry: &Value| match entry["data"]["reason"].as_str() {
            Some(reason) => format!("{} {reason}", entry["type"].as_str().unwrap()),
            None => entry["type"].as_str().unwrap().to_owned(),
        };
        history.as_array().unwrap().iter().map(told).collect()
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

/// Asserts that a request was refused with one message, which is about no field.
pub(crate) async fn refused(response: Response, status: StatusCode, message: &str) {
    assert_eq!(response.status(), status, "{message}");
    assert_eq!(errors(response).await, [(message.to_owned(), None)]);
}

/// Asks again and again until there is an answer, for 20 seconds at most.
pub(crate) async fn eventually<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn jetstream(nats: &str) -> jetstream::Context {
    jetstream::new(async_nats::connect(nats).await.unwrap())
}

/// Waits until the service has dealt with everything that payments and deadlines told.
pub(crate) async fn all_handled(jetstream: &jetstream::Context) {
    for stream in [PAYMENTS, EXPIRATIONS] {
        eventually("every event is handled", async || {
            let stream = jetstream.get_stream(stream.name).await.unwrap();
            let consumer = stream.consumer_info(durable::ORDERS).await.ok()?;
            (consumer.num_pending == 0 && consumer.num_ack_pending == 0).then_some(())
        })
        .await;
    }
}

/// The logs of svc-auth, svc-tickets, svc-payments and svc-expiration, written as each of them does.
pub(crate) struct Neighbours {
    connection: Connection,
    /// Each subject's next version, and the sequence of the last.
    ends: HashMap<String, (u64, u64)>,
}

impl Neighbours {
    pub(crate) async fn create(nats: &str) -> Self {
        let settings = Settings { url: nats.into(), auth: Auth::None, ca: None, name: "neighbours".into() };
        let connection = Connection::open(settings).await.unwrap();
        for stream in [USERS, TICKETS, PAYMENTS, EXPIRATIONS] {
            let config = StreamConfig {
                name: stream.name.into(),
                subjects: stream.subjects.into(),
                replicas: 1,
                source: stream.source.into(),
            };
            Log::create(&connection, &config).await.unwrap();
        }
        Self { connection, ends: HashMap::new() }
    }

    /// Appends an event; returns its sequence.
    async fn append<E: Event>(&mut self, stream: Stream, subject: String, event: &E) -> u64 {
        let log = Log::reader(&self.connection, stream.name, stream.source);
        let (version, last) = self.ends.get(&subject).copied().unwrap_or_default();
        // After an outage the connection takes a moment to come back.
        let appended = eventually("the neighbour is connected", async || {
            log.append(&subject, event, version, last, Cause::Command).await.ok()
        })
        .await;
        self.ends.insert(subject, (version + 1, appended.sequence));
        appended.sequence
    }

    /// What svc-auth records of somebody, whose address has this number.
    pub(crate) async fn account(&mut self, number: u128, event: UserEvent) {
        self.append(USERS, user_subject(&format!("{number:064x}")), &event).await;
    }

    pub(crate) async fn list(&mut self, title: &str, cents: i64) -> TicketId {
        self.list_of(STRANGER, title, cents).await.0
    }

    /// Lists a ticket of a seller's; returns also the sequence that a reader must have seen to see it.
    pub(crate) async fn list_of(&mut self, seller: UserId, title: &str, cents: i64) -> (TicketId, u64) {
        let id = TicketId(Uuid::now_v7());
        let (title, price_cents) = (title.into(), Cents(cents));
        let listed = TicketEvent::Created(TicketCreated { id, title, price_cents, user_id: seller });
        (id, self.append(TICKETS, ticket_subject(id), &listed).await)
    }

    /// Lists tickets of the seller's and writes each one's orders as svc-orders does: given up, but for the last. The
    /// orders are numbered in turns: each ticket's first, then each one's second.
    pub(crate) async fn sell_much(
        &self,
        nats: &str,
        seller: UserId,
        buyer: UserId,
        tickets: u128,
        orders_each: u128,
    ) {
        let settings = Settings { url: nats.into(), auth: Auth::None, ca: None, name: ORDERS.source.into() };
        let connection = Connection::open(settings).await.unwrap();
        let config = StreamConfig {
            name: ORDERS.name.into(),
            subjects: ORDERS.subjects.into(),
            replicas: 1,
            source: ORDERS.source.into(),
        };
        let orders_log = &Log::create(&connection, &config).await.unwrap();
        let tickets_log = &Log::reader(&self.connection, TICKETS.name, TICKETS.source);
        // Having looked at it, it knows that the stream takes batches.
        tickets_log.state().await.unwrap();
        let selling = (0..tickets).map(|number| async move {
            let id = TicketId(Uuid::from_u128(number));
            let (title, price_cents) = (format!("ticket {number}"), Cents(100));
            let created = TicketCreated { id, title: title.clone(), price_cents, user_id: seller };
            let created = TicketEvent::Created(created);
            tickets_log.append(&ticket_subject(id), &created, 0, 0, Cause::Command).await.unwrap();
            let (mut version, mut last) = (0, 0);
            for turn in 0..orders_each {
                let order = OrderId(Uuid::from_u128(turn * tickets + number));
                let placed = OrderEvent::Created(OrderCreated {
                    id: order,
                    status: OrderStatus::Created,
                    user_id: buyer,
                    expires_at: Timestamp::from(SystemTime::now()),
                    ticket: OrderedTicket { id, title: title.clone(), price_cents },
                });
                let (reason, ticket) = (CancelReason::Buyer, TicketRef { id });
                let given_up = OrderEvent::Cancelled(OrderCancelled { id: order, reason, ticket });
                let events = if turn + 1 < orders_each { vec![placed, given_up] } else { vec![placed] };
                for event in events {
                    let subject = order_subject(id);
                    let appended = orders_log.append(&subject, &event, version, last, Cause::Command).await;
                    (version, last) = (version + 1, appended.unwrap().sequence);
                }
            }
        });
        stream::iter(selling).buffer_unordered(256).collect::<Vec<()>>().await;
    }

    /// Edits a ticket; returns the sequence that a reader must have seen to see it.
    pub(crate) async fn edit(&mut self, id: TicketId, title: &str, cents: i64) -> u64 {
        let edited = TicketEvent::Updated(TicketUpdated {
            id,
            title: title.into(),
            price_cents: Cents(cents),
            user_id: STRANGER,
            order_id: None,
            sold: false,
            order_version: None,
        });
        self.append(TICKETS, ticket_subject(id), &edited).await
    }

    pub(crate) async fn pay(&mut self, event: PaymentEvent) {
        let order = match &event {
            PaymentEvent::Requested(event) => event.order_id,
            PaymentEvent::ActionRequired(event)
            | PaymentEvent::Authorized(event)
            | PaymentEvent::Created(event)
            | PaymentEvent::Disputed(event) => event.order_id,
            PaymentEvent::PartiallyRefunded(event) => event.order_id,
            PaymentEvent::Declined(event)
            | PaymentEvent::Voided(event)
            | PaymentEvent::RefundRequested(event)
            | PaymentEvent::RefundFailed(event)
            | PaymentEvent::Refunded(event) => event.order_id,
        };
        self.append(PAYMENTS, payment_subject(order), &event).await;
    }

    pub(crate) async fn expire(&mut self, order: OrderId) {
        let over = ExpirationEvent::Complete(ExpirationComplete { order_id: order });
        self.append(EXPIRATIONS, expiration_subject(order), &over).await;
    }
}

pub(crate) fn authorized(order: OrderId) -> PaymentEvent {
    PaymentEvent::Authorized(settled(order))
}

pub(crate) fn charged(order: OrderId) -> PaymentEvent {
    PaymentEvent::Created(settled(order))
}

pub(crate) fn declined(order: OrderId) -> PaymentEvent {
    PaymentEvent::Declined(unsettled(order))
}

pub(crate) fn voided(order: OrderId) -> PaymentEvent {
    PaymentEvent::Voided(unsettled(order))
}

pub(crate) fn refunded(order: OrderId) -> PaymentEvent {
    PaymentEvent::Refunded(unsettled(order))
}

fn settled(order: OrderId) -> PaymentSettled {
    PaymentSettled { id: PaymentId(order.0), order_id: order, stripe_id: "pi_1".into() }
}

fn unsettled(order: OrderId) -> PaymentUnsettled {
    let stripe_id = Some("pi_1".into());
    PaymentUnsettled { id: PaymentId(order.0), order_id: order, stripe_id, reason: "no funds".into() }
}
