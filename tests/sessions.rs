//! Who is believed to be whom, by five processes: real sign-ins, sign-outs and erasures, forged tokens, changed keys.

mod support;

use std::{
    collections::HashMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{
    JWT_KEY, Layout, PATIENCE, Person,
    Service::{self, Auth, Orders, Payments, Tickets},
    System, text, within,
};
use uuid::Uuid;
use web::{Claims, KeyPairText, Signer};

const PASSWORD: &str = "correct horse";

/// What a service with sessions asks nobody but a user for, and what it says to a user who asks for nothing real.
const ASKED: [(Service, Method, &str, StatusCode); 4] = [
    (Tickets, Method::POST, "/api/tickets", StatusCode::BAD_REQUEST),
    (Orders, Method::GET, "/api/orders", StatusCode::OK),
    (Payments, Method::POST, "/api/payments", StatusCode::BAD_REQUEST),
    (Auth, Method::DELETE, "/api/users/me", StatusCode::BAD_REQUEST),
];

/// Which of the services believe the token; each that does not answers 401.
async fn believers(system: &System, person: &Person) -> Vec<Service> {
    let mut believers = Vec::new();
    for (service, method, path, known) in ASKED {
        let body = (method != Method::GET).then(|| json!({}));
        let (status, answer) = person.try_send(method, &system.url(service, 0, path), body).await.unwrap();
        match status {
            StatusCode::UNAUTHORIZED => {
                assert_eq!(answer, json!({ "errors": [{ "message": "Not authorized" }] }));
            }
            status => {
                assert_eq!(status, known, "{service:?}: {answer}");
                believers.push(service);
            }
        }
    }
    believers
}

/// Waits until nobody believes the token any more but those.
async fn is_over(system: &System, person: &Person, but_for: &[Service]) {
    let is_over = async || (believers(system, person).await == but_for).then_some(());
    within(PATIENCE, is_over).await.expect("the session is over everywhere");
    let (_, answer) = person.get(&system.url(Auth, 0, "/api/users/currentuser")).await;
    assert_eq!(answer, json!({ "currentUser": null }));
}

async fn enter(system: &System, what: &str, email: &str) -> Person {
    let url = system.url(Auth, 0, &format!("/api/users/{what}"));
    let body = json!({ "email": email, "password": PASSWORD });
    let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    let cookies = answer.headers().get_all("set-cookie").iter().filter_map(|cookie| cookie.to_str().ok());
    let token = cookies.filter_map(|cookie| cookie.strip_prefix("session=")?.split(';').next()).next();
    let token = token.expect("a session").to_owned();
    let user: Value = answer.json().await.unwrap();
    system.bearer(text(&user["id"]).parse().unwrap(), token)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn everybody() -> Vec<Service> {
    ASKED.map(|(service, ..)| service).into()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_good_token_is_somebodys() {
    let system = System::start(Layout::default()).await;
    let ann = enter(&system, "signup", "ann@example.com").await;
    assert_eq!(believers(&system, &ann).await, everybody());

    let claims = Claims::new(ann.id, "ann@example.com", 0, Duration::from_secs(3600));
    let sign = |algorithm, key: &str, claims: &Claims| {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key.as_bytes()))
            .unwrap()
    };
    let good = sign(Algorithm::HS256, JWT_KEY, &claims);
    let mut parts = good.split('.');
    let (header, payload, signature) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
    let other_person = Claims { id: Uuid::now_v7(), ..claims.clone() };
    let other = sign(Algorithm::HS256, JWT_KEY, &other_person);
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    for (what, token) in [
        ("none", String::new()),
        ("no token", "x".to_owned()),
        ("no algorithm", format!("{unsigned}.{payload}.")),
        ("no algorithm, and a signature", format!("{unsigned}.{payload}.{signature}")),
        ("no signature", format!("{header}.{payload}.")),
        ("another's claims", format!("{header}.{}.{signature}", other.split('.').nth(1).unwrap())),
        ("another algorithm", sign(Algorithm::HS512, JWT_KEY, &claims)),
        ("another key", sign(Algorithm::HS256, "a key that nobody here signs with, 32 letters", &claims)),
        ("expired", sign(Algorithm::HS256, JWT_KEY, &Claims { exp: now() - 1, ..claims.clone() })),
        ("not made yet", sign(Algorithm::HS256, JWT_KEY, &Claims { iat: now() + 3600, ..claims.clone() })),
    ] {
        assert_eq!(believers(&system, &system.bearer(ann.id, token)).await, [], "{what}");
    }
    assert_eq!(believers(&system, &system.bearer(ann.id, good)).await, everybody(), "the forger can forge");
    // Somebody who never signed up, with a token that a thief of the key has made.
    let ghost = system.bearer(other_person.id, other);
    let (_, answer) = ghost.get(&system.url(Auth, 0, "/api/users/currentuser")).await;
    assert_eq!(answer, json!({ "currentUser": null }));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_signs_out_everywhere_or_is_erased_is_nobody_at_every_service() {
    let system = System::start(Layout { nats_users: true, ..Layout::default() }).await;
    let phone = enter(&system, "signup", "ann@example.com").await;
    let laptop = enter(&system, "signin", "ann@example.com").await;
    let bob = enter(&system, "signup", "bob@example.com").await;
    assert_eq!(believers(&system, &phone).await, everybody());

    let (status, _) = laptop.post(&system.url(Auth, 0, "/api/users/signout-all"), json!({})).await;
    assert_eq!(status, StatusCode::OK);
    is_over(&system, &phone, &[]).await;
    is_over(&system, &laptop, &[]).await;
    let again = enter(&system, "signin", "ann@example.com").await;
    assert_eq!(again.id, phone.id);
    assert_eq!(believers(&system, &again).await, everybody());
    assert_eq!(believers(&system, &bob).await, everybody());

    let url = system.url(Auth, 0, "/api/users/me");
    let erased = again.try_send(Method::DELETE, &url, Some(json!({ "password": PASSWORD }))).await.unwrap();
    assert_eq!(erased.0, StatusCode::NO_CONTENT);
    // Who is erased may ask for it again, and nothing comes of it: the first answer may have been lost.
    is_over(&system, &again, &[Auth]).await;
    assert_eq!(believers(&system, &bob).await, everybody());
    system.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_site_cannot_act_for_a_visitor() {
    let system = System::start(Layout::default()).await;
    let ann = enter(&system, "signup", "ann@example.com").await;
    let http = reqwest::Client::new();
    for (service, method, path, known) in ASKED {
        let url = system.url(service, 0, path);
        let ask = async |origin: &str| {
            let request =
                http.request(method.clone(), &url).header("cookie", format!("session={}", ann.token()));
            request.header("origin", origin).json(&json!({})).send().await.unwrap().status()
        };
        let own = url.trim_end_matches(path).to_owned();
        assert_eq!(ask(&own).await, known, "{path}");
        // Reading is safe: no other site is told the answer.
        let refused = if method == Method::GET { known } else { StatusCode::UNAUTHORIZED };
        for origin in ["https://evil.example", "null", "http://127.0.0.1"] {
            assert_eq!(ask(origin).await, refused, "{path} from {origin}");
        }
    }
    let (_, answer) = ann.get(&system.url(Auth, 0, "/api/users/currentuser")).await;
    assert_eq!(answer["currentUser"]["id"], json!(ann.id));
}

/// Each half of a pair where it belongs: the private one with svc-auth alone.
fn give(system: &mut System, private: Option<&str>, public: &str, secret: &str) {
    for service in [Auth, Tickets, Orders, Payments] {
        system.set(service, 0, "JWT_PUBLIC_KEYS", public);
        system.set(service, 0, "JWT_KEY", secret);
    }
    system.set(Auth, 0, "JWT_PRIVATE_KEY", private.unwrap_or_default());
}

async fn restart(system: &mut System) {
    for service in [Tickets, Orders, Payments, Auth] {
        system.restart(service, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_changed_and_nobody_is_signed_out() {
    let (first, second) = (KeyPairText::of([1; 32]), KeyPairText::of([2; 32]));
    let mut system = System::start(Layout::default()).await;
    let by_secret = enter(&system, "signup", "ann@example.com").await;

    // From the secret to a pair: first all believe it, then svc-auth signs with it.
    give(&mut system, None, &first.public, JWT_KEY);
    restart(&mut system).await;
    assert_eq!(believers(&system, &by_secret).await, everybody());
    give(&mut system, Some(&first.private), &first.public, JWT_KEY);
    restart(&mut system).await;
    let by_first = enter(&system, "signin", "ann@example.com").await;
    for person in [&by_secret, &by_first] {
        assert_eq!(believers(&system, person).await, everybody());
    }
    // Then the secret is of no more use, to whoever may have it.
    give(&mut system, Some(&first.private), &first.public, "");
    restart(&mut system).await;
    assert_eq!(believers(&system, &by_first).await, everybody());
    assert_eq!(believers(&system, &by_secret).await, []);

    // From one pair to another.
    let both = format!("{},{}", first.public, second.public);
    give(&mut system, Some(&second.private), &both, "");
    restart(&mut system).await;
    let by_second = enter(&system, "signin", "ann@example.com").await;
    for person in [&by_first, &by_second] {
        assert_eq!(believers(&system, person).await, everybody());
    }
    give(&mut system, Some(&second.private), &second.public, "");
    restart(&mut system).await;
    assert_eq!(believers(&system, &by_first).await, []);
    assert_eq!(believers(&system, &by_second).await, everybody());

    // What every service has makes no session.
    let claims = Claims::new(by_second.id, "ann@example.com", 0, Duration::from_secs(3600));
    let forged = system.bearer(by_second.id, Signer::new(&second.public).sign(&claims));
    assert_eq!(believers(&system, &forged).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_buyer_holds_ten_tickets_and_asks_so_often() {
    let limits = [("MAX_OPEN_ORDERS", "10".to_owned()), ("USER_REQUESTS_PER_MINUTE", "60".to_owned())];
    let system = System::start_with(Layout::default(), HashMap::from(limits)).await;
    let (seller, buyer) = (system.person(), system.person());
    let mut statuses = Vec::new();
    for _ in 0..11 {
        let ticket = system.list_ticket(&seller, 19.99).await;
        let (status, answer) = system.try_reserve(&buyer, &ticket, 0).await;
        statuses.push(status);
        if status != StatusCode::CREATED {
            let message = "You can hold at most 10 reservations at once";
            assert_eq!(answer, json!({ "errors": [{ "message": message }] }));
        }
    }
    let (last, before) = statuses.split_last().unwrap();
    assert!(before.iter().all(|status| *status == StatusCode::CREATED), "{before:?}");
    assert_eq!(*last, StatusCode::BAD_REQUEST);

    let url = system.url(Orders, 0, "/api/orders");
    let mut asked = 0;
    let refused = loop {
        let status = buyer.get(&url).await.0;
        if status != StatusCode::OK {
            break status;
        }
        asked += 1;
        assert!(asked < 120, "nobody says so");
    };
    assert_eq!(refused, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(system.person().get(&url).await.0, StatusCode::OK);
}
