//! The system as it runs in production, at hand: one nats-server, one Stripe sandbox, every service a process of
//! its own, as many replicas as a test wants, killed and started again at will.

#![allow(dead_code, reason = "each test file uses a part")]

pub(crate) mod collector;
pub(crate) mod faults;
pub(crate) mod port;
pub(crate) mod purchase;

use std::{
    collections::HashMap,
    fs::File,
    future::Future,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use futures::StreamExt;
use reqwest::{Method, StatusCode};
use sandbox::{
    nats::{NatsOptions, NatsServer},
    stripe::{Delivery, StripeOptions, StripeSandbox, WebhookEndpoint},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    time::Instant,
};
use uuid::Uuid;

use self::port::Port;

/// How long anything may take before a test gives up on it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Where Stripe's events go.
pub(crate) const WEBHOOK: &str = "/api/payments/webhook";

pub(crate) const JWT_KEY: &str = "a key that only tests sign with, 32 characters or more";
/// What the sandbox signs its events with.
pub(crate) const WEBHOOK_SECRET: &str = "whsec_that_only_tests_sign_with";
/// Any key of Stripe's test mode: what svc-payments has, and an operator at the dashboard.
pub(crate) const STRIPE_KEY: &str = "sk_test_sandbox";
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
    port: Port,
    data_dir: PathBuf,
    log: PathBuf,
    variables: HashMap<&'static str, String>,
}

/// Everything, running.
pub(crate) struct System {
    pub(crate) nats: NatsServer,
    pub(crate) stripe: StripeSandbox,
    processes: HashMap<(Service, usize), Process>,
    signer: web::Signer,
    http: reqwest::Client,
    directory: TempDir,
    _nats_port: Port,
}

/// How a system is to be.
#[derive(Clone, Copy)]
pub(crate) struct Layout {
    /// How many svc-orders there are.
    pub(crate) orders_replicas: usize,
    /// How many svc-payments there are; of the others one.
    pub(crate) payments_replicas: usize,
    /// `EXPIRATION_WINDOW_SECONDS`.
    pub(crate) window_seconds: u64,
    /// `STRIPE_TIMEOUT_SECONDS`.
    pub(crate) stripe_timeout_seconds: u8,
    /// `RECONCILE_SECONDS`.
    pub(crate) reconcile_seconds: u32,
    /// How Stripe's events get to the first svc-payments; `None`: never.
    pub(crate) webhook: Option<Delivery>,
    /// Whether each service is a user of its own at NATS, who may do what it needs and no more.
    pub(crate) nats_users: bool,
    /// Whether they reach it by TLS alone.
    pub(crate) nats_tls: bool,
}

impl Default for Layout {
    fn default() -> Self {
        Self {
            orders_replicas: 1,
            payments_replicas: 1,
            window_seconds: 900,
            stripe_timeout_seconds: 8,
            reconcile_seconds: 300,
            webhook: Some(Delivery::default()),
            nats_users: false,
            nats_tls: false,
        }
    }
}

/// Makes a key for each user and a certificate for this machine.
pub(crate) fn nats_keys(directory: &Path) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ticketing"));
    let command = command.args(["nats-keys", "--tls", "127.0.0.1", "--out"]).arg(directory);
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
}

/// What a server is to know of users, and with which certificate it is to insist on TLS.
fn nats_configuration(directory: &Path, tls: bool) -> PathBuf {
    nats_keys(directory);
    let users = directory.join("server/users.conf");
    if !tls {
        return users;
    }
    let file = |name: &str| directory.join("server").join(name);
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let tls = json!({ "cert_file": certificate, "key_file": key });
    let both = file("users-and-tls.conf");
    std::fs::write(&both, format!("{}tls: {tls}\n", std::fs::read_to_string(users).unwrap())).unwrap();
    both
}

impl System {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(layout: Layout) -> Self {
        Self::start_with(layout, HashMap::new()).await
    }

    /// As [`System::start`], with further variables for every process.
    pub(crate) async fn start_with(layout: Layout, variables: HashMap<&'static str, String>) -> Self {
        let directory = TempDir::new().unwrap();
        let nats_port = Port::reserve();
        let users =
            layout.nats_users.then(|| nats_configuration(&directory.path().join("keys"), layout.nats_tls));
        let store_dir = directory.path().join("nats");
        let options = NatsOptions { store_dir, port: Some(nats_port.number), users };
        let nats = NatsServer::start(options);
        let stripe = StripeSandbox::start(StripeOptions::default());
        let mut system = Self {
            nats: nats.await.unwrap(),
            stripe: stripe.await.unwrap(),
            processes: HashMap::new(),
            signer: web::Signer::new(JWT_KEY),
            http: reqwest::Client::builder().timeout(PATIENCE).build().unwrap(),
            directory,
            _nats_port: nats_port,
        };
        for service in ALL {
            let replicas = match service {
                Orders => layout.orders_replicas,
                Payments => layout.payments_replicas,
                Auth | Tickets | Expiration => 1,
            };
            for replica in 0..replicas {
                system.add(service, replica, &layout, &variables);
            }
        }
        if let Some(delivery) = layout.webhook {
            system.stripe.add_webhook_endpoint(WebhookEndpoint {
                url: system.url(Payments, 0, WEBHOOK),
                secret: WEBHOOK_SECRET.into(),
                delivery,
            });
        }
        let every: Vec<_> = system.processes.keys().copied().collect();
        for (service, replica) in every {
            system.ready(service, replica).await;
        }
        system
    }

    fn add(
        &mut self,
        service: Service,
        replica: usize,
        layout: &Layout,
        further: &HashMap<&'static str, String>,
    ) {
        let name = format!("{}-{replica}", service.program());
        let data_dir = self.directory.path().join(&name);
        let port = Port::reserve();
        let mut variables = HashMap::from([
            ("PORT", port.number.to_string()),
            ("DATA_DIR", data_dir.display().to_string()),
            ("NATS_URL", self.nats.url().to_owned()),
            ("JWT_KEY", JWT_KEY.into()),
            ("MASTER_KEY", MASTER_KEY.into()),
            ("STRIPE_KEY", STRIPE_KEY.into()),
            ("STRIPE_API_BASE", self.stripe.url().to_owned()),
            ("STRIPE_TIMEOUT_SECONDS", layout.stripe_timeout_seconds.to_string()),
            ("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET.into()),
            ("RECONCILE_SECONDS", layout.reconcile_seconds.to_string()),
            ("EXPIRATION_WINDOW_SECONDS", layout.window_seconds.to_string()),
            ("SIGNUPS_PER_MINUTE", "0".into()),
            ("SIGNIN_FAILURES_PER_MINUTE", "0".into()),
            // One user of a test's does what many would.
            ("USER_REQUESTS_PER_MINUTE", "0".into()),
            ("MAX_OPEN_ORDERS", "0".into()),
            ("SCRYPT_LOG_N", "14".into()),
        ]);
        if layout.nats_users {
            let key = self.nats_key(service.program());
            variables.insert("NATS_NKEY", key.display().to_string());
        }
        if layout.nats_tls {
            variables.insert("NATS_CA", self.nats_authority().display().to_string());
        }
        variables.extend(further.clone());
        let log = self.directory.path().join(format!("{name}.log"));
        self.processes.insert((service, replica), Process { child: None, port, data_dir, log, variables });
        self.spawn(service, replica);
    }

    /// Another value of a variable, from the next start on.
    pub(crate) fn set(&mut self, service: Service, replica: usize, name: &'static str, value: &str) {
        let process = self.processes.get_mut(&(service, replica)).unwrap();
        process.variables.insert(name, value.to_owned());
    }

    /// Starts the process, again if need be.
    pub(crate) fn spawn(&mut self, service: Service, replica: usize) {
        let program = Path::new(env!("CARGO_BIN_EXE_ticketing")).with_file_name(service.program());
        assert!(program.exists(), "{} is missing: run `cargo build --workspace` first", program.display());
        let process = self.processes.get_mut(&(service, replica)).unwrap();
        let log = File::options().create(true).append(true).open(&process.log).unwrap();
        let child = Command::new(program)
            .env_clear()
            .envs(std::env::var("RUST_LOG").map(|filter| ("RUST_LOG", filter)))
            .envs(&process.variables)
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
    pub(crate) async fn ready(&mut self, service: Service, replica: usize) {
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
        let child = self.processes.get_mut(&(service, replica)).unwrap().child.as_mut().unwrap();
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "somebody else answers: {service:?} {replica} has ended ({ended:?})");
    }

    /// Where everything of it is kept: the log, the projections, what its processes say.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
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
        format!("http://127.0.0.1:{}{path}", self.processes[&(service, replica)].port.number)
    }

    /// Somebody signed in: a session as svc-auth would make it.
    pub(crate) fn person(&self) -> Person {
        let id = Uuid::now_v7();
        let email = format!("{id}@example.com");
        let token = self.signer.sign(&web::Claims::new(id, &email, 0, Duration::from_secs(3600)));
        Person { id, token, http: self.http.clone() }
    }

    /// Somebody who brings this token.
    pub(crate) fn bearer(&self, id: Uuid, token: String) -> Person {
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
        self.try_pay_at(buyer, order, method, 0).await
    }

    pub(crate) async fn try_pay_at(
        &self,
        buyer: &Person,
        order: &str,
        method: &str,
        replica: usize,
    ) -> (StatusCode, Value) {
        let body = json!({ "token": method, "orderId": order });
        buyer.post(&self.url(Payments, replica, "/api/payments"), body).await
    }

    /// Kills the process if it runs, and starts it again.
    pub(crate) async fn restart(&mut self, service: Service, replica: usize) {
        if self.processes[&(service, replica)].child.is_some() {
            self.kill(service, replica).await;
        }
        self.spawn(service, replica);
        self.ready(service, replica).await;
    }

    /// What an operator does at Stripe's dashboard: its API, with another client.
    pub(crate) async fn at_dashboard(&self, path: &str, form: &[(&str, &str)]) -> Value {
        let request = self.http.post(format!("{}{path}", self.stripe.url())).bearer_auth(STRIPE_KEY);
        let answer = request.form(form).send().await.unwrap();
        let (status, body) = (answer.status(), answer.json::<Value>().await.unwrap());
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }

    /// What a metric of the process stands at, over all its labels that contain `label`; 0 if it was never counted.
    pub(crate) async fn metric(&self, service: Service, replica: usize, name: &str, label: &str) -> f64 {
        let answer = self.http.get(self.url(service, replica, "/metrics")).send().await.unwrap();
        let text = answer.text().await.unwrap();
        let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        let lines = lines.filter(|(labels, _)| labels.is_empty() || labels.starts_with('{'));
        lines
            .filter(|(labels, _)| labels.contains(label))
            .map(|(_, value)| value.parse::<f64>().unwrap())
            .sum()
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

    /// JetStream as a person sees it who may see everything.
    pub(crate) async fn jetstream(&self) -> async_nats::jetstream::Context {
        let options = match self.nats_key("operator").exists() {
            true => async_nats::ConnectOptions::with_nkey(self.nats_seed("operator")),
            false => async_nats::ConnectOptions::new(),
        };
        let options = match self.nats_authority().exists() {
            true => options.add_root_certificates(self.nats_authority()),
            false => options,
        };
        async_nats::jetstream::new(options.connect(self.nats.url()).await.unwrap())
    }

    /// The certificate of whoever says who the server is.
    pub(crate) fn nats_authority(&self) -> PathBuf {
        self.directory.path().join("keys/operator/ca.pem")
    }

    pub(crate) fn nats_key(&self, user: &str) -> PathBuf {
        self.directory.path().join(format!("keys/{user}/nats.nk"))
    }

    /// Waits until the audit of the log finds nothing, with no grace for what has to follow.
    pub(crate) async fn is_sound(&self) {
        let audit = |grace: &'static str| async move {
            let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
            command.args(["audit", "--grace", grace, "--stripe-ledger", self.stripe.url()]).env_clear();
            command.env("NATS_URL", self.nats.url());
            if self.has_nats_users() {
                command.env("NATS_NKEY", self.nats_key("operator"));
            }
            let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
            (
                output.status.code(),
                String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
            )
        };
        // What may not be at any time is not to be waited for.
        let (code, report) = audit("3600").await;
        assert_eq!(code, Some(0), "{report}");
        let is_sound = || async { (audit("0").await.0 == Some(0)).then_some(()) };
        if within(PATIENCE, is_sound).await.is_none() {
            panic!("{}", audit("0").await.1);
        }
    }

    /// Whether one has to say at NATS who one is.
    pub(crate) fn has_nats_users(&self) -> bool {
        self.nats_key("operator").exists()
    }

    /// The secret of a user at NATS.
    pub(crate) fn nats_seed(&self, user: &str) -> String {
        std::fs::read_to_string(self.nats_key(user)).unwrap().trim().to_owned()
    }

    /// The processes there are.
    pub(crate) fn running(&self) -> Vec<(Service, usize)> {
        self.processes.keys().copied().collect()
    }

    /// How many messages a stream holds.
    pub(crate) async fn length(&self, name: &str) -> u64 {
        let stream = self.jetstream().await.get_stream(name).await.unwrap();
        stream.cached_info().state.messages
    }

    /// All that a stream holds, straight from the server.
    pub(crate) async fn read_stream(&self, name: &str) -> Vec<Stored> {
        read(&self.jetstream().await, name).await
    }

    /// The processes that run.
    pub(crate) fn ids(&self) -> Vec<u32> {
        let children = self.processes.values().filter_map(|process| process.child.as_ref());
        children.filter_map(Child::id).collect()
    }
}

/// All that a stream holds.
pub(crate) async fn read(jetstream: &async_nats::jetstream::Context, name: &str) -> Vec<Stored> {
    let stream = jetstream.get_stream(name).await.unwrap();
    let last = stream.cached_info().state.last_sequence;
    let mut stored = Vec::new();
    if last == 0 {
        return stored;
    }
    // Who only looks may not make one without a name.
    let consumer = stream.create_consumer(async_nats::jetstream::consumer::pull::OrderedConfig {
        name: Some(format!("look-{}", Uuid::now_v7().simple())),
        ..Default::default()
    });
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
