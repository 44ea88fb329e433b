//! The document of the routes, held against the system as it runs: whatever it answers stands there, and what stands there
//! is served.

mod support;
mod whole;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    sync::Mutex,
};

use contract::openapi::openapi;
use futures::StreamExt;
use reqwest::{
    Client, Method, RequestBuilder, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderMap},
};
use serde_json::{Value, json};
use support::{PATIENCE, text, within};
use tempfile::TempDir;
use tokio::time::timeout;
use whole::Whole;

const UNKNOWN: &str = "0190b5c1-5d5e-7000-8000-000000000000";
const PASSWORD: &str = "correct horse battery staple";

#[tokio::test]
async fn a_purchase_and_what_may_go_wrong_with_it_are_answered_as_the_document_says() {
    let directory = TempDir::new().unwrap();
    let whole = Whole::start(directory.path(), &[]).await;
    let api = Api::of(&whole);
    let (seller, buyer, nobody) = (person(), person(), person());
    people(&api, &seller, &buyer, &nobody).await;
    let ticket = for_sale(&api, &seller, &buyer, &nobody).await;
    let order = ordered(&api, &seller, &buyer, &nobody, &ticket).await;
    paid(&api, &seller, &buyer, &nobody, &order).await;
    too_large(&api, &seller).await;
    gone(&api, &seller, &buyer, &nobody).await;
    for probe in ["/healthz", "/readyz", "/metrics"] {
        api.ask(&nobody, "GET", probe).gives(200).await;
    }
    assert_eq!(api.unasked(), BTreeSet::new());
    assert!(whole.stop("TERM").await.success());
}

async fn people(api: &Api, seller: &Client, buyer: &Client, nobody: &Client) {
    let account = |email: &str| json!({ "email": email, "password": PASSWORD });
    for (person, email) in [(seller, "seller@example.com"), (buyer, "buyer@example.com")] {
        api.ask(person, "POST", "/api/users/signup").body(account(email)).gives(201).await;
    }
    api.ask(nobody, "POST", "/api/users/signup").body(account("buyer@example.com")).gives(400).await;
    api.ask(nobody, "POST", "/api/users/signup").body(json!({})).gives(400).await;
    api.ask(nobody, "POST", "/api/users/signup").body(json!([])).gives(400).await;
    api.ask(nobody, "POST", "/api/users/signup").of_type("text/plain").gives(415).await;
    api.ask(nobody, "GET", "/api/users/currentuser").gives(200).await;
    api.ask(seller, "GET", "/api/users/currentuser").gives(200).await;
    api.ask(seller, "POST", "/api/users/signin").body(account("seller@example.com")).gives(200).await;
    let another_site = api.ask(nobody, "POST", "/api/users/signin").header("origin", "https://evil.example");
    another_site.body(account("seller@example.com")).gives(401).await;
}

async fn for_sale(api: &Api, seller: &Client, buyer: &Client, nobody: &Client) -> String {
    let (all, one) = ("/api/tickets", "/api/tickets/{id}");
    let concert = |price: Value| json!({ "title": "Concert", "price": price });
    api.ask(nobody, "POST", all).body(concert(json!(19.99))).gives(401).await;
    api.ask(seller, "POST", all).body(concert(json!(0))).gives(400).await;
    api.ask(seller, "POST", all).body(concert(json!("7.50"))).gives(201).await;
    let ticket = text(&api.ask(seller, "POST", all).body(concert(json!(19.99))).gives(201).await["id"]);
    api.ask(nobody, "GET", all).gives(200).await;
    api.ask(nobody, "GET", all).query("limit=1&status=all&search=concert").gives(200).await;
    api.ask(nobody, "GET", all).query("limit=0&cursor=x").gives(400).await;
    api.ask(nobody, "GET", one).at("id", &ticket).gives(200).await;
    api.ask(nobody, "GET", one).at("id", UNKNOWN).gives(404).await;
    api.ask(nobody, "GET", one).at("id", "x").gives(404).await;
    api.ask(buyer, "PUT", one).at("id", &ticket).body(concert(json!(1))).gives(401).await;
    api.ask(seller, "PUT", one).at("id", UNKNOWN).body(concert(json!(1))).gives(404).await;
    api.ask(seller, "PUT", one).at("id", &ticket).body(concert(json!("24.50"))).gives(200).await;
    api.ask(nobody, "GET", "/api/tickets/events").opens().await;
    ticket
}

async fn ordered(api: &Api, seller: &Client, buyer: &Client, nobody: &Client, ticket: &str) -> String {
    let (all, one) = ("/api/orders", "/api/orders/{id}");
    let reserve = json!({ "ticketId": ticket });
    api.ask(nobody, "POST", all).body(reserve.clone()).gives(401).await;
    api.ask(buyer, "POST", all).body(json!({ "ticketId": UNKNOWN })).gives(404).await;
    let first = text(&api.ask(buyer, "POST", all).body(reserve.clone()).gives(201).await["id"]);
    api.ask(seller, "POST", all).body(reserve.clone()).gives(400).await;
    api.ask(seller, "DELETE", one).at("id", &first).gives(401).await;
    api.ask(buyer, "DELETE", one).at("id", &first).gives(204).await;
    api.ask(buyer, "POST", "/api/payments")
        .body(json!({ "orderId": first, "token": "pm_card_visa" }))
        .gives(400)
        .await;
    let order = text(&api.ask(buyer, "POST", all).body(reserve).gives(201).await["id"]);
    for path in [one, "/api/orders/{id}/history"] {
        api.ask(buyer, "GET", path).at("id", &order).gives(200).await;
        api.ask(seller, "GET", path).at("id", &order).gives(401).await;
        api.ask(buyer, "GET", path).at("id", UNKNOWN).gives(404).await;
    }
    let first = api.ask(buyer, "GET", "/api/orders/{id}/events").at("id", &order).opens().await;
    api.is_a("Order", &first);
    api.ask(seller, "GET", "/api/orders/{id}/events").at("id", &order).gives(401).await;
    api.ask(buyer, "GET", all).query("limit=1").gives(200).await;
    api.ask(buyer, "GET", all).query("order=oldest").gives(400).await;
    api.ask(seller, "GET", "/api/orders/sales").gives(200).await;
    api.ask(seller, "GET", "/api/orders/sales").query(&format!("ticketId={ticket}")).gives(200).await;
    order
}

async fn paid(api: &Api, seller: &Client, buyer: &Client, nobody: &Client, order: &str) {
    let (all, one, back) = ("/api/payments", "/api/payments/{orderId}", "/api/payments/{orderId}/refund");
    let pay = |order: &str, token: &str| json!({ "orderId": order, "token": token });
    api.ask(nobody, "POST", all).body(pay(order, "pm_card_visa")).gives(401).await;
    api.ask(buyer, "POST", all).body(pay(order, "4242")).gives(400).await;
    api.ask(buyer, "POST", all).body(pay(UNKNOWN, "pm_card_visa")).gives(404).await;
    api.ask(buyer, "GET", one).at("orderId", order).gives(404).await;
    api.ask(seller, "POST", back).at("orderId", order).gives(400).await;
    api.ask(buyer, "POST", all).body(pay(order, "pm_card_chargeDeclined")).gives(402).await;
    api.ask(buyer, "GET", one).at("orderId", order).gives(200).await;
    api.ask(buyer, "POST", all).body(pay(order, "pm_card_visa")).gives(201).await;
    api.ask(buyer, "GET", one).at("orderId", order).gives(200).await;
    api.ask(seller, "GET", one).at("orderId", order).gives(401).await;
    let complete = || async {
        let order = api.ask(buyer, "GET", "/api/orders/{id}").at("id", order).gives(200).await;
        (order["status"] == "complete").then_some(())
    };
    within(PATIENCE, complete).await.expect("complete in time");
    api.ask(buyer, "DELETE", "/api/orders/{id}").at("id", order).gives(400).await;
    api.ask(buyer, "POST", back).at("orderId", order).gives(401).await;
    api.ask(seller, "POST", back).at("orderId", order).gives_any_of(&[200, 202]).await;
    let cancelled = || async {
        let order = api.ask(buyer, "GET", "/api/orders/{id}/history").at("id", order).gives(200).await;
        (order.as_array()?.last()?["data"]["reason"] == "refunded").then_some(())
    };
    within(PATIENCE, cancelled).await.expect("cancelled in time");
    api.ask(seller, "GET", "/api/orders/sales").gives(200).await;
    api.ask(nobody, "POST", "/api/payments/webhook").body(json!({})).gives(400).await;
}

async fn too_large(api: &Api, seller: &Client) {
    let title = "x".repeat(20_000);
    api.ask(seller, "POST", "/api/tickets").body(json!({ "title": title, "price": 1 })).gives(413).await;
    api.ask(seller, "GET", "/api/tickets").query(&format!("search={title}")).gives(414).await;
}

async fn gone(api: &Api, seller: &Client, buyer: &Client, nobody: &Client) {
    api.ask(buyer, "DELETE", "/api/users/me").body(json!({ "password": "not this one" })).gives(400).await;
    api.ask(buyer, "DELETE", "/api/users/me").body(json!({ "password": PASSWORD })).gives(204).await;
    api.ask(seller, "POST", "/api/users/signout-all").gives(200).await;
    api.ask(seller, "POST", "/api/users/signout-all").gives(401).await;
    api.ask(seller, "POST", "/api/users/signout").gives(200).await;
    let guess = json!({ "email": "nobody@example.com", "password": "not this one" });
    for _ in 0..20 {
        let guess = api.ask(nobody, "POST", "/api/users/signin").body(guess.clone());
        if guess.gives_any_of(&[400, 429]).await == 429 {
            return;
        }
    }
    panic!("one may guess for ever");
}

#[test]
fn every_route_of_the_services_is_in_the_document_and_none_more() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut served = BTreeSet::from(["/healthz", "/readyz", "/metrics"].map(str::to_owned));
    for entry in fs::read_dir(root).unwrap().flatten() {
        let Ok(routes) = fs::read_to_string(entry.path().join("src/http.rs")) else { continue };
        if entry.file_name().to_string_lossy().starts_with("svc-") {
            let names = routes.split("web::route(\"").skip(1).filter_map(|rest| rest.split('"').next());
            served.extend(names.map(templated));
        }
    }
    let told: BTreeSet<String> = openapi().paths.paths.keys().cloned().collect();
    assert_eq!(told, served);
}

/// `/api/orders/:id` as `/api/orders/{id}`.
fn templated(route: &str) -> String {
    let part = |part: &str| part.strip_prefix(':').map_or(part.to_owned(), |name| format!("{{{name}}}"));
    route.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn the_pages_show_the_document_and_hand_it_out() {
    let directory = TempDir::new().unwrap();
    let whole = Whole::start(directory.path(), &[]).await;
    let page = reqwest::get(format!("{}/api/docs", whole.url)).await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
    let page = page.text().await.unwrap();
    assert!(page.contains("/api/payments/{orderId}/refund") && page.contains("payment:refund-requested"));
    let document = reqwest::get(format!("{}/api/docs/openapi.json", whole.url)).await.unwrap();
    assert_eq!(document.headers()[CONTENT_TYPE], "application/json");
    assert_eq!(document.json::<Value>().await.unwrap(), serde_json::to_value(openapi()).unwrap());
}

#[test]
fn the_command_line_prints_each_document() {
    let printed = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ticketing"));
        let output = command.env_clear().arg("schema").args(arguments).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let document = |arguments: &[&str]| {
        let (code, printed, said) = printed(arguments);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{arguments:?}");
        serde_json::from_str::<Value>(&printed).unwrap()
    };
    assert_eq!(document(&["openapi"])["openapi"], "3.1.0");
    assert_eq!(document(&["asyncapi"])["asyncapi"], "3.0.0");
    assert_eq!(document(&["event", "order:created"])["title"], "order:created");
    let (code, printed, said) = printed(&["event", "order:forgotten"]);
    assert_eq!((code, printed.as_str()), (Some(2), ""));
    assert!(said.contains("order:forgotten") && said.contains("order:created"), "{said}");
}

// --- The document as a judge --------------------------------------------------------------------------------------

struct Api {
    url: String,
    document: Value,
    asked: Mutex<BTreeSet<(String, String)>>,
}

impl Api {
    fn of(whole: &Whole) -> Self {
        let document = serde_json::to_value(openapi()).unwrap();
        Self { url: whole.url.clone(), document, asked: Mutex::default() }
    }

    fn ask<'a>(&'a self, who: &'a Client, method: &'static str, path: &'static str) -> Question<'a> {
        Question {
            api: self,
            who,
            method,
            path,
            at: Vec::new(),
            query: None,
            headers: BTreeMap::new(),
            body: None,
        }
    }

    /// What stands in the document and was not asked.
    fn unasked(&self) -> BTreeSet<(String, String)> {
        let paths = self.document["paths"].as_object().unwrap().iter();
        let all = paths.flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
        });
        let asked = self.asked.lock().unwrap();
        all.filter(|route| !asked.contains(route)).collect()
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        let reference = value["$ref"].as_str().and_then(|reference| reference.strip_prefix('#'));
        reference
            .map_or(value, |pointer| self.document.pointer(pointer).expect("a reference leads somewhere"))
    }

    /// What is wrong with a value, as its schema says.
    fn errors(&self, schema: &Value, value: &Value) -> Vec<String> {
        let schema = json!({ "allOf": [schema], "components": self.document["components"] });
        let validator = jsonschema::draft202012::options().should_validate_formats(true).build(&schema);
        validator.unwrap().iter_errors(value).map(|error| error.to_string()).collect()
    }

    fn is_a(&self, schema: &str, value: &Value) {
        let schema = json!({ "$ref": format!("#/components/schemas/{schema}") });
        assert_eq!(self.errors(&schema, value), Vec::<String>::new(), "{value}");
    }

    /// Whether such headers may be with an answer, and whether its trace is.
    fn judge_headers(&self, what: &str, described: &Value, headers: &HeaderMap) {
        let described = described["headers"].as_object().cloned().unwrap_or_default();
        let of_ours = ["link", "retry-after", "set-cookie", "x-position", "x-trace-id"];
        let is_traced = described.contains_key("x-trace-id");
        assert_eq!(headers.contains_key("x-trace-id"), is_traced, "{what}: its trace");
        for (name, value) in headers.iter().filter(|(name, _)| of_ours.contains(&name.as_str())) {
            let described = described.iter().find(|(told, _)| told.eq_ignore_ascii_case(name.as_str()));
            let (_, header) = described.unwrap_or_else(|| panic!("{what}: {name} is not in the document"));
            let value = value.to_str().unwrap();
            let value = match header["schema"]["type"] == "integer" {
                true => json!(value.parse::<i64>().unwrap()),
                false => json!(value),
            };
            assert_eq!(self.errors(&header["schema"], &value), Vec::<String>::new(), "{what}: {name}");
        }
    }
}

/// A request that is about to be sent.
struct Question<'a> {
    api: &'a Api,
    who: &'a Client,
    method: &'static str,
    path: &'static str,
    at: Vec<(&'static str, String)>,
    query: Option<String>,
    headers: BTreeMap<&'static str, &'static str>,
    body: Option<Value>,
}

impl Question<'_> {
    fn at(mut self, name: &'static str, value: &str) -> Self {
        self.at.push((name, value.to_owned()));
        self
    }

    fn query(self, query: &str) -> Self {
        Self { query: Some(query.to_owned()), ..self }
    }

    fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.insert(name, value);
        self
    }

    fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    /// A body of another type.
    fn of_type(self, media_type: &'static str) -> Self {
        self.header("content-type", media_type).body(json!("x"))
    }

    fn what(&self) -> String {
        let Self { method, path, at, query, body, .. } = self;
        format!("{method} {path} {at:?} {query:?} {body:?}").chars().take(200).collect()
    }

    fn request(&self) -> RequestBuilder {
        let fill = |path: String, (name, value): &(&str, String)| path.replace(&format!("{{{name}}}"), value);
        let path = self.at.iter().fold(self.path.to_owned(), fill);
        let query = self.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let method = Method::from_bytes(self.method.as_bytes()).unwrap();
        let mut request = self.who.request(method, format!("{}{path}{query}", self.api.url));
        if let Some(body) = &self.body {
            request = request.header(CONTENT_TYPE, "application/json").body(body.to_string());
        }
        for (name, value) in &self.headers {
            // In the place of what it would be.
            let headers = HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
            request = request.headers(headers);
        }
        request
    }

    /// Sends it, and holds the answer's status, headers and media type against the document.
    async fn send(&self) -> (Response, Value) {
        let what = self.what();
        let answer = self.request().send().await.unwrap_or_else(|error| panic!("{what}: {error}"));
        let status = answer.status().as_u16().to_string();
        let operation = &self.api.document["paths"][self.path][self.method.to_lowercase()];
        let described = self.api.resolved(&operation["responses"][&status]).clone();
        assert!(described.is_object(), "{what}: {status} is not in the document");
        self.api.judge_headers(&what, &described, answer.headers());
        let media_type = answer.headers().get(CONTENT_TYPE).map(|value| value.to_str().unwrap().to_owned());
        let media_type =
            media_type.and_then(|value| value.split(';').next().map(|value| value.trim().to_owned()));
        let told = described["content"].as_object().and_then(|content| content.keys().next().cloned());
        assert_eq!(media_type, told, "{what}: {status}");
        self.api.asked.lock().unwrap().insert((self.method.to_owned(), self.path.to_owned()));
        (answer, described)
    }

    /// Asks, and holds all of the answer against the document.
    async fn gives_any_of(&self, statuses: &[u16]) -> u16 {
        self.answered(statuses).await.0
    }

    /// Likewise; returns the body.
    async fn gives(self, status: u16) -> Value {
        self.answered(&[status]).await.1
    }

    async fn answered(&self, statuses: &[u16]) -> (u16, Value) {
        let what = self.what();
        let (answer, described) = self.send().await;
        let status = answer.status().as_u16();
        let body = answer.text().await.unwrap();
        assert!(statuses.contains(&status), "{what}: {status} {body}");
        let Some(content) = described["content"].as_object() else {
            assert_eq!(body, "", "{what}: {status} has no body");
            return (status, Value::Null);
        };
        let body = match content.contains_key("application/json") {
            true => serde_json::from_str(&body).unwrap_or_else(|error| panic!("{what}: {error}: {body}")),
            false => json!(body),
        };
        let schema = &content.values().next().unwrap()["schema"];
        assert_eq!(self.api.errors(schema, &body), Vec::<String>::new(), "{what}: {status} {body}");
        (status, body)
    }

    /// Begins a stream of events; returns the data of the first, or null when nothing comes by itself.
    async fn opens(self) -> Value {
        let (answer, _) = self.send().await;
        assert_eq!(answer.status(), StatusCode::OK, "{}", self.what());
        if self.at.is_empty() {
            return Value::Null;
        }
        let mut pieces = answer.bytes_stream();
        let mut told = String::new();
        while !told.contains("\n\n") {
            let piece = timeout(PATIENCE, pieces.next()).await.expect("an event in time").unwrap().unwrap();
            told.push_str(&String::from_utf8_lossy(&piece));
        }
        let data =
            told.lines().find_map(|line| line.strip_prefix("data:")).unwrap_or_else(|| panic!("{told}"));
        serde_json::from_str(data.trim()).unwrap()
    }
}

/// Somebody with a browser of their own.
fn person() -> Client {
    Client::builder().cookie_store(true).timeout(PATIENCE).build().unwrap()
}
