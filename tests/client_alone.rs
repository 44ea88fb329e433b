//! What the pages send, and what they do without an API.

mod browser;
mod support;
mod whole;

use browser::{Look, Shop, Thing, alone::ClientAlone, caller::PASSWORD};
use reqwest::{
    Client, StatusCode,
    header::{
        CONTENT_SECURITY_POLICY, HeaderMap, ORIGIN, REFERRER_POLICY, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
    },
    redirect::Policy,
};
use serde_json::{Value, json};
use support::PATIENCE;
use tempfile::TempDir;
use whole::Whole;

#[tokio::test]
async fn without_an_api_the_pages_say_that_it_is_down() {
    let alone = ClientAlone::without_api().await;
    let client = client();
    for (path, says) in [
        ("/", "Tickets are not available right now"),
        ("/tickets/01890000-0000-7000-8000-000000000000", "Tickets are not available right now"),
        ("/orders", "Orders are not available right now"),
    ] {
        let answer =
            client.get(format!("{}{path}", alone.url)).header("cookie", "session=x").send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        is_guarded(path, answer.headers());
        let page = answer.text().await.unwrap();
        assert!(page.contains(says), "{path}: {page}");
    }
    let form = [("email", "ann@example.com"), ("password", PASSWORD)];
    let answer = client.post(format!("{}/auth/signin", alone.url)).form(&form).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(answer.text().await.unwrap().contains("Accounts are not available right now"));
    // What needs no API is there.
    let answer = client.get(format!("{}/auth/signin", alone.url)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn where_the_api_is_elsewhere_the_pages_are_the_same() {
    let directory = TempDir::new().unwrap();
    let whole = Whole::start(directory.path(), &[]).await;
    let alone = ClientAlone::start(&whole.url).await;
    let client = Client::builder().cookie_store(true).timeout(PATIENCE).build().unwrap();
    let form = [("email", "ann@example.com"), ("password", PASSWORD)];
    let answer = client.post(format!("{}/auth/signup", alone.url)).form(&form).send().await.unwrap();
    assert_eq!((answer.status(), answer.url().path()), (StatusCode::OK, "/"));
    let form = [("title", "Concert"), ("price", "19.99")];
    let answer = client.post(format!("{}/tickets/new", alone.url)).form(&form).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.text().await.unwrap().contains("Concert"));
    let of_whole = client.get(&whole.url).send().await.unwrap().text().await.unwrap();
    let of_alone = client.get(&alone.url).send().await.unwrap().text().await.unwrap();
    let main = |page: &str| page.split_once("<main").expect("a main part").1.to_owned();
    assert_eq!(main(&of_alone), main(&of_whole));
}

#[tokio::test]
async fn a_form_on_somebody_elses_page_is_refused() {
    let directory = TempDir::new().unwrap();
    let whole = Whole::start(directory.path(), &[]).await;
    let client = client();
    let account = [("email", "ann@example.com"), ("password", PASSWORD)];
    let sign_up = |origin: &str| {
        client.post(format!("{}/auth/signup", whole.url)).header(ORIGIN, origin).form(&account).send()
    };
    for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
        let answer = sign_up(origin).await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{origin}");
        assert!(!answer.headers().contains_key(SET_COOKIE), "{origin}");
    }
    let answer = sign_up(&whole.url).await.unwrap();
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let cookies: Vec<_> =
        answer.headers().get_all(SET_COOKIE).iter().map(|cookie| cookie.to_str().unwrap()).collect();
    let session = cookies.iter().find(|cookie| cookie.starts_with("session=")).expect("a session");
    for attribute in ["HttpOnly", "SameSite=Lax"] {
        assert!(session.contains(attribute), "{session}");
    }
}

#[tokio::test]
async fn every_page_says_what_a_browser_may_do_with_it() {
    let directory = TempDir::new().unwrap();
    let whole = Whole::start(directory.path(), &[]).await;
    let client = client();
    for path in [
        "/",
        "/auth/signin",
        "/auth/signup",
        "/tickets/new",
        "/orders",
        "/api/docs",
        "/nothing/here",
        "/assets/none",
    ] {
        let answer = client.get(format!("{}{path}", whole.url)).send().await.unwrap();
        is_guarded(path, answer.headers());
    }
    // Assets go by what is in them, and are kept for good.
    let page = client.get(&whole.url).send().await.unwrap().text().await.unwrap();
    for asset in ["/assets/style.css?", "/assets/app.js?", "/assets/icon.svg?"] {
        let (_, rest) = page.split_once(asset).expect(asset);
        let address = format!("{}{asset}{}", whole.url, rest.split('"').next().unwrap());
        let answer = client.get(address).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{asset}");
        let kept = answer.headers()["cache-control"].to_str().unwrap();
        assert!(kept.contains("immutable"), "{asset}: {kept}");
    }
    let answer = client.get(format!("{}/api/nothing", whole.url)).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);
    assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "errors": [{ "message": "Not Found" }] }));
}

fn is_guarded(path: &str, headers: &HeaderMap) {
    let policy = headers.get(CONTENT_SECURITY_POLICY).unwrap_or_else(|| panic!("{path} has no policy"));
    let policy = policy.to_str().unwrap();
    for rule in ["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
        assert!(policy.contains(rule), "{path}: {policy}");
    }
    assert!(!policy.contains("unsafe"), "{path}: {policy}");
    assert_eq!(headers[REFERRER_POLICY], "same-origin", "{path}");
    assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff", "{path}");
}

/// The tour asks the browser for complaints at each page: here is what it would have heard.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_in_a_page_does_not_run_and_the_browser_complains() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let visitor = shop.visitor(Look::default()).await;
    visitor.sees(Thing::Heading, "Tickets for sale").await;
    assert_eq!(visitor.complaints().await, Vec::<String>::new());
    let inject = r#"
        const script = document.createElement("script");
        script.textContent = "window.injected = true";
        document.body.append(script);
        const styled = document.createElement("div");
        styled.setAttribute("style", "color: red");
        document.body.append(styled);
        return window.injected === true;
    "#;
    assert_eq!(visitor.asks(inject, &[]).await, false, "the script ran");
    let complaints = visitor.complaints().await;
    assert!(complaints.iter().any(|one| one.contains("script-src")), "{complaints:?}");
    assert!(complaints.iter().any(|one| one.contains("style-src")), "{complaints:?}");
    visitor.leaves().await;
}

fn client() -> Client {
    Client::builder().redirect(Policy::none()).timeout(PATIENCE).build().unwrap()
}
