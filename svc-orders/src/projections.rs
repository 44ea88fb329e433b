//! What svc-orders has read: its own orders, and the tickets that can be ordered.

use std::time::Duration;

use contract::{
    Cents, OrderEvent, OrderId, TicketEvent, UserId,
    event::OrderStatus,
    http::{HistoryEntry, Order, OrderTicket},
    stream::order_subject,
};
use eventstore::{Projection, Recorded, Rows, Table, View};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::domain::{self, TicketOrders};

/// ORDERS: the aggregate of each ticket, each order, each buyer's orders, each order's history.
#[derive(Debug)]
pub struct Orders;

const BY_ID: Table<Order> = Table::new("orders");
/// Buyer's id, order's id. Ids sort by time, so a buyer's orders are the oldest first.
const BY_BUYER: Table<OrderId> = Table::new("by-buyer");
/// Order's id, version in big-endian.
const HISTORY: Table<HistoryEntry> = Table::new("history");
/// How many orders have each status, by its name.
const COUNTS: Table<u64> = Table::new("counts");

/// How often the orders are counted for the metrics.
const TELL_EVERY: Duration = Duration::from_secs(5);

impl Projection for Orders {
    type Event = OrderEvent;
    type State = TicketOrders;

    const NAME: &'static str = "orders";
    const VERSION: u32 = 2;

    fn evolve(state: TicketOrders, event: &OrderEvent) -> TicketOrders {
        domain::evolve(state, event)
    }

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<OrderEvent>, state: &TicketOrders) {
        let Some(order) = &state.latest else { return };
        let before = rows.get(&BY_ID, order.id.as_bytes()).map(|order| order.status);
        count(rows, before, order.status);
        rows.put(&BY_ID, order.id.as_bytes(), &shown(order, recorded.version));
        rows.put(&BY_BUYER, &joined(order.buyer.as_bytes(), order.id.as_bytes()), &order.id);
        let entry = HistoryEntry {
            event_type: recorded.event_type.clone(),
            version: recorded.version,
            time: recorded.time.into(),
            data: recorded.data(),
        };
        rows.put(&HISTORY, &joined(order.id.as_bytes(), &recorded.version.to_be_bytes()), &entry);
    }
}

fn count(rows: &mut Rows<'_>, before: Option<OrderStatus>, now: OrderStatus) {
    if before == Some(now) {
        return;
    }
    let mut add = |status: OrderStatus, difference: i64| {
        let count = rows.get(&COUNTS, name(status).as_bytes()).unwrap_or(0);
        rows.put(&COUNTS, name(status).as_bytes(), &count.saturating_add_signed(difference));
    };
    add(now, 1);
    if let Some(before) = before {
        add(before, -1);
    }
}

fn name(status: OrderStatus) -> &'static str {
    match status {
        OrderStatus::Created => "created",
        OrderStatus::AwaitingPayment => "awaiting-payment",
        OrderStatus::Complete => "complete",
        OrderStatus::Cancelled => "cancelled",
    }
}

/// How many orders have each status.
fn counts(orders: &View<Orders>) -> Result<[(&'static str, u64); 4], eventstore::Error> {
    use OrderStatus::{AwaitingPayment, Cancelled, Complete, Created};
    let mut counts = [Created, AwaitingPayment, Complete, Cancelled].map(|status| (name(status), 0));
    for (name, count) in &mut counts {
        *count = orders.get(&COUNTS, name.as_bytes())?.unwrap_or(0);
    }
    Ok(counts)
}

/// Tells the metrics how many orders there are, now and then.
pub(crate) async fn tell_counts(orders: View<Orders>, shutdown: CancellationToken) {
    let telling = async {
        orders.caught_up().await;
        loop {
            // Not while they are replayed: half of them would look like a loss.
            for (status, count) in counts(&orders).into_iter().flatten() {
                metrics::gauge!("orders", "status" => status).set(count as f64);
            }
            tokio::time::sleep(TELL_EVERY).await;
        }
    };
    let _: Option<()> = shutdown.run_until_cancelled(telling).await;
}

/// The order as HTTP shows it.
pub(crate) fn shown(order: &domain::Order, version: u64) -> Order {
    Order {
        id: order.id,
        user_id: order.buyer,
        status: order.status,
        expires_at: order.expires_at,
        ticket: OrderTicket {
            id: order.ticket.id,
            title: order.ticket.title.clone(),
            price: order.ticket.price_cents,
        },
        version,
    }
}

/// The order `id`.
pub(crate) fn order(orders: &View<Orders>, id: OrderId) -> Result<Option<Order>, eventstore::Error> {
    orders.get(&BY_ID, id.as_bytes())
}

/// Up to `limit` of the buyer's orders, oldest first, beginning behind `after`.
pub(crate) fn orders_of(
    orders: &View<Orders>,
    buyer: UserId,
    after: Option<OrderId>,
    limit: usize,
) -> Result<Vec<Order>, eventstore::Error> {
    let after = after.map(|id| joined(buyer.as_bytes(), id.as_bytes()));
    let ids =
        orders.scan(&BY_BUYER, buyer.as_bytes(), after.as_deref(), eventstore::Order::Ascending, limit)?;
    ids.into_iter().filter_map(|(_, id)| order(orders, id).transpose()).collect()
}

/// The order's events, oldest first.
pub(crate) fn history(orders: &View<Orders>, id: OrderId) -> Result<Vec<HistoryEntry>, eventstore::Error> {
    let entries = orders.scan(&HISTORY, id.as_bytes(), None, eventstore::Order::Ascending, usize::MAX)?;
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

/// The subject on which the order is decided about, if the order is known.
pub(crate) fn subject_of(orders: &View<Orders>, id: OrderId) -> Result<Option<String>, eventstore::Error> {
    Ok(order(orders, id)?.map(|order| order_subject(order.ticket.id)))
}

fn joined(first: &[u8], second: &[u8]) -> Vec<u8> {
    [first, second].concat()
}

/// TICKETS: what can be ordered, and for how much.
#[derive(Debug)]
pub struct Tickets;

/// A ticket as svc-tickets last told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// What is for sale.
    pub title: String,
    /// What it costs.
    pub price: Cents,
}

impl Projection for Tickets {
    type Event = TicketEvent;
    type State = Option<Ticket>;

    const NAME: &'static str = "tickets";
    const VERSION: u32 = 1;

    fn evolve(_: Option<Ticket>, event: &TicketEvent) -> Option<Ticket> {
        let (title, price) = match event {
            TicketEvent::Created(ticket) => (ticket.title.clone(), ticket.price_cents),
            TicketEvent::Updated(ticket) => (ticket.title.clone(), ticket.price_cents),
        };
        Some(Ticket { title, price })
    }
}
