//! Somebody who needs no browser: an account, and what it does through the API.

use reqwest::{Client, StatusCode, header::SET_COOKIE};
use serde_json::{Value, json};

use crate::support::{PATIENCE, text, within};

/// The password of everybody here.
pub(crate) const PASSWORD: &str = "correct horse";

/// A test card that pays.
pub(crate) const VISA: &str = "pm_card_visa";

pub(crate) struct Caller {
    http: Client,
    site: String,
    pub(crate) email: String,
    session: String,
}

impl Caller {
    pub(crate) async fn signed_up(site: &str, email: &str) -> Self {
        let http = Client::builder().cookie_store(true).timeout(PATIENCE).build().unwrap();
        let account = json!({ "email": email, "password": PASSWORD });
        let answer = http.post(format!("{site}/api/users/signup")).json(&account).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::CREATED);
        let cookies = answer.headers().get_all(SET_COOKIE).iter().filter_map(|cookie| cookie.to_str().ok());
        let session = cookies.filter_map(|cookie| cookie.strip_prefix("session=")?.split(';').next()).next();
        let session = session.expect("a session").to_owned();
        Self { http, site: site.to_owned(), email: email.to_owned(), session }
    }

    /// What the cookie holds.
    pub(crate) fn session(&self) -> &str {
        &self.session
    }

    pub(crate) async fn asks(&self, path: &str) -> Value {
        let answer = self.http.get(format!("{}{path}", self.site)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.json().await.unwrap()
    }

    async fn posts(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let answer = self.http.post(format!("{}{path}", self.site)).json(&body).send().await.unwrap();
        (answer.status(), answer.json().await.unwrap_or_default())
    }

    /// Lists a ticket; returns its id.
    pub(crate) async fn lists(&self, title: &str, price: &str) -> String {
        let (status, ticket) = self.posts("/api/tickets", json!({ "title": title, "price": price })).await;
        assert_eq!(status, StatusCode::CREATED, "{ticket}");
        text(&ticket["id"])
    }

    /// Orders a ticket; returns the order's id.
    pub(crate) async fn orders(&self, ticket: &str) -> String {
        let (status, order) = self.posts("/api/orders", json!({ "ticketId": ticket })).await;
        assert_eq!(status, StatusCode::CREATED, "{order}");
        text(&order["id"])
    }

    pub(crate) async fn pays(&self, order: &str, card: &str) -> StatusCode {
        self.posts("/api/payments", json!({ "orderId": order, "token": card })).await.0
    }

    pub(crate) async fn cancels(&self, order: &str) {
        let answer = self.http.delete(format!("{}/api/orders/{order}", self.site)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    }

    /// As the ticket's seller.
    pub(crate) async fn refunds(&self, order: &str) {
        let (status, body) = self.posts(&format!("/api/payments/{order}/refund"), json!({})).await;
        assert!(status.is_success(), "{status} {body}");
    }

    /// Waits until an order or a ticket of that path has the status.
    pub(crate) async fn until(&self, path: &str, status: &str) {
        let has_it = || async { (self.asks(path).await["status"] == status).then_some(()) };
        assert!(within(PATIENCE, has_it).await.is_some(), "not {status}: {}", self.asks(path).await);
    }

    /// Buys a ticket, until all services know; returns the order's id.
    pub(crate) async fn buys(&self, ticket: &str) -> String {
        let order = self.orders(ticket).await;
        assert_eq!(self.pays(&order, VISA).await, StatusCode::CREATED);
        self.until(&format!("/api/orders/{order}"), "complete").await;
        self.until(&format!("/api/tickets/{ticket}"), "sold").await;
        order
    }
}
