//! The whole of it over real HTTP.

use std::{
    future::Future,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt, stream};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Client, RequestBuilder, StatusCode, header};
use serde_json::{Value, json};
use tokio::{
    io::AsyncReadExt, io::AsyncWriteExt, net::TcpListener, net::TcpStream, sync::Notify, task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use warp::{Filter, Rejection, Reply, path};
use web::{
    ApiError, Body, Claims, Event, Front, Health, Listener, Peer, Query, Session, Sessions, Signer, Status,
};

const HOUR: Duration = Duration::from_secs(3600);

/// A running service.
struct Service {
    url: String,
    shutdown: CancellationToken,
    running: JoinHandle<std::io::Result<()>>,
}

impl Service {
    async fn start<F>(health: Health, routes: F) -> Self
    where
        F: Filter<Extract: Reply + Send, Error = Rejection, Future: Send> + Clone + Send + Sync + 'static,
    {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", tcp.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(web::serve(Listener::from(tcp), health, routes, shutdown.clone()));
        Self { url, shutdown, running }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        Client::new().get(format!("{}{path}", self.url))
    }

    fn post(&self, path: &str) -> RequestBuilder {
        Client::new().post(format!("{}{path}", self.url))
    }

    async fn ended(self) {
        self.shutdown.cancel();
        soon(self.running).await.unwrap().unwrap();
    }
}

/// Fails instead of hanging.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(5), future).await.expect("in time")
}

async fn answer(request: RequestBuilder) -> (StatusCode, Value) {
    let response = soon(request.send()).await.unwrap();
    let status = response.status();
    (status, soon(response.json()).await.unwrap_or(Value::Null))
}

fn error(message: &str) -> Value {
    json!({"errors": [{"message": message}]})
}

fn signer() -> Signer {
    Signer::new("key")
}

fn routes() -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let who = path!("who").and(web::get()).and(web::session(&Sessions::new(signer().keys()))).then(who);
    let peer = path!("peer")
        .and(web::route("/peer"))
        .and(web::get())
        .and(web::peer())
        .map(|Peer(peer)| peer.ip().to_string());
    let echo = path!("echo").and(web::post()).and(web::body()).then(echo);
    let list = path!("list").and(web::get()).and(web::query()).then(list);
    let crash = path!("crash").and(web::get()).then(crash);
    who.map(web::reply).or(peer).or(echo.map(web::reply)).or(list.map(web::reply)).or(crash.map(web::reply))
}

async fn who(session: Session) -> Result<impl Reply, ApiError> {
    Ok(session.user()?.email.clone())
}

async fn echo(body: Body) -> Result<impl Reply, ApiError> {
    let mut fields = body.fields()?;
    let text = fields.text("text", "Text is required", |text| Some(text.to_owned()));
    let text = fields.finish(text)?;
    Ok(warp::reply::json(&json!({ "length": text.len() })))
}

async fn list(query: Query) -> Result<impl Reply, ApiError> {
    let page = query.page()?;
    let next = page.cursor.unwrap_or_default().len();
    Ok(query.with_next(warp::reply::json(&json!([next])), &vec![7; next + 1]))
}

async fn crash() -> Result<String, ApiError> {
    panic!("a bug in a handler")
}

#[tokio::test]
async fn an_unknown_path_is_404_and_a_wrong_method_405() {
    let service = Service::start(Health::new(), routes()).await;
    assert_eq!(answer(service.get("/nothing")).await, (StatusCode::NOT_FOUND, error("Not Found")));
    let wrong_method = (StatusCode::METHOD_NOT_ALLOWED, error("Method Not Allowed"));
    assert_eq!(answer(service.get("/echo")).await, wrong_method);
    assert_eq!(answer(service.post("/readyz")).await, wrong_method);
    let head = Client::new().head(format!("{}/peer", service.url));
    assert_eq!(answer(head).await, (StatusCode::OK, Value::Null));
    service.ended().await;
}

#[tokio::test]
async fn a_body_too_large_is_413_with_and_without_a_length() {
    let service = Service::start(Health::new(), routes()).await;
    let large = vec![b' '; 300 * 1024];
    let chunks = stream::iter(
        large.chunks(1000).map(|chunk| Ok::<_, std::io::Error>(chunk.to_vec())).collect::<Vec<_>>(),
    );
    let json = |request: RequestBuilder| request.header(header::CONTENT_TYPE, "application/json");
    let too_large = (StatusCode::PAYLOAD_TOO_LARGE, error("Payload Too Large"));
    assert_eq!(answer(json(service.post("/echo")).body(large)).await, too_large);
    let chunked = json(service.post("/echo")).body(reqwest::Body::wrap_stream(chunks));
    assert_eq!(answer(chunked).await, too_large);
    service.ended().await;
}

#[tokio::test]
async fn a_body_is_judged_by_type_then_syntax_then_field() {
    let service = Service::start(Health::new(), routes()).await;
    let send = |content_type: &'static str, body: &'static str| {
        answer(service.post("/echo").header(header::CONTENT_TYPE, content_type).body(body))
    };
    let unsupported = (StatusCode::UNSUPPORTED_MEDIA_TYPE, error("Unsupported Media Type"));
    assert_eq!(send("text/plain", "{}").await, unsupported);
    assert_eq!(answer(service.post("/echo").body("{}")).await, unsupported);
    let bad = |message: &str| (StatusCode::BAD_REQUEST, error(message));
    assert_eq!(send("application/json", "{\"text\":").await, bad("Body must be valid JSON"));
    assert_eq!(send("application/json", "[]").await, bad("Body must be a JSON object"));
    let (status, body) = send("application/json", "{\"text\":7}").await;
    let wrong = json!({"errors": [{"message": "Text is required", "field": "text"}]});
    assert_eq!((status, body), (StatusCode::BAD_REQUEST, wrong));
    let good = send("application/json; charset=utf-8", "{\"text\":\"abc\"}").await;
    assert_eq!(good, (StatusCode::OK, json!({"length": 3})));
    service.ended().await;
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing() {
    let service = Service::start(Health::new(), routes()).await;
    let crashed = (StatusCode::INTERNAL_SERVER_ERROR, error("Something went wrong"));
    assert_eq!(answer(service.get("/crash")).await, crashed);
    assert_eq!(answer(service.get("/peer")).await.0, StatusCode::OK);
    service.ended().await;
}

#[tokio::test]
async fn a_token_that_is_forged_expired_or_of_another_algorithm_is_nobodys() {
    let service = Service::start(Health::new(), routes()).await;
    let forge = |algorithm, key: &str, exp: u64| {
        let claims = json!({"id": Uuid::nil(), "email": "a@b.c", "iat": 0, "exp": exp});
        jsonwebtoken::encode(&Header::new(algorithm), &claims, &EncodingKey::from_secret(key.as_bytes()))
            .unwrap()
    };
    let cookie = |token: &str| answer(service.get("/who").header(header::COOKIE, format!("session={token}")));
    let nobody = (StatusCode::UNAUTHORIZED, error("Not authorized"));
    assert_eq!(cookie(&forge(Algorithm::HS256, "other key", u64::MAX >> 2)).await, nobody);
    assert_eq!(cookie(&forge(Algorithm::HS256, "key", 1)).await, nobody);
    assert_eq!(cookie(&forge(Algorithm::HS512, "key", u64::MAX >> 2)).await, nobody);
    assert_eq!(cookie("garbage").await, nobody);
    let token = signer().sign(&Claims::new(Uuid::nil(), "a@b.c", 0, HOUR));
    assert_eq!(cookie(&token).await.0, StatusCode::OK);
    assert_eq!(answer(service.get("/who").bearer_auth(token)).await.0, StatusCode::OK);
    service.ended().await;
}

#[tokio::test]
async fn a_page_of_another_origin_cannot_change_anything() {
    let service = Service::start(Health::new(), routes()).await;
    let from = |origin: &str| service.post("/echo").header(header::ORIGIN, origin).json(&json!({"text": ""}));
    let refused = (StatusCode::UNAUTHORIZED, error("Not authorized"));
    assert_eq!(answer(from("https://evil.example")).await, refused);
    assert_eq!(answer(from("null")).await, refused);
    assert_eq!(answer(from(&service.url)).await.0, StatusCode::OK);
    assert_eq!(answer(from("https://evil.example").bearer_auth("x")).await.0, StatusCode::OK);
    service.ended().await;
}

#[tokio::test]
async fn a_list_leads_to_its_next_page() {
    let service = Service::start(Health::new(), routes()).await;
    let response = soon(service.get("/list?status=all&limit=5").send()).await.unwrap();
    assert_eq!(response.headers()[header::LINK], "</list?status=all&limit=5&cursor=07>; rel=\"next\"");
    assert_eq!(answer(service.get("/list?status=all&limit=5&cursor=07")).await.1, json!([1]));
    assert_eq!(answer(service.get("/list?%ff=%zz&cursor=%30%37")).await.1, json!([1]));
    assert_eq!(answer(service.get("/list?limit=0&cursor=x")).await.1["errors"][1]["field"], "cursor");
    service.ended().await;
}

#[tokio::test]
async fn answers_are_not_kept_and_not_guessed_at() {
    let service = Service::start(Health::new(), routes()).await;
    for path in ["/peer", "/nothing", "/healthz"] {
        let response = soon(service.get(path).send()).await.unwrap();
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
    service.ended().await;
}

#[tokio::test]
async fn an_answer_names_the_trace_of_its_request() {
    let settings =
        telemetry::Settings { log_format: telemetry::LogFormat::Json, ..telemetry::Settings::of("test") };
    let _guard = telemetry::init(settings);
    let service = Service::start(Health::new(), routes()).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let request = service.get("/peer").header("uber-trace-id", format!("{trace}:b7ad6b7169203331:0:1"));
    let response = soon(request.send()).await.unwrap();
    assert_eq!(response.headers()["x-trace-id"], trace);
    let response = soon(service.get("/peer").send()).await.unwrap();
    assert_eq!(response.headers()["x-trace-id"].len(), trace.len());
    service.ended().await;
}

#[tokio::test]
async fn while_it_starts_a_service_answers_503() {
    let health = Health::new();
    let caught_up = Arc::new(AtomicBool::new(false));
    let asked = caught_up.clone();
    let status = move || match asked.load(Ordering::SeqCst) {
        true => Status::Ready,
        false => Status::Starting("replaying".into()),
    };
    health.check("log", status);
    let service = Service::start(health.clone(), routes()).await;

    let response = soon(service.get("/peer").send()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(response.headers()[header::RETRY_AFTER], "1");
    assert_eq!(response.json::<Value>().await.unwrap(), error("Starting"));
    let reasons = json!({"status": "not ready", "reasons": {"log": "starting: replaying"}});
    assert_eq!(answer(service.get("/readyz")).await, (StatusCode::SERVICE_UNAVAILABLE, reasons));
    assert_eq!(answer(service.get("/healthz")).await, (StatusCode::OK, json!({"status": "ok"})));

    caught_up.store(true, Ordering::SeqCst);
    soon(health.ready()).await;
    assert_eq!(answer(service.get("/readyz")).await, (StatusCode::OK, json!({"status": "ready"})));
    assert_eq!(answer(service.get("/peer")).await.0, StatusCode::OK);

    // Again: its rows are being built anew, and "not found" would be a lie.
    caught_up.store(false, Ordering::SeqCst);
    assert_eq!(answer(service.get("/peer")).await.0, StatusCode::SERVICE_UNAVAILABLE);
    service.ended().await;
}

#[tokio::test]
async fn requests_are_counted() {
    let service = Service::start(Health::new(), routes()).await;
    answer(service.get("/peer")).await;
    answer(service.get("/invented/1")).await;
    let metrics = soon(service.get("/metrics").send()).await.unwrap().text().await.unwrap();
    let counted = |labels: &str| metrics.contains(&format!("http_requests_total{{{labels}}}"));
    assert!(counted(r#"method="GET",route="/peer",status="200""#), "{metrics}");
    // What clients invent is one series, not one each.
    assert!(counted(r#"method="GET",route="unmatched",status="404""#), "{metrics}");
    assert!(!metrics.contains("invented"), "{metrics}");
    assert!(metrics.contains("process_resident_memory_bytes"), "{metrics}");
    assert!(metrics.contains("http_request_duration_seconds_bucket"), "{metrics}");
    service.ended().await;
}

/// A route that answers when it is let, and tells when it was reached.
fn slow(
    reached: Arc<Notify>,
    let_go: Arc<Notify>,
) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    path!("slow").then(move || {
        let (reached, let_go) = (reached.clone(), let_go.clone());
        async move {
            reached.notify_one();
            let_go.notified().await;
            "done"
        }
    })
}

#[tokio::test]
async fn a_shutdown_lets_a_running_request_finish_and_takes_no_other() {
    let (reached, let_go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let service = Service::start(Health::new(), slow(reached.clone(), let_go.clone())).await;
    let request = tokio::spawn(service.get("/slow").send());
    soon(reached.notified()).await;
    service.shutdown.cancel();
    let refused = async { while service.get("/slow").send().await.is_ok() {} };
    soon(refused).await;
    assert!(!service.running.is_finished());
    let_go.notify_one();
    let response = soon(request).await.unwrap().unwrap();
    assert_eq!(response.text().await.unwrap(), "done");
    service.ended().await;
}

#[tokio::test]
async fn idle_connections_do_not_hold_up_a_shutdown() {
    let service = Service::start(Health::new(), routes()).await;
    let address = service.url.trim_start_matches("http://").to_owned();
    // One that never asked, as browsers open in advance, and one kept alive.
    let _unused = TcpStream::connect(&address).await.unwrap();
    let client = Client::new();
    assert!(soon(client.get(format!("{}/peer", service.url)).send()).await.unwrap().text().await.is_ok());
    service.ended().await;
}

fn endless() -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let first = || stream::iter([Event::default().event("first").data("1")]);
    path!("events").map(move || web::sse((), first().chain(stream::pending())))
}

#[tokio::test]
async fn server_sent_events_end_at_shutdown() {
    let service = Service::start(Health::new(), endless()).await;
    let mut response = soon(service.get("/events").send()).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    assert_eq!(response.headers()[header::CACHE_CONTROL], "no-cache");
    assert_eq!(soon(response.chunk()).await.unwrap().unwrap(), "event:first\ndata:1\n\n");
    service.shutdown.cancel();
    assert_eq!(soon(response.chunk()).await.unwrap(), None);
    service.ended().await;
}

#[tokio::test]
async fn a_head_too_large_is_refused() {
    let service = Service::start(Health::new(), routes()).await;
    let request = service.get("/peer").header("x-large", "x".repeat(100 * 1024));
    let refused = request.send().await;
    assert!(refused.is_err() || refused.unwrap().status() == StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    assert_eq!(answer(service.get("/peer")).await.0, StatusCode::OK);
    service.ended().await;
}

#[tokio::test]
async fn what_is_not_http_is_answered_and_left() {
    let service = Service::start(Health::new(), routes()).await;
    let mut tcp = TcpStream::connect(service.url.trim_start_matches("http://")).await.unwrap();
    tcp.write_all(b"\x16\x03\x01\x00\xff\r\n\r\n").await.unwrap();
    let mut text = String::new();
    soon(tcp.read_to_string(&mut text)).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 400"), "{text}");
    service.ended().await;
}

/// A front on a port of its own.
struct Fronted {
    url: String,
    health: Health,
    shutdown: CancellationToken,
    running: JoinHandle<std::io::Result<()>>,
}

impl Fronted {
    async fn start(front: Front) -> Self {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", tcp.local_addr().unwrap());
        let (health, shutdown) = (front.health(), CancellationToken::new());
        let running = tokio::spawn(front.serve(tcp, shutdown.clone()));
        Self { url, health, shutdown, running }
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        answer(Client::new().get(format!("{}{path}", self.url))).await
    }

    async fn ended(self) {
        self.shutdown.cancel();
        soon(self.running).await.unwrap().unwrap();
    }
}

fn named(name: &'static str) -> impl Filter<Extract = (impl Reply,), Error = Rejection> + Clone {
    let known = path!("api" / "a").or(path!("api" / "a" / "b")).unify().or(path!()).unify();
    known.map(move || warp::reply::json(&name))
}

#[tokio::test]
async fn a_front_leads_each_request_to_its_service() {
    let mut front = Front::new();
    let (a, b, rest) = (front.mount("a", "/api/a"), front.mount("b", "/api/a/b"), front.mount("rest", "/"));
    let front = Fronted::start(front).await;
    let shutdown = CancellationToken::new();
    let serve =
        |listener, name| tokio::spawn(web::serve(listener, Health::new(), named(name), shutdown.clone()));

    assert_eq!(front.get("/api/a").await, (StatusCode::SERVICE_UNAVAILABLE, error("Starting")));
    let (status, body) = front.get("/readyz").await;
    assert_eq!(
        (status, &body["reasons"]["b"]),
        (StatusCode::SERVICE_UNAVAILABLE, &json!("starting: not serving"))
    );

    let running = [serve(a, "a"), serve(b, "b"), serve(rest, "rest")];
    soon(front.health.ready()).await;
    assert_eq!(front.get("/readyz").await.0, StatusCode::OK);
    assert_eq!(front.get("/healthz").await.0, StatusCode::OK);
    assert_eq!(front.get("/api/a").await, (StatusCode::OK, json!("a")));
    assert_eq!(front.get("/api/a/b?x=1").await, (StatusCode::OK, json!("b")));
    assert_eq!(front.get("/").await, (StatusCode::OK, json!("rest")));
    assert_eq!(front.get("/api/ax").await, (StatusCode::NOT_FOUND, error("Not Found")));

    shutdown.cancel();
    for service in running {
        soon(service).await.unwrap().unwrap();
    }
    assert_eq!(front.get("/api/a").await.0, StatusCode::SERVICE_UNAVAILABLE);
    front.ended().await;
}

#[tokio::test]
async fn a_front_without_a_fallback_answers_404_and_tells_who_is_not_ready() {
    let mut front = Front::new();
    let listener = front.mount("a", "/api/a");
    let front = Fronted::start(front).await;
    let health = Health::new();
    health.check("log", || Status::Broken("gap at 7".into()));
    let service = tokio::spawn(web::serve(listener, health, named("a"), front.shutdown.clone()));
    let told = async {
        while front.get("/readyz").await.1["reasons"]["a"] != "broken: log: gap at 7" {
            tokio::task::yield_now().await;
        }
    };
    soon(told).await;
    assert_eq!(front.get("/api/a").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(front.get("/nothing").await, (StatusCode::NOT_FOUND, error("Not Found")));
    front.ended().await;
    soon(service).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_mounted_service_finishes_its_requests_before_it_ends() {
    let mut front = Front::new();
    let listener = front.mount("a", "/");
    let front = Fronted::start(front).await;
    let (reached, let_go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let routes = slow(reached.clone(), let_go.clone()).or(endless());
    let service = tokio::spawn(web::serve(listener, Health::new(), routes, front.shutdown.clone()));
    soon(front.health.ready()).await;

    let mut events = soon(Client::new().get(format!("{}/events", front.url)).send()).await.unwrap();
    assert!(soon(events.chunk()).await.unwrap().is_some());
    let request = tokio::spawn(Client::new().get(format!("{}/slow", front.url)).send());
    soon(reached.notified()).await;
    front.shutdown.cancel();
    assert_eq!(soon(events.chunk()).await.unwrap(), None);
    assert!(!service.is_finished());
    let_go.notify_one();
    assert_eq!(soon(request).await.unwrap().unwrap().text().await.unwrap(), "done");
    soon(service).await.unwrap().unwrap();
    front.ended().await;
}
