//! Sellers and buyers, who ask whoever answers, and note what they are promised.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contract::{
    OrderId, TicketId, UserId,
    http::{Order, Payment, Ticket, User},
};
use fastrand::Rng;
use reqwest::Method;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use web::Claims;

use crate::{
    cast::Cast,
    notes::{Notebook, Promise},
    service::Service,
};

/// How many do one thing after the other.
const SELLERS: usize = 3;
const BUYERS: usize = 12;
const READERS: usize = 2;
/// How many people they are.
const PEOPLE: usize = 40;
/// How many tickets are for sale, about. Few enough that buyers meet.
const FOR_SALE: usize = 60;
/// How long anybody thinks, in milliseconds.
const THINKS: (u64, u64) = (50, 400);
/// How often somebody asks again who got no answer, or a 503.
const TRIES: usize = 4;
const VISA: &str = "pm_card_visa";
const DECLINED: &str = "pm_card_chargeDeclined";
const PASSWORD: &str = "correct horse battery staple";
/// How long sessions last: longer than any run.
const SESSION: Duration = Duration::from_secs(48 * 3600);

/// The refusals there are to expect.
const REFUSALS: [&str; 7] = [
    "Ticket is already reserved",
    "Cannot edit a reserved ticket",
    "Cannot cancel an order that is being paid",
    "Cannot cancel an order that is paid",
    "Cannot pay for a cancelled order",
    "Cannot refund an order that is not paid",
    "Email in use",
];

/// Somebody with a session.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) id: UserId,
    token: String,
}

/// What everybody shares.
pub(crate) struct Market {
    cast: Arc<Cast>,
    pub(crate) notes: Notebook,
    pub(crate) people: Vec<Person>,
    /// Tickets that may be had, and which of the people sells each.
    for_sale: Mutex<Vec<(TicketId, usize)>>,
}

/// A request. Whoever makes it has been told of whatever it is about.
struct Request {
    service: Service,
    method: Method,
    /// As the routes are named: what it is counted as.
    route: &'static str,
    path: String,
    body: Option<Value>,
}

/// What came back.
enum Answer {
    /// 2xx.
    Yes(u16, Value),
    /// 4xx.
    No(u16),
    /// Nothing, or a 5xx: it may have happened, or not.
    Unknown,
}

impl Market {
    pub(crate) fn new(cast: Arc<Cast>) -> Arc<Self> {
        let person = |_| {
            let id = Uuid::now_v7();
            let claims = Claims::new(id, &format!("{id}@example.com"), 0, SESSION);
            Person { id: UserId(id), token: cast.signer.sign(&claims) }
        };
        let people = (0..PEOPLE).map(person).collect();
        Arc::new(Self { cast, notes: Notebook::default(), people, for_sale: Mutex::default() })
    }

    /// Lets everybody loose until `stop`; returns when nobody waits for an answer any more.
    ///
    /// # Errors
    /// When one of them panics.
    pub(crate) async fn open(self: &Arc<Self>, seed: u64, stop: &CancellationToken) -> anyhow::Result<()> {
        let mut crowd = JoinSet::new();
        for number in 0..SELLERS + BUYERS + READERS + 1 {
            let (market, stop) = (self.clone(), stop.clone());
            let mut rng = Rng::with_seed(seed.wrapping_add(number as u64 + 1));
            crowd.spawn(async move {
                while !stop.is_cancelled() {
                    match number {
                        _ if number < SELLERS => market.sell(&mut rng).await,
                        _ if number < SELLERS + BUYERS => market.buy(&mut rng).await,
                        _ if number < SELLERS + BUYERS + READERS => market.look(&mut rng).await,
                        _ => market.join_up(&mut rng).await,
                    }
                    think(&mut rng).await;
                }
            });
        }
        while let Some(done) = crowd.join_next().await {
            done?;
        }
        Ok(())
    }

    /// Lists a ticket where there are few, or changes one.
    async fn sell(&self, rng: &mut Rng) {
        let known = rng.choice(&*self.shelf()).copied();
        let terms = |rng: &mut Rng| {
            let cents = rng.i64(1..=50_000);
            json!({ "title": format!("Concert {:08x}", rng.u32(..)), "price": cents as f64 / 100.0 })
        };
        match known {
            Some((ticket, seller)) if rng.u8(0..100) < 25 => {
                let path = format!("/api/tickets/{ticket}");
                let request = put(Service::Tickets, "PUT /api/tickets/:id", path, terms(rng));
                if let Answer::Yes(_, body) = self.ask(rng, Some(&self.people[seller]), request).await {
                    self.note(body, Promise::Edited);
                }
            }
            _ if self.shelf().len() < FOR_SALE => {
                let seller = rng.usize(..PEOPLE);
                let request = post(Service::Tickets, "POST /api/tickets", "/api/tickets".into(), terms(rng));
                if let Answer::Yes(_, body) = self.ask(rng, Some(&self.people[seller]), request).await
                    && let Some(ticket) = self.note::<Ticket>(body, Promise::Listed)
                {
                    self.shelf().push((ticket.id, seller));
                }
            }
            _ => {}
        }
    }

    /// Orders a ticket, and does with the order what buyers do.
    async fn buy(self: &Arc<Self>, rng: &mut Rng) {
        let Some((ticket, seller)) = rng.choice(&*self.shelf()).copied() else { return };
        let buyer = rng.choice(&self.people).expect("there are people").clone();
        let body = json!({ "ticketId": ticket });
        let request = post(Service::Orders, "POST /api/orders", "/api/orders".into(), body);
        let order: Order = match self.ask(rng, Some(&buyer), request).await {
            Answer::Yes(_, body) => match self.note(body, Promise::Ordered) {
                Some(order) => order,
                None => return,
            },
            // Somebody else has it, or had it for a while.
            Answer::No(400) if rng.u8(0..100) < 20 => return self.take_off(ticket),
            _ => return,
        };
        let id = order.id;
        match rng.u8(0..100) {
            0..50 => {
                if self.pay(rng, &buyer, id, VISA).await {
                    self.take_off(ticket);
                }
            }
            50..60 => {
                self.pay(rng, &buyer, id, DECLINED).await;
                if rng.bool() && self.pay(rng, &buyer, id, VISA).await {
                    self.take_off(ticket);
                }
            }
            60..75 => {
                think(rng).await;
                self.cancel(rng, &buyer, id).await;
            }
            75..83 => {
                let (mut other, buyer, market) = (rng.fork(), &buyer, &**self);
                tokio::join!(market.pay(rng, buyer, id, VISA), market.cancel(&mut other, buyer, id));
            }
            83..90 => {
                if self.pay(rng, &buyer, id, VISA).await {
                    self.refund(rng, seller, id).await;
                }
            }
            // It is left to expire.
            _ => self.read(rng, &buyer, id).await,
        }
    }

    /// Whether it was paid for, as far as one was told.
    async fn pay(&self, rng: &mut Rng, buyer: &Person, order: OrderId, card: &str) -> bool {
        for _ in 0..TRIES {
            let body = json!({ "orderId": order, "token": card });
            let request = post(Service::Payments, "POST /api/payments", "/api/payments".into(), body);
            match self.ask(rng, Some(buyer), request).await {
                Answer::Yes(201, body) => return self.note::<Payment>(body, Promise::Paid).is_some(),
                Answer::Yes(_, body) => drop(self.note::<Payment>(body, Promise::Requested)),
                Answer::No(409) | Answer::Unknown => {}
                Answer::No(_) => return false,
            }
            think(rng).await;
        }
        false
    }

    async fn cancel(&self, rng: &mut Rng, buyer: &Person, order: OrderId) {
        for _ in 0..TRIES {
            let path = format!("/api/orders/{order}");
            let request =
                Request { method: Method::DELETE, ..get(Service::Orders, "DELETE /api/orders/:id", path) };
            match self.ask(rng, Some(buyer), request).await {
                Answer::Yes(..) => return self.notes.promised(Promise::Cancelled(order)),
                Answer::No(409) | Answer::Unknown => think(rng).await,
                Answer::No(_) => return,
            }
        }
    }

    async fn refund(&self, rng: &mut Rng, seller: usize, order: OrderId) {
        self.notes.to_give_back(order);
        for _ in 0..TRIES {
            let path = format!("/api/payments/{order}/refund");
            let request = post(Service::Payments, "POST /api/payments/:orderId/refund", path, json!({}));
            match self.ask(rng, Some(&self.people[seller]), request).await {
                Answer::Yes(_, body) => return drop(self.note::<Payment>(body, Promise::Refunded)),
                Answer::No(409) | Answer::Unknown => think(rng).await,
                Answer::No(_) => return,
            }
        }
    }

    async fn read(&self, rng: &mut Rng, buyer: &Person, order: OrderId) {
        let path = format!("/api/orders/{order}");
        self.ask(rng, Some(buyer), get(Service::Orders, "GET /api/orders/:id", path)).await;
    }

    /// Reads what there is to read.
    async fn look(&self, rng: &mut Rng) {
        let person = rng.choice(&self.people).expect("there are people");
        let ticket = rng.choice(&*self.shelf()).map(|(ticket, _)| *ticket);
        let request = match (rng.u8(0..5), ticket) {
            (0, _) => get(Service::Tickets, "GET /api/tickets", "/api/tickets?limit=50".into()),
            (1, _) => {
                get(Service::Tickets, "GET /api/tickets", "/api/tickets?status=all&search=concert".into())
            }
            (2, _) => get(Service::Orders, "GET /api/orders", "/api/orders?order=newest&limit=20".into()),
            (3, _) => get(Service::Orders, "GET /api/orders/sales", "/api/orders/sales?limit=20".into()),
            (_, Some(ticket)) => {
                get(Service::Tickets, "GET /api/tickets/:id", format!("/api/tickets/{ticket}"))
            }
            (_, None) => return,
        };
        self.ask(rng, Some(person), request).await;
    }

    /// Signs up, in, and sometimes off.
    async fn join_up(&self, rng: &mut Rng) {
        let email = format!("{}@example.com", Uuid::now_v7());
        let credentials = json!({ "email": email, "password": PASSWORD });
        let user = |route, path: &str| post(Service::Auth, route, path.to_owned(), credentials.clone());
        let answer = self.ask(rng, None, user("POST /api/users/signup", "/api/users/signup")).await;
        let Answer::Yes(_, body) = answer else { return };
        let Some(User { id, .. }) = self.note(body, Promise::SignedUp) else { return };
        match self.ask(rng, None, user("POST /api/users/signin", "/api/users/signin")).await {
            Answer::Yes(_, body) if body["id"] != json!(id) => {
                self.notes.wrong(format!("{email} is user {id}, and was signed in as {body}"));
            }
            Answer::No(_) => self.notes.wrong(format!("user {id} signed up, and could not sign in")),
            Answer::Yes(..) | Answer::Unknown => {}
        }
        if rng.u8(0..100) < 20 {
            let person = Person { id, token: self.cast.signer.sign(&Claims::new(id.0, &email, 0, SESSION)) };
            let body = json!({ "password": PASSWORD });
            let request = post(Service::Auth, "DELETE /api/users/me", "/api/users/me".into(), body);
            let request = Request { method: Method::DELETE, ..request };
            if let Answer::Yes(..) = self.ask(rng, Some(&person), request).await {
                self.notes.promised(Promise::Erased(id));
            }
        }
        sleep(Duration::from_millis(500)).await;
    }

    /// Asks one of those who are up, and notes how it was answered.
    async fn ask(&self, rng: &mut Rng, by: Option<&Person>, request: Request) -> Answer {
        let Request { service, method, route, path, body } = request;
        let up = self.cast.of(service).filter(|replica| replica.is_up());
        let Some(replica) = rng.choice(up.collect::<Vec<_>>()) else {
            self.notes.answered(route, 0);
            return Answer::Unknown;
        };
        let mut sent = self.cast.http.request(method, format!("{}{path}", replica.url()));
        if let Some(person) = by {
            sent = sent.bearer_auth(&person.token);
        }
        if let Some(body) = &body {
            sent = sent.json(body);
        }
        let answer = match sent.send().await {
            Ok(answer) => {
                let status = answer.status().as_u16();
                answer.text().await.ok().map(|text| (status, text))
            }
            Err(_) => None,
        };
        let Some((status, text)) = answer else {
            self.notes.answered(route, 0);
            return Answer::Unknown;
        };
        self.notes.answered(route, status);
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        match status {
            200..300 => Answer::Yes(status, body),
            502 | 503 => Answer::Unknown,
            402 | 409 => Answer::No(status),
            400 if body["errors"][0]["message"].as_str().is_some_and(|said| REFUSALS.contains(&said)) => {
                Answer::No(status)
            }
            // 401 and 404 too: whoever asks is signed in, and was told of what they ask for.
            _ => {
                self.notes.wrong(format!("{route} ({path}) was answered with {status}: {text}"));
                if status < 500 { Answer::No(status) } else { Answer::Unknown }
            }
        }
    }

    /// Notes what a body promises.
    fn note<T: DeserializeOwned + Clone>(
        &self,
        body: Value,
        promise: impl FnOnce(T) -> Promise,
    ) -> Option<T> {
        match serde_json::from_value::<T>(body.clone()) {
            Ok(given) => {
                self.notes.promised(promise(given.clone()));
                Some(given)
            }
            Err(error) => {
                self.notes.wrong(format!("{body} is not what the contract says: {error}"));
                None
            }
        }
    }

    fn take_off(&self, ticket: TicketId) {
        self.shelf().retain(|(one, _)| *one != ticket);
    }

    fn shelf(&self) -> MutexGuard<'_, Vec<(TicketId, usize)>> {
        self.for_sale.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session of one of the people.
    pub(crate) fn token(person: &Person) -> &str {
        &person.token
    }
}

fn get(service: Service, route: &'static str, path: String) -> Request {
    Request { service, method: Method::GET, route, path, body: None }
}

fn post(service: Service, route: &'static str, path: String, body: Value) -> Request {
    Request { method: Method::POST, body: Some(body), ..get(service, route, path) }
}

fn put(service: Service, route: &'static str, path: String, body: Value) -> Request {
    Request { method: Method::PUT, ..post(service, route, path, body) }
}

async fn think(rng: &mut Rng) {
    let (least, most) = THINKS;
    sleep(Duration::from_millis(rng.u64(least..=most))).await;
}
