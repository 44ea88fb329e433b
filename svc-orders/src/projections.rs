//! What svc-orders has read: its own orders, and the tickets that can be ordered.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use contract::{
    Cents, OrderEvent, OrderId, TicketEvent, TicketId, Timestamp, UserId,
    event::{CancelReason, OrderCancelled, OrderStatus, TicketCreated},
    http::{HistoryEntry, Order, OrderTicket, Sale},
    stream::order_subject,
};
use eventstore::{Projection, ReadError, Recorded, Rows, Table, View};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::domain::{self, TicketOrders};

/// ORDERS: the aggregate of each ticket, each order, which are whose, and which are for what.
#[derive(Debug)]
pub struct Orders;

/// By the order's id: one row for all that is told of it, since each row costs a replay more than its bytes.
const DOSSIERS: Table<Dossier> = Table::new("orders");
/// Buyer's id, order's id. Ids sort by time, so a buyer's orders are the oldest first.
const BY_BUYER: Table<OrderId> = Table::new("by-buyer");
/// Ticket's id, order's id.
const BY_TICKET: Table<OrderId> = Table::new("by-ticket");
/// How many orders have each status, by its name.
const COUNTS: Table<u64> = Table::new("counts");

/// How many tickets of one seller are looked at for their sales: those that were listed last.
const MOST_TICKETS: usize = 10_000;
/// How many orders of each ticket are its latest.
const LATEST: usize = 5;
/// How many orders of the seller's own one look at the sales passes over: then it answers what it has.
const PASSED_OVER: usize = 1_000;

/// How many orders of one buyer are looked at for those that are open.
const MANY: usize = 1_000;

/// How often the orders are counted for the metrics.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// An order and how it came about.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Dossier {
    order: Order,
    /// Why it was cancelled, once it was.
    reason: Option<CancelReason>,
    /// Its events, oldest first: it was ordered with the first of them.
    history: Vec<Entry>,
}

/// One of its events.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    event_type: String,
    version: u64,
    time: Timestamp,
    /// As in the log. Hardly anybody asks, so nobody takes it apart before.
    payload: String,
}

impl Projection for Orders {
    type Event = OrderEvent;
    type State = TicketOrders;

    const NAME: &'static str = "orders";
    const VERSION: u32 = 5;

    fn evolve(state: TicketOrders, event: &OrderEvent) -> TicketOrders {
        domain::evolve(state, event)
    }

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<OrderEvent>, state: &TicketOrders) {
        let Some(order) = &state.latest else { return };
        let before = rows.get(&DOSSIERS, order.id.as_bytes());
        count(rows, before.as_ref().map(|before| before.order.status), order.status);
        let is_new = before.is_none();
        let mut history = before.map(|before| before.history).unwrap_or_default();
        history.push(Entry {
            event_type: recorded.event_type.clone(),
            version: recorded.version,
            time: recorded.time.into(),
            payload: recorded.payload().into(),
        });
        let reason = match &recorded.event {
            OrderEvent::Cancelled(OrderCancelled { reason, .. }) => Some(*reason),
            OrderEvent::Created(_) | OrderEvent::AwaitingPayment(_) | OrderEvent::Completed(_) => None,
        };
        let dossier = Dossier { order: shown(order, recorded.version), reason, history };
        rows.put(&DOSSIERS, order.id.as_bytes(), &dossier);
        // After what they point to: whoever reads meanwhile would miss all orders before this one.
        if is_new {
            rows.put(&BY_BUYER, &joined(order.buyer.as_bytes(), order.id.as_bytes()), &order.id);
            rows.put(&BY_TICKET, &joined(order.ticket.id.as_bytes(), order.id.as_bytes()), &order.id);
        }
    }
}

impl Dossier {
    /// The order as the ticket's seller sees it.
    fn sale(self) -> Option<Sale> {
        let Order { id, user_id, status, expires_at, ticket, version } = self.order;
        let time = self.history.first()?.time;
        Some(Sale { order_id: id, user_id, status, reason: self.reason, expires_at, ticket, version, time })
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
    Ok(orders.get(&DOSSIERS, id.as_bytes())?.map(|dossier| dossier.order))
}

/// The order `id`, as the ticket's seller sees it.
fn sale(orders: &View<Orders>, id: OrderId) -> Result<Option<Sale>, eventstore::Error> {
    Ok(orders.get(&DOSSIERS, id.as_bytes())?.and_then(Dossier::sale))
}

/// How many reservations the buyer has open, of those that were placed `since`: so long may one be open that is not being
/// paid.
///
/// Counts no further than `most`, and not exactly below that. Whoever has placed more than a thousand since is taken to
/// have as many open.
pub(crate) fn open_orders(
    orders: &View<Orders>,
    buyer: UserId,
    since: SystemTime,
    most: usize,
) -> Result<usize, eventstore::Error> {
    let since = Timestamp::from(since);
    let placed = |limit| -> Result<Vec<OrderId>, eventstore::Error> {
        let newest = orders.scan(&BY_BUYER, buyer.as_bytes(), None, eventstore::Order::Descending, limit)?;
        // Ids say when they were made.
        let is_recent = |id: &OrderId| placed_at(*id).is_none_or(|placed| placed >= since);
        Ok(newest.into_iter().map(|(_, id)| id).take_while(is_recent).collect())
    };
    // For nearly everybody it ends here: not one order has to be read.
    let few = placed(most)?.len();
    if few < most {
        return Ok(few);
    }
    let placed = placed(MANY)?;
    if placed.len() == MANY {
        return Ok(most);
    }
    let mut open = 0;
    for id in placed {
        let status = order(orders, id)?.map(|order| order.status);
        open += usize::from(matches!(status, Some(OrderStatus::Created | OrderStatus::AwaitingPayment)));
        if open == most {
            break;
        }
    }
    Ok(open)
}

/// When an order's id was made.
fn placed_at(id: OrderId) -> Option<Timestamp> {
    let (seconds, nanoseconds) = id.0.get_timestamp()?.to_unix();
    Some(Timestamp::from(SystemTime::UNIX_EPOCH + Duration::new(seconds, nanoseconds)))
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page<T> {
    pub(crate) items: Vec<T>,
    /// Behind which order the list goes on; `None` at its end.
    pub(crate) next: Option<OrderId>,
}

/// Up to `limit` of the buyer's orders, from the oldest on or from the newest back, beginning behind `after`.
pub(crate) fn orders_of(
    orders: &View<Orders>,
    buyer: UserId,
    direction: eventstore::Order,
    after: Option<OrderId>,
    limit: usize,
) -> Result<Page<Order>, eventstore::Error> {
    let after = after.map(|id| joined(buyer.as_bytes(), id.as_bytes()));
    // One more tells whether there is a next page.
    let rows = orders.scan(&BY_BUYER, buyer.as_bytes(), after.as_deref(), direction, limit + 1)?;
    let mut ids: Vec<_> = rows.into_iter().map(|(_, id)| id).collect();
    let more = ids.len() > limit;
    ids.truncate(limit);
    let next = ids.last().copied().filter(|_| more);
    let items = ids.into_iter().filter_map(|id| order(orders, id).transpose()).collect::<Result<_, _>>()?;
    Ok(Page { items, next })
}

/// Up to `limit` orders that others placed for the seller's tickets, newest first, beginning behind `after`.
///
/// Who sells what, TICKETS tells; who ordered it, ORDERS. No row of the one waits for the other: they meet here, so it
/// does not matter which was heard of first, or is replayed.
///
/// Looks at the 10,000 tickets that the seller listed last, and reads one order of each beside those that it answers.
/// It passes over the seller's own orders, 1,000 at most: a page may hold fewer than `limit`, even none, and yet not
/// be the last.
pub(crate) fn sales(
    orders: &View<Orders>,
    tickets: &View<Tickets>,
    seller: UserId,
    after: Option<OrderId>,
    limit: usize,
) -> Result<Page<Sale>, eventstore::Error> {
    let backwards = eventstore::Order::Descending;
    let listed = tickets.scan(&BY_SELLER, seller.as_bytes(), None, backwards, MOST_TICKETS)?;
    let listed = listed.into_iter().map(|(_, ticket)| ticket).collect();
    merge(listed, seller, PASSED_OVER, after, limit, |ticket, after| {
        let after = after.map(|id| joined(ticket.as_bytes(), id.as_bytes()));
        let newest = orders.scan(&BY_TICKET, ticket.as_bytes(), after.as_deref(), backwards, 1)?;
        Ok(newest.first().map(|(_, id)| sale(orders, *id)).transpose()?.flatten())
    })
}

/// The five latest orders that others placed for each of these tickets, if the seller sells it, newest first for each.
///
/// The one that holds a ticket or has bought it is the latest of all, so it is always among them.
pub(crate) fn latest_sales(
    orders: &View<Orders>,
    tickets: &View<Tickets>,
    seller: UserId,
    wanted: &[TicketId],
) -> Result<Vec<Sale>, eventstore::Error> {
    let mut sales = Vec::new();
    for ticket in wanted {
        if tickets.get(&BY_SELLER, &joined(seller.as_bytes(), ticket.as_bytes()))?.is_some() {
            let latest =
                orders.scan(&BY_TICKET, ticket.as_bytes(), None, eventstore::Order::Descending, LATEST)?;
            for (_, id) in latest {
                sales.extend(sale(orders, id)?.filter(|sale| sale.user_id != seller));
            }
        }
    }
    Ok(sales)
}

/// Lays the orders of several tickets into one list. `newest` gives a ticket's newest order behind another.
fn merge<E>(
    tickets: Vec<TicketId>,
    seller: UserId,
    passed_over: usize,
    after: Option<OrderId>,
    limit: usize,
    mut newest: impl FnMut(TicketId, Option<OrderId>) -> Result<Option<Sale>, E>,
) -> Result<Page<Sale>, E> {
    // Of each ticket the newest that is left: so the newest of these is the newest of all.
    let mut left = BTreeMap::new();
    for ticket in tickets {
        left.extend(newest(ticket, after)?.map(|sale| (sale.order_id, sale)));
    }
    let (mut items, mut own, mut last) = (Vec::new(), 0, after);
    while let Some((id, sale)) = left.pop_last() {
        if items.len() == limit || own == passed_over {
            return Ok(Page { items, next: last });
        }
        last = Some(id);
        left.extend(newest(sale.ticket.id, last)?.map(|sale| (sale.order_id, sale)));
        if sale.user_id == seller {
            own += 1;
        } else {
            items.push(sale);
        }
    }
    Ok(Page { items, next: None })
}

/// The order's events, oldest first.
pub(crate) fn history(orders: &View<Orders>, id: OrderId) -> Result<Vec<HistoryEntry>, eventstore::Error> {
    let entries = orders.get(&DOSSIERS, id.as_bytes())?.map(|dossier| dossier.history).unwrap_or_default();
    let entries = entries.into_iter().map(|Entry { event_type, version, time, payload }| {
        let data = eventstore::data(&payload).map_err(ReadError::from)?;
        Ok(HistoryEntry { event_type, version, time, data })
    });
    entries.collect()
}

/// The subject on which the order is decided about, if the order is known.
pub(crate) fn subject_of(orders: &View<Orders>, id: OrderId) -> Result<Option<String>, eventstore::Error> {
    Ok(order(orders, id)?.map(|order| order_subject(order.ticket.id)))
}

fn joined(first: &[u8], second: &[u8]) -> Vec<u8> {
    [first, second].concat()
}

/// TICKETS: what can be ordered, and for how much; each seller's tickets.
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

/// By the ticket's id.
const TICKETS: Table<Ticket> = Table::new("tickets");
/// Seller's id, ticket's id.
const BY_SELLER: Table<TicketId> = Table::new("by-seller");

impl Projection for Tickets {
    type Event = TicketEvent;
    type State = ();

    const NAME: &'static str = "tickets";
    const VERSION: u32 = 3;

    fn evolve((): (), _: &TicketEvent) {}

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<TicketEvent>, (): &()) {
        let (id, title, price) = match &recorded.event {
            TicketEvent::Created(ticket) => (ticket.id, &ticket.title, ticket.price_cents),
            TicketEvent::Updated(ticket) => (ticket.id, &ticket.title, ticket.price_cents),
        };
        let ticket = Ticket { title: title.clone(), price };
        // Most of what happens to a ticket leaves it for sale on the same terms.
        if rows.get(&TICKETS, id.as_bytes()).as_ref() != Some(&ticket) {
            rows.put(&TICKETS, id.as_bytes(), &ticket);
        }
        // For ever the one who listed it: what comes after says nothing new about that.
        if let TicketEvent::Created(TicketCreated { id, user_id, .. }) = &recorded.event {
            rows.put(&BY_SELLER, &joined(user_id.as_bytes(), id.as_bytes()), id);
        }
    }
}

/// The ticket `id`, as it can be ordered.
pub(crate) fn ticket(tickets: &View<Tickets>, id: TicketId) -> Result<Option<Ticket>, eventstore::Error> {
    tickets.get(&TICKETS, id.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::UNIX_EPOCH};

    use contract::Timestamp;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    const SELLER: UserId = UserId(Uuid::from_u128(1));
    const BUYER: UserId = UserId(Uuid::from_u128(2));

    fn sale(order: u128, ticket: u128, buyer: UserId) -> Sale {
        let time = Timestamp::from(UNIX_EPOCH);
        Sale {
            order_id: OrderId(Uuid::from_u128(order)),
            user_id: buyer,
            status: OrderStatus::Created,
            reason: None,
            expires_at: time,
            ticket: OrderTicket {
                id: TicketId(Uuid::from_u128(ticket)),
                title: "Concert".into(),
                price: Cents(1),
            },
            version: 0,
            time,
        }
    }

    /// The pages of what others ordered of tickets 0 to 9; `all` is the newest first.
    fn pages(all: &[Sale], passed_over: usize, limit: usize) -> Vec<Page<Sale>> {
        let tickets: Vec<_> = (0..10).map(|number| TicketId(Uuid::from_u128(number))).collect();
        let (mut pages, mut after) = (Vec::new(), None);
        loop {
            let page = merge(tickets.clone(), SELLER, passed_over, after, limit, |ticket, after| {
                let mut of_ticket = all.iter().filter(|sale| sale.ticket.id == ticket);
                let newest = of_ticket.find(|sale| after.is_none_or(|after| sale.order_id < after));
                Ok::<_, Infallible>(newest.cloned())
            });
            let Ok(page) = page;
            after = page.next;
            pages.push(page);
            if after.is_none() {
                return pages;
            }
        }
    }

    proptest! {
        #[test]
        fn the_pages_of_sales_are_what_others_ordered_newest_first(
            orders in prop::collection::vec((0..13_u128, any::<bool>()), 0..60),
            passed_over in 1..5_usize,
            limit in 1..9_usize,
        ) {
            // Tickets 10 to 12 are somebody else's.
            let all: Vec<_> = (0..)
                .zip(orders)
                .map(|(order, (ticket, own))| sale(order, ticket, if own { SELLER } else { BUYER }))
                .collect();
            let newest_first: Vec<_> = all.into_iter().rev().collect();
            let pages = pages(&newest_first, passed_over, limit);
            let listed: Vec<_> = pages.iter().flat_map(|page| page.items.clone()).collect();
            let theirs = |sale: &&Sale| sale.ticket.id.0.as_u128() < 10 && sale.user_id == BUYER;
            let expected: Vec<_> = newest_first.iter().filter(theirs).cloned().collect();
            prop_assert_eq!(listed, expected);
            prop_assert!(pages.iter().all(|page| page.items.len() <= limit));
        }
    }

    #[test]
    fn a_full_page_of_sales_is_the_last_when_nothing_follows() {
        let newest_first: Vec<_> = (0..4).rev().map(|order| sale(order, order % 2, BUYER)).collect();
        let sizes: Vec<_> = pages(&newest_first, 1, 2).iter().map(|page| page.items.len()).collect();
        assert_eq!(sizes, [2, 2]);
    }

    #[test]
    fn a_sellers_own_orders_are_passed_over_so_many_at_a_time() {
        let newest_first: Vec<_> = (0..7).rev().map(|order| sale(order, 0, SELLER)).collect();
        let pages = pages(&newest_first, 3, 2);
        let stops: Vec<_> = pages.iter().map(|page| page.next.map(|id| id.0.as_u128())).collect();
        assert_eq!(stops, [Some(4), Some(1), None]);
    }
}
