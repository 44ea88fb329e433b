//! A ticket: who sells what for how much, and which order holds it.

use contract::{
    Cents, OrderId, TicketEvent, TicketId, UserId,
    event::{TicketCreated, TicketUpdated},
};
use serde::{Deserialize, Serialize};

/// What is known of a ticket's subject; `None` before it is listed.
pub type State = Option<Ticket>;

/// A listed ticket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// Which.
    pub id: TicketId,
    /// Who sells it: for ever the one who listed it.
    pub seller: UserId,
    /// What the seller may change.
    pub terms: Terms,
    /// The order that holds it.
    pub hold: Hold,
    /// The version, on the ticket's subject of ORDERS, of the event that `hold` reflects; `None` before the first.
    pub order_version: Option<u64>,
}

/// What is for sale, and for how much.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// What is for sale.
    pub title: Title,
    /// What it costs.
    pub price: Price,
}

/// 1 to 200 characters without white space around them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Title(String);

/// Why a text is no title.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTitle {
    /// There is nothing but white space.
    Empty,
    /// It has more than 200 characters.
    TooLong,
}

/// More than nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Price(Cents);

/// Which order holds a ticket. One that is held can be neither bought nor edited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hold {
    /// None: it is for sale.
    Free,
    /// One that is not paid.
    Reserved(OrderId),
    /// One that is paid.
    Sold(OrderId),
}

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// There is no such ticket.
    NoSuchTicket,
    /// Somebody else sells it.
    NotYourTicket,
    /// An order holds it.
    Held,
}

impl Title {
    const MAX_CHARACTERS: usize = 200;

    /// Reads a title; white space around it counts, and is dropped.
    pub fn parse(text: &str) -> Result<Self, NoTitle> {
        let title = text.trim();
        if title.is_empty() {
            return Err(NoTitle::Empty);
        }
        if text.chars().count() > Self::MAX_CHARACTERS {
            return Err(NoTitle::TooLong);
        }
        Ok(Self(title.into()))
    }
}

impl Price {
    /// The amount as a price; `None` when it is not more than nothing.
    pub fn of(amount: Cents) -> Option<Self> {
        (amount.0 > 0).then_some(Self(amount))
    }

    /// The amount.
    pub fn cents(self) -> Cents {
        self.0
    }
}

impl AsRef<str> for Title {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Hold {
    /// The order that holds or bought it.
    pub fn order(self) -> Option<OrderId> {
        match self {
            Hold::Free => None,
            Hold::Reserved(order) | Hold::Sold(order) => Some(order),
        }
    }
}

/// Folds an event in. Each one carries the whole ticket, so nothing of what was before remains.
pub fn evolve(_before: State, event: &TicketEvent) -> State {
    Some(Ticket::from(event))
}

impl From<&TicketEvent> for Ticket {
    /// The ticket as it is right after the event.
    fn from(event: &TicketEvent) -> Self {
        match event {
            TicketEvent::Created(TicketCreated { id, title, price_cents, user_id }) => Ticket {
                id: *id,
                seller: *user_id,
                terms: Terms { title: Title(title.clone()), price: Price(*price_cents) },
                hold: Hold::Free,
                order_version: None,
            },
            TicketEvent::Updated(TicketUpdated {
                id,
                title,
                price_cents,
                user_id,
                order_id,
                sold,
                order_version,
            }) => Ticket {
                id: *id,
                seller: *user_id,
                terms: Terms { title: Title(title.clone()), price: Price(*price_cents) },
                hold: match (*order_id, *sold) {
                    (None, _) => Hold::Free,
                    (Some(order), false) => Hold::Reserved(order),
                    (Some(order), true) => Hold::Sold(order),
                },
                order_version: *order_version,
            },
        }
    }
}

/// A seller lists a ticket.
pub fn list(state: &State, id: TicketId, seller: UserId, terms: Terms) -> Option<TicketEvent> {
    if state.is_some() {
        return None; // Already recorded: an id is given once.
    }
    let Terms { title, price } = terms;
    Some(TicketEvent::Created(TicketCreated {
        id,
        title: title.0,
        price_cents: price.cents(),
        user_id: seller,
    }))
}

/// The ticket, if it is listed.
pub fn listed(state: &State) -> Result<&Ticket, Rejection> {
    state.as_ref().ok_or(Rejection::NoSuchTicket)
}

/// A seller changes the terms.
pub fn edit(ticket: &Ticket, by: UserId, terms: Terms) -> Result<Option<TicketEvent>, Rejection> {
    if ticket.seller != by {
        return Err(Rejection::NotYourTicket);
    }
    if ticket.hold != Hold::Free {
        return Err(Rejection::Held);
    }
    if ticket.terms == terms {
        return Ok(None); // Nothing to tell anybody.
    }
    Ok(Some(updated(Ticket { terms, ..ticket.clone() })))
}

/// The ticket follows its orders: `hold` is what the order event with `order_version` says of it.
///
/// All orders of one ticket share one subject of ORDERS, so the versions there are a logical clock: an event says who
/// holds the ticket right after it, and the newest one is right. So the ticket keeps the version that it reflects,
/// and an event that is not newer changes nothing. That makes every delivery harmless:
/// - twice: the second is not newer;
/// - out of order, or by two replicas at once: the newer one wins, whichever came first. A cancellation that overtakes
///   its own reservation is recorded, though it frees nothing, so that the reservation is then too old to be taken
///   for a new one;
/// - late: a stale cancellation is older than the reservation that followed it, so it never frees another order's
///   ticket.
///
/// No order need be compared with the holder: a reservation is only appended to the subject when the one before it has
/// ended, so whoever held the ticket at an older version holds it no more.
pub fn follow_order(ticket: &Ticket, order_version: u64, hold: Hold) -> Option<TicketEvent> {
    if ticket.order_version >= Some(order_version) {
        return None; // Reflected already, or overtaken.
    }
    Some(updated(Ticket { hold, order_version: Some(order_version), ..ticket.clone() }))
}

fn updated(ticket: Ticket) -> TicketEvent {
    let Ticket { id, seller, terms: Terms { title, price }, hold, order_version } = ticket;
    TicketEvent::Updated(TicketUpdated {
        id,
        title: title.0,
        price_cents: price.cents(),
        user_id: seller,
        order_id: hold.order(),
        sold: matches!(hold, Hold::Sold(_)),
        order_version,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const TICKET: TicketId = TicketId(Uuid::from_u128(1));
    const SELLER: UserId = UserId(Uuid::from_u128(2));
    const STRANGER: UserId = UserId(Uuid::from_u128(3));
    const A: OrderId = OrderId(Uuid::from_u128(0xA));
    const B: OrderId = OrderId(Uuid::from_u128(0xB));

    fn terms(title: &str, cents: i64) -> Terms {
        Terms { title: Title::parse(title).unwrap(), price: Price::of(Cents(cents)).unwrap() }
    }

    /// The ticket after an event, if one was decided on.
    fn after(ticket: Ticket, event: Option<TicketEvent>) -> Ticket {
        match event {
            Some(event) => evolve(Some(ticket), &event).unwrap(),
            None => ticket,
        }
    }

    fn for_sale() -> Ticket {
        let event = list(&None, TICKET, SELLER, terms("concert", 1999)).unwrap();
        evolve(None, &event).unwrap()
    }

    /// The ticket after order events were delivered in this order.
    fn following(deliveries: &[(u64, Hold)]) -> Ticket {
        deliveries.iter().fold(for_sale(), |ticket, (version, hold)| {
            let event = follow_order(&ticket, *version, *hold);
            after(ticket, event)
        })
    }

    fn check_hold(deliveries: &[(u64, Hold)], hold: Hold, order_version: u64) {
        let ticket = following(deliveries);
        assert_eq!((ticket.hold, ticket.order_version), (hold, Some(order_version)), "{deliveries:?}");
    }

    fn check_edit(ticket: &Ticket, by: UserId, terms: Terms, expected: Result<Option<Terms>, Rejection>) {
        let decided = edit(ticket, by, terms);
        assert_eq!(decided.map(|event| event.map(|event| Ticket::from(&event).terms)), expected);
    }

    #[test]
    fn a_listed_ticket_is_for_sale() {
        let ticket = for_sale();
        assert_eq!((ticket.id, ticket.seller, ticket.hold), (TICKET, SELLER, Hold::Free));
        assert_eq!(ticket.terms, terms("concert", 1999));
    }

    #[test]
    fn a_ticket_is_listed_once() {
        assert_eq!(list(&Some(for_sale()), TICKET, STRANGER, terms("other", 1)), None);
    }

    #[test]
    fn its_seller_edits_it() {
        let new = terms("concert, row 1", 2999);
        check_edit(&for_sale(), SELLER, new.clone(), Ok(Some(new)));
    }

    #[test]
    fn the_same_terms_again_are_no_event() {
        check_edit(&for_sale(), SELLER, terms(" concert ", 1999), Ok(None));
    }

    #[test]
    fn nobody_else_edits_it() {
        check_edit(&for_sale(), STRANGER, terms("mine", 1), Err(Rejection::NotYourTicket));
        check_edit(
            &following(&[(0, Hold::Sold(A))]),
            STRANGER,
            terms("mine", 1),
            Err(Rejection::NotYourTicket),
        );
    }

    #[test]
    fn a_ticket_that_is_not_listed_is_none() {
        assert_eq!(listed(&None), Err(Rejection::NoSuchTicket));
    }

    #[test]
    fn a_held_ticket_is_not_edited() {
        for hold in [Hold::Reserved(A), Hold::Sold(A)] {
            check_edit(&following(&[(0, hold)]), SELLER, terms("concert", 1), Err(Rejection::Held));
            check_edit(&following(&[(0, hold)]), SELLER, terms("concert", 1999), Err(Rejection::Held));
        }
    }

    #[test]
    fn a_freed_ticket_is_edited_and_keeps_its_place_in_the_orders() {
        let freed = following(&[(0, Hold::Reserved(A)), (1, Hold::Free)]);
        let event = edit(&freed, SELLER, terms("concert", 1)).unwrap().unwrap();
        assert_eq!(Ticket::from(&event).order_version, Some(1));
    }

    #[test]
    fn a_ticket_follows_its_orders() {
        check_hold(&[(0, Hold::Reserved(A))], Hold::Reserved(A), 0);
        check_hold(&[(0, Hold::Reserved(A)), (1, Hold::Free)], Hold::Free, 1);
        check_hold(&[(0, Hold::Reserved(A)), (2, Hold::Sold(A))], Hold::Sold(A), 2);
        check_hold(&[(0, Hold::Reserved(A)), (2, Hold::Sold(A)), (3, Hold::Free)], Hold::Free, 3);
    }

    #[test]
    fn a_redelivery_changes_nothing() {
        let reserved = following(&[(0, Hold::Reserved(A))]);
        assert_eq!(follow_order(&reserved, 0, Hold::Reserved(A)), None);
    }

    #[test]
    fn a_cancellation_that_overtakes_its_reservation_wins() {
        check_hold(&[(1, Hold::Free), (0, Hold::Reserved(A))], Hold::Free, 1);
    }

    #[test]
    fn a_stale_cancellation_does_not_free_another_orders_ticket() {
        check_hold(&[(2, Hold::Reserved(B)), (1, Hold::Free)], Hold::Reserved(B), 2);
        check_hold(&[(3, Hold::Sold(B)), (1, Hold::Free), (2, Hold::Reserved(B))], Hold::Sold(B), 3);
    }

    #[test]
    fn a_title_is_counted_in_characters_without_the_space_around_it() {
        assert_eq!(Title::parse("  x ").unwrap().as_ref(), "x");
        assert!(Title::parse(&format!(" {} ", "é".repeat(198))).is_ok());
        assert_eq!(Title::parse(&format!(" {} ", "é".repeat(199))), Err(NoTitle::TooLong));
        assert_eq!(Title::parse(&"é".repeat(201)), Err(NoTitle::TooLong));
        assert_eq!(Title::parse(" \t\n"), Err(NoTitle::Empty));
    }

    #[test]
    fn a_price_is_more_than_nothing() {
        assert_eq!(Price::of(Cents(1)).map(Price::cents), Some(Cents(1)));
        assert_eq!(Price::of(Cents(0)), None);
        assert_eq!(Price::of(Cents(-1)), None);
    }

    /// How an order ends, for the histories below.
    #[derive(Clone, Copy, Debug)]
    enum End {
        Cancelled,
        Completed,
        Refunded,
    }

    /// What happens to a ticket next.
    #[derive(Clone, Debug)]
    enum Step {
        /// An order event is delivered.
        Delivered(u64, Hold),
        /// Somebody sends an edit.
        Edited { by: UserId, cents: i64 },
    }

    /// What ORDERS may say of one ticket, in order. Versions are left out where an order awaits its payment, which
    /// a ticket does not show.
    fn history() -> impl Strategy<Value = Vec<(u64, Hold)>> {
        let end = prop_oneof![3 => Just(End::Cancelled), 1 => Just(End::Completed), 1 => Just(End::Refunded)];
        (prop::collection::vec((any::<bool>(), end), 1..6), any::<bool>()).prop_map(
            |(orders, last_is_open)| {
                let (mut version, mut events) = (0, Vec::new());
                let last = orders.len() - 1;
                for (number, (awaits_payment, end)) in orders.into_iter().enumerate() {
                    let order = OrderId(Uuid::from_u128(number as u128));
                    let holds = match end {
                        _ if number == last && last_is_open => vec![Hold::Reserved(order)],
                        End::Cancelled => vec![Hold::Reserved(order), Hold::Free],
                        End::Completed => vec![Hold::Reserved(order), Hold::Sold(order)],
                        End::Refunded => vec![Hold::Reserved(order), Hold::Sold(order), Hold::Free],
                    };
                    for (place, hold) in holds.into_iter().enumerate() {
                        version += u64::from(place == 1 && awaits_payment);
                        events.push((version, hold));
                        version += 1;
                    }
                    if matches!(end, End::Completed) {
                        break; // Sold is sold.
                    }
                }
                events
            },
        )
    }

    /// A history, and its events delivered at least once each in any order, with edits in between.
    fn deliveries() -> impl Strategy<Value = (Vec<(u64, Hold)>, Vec<Step>)> {
        let edits = prop::collection::vec((prop::bool::weighted(0.7), 1_i64..5), 0..8);
        (history(), prop::collection::vec(any::<prop::sample::Index>(), 0..8), edits).prop_flat_map(
            |(history, again, edits)| {
                let again = again.into_iter().map(|index| *index.get(&history));
                let delivered = history.iter().copied().chain(again.collect::<Vec<_>>());
                let delivered = delivered.map(|(version, hold)| Step::Delivered(version, hold));
                let edited = edits.into_iter().map(|(by_seller, cents)| Step::Edited {
                    by: if by_seller { SELLER } else { STRANGER },
                    cents,
                });
                let steps: Vec<_> = delivered.chain(edited).collect();
                (Just(history), Just(steps).prop_shuffle())
            },
        )
    }

    proptest! {
        #[test]
        fn any_delivery_of_any_history_ends_in_what_its_last_event_says((history, steps) in deliveries()) {
            let mut ticket = for_sale();
            let mut newest: Option<(u64, Hold)> = None;
            for step in steps {
                let before = ticket.clone();
                let event = match step {
                    Step::Delivered(version, hold) => {
                        if newest.is_none_or(|(newest, _)| newest < version) {
                            newest = Some((version, hold));
                        }
                        follow_order(&before, version, hold)
                    }
                    Step::Edited { by, cents } => {
                        let decided = edit(&before, by, terms("edited", cents));
                        prop_assert_eq!(decided.is_ok(), by == SELLER && before.hold == Hold::Free);
                        decided.unwrap_or(None)
                    }
                };
                let decided = event.is_some();
                ticket = after(ticket, event);
                prop_assert_eq!(decided, ticket != before, "an event that changes nothing");
                // At every moment the newest event delivered so far is what holds: nothing stale has any effect.
                prop_assert_eq!(newest.map_or(Hold::Free, |(_, hold)| hold), ticket.hold);
                prop_assert_eq!(newest.map(|(version, _)| version), ticket.order_version);
                prop_assert_eq!((ticket.id, ticket.seller), (TICKET, SELLER));
                if before.hold != Hold::Free {
                    prop_assert_eq!(&before.terms, &ticket.terms);
                }
            }
            let (version, hold) = *history.last().unwrap();
            prop_assert_eq!((ticket.hold, ticket.order_version), (hold, Some(version)));
        }

        #[test]
        fn an_event_carries_the_whole_ticket(cents in 1..=Cents::MAX_PRICE.0, version: Option<u64>, held in 0..3) {
            let hold = [Hold::Free, Hold::Reserved(A), Hold::Sold(A)][held as usize];
            let ticket = Ticket {
                id: TICKET,
                seller: SELLER,
                terms: terms("concert", cents),
                hold,
                order_version: version,
            };
            prop_assert_eq!(evolve(Some(for_sale()), &updated(ticket.clone())), Some(ticket));
        }
    }
}
