//! What several pages are made of.

use std::hash::{DefaultHasher, Hash, Hasher};

use contract::{
    Cents, Timestamp,
    event::{CancelReason, OrderStatus},
    http::TicketStatus,
};
use maud::{Markup, html};
use time::{OffsetDateTime, macros::format_description};
use uuid::Uuid;

use crate::{api::encoded, forms::Form};

/// An amount of money. The script writes it as the visitor's language does.
pub(crate) fn price(amount: Cents) -> Markup {
    html! { data.price value=(dollars(amount)) data-currency="USD" { "$" (grouped(amount)) } }
}

/// `1999.90`, for fields and scripts.
pub(crate) fn dollars(amount: Cents) -> String {
    format!("{}.{:02}", amount.0 / 100, amount.0 % 100)
}

/// `1,999.90`.
pub(crate) fn grouped(amount: Cents) -> String {
    let (whole, cents) = (amount.0 / 100, amount.0 % 100);
    match whole {
        0..1_000 => format!("{whole}.{cents:02}"),
        _ => format!("{},{:03}.{cents:02}", whole / 1_000, whole % 1_000),
    }
}

/// A date and a time of day, in UTC. The script writes it as the visitor's language and clock do.
pub(crate) fn moment(time: Timestamp) -> Markup {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");
    let text = OffsetDateTime::from(time).format(format).unwrap_or_else(|_| time.to_string());
    html! { time datetime=(time) { (text) } }
}

/// The end of an id: enough to tell a few apart.
pub(crate) fn short(id: Uuid) -> String {
    let text = id.simple().to_string();
    text[text.len() - 8..].to_owned()
}

/// What becomes another version whenever any of these does.
pub(crate) fn version(of: impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    format!("h{:016x}", hasher.finish())
}

pub(crate) fn ticket_badge(status: TicketStatus) -> Markup {
    match status {
        TicketStatus::Available => badge("available", "Available"),
        TicketStatus::Reserved => badge("reserved", "Reserved"),
        TicketStatus::Sold => badge("sold", "Sold"),
    }
}

pub(crate) fn order_badge(status: OrderStatus, reason: Option<CancelReason>) -> Markup {
    match (status, reason) {
        (OrderStatus::Created, _) => badge("reserved", "Reserved"),
        (OrderStatus::AwaitingPayment, _) => badge("reserved", "Being paid"),
        (OrderStatus::Complete, _) => badge("available", "Paid"),
        (OrderStatus::Cancelled, Some(CancelReason::Expired)) => badge("sold", "Expired"),
        (OrderStatus::Cancelled, Some(CancelReason::Refunded)) => badge("sold", "Refunded"),
        (OrderStatus::Cancelled, Some(CancelReason::Buyer | CancelReason::PaymentFailed) | None) => {
            badge("sold", "Cancelled")
        }
    }
}

fn badge(kind: &str, text: &str) -> Markup {
    html! { span class={ "badge " (kind) } { (text) } }
}

/// A field with its label, its hint, and what is wrong with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field<'a> {
    pub(crate) name: &'a str,
    pub(crate) label: &'a str,
    pub(crate) hint: Option<&'a str>,
    pub(crate) kind: &'a str,
    pub(crate) autocomplete: Option<&'a str>,
    pub(crate) inputmode: Option<&'a str>,
}

impl<'a> Field<'a> {
    pub(crate) fn text(name: &'a str, label: &'a str) -> Self {
        Self { name, label, hint: None, kind: "text", autocomplete: Some("off"), inputmode: None }
    }

    pub(crate) fn email() -> Self {
        Self { kind: "email", autocomplete: Some("username"), ..Self::text("email", "Email address") }
    }

    /// Never filled in again: a password is not sent back.
    pub(crate) fn password(autocomplete: &'a str) -> Self {
        Self { kind: "password", autocomplete: Some(autocomplete), ..Self::text("password", "Password") }
    }

    pub(crate) fn hint(self, hint: &'a str) -> Self {
        Self { hint: Some(hint), ..self }
    }

    pub(crate) fn inputmode(self, inputmode: &'a str) -> Self {
        Self { inputmode: Some(inputmode), ..self }
    }

    pub(crate) fn render(self, form: &Form) -> Markup {
        let problem = form.problem(self.name);
        let value = (self.kind != "password").then(|| form.value(self.name));
        let (hint_id, error_id) = (format!("{}-hint", self.name), format!("{}-error", self.name));
        let described: Vec<&str> = [self.hint.map(|_| hint_id.as_str()), problem.map(|_| error_id.as_str())]
            .into_iter()
            .flatten()
            .collect();
        let described = (!described.is_empty()).then(|| described.join(" "));
        html! {
            div.field.wrong[problem.is_some()] {
                label for=(self.name) { (self.label) }
                @if let Some(hint) = self.hint { p.hint #(hint_id) { (hint) } }
                @if let Some(problem) = problem {
                    p.error #(error_id) { span.visually-hidden { "Error: " } (problem) }
                }
                input #(self.name) name=(self.name) type=(self.kind) value=[value] required
                    autocomplete=[self.autocomplete] inputmode=[self.inputmode]
                    aria-describedby=[described] aria-invalid=[problem.map(|_| "true")];
            }
        }
    }
}

/// The part of a list that begins behind `cursor`.
pub(crate) fn address(path: &str, query: &[(&str, &str)], cursor: Option<&str>) -> String {
    let query = encoded(query.iter().copied().chain(cursor.map(|cursor| ("cursor", cursor))));
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

/// Links to the other parts of a list. `query` is what the parts have in common.
pub(crate) fn pages(path: &str, query: &[(&str, &str)], cursor: Option<&str>, next: Option<&str>) -> Markup {
    let link = |cursor| address(path, query, cursor);
    html! {
        @if cursor.is_some() || next.is_some() {
            nav.pages aria-label="Pages" {
                @if cursor.is_some() { a href=(link(None)) { "Newest" } }
                @if let Some(next) = next { a href=(link(Some(next))) rel="next" { "Older" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_to_the_cent() {
        let check = |cents, expected: &str| assert_eq!(grouped(Cents(cents)), expected);
        check(1, "0.01");
        check(1999, "19.99");
        check(100_000, "1,000.00");
        check(99_999_999, "999,999.99");
        assert_eq!(dollars(Cents(100_005)), "1000.05");
    }

    #[test]
    fn other_parts_of_a_list_are_found_with_the_same_words() {
        let html = pages("/", &[("search", "a & b")], Some("01"), Some("02")).into_string();
        assert!(html.contains(r#"href="/?search=a+%26+b""#), "{html}");
        assert!(html.contains(r#"href="/?search=a+%26+b&amp;cursor=02""#), "{html}");
        assert_eq!(pages("/", &[("search", "")], None, None).into_string(), "");
    }

    #[test]
    fn a_field_names_what_is_wrong_with_it() {
        let html = Field::text("title", "Title").hint("What?").render(&Form::default()).into_string();
        assert!(html.contains(r#"aria-describedby="title-hint""#), "{html}");
        assert!(!html.contains("aria-invalid"), "{html}");
    }
}
