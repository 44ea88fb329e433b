//! The routes, over HTTP, on a real nats-server.

mod service;

use std::time::{Duration, Instant, SystemTime};

use contract::{OrderId, TicketId, Timestamp, stream::ORDERS};
use reqwest::{Method, StatusCode, header};
use sandbox::nats::NatsServer;
use serde_json::{Value, json};
use service::{
    BUYER, Neighbours, SELLER, STRANGER, Service, authorized, charged, errors, eventually, jetstream,
    refunded, refused, token, voided,
};
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_placed_read_and_given_up() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let ticket = neighbours.list("concert", 1999).await;

    let before = Timestamp::from(SystemTime::now());
    let response = service.order(BUYER, ticket).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()["x-position"], "ORDERS=1");
    let placed: Value = response.json().await.unwrap();
    let (id, expires_at) = (placed["id"].as_str().unwrap(), placed["expiresAt"].clone());
    let ordered = json!({ "id": ticket, "title": "concert", "price": 19.99 });
    let expected = json!({
        "id": id, "userId": BUYER, "status": "created", "expiresAt": expires_at, "ticket": ordered, "version": 0,
    });
    assert_eq!(placed, expected);
    let window = serde_json::from_value::<Timestamp>(expires_at.clone()).unwrap().since(before);
    assert!((900..930).contains(&window.as_secs()), "{window:?}");
    let path = format!("/api/orders/{id}");
    assert_eq!(service.read(BUYER, &path).await, expected);
    assert_eq!(service.read(BUYER, "/api/orders").await, json!([expected]));
    assert_eq!(service.read(STRANGER, "/api/orders").await, json!([]));

    let order: OrderId = id.parse().unwrap();
    let response = service.cancel(BUYER, order).await;
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    assert_eq!(response.headers()["x-position"], "ORDERS=2");
    assert_eq!(service.cancel(BUYER, order).await.status(), StatusCode::NO_CONTENT);
    let cancelled = service.read(BUYER, &path).await;
    assert_eq!((&cancelled["status"], &cancelled["version"]), (&json!("cancelled"), &json!(1)));

    let mut history = service.read(BUYER, &format!("{path}/history")).await;
    for entry in history.as_array_mut().unwrap() {
        let time: Timestamp = serde_json::from_value(entry["time"].take()).unwrap();
        assert!(time.since(before) < Duration::from_secs(60), "{time}");
    }
    let created = json!({
        "id": id, "status": "created", "userId": BUYER, "expiresAt": expires_at,
        "ticket": { "id": ticket, "title": "concert", "priceCents": 1999 },
    });
    let given_up = json!({ "id": id, "reason": "buyer", "ticket": { "id": ticket } });
    assert_eq!(
        history,
        json!([
            { "type": "order:created", "version": 0, "time": null, "data": created },
            { "type": "order:cancelled", "version": 1, "time": null, "data": given_up },
        ])
    );

    let stream = jetstream(nats.url()).await.get_stream(ORDERS.name).await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 2, "cancelled twice is cancelled once");
    let message = stream.get_raw_message(1).await.unwrap();
    assert_eq!(message.subject.as_str(), format!("ticketing.orders.{ticket}"));
    assert_eq!(message.headers.get("ce-type").unwrap().as_str(), "order:created");
    let mut payload: Value = serde_json::from_slice(&message.payload).unwrap();
    let added = payload.as_object_mut().unwrap();
    added.remove("_trace").expect("a trace context");
    assert_eq!((added.remove("version"), payload), (Some(json!(0)), created));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_frees_its_ticket_and_keeps_its_terms() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let ticket = neighbours.list("concert", 1999).await;
    let first = service.reserve(BUYER, ticket).await;
    for buyer in [BUYER, STRANGER] {
        let late = service.order(buyer, ticket).await;
        refused(late, StatusCode::BAD_REQUEST, "Ticket is already reserved").await;
    }

    let edited = neighbours.edit(ticket, "concert, row 1", 1).await;
    let path = format!("/api/orders/{}", first.id);
    let read = service.get(BUYER, &path).header("x-position", format!("TICKETS={edited}"));
    let read: Value = read.send().await.unwrap().json().await.unwrap();
    assert_eq!(read, serde_json::to_value(&first).unwrap(), "edited later");

    service.cancel(BUYER, first.id).await;
    let second = service.reserve(STRANGER, ticket).await;
    let ordered = json!({ "id": ticket, "title": "concert, row 1", "price": 0.01 });
    assert_eq!(serde_json::to_value(&second.ticket).unwrap(), ordered);
    assert_eq!(second.version, 2, "versions count on the ticket's subject");

    // The first is over, and stays what it was, whatever happens to the second.
    assert_eq!(service.cancel(BUYER, first.id).await.status(), StatusCode::NO_CONTENT);
    let over = service.read(BUYER, &path).await;
    assert_eq!((&over["status"], &over["version"]), (&json!("cancelled"), &json!(1)));
    assert_eq!((&over["ticket"]["title"], &over["ticket"]["price"]), (&json!("concert"), &json!(19.99)));
    assert_eq!(service.history(&first).await, ["order:created", "order:cancelled buyer"]);
    assert_eq!(service.history(&second).await, ["order:created"]);
    service.shows(&second, "created").await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_told_as_the_contract_says() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let ticket = neighbours.list("concert", 1999).await;
    let placed = service.reserve(BUYER, ticket).await;
    let (order, unknown) = (placed.id, Uuid::from_u128(7));

    let simple = ticket.0.simple().to_string();
    for id in [json!(null), json!(""), json!("7"), json!(7), json!([ticket]), json!(simple)] {
        let response = service.post(BUYER, &json!({ "ticketId": id })).await;
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{id}");
        let told = ("TicketId must be provided".to_owned(), Some("ticketId".to_owned()));
        assert_eq!(errors(response).await, [told], "{id}");
    }
    assert_eq!(service.post(BUYER, &json!({})).await.status(), StatusCode::BAD_REQUEST);
    let response = service.order(BUYER, TicketId(unknown)).await;
    refused(response, StatusCode::NOT_FOUND, "Not Found").await;

    let send = async |content_type: &str, body: Vec<u8>| {
        let request = service.request(Method::POST, "/api/orders").bearer_auth(token(BUYER));
        request.header(header::CONTENT_TYPE, content_type).body(body).send().await.unwrap().status()
    };
    assert_eq!(send("application/json", b"{".into()).await, StatusCode::BAD_REQUEST);
    assert_eq!(send("application/json", b"[]".into()).await, StatusCode::BAD_REQUEST);
    assert_eq!(send("text/plain", b"{}".into()).await, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(send("application/json", vec![b' '; 20_000]).await, StatusCode::PAYLOAD_TOO_LARGE);

    // Signed out comes before everything, what does not exist before whose it is.
    let of_one =
        [(Method::GET, ""), (Method::GET, "/history"), (Method::GET, "/events"), (Method::DELETE, "")];
    for (method, path) in [(Method::POST, "/api/orders"), (Method::GET, "/api/orders?limit=0")] {
        let signed_out = service.request(method, path).body("{").send().await.unwrap();
        refused(signed_out, StatusCode::UNAUTHORIZED, "Not authorized").await;
    }
    for (method, rest) in of_one {
        for id in [order.to_string(), unknown.to_string(), "7".to_owned()] {
            let path = format!("/api/orders/{id}{rest}");
            let request = || service.request(method.clone(), &path);
            refused(request().send().await.unwrap(), StatusCode::UNAUTHORIZED, "Not authorized").await;
            let forged = request().bearer_auth(format!("{}x", token(BUYER))).send().await.unwrap();
            assert_eq!(forged.status(), StatusCode::UNAUTHORIZED, "{path}");
            let strangers = request().bearer_auth(token(STRANGER)).send().await.unwrap();
            match id == order.to_string() {
                true => refused(strangers, StatusCode::UNAUTHORIZED, "Not authorized").await,
                false => refused(strangers, StatusCode::NOT_FOUND, "Not Found").await,
            }
        }
        for id in ["%00", "a/b", &order.0.simple().to_string()] {
            let path = format!("/api/orders/{id}{rest}");
            let request = service.request(method.clone(), &path).bearer_auth(token(BUYER));
            assert_eq!(request.send().await.unwrap().status(), StatusCode::NOT_FOUND, "{path}");
        }
    }
    for (method, path) in [(Method::PUT, "".to_owned()), (Method::POST, format!("/{order}"))] {
        let request = service.request(method, &format!("/api/orders{path}")).bearer_auth(token(BUYER));
        assert_eq!(request.send().await.unwrap().status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
    assert_eq!(service.history(&placed).await, ["order:created"], "nothing happened");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ones_own_orders_are_listed_oldest_first_in_pages() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let mut oldest_first = Vec::new();
    for number in 0..5 {
        let ticket = neighbours.list(&format!("ticket {number}"), 100).await;
        let others = neighbours.list("another's", 100).await;
        oldest_first.push(service.reserve(BUYER, ticket).await.id.to_string());
        service.reserve(STRANGER, others).await;
    }

    let newest_first: Vec<_> = oldest_first.iter().rev().cloned().collect();
    for (path, expected) in
        [("/api/orders?limit=2", &oldest_first), ("/api/orders?order=newest&limit=2", &newest_first)]
    {
        let pages = service.pages(BUYER, path).await;
        let ids =
            pages.concat().iter().map(|order| order["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
        assert_eq!(&ids, expected);
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2, 1]);
    }
    assert_eq!(service.pages(BUYER, "/api/orders?limit=5").await.len(), 1, "nothing follows a full page");

    for (query, field) in [
        ("?limit=0", "limit"),
        ("?limit=1001", "limit"),
        ("?cursor=00", "cursor"),
        ("?order=oldest", "order"),
        ("?order=", "order"),
        ("/sales?limit=0", "limit"),
        ("/sales?cursor=00", "cursor"),
    ] {
        let response = service.get(BUYER, &format!("/api/orders{query}")).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(errors(response).await[0].1.as_deref(), Some(field));
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_sees_who_ordered_and_what_became_of_it() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let mut tickets = Vec::new();
    for number in 0..6 {
        tickets.push(neighbours.list_of(SELLER, &format!("ticket {number}"), 100 + number).await.0);
    }
    let unsold = neighbours.list_of(SELLER, "unsold", 1).await.0;
    let others = neighbours.list("another's", 1).await;
    assert_eq!(service.read(SELLER, "/api/orders/sales").await, json!([]));

    // Two orders of one ticket, one of each other, one of the seller's own, and of nobody's business.
    let given_up = service.reserve(BUYER, tickets[0]).await;
    let before = Timestamp::from(SystemTime::now());
    service.cancel(BUYER, given_up.id).await;
    let expired = service.reserve(BUYER, tickets[1]).await;
    let failed = service.reserve(BUYER, tickets[2]).await;
    let refunded_later = service.reserve(STRANGER, tickets[3]).await;
    let paid = service.reserve(BUYER, tickets[4]).await;
    let waits = service.reserve(BUYER, tickets[5]).await;
    let own = service.reserve(SELLER, unsold).await;
    service.reserve(BUYER, others).await;
    let again = service.reserve(STRANGER, tickets[0]).await;
    neighbours.expire(expired.id).await;
    neighbours.pay(authorized(failed.id)).await;
    neighbours.pay(voided(failed.id)).await;
    neighbours.pay(charged(paid.id)).await;
    neighbours.pay(charged(refunded_later.id)).await;
    neighbours.pay(refunded(refunded_later.id)).await;
    neighbours.pay(authorized(waits.id)).await;
    let ends = [
        (&again, "created", None),
        (&waits, "awaiting:payment", None),
        (&paid, "complete", None),
        (&refunded_later, "cancelled", Some("refunded")),
        (&failed, "cancelled", Some("payment-failed")),
        (&expired, "cancelled", Some("expired")),
        (&given_up, "cancelled", Some("buyer")),
    ];
    let mut expected = Vec::new();
    for (order, status, reason) in ends {
        let shown = service.shows(order, status).await;
        let mut sale = json!({
            "orderId": order.id, "userId": order.user_id, "status": status, "expiresAt": order.expires_at,
            "ticket": order.ticket, "version": shown["version"],
        });
        if let Some(reason) = reason {
            sale["reason"] = json!(reason);
        }
        let history = service.read(order.user_id, &format!("/api/orders/{}/history", order.id)).await;
        sale["time"] = history[0]["time"].clone();
        expected.push(sale);
    }

    let path = "/api/orders/sales";
    assert_eq!(service.read(SELLER, path).await, Value::from(expected.clone()));
    let ordered: Timestamp = serde_json::from_value(expected[6]["time"].clone()).unwrap();
    assert!(before.since(ordered) < Duration::from_secs(60), "{ordered}");
    for limit in [1, 2, 3, 7] {
        let pages = service.pages(SELLER, &format!("{path}?limit={limit}")).await;
        assert_eq!(pages.concat(), expected, "{limit} a page");
        assert_eq!(pages.len(), 7_usize.div_ceil(limit), "{limit} a page");
    }
    assert_eq!(service.read(BUYER, path).await, json!([]));
    let of_strangers = service.read(STRANGER, path).await;
    assert_eq!(of_strangers.as_array().unwrap().len(), 1);
    assert_eq!(of_strangers[0]["ticket"]["title"], "another's");

    // The ticket's terms are those it was ordered for, whatever its seller makes of them later.
    let edited = neighbours.edit(tickets[4], "edited", 1).await;
    let read = service.get(SELLER, path).header("x-position", format!("TICKETS={edited}"));
    assert_eq!(read.send().await.unwrap().json::<Value>().await.unwrap(), Value::from(expected));

    let signed_out = service.request(Method::GET, path).send().await.unwrap();
    refused(signed_out, StatusCode::UNAUTHORIZED, "Not authorized").await;
    let no_order = service.request(Method::DELETE, path).bearer_auth(token(SELLER)).send().await.unwrap();
    assert_eq!(no_order.headers()["allow"], "GET, HEAD");
    refused(no_order, StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed").await;
    assert_eq!(service.history(&own).await, ["order:created"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seller_with_a_thousand_tickets_sees_every_order() {
    const TICKETS: u128 = 1_000;
    const ORDERS_EACH: u128 = 3;
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let neighbours = Neighbours::create(nats.url()).await;
    // What happened while the service did not run: in the streams one ticket after another, but ordered in turns.
    neighbours.sell_much(nats.url(), SELLER, BUYER, TICKETS, ORDERS_EACH).await;
    let service = Service::start(nats.url(), data.path()).await;
    let started = Instant::now();
    let pages = service.pages(SELLER, "/api/orders/sales?limit=100").await;
    let took = started.elapsed();
    let count = usize::try_from(TICKETS * ORDERS_EACH).unwrap();
    assert_eq!(pages.len(), count / 100);
    let orders: Vec<_> =
        pages.concat().iter().map(|sale| sale["orderId"].as_str().unwrap().to_owned()).collect();
    let expected: Vec<_> =
        (0..TICKETS * ORDERS_EACH).rev().map(|number| OrderId(Uuid::from_u128(number)).to_string()).collect();
    assert_eq!(orders, expected);
    // Far more than it takes, far less than it would without the index of each ticket's orders.
    assert!(took < Duration::from_secs(10), "{took:?} for {} pages", pages.len());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sale_is_seen_at_a_replica_that_is_told_where_to_look() {
    let nats = NatsServer::temporary().await.unwrap();
    let (data, other_data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let other = Service::start(nats.url(), other_data.path()).await;
    for number in 0..20 {
        let (ticket, listed) = neighbours.list_of(SELLER, &format!("ticket {number}"), 100).await;
        let response = service.order(BUYER, ticket).await;
        let ordered = response.headers()["x-position"].to_str().unwrap().to_owned();
        let order: Value = response.json().await.unwrap();
        let sales = other.get(SELLER, "/api/orders/sales?limit=1");
        let sales = sales.header("x-position", format!("{ordered}, TICKETS={listed}")).send().await.unwrap();
        assert_eq!(sales.json::<Value>().await.unwrap()[0]["orderId"], order["id"], "{number}");
    }
    service.stop().await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_told_as_it_changes() {
    let (nats, data) = (NatsServer::temporary().await.unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let ticket = neighbours.list("concert", 1999).await;
    let order = service.reserve(BUYER, ticket).await;
    let mut events = service.get(BUYER, &format!("/api/orders/{}/events", order.id)).send().await.unwrap();
    assert_eq!(events.headers()[header::CONTENT_TYPE], "text/event-stream");

    let mut text = String::new();
    let mut told = async |count: usize| {
        eventually("the order is told", async || {
            text.push_str(std::str::from_utf8(&events.chunk().await.unwrap().unwrap()).unwrap());
            (text.matches("\n\n").count() == count).then_some(())
        })
        .await;
        let event = text.split_terminator("\n\n").last().unwrap();
        let field = |name| event.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        (field("event:"), field("id:"), serde_json::from_str::<Value>(&field("data:")).unwrap())
    };
    let mut expected = serde_json::to_value(&order).unwrap();
    assert_eq!(told(1).await, ("order".into(), "0".into(), expected.clone()));
    service.cancel(BUYER, order.id).await;
    expected["status"] = json!("cancelled");
    expected["version"] = json!(1);
    assert_eq!(told(2).await, ("order".into(), "1".into(), expected));

    // An open stream does not hold up the end.
    service.stop().await;
    while let Ok(Some(_)) = events.chunk().await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_has_written_the_other_knows() {
    let nats = NatsServer::temporary().await.unwrap();
    let (data, other_data) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut neighbours = Neighbours::create(nats.url()).await;
    let service = Service::start(nats.url(), data.path()).await;
    let other = Service::start(nats.url(), other_data.path()).await;
    let mut placed = Vec::new();
    for number in 0..20 {
        // Ordered the moment it is listed, cancelled the moment it is ordered: nothing is "not found" by lag.
        let ticket = neighbours.list(&format!("ticket {number}"), 100).await;
        let response = service.order(BUYER, ticket).await;
        assert_eq!(response.status(), StatusCode::CREATED, "{number}");
        let position = response.headers()["x-position"].clone();
        let order: Value = response.json().await.unwrap();
        let id: OrderId = order["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(other.read(BUYER, &format!("/api/orders/{id}")).await, order);
        placed.push(order);
        let list = other.get(BUYER, "/api/orders").header("x-position", position).send().await.unwrap();
        assert_eq!(list.json::<Vec<Value>>().await.unwrap().len(), number + 1);
        if number % 2 == 1 {
            let response = other.cancel(BUYER, id).await;
            assert_eq!(response.status(), StatusCode::NO_CONTENT);
            let again = service.request(Method::POST, "/api/orders").bearer_auth(token(STRANGER));
            let again = again.header("x-position", &response.headers()["x-position"]);
            let again = again.json(&json!({ "ticketId": ticket })).send().await.unwrap();
            assert_eq!(again.status(), StatusCode::CREATED, "{number}");
        }
    }
    service.stop().await;
    other.stop().await;
}
