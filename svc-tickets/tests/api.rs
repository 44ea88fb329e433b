//! The routes, over HTTP, on a real nats-server.

mod service;

use contract::{
    Cents, OrderId, TicketEvent, TicketId,
    event::TicketCreated,
    stream::{TICKETS, ticket_subject},
};
use eventstore::Cause;
use futures::{StreamExt, stream};
use reqwest::{Method, StatusCode, header};
use sandbox::nats::NatsServer;
use serde_json::{Value, json};
use service::{
    Orders, SELLER, STRANGER, Service, completed, created, errors, eventually, tickets_log, token,
};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_listed_read_and_edited() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;

    let response = service.post(SELLER, &json!({ "title": " concert ", "price": "19.99" })).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["x-position"], "TICKETS=1");
    let ticket: Value = response.json().await.unwrap();
    let id = ticket["id"].as_str().unwrap().to_owned();
    let expected = json!({
        "id": id, "title": "concert", "price": 19.99, "userId": SELLER, "status": "available", "version": 0,
    });
    assert_eq!(ticket, expected);
    assert_eq!(service.read(&format!("/api/tickets/{id}")).await, expected);
    assert_eq!(service.read("/api/tickets").await, json!([expected]));

    let response = service.put(SELLER, &id, &json!({ "title": "concert, row 1", "price": 20 })).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["x-position"], "TICKETS=2");
    let edited: Value = response.json().await.unwrap();
    assert_eq!(
        edited,
        json!({
            "id": id, "title": "concert, row 1", "price": 20, "userId": SELLER, "status": "available",
            "version": 1,
        })
    );
    assert_eq!(service.read(&format!("/api/tickets/{id}")).await, edited);

    let response = service.put(SELLER, &id, &json!({ "title": "concert, row 1", "price": 20.00 })).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.json::<Value>().await.unwrap(), edited, "the same again is no event");

    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let stream = jetstream.get_stream(TICKETS.name).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 2);
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!(message.headers.get("ce-type").unwrap().as_str(), "ticket:created");
    let mut payload: Value = serde_json::from_slice(&message.payload).unwrap();
    payload.as_object_mut().unwrap().remove("_trace").expect("a trace context");
    assert_eq!(
        payload,
        json!({ "id": id, "title": "concert", "priceCents": 1999, "userId": SELLER, "version": 0 })
    );
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_as_the_contract_says() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;
    let id = service.list("concert", 19.99).await.to_string();
    let good = json!({ "title": "concert", "price": 1 });

    let invalid = async |body: Value, expected: &[(&str, &str)]| {
        for response in [service.post(SELLER, &body).await, service.put(SELLER, &id, &body).await] {
            assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{body}");
            let told = errors(response).await;
            let told: Vec<_> =
                told.iter().map(|(message, field)| (field.as_deref().unwrap(), message.as_str())).collect();
            assert_eq!(told, expected, "{body}");
        }
    };
    const NO_TITLE: (&str, &str) = ("title", "Title is required");
    const NO_PRICE: (&str, &str) = ("price", "Price must be greater than 0");
    invalid(json!({}), &[NO_TITLE, NO_PRICE]).await;
    invalid(json!({ "title": " ", "price": 0 }), &[NO_TITLE, NO_PRICE]).await;
    invalid(json!({ "title": ["x"], "price": {} }), &[NO_TITLE, NO_PRICE]).await;
    for price in [json!(-1), json!("free"), json!(null), json!("1e3"), json!("0.00")] {
        invalid(json!({ "title": "x", "price": price }), &[NO_PRICE]).await;
    }
    let too_long = ("title", "Title must be at most 200 characters");
    invalid(json!({ "title": "x".repeat(201), "price": 1 }), &[too_long]).await;
    invalid(json!({ "title": "x", "price": 0.999 }), &[("price", "Price must have at most 2 decimals")])
        .await;
    invalid(json!({ "title": "x", "price": 1e6 }), &[("price", "Price must be at most 999999.99")]).await;

    let not_authorized = vec![("Not authorized".to_owned(), None)];
    for (method, path) in [(Method::POST, "/api/tickets"), (Method::PUT, "/api/tickets/7")] {
        let signed_out = service.request(method.clone(), path).body("{").send().await.unwrap();
        assert_eq!(signed_out.status(), StatusCode::UNAUTHORIZED, "{path}");
        assert_eq!(errors(signed_out).await, not_authorized);
        let forged = service.request(method.clone(), path).bearer_auth(format!("{}x", token(SELLER)));
        assert_eq!(forged.json(&good).send().await.unwrap().status(), StatusCode::UNAUTHORIZED, "{path}");

        let send = async |content_type: &str, body: Vec<u8>| {
            let request = service.request(method.clone(), path).bearer_auth(token(SELLER));
            request.header(header::CONTENT_TYPE, content_type).body(body).send().await.unwrap().status()
        };
        assert_eq!(send("application/json", b"{".into()).await, StatusCode::BAD_REQUEST);
        assert_eq!(send("application/json", b"[]".into()).await, StatusCode::BAD_REQUEST);
        assert_eq!(send("text/plain", b"{}".into()).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
        assert_eq!(send("application/json", vec![b' '; 20_000]).await, StatusCode::PAYLOAD_TOO_LARGE);
    }

    let response = service.put(STRANGER, &id, &good).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(errors(response).await, not_authorized);

    let unknown = Uuid::from_u128(7).to_string();
    let response = service.put(SELLER, "events", &good).await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["allow"], "GET, HEAD");
    for id in [unknown.as_str(), "7"] {
        let response = service.put(SELLER, id, &good).await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{id}");
        assert_eq!(errors(response).await, [("Not Found".to_owned(), None)]);
    }
    for path in [unknown.as_str(), "7", "%00", "a/b"] {
        let response = service.get(&format!("/api/tickets/{path}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let response = service.request(Method::DELETE, &format!("/api/tickets/{id}")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_is_newest_first_in_pages() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;
    assert_eq!(service.read("/api/tickets").await, json!([]));
    let mut newest_first = Vec::new();
    for number in 0..5 {
        newest_first.insert(0, service.list(&format!("ticket {number}"), 1.0).await.to_string());
    }

    for path in ["/api/tickets?limit=2", "/api/tickets?limit=2&status=all"] {
        let pages = service.pages(path).await;
        assert_eq!(ids(&pages.concat()), newest_first);
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    }
    assert_eq!(service.pages("/api/tickets?limit=5").await.len(), 1, "nothing follows a full page");

    let long = format!("search={}", "x".repeat(201));
    for (query, message, field) in [
        ("limit=0", "Limit must be a number from 1 to 1000", "limit"),
        ("cursor=00", "Cursor must be one from a Link header", "cursor"),
        ("status=sold", "Status must be all, or left out", "status"),
        ("userId=7", "UserId must be an id", "userId"),
        ("userId=", "UserId must be an id", "userId"),
        (&long, "Search must be at most 200 characters", "search"),
    ] {
        let response = service.get(&format!("/api/tickets?{query}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(errors(response).await, [(message.to_owned(), Some(field.to_owned()))]);
    }
    service.stop().await;
}

fn ids(tickets: &[Value]) -> Vec<String> {
    tickets.iter().map(|ticket| ticket["id"].as_str().unwrap().to_owned()).collect()
}

fn titles(tickets: &[Value]) -> Vec<&str> {
    tickets.iter().map(|ticket| ticket["title"].as_str().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn tickets_are_found_by_the_words_of_their_titles() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;
    let mut orders = Orders::create(nats.url()).await;
    for title in ["Soirée Édith Piaf", "Concert, row 1", "CONCERT, row 2", "Play", "Last concert & row 3"] {
        service.list(title, 1.0).await;
    }
    let sold = service.list("Sold concert", 1.0).await;
    let order = OrderId(Uuid::now_v7());
    orders.append(created(order, sold)).await;
    orders.append(completed(order, sold)).await;
    service.shows(sold, "sold", |ticket| ticket["status"] == "sold").await;

    for (query, expected) in [
        ("search=concert", vec!["Last concert & row 3", "CONCERT, row 2", "Concert, row 1"]),
        ("search=ROW%20conc", vec!["Last concert & row 3", "CONCERT, row 2", "Concert, row 1"]),
        ("search=row+2", vec!["CONCERT, row 2"]),
        ("search=%C3%A9DITH", vec!["Soirée Édith Piaf"]),
        ("search=%26", vec!["Last concert & row 3"]),
        (
            "search=concert&status=all",
            vec!["Sold concert", "Last concert & row 3", "CONCERT, row 2", "Concert, row 1"],
        ),
        ("search=concerto", vec![]),
    ] {
        let found = service.pages(&format!("/api/tickets?{query}")).await;
        assert_eq!(titles(&found.concat()), expected, "{query}");
        let in_pages = service.pages(&format!("/api/tickets?{query}&limit=2")).await;
        assert!(in_pages.iter().all(|page| page.len() <= 2), "{query}: {in_pages:?}");
        assert_eq!(in_pages.concat(), found.concat(), "{query}");
    }
    let all = service.read("/api/tickets").await;
    for blank in ["search=", "search=+%20%09"] {
        assert_eq!(service.read(&format!("/api/tickets?{blank}")).await, all, "{blank}");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sellers_tickets_are_listed_whatever_their_status() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;
    let mut orders = Orders::create(nats.url()).await;
    let mut newest_first = Vec::new();
    for number in 0..5 {
        newest_first.insert(0, service.list(&format!("ticket {number}"), 1.0).await);
        let others = service.post(STRANGER, &json!({ "title": "another's ticket", "price": 1 })).await;
        assert_eq!(others.status(), StatusCode::CREATED);
    }
    let (reserved, sold) = (newest_first[1], newest_first[2]);
    let (reserving, buying) = (OrderId(Uuid::now_v7()), OrderId(Uuid::now_v7()));
    orders.append(created(reserving, reserved)).await;
    orders.append(created(buying, sold)).await;
    orders.append(completed(buying, sold)).await;
    service.shows(reserved, "reserved", |ticket| ticket["status"] == "reserved").await;
    service.shows(sold, "sold", |ticket| ticket["status"] == "sold").await;
    let edited = newest_first[3].to_string();
    service.put(SELLER, &edited, &json!({ "title": "Édition", "price": 2 })).await;

    let path = format!("/api/tickets?userId={SELLER}");
    let all = service.read(&path).await;
    let ids_of: Vec<_> = newest_first.iter().map(ToString::to_string).collect();
    assert_eq!(ids(all.as_array().unwrap()), ids_of);
    let statuses: Vec<_> = all.as_array().unwrap().iter().map(|ticket| ticket["status"].clone()).collect();
    assert_eq!(statuses, ["available", "reserved", "sold", "available", "available"]);
    assert_eq!(service.read(&format!("{path}&status=all")).await, all);
    let pages = service.pages(&format!("{path}&limit=2")).await;
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    assert_eq!(Value::from(pages.concat()), all);

    let found = service.read(&format!("{path}&search=%C3%A9dition")).await;
    assert_eq!(ids(found.as_array().unwrap()), [edited.as_str()]);
    let found = service.pages(&format!("{path}&search=ticket&limit=1")).await;
    assert_eq!(titles(&found.concat()), ["ticket 4", "ticket 3", "ticket 2", "ticket 0"]);
    assert_eq!(service.read(&format!("/api/tickets?userId={}", Uuid::from_u128(7))).await, json!([]));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_goes_through_thousands_of_tickets() {
    const MANY: u128 = 2_500;
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;
    let log = tickets_log(nats.url()).await;
    let listing = (0..MANY).map(|number| {
        let title = if number % 1_000 == 7 { format!("needle {number}") } else { format!("hay {number}") };
        let id = TicketId(Uuid::from_u128(number));
        let listed = TicketCreated { id, title, price_cents: Cents(100), user_id: SELLER };
        let log = &log;
        async move {
            let (subject, event) = (ticket_subject(id), TicketEvent::Created(listed));
            log.append(&subject, &event, 0, 0, Cause::Command).await.unwrap();
        }
    });
    stream::iter(listing).buffer_unordered(256).collect::<Vec<()>>().await;
    eventually("all of them can be read", async || {
        let all = service.pages("/api/tickets?limit=1000").await.concat();
        (all.len() as u128 == MANY).then_some(())
    })
    .await;

    let expected = ["needle 2007", "needle 1007", "needle 7"];
    for (path, count) in [("/api/tickets?search=NEEDLE", 1), ("/api/tickets?search=NEEDLE&limit=2", 2)] {
        let pages = service.pages(path).await;
        assert_eq!(titles(&pages.concat()), expected, "{path}");
        assert_eq!(pages.len(), count, "{path}");
    }
    // What fills its page is found without looking at all of them.
    let pages = service.get("/api/tickets?search=hay&limit=1000").send().await.unwrap();
    assert!(pages.headers().contains_key(header::LINK));
    assert_eq!(pages.json::<Vec<Value>>().await.unwrap().len(), 1000);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_told_as_they_happen() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;
    let mut events = service.get("/api/tickets/events").send().await.unwrap();
    assert_eq!(events.headers()[header::CONTENT_TYPE], "text/event-stream");

    let id = service.list("concert", 19.99).await.to_string();
    service.put(SELLER, &id, &json!({ "title": "concert", "price": 5 })).await;
    let mut text = String::new();
    eventually("two changes are told", async || {
        text.push_str(std::str::from_utf8(&events.chunk().await.unwrap().unwrap()).unwrap());
        (text.matches("\n\n").count() == 2).then_some(())
    })
    .await;
    let told: Vec<(&str, &str, Value)> = text
        .split_terminator("\n\n")
        .map(|event| {
            let field = |name| event.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            (field("event:"), field("id:"), serde_json::from_str(field("data:")).unwrap())
        })
        .collect();
    let data = |price: f64, version: u64| {
        json!({
            "id": id, "title": "concert", "price": price, "userId": SELLER, "status": "available",
            "version": version,
        })
    };
    assert_eq!((told[0].0, told[0].1, &told[0].2), ("ticket", "1", &data(19.99, 0)));
    assert_eq!((told[1].0, told[1].1), ("ticket", "2"));
    assert_eq!(told[1].2["price"], 5);

    // An open stream does not hold up the end.
    service.stop().await;
    while let Ok(Some(_)) = events.chunk().await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_listed_at_one_replica_is_known_at_the_other() {
    let nats = NatsServer::temporary().await.unwrap();
    let (data, other_data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let service = Service::start(nats.url(), data.path()).await;
    let other = Service::start(nats.url(), other_data.path()).await;
    for number in 0..20 {
        let response = service.post(SELLER, &json!({ "title": format!("{number}"), "price": 1 })).await;
        let position = response.headers()["x-position"].clone();
        let ticket: Value = response.json().await.unwrap();
        let id = ticket["id"].as_str().unwrap();
        assert_eq!(other.read(&format!("/api/tickets/{id}")).await, ticket);
        let list = other.get("/api/tickets").header("x-position", position).send().await.unwrap();
        assert_eq!(list.json::<Value>().await.unwrap()[0], ticket);
        let edited = other.put(SELLER, id, &json!({ "title": "edited", "price": 1 })).await;
        assert_eq!(edited.status(), StatusCode::OK);
    }
    service.stop().await;
    other.stop().await;
}
