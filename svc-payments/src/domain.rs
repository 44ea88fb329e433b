//! The rules of payments. Pure: ids are arguments, and what Stripe said is an argument too.
//!
//! The aggregate is the payment of one order: a row of tries of which at most one is alive, and that is always the
//! last. So the last is all that has to be remembered.

use std::{fmt, str::FromStr};

use contract::{
    Cents, OrderEvent, OrderId, PaymentEvent, PaymentId, TicketId, UserId,
    event::{OrderCreated, PaymentRequested, PaymentSettled, PaymentUnsettled},
};
use serde::{Deserialize, Serialize};

/// One try to pay for an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Payment {
    /// This try.
    pub id: PaymentId,
    /// What is paid for.
    pub order: OrderId,
    /// Who pays.
    pub buyer: UserId,
    /// How much.
    pub amount: Cents,
    /// In which currency.
    pub currency: String,
    /// What the buyer pays with, as Stripe names it.
    pub method: String,
    /// How far it is.
    pub status: Status,
}

/// How far a try to pay is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Status {
    /// Asked for. Stripe may have been asked; nobody here knows its answer.
    Requested,
    /// The money is held, not taken.
    Authorized {
        /// The PaymentIntent that holds it.
        stripe_id: String,
    },
    /// The money is taken.
    Created {
        /// The PaymentIntent that took it.
        stripe_id: String,
    },
    /// The card was refused. The order may be paid in another try.
    Declined(Undone),
    /// The hold was let go: the order was cancelled first, or the money could not be taken.
    Voided(Undone),
    /// The money went back.
    Refunded(Undone),
}

/// A try that left no money here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undone {
    /// Stripe's PaymentIntent, if there was one.
    pub stripe_id: Option<String>,
    /// Why. For a declined card: what its owner may read.
    pub reason: String,
}

/// What is known here of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// The order.
    pub id: OrderId,
    /// Who may pay for it.
    pub buyer: UserId,
    /// What is bought.
    pub ticket: TicketId,
    /// What it cost when it was ordered: what is charged.
    pub price: Cents,
    /// Where it is in its life.
    pub standing: Standing,
}

/// Where an order is in its life, as far as paying goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Standing {
    /// It can be paid, and it can end at any moment.
    Open,
    /// It waits for this payment to be captured and does not end before.
    Awaiting(PaymentId),
    /// It was paid.
    Complete,
    /// It ended without a sale, or the sale was undone.
    Cancelled,
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// It is somebody else's order.
    NotYourOrder,
    /// It is over.
    OrderCancelled,
}

/// What the buyer pays with: a Stripe payment method (`pm_…`) or token (`tok_…`). A reference, never a card number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token(String);

/// A text that is no reference of Stripe's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;

    /// Reads letters, digits and underscores, 255 characters at most: no id of Stripe's is longer
    /// (<https://docs.stripe.com/upgrades#what-changes-does-stripe-consider-to-be-backwards-compatible>).
    ///
    /// # Errors
    /// When it is anything else.
    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let rest = text.strip_prefix("pm_").or_else(|| text.strip_prefix("tok_")).ok_or(InvalidToken)?;
        let fits = !rest.is_empty() && text.len() <= 255;
        match fits && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidToken),
        }
    }
}

/// ISO 4217 in lower case, as Stripe has it: `usd`. One that has cents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Currency(String);

/// A text that is no currency with cents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidCurrency;

/// The currencies whose smallest unit is not a hundredth: an amount in cents would charge another sum
/// (<https://docs.stripe.com/currencies#zero-decimal>, `#three-decimal`).
const WITHOUT_CENTS: [&str; 21] = [
    "bif", "clp", "djf", "gnf", "jpy", "kmf", "krw", "mga", "pyg", "rwf", "ugx", "vnd", "vuv", "xaf", "xof",
    "xpf", "bhd", "jod", "kwd", "omr", "tnd",
];

impl Default for Currency {
    fn default() -> Self {
        Self("usd".into())
    }
}

impl FromStr for Currency {
    type Err = InvalidCurrency;

    /// Reads three lowercase letters.
    ///
    /// # Errors
    /// When it is anything else, or a currency without cents.
    fn from_str(text: &str) -> Result<Self, InvalidCurrency> {
        let is_code = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_lowercase());
        match is_code && !WITHOUT_CENTS.contains(&text) {
            true => Ok(Self(text.to_owned())),
            false => Err(InvalidCurrency),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What follows from a payment's event. Neither fails nor judges.
pub fn evolve(last: Option<Payment>, event: &PaymentEvent) -> Option<Payment> {
    match event {
        PaymentEvent::Requested(requested) => Some(Payment {
            id: requested.id,
            order: requested.order_id,
            buyer: requested.user_id,
            amount: requested.amount_cents,
            currency: requested.currency.clone(),
            method: requested.payment_method.clone(),
            status: Status::Requested,
        }),
        PaymentEvent::Authorized(event) => {
            with_status(last, event.id, Status::Authorized { stripe_id: event.stripe_id.clone() })
        }
        PaymentEvent::Created(event) => {
            with_status(last, event.id, Status::Created { stripe_id: event.stripe_id.clone() })
        }
        PaymentEvent::Declined(event) => with_status(last, event.id, Status::Declined(undone(event))),
        PaymentEvent::Voided(event) => with_status(last, event.id, Status::Voided(undone(event))),
        PaymentEvent::Refunded(event) => with_status(last, event.id, Status::Refunded(undone(event))),
    }
}

fn with_status(last: Option<Payment>, id: PaymentId, status: Status) -> Option<Payment> {
    last.map(|last| match last.id == id {
        true => Payment { status, ..last },
        // It tells of an earlier try, which is over.
        false => last,
    })
}

fn undone(event: &PaymentUnsettled) -> Undone {
    Undone { stripe_id: event.stripe_id.clone(), reason: event.reason.clone() }
}

/// What follows from an order's event, for one order. Neither fails nor judges.
pub fn follow(order: Option<Order>, event: &OrderEvent) -> Option<Order> {
    let standing = match event {
        OrderEvent::Created(created) => return Some(placed(created)),
        OrderEvent::AwaitingPayment(event) => Standing::Awaiting(event.payment_id),
        OrderEvent::Completed(_) => Standing::Complete,
        OrderEvent::Cancelled(_) => Standing::Cancelled,
    };
    order.map(|order| Order { standing, ..order })
}

fn placed(created: &OrderCreated) -> Order {
    Order {
        id: created.id,
        buyer: created.user_id,
        ticket: created.ticket.id,
        price: created.ticket.price_cents,
        standing: Standing::Open,
    }
}

/// The buyer asks to pay, in a new try `id`.
///
/// Nothing when a try is under way or has succeeded: that one is the answer, too.
pub fn request(
    last: Option<&Payment>,
    order: &Order,
    by: UserId,
    id: PaymentId,
    with: &Token,
    currency: &Currency,
) -> Result<Option<PaymentEvent>, Rejection> {
    if order.buyer != by {
        return Err(Rejection::NotYourOrder);
    }
    if order.standing == Standing::Cancelled {
        return Err(Rejection::OrderCancelled);
    }
    match last.map(|last| &last.status) {
        Some(Status::Requested | Status::Authorized { .. } | Status::Created { .. }) => Ok(None),
        // Either ends the order as well; its own log says so a moment later.
        Some(Status::Voided(_) | Status::Refunded(_)) => Err(Rejection::OrderCancelled),
        Some(Status::Declined(_)) | None => Ok(Some(PaymentEvent::Requested(PaymentRequested {
            id,
            order_id: order.id,
            user_id: by,
            amount_cents: order.price,
            currency: currency.0.clone(),
            payment_method: with.0.clone(),
        }))),
    }
}

/// The try `id`, while Stripe's answer to it is not recorded.
pub fn unanswered(last: Option<&Payment>, id: PaymentId) -> Option<&Payment> {
    last.filter(|last| last.id == id && last.status == Status::Requested)
}

/// Stripe holds the money.
pub fn authorize(last: Option<&Payment>, id: PaymentId, stripe_id: &str) -> Option<PaymentEvent> {
    let payment = unanswered(last, id)?;
    Some(PaymentEvent::Authorized(settled(payment, stripe_id)))
}

/// Stripe refused the card.
pub fn decline(last: Option<&Payment>, id: PaymentId, why: &Undone) -> Option<PaymentEvent> {
    let payment = unanswered(last, id)?;
    Some(PaymentEvent::Declined(unsettled(payment, why.stripe_id.clone(), &why.reason)))
}

/// What is to be done about money that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Take it: the order awaits just that.
    Capture(Held),
    /// Let it go: the order is over.
    Void(Held),
}

/// Money that Stripe holds for a try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The try.
    pub payment: PaymentId,
    /// The PaymentIntent.
    pub stripe_id: String,
}

/// What is to be done next. Nothing while the order has not decided, and when it is done.
pub fn next_step(last: Option<&Payment>, order: &Order) -> Option<Step> {
    let payment = last?;
    let Status::Authorized { stripe_id } = &payment.status else { return None };
    let held = Held { payment: payment.id, stripe_id: stripe_id.clone() };
    match order.standing {
        Standing::Awaiting(awaited) if awaited == payment.id => Some(Step::Capture(held)),
        Standing::Cancelled => Some(Step::Void(held)),
        Standing::Open | Standing::Awaiting(_) | Standing::Complete => None,
    }
}

/// Stripe has taken the money.
pub fn capture(last: Option<&Payment>, id: PaymentId) -> Option<PaymentEvent> {
    let (payment, stripe_id) = authorized(last, id)?;
    Some(PaymentEvent::Created(settled(payment, stripe_id)))
}

/// Stripe has let the money go, or never had it.
pub fn void(last: Option<&Payment>, id: PaymentId, reason: &str) -> Option<PaymentEvent> {
    let (payment, stripe_id) = authorized(last, id)?;
    Some(PaymentEvent::Voided(unsettled(payment, Some(stripe_id.to_owned()), reason)))
}

fn authorized(last: Option<&Payment>, id: PaymentId) -> Option<(&Payment, &str)> {
    let last = last.filter(|last| last.id == id)?;
    match &last.status {
        Status::Authorized { stripe_id } => Some((last, stripe_id)),
        _ => None,
    }
}

fn settled(payment: &Payment, stripe_id: &str) -> PaymentSettled {
    PaymentSettled { id: payment.id, order_id: payment.order, stripe_id: stripe_id.to_owned() }
}

fn unsettled(payment: &Payment, stripe_id: Option<String>, reason: &str) -> PaymentUnsettled {
    PaymentUnsettled { id: payment.id, order_id: payment.order, stripe_id, reason: reason.to_owned() }
}

#[cfg(test)]
mod tests {
    use contract::{
        Timestamp,
        event::{
            CancelReason, OrderAwaitingPayment, OrderCancelled, OrderCompleted, OrderStatus, OrderedTicket,
            TicketRef,
        },
    };
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const BUYER: UserId = UserId(Uuid::from_u128(1));
    const STRANGER: UserId = UserId(Uuid::from_u128(2));
    const ORDER: OrderId = OrderId(Uuid::from_u128(3));
    const TICKET: TicketId = TicketId(Uuid::from_u128(4));

    fn payment(number: u128) -> PaymentId {
        PaymentId(Uuid::from_u128(number))
    }

    fn intent(number: u128) -> String {
        format!("pi_{number}")
    }

    fn no_funds() -> Undone {
        Undone { stripe_id: None, reason: "Your card has insufficient funds.".into() }
    }

    fn ordered() -> OrderEvent {
        OrderEvent::Created(OrderCreated {
            id: ORDER,
            status: OrderStatus::Created,
            user_id: BUYER,
            expires_at: Timestamp::from(std::time::UNIX_EPOCH),
            ticket: OrderedTicket { id: TICKET, title: "Concert".into(), price_cents: Cents(1999) },
        })
    }

    fn awaiting(number: u128) -> OrderEvent {
        let ticket = TicketRef { id: TICKET };
        OrderEvent::AwaitingPayment(OrderAwaitingPayment { id: ORDER, payment_id: payment(number), ticket })
    }

    fn completed(number: u128) -> OrderEvent {
        let ticket = TicketRef { id: TICKET };
        OrderEvent::Completed(OrderCompleted { id: ORDER, payment_id: payment(number), ticket })
    }

    fn cancelled() -> OrderEvent {
        let ticket = TicketRef { id: TICKET };
        OrderEvent::Cancelled(OrderCancelled { id: ORDER, reason: CancelReason::Expired, ticket })
    }

    fn requested(number: u128) -> PaymentEvent {
        PaymentEvent::Requested(PaymentRequested {
            id: payment(number),
            order_id: ORDER,
            user_id: BUYER,
            amount_cents: Cents(1999),
            currency: "usd".into(),
            payment_method: "pm_card_visa".into(),
        })
    }

    fn held(number: u128) -> PaymentSettled {
        PaymentSettled { id: payment(number), order_id: ORDER, stripe_id: intent(number) }
    }

    fn lost(number: u128, stripe_id: Option<String>, reason: &str) -> PaymentUnsettled {
        PaymentUnsettled { id: payment(number), order_id: ORDER, stripe_id, reason: reason.into() }
    }

    fn authorized(number: u128) -> PaymentEvent {
        PaymentEvent::Authorized(held(number))
    }

    fn created(number: u128) -> PaymentEvent {
        PaymentEvent::Created(held(number))
    }

    fn declined(number: u128) -> PaymentEvent {
        PaymentEvent::Declined(lost(number, None, &no_funds().reason))
    }

    fn voided(number: u128) -> PaymentEvent {
        PaymentEvent::Voided(lost(number, Some(intent(number)), "over"))
    }

    fn refunded(number: u128) -> PaymentEvent {
        PaymentEvent::Refunded(lost(number, Some(intent(number)), "asked for"))
    }

    fn given(events: &[PaymentEvent]) -> Option<Payment> {
        events.iter().fold(None, evolve)
    }

    fn order(events: &[OrderEvent]) -> Order {
        events.iter().fold(None, follow).unwrap()
    }

    fn pay(
        last: Option<&Payment>,
        order: &Order,
        by: UserId,
        number: u128,
    ) -> Result<Option<PaymentEvent>, Rejection> {
        let (with, currency) = ("pm_card_visa".parse().unwrap(), "usd".parse().unwrap());
        request(last, order, by, payment(number), &with, &currency)
    }

    fn check<T: fmt::Debug + PartialEq>(
        history: &[PaymentEvent],
        decide: impl FnOnce(Option<&Payment>) -> T,
        expected: T,
    ) {
        assert_eq!(decide(given(history).as_ref()), expected, "given {history:#?}");
    }

    #[test]
    fn an_order_is_paid_at_the_price_it_was_ordered_for() {
        check(&[], |last| pay(last, &order(&[ordered()]), BUYER, 1), Ok(Some(requested(1))));
    }

    #[test]
    fn only_its_buyer_pays_for_an_order() {
        let rejected = Err(Rejection::NotYourOrder);
        check(&[], |last| pay(last, &order(&[ordered()]), STRANGER, 1), rejected.clone());
        check(&[], |last| pay(last, &order(&[ordered(), cancelled()]), STRANGER, 1), rejected);
    }

    #[test]
    fn a_cancelled_order_is_not_paid() {
        let order = order(&[ordered(), cancelled()]);
        for history in [vec![], vec![requested(1)], vec![requested(1), declined(1)]] {
            check(&history, |last| pay(last, &order, BUYER, 2), Err(Rejection::OrderCancelled));
        }
    }

    #[test]
    fn asked_again_it_is_the_same_payment() {
        let order = order(&[ordered()]);
        for history in [
            vec![requested(1)],
            vec![requested(1), authorized(1)],
            vec![requested(1), authorized(1), created(1)],
        ] {
            check(&history, |last| pay(last, &order, BUYER, 2), Ok(None));
        }
    }

    #[test]
    fn after_a_declined_card_another_may_be_tried() {
        let history = [requested(1), declined(1)];
        check(&history, |last| pay(last, &order(&[ordered()]), BUYER, 2), Ok(Some(requested(2))));
    }

    #[test]
    fn a_payment_that_was_let_go_ends_its_order() {
        let rejected = Err(Rejection::OrderCancelled);
        let history = [requested(1), authorized(1), voided(1)];
        check(&history, |last| pay(last, &order(&[ordered(), awaiting(1)]), BUYER, 2), rejected.clone());
        let history = [requested(1), authorized(1), created(1), refunded(1)];
        check(&history, |last| pay(last, &order(&[ordered(), completed(1)]), BUYER, 2), rejected);
    }

    #[test]
    fn stripes_answer_is_recorded_once() {
        check(&[requested(1)], |last| authorize(last, payment(1), "pi_1"), Some(authorized(1)));
        check(&[requested(1)], |last| decline(last, payment(1), &no_funds()), Some(declined(1)));
        for outcome in [authorized(1), declined(1)] {
            let history = [requested(1), outcome];
            check(&history, |last| authorize(last, payment(1), "pi_1"), None);
            check(&history, |last| decline(last, payment(1), &no_funds()), None);
        }
    }

    #[test]
    fn an_answer_to_an_earlier_try_says_nothing_about_this_one() {
        let history = [requested(1), declined(1), requested(2)];
        check(&history, |last| authorize(last, payment(1), "pi_1"), None);
        check(&history, |last| decline(last, payment(1), &no_funds()), None);
        let late = [&history[..], &[declined(1)]].concat();
        check(&late, |last| last.cloned(), given(&history));
    }

    #[test]
    fn held_money_is_taken_when_the_order_awaits_it_and_let_go_when_it_is_over() {
        let held = Held { payment: payment(1), stripe_id: intent(1) };
        let history = [requested(1), authorized(1)];
        check(&history, |last| next_step(last, &order(&[ordered()])), None);
        let awaits = order(&[ordered(), awaiting(1)]);
        check(&history, |last| next_step(last, &awaits), Some(Step::Capture(held.clone())));
        let over = order(&[ordered(), cancelled()]);
        check(&history, |last| next_step(last, &over), Some(Step::Void(held)));
    }

    #[test]
    fn money_that_is_not_held_is_neither_taken_nor_let_go() {
        for history in [
            vec![],
            vec![requested(1)],
            vec![requested(1), declined(1)],
            vec![requested(1), authorized(1), created(1)],
            vec![requested(1), authorized(1), voided(1)],
        ] {
            for end in [awaiting(1), completed(1), cancelled()] {
                check(&history, |last| next_step(last, &order(&[ordered(), end])), None);
            }
            check(&history, |last| capture(last, payment(1)), None);
            check(&history, |last| void(last, payment(1), "over"), None);
        }
    }

    #[test]
    fn what_was_held_ends_taken_or_let_go() {
        let history = [requested(1), authorized(1)];
        check(&history, |last| capture(last, payment(1)), Some(created(1)));
        check(&history, |last| void(last, payment(1), "over"), Some(voided(1)));
        check(&history, |last| capture(last, payment(2)), None);
        check(&history, |last| void(last, payment(2), "over"), None);
    }

    #[test]
    fn a_token_is_a_reference_of_stripes() {
        for text in ["pm_card_visa", "tok_visa", "pm_1Nv0FGQ9RKHgCVdK"] {
            assert_eq!(text.parse(), Ok(Token(text.into())));
        }
        let long = format!("pm_{}", "1".repeat(253));
        for text in
            ["", "pm_", "tok_", "visa", "4242424242424242", "PM_1", " pm_1", "tok_1&amount=1", "pm_é", &long]
        {
            assert_eq!(text.parse::<Token>(), Err(InvalidToken), "{text:?}");
        }
    }

    #[test]
    fn a_currency_has_cents() {
        for text in ["usd", "eur"] {
            assert_eq!(text.parse::<Currency>().unwrap().to_string(), text);
        }
        for text in ["", "USD", "us", "usdollar", "u5d", "jpy", "kwd"] {
            assert_eq!(text.parse::<Currency>(), Err(InvalidCurrency), "{text:?}");
        }
    }

    /// What may happen, in any order and as often as it likes.
    #[derive(Clone, Debug)]
    enum Happens {
        /// Somebody asks to pay, in a try of that number.
        Asked(UserId, u128),
        /// Stripe's answer to a try arrives, be it the first time or again.
        Authorizes(u128),
        Declines(u128),
        /// svc-orders sees what is in our log, or ends the order if it may.
        OrdersReacts,
        OrderEnds,
        /// The next step is taken; Stripe takes the money, or cannot.
        Steps {
            money_is_taken: bool,
        },
        /// The money goes back, if it was taken.
        Refunded,
    }

    /// The log of payments, the log of orders, and what Stripe has.
    #[derive(Default)]
    struct World {
        payments: Vec<PaymentEvent>,
        orders: Vec<OrderEvent>,
        taken: Vec<PaymentId>,
    }

    impl World {
        fn last(&self) -> Option<Payment> {
            given(&self.payments)
        }

        fn order(&self) -> Order {
            order(&self.orders)
        }

        fn happens(&mut self, what: &Happens) {
            let (last, order) = (self.last(), self.order());
            let last = last.as_ref();
            match *what {
                Happens::Asked(by, number) => {
                    // An id is never used twice.
                    let used = self.payments.contains(&requested(number));
                    self.payments.extend(pay(last, &order, by, number).ok().flatten().filter(|_| !used));
                }
                Happens::Authorizes(number) => {
                    self.payments.extend(authorize(last, payment(number), &intent(number)))
                }
                Happens::Declines(number) => {
                    self.payments.extend(decline(last, payment(number), &no_funds()))
                }
                Happens::OrdersReacts => match (last.map(|last| (last.id, &last.status)), order.standing) {
                    (Some((id, Status::Authorized { .. })), Standing::Open) => {
                        self.orders.push(awaiting(id.0.as_u128()));
                    }
                    (Some((id, Status::Created { .. })), Standing::Awaiting(_)) => {
                        self.orders.push(completed(id.0.as_u128()));
                    }
                    (Some((_, Status::Voided(_))), Standing::Awaiting(_))
                    | (Some((_, Status::Refunded(_))), Standing::Complete) => self.orders.push(cancelled()),
                    _ => {}
                },
                Happens::OrderEnds => self.orders.extend((order.standing == Standing::Open).then(cancelled)),
                Happens::Steps { money_is_taken } => match next_step(last, &order) {
                    Some(Step::Capture(held)) if money_is_taken => {
                        self.taken.push(held.payment);
                        self.payments.extend(capture(last, held.payment));
                    }
                    Some(Step::Capture(held) | Step::Void(held)) => {
                        self.payments.extend(void(last, held.payment, "over"));
                    }
                    None => {}
                },
                Happens::Refunded => {
                    if let Some(Payment { id, status: Status::Created { .. }, .. }) = last {
                        self.payments.push(refunded(id.0.as_u128()));
                    }
                }
            }
        }
    }

    fn happenings() -> impl Strategy<Value = Vec<Happens>> {
        let number = 1..5_u128;
        let one = prop_oneof![
            (prop_oneof![9 => Just(BUYER), 1 => Just(STRANGER)], number.clone())
                .prop_map(|(by, number)| Happens::Asked(by, number)),
            number.clone().prop_map(Happens::Authorizes),
            number.prop_map(Happens::Declines),
            Just(Happens::OrdersReacts),
            Just(Happens::OrderEnds),
            any::<bool>().prop_map(|money_is_taken| Happens::Steps { money_is_taken }),
            Just(Happens::Refunded),
        ];
        prop::collection::vec(one, 0..60)
    }

    proptest! {
        /// Told from the events alone, without `evolve`.
        #[test]
        fn whatever_happens_an_order_is_charged_once_at_most(happenings in happenings()) {
            let mut world = World { orders: vec![ordered()], ..World::default() };
            happenings.iter().for_each(|what| world.happens(what));

            prop_assert!(world.taken.len() <= 1, "taken for {:?}", world.taken);
            let mut alive: Option<PaymentId> = None;
            let mut taken = false;
            for (index, event) in world.payments.iter().enumerate() {
                match event {
                    PaymentEvent::Requested(event) => {
                        prop_assert!(!taken, "asked for after it was paid");
                        prop_assert_eq!(alive.replace(event.id), None);
                        prop_assert_eq!(event.user_id, BUYER);
                    }
                    PaymentEvent::Authorized(event) => prop_assert_eq!(alive, Some(event.id)),
                    PaymentEvent::Declined(event) => prop_assert_eq!(alive.take(), Some(event.id)),
                    PaymentEvent::Voided(event) => {
                        prop_assert_eq!(alive.take(), Some(event.id));
                        prop_assert_eq!(index + 1, world.payments.len(), "it ends the order");
                    }
                    PaymentEvent::Created(event) => {
                        prop_assert_eq!(alive.take(), Some(event.id));
                        prop_assert!(world.orders.contains(&awaiting(event.id.0.as_u128())));
                        taken = true;
                    }
                    PaymentEvent::Refunded(event) => {
                        prop_assert!(taken);
                        prop_assert_eq!(&world.taken, &vec![event.id]);
                        prop_assert_eq!(index + 1, world.payments.len(), "it is the last word");
                    }
                }
            }
        }

        #[test]
        fn when_all_is_said_no_money_is_held(happenings in happenings()) {
            let mut world = World { orders: vec![ordered()], ..World::default() };
            happenings.iter().for_each(|what| world.happens(what));
            let end = [Happens::Steps { money_is_taken: true }, Happens::OrdersReacts];
            end.iter().cycle().take(6).for_each(|what| world.happens(what));

            let held = |payment: &Payment| matches!(payment.status, Status::Authorized { .. });
            prop_assert!(!world.last().as_ref().is_some_and(held), "{:?}", world.payments);
            // And it is done: the same steps find nothing more to do.
            let before = world.payments.len();
            end.iter().cycle().take(6).for_each(|what| world.happens(what));
            prop_assert_eq!(world.payments.len(), before);
        }

        #[test]
        fn an_answer_that_comes_again_changes_nothing(happenings in happenings()) {
            let mut world = World { orders: vec![ordered()], ..World::default() };
            for what in &happenings {
                world.happens(what);
                let before = world.payments.len();
                if matches!(what, Happens::Authorizes(_) | Happens::Declines(_)) {
                    world.happens(what);
                    prop_assert_eq!(world.payments.len(), before, "{:?}", what);
                }
            }
        }
    }
}
