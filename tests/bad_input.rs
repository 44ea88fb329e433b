//! Whatever is sent to it, the system answers with the contract's error: never with a 500, never by a panic.

mod support;
mod whole;

use std::{fmt::Debug, time::Duration};

use futures::{StreamExt, stream};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::{
    Body, Client, Method, StatusCode,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use serde_json::{Value, json};
use support::text;
use tempfile::TempDir;
use uuid::Uuid;
use web::{Claims, Signer};
use whole::Whole;

const JWT_KEY: &str = "a key that only this test signs with, 32 characters";

const UNKNOWN: &str = "0190b5c1-5d5e-7000-8000-000000000000";

/// The body of every request is JSON unless it says otherwise.
const JSON: &str = "application/json";

/// A request and what is to come of it.
struct Case {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Vec<u8>,
    chunked: bool,
    status: u16,
    /// Each error's field and message; `None`: it is a page.
    errors: Option<Vec<(Option<&'static str>, &'static str)>>,
}

/// A request by somebody who is signed in: `"POST /api/tickets"`.
fn signed_in(signer: &Signer, request: &str) -> Case {
    let token = signer.sign(&Claims::new(Uuid::nil(), "somebody@example.com", 0, Duration::from_secs(3600)));
    signed_out(request).with(header::AUTHORIZATION, format!("Bearer {token}"))
}

/// A request by nobody.
fn signed_out(request: &str) -> Case {
    let (method, path) = request.split_once(' ').unwrap();
    let case = Case {
        method: method.parse().unwrap(),
        path: path.to_owned(),
        headers: HeaderMap::new(),
        body: Vec::new(),
        chunked: false,
        status: 0,
        errors: Some(Vec::new()),
    };
    case.with(header::CONTENT_TYPE, JSON)
}

impl Case {
    fn with(mut self, name: HeaderName, value: impl AsRef<[u8]>) -> Self {
        self.headers.insert(name, HeaderValue::from_bytes(value.as_ref()).unwrap());
        self
    }

    fn without(mut self, name: HeaderName) -> Self {
        self.headers.remove(name);
        self
    }

    fn body(self, body: impl Into<Vec<u8>>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// Sent in pieces, without saying how many bytes are to come.
    fn chunked(self) -> Self {
        Self { chunked: true, ..self }
    }

    /// One error, that is about no field.
    fn is(self, status: u16, message: &'static str) -> Self {
        Self { status, errors: Some(vec![(None, message)]), ..self }
    }

    /// 400, with each field that is wrong and its message.
    fn names(self, errors: &[(&'static str, &'static str)]) -> Self {
        let errors = errors.iter().map(|(field, message)| (Some(*field), *message)).collect();
        Self { status: 400, errors: Some(errors), ..self }
    }

    /// A page of that status.
    fn gives_a_page(self, status: u16) -> Self {
        Self { status, errors: None, ..self }
    }

    async fn check(&self, client: &Client, url: &str) -> Result<(), String> {
        let mut request =
            client.request(self.method.clone(), format!("{url}{}", self.path)).headers(self.headers.clone());
        if self.chunked {
            let pieces: Vec<_> =
                self.body.chunks(1000).map(|piece| Ok::<_, String>(piece.to_vec())).collect();
            request = request.body(Body::wrap_stream(stream::iter(pieces)));
        } else if !self.body.is_empty() {
            request = request.body(self.body.clone());
        }
        let wrong = |what: &str, is: &dyn Debug| {
            let body: String = String::from_utf8_lossy(&self.body).chars().take(80).collect();
            format!(
                "{} {} {body}: {what} is {is:?}, not {} {:?}",
                self.method, self.path, self.status, self.errors
            )
        };
        let answer = request.send().await.map_err(|error| wrong("the answer", &error))?;
        let (status, content_type) = (answer.status(), answer.headers().get(header::CONTENT_TYPE).cloned());
        let Some(errors) = &self.errors else {
            let is_page = content_type.as_ref().is_some_and(|value| value == "text/html; charset=utf-8");
            let is_right = status.as_u16() == self.status && is_page;
            return if is_right { Ok(()) } else { Err(wrong("the page", &(status, content_type))) };
        };
        let body: Value = answer.json().await.map_err(|error| wrong("the body", &error))?;
        let errors = errors.iter().map(|(field, message)| match field {
            Some(field) => json!({ "message": message, "field": field }),
            None => json!({ "message": message }),
        });
        if status.as_u16() != self.status {
            return Err(wrong("the status", &(status, body)));
        }
        if content_type.as_ref().is_none_or(|value| value != JSON) {
            return Err(wrong("the content type", &content_type));
        }
        if body != json!({ "errors": errors.collect::<Vec<_>>() }) {
            return Err(wrong("the body", &body));
        }
        Ok(())
    }
}

#[tokio::test]
async fn bad_input_is_answered_with_the_contracts_error_and_harms_nothing() {
    let directory = TempDir::new().unwrap();
    let variables = [("JWT_KEY", JWT_KEY), ("SIGNUPS_PER_MINUTE", "0"), ("SIGNIN_FAILURES_PER_MINUTE", "0")];
    let whole = Whole::start(directory.path(), &variables).await;
    let client = Client::builder().timeout(Duration::from_secs(30)).build().unwrap();
    let signer = Signer::new(JWT_KEY);
    let get = async |path: &str| client.get(format!("{}{path}", whole.url)).send().await.unwrap();
    let failures = async || {
        let metrics = get("/metrics").await.text().await.unwrap();
        metrics.lines().filter(|line| line.contains(r#"status="5"#)).map(str::to_owned).collect::<Vec<_>>()
    };
    // Before the services were ready, the pages have asked them already.
    let failures_before = failures().await;
    let things = Things::make(&client, &whole, &signer).await;

    let cases: Vec<Case> = [
        bodies(&signer),
        sizes(&signer),
        media_types(&signer),
        methods(&signer),
        paths(&signer),
        sessions(),
        owners(&signer, &things),
        queries(&signer),
        tickets(&signer),
        accounts(),
        orders_and_payments(&signer),
        webhook(),
    ]
    .into_iter()
    .flatten()
    .collect();
    let checks = stream::iter(&cases).map(|case| case.check(&client, &whole.url)).buffer_unordered(8);
    let wrong: Vec<String> = checks.filter_map(async |checked| checked.err()).collect().await;
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));

    // It also lives through what the contract allows, however odd.
    for (request, body, status) in [
        ("POST /api/tickets", r#"{"title":"\u0000\ud83c\udfab\u202e","price":"0.01"}"#, 201),
        ("POST /api/tickets", r#"{"title":"a","title":"b","price":1.10,"id":"x","version":-1}"#, 201),
        ("GET /api/tickets?status=all&limit=1&%00=%ff&limit=9", "", 200),
        ("GET /api/tickets?cursor=ffffffffffffffffffffffffffffffff", "", 200),
        ("GET /api/orders?", "", 200),
    ] {
        let case = signed_in(&signer, request).body(body);
        let position = "ORDERS=x, =, TICKETS=99999999999999999999999, TICKETS=-1, \u{7f}";
        let request = client.request(case.method, format!("{}{}", whole.url, case.path));
        let request = request.headers(case.headers).header("x-position", position.replace('\u{7f}', "~"));
        let answer = request.header("cookie", "position_=1; session; =; session=..; position_ORDERS=9e9");
        let answer = answer.header("uber-trace-id", "x:y:z:99").body(case.body).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), status, "{} {body}", case.path);
    }

    assert_eq!(get("/readyz").await.status(), StatusCode::OK);
    let metrics = get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains(r#"status="400""#));
    assert_eq!(failures().await, failures_before);
    let log = whole.log();
    assert!(!log.contains("panic") && !log.contains(" ERROR "), "{log}");
    assert_eq!(get(&format!("/api/tickets/{}", things.ticket)).await.status(), StatusCode::OK);
    assert!(whole.stop("TERM").await.success());
}

/// What belongs to somebody else.
struct Things {
    ticket: String,
    order: String,
}

impl Things {
    async fn make(client: &Client, whole: &Whole, signer: &Signer) -> Self {
        let token = signer.sign(&Claims::new(Uuid::max(), "owner@example.com", 0, Duration::from_secs(3600)));
        let post = async |path: &str, body: Value| {
            let request = client.post(format!("{}{path}", whole.url)).bearer_auth(&token).json(&body);
            let answer = request.send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::CREATED);
            text(&answer.json::<Value>().await.unwrap()["id"])
        };
        let ticket = post("/api/tickets", json!({ "title": "Concert", "price": 1 })).await;
        let order = post("/api/orders", json!({ "ticketId": ticket })).await;
        Self { ticket, order }
    }
}

/// Every route that reads a body, asked by somebody who may.
fn routes_with_a_body(signer: &Signer) -> Vec<Case> {
    let ticket = format!("PUT /api/tickets/{UNKNOWN}");
    let requests = [
        "POST /api/users/signup",
        "POST /api/users/signin",
        "POST /api/tickets",
        &ticket,
        "POST /api/orders",
        "POST /api/payments",
    ];
    requests.map(|request| signed_in(signer, request)).into()
}

fn bodies(signer: &Signer) -> Vec<Case> {
    let not_json: [&[u8]; 10] = [
        b"",
        b"{",
        b"{}x",
        b"{'a':1}",
        b"\0",
        b"\xff\xfe{}",
        b"{\"title\":\"\xff\"}",
        br#"{"email":"\ud800"}"#,
        br#"{"price":1e999}"#,
        &b"[".repeat(5000),
    ];
    let not_objects: [&[u8]; 6] = [b"[]", b"null", b"true", b"7", b"\"x\"", b"[{}]"];
    let mut cases = Vec::new();
    for body in not_json {
        let wrong = |case: Case| case.body(body).is(400, "Body must be valid JSON");
        cases.extend(routes_with_a_body(signer).into_iter().map(wrong));
    }
    for body in not_objects {
        let wrong = |case: Case| case.body(body).is(400, "Body must be a JSON object");
        cases.extend(routes_with_a_body(signer).into_iter().map(wrong));
    }
    cases
}

fn sizes(signer: &Signer) -> Vec<Case> {
    let large = format!(r#"{{"title":"{}","price":1}}"#, "x".repeat(16 * 1024));
    let very_large = vec![b' '; 1024 * 1024];
    let mut cases = Vec::new();
    for body in [large.as_bytes(), &very_large] {
        let too_large = |case: Case| case.body(body).is(413, "Payload Too Large");
        cases.extend(routes_with_a_body(signer).into_iter().map(too_large));
        cases.extend(routes_with_a_body(signer).into_iter().map(|case| too_large(case).chunked()));
    }
    cases
}

fn media_types(signer: &Signer) -> Vec<Case> {
    let mut cases = Vec::new();
    for value in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "",
        "multipart/form-data",
        "é",
    ] {
        let other =
            |case: Case| case.with(header::CONTENT_TYPE, value).body("{}").is(415, "Unsupported Media Type");
        cases.extend(routes_with_a_body(signer).into_iter().map(other));
    }
    let none = |case: Case| case.without(header::CONTENT_TYPE).body("{}").is(415, "Unsupported Media Type");
    cases.extend(routes_with_a_body(signer).into_iter().map(none));
    cases
}

fn methods(signer: &Signer) -> Vec<Case> {
    let requests = [
        "GET /api/users/signup",
        "DELETE /api/users/signin",
        "GET /api/users/signout",
        "POST /api/users/currentuser",
        "PATCH /api/tickets",
        "DELETE /api/tickets",
        "POST /api/tickets/x",
        "DELETE /api/tickets/x",
        "POST /api/tickets/events",
        "PUT /api/orders",
        "BREW /api/orders",
        "OPTIONS /api/orders",
        "PATCH /api/orders/x",
        "POST /api/orders/x/history",
        "DELETE /api/orders/x/events",
        "GET /api/payments",
        "PUT /api/payments",
        "DELETE /api/payments/x",
        "GET /api/payments/x/refund",
        "PUT /api/payments/webhook",
        "POST /healthz",
        "DELETE /readyz",
        "PUT /metrics",
    ];
    requests.map(|request| signed_in(signer, request).is(405, "Method Not Allowed")).into()
}

fn paths(signer: &Signer) -> Vec<Case> {
    let mut cases = Vec::new();
    let long = "x".repeat(8000);
    let ids = [
        UNKNOWN,
        "x",
        "0",
        "-1",
        "null",
        "%00",
        "%ff",
        "%2F",
        "..%5c",
        "*",
        "ticketing.tickets.%3E",
        "0190b5c1-5d5e-7000-8000-00000000000",
        "0190b5c1-5d5e-7000-8000-0000000000000",
        "0190b5c1-5d5e-7000-8000-00000000000g",
        "99999999999999999999999999999999999999",
        &long,
    ];
    for id in ids {
        for request in [
            "GET /api/tickets/ID",
            "GET /api/orders/ID",
            "DELETE /api/orders/ID",
            "GET /api/orders/ID/history",
        ] {
            cases.push(signed_in(signer, &request.replace("ID", id)).is(404, "Not Found"));
        }
        for request in ["GET /api/orders/ID/events", "GET /api/payments/ID", "POST /api/payments/ID/refund"] {
            cases.push(signed_in(signer, &request.replace("ID", id)).is(404, "Not Found"));
        }
        let put = signed_in(signer, &format!("PUT /api/tickets/{id}"));
        cases.push(put.body(r#"{"title":"Concert","price":1}"#).is(404, "Not Found"));
        // Signed out comes before unknown, and validation too.
        cases.push(signed_out(&format!("GET /api/orders/{id}")).is(401, "Not authorized"));
        cases.push(signed_out(&format!("DELETE /api/orders/{id}")).is(401, "Not authorized"));
        cases.push(signed_out(&format!("GET /api/payments/{id}")).is(401, "Not authorized"));
        cases.push(signed_out(&format!("POST /api/payments/{id}/refund")).is(401, "Not authorized"));
        let put = signed_in(signer, &format!("PUT /api/tickets/{id}"));
        cases.push(put.body(r#"{"title":"","price":1}"#).names(&[("title", "Title is required")]));
    }
    for path in [
        "/api",
        "/api/",
        "/api/nothing",
        "/api/users",
        "/api/users/x",
        "/api/ticketsx",
        "/api/tickets/x/y",
        "/api/orders/x/y",
        "/api/orders/x/history/y",
        "/api/payments/x/y",
        "/api//tickets",
        "/api/expirations",
    ] {
        cases.push(signed_in(signer, &format!("GET {path}")).is(404, "Not Found"));
    }
    // What is not the API's is for people.
    for path in [
        "/apix",
        "//api/tickets",
        "/API/tickets",
        "/%61pi/tickets",
        "/svc-expiration",
        "/healthz/x",
        "/.env",
        "/%00",
        "/orders/x",
        "/tickets/%ff",
        "/assets/../config.rs",
    ] {
        cases.push(signed_in(signer, &format!("GET {path}")).gives_a_page(404));
        cases.push(signed_in(signer, &format!("POST {path}")).gives_a_page(404));
    }
    cases
}

fn sessions() -> Vec<Case> {
    let claims = json!({ "id": Uuid::nil(), "email": "a@b.cd", "iat": 1, "exp": 9_999_999_999_u64 });
    let sign = |algorithm, claims: &Value, key: &str| {
        jsonwebtoken::encode(&Header::new(algorithm), claims, &EncodingKey::from_secret(key.as_bytes()))
            .unwrap()
    };
    let changed = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        sign(Algorithm::HS256, &claims, JWT_KEY)
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        sign(Algorithm::HS256, &claims, JWT_KEY)
    };
    let good = sign(Algorithm::HS256, &claims, JWT_KEY);
    let [head, body, signature] = good.split('.').collect::<Vec<_>>()[..] else {
        panic!("a JWT has three parts")
    };
    // {"alg":"none","typ":"JWT"} and {"alg":"None"}
    let none = ["eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0", "eyJhbGciOiJOb25lIn0"];
    let other_body =
        sign(Algorithm::HS256, &json!({ "id": Uuid::max() }), "x").split('.').nth(1).unwrap().to_owned();

    let tokens = [
        String::new(),
        "x".into(),
        "..".into(),
        "a.b.c.d".into(),
        "x".repeat(30_000),
        format!("{}.", none[0]),
        format!("{}.{body}.", none[0]),
        format!("{}.{body}.{signature}", none[0]),
        format!("{}.{body}.", none[1]),
        format!("{head}.{body}."),
        format!("{head}.{body}"),
        format!("{head}.{other_body}.{signature}"),
        format!("{head}.{body}.{}", signature.chars().rev().collect::<String>()),
        sign(Algorithm::HS256, &claims, "another key"),
        sign(Algorithm::HS256, &claims, ""),
        sign(Algorithm::HS512, &claims, JWT_KEY),
        changed("exp", json!(1)),
        changed("exp", json!(-1)),
        changed("exp", json!("9999999999")),
        changed("exp", json!(1e300)),
        changed("exp", Value::Null),
        changed("id", json!("x")),
        changed("id", json!(7)),
        changed("email", json!([])),
        changed("nbf", json!("x")).replace('.', "%2e"),
        without("exp"),
        without("id"),
        without("email"),
        sign(Algorithm::HS256, &json!([]), JWT_KEY),
        sign(Algorithm::HS256, &json!("x"), JWT_KEY),
    ];
    let mut cases = Vec::new();
    for token in tokens {
        let by_header = |request| signed_out(request).with(header::AUTHORIZATION, format!("Bearer {token}"));
        let by_cookie = |request| signed_out(request).with(header::COOKIE, format!("session={token}"));
        cases.push(by_header("GET /api/orders").is(401, "Not authorized"));
        cases.push(by_cookie("GET /api/orders").is(401, "Not authorized"));
        // Signed out comes before malformed.
        cases.push(by_header("POST /api/tickets").body("{").is(401, "Not authorized"));
        cases.push(by_cookie("POST /api/payments").body("{}").is(401, "Not authorized"));
    }
    for value in [&b"Bearer"[..], b"Bearer ", b"Basic YTpi", b"\xff\xfe", b"bearer\t", good.as_bytes()] {
        cases
            .push(signed_out("GET /api/orders").with(header::AUTHORIZATION, value).is(401, "Not authorized"));
    }
    let cookie = format!("session={good}");
    for origin in ["https://evil.example", "null", "", "x", "http://localhost:1"] {
        let another_site =
            signed_out("POST /api/orders").with(header::COOKIE, &cookie).with(header::ORIGIN, origin);
        cases.push(another_site.body("{}").is(401, "Not authorized"));
    }
    cases
}

fn owners(signer: &Signer, things: &Things) -> Vec<Case> {
    let Things { ticket, order } = things;
    let valid = r#"{"title":"Mine","price":1}"#;
    let pay = format!(r#"{{"orderId":"{order}","token":"pm_card_visa"}}"#);
    let mut cases = vec![
        signed_in(signer, &format!("PUT /api/tickets/{ticket}")).body(valid),
        signed_in(signer, "POST /api/payments").body(pay),
    ];
    for request in [
        "GET /api/orders/ID",
        "DELETE /api/orders/ID",
        "GET /api/orders/ID/history",
        "GET /api/orders/ID/events",
        "POST /api/payments/ID/refund",
    ] {
        cases.push(signed_in(signer, &request.replace("ID", order)));
    }
    let mut cases: Vec<_> = cases.into_iter().map(|case| case.is(401, "Not authorized")).collect();
    let reserve = signed_in(signer, "POST /api/orders").body(format!(r#"{{"ticketId":"{ticket}"}}"#));
    cases.push(reserve.is(400, "Ticket is already reserved"));
    cases
}

fn queries(signer: &Signer) -> Vec<Case> {
    let limit = ("limit", "Limit must be a number from 1 to 1000");
    let cursor = ("cursor", "Cursor must be one from a Link header");
    let status = ("status", "Status must be all, or left out");
    let mut cases = Vec::new();
    for path in ["/api/tickets", "/api/orders"] {
        for (query, error) in [
            ("limit=0", limit),
            ("limit=1001", limit),
            ("limit=-1", limit),
            ("limit=", limit),
            ("limit", limit),
            ("limit=ten", limit),
            ("limit=1.5", limit),
            ("limit=%00", limit),
            ("limit=%ff", limit),
            ("limit=99999999999999999999999", limit),
            ("cursor=x", cursor),
            ("cursor=0", cursor),
            ("cursor=00", cursor),
            ("cursor=", cursor),
            ("cursor=%ff", cursor),
            ("cursor=zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", cursor),
            ("cursor=ffffffffffffffffffffffffffffffffff", cursor),
        ] {
            cases.push(signed_in(signer, &format!("GET {path}?{query}")).names(&[error]));
        }
        cases.push(signed_in(signer, &format!("GET {path}?limit=x&cursor=x")).names(&[limit, cursor]));
    }
    for query in ["status=sold", "status=", "status=ALL", "status=all%00", "status=%ff"] {
        cases.push(signed_out(&format!("GET /api/tickets?{query}")).names(&[status]));
    }
    cases
}

fn tickets(signer: &Signer) -> Vec<Case> {
    const NOT_POSITIVE: &str = "Price must be greater than 0";
    const TOO_PRECISE: &str = "Price must have at most 2 decimals";
    const TOO_LARGE: &str = "Price must be at most 999999.99";
    const NO_TITLE: &str = "Title is required";
    const LONG_TITLE: &str = "Title must be at most 200 characters";

    let unknown = format!("PUT /api/tickets/{UNKNOWN}");
    let requests = ["POST /api/tickets", &unknown];
    let mut cases = Vec::new();
    for (price, message) in [
        ("0", NOT_POSITIVE),
        ("-1", NOT_POSITIVE),
        ("-0.0", NOT_POSITIVE),
        ("-19.99", NOT_POSITIVE),
        ("0.001", TOO_PRECISE),
        ("19.999", TOO_PRECISE),
        ("-19.999", TOO_PRECISE),
        ("1000000", TOO_LARGE),
        ("12345678901234567890123", TOO_LARGE),
        ("18446744073709551616", TOO_LARGE),
        ("1e300", TOO_LARGE),
        ("1e-400", NOT_POSITIVE),
        (r#""""#, NOT_POSITIVE),
        (r#""abc""#, NOT_POSITIVE),
        (r#""1e3""#, NOT_POSITIVE),
        (r#""0x10""#, NOT_POSITIVE),
        (r#""NaN""#, NOT_POSITIVE),
        (r#""1,5""#, NOT_POSITIVE),
        (r#""1\u0000""#, NOT_POSITIVE),
        (r#""-1""#, NOT_POSITIVE),
        (r#""19.999""#, TOO_PRECISE),
        (r#""99999999999999999999""#, TOO_LARGE),
        ("null", NOT_POSITIVE),
        ("true", NOT_POSITIVE),
        ("[1]", NOT_POSITIVE),
        ("{}", NOT_POSITIVE),
    ] {
        let body = format!(r#"{{"title":"Concert","price":{price}}}"#);
        cases.extend(
            requests.map(|request| signed_in(signer, request).body(&*body).names(&[("price", message)])),
        );
    }
    let long = format!("{:?}", "ß".repeat(201));
    for (title, message) in [
        (r#""""#, NO_TITLE),
        (r#"" \n\t\u2003""#, NO_TITLE),
        ("null", NO_TITLE),
        ("7", NO_TITLE),
        (r#"["Concert"]"#, NO_TITLE),
        (&long, LONG_TITLE),
    ] {
        let body = format!(r#"{{"title":{title},"price":1}}"#);
        cases.extend(
            requests.map(|request| signed_in(signer, request).body(&*body).names(&[("title", message)])),
        );
    }
    let both = [("title", NO_TITLE), ("price", NOT_POSITIVE)];
    cases.extend(requests.map(|request| signed_in(signer, request).body("{}").names(&both)));
    cases
}

fn accounts() -> Vec<Case> {
    const EMAIL: (&str, &str) = ("email", "Email must be valid");
    const PASSWORD: (&str, &str) = ("password", "Password must be between 8 and 128 characters");
    const NO_PASSWORD: (&str, &str) = ("password", "You must supply a password");

    let (sign_up, sign_in) = ("POST /api/users/signup", "POST /api/users/signin");
    let mut cases = Vec::new();
    let long = format!("{}@example.com", "a".repeat(300));
    for email in [
        json!(""),
        json!("a"),
        json!("@"),
        json!("a@b"),
        json!("a@@b.cd"),
        json!("a b@c.de"),
        json!("a@b.c\0d"),
        json!("a@b.cd\r\nBcc: x@y.zz"),
        json!("a@\u{ff}.cd"),
        json!(long),
        json!(null),
        json!(7),
        json!(["a@b.cd"]),
        json!({}),
    ] {
        let body = json!({ "email": email, "password": "long enough" }).to_string();
        cases.extend([sign_up, sign_in].map(|request| signed_out(request).body(&*body).names(&[EMAIL])));
    }
    for password in [
        json!("1234567"),
        json!("x".repeat(129)),
        json!("ßßßßßßß"),
        json!(null),
        json!(12_345_678),
        json!([]),
    ] {
        let body = json!({ "email": "a@example.com", "password": password });
        cases.push(signed_out(sign_up).body(body.to_string()).names(&[PASSWORD]));
    }
    for password in [json!(""), json!(null), json!(12_345_678), json!(["x"])] {
        let body = json!({ "email": "a@example.com", "password": password });
        cases.push(signed_out(sign_in).body(body.to_string()).names(&[NO_PASSWORD]));
    }
    cases.push(signed_out(sign_up).body("{}").names(&[EMAIL, PASSWORD]));
    cases.push(signed_out(sign_in).body("{}").names(&[EMAIL, NO_PASSWORD]));
    let nobody = json!({ "email": "nobody@example.com", "password": "\0\u{ffff}" });
    cases.push(signed_out(sign_in).body(nobody.to_string()).is(400, "Invalid credentials"));
    cases
}

fn orders_and_payments(signer: &Signer) -> Vec<Case> {
    const TICKET: (&str, &str) = ("ticketId", "TicketId must be provided");
    const TOKEN: (&str, &str) = ("token", "Token must be provided");
    const ORDER: (&str, &str) = ("orderId", "OrderId must be provided");

    let order = |body: Value| signed_in(signer, "POST /api/orders").body(body.to_string());
    let pay = |body: Value| signed_in(signer, "POST /api/payments").body(body.to_string());
    let mut cases = Vec::new();
    for id in [
        json!(""),
        json!("x"),
        json!(null),
        json!(7),
        json!([UNKNOWN]),
        json!("\0"),
        json!("*"),
        json!(format!("{UNKNOWN}.>")),
    ] {
        cases.push(order(json!({ "ticketId": id })).names(&[TICKET]));
        cases.push(pay(json!({ "orderId": id, "token": "pm_card_visa" })).names(&[ORDER]));
    }
    for token in [
        json!(""),
        json!("x"),
        json!("pm_"),
        json!("pm_\0"),
        json!("pm_a/../b"),
        json!(null),
        json!(7),
        json!(format!("pm_{}", "x".repeat(300))),
    ] {
        cases.push(pay(json!({ "orderId": UNKNOWN, "token": token })).names(&[TOKEN]));
    }
    cases.push(order(json!({})).names(&[TICKET]));
    cases.push(pay(json!({})).names(&[TOKEN, ORDER]));
    cases.push(order(json!({ "ticketId": UNKNOWN })).is(404, "Not Found"));
    cases.push(pay(json!({ "orderId": UNKNOWN, "token": "tok_visa" })).is(404, "Not Found"));
    cases
}

/// What claims to be of Stripe's: whoever sends it, and whatever it says.
fn webhook() -> Vec<Case> {
    const MALFORMED: &str = "Stripe-Signature is missing or malformed";
    let signature = HeaderName::from_static("stripe-signature");
    let told = |body: &[u8]| signed_out("POST /api/payments/webhook").body(body);
    let mut cases = Vec::new();
    for body in
        [&b""[..], b"{", b"{}", b"\0", b"\xff", br#"{"id":"evt_1","type":"payment_intent.succeeded"}"#]
    {
        cases.push(told(body).is(400, MALFORMED));
        cases.push(told(body).without(header::CONTENT_TYPE).is(400, MALFORMED));
        let old = format!("t=1,v1={}", "0".repeat(64));
        cases.push(told(body).with(signature.clone(), old).is(400, "Stripe-Signature is not of this time"));
    }
    let long = format!("t=1,{}", "v1=0,".repeat(5_000));
    for value in [
        &b""[..],
        b"x",
        b"t=,v1=",
        b"t=-1,v1=00",
        b"t=1",
        b"v1=00",
        b"t=1,v1=0",
        b"t=99999999999999999999,v1=00",
        long.as_bytes(),
    ] {
        cases.push(told(b"{}").with(signature.clone(), value).is(400, MALFORMED));
    }
    for value in [&b"\xff\xfe"[..], b"t=1,v1=\xc3\xa9"] {
        cases.push(told(b"{}").with(signature.clone(), value).is(400, "Invalid header"));
    }
    let large = vec![b' '; 1024 * 1024];
    cases.push(told(&large).is(413, "Payload Too Large"));
    cases.push(told(&large).chunked().is(413, "Payload Too Large"));
    cases
}
