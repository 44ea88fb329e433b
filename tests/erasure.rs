//! Who is erased leaves nothing behind that names them, and what they bought stays bought.

mod support;

use std::{
    collections::{HashMap, HashSet},
    fs,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use support::{
    Layout, PATIENCE, Person,
    Service::{Auth, Orders, Payments, Tickets},
    System,
    collector::{Answers, Collector},
    text, within,
};

const EMAIL: &str = "ann.unmistakable@example.com";
const PASSWORD: &str = "unmistakable horse";

/// Signs up or in; returns whose session that is.
async fn enter(system: &System, what: &str) -> Person {
    let url = system.url(Auth, 0, &format!("/api/users/{what}"));
    let body = json!({ "email": EMAIL, "password": PASSWORD });
    let answer = Client::new().post(url).json(&body).send().await.unwrap();
    assert!(answer.status().is_success(), "{}", answer.status());
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    let token = cookie.strip_prefix("session=").unwrap().split(';').next().unwrap().to_owned();
    let user: Value = answer.json().await.unwrap();
    system.bearer(text(&user["id"]).parse().unwrap(), token)
}

/// What a text looks like in the forms that anything here might write it in.
fn disguises(text: &str) -> Vec<Vec<u8>> {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let percent = text.replace('@', "%40").replace(' ', "%20");
    let mut forms =
        vec![text.to_owned(), text.to_uppercase(), hex.to_uppercase(), hex, percent, text.replace(' ', "+")];
    // In base64 it depends on what stands before it; the ends of it on what stands beside them.
    for before in 0..3 {
        let encoded = URL_SAFE_NO_PAD.encode([&vec![b'x'; before], text.as_bytes()].concat());
        forms.push(encoded[(before * 8).div_ceil(6)..encoded.len() - 2].to_owned());
    }
    forms.into_iter().map(String::into_bytes).collect()
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

/// Where any of these is: in which file, in whose metrics, or in the traces.
async fn found(system: &System, collector: &Collector, needles: &[Vec<u8>]) -> Vec<String> {
    let mut places: Vec<_> = files(system.directory())
        .into_iter()
        .map(|path| (path.display().to_string(), fs::read(path).unwrap_or_default()))
        .collect();
    for (service, replica) in system.running() {
        let metrics = Client::new().get(system.url(service, replica, "/metrics")).send().await.unwrap();
        places.push((format!("metrics of {service:?}"), metrics.bytes().await.unwrap().to_vec()));
    }
    places.retain(|(_, bytes)| needles.iter().any(|needle| holds(bytes, needle)));
    let traced = needles.iter().any(|needle| collector.holds(needle)).then(|| "traces".to_owned());
    places.into_iter().map(|(place, _)| place).chain(traced).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_erased_is_nowhere_and_what_they_bought_stays_bought() {
    let collector = Collector::start(Answers::Well).await;
    // As much as anybody would ever log.
    let wordy =
        HashMap::from([("RUST_LOG", "debug".to_owned()), ("JAEGER_COLLECTOR_URL", collector.url.clone())]);
    let mut system = System::start_with(Layout::default(), wordy).await;
    let ann = enter(&system, "signup").await;
    let seller = system.person();

    // She does all that one can do here.
    let (bought, given_up) =
        (system.list_ticket(&seller, 19.99).await, system.list_ticket(&seller, 5.0).await);
    let own = system.list_ticket(&ann, 7.5).await;
    let order = system.reserve(&ann, &bought).await;
    assert_eq!(system.try_pay(&ann, &order, "pm_card_visa").await.0, StatusCode::CREATED);
    system.until_order(&ann, &order, "complete").await;
    let other = system.reserve(&ann, &given_up).await;
    let (status, _) = ann.delete(&system.url(Orders, 0, &format!("/api/orders/{other}"))).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    let wrong = json!({ "email": EMAIL, "password": "an unmistakable mistake" });
    assert_eq!(ann.post(&system.url(Auth, 0, "/api/users/signin"), wrong).await.0, StatusCode::BAD_REQUEST);
    let twice = json!({ "email": EMAIL, "password": PASSWORD });
    assert_eq!(ann.post(&system.url(Auth, 0, "/api/users/signup"), twice).await.0, StatusCode::BAD_REQUEST);
    let (_, shown) = ann.get(&system.url(Auth, 0, "/api/users/currentuser")).await;
    assert_eq!(shown["currentUser"]["email"], EMAIL);
    assert_eq!(ann.post(&system.url(Auth, 0, "/api/users/signout-all"), json!({})).await.0, StatusCode::OK);
    let ann = enter(&system, "signin").await;

    let needles: Vec<_> = [EMAIL, "ann.unmistakable", PASSWORD, "unmistakable mistake"]
        .iter()
        .flat_map(|text| disguises(text))
        .chain([b"$scrypt$".to_vec(), ann.token().as_bytes().to_vec()])
        .collect();
    assert_eq!(found(&system, &collector, &needles).await, [""; 0], "not even before");

    let password = json!({ "password": PASSWORD });
    let erased = ann.try_send(Method::DELETE, &system.url(Auth, 0, "/api/users/me"), Some(password)).await;
    assert_eq!(erased.unwrap().0, StatusCode::NO_CONTENT);
    // What a service is asked last is exported last.
    for (service, path) in [
        (Auth, "/api/users/me"),
        (Tickets, "/api/tickets/last"),
        (Orders, "/api/orders/last"),
        (Payments, "/api/payments/last"),
    ] {
        let answer = Client::new().patch(system.url(service, 0, path)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
    let are_exported = async || {
        let last = collector.all().into_iter().filter(|span| span.name.starts_with("PATCH"));
        (last.map(|span| span.service).collect::<HashSet<_>>().len() == 4).then_some(())
    };
    within(PATIENCE, are_exported).await.expect("all of it is traced");
    assert_eq!(found(&system, &collector, &needles).await, [""; 0]);
    // That is what a search of this kind finds, if there is anything.
    let id = ann.id.to_string().into_bytes();
    assert!(!found(&system, &collector, &[id]).await.is_empty(), "her id stays: her orders are of somebody");
    let traced = found(&system, &collector, &[b"/api/users/signup".to_vec()]).await;
    assert!(traced.iter().any(|place| place == "traces"), "{traced:?}");
    for form in disguises(EMAIL) {
        let planted = system.directory().join("planted");
        fs::write(&planted, [b"before ".as_slice(), &form, b" after"].concat()).unwrap();
        assert_eq!(found(&system, &collector, &needles).await, [planted.display().to_string()]);
        fs::remove_file(planted).unwrap();
    }

    // From nothing it comes back the same: without her, with her orders.
    for (service, replica) in system.running() {
        system.kill(service, replica).await;
        fs::remove_dir_all(system.data_dir(service, replica)).unwrap();
        system.restart(service, replica).await;
    }
    let (_, sales) = seller.get(&system.url(Orders, 0, "/api/orders/sales")).await;
    let sales: Vec<_> = sales
        .as_array()
        .unwrap()
        .iter()
        .map(|sale| (text(&sale["orderId"]), text(&sale["status"])))
        .collect();
    assert_eq!(sales, [(other, "cancelled".to_owned()), (order.clone(), "complete".to_owned())]);
    assert_eq!(system.ticket(&bought).await["orderId"], json!(order));
    assert_eq!(system.ticket(&given_up).await["status"], "available");
    assert_eq!(system.ticket(&own).await["userId"], json!(ann.id));
    let (status, _) = ann.get(&system.url(Orders, 0, "/api/orders")).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let listing = json!({ "title": "Concert", "price": 1 });
    assert_eq!(ann.post(&system.url(Tickets, 0, "/api/tickets"), listing).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(found(&system, &collector, &needles).await, [""; 0]);

    // The address is free, for somebody new.
    let again = enter(&system, "signup").await;
    assert_ne!(again.id, ann.id);
    let (_, orders) = again.get(&system.url(Orders, 0, "/api/orders")).await;
    assert_eq!(orders, json!([]));
    system.is_sound().await;
}
