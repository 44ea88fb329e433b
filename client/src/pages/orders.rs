//! What I buy.

use contract::{
    OrderId,
    event::{CancelReason, OrderStatus},
    http::{HistoryEntry, Order, Payment, PaymentStatus},
};
use maud::{Markup, html};

use super::parts::{moment, order_badge, pages, price, short, version};
use crate::{
    api::{Api, Listed},
    config::{PublishableKey, Stripe},
    error::Error,
};

/// The sandbox's cards, by what becomes of a payment.
const TEST_CARDS: [(&str, &str); 4] = [
    ("pm_card_visa", "A card that pays"),
    ("pm_card_chargeDeclined", "A card that is declined"),
    ("pm_card_chargeDeclinedInsufficientFunds", "A card without enough money"),
    ("pm_card_authenticationRequired", "A card whose bank asks its owner first"),
];

/// An order with all that its page shows.
#[derive(Debug)]
pub(crate) struct Standing {
    order: Order,
    payment: Paying,
    history: Vec<HistoryEntry>,
}

/// What is known of its payment.
#[derive(Debug)]
enum Paying {
    Untried,
    Tried(Payment),
    /// Nobody answers who knows.
    Unknown,
}

/// What the buyer can do about paying.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Step {
    /// Pay.
    Pay,
    /// Pay with another card.
    PayAgain,
    /// Answer their bank.
    Authenticate,
    /// Wait.
    Wait,
    /// Wait until that is known.
    Unknown,
    /// Wait for their money.
    WaitForMoney,
    /// Nothing any more.
    Nothing,
}

impl Standing {
    /// Asks for all of it at once.
    pub(crate) async fn of(api: &Api, id: OrderId) -> Result<Self, Error> {
        let payment = async {
            match api.payment(id).await {
                Ok(Some(payment)) => Ok(Paying::Tried(payment)),
                Ok(None) => Ok(Paying::Untried),
                Err(Error::Unavailable(_)) => Ok(Paying::Unknown),
                Err(error) => Err(error),
            }
        };
        let (order, payment, history) = tokio::join!(api.order(id), payment, api.history(id));
        // The order's own error first: the others follow from it.
        Ok(Self { order: order?, payment: payment?, history: history? })
    }

    /// Which of the order's events are in it.
    pub(crate) fn version(&self) -> u64 {
        self.order.version
    }

    /// The order's title.
    pub(crate) fn title(&self) -> &str {
        &self.order.ticket.title
    }

    /// Whether something is about to happen that the order's events do not tell.
    pub(crate) fn is_moving(&self) -> bool {
        matches!(self.step(), Step::Wait | Step::Authenticate | Step::Unknown | Step::WaitForMoney)
    }

    fn step(&self) -> Step {
        let payment = match &self.payment {
            Paying::Untried => None,
            Paying::Tried(payment) => Some(payment.status),
            Paying::Unknown => return if self.is_over() { Step::Nothing } else { Step::Unknown },
        };
        match (self.order.status, payment) {
            (_, Some(PaymentStatus::Refunding)) => Step::WaitForMoney,
            (OrderStatus::Complete | OrderStatus::Cancelled, _) => Step::Nothing,
            (OrderStatus::Created, None) => Step::Pay,
            (OrderStatus::Created, Some(PaymentStatus::Declined)) => Step::PayAgain,
            (OrderStatus::Created, Some(PaymentStatus::RequiresAction)) => Step::Authenticate,
            (OrderStatus::Created | OrderStatus::AwaitingPayment, _) => Step::Wait,
        }
    }

    fn is_over(&self) -> bool {
        matches!(self.order.status, OrderStatus::Complete | OrderStatus::Cancelled)
    }

    fn reason(&self) -> Option<CancelReason> {
        self.history.iter().rev().find_map(reason)
    }
}

/// Why the order was cancelled, if this event did that.
fn reason(entry: &HistoryEntry) -> Option<CancelReason> {
    serde_json::from_value(entry.data.get("reason")?.clone()).ok()
}

/// An order's page.
pub(crate) fn one(standing: &Standing, stripe: &Stripe) -> Markup {
    let order = &standing.order;
    html! {
        h1 { "Your order: " (order.ticket.title) }
        div #order data-live={ "/live/orders/" (order.id) } { (parts(standing, stripe)) }
        p { a href={ "/tickets/" (order.ticket.id) } { "The ticket" } " · " a href="/orders" { "My orders" } }
    }
}

/// What changes by itself of it.
pub(crate) fn parts(standing: &Standing, stripe: &Stripe) -> Markup {
    html! {
        (status(standing))
        (paying(standing, stripe))
        (history(standing))
    }
}

fn status(standing: &Standing) -> Markup {
    let order = &standing.order;
    let reason = standing.reason();
    html! {
        section #order-status .panel aria-label="Status" data-version=(version((order.version, said(order.status, reason))))
            data-announce=(said(order.status, reason)) {
            dl.facts {
                div { dt { "Status" } dd { (order_badge(order.status, reason)) } }
                div { dt { "Price" } dd { (price(order.ticket.price)) } }
                div { dt { "Order" } dd { (short(order.id.0)) } }
            }
            @if order.status == OrderStatus::Created {
                p.countdown role="timer" data-expires=(order.expires_at) {
                    "Reserved for you until " (moment(order.expires_at)) "." span data-left {}
                }
            } @else {
                p { (said(order.status, reason)) }
            }
        }
    }
}

/// How it stands, in a sentence.
fn said(status: OrderStatus, reason: Option<CancelReason>) -> &'static str {
    match (status, reason) {
        (OrderStatus::Created, _) => "It is reserved for you.",
        (OrderStatus::AwaitingPayment, _) => {
            "Your card is authorised. The ticket is yours as soon as it is charged."
        }
        (OrderStatus::Complete, _) => "It is paid. The ticket is yours.",
        (OrderStatus::Cancelled, Some(CancelReason::Expired)) => {
            "The reservation has expired. Nothing was charged, and the ticket is for sale again."
        }
        (OrderStatus::Cancelled, Some(CancelReason::PaymentFailed)) => {
            "Your card could not be charged, so the order was cancelled."
        }
        (OrderStatus::Cancelled, Some(CancelReason::Refunded)) => {
            "The seller has given your money back. The ticket is no longer yours."
        }
        (OrderStatus::Cancelled, Some(CancelReason::Buyer)) => "You have cancelled the order.",
        (OrderStatus::Cancelled, None) => "The order was cancelled.",
    }
}

fn paying(standing: &Standing, stripe: &Stripe) -> Markup {
    let (order, step) = (&standing.order, standing.step());
    html! {
        // Not by the order's version: a card that is being typed in must not go away for less than a reason.
        section #order-pay .panel aria-label="Payment" data-version=(version(step)) data-announce=[spoken(step)]
            hidden[step == Step::Nothing] {
            @match step {
                Step::Nothing => {}
                Step::Pay | Step::PayAgain => {
                    h2 { "Pay" }
                    @if let (Step::PayAgain, Paying::Tried(payment)) = (step, &standing.payment) {
                        p { "The last card was declined." @if let Some(reason) = &payment.reason { " Your bank says: “" (reason) "”" } }
                        p { "You can try again, with the same card or another one." }
                    }
                    @match stripe {
                        Stripe::Live(key) => (card_form(order, key)),
                        Stripe::Sandbox { .. } => (test_form(order)),
                    }
                    form method="post" action={ "/orders/" (order.id) "/cancel" } {
                        div.actions { button.secondary { "Cancel the order" } }
                    }
                }
                Step::Authenticate => (authenticate(standing, stripe)),
                Step::Wait => {
                    p.working { "Your payment is under way. This page will say how it went." }
                    (look_again(order))
                }
                Step::Unknown => {
                    p { "Payments are not available right now. This page will go on as soon as they are." }
                    (look_again(order))
                }
                Step::WaitForMoney => p.working { "Your money is on its way back to you." },
            }
        }
    }
}

/// What a change of the payment says to who does not see it; the rest says the order itself.
fn spoken(step: Step) -> Option<&'static str> {
    match step {
        Step::PayAgain => Some("The card was declined. You can try again."),
        Step::Authenticate => Some("Your bank wants to hear from you."),
        Step::Unknown => Some("Payments are not available right now."),
        Step::Pay | Step::Wait | Step::WaitForMoney | Step::Nothing => None,
    }
}

fn look_again(order: &Order) -> Markup {
    html! { noscript { p { a href={ "/orders/" (order.id) } { "Look again" } } } }
}

/// Stripe's own form: the card's number never comes here.
fn card_form(order: &Order, key: &PublishableKey) -> Markup {
    html! {
        form #pay method="post" action={ "/orders/" (order.id) "/pay" } data-stripe-key=(key.as_str())
            data-amount=(order.ticket.price.0) data-currency="usd" {
            noscript { p.error { "Paying needs JavaScript: the form for your card is Stripe’s, and your card’s number is sent to Stripe alone." } }
            div #payment-element {}
            p #card-error .error role="alert" hidden {}
            input type="hidden" name="token" autocomplete="off";
            div.actions hidden data-script { (pay_button(order)) }
        }
    }
}

fn test_form(order: &Order) -> Markup {
    html! {
        form #pay method="post" action={ "/orders/" (order.id) "/pay" } {
            fieldset {
                legend { "Test card" }
                p.hint { "This is a test: no card is ever charged. Choose what is to happen." }
                @for (number, (token, what)) in TEST_CARDS.into_iter().enumerate() {
                    div.choice {
                        input #{ "card-" (number) } type="radio" name="token" value=(token) checked[number == 0];
                        label for={ "card-" (number) } { (what) }
                    }
                }
            }
            div.actions { (pay_button(order)) }
        }
    }
}

fn pay_button(order: &Order) -> Markup {
    html! { button #pay-button .primary { "Pay " (price(order.ticket.price)) } }
}

fn authenticate(standing: &Standing, stripe: &Stripe) -> Markup {
    let Paying::Tried(payment) = &standing.payment else { return html! {} };
    html! {
        h2 { "Your bank wants to hear from you" }
        p { "The card is not charged before your bank knows that it is you who pays." }
        @match (stripe, &payment.client_secret, &payment.stripe_id) {
            (Stripe::Live(key), Some(secret), _) => {
                noscript { p.error { "This needs JavaScript: your bank’s page is shown by Stripe’s script." } }
                p #card-error .error role="alert" hidden {}
                div.actions {
                    button #authenticate .primary type="button" data-stripe-key=(key.as_str()) data-client-secret=(secret) { "Answer your bank" }
                }
            }
            (Stripe::Sandbox { url: Some(url) }, _, Some(intent)) => {
                div.actions {
                    a.button.primary href={ (url) "/_sandbox/payment_intents/" (intent) "/authenticate" } target="_blank" rel="noopener" {
                        "Open your bank’s page" span.visually-hidden { " (in a new tab)" }
                    }
                }
                (look_again(&standing.order))
            }
            _ => {
                p.working { "Waiting for your bank." }
                (look_again(&standing.order))
            }
        }
    }
}

fn history(standing: &Standing) -> Markup {
    let entries = &standing.history;
    html! {
        section #order-history .panel aria-labelledby="history" data-version=(entries.len()) {
            h2 #history { "What has happened" }
            ol.history {
                @for entry in entries { li { (moment(entry.time)) span { (happened(entry)) } } }
            }
        }
    }
}

fn happened(entry: &HistoryEntry) -> &'static str {
    match (entry.event_type.as_str(), reason(entry)) {
        ("order:created", _) => "You reserved the ticket",
        ("order:awaiting-payment", _) => "Your card was authorised",
        ("order:completed", _) => "Your card was charged: the ticket is yours",
        ("order:cancelled", Some(CancelReason::Buyer)) => "You cancelled the order",
        ("order:cancelled", Some(CancelReason::Expired)) => "The reservation expired",
        ("order:cancelled", Some(CancelReason::PaymentFailed)) => "Your card could not be charged",
        ("order:cancelled", Some(CancelReason::Refunded)) => "Your money went back",
        _ => "The order changed",
    }
}

/// All my orders.
pub(crate) fn list(orders: &Listed<Order>, cursor: Option<&str>) -> Markup {
    html! {
        h1 { "My orders" }
        @if orders.items.is_empty() {
            p.empty { "You have not ordered anything yet. " a href="/" { "Tickets for sale" } }
        } @else {
            table.rows {
                thead { tr { th scope="col" { "Ticket" } th scope="col" { "Price" } th scope="col" { "Status" } th scope="col" { "Reserved until" } } }
                tbody {
                    @for order in &orders.items {
                        tr {
                            th scope="row" { a href={ "/orders/" (order.id) } { (order.ticket.title) } }
                            td data-label="Price" { (price(order.ticket.price)) }
                            td data-label="Status" { (order_badge(order.status, None)) }
                            td data-label="Reserved until" {
                                @if order.status == OrderStatus::Created { (moment(order.expires_at)) } @else { "–" }
                            }
                        }
                    }
                }
            }
        }
        (pages("/orders", &[], cursor, orders.next.as_deref()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use contract::{Cents, OrderId, PaymentId, TicketId, Timestamp, UserId, http::OrderTicket};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn standing(status: OrderStatus, payment: Option<PaymentStatus>) -> Standing {
        let id = OrderId(Uuid::from_u128(1));
        let ticket =
            OrderTicket { id: TicketId(Uuid::from_u128(2)), title: "<b>".into(), price: Cents(1999) };
        let expires_at = Timestamp::from(UNIX_EPOCH);
        let order = Order { id, user_id: UserId(Uuid::from_u128(3)), status, expires_at, ticket, version: 1 };
        let payment = payment.map_or(Paying::Untried, |status| {
            let id = PaymentId(Uuid::from_u128(4));
            Paying::Tried(Payment {
                id,
                order_id: order.id,
                stripe_id: Some("pi_1".into()),
                status,
                reason: None,
                client_secret: None,
            })
        });
        Standing { order, payment, history: Vec::new() }
    }

    #[test]
    fn one_can_pay_while_nothing_is_under_way() {
        let check = |status, payment, expected| {
            assert_eq!(standing(status, payment).step(), expected, "{status:?} {payment:?}");
        };
        check(OrderStatus::Created, None, Step::Pay);
        check(OrderStatus::Created, Some(PaymentStatus::Declined), Step::PayAgain);
        check(OrderStatus::Created, Some(PaymentStatus::RequiresAction), Step::Authenticate);
        for under_way in [PaymentStatus::Requested, PaymentStatus::Authorized, PaymentStatus::Created] {
            check(OrderStatus::Created, Some(under_way), Step::Wait);
            check(OrderStatus::AwaitingPayment, Some(under_way), Step::Wait);
        }
        check(OrderStatus::Complete, Some(PaymentStatus::Created), Step::Nothing);
        check(OrderStatus::Complete, Some(PaymentStatus::Refunding), Step::WaitForMoney);
        check(OrderStatus::Cancelled, Some(PaymentStatus::Refunded), Step::Nothing);
        check(OrderStatus::Cancelled, None, Step::Nothing);
    }

    #[test]
    fn while_payments_do_not_answer_nobody_is_asked_to_pay() {
        let unknown = |status| Standing { payment: Paying::Unknown, ..standing(status, None) };
        assert_eq!(unknown(OrderStatus::Created).step(), Step::Unknown);
        assert_eq!(unknown(OrderStatus::Complete).step(), Step::Nothing);
        assert!(unknown(OrderStatus::Created).is_moving());
    }

    #[test]
    fn a_title_is_text_and_a_price_has_its_cents() {
        let html = one(&standing(OrderStatus::Created, None), &Stripe::Sandbox { url: None }).into_string();
        assert!(html.contains("&lt;b&gt;") && !html.contains("<b>"), "{html}");
        assert!(html.contains(r#"value="19.99""#), "{html}");
    }

    #[test]
    fn why_it_was_cancelled_is_in_its_history() {
        let entry = |event_type: &str, data| HistoryEntry {
            event_type: event_type.into(),
            version: 1,
            time: Timestamp::from(UNIX_EPOCH),
            data,
        };
        let expired = entry("order:cancelled", json!({ "reason": "expired" }));
        assert_eq!(happened(&expired), "The reservation expired");
        assert_eq!(happened(&entry("order:renamed", json!({}))), "The order changed");
        let history = vec![entry("order:created", json!({})), expired];
        let cancelled = Standing { history, ..standing(OrderStatus::Cancelled, None) };
        assert_eq!(cancelled.reason(), Some(CancelReason::Expired));
    }
}
