//! What svc-tickets has read: its own tickets.

use contract::{
    TicketEvent, TicketId,
    http::{self, TicketStatus},
};
use eventstore::{Order, Projection, Recorded, Rows, Table, View};

use crate::domain::{self, Hold, Ticket};

/// TICKETS: each ticket, and those that can be bought once more.
#[derive(Debug)]
pub struct Tickets;

// Both by the ticket's id. Ids sort by time, so backwards is newest first.
const ALL: Table<http::Ticket> = Table::new("all");
const AVAILABLE: Table<http::Ticket> = Table::new("available");

/// Which tickets a list is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that can be bought.
    Available,
    /// The reserved and the sold ones too.
    All,
}

impl Projection for Tickets {
    type Event = TicketEvent;
    type State = domain::State;

    const NAME: &'static str = "tickets";
    const VERSION: u32 = 1;

    fn evolve(state: domain::State, event: &TicketEvent) -> domain::State {
        domain::evolve(state, event)
    }

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<TicketEvent>, state: &domain::State) {
        let Some(ticket) = state else { return };
        let row = shown(ticket, recorded.version);
        rows.put(&ALL, ticket.id.as_bytes(), &row);
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
    tickets.get(&ALL, id.as_bytes())
}

/// Up to `limit` tickets, newest first, beginning behind `after`.
pub(crate) fn tickets(
    tickets: &View<Tickets>,
    which: Which,
    after: Option<TicketId>,
    limit: usize,
) -> Result<Vec<http::Ticket>, eventstore::Error> {
    let table = match which {
        Which::Available => &AVAILABLE,
        Which::All => &ALL,
    };
    let after = after.as_ref().map(|id| id.as_bytes().as_slice());
    let rows = tickets.scan(table, &[], after, Order::Descending, limit)?;
    Ok(rows.into_iter().map(|(_, ticket)| ticket).collect())
}
