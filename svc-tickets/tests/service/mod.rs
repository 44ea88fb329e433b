//! svc-tickets in this process, its neighbour svc-orders as far as its log goes, and a client.

// Each file of tests uses its own part of this.
#![allow(dead_code)]

use std::{collections::HashMap, path::Path, time::Duration};

use contract::{
    OrderEvent, OrderId, PaymentId, TicketId, Timestamp, UserId,
    event::{
        CancelReason, OrderAwaitingPayment, OrderCancelled, OrderCompleted, OrderCreated, OrderStatus,
        OrderedTicket, TicketRef,
    },
    stream::{ORDERS, Stream, TICKETS, USERS, order_subject},
};
use eventstore::{Auth, Cause, Connection, Log, Settings, StreamConfig};
use reqwest::{Method, RequestBuilder, Response, StatusCode, header::LINK};
use serde_json::{Value, json};
use svc_tickets::Config;
use tokio::{net::TcpListener, task::JoinHandle, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use web::{Claims, Env, Signer};

pub(crate) const SELLER: UserId = UserId(Uuid::from_u128(0x5e11e4));
pub(crate) const STRANGER: UserId = UserId(Uuid::from_u128(0x57a4));

const JWT_KEY: &str = "a key for tests, of more than 32 characters";

/// The service, ready.
pub(crate) struct Service {
    url: String,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), eventstore::StartError>>,
    client: reqwest::Client,
}

impl Service {
    /// Starts the service on a free port and waits until it is ready.
    pub(crate) async fn start(nats: &str, data: &Path) -> Self {
        // Whose sessions have ended: svc-auth has created its log, too.
        create(nats, USERS).await;
        let (nats, data) = (nats.to_owned(), data.to_str().unwrap().to_owned());
        let env = Env::from(move |name| match name {
            "NATS_URL" => Some(nats.clone()),
            "DATA_DIR" => Some(data.clone()),
            "JWT_KEY" => Some(JWT_KEY.into()),
            _ => None,
        });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let config = Config::from_env(&env).unwrap();
        let running = tokio::spawn(svc_tickets::run(config, listener.into(), shutdown.clone()));
        let service = Self { url, shutdown, running, client: reqwest::Client::new() };
        eventually("the service is ready", async || {
            let ready = service.get("/readyz").send().await.ok()?;
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

    pub(crate) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    /// What a GET that succeeds answers.
    pub(crate) async fn read(&self, path: &str) -> Value {
        let response = self.get(path).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    /// The pages of a list, from the first to the last. The link to each keeps what was asked for.
    pub(crate) async fn pages(&self, path: &str) -> Vec<Vec<Value>> {
        let (mut next, mut pages) = (path.to_owned(), Vec::new());
        loop {
            let response = self.get(&next).send().await.unwrap();
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
        let request = self.request(Method::POST, "/api/tickets").bearer_auth(token(user));
        request.json(body).send().await.unwrap()
    }

    pub(crate) async fn put(&self, user: UserId, ticket: &str, body: &Value) -> Response {
        let request = self.request(Method::PUT, &format!("/api/tickets/{ticket}")).bearer_auth(token(user));
        request.json(body).send().await.unwrap()
    }

    /// Lists a ticket of [`SELLER`]'s.
    pub(crate) async fn list(&self, title: &str, price: f64) -> TicketId {
        let response = self.post(SELLER, &json!({ "title": title, "price": price })).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let ticket: contract::http::Ticket = response.json().await.unwrap();
        ticket.id
    }

    /// Waits until the ticket is as a test of it says.
    pub(crate) async fn shows(&self, ticket: TicketId, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || {
            let ticket = self.read(&format!("/api/tickets/{ticket}")).await;
            is(&ticket).then_some(ticket)
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
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The log of svc-tickets itself, which has created it.
pub(crate) async fn tickets_log(nats: &str) -> Log {
    let settings = Settings { url: nats.into(), auth: Auth::None, ca: None, name: TICKETS.source.into() };
    let connection = Connection::open(settings).await.unwrap();
    eventually("nats is connected", async || connection.is_up().then_some(())).await;
    let log = Log::reader(&connection, TICKETS.name, TICKETS.source);
    // Having looked at it, it knows that the stream takes batches.
    log.state().await.unwrap();
    log
}

/// A neighbour's log, created as the neighbour does.
pub(crate) async fn create(nats: &str, stream: Stream) -> Log {
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

/// The log of svc-orders, written as svc-orders does.
pub(crate) struct Orders {
    pub(crate) log: Log,
    /// Each ticket's next version, and the sequence of the last.
    ends: HashMap<TicketId, (u64, u64)>,
}

impl Orders {
    pub(crate) async fn create(nats: &str) -> Self {
        Self { log: create(nats, ORDERS).await, ends: HashMap::new() }
    }

    /// Appends an event to its ticket's subject; returns its version there.
    pub(crate) async fn append(&mut self, event: OrderEvent) -> u64 {
        let ticket = match &event {
            OrderEvent::Created(event) => event.ticket.id,
            OrderEvent::AwaitingPayment(event) => event.ticket.id,
            OrderEvent::Cancelled(event) => event.ticket.id,
            OrderEvent::Completed(event) => event.ticket.id,
        };
        let (version, last) = self.ends.get(&ticket).copied().unwrap_or_default();
        let appended =
            self.log.append(&order_subject(ticket), &event, version, last, Cause::Command).await.unwrap();
        self.ends.insert(ticket, (version + 1, appended.sequence));
        version
    }
}

pub(crate) fn created(id: OrderId, ticket: TicketId) -> OrderEvent {
    OrderEvent::Created(OrderCreated {
        id,
        status: OrderStatus::Created,
        user_id: STRANGER,
        expires_at: Timestamp::from(std::time::SystemTime::now()).plus(Duration::from_secs(900)),
        ticket: OrderedTicket { id: ticket, title: "as ordered".into(), price_cents: contract::Cents(1) },
    })
}

pub(crate) fn awaiting_payment(id: OrderId, ticket: TicketId) -> OrderEvent {
    let payment_id = PaymentId(id.0);
    OrderEvent::AwaitingPayment(OrderAwaitingPayment { id, payment_id, ticket: TicketRef { id: ticket } })
}

pub(crate) fn cancelled(id: OrderId, ticket: TicketId, reason: CancelReason) -> OrderEvent {
    OrderEvent::Cancelled(OrderCancelled { id, reason, ticket: TicketRef { id: ticket } })
}

pub(crate) fn completed(id: OrderId, ticket: TicketId) -> OrderEvent {
    let payment_id = PaymentId(id.0);
    OrderEvent::Completed(OrderCompleted { id, payment_id, ticket: TicketRef { id: ticket } })
}
