//! How long a session is good.

mod service;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use contract::{http::User, stream::USERS};
use reqwest::{Response, StatusCode};
use sandbox::nats::NatsServer;
use serde_json::{Value, json};
use tempfile::TempDir;
use web::{Claims, Signer};

use crate::service::{Service, config, events_of, newcomer, refused, session_cookie, user};

const DAY: u64 = 24 * 60 * 60;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

async fn who(auth: &Service, token: &str) -> Value {
    auth.current_user("cookie", &format!("session={token}")).await
}

async fn sign_out_everywhere(auth: &Service, token: &str) -> Response {
    auth.http.post(format!("{}/api/users/signout-all", auth.url)).bearer_auth(token).send().await.unwrap()
}

async fn not_authorized(answer: Response) {
    refused(answer, StatusCode::UNAUTHORIZED, json!([{ "message": "Not authorized" }])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_out_everywhere_is_signed_out_everywhere() {
    let (nats, dirs) =
        (NatsServer::temporary().await.unwrap(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let auth = Service::start(config(&nats, dirs[0].path())).await;
    let other = Service::start(config(&nats, dirs[1].path())).await;
    let (ann, phone) = newcomer(&auth, "ann@example.com", "correct horse").await;
    let laptop = session_cookie(&auth.sign_in("ann@example.com", "correct horse").await).0;
    let (bob, bobs) = newcomer(&auth, "bob@example.com", "correct horse").await;

    let answer = sign_out_everywhere(&auth, &laptop).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["x-position"], "USERS=3");
    assert_eq!(session_cookie(&answer).0, "");
    for token in [&phone, &laptop] {
        assert_eq!(who(&auth, token).await, Value::Null);
    }
    assert_eq!(who(&auth, &bobs).await["id"], json!(bob.id));
    // The other replica hears of it.
    let deadline = std::time::Instant::now() + service::PATIENCE;
    while who(&other, &phone).await != Value::Null {
        assert!(std::time::Instant::now() < deadline, "the other replica does not hear of it");
    }

    // Somebody with an old session ends none of those that came after.
    let back = auth.sign_in("ann@example.com", "correct horse").await;
    let after = session_cookie(&back).0;
    assert_eq!(user(back, StatusCode::OK).await, ann);
    not_authorized(sign_out_everywhere(&auth, &phone).await).await;
    assert_eq!(who(&auth, &after).await["id"], json!(ann.id));
    assert_eq!(sign_out_everywhere(&auth, &after).await.status(), StatusCode::OK);
    assert_eq!(who(&auth, &after).await, Value::Null);
    assert_eq!(
        events_of(&nats, "ann@example.com").await,
        ["user:signed-up", "user:signed-out", "user:signed-out"]
    );

    // A replica that knows nothing yet learns it from the log.
    auth.stop().await;
    std::fs::remove_dir_all(dirs[0].path().join("auth")).unwrap();
    let auth = Service::start(config(&nats, dirs[0].path())).await;
    for token in [&phone, &laptop, &after] {
        assert_eq!(who(&auth, token).await, Value::Null);
    }
    auth.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_signs_out_everywhere_who_is_not_signed_in() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let auth = Service::start(config(&nats, dir.path())).await;
    not_authorized(sign_out_everywhere(&auth, "x").await).await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let users = jetstream.get_stream(USERS.name).await.unwrap();
    assert_eq!(users.cached_info().state.messages, 0);
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erased_users_session_is_nobodys() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let auth = Service::start(config(&nats, dir.path())).await;
    let (_, token) = newcomer(&auth, "ann@example.com", "correct horse").await;
    let answer = auth.erase(&token, &json!({ "password": "correct horse" })).await;
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    assert_eq!(who(&auth, &token).await, Value::Null);
    // Nor that of whoever has the address now.
    newcomer(&auth, "ann@example.com", "battery staple").await;
    assert_eq!(who(&auth, &token).await, Value::Null);
    not_authorized(sign_out_everywhere(&auth, &token).await).await;
    auth.stop().await;
}

/// A session of so many days ago.
fn session(ann: &User, made: u64, signed_in: u64) -> String {
    let iat = now() - made * DAY;
    let claims = Claims::new(ann.id.0, &ann.email, 0, Duration::ZERO);
    let claims = Claims { iat, exp: iat + 7 * DAY, auth_time: Some(now() - signed_in * DAY), ..claims };
    Signer::new("jwt").sign(&claims)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_stays_signed_in_for_a_month() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let auth = Service::start(config(&nats, dir.path())).await;
    let (ann, fresh) = newcomer(&auth, "ann@example.com", "correct horse").await;
    let current = async |token: &str| {
        let request = auth.http.get(format!("{}/api/users/currentuser", auth.url)).bearer_auth(token);
        request.send().await.unwrap()
    };
    assert!(current(&fresh).await.headers().get("set-cookie").is_none(), "not every time");

    let answer = current(&session(&ann, 2, 2)).await;
    let (renewed, attributes) = session_cookie(&answer);
    assert_eq!(attributes, "Max-Age=604800; Path=/; HttpOnly; SameSite=Lax; Secure");
    let shown = answer.json::<Value>().await.unwrap()["currentUser"].take();
    assert!(shown["exp"].as_u64().unwrap() >= now() + 7 * DAY - 10, "{shown}");
    assert_eq!(who(&auth, &renewed).await, shown);

    let (_, attributes) = session_cookie(&current(&session(&ann, 2, 24)).await);
    let max_age: u64 =
        attributes.split(';').next().unwrap().strip_prefix("Max-Age=").unwrap().parse().unwrap();
    // Somewhere within the second.
    assert!((6 * DAY - 10..=6 * DAY).contains(&max_age), "{attributes}");
    let last = current(&session(&ann, 6, 35)).await;
    assert!(last.headers().get("set-cookie").is_none(), "they sign in again");
    assert_eq!(last.json::<Value>().await.unwrap()["currentUser"]["id"], json!(ann.id));
    assert_eq!(who(&auth, &session(&ann, 8, 8)).await, Value::Null);
    auth.stop().await;
}
