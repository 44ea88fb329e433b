//! The system as it runs in production, at hand: one nats-server, one Stripe sandbox, every service a process of
//! its own, as many replicas as a test wants, killed and started again at will.

#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    collections::HashMap,
    fs::File,
    future::Future,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures::StreamExt;
use reqwest::{Method, StatusCode};
use sandbox::{
    nats::{NatsOptions, NatsServer},
    stripe::{StripeOptions, StripeSandbox},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::Instant,
};
use uuid::Uuid;

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

const JWT_KEY: &str = "a key that only tests sign with, 32 characters or more";
const MASTER_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

/// A service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Service {
    Auth,
    Tickets,
    Orders,
    Payments,
    Expiration,
}

use Service::{Auth, Expiration, Orders, Payments, Tickets};

pub(crate) const ALL: [Service; 5] = [Auth, Tickets, Orders, Payments, Expiration];

impl Service {
    fn program(self) -> &'static str {
        match self {
            Auth => "svc-auth",
            Tickets => "svc-tickets",
            Orders => "svc-orders",
            Payments => "svc-payments",
            Expiration => "svc-expiration",
        }
    }
}

struct Process {
    child: Option<Child>,
    port: u16,
    data_dir: PathBuf,
    log: PathBuf,
    variables: HashMap<&'static str, String>,
}

/// Everything, running.
pub(crate) struct System {
    pub(crate) nats: NatsServer,
    pub(crate) stripe: StripeSandbox,
    processes: HashMap<(Service, usize), Process>,
    keys: web::Keys,
    http: reqwest::Client,
    directory: TempDir,
}

/// How a system is to be.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// How many svc-orders there are; of the others one.
    pub(crate) orders_replicas: usize,
    /// `EXPIRATION_WINDOW_SECONDS`.
    pub(crate) window_seconds: u64,
}

impl Default for Layout {
    fn default() -> Self {
        Self { orders_replicas: 1, window_seconds: 900 }
    }
}

impl System {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(layout: Layout) -> Self {
        let directory = TempDir::new().unwrap();
        let nats = NatsServer::start(NatsOptions { store_dir: directory.path().join("nats"), port: None });
        let stripe = StripeSandbox::start(StripeOptions::default());
        let mut system = Self {
            nats: nats.await.unwrap(),
            stripe: stripe.await.unwrap(),
            processes: HashMap::new(),
            keys: web::Keys::new(JWT_KEY, None),
            http: reqwest::Client::builder().timeout(PATIENCE).build().unwrap(),
            directory,
        };
        for service in ALL {
            let replicas = if service == Orders { layout.orders_replicas } else { 1 };
            for replica in 0..replicas {
                system.add(service, replica, layout.window_seconds);
            }
        }
        let every: Vec<_> = system.processes.keys().copied().collect();
        for (service, replica) in every {
            system.ready(service, replica).await;
        }
        system
    }

    fn add(&mut self, service: Service, replica: usize, window_seconds: u64) {
        let name = format!("{}-{replica}", service.program());
        let data_dir = self.directory.path().join(&name);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let variables = HashMap::from([
            ("PORT", port.to_string()),
            ("DATA_DIR", data_dir.display().to_string()),
            ("NATS_URL", self.nats.url().to_owned()),
            ("JWT_KEY", JWT_KEY.into()),
            ("MASTER_KEY", MASTER_KEY.into()),
            ("STRIPE_KEY", "sk_test_sandbox".into()),
            ("STRIPE_API_BASE", self.stripe.url().to_owned()),
            ("EXPIRATION_WINDOW_SECONDS", window_seconds.to_string()),
            ("SIGNUPS_PER_MINUTE", "0".into()),
            ("SIGNIN_FAILURES_PER_MINUTE", "0".into()),
            ("SCRYPT_LOG_N", "14".into()),
        ]);
        let log = self.directory.path().join(format!("{name}.log"));
        self.processes.insert((service, replica), Process { child: None, port, data_dir, log, variables });
        self.spawn(service, replica);
    }

    /// Starts the process, again if need be.
    pub(crate) fn spawn(&mut self, service: Service, replica: usize) {
        let program = Path::new(env!("CARGO_BIN_EXE_ticketing")).with_file_name(service.program());
        assert!(program.exists(), "{} is missing: run `cargo build --workspace` first", program.display());
        let process = self.processes.get_mut(&(service, replica)).unwrap();
        let log = File::options().create(true).append(true).open(&process.log).unwrap();
        let child = Command::new(program)
            .env_clear()
            .envs(&process.variables)
            .env("RUST_LOG", std::env::var("RUST_LOG").unwrap_or_else(|_| "info".into()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .kill_on_drop(true)
            .spawn();
        process.child = Some(child.unwrap());
    }

    /// SIGKILL.
    pub(crate) async fn kill(&mut self, service: Service, replica: usize) {
        let mut child = self.processes.get_mut(&(service, replica)).unwrap().child.take().unwrap();
        child.kill().await.unwrap();
    }

    /// SIGTERM; returns whether it ended with exit code 0, and how long that took.
    pub(crate) async fn terminate(&mut self, service: Service, replica: usize) -> (bool, Duration) {
        let mut child = self.processes.get_mut(&(service, replica)).unwrap().child.take().unwrap();
        let started = Instant::now();
        send("TERM", child.id().unwrap());
        let status = tokio::time::timeout(PATIENCE, child.wait()).await.expect("ends in time").unwrap();
        (status.success(), started.elapsed())
    }

    /// Waits until the process says that it is ready.
    pub(crate) async fn ready(&self, service: Service, replica: usize) {
        let url = self.url(service, replica, "/readyz");
        let is_ready = || async {
            match self.http.get(&url).send().await {
                Ok(answer) => (answer.status() == StatusCode::OK).then_some(()),
                Err(_) => None,
            }
        };
        if within(PATIENCE, is_ready).await.is_none() {
            panic!("{service:?} {replica} is not ready; it says:\n{}", self.log(service, replica));
        }
    }

    /// Where the process keeps its projections.
    pub(crate) fn data_dir(&self, service: Service, replica: usize) -> &Path {
        &self.processes[&(service, replica)].data_dir
    }

    /// What the process has written to its log.
    pub(crate) fn log(&self, service: Service, replica: usize) -> String {
        std::fs::read_to_string(&self.processes[&(service, replica)].log).unwrap_or_default()
    }

    pub(crate) fn url(&self, service: Service, replica: usize, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.processes[&(service, replica)].port)
    }

    /// Somebody signed in: a session as svc-auth would make it.
    pub(crate) fn person(&self) -> Person {
        let id = Uuid::now_v7();
        let email = format!("{id}@example.com");
        let token = self.keys.sign(id, &email, Duration::from_secs(3600));
        Person { id, token, http: self.http.clone() }
    }

    /// A ticket of `seller`'s.
    pub(crate) async fn list_ticket(&self, seller: &Person, price: f64) -> String {
        let body = json!({ "title": "Concert", "price": price });
        let (status, ticket) = seller.post(&self.url(Tickets, 0, "/api/tickets"), body).await;
        assert_eq!(status, StatusCode::CREATED, "{ticket}");
        text(&ticket["id"])
    }

    /// An order of `buyer`'s for `ticket`.
    pub(crate) async fn reserve(&self, buyer: &Person, ticket: &str) -> String {
        let (status, order) = self.try_reserve(buyer, ticket, 0).await;
        assert_eq!(status, StatusCode::CREATED, "{order}");
        text(&order["id"])
    }

    pub(crate) async fn try_reserve(
        &self,
        buyer: &Person,
        ticket: &str,
        replica: usize,
    ) -> (StatusCode, Value) {
        buyer.post(&self.url(Orders, replica, "/api/orders"), json!({ "ticketId": ticket })).await
    }

    pub(crate) async fn try_pay(&self, buyer: &Person, order: &str, method: &str) -> (StatusCode, Value) {
        buyer
            .post(&self.url(Payments, 0, "/api/payments"), json!({ "token": method, "orderId": order }))
            .await
    }

    pub(crate) async fn order(&self, buyer: &Person, order: &str) -> Value {
        let (status, body) = buyer.get(&self.url(Orders, 0, &format!("/api/orders/{order}"))).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    pub(crate) async fn ticket(&self, ticket: &str) -> Value {
        let (status, body) =
            self.person().get(&self.url(Tickets, 0, &format!("/api/tickets/{ticket}"))).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// Waits until the order has the status.
    pub(crate) async fn until_order(&self, buyer: &Person, order: &str, status: &str) {
        let url = self.url(Orders, 0, &format!("/api/orders/{order}"));
        let has_status = || async { (buyer.get(&url).await.1["status"] == status).then_some(()) };
        if within(PATIENCE, has_status).await.is_none() {
            let (_, order) = buyer.get(&url).await;
            panic!("the order is not {status}: {order}\n{}", self.log(Payments, 0));
        }
    }

    /// Waits until the ticket has the status.
    pub(crate) async fn until_ticket(&self, ticket: &str, status: &str) {
        let has_status = || async { (self.ticket(ticket).await["status"] == status).then_some(()) };
        if within(PATIENCE, has_status).await.is_none() {
            panic!("the ticket is not {status}: {}", self.ticket(ticket).await);
        }
    }

    /// JetStream, as an operator would look at it.
    pub(crate) async fn jetstream(&self) -> async_nats::jetstream::Context {
        async_nats::jetstream::new(async_nats::connect(self.nats.url()).await.unwrap())
    }

    /// All that a stream holds, straight from the server.
    pub(crate) async fn read_stream(&self, name: &str) -> Vec<Stored> {
        let stream = self.jetstream().await.get_stream(name).await.unwrap();
        let last = stream.cached_info().state.last_sequence;
        let mut stored = Vec::new();
        if last == 0 {
            return stored;
        }
        let consumer =
            stream.create_consumer(async_nats::jetstream::consumer::pull::OrderedConfig::default());
        let mut messages = consumer.await.unwrap().messages().await.unwrap();
        while let Some(message) = messages.next().await {
            let message = message.unwrap();
            let sequence = message.info().unwrap().stream_sequence;
            let header = |name| message.headers.as_ref().and_then(|headers| headers.get(name));
            stored.push(Stored {
                sequence,
                subject: message.subject.to_string(),
                event_type: header("ce-type").map(ToString::to_string).unwrap_or_default(),
                time: message.info().unwrap().published,
                payload: serde_json::from_slice(&message.payload).unwrap_or(Value::Null),
            });
            if sequence >= last {
                break;
            }
        }
        stored
    }
}

/// A message of a stream.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) sequence: u64,
    pub(crate) subject: String,
    pub(crate) event_type: String,
    pub(crate) time: time::OffsetDateTime,
    pub(crate) payload: Value,
}

/// Somebody with a session.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) id: Uuid,
    token: String,
    http: reqwest::Client,
}

impl Person {
    /// The session, for a request built by hand.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    pub(crate) async fn get(&self, url: &str) -> (StatusCode, Value) {
        self.send(Method::GET, url, None).await
    }

    pub(crate) async fn post(&self, url: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::POST, url, Some(body)).await
    }

    pub(crate) async fn put(&self, url: &str, body: Value) -> (StatusCode, Value) {
        self.send(Method::PUT, url, Some(body)).await
    }

    pub(crate) async fn delete(&self, url: &str) -> (StatusCode, Value) {
        self.send(Method::DELETE, url, None).await
    }

    async fn send(&self, method: Method, url: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.try_send(method, url, body).await.unwrap_or((StatusCode::BAD_GATEWAY, Value::Null))
    }

    /// As [`Person::post`], where no answer at all is an error and not an ingress's 502.
    pub(crate) async fn try_send(
        &self,
        method: Method,
        url: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Value), reqwest::Error> {
        let mut request = self.http.request(method, url).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        Ok((status, answer.json().await.unwrap_or(Value::Null)))
    }
}

/// Sends a signal, by name, to a process of ours.
pub(crate) fn send(signal: &str, pid: u32) {
    // The shell's own `kill`: not every machine has a program of that name.
    let script = format!("kill -{signal} \"$0\"");
    let sent = std::process::Command::new("sh").args(["-c", &script, &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

/// Asks until there is an answer, or time is up.
pub(crate) async fn within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    mut ask: impl FnMut() -> F,
) -> Option<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask().await {
            return Some(answer);
        }
        if Instant::now() > deadline {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A string of a JSON body.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a string: {value}")).to_owned()
}
