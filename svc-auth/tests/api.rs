//! svc-auth over HTTP, on a real nats-server.

mod service;

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures::future::join_all;
use reqwest::{Response, StatusCode};
use sandbox::nats::{NatsOptions, NatsServer};
use serde_json::{Value, json};
use svc_auth::Config;
use tempfile::TempDir;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use web::{Claims, Signer};

use crate::service::{
    PATIENCE, Service, bad_request, config, events_of, keys_of, master_key, newcomer, refused,
    session_cookie, user,
};

#[tokio::test(flavor = "multi_thread")]
async fn somebody_signs_up_in_and_out() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let auth = Service::start(config(&nats, dir.path())).await;
    assert_eq!(auth.current_user("cookie", "").await, Value::Null);

    let answer = auth.sign_up(" Ann@Example.com", "correct horse").await;
    let (token, attributes) = session_cookie(&answer);
    assert_eq!(attributes, "Max-Age=604800; Path=/; HttpOnly; SameSite=Lax; Secure");
    assert_eq!(answer.headers()["x-position"], "USERS=1");
    let ann = user(answer, StatusCode::CREATED).await;
    assert_eq!(ann.email, "ann@example.com");

    for (header, value) in
        [("cookie", format!("session={token}")), ("authorization", format!("Bearer {token}"))]
    {
        let current = auth.current_user(header, &value).await;
        assert_eq!((&current["id"], &current["email"]), (&json!(ann.id), &json!("ann@example.com")));
        assert_eq!(current["exp"].as_u64().unwrap() - current["iat"].as_u64().unwrap(), 604_800);
    }
    let forged = Signer::new("another").sign(&Claims::new(ann.id.0, &ann.email, 0, PATIENCE));
    assert_eq!(auth.current_user("cookie", &format!("session={forged}")).await, Value::Null);

    let answer = auth.sign_in("ANN@example.com ", "correct horse").await;
    let (token, _) = session_cookie(&answer);
    assert_eq!(user(answer, StatusCode::OK).await, ann);
    assert_eq!(auth.current_user("cookie", &format!("session={token}")).await["id"], json!(ann.id));

    let answer = auth.http.post(format!("{}/api/users/signout", auth.url)).send().await.unwrap();
    assert_eq!(
        session_cookie(&answer),
        (String::new(), "Max-Age=0; Path=/; HttpOnly; SameSite=Lax; Secure".into())
    );
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({}));
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_wrong_is_told_as_the_contract_says() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let auth = Service::start(config(&nats, dir.path())).await;
    user(auth.sign_up("ann@example.com", "correct horse").await, StatusCode::CREATED).await;

    bad_request(auth.sign_up("ann@example.com", "another password").await, "Email in use").await;
    bad_request(auth.sign_up(" Ann@EXAMPLE.com", "another password").await, "Email in use").await;
    bad_request(auth.sign_in("bob@example.com", "correct horse").await, "Invalid credentials").await;
    bad_request(auth.sign_in("ann@example.com", "wrong horse").await, "Invalid credentials").await;
    bad_request(auth.sign_in("ann@example.com", "x").await, "Invalid credentials").await;

    let email = json!({ "message": "Email must be valid", "field": "email" });
    let new = json!({ "message": "Password must be between 8 and 128 characters", "field": "password" });
    let supply = json!({ "message": "You must supply a password", "field": "password" });
    let (good, long) = ("correct horse", "x".repeat(129));
    for (what, body, errors) in [
        ("signup", json!({}), json!([email, new])),
        ("signup", json!({ "email": "ann@example", "password": good }), json!([email])),
        ("signup", json!({ "email": 7, "password": good }), json!([email])),
        ("signup", json!({ "email": null, "password": [good] }), json!([email, new])),
        (
            "signup",
            json!({ "email": format!("{}@example.com", "a".repeat(300)), "password": good }),
            json!([email]),
        ),
        ("signup", json!({ "email": "bob@example.com", "password": "1234567" }), json!([new])),
        ("signup", json!({ "email": "bob@example.com", "password": "ääääääa" }), json!([new])),
        ("signup", json!({ "email": "bob@example.com", "password": long }), json!([new])),
        ("signin", json!({}), json!([email, supply])),
        ("signin", json!({ "email": "ann", "password": "" }), json!([email, supply])),
        ("signin", json!({ "email": "ann@example.com", "password": 12_345_678 }), json!([supply])),
    ] {
        refused(auth.post(what, &body).await, StatusCode::BAD_REQUEST, errors).await;
    }

    let raw = async |method: reqwest::Method, what: &str, content_type: &str, body: String| {
        let request = auth.http.request(method, format!("{}/api/users/{what}", auth.url));
        request.header("content-type", content_type).body(body).send().await.unwrap().status().as_u16()
    };
    let json = "application/json";
    for what in ["signup", "signin"] {
        assert_eq!(raw(reqwest::Method::POST, what, json, "{".into()).await, 400);
        assert_eq!(raw(reqwest::Method::POST, what, json, "[]".into()).await, 400);
        assert_eq!(raw(reqwest::Method::POST, what, json, format!("\"{}\"", "x".repeat(20_000))).await, 413);
        assert_eq!(raw(reqwest::Method::POST, what, "text/plain", "{}".into()).await, 415);
        assert_eq!(raw(reqwest::Method::GET, what, json, String::new()).await, 405);
    }
    assert_eq!(raw(reqwest::Method::POST, "currentuser", json, String::new()).await, 405);
    assert_eq!(raw(reqwest::Method::GET, "nobody", json, String::new()).await, 404);
    assert_eq!(raw(reqwest::Method::POST, "signup/x", json, String::new()).await, 404);
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_signed_up_on_two_replicas_at_once_has_one_account() {
    let (nats, dirs) =
        (NatsServer::temporary().await.unwrap(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let left = Service::start(config(&nats, dirs[0].path())).await;
    let right = Service::start(config(&nats, dirs[1].path())).await;
    for round in 0..10 {
        let email = format!("ann{round}@example.com");
        let tries = (0..8).map(|number| {
            let (auth, email) = (if number % 2 == 0 { &left } else { &right }, &email);
            async move { auth.sign_up(email, &format!("password {number}")).await }
        });
        let mut winners = Vec::new();
        for (number, answer) in join_all(tries).await.into_iter().enumerate() {
            match answer.status() {
                StatusCode::CREATED => winners.push((number, user(answer, StatusCode::CREATED).await)),
                _ => bad_request(answer, "Email in use").await,
            }
        }
        let [(number, ann)] = &winners[..] else { panic!("{winners:?}") };
        // At once, also on the replica that did not make it.
        for auth in [&left, &right] {
            let answer = auth.sign_in(&email, &format!("password {number}")).await;
            assert_eq!(&user(answer, StatusCode::OK).await, ann);
            let other = format!("password {}", (number + 1) % 8);
            bad_request(auth.sign_in(&email, &other).await, "Invalid credentials").await;
        }
    }
    left.stop().await;
    right.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_on_disk_names_anybody_and_accounts_outlive_their_projection() {
    let (store, dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let options = NatsOptions { store_dir: store.path().into(), port: None, users: None };
    let nats = NatsServer::start(options).await.unwrap();
    let auth = Service::start(config(&nats, dir.path())).await;
    let ann =
        user(auth.sign_up("Ann.Unmistakable@example.com", "correct horse").await, StatusCode::CREATED).await;
    user(auth.sign_in("ann.unmistakable@example.com", "correct horse").await, StatusCode::OK).await;
    auth.stop().await;

    let needles = ["unmistakable", "example.com", "correct horse", "scrypt", &"aa".repeat(32)];
    for file in [files(store.path()), files(dir.path())].concat() {
        let bytes = fs::read(&file).unwrap().to_ascii_lowercase();
        for needle in needles {
            let found = bytes.windows(needle.len()).any(|window| window == needle.as_bytes());
            assert!(!found, "{needle} in {}", file.display());
        }
    }
    // The search finds what is there.
    let streams = files(store.path()).iter().map(|file| fs::read(file).unwrap()).collect::<Vec<_>>().concat();
    let id = ann.id.to_string();
    assert!(streams.windows(id.len()).any(|window| window == id.as_bytes()));

    fs::remove_dir_all(dir.path().join("auth")).unwrap();
    let auth = Service::start(config(&nats, dir.path())).await;
    assert_eq!(
        user(auth.sign_in("ann.unmistakable@example.com", "correct horse").await, StatusCode::OK).await,
        ann
    );
    bad_request(auth.sign_up("ann.unmistakable@example.com", "correct horse").await, "Email in use").await;
    auth.stop().await;
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn another_master_key_does_not_start() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    Service::start(config(&nats, dir.path())).await.stop().await;
    let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = Config { master_keys: master_key("b").into(), ..config(&nats, dir.path()) };
    let run = svc_auth::run(config, tcp.into(), CancellationToken::new());
    let error = timeout(PATIENCE, run).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("master key"), "{error}");
    assert!(error.contains(master_key("b").fingerprint()), "{error}");
}

/// Asserts that somebody is erased, as far as they are told.
fn erased(answer: &Response) {
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    let (token, attributes) = session_cookie(answer);
    assert_eq!((token.as_str(), attributes.split(';').next()), ("", Some("Max-Age=0")));
    assert!(answer.headers()["x-position"].to_str().unwrap().starts_with("USERS="));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asks_to_be_erased_is_unknown_and_may_come_back() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let auth = Service::start(config(&nats, dir.path())).await;
    let (ann, token) = newcomer(&auth, "ann@example.com", "correct horse").await;
    let (bob, _) = newcomer(&auth, "bob@example.com", "correct horse").await;
    let keys = keys_of(&nats).await;
    let kept = keys.entry(ann.id.to_string()).await.unwrap().expect("a key");

    erased(&auth.erase(&token, &json!({ "password": "correct horse" })).await);
    bad_request(auth.sign_in("ann@example.com", "correct horse").await, "Invalid credentials").await;
    assert_eq!(keys.get(ann.id.to_string()).await.unwrap(), None);
    assert!(keys.stream.get_raw_message(kept.revision).await.is_err(), "no earlier revision stays");
    assert_eq!(events_of(&nats, "ann@example.com").await, ["user:signed-up", "user:erased"]);

    let again = user(auth.sign_up("ann@example.com", "battery staple").await, StatusCode::CREATED).await;
    assert_ne!(again.id, ann.id);
    assert_eq!(user(auth.sign_in("ann@example.com", "battery staple").await, StatusCode::OK).await, again);
    bad_request(auth.sign_in("ann@example.com", "correct horse").await, "Invalid credentials").await;

    // The first Ann's session is good for no more than being told so: whoever came after is another.
    erased(&auth.erase(&token, &json!({ "password": "correct horse" })).await);
    assert_eq!(user(auth.sign_in("ann@example.com", "battery staple").await, StatusCode::OK).await, again);
    assert_eq!(user(auth.sign_in("bob@example.com", "correct horse").await, StatusCode::OK).await, bob);
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_erased_without_their_password() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let limits = Config { signin_failures_per_minute: 3, ..config(&nats, dir.path()) };
    let auth = Service::start(limits).await;
    let (ann, token) = newcomer(&auth, "ann@example.com", "correct horse").await;
    newcomer(&auth, "bob@example.com", "battery staple").await;

    let signed_out = auth.http.delete(format!("{}/api/users/me", auth.url)).body("{").send().await.unwrap();
    refused(signed_out, StatusCode::UNAUTHORIZED, json!([{ "message": "Not authorized" }])).await;
    let supply = json!([{ "message": "You must supply a password", "field": "password" }]);
    for body in [json!({}), json!({ "password": "" }), json!({ "password": 7 })] {
        refused(auth.erase(&token, &body).await, StatusCode::BAD_REQUEST, supply.clone()).await;
    }
    let plain = auth.http.delete(format!("{}/api/users/me", auth.url)).bearer_auth(&token).body("x");
    assert_eq!(plain.send().await.unwrap().status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);

    let guess = json!({ "password": "battery staple" });
    bad_request(auth.erase(&token, &guess).await, "Invalid credentials").await;
    bad_request(auth.sign_in("ann@example.com", "battery staple").await, "Invalid credentials").await;
    bad_request(auth.erase(&token, &guess).await, "Invalid credentials").await;
    // Guesses here and there count as the same.
    for answer in [
        auth.erase(&token, &json!({ "password": "correct horse" })).await,
        auth.sign_in("ann@example.com", "correct horse").await,
    ] {
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        assert!(answer.headers().contains_key("retry-after"));
    }
    assert!(keys_of(&nats).await.get(ann.id.to_string()).await.unwrap().is_some());
    assert_eq!(events_of(&nats, "ann@example.com").await, ["user:signed-up"]);
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_erasure_that_was_broken_off_gets_to_its_end_when_it_is_asked_for_again() {
    let (mut nats, dirs) =
        (NatsServer::temporary().await.unwrap(), [TempDir::new().unwrap(), TempDir::new().unwrap()]);
    let left = Service::start(config(&nats, dirs[0].path())).await;
    let right = Service::start(config(&nats, dirs[1].path())).await;
    let (ann, token) = newcomer(&left, "ann@example.com", "correct horse").await;
    let password = json!({ "password": "correct horse" });

    // As a crash between the two leaves it: the key is gone, the event is to come.
    keys_of(&nats).await.purge(ann.id.to_string()).await.unwrap();
    bad_request(right.sign_in("ann@example.com", "correct horse").await, "Invalid credentials").await;
    bad_request(right.sign_up("ann@example.com", "correct horse").await, "Email in use").await;
    erased(&right.erase(&token, &password).await);
    assert_eq!(events_of(&nats, "ann@example.com").await, ["user:signed-up", "user:erased"]);
    let (_, token) = newcomer(&left, "ann@example.com", "correct horse").await;

    nats.kill();
    let refused = left.erase(&token, &password).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().get("set-cookie").is_none());
    nats.restart().await.unwrap();
    left.ready().await;
    right.ready().await;

    // From both replicas at once, and once more: it happens once.
    let answers = join_all([&left, &right, &left, &right].map(|auth| auth.erase(&token, &password))).await;
    answers.iter().for_each(erased);
    erased(&left.erase(&token, &password).await);
    let twice = ["user:signed-up", "user:erased", "user:signed-up", "user:erased"];
    assert_eq!(events_of(&nats, "ann@example.com").await, twice);
    // At once, also on the replica that did not do it.
    for auth in [&right, &left] {
        bad_request(auth.sign_in("ann@example.com", "correct horse").await, "Invalid credentials").await;
    }
    newcomer(&right, "ann@example.com", "correct horse").await;
    left.stop().await;
    right.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_tries_too_often_has_to_wait() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let limits = Config { signups_per_minute: 2, signin_failures_per_minute: 3, ..config(&nats, dir.path()) };
    let auth = Service::start(limits).await;
    let too_many = |answer: &Response, within: u64| {
        assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
        let retry_after = answer.headers()["retry-after"].to_str().unwrap().parse::<u64>().unwrap();
        assert!((1..=within).contains(&retry_after), "{retry_after}");
    };

    // What is not even tried does not count.
    bad_request_field(auth.sign_up("nobody", "correct horse").await, "email").await;
    user(auth.sign_up("ann@example.com", "correct horse").await, StatusCode::CREATED).await;
    bad_request(auth.sign_up("ann@example.com", "correct horse").await, "Email in use").await;
    too_many(&auth.sign_up("bob@example.com", "correct horse").await, 30);

    for attempt in 0..3 {
        // Who knows the password is not held up by having come often.
        user(auth.sign_in("ann@example.com", "correct horse").await, StatusCode::OK).await;
        let email = if attempt == 0 { "ann@example.com" } else { "bob@example.com" };
        bad_request(auth.sign_in(email, "wrong horse").await, "Invalid credentials").await;
    }
    too_many(&auth.sign_in("ann@example.com", "wrong horse").await, 20);
    too_many(&auth.sign_in("ann@example.com", "correct horse").await, 20);
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_many_at_once_gains_nothing() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let auth = Service::start(Config { signin_failures_per_minute: 3, ..config(&nats, dir.path()) }).await;
    user(auth.sign_up("ann@example.com", "correct horse").await, StatusCode::CREATED).await;
    let guesses = (0..40).map(|number| {
        let auth = &auth;
        async move { auth.sign_in("ann@example.com", &format!("horse {number}")).await.status() }
    });
    let answers = join_all(guesses).await;
    let of = |status| answers.iter().filter(|answer| **answer == status).count();
    let (told, refused) = (of(StatusCode::BAD_REQUEST), of(StatusCode::TOO_MANY_REQUESTS));
    // At most four passwords are hashed at once, and one client may not wait for many.
    let sent_away = of(StatusCode::SERVICE_UNAVAILABLE);
    let all = told + refused + sent_away;
    assert!((3..=6).contains(&told) && all == 40, "{told} told, {refused} refused, {sent_away} sent away");
    auth.stop().await;
}

async fn bad_request_field(answer: Response, field: &str) {
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    assert_eq!(answer.json::<Value>().await.unwrap()["errors"][0]["field"], field);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_nats_accounts_wait_and_sessions_go_on() {
    let (mut nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let auth = Service::start(config(&nats, dir.path())).await;
    let answer = auth.sign_up("ann@example.com", "correct horse").await;
    let (token, _) = session_cookie(&answer);
    let ann = user(answer, StatusCode::CREATED).await;

    nats.kill();
    for answer in [
        auth.sign_up("bob@example.com", "correct horse").await,
        auth.sign_in("ann@example.com", "correct horse").await,
    ] {
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers().contains_key("retry-after"));
    }
    let current = auth.current_user("cookie", &format!("session={token}")).await;
    assert_eq!(current["id"], json!(ann.id));

    nats.restart().await.unwrap();
    auth.ready().await;
    assert_eq!(user(auth.sign_in("ann@example.com", "correct horse").await, StatusCode::OK).await, ann);
    // Bob's first try was answered with 503, so it may or may not have made the account.
    let bob = auth.sign_up("bob@example.com", "correct horse").await.status();
    assert!([StatusCode::CREATED, StatusCode::BAD_REQUEST].contains(&bob), "{bob}");
    user(auth.sign_in("bob@example.com", "correct horse").await, StatusCode::OK).await;
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_address_takes_as_long_as_a_wrong_password() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    let auth = Service::start(Config { scrypt_log_n: 14, ..config(&nats, dir.path()) }).await;
    user(auth.sign_up("ann@example.com", "correct horse").await, StatusCode::CREATED).await;
    let (mut wrong, mut unknown) = (Vec::new(), Vec::new());
    for _ in 0..7 {
        for (email, times) in [("ann@example.com", &mut wrong), ("bob@example.com", &mut unknown)] {
            let started = Instant::now();
            bad_request(auth.sign_in(email, "wrong horse").await, "Invalid credentials").await;
            times.push(started.elapsed());
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    let (wrong, unknown) = (median(&mut wrong), median(&mut unknown));
    // Without the hashing it would take a tenth.
    assert!(unknown > wrong / 2 && wrong > unknown / 2, "wrong {wrong:?}, unknown {unknown:?}");
    auth.stop().await;
}
