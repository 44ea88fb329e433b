//! What svc-tickets has read: its own tickets.

use contract::{
    TicketEvent, TicketId, UserId,
    http::{self, TicketStatus},
    stream::ticket_subject,
};
use eventstore::{Order, Projection, Recorded, Rows, Table, View};

use crate::domain::{self, Hold, Ticket};

/// TICKETS: each ticket, which there are, those that can be bought once more, and each seller's.
#[derive(Debug)]
pub struct Tickets;

// Both by the ticket's id. Ids sort by time, so backwards is newest first.
/// Every ticket there ever was: what it is like stands in its state alone, so that there is one row less to write.
const LISTED: Table<TicketId> = Table::new("listed");
const AVAILABLE: Table<http::Ticket> = Table::new("available");
/// Seller's id, ticket's id.
const BY_SELLER: Table<TicketId> = Table::new("by-seller");

/// How many rows one search looks at: then it answers what it has found, and where to go on.
const LOOKED_AT: usize = 20_000;
/// How many of them are in memory at once.
const CHUNK: usize = 1_000;

/// Which tickets a list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that can be bought.
    Available,
    /// The reserved and the sold ones too.
    All,
    /// Those of one seller, likewise.
    Of(UserId),
}

/// What titles are searched for: words, each of which is somewhere in the title, in any case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search(Vec<String>);

/// The text has more than 200 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SearchTooLong;

/// A part of a list of tickets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The tickets, newest first.
    pub tickets: Vec<http::Ticket>,
    /// Behind which ticket the list goes on; `None` at its end.
    pub next: Option<TicketId>,
}

impl Projection for Tickets {
    type Event = TicketEvent;
    type State = domain::State;

    const NAME: &'static str = "tickets";
    const VERSION: u32 = 4;

    fn evolve(state: domain::State, event: &TicketEvent) -> domain::State {
        domain::evolve(state, event)
    }

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<TicketEvent>, state: &domain::State) {
        let Some(ticket) = state else { return };
        let row = shown(ticket, recorded.version);
        // For ever the one who listed it.
        if let TicketEvent::Created(_) = &recorded.event {
            rows.put(&LISTED, ticket.id.as_bytes(), &ticket.id);
            rows.put(&BY_SELLER, &joined(ticket.seller.as_bytes(), ticket.id.as_bytes()), &ticket.id);
        }
        match row.status {
            TicketStatus::Available => rows.put(&AVAILABLE, ticket.id.as_bytes(), &row),
            TicketStatus::Reserved | TicketStatus::Sold => rows.delete(&AVAILABLE, ticket.id.as_bytes()),
        }
    }
}

/// The ticket as HTTP shows it.
pub(crate) fn shown(ticket: &Ticket, version: u64) -> http::Ticket {
    http::Ticket {
        id: ticket.id,
        title: ticket.terms.title.as_ref().into(),
        price: ticket.terms.price.cents(),
        user_id: ticket.seller,
        order_id: ticket.hold.order(),
        status: match ticket.hold {
            Hold::Free => TicketStatus::Available,
            Hold::Reserved(_) => TicketStatus::Reserved,
            Hold::Sold(_) => TicketStatus::Sold,
        },
        version,
    }
}

/// The ticket `id`.
pub(crate) fn ticket(
    tickets: &View<Tickets>,
    id: TicketId,
) -> Result<Option<http::Ticket>, eventstore::Error> {
    let head = tickets.head(&ticket_subject(id))?;
    Ok(head.state.zip(head.version).map(|(ticket, version)| shown(&ticket, version)))
}

/// Up to `limit` tickets that the search finds, newest first, beginning behind `after`.
///
/// Looks at 20,000 tickets at most: a page may hold fewer than `limit`, even none, and yet not be the last.
pub(crate) fn find(
    tickets: &View<Tickets>,
    which: Which,
    search: &Search,
    after: Option<TicketId>,
    limit: usize,
) -> Result<Page, eventstore::Error> {
    look(search, LOOKED_AT, after, limit, |after, size| scan(tickets, which, after, size))
}

/// Takes what the search finds from `rows`, of which it looks at `bound` at most.
///
/// `rows` gives so many tickets behind the given one; fewer, when there are no more.
fn look<E>(
    search: &Search,
    bound: usize,
    mut after: Option<TicketId>,
    limit: usize,
    mut rows: impl FnMut(Option<TicketId>, usize) -> Result<Vec<http::Ticket>, E>,
) -> Result<Page, E> {
    // Without words all of them are found; the one more tells whether there is a next page.
    let chunk = if search.0.is_empty() { limit + 1 } else { CHUNK };
    let (mut tickets, mut left) = (Vec::new(), bound);
    while left > 0 {
        let size = chunk.min(left);
        let rows = rows(after, size)?;
        let at_end = rows.len() < size;
        left -= rows.len();
        for ticket in rows {
            if tickets.len() == limit {
                return Ok(Page { tickets, next: after });
            }
            after = Some(ticket.id);
            if search.finds(&ticket.title) {
                tickets.push(ticket);
            }
        }
        if at_end {
            return Ok(Page { tickets, next: None });
        }
    }
    Ok(Page { tickets, next: after })
}

/// Up to `limit` tickets, newest first, beginning behind `after`.
fn scan(
    tickets: &View<Tickets>,
    which: Which,
    after: Option<TicketId>,
    limit: usize,
) -> Result<Vec<http::Ticket>, eventstore::Error> {
    let newest = Order::Descending;
    let after = after.as_ref().map(|id| &id.as_bytes()[..]);
    let ids = match which {
        Which::Available => {
            let rows = tickets.scan(&AVAILABLE, &[], after, newest, limit)?;
            return Ok(rows.into_iter().map(|(_, ticket)| ticket).collect());
        }
        Which::All => tickets.scan(&LISTED, &[], after, newest, limit)?,
        Which::Of(seller) => {
            let after = after.map(|id| joined(seller.as_bytes(), id));
            tickets.scan(&BY_SELLER, seller.as_bytes(), after.as_deref(), newest, limit)?
        }
    };
    ids.into_iter().filter_map(|(_, id)| ticket(tickets, id).transpose()).collect()
}

fn joined(first: &[u8], second: &[u8]) -> Vec<u8> {
    [first, second].concat()
}

impl Search {
    const MAX_CHARACTERS: usize = 200;

    /// Reads what somebody typed; nothing but white space finds everything.
    ///
    /// # Errors
    /// When it has more than 200 characters.
    pub fn parse(text: &str) -> Result<Self, SearchTooLong> {
        if text.chars().count() > Self::MAX_CHARACTERS {
            return Err(SearchTooLong);
        }
        Ok(Self(text.split_whitespace().map(lower_case).collect()))
    }

    /// Whether it finds everything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn finds(&self, title: &str) -> bool {
        if self.0.is_empty() {
            return true;
        }
        let title = lower_case(title);
        self.0.iter().all(|word| title.contains(word))
    }
}

/// Letter by letter, so that a part of a word looks as it does in the whole: a sigma has another form at the end of
/// one, and is found by either.
fn lower_case(text: &str) -> String {
    let letters = text.chars().flat_map(char::to_lowercase);
    letters.map(|letter| if letter == 'ς' { 'σ' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use contract::Cents;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn check(search: &str, title: &str, found: bool) {
        assert_eq!(Search::parse(search).unwrap().finds(title), found, "{search:?} in {title:?}");
    }

    #[test]
    fn every_word_is_somewhere_in_the_title() {
        check("concert", "Concert, row 1", true);
        check("ROW conc", "Concert, row 1", true);
        check(" row \t\u{a0}1 ", "Concert, row 1", true);
        check("row row", "Concert, row 1", true);
        check("concert 2", "Concert, row 1", false);
        check("concert row", "Concertrow", true);
        check("conc ert row1", "Concert, row 1", false);
    }

    #[test]
    fn nothing_typed_finds_everything() {
        for text in ["", " ", "\t\n"] {
            assert_eq!(Search::parse(text), Ok(Search::default()));
            check(text, "Concert", true);
        }
    }

    #[test]
    fn case_does_not_matter_in_any_script() {
        check("ÉDITH", "Soirée Édith Piaf", true);
        check("édith", "SOIRÉE ÉDITH PIAF", true);
        check("москва", "МОСКВА", true);
        check("ΟΔΟΣ", "οδος", true);
        check("οδος", "ΟΔΟΣΑ", true);
        check("İstanbul", "İSTANBUL", true);
        check("e", "É", false);
    }

    #[test]
    fn a_search_is_counted_in_characters_with_the_space_around_it() {
        assert!(Search::parse(&format!(" {} ", "é".repeat(198))).is_ok());
        assert!(Search::parse(&" ".repeat(200)).is_ok());
        assert_eq!(Search::parse(&format!(" {} ", "é".repeat(199))), Err(SearchTooLong));
    }

    fn ticket(number: u128, title: &str) -> http::Ticket {
        http::Ticket {
            id: TicketId(Uuid::from_u128(number)),
            title: title.into(),
            price: Cents(1),
            user_id: UserId(Uuid::nil()),
            order_id: None,
            status: TicketStatus::Available,
            version: 0,
        }
    }

    /// The pages of a search through `all`, of which each looks at `bound`; and how many rows were read for the worst.
    fn pages(all: &[http::Ticket], search: &Search, bound: usize, limit: usize) -> (Vec<Page>, usize) {
        let (mut pages, mut worst, mut after) = (Vec::new(), 0, None);
        loop {
            let mut read = 0;
            let page = look(search, bound, after, limit, |after, size| {
                let behind = all.iter().filter(|ticket| after.is_none_or(|after| ticket.id < after));
                let rows: Vec<_> = behind.take(size).cloned().collect();
                read += rows.len();
                Ok::<_, Infallible>(rows)
            });
            let Ok(page) = page;
            worst = worst.max(read);
            after = page.next;
            pages.push(page);
            if after.is_none() {
                return (pages, worst);
            }
        }
    }

    proptest! {
        #[test]
        fn the_pages_of_a_search_are_what_it_finds(
            matching in prop::collection::vec(any::<bool>(), 0..60), bound in 1..20_usize, limit in 1..9_usize,
        ) {
            let title = |matches: bool| if matches { "concert" } else { "play" };
            let tickets = matching.iter().zip(1..).map(|(matches, number)| ticket(number, title(*matches)));
            let mut newest_first: Vec<_> = tickets.collect();
            newest_first.reverse();
            let search = Search::parse("CONC").unwrap();
            let (pages, worst) = pages(&newest_first, &search, bound, limit);
            let found: Vec<_> = pages.iter().flat_map(|page| page.tickets.clone()).collect();
            let expected: Vec<_> =
                newest_first.iter().filter(|ticket| ticket.title == "concert").cloned().collect();
            prop_assert_eq!(found, expected);
            prop_assert!(pages.iter().all(|page| page.tickets.len() <= limit));
            prop_assert!(worst <= bound, "{} rows", worst);
        }
    }

    #[test]
    fn a_search_that_meets_its_bound_says_where_it_stopped() {
        let newest_first: Vec<_> = (1..=9).rev().map(|number| ticket(number, "play")).collect();
        let search = Search::parse("concert").unwrap();
        let (pages, _) = pages(&newest_first, &search, 4, 2);
        let stops: Vec<_> = pages.iter().map(|page| page.next.map(|id| id.0.as_u128())).collect();
        assert_eq!(stops, [Some(6), Some(2), None]);
    }

    #[test]
    fn a_full_page_is_the_last_when_nothing_follows() {
        let newest_first: Vec<_> = (1..=4).rev().map(|number| ticket(number, "concert")).collect();
        for search in ["", "concert"] {
            let (pages, _) = pages(&newest_first, &Search::parse(search).unwrap(), LOOKED_AT, 2);
            let sizes: Vec<_> = pages.iter().map(|page| page.tickets.len()).collect();
            assert_eq!(sizes, [2, 2], "{search:?}");
        }
    }
}
