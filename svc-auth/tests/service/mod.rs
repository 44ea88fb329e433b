//! svc-auth in this process, on a real nats-server, and a client.

// Each file of tests uses its own part of this.
#![allow(dead_code)]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, kv};
use contract::{
    http::User,
    stream::{DEAD_LETTERS, DEAD_LETTERS_PREFIX, USERS, user_subject},
};
use eventstore::{Auth, Settings, StartError, StoreConfig};
use reqwest::{Client, Response, StatusCode};
use sandbox::nats::NatsServer;
use serde_json::{Value, json};
use svc_auth::{Config, MasterKey, MasterKeys, domain::Email, sealing::EmailKey, user_keys::BUCKET};
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use web::{Listener, SessionCookie, Signer};

pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn config(nats: &NatsServer, dir: &Path) -> Config {
    Config {
        store: StoreConfig {
            nats: Settings { url: nats.url().into(), auth: Auth::None, ca: None, name: "svc-auth".into() },
            replicas: 1,
            database: dir.join("auth"),
            cache_bytes: 8 << 20,
            snapshots: None,
            dead_letters: DEAD_LETTERS.into(),
            dead_letters_prefix: DEAD_LETTERS_PREFIX.into(),
        },
        signer: Signer::new("jwt"),
        cookie: SessionCookie { secure: true },
        master_keys: master_key("a").into(),
        scrypt_log_n: 4,
        trusted_proxies: web::Proxies::local(),
        signups_per_minute: 0,
        signin_failures_per_minute: 0,
    }
}

pub(crate) fn master_key(digit: &str) -> MasterKey {
    digit.repeat(64).parse().unwrap()
}

/// The email key of a system that began with that master key.
pub(crate) fn email_key() -> EmailKey {
    let keys = MasterKeys::from(master_key("a"));
    keys.first_email_key(keys.current()).unwrap().0
}

/// A running svc-auth.
pub(crate) struct Service {
    pub(crate) url: String,
    pub(crate) http: Client,
    shutdown: CancellationToken,
    running: JoinHandle<Result<(), StartError>>,
}

impl Service {
    pub(crate) async fn start(config: Config) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", tcp.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(svc_auth::run(config, Listener::from(tcp), shutdown.clone()));
        let service = Self { url, http: Client::new(), shutdown, running };
        service.ready().await;
        service
    }

    pub(crate) async fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.http.get(format!("{}/readyz", self.url)).send().await;
            if answer.is_ok_and(|answer| answer.status() == StatusCode::OK) {
                return;
            }
            assert!(Instant::now() < deadline && !self.running.is_finished(), "it does not become ready");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        timeout(PATIENCE, self.running).await.unwrap().unwrap().unwrap();
    }

    pub(crate) async fn post(&self, what: &str, body: &Value) -> Response {
        self.http.post(format!("{}/api/users/{what}", self.url)).json(body).send().await.unwrap()
    }

    pub(crate) async fn sign_up(&self, email: &str, password: &str) -> Response {
        self.post("signup", &json!({ "email": email, "password": password })).await
    }

    pub(crate) async fn sign_in(&self, email: &str, password: &str) -> Response {
        self.post("signin", &json!({ "email": email, "password": password })).await
    }

    /// Asks to be erased, with the token of a session.
    pub(crate) async fn erase(&self, token: &str, body: &Value) -> Response {
        let request = self.http.delete(format!("{}/api/users/me", self.url)).bearer_auth(token);
        request.json(body).send().await.unwrap()
    }

    /// Who `/currentuser` says one is with this header.
    pub(crate) async fn current_user(&self, header: &str, value: &str) -> Value {
        let request = self.http.get(format!("{}/api/users/currentuser", self.url)).header(header, value);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        answer.json::<Value>().await.unwrap()["currentUser"].take()
    }
}

pub(crate) async fn user(answer: Response, status: StatusCode) -> User {
    assert_eq!(answer.status(), status);
    answer.json().await.unwrap()
}

/// The cookie that sets or ends the session, and its attributes.
pub(crate) fn session_cookie(answer: &Response) -> (String, String) {
    let cookies = answer.headers().get_all("set-cookie").iter().map(|cookie| cookie.to_str().unwrap());
    let cookie = cookies.filter_map(|cookie| cookie.strip_prefix("session=")).next().unwrap();
    let (token, attributes) = cookie.split_once("; ").unwrap();
    (token.into(), attributes.into())
}

pub(crate) async fn refused(answer: Response, status: StatusCode, errors: Value) {
    assert_eq!(answer.status(), status);
    assert!(answer.headers().get("set-cookie").is_none());
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "errors": errors }));
}

pub(crate) async fn bad_request(answer: Response, message: &str) {
    refused(answer, StatusCode::BAD_REQUEST, json!([{ "message": message }])).await;
}

/// Signs somebody up; returns who they are and the token of their session.
pub(crate) async fn newcomer(auth: &Service, email: &str, password: &str) -> (User, String) {
    let answer = auth.sign_up(email, password).await;
    let (token, _) = session_cookie(&answer);
    (user(answer, StatusCode::CREATED).await, token)
}

/// The users' keys, as the server has them.
pub(crate) async fn keys_of(nats: &NatsServer) -> kv::Store {
    jetstream::new(async_nats::connect(nats.url()).await.unwrap()).get_key_value(BUCKET).await.unwrap()
}

/// The types of an address's events.
pub(crate) async fn events_of(nats: &NatsServer, email: &str) -> Vec<String> {
    let subject = user_subject(&email_key().of(&Email::parse(email).unwrap()));
    let stream = jetstream::new(async_nats::connect(nats.url()).await.unwrap()).get_stream(USERS.name).await;
    let stream = stream.unwrap();
    let mut types = Vec::new();
    for sequence in 1..=stream.cached_info().state.last_sequence {
        let message = stream.get_raw_message(sequence).await.unwrap();
        if message.subject.as_str() == subject {
            types.push(message.headers.get("ce-type").unwrap().as_str().to_owned());
        }
    }
    types
}
