//! What svc-expiration has read: the deadlines it told, and the orders that wait for a card.

use contract::{ExpirationEvent, OrderEvent, OrderId, Timestamp};
use eventstore::{Projection, Recorded, Rows, Table, View};

use crate::domain::{self, Deadline};

/// EXPIRATIONS: whether an order's deadline was told.
#[derive(Debug)]
pub struct Expirations;

impl Projection for Expirations {
    type Event = ExpirationEvent;
    type State = Deadline;

    const NAME: &'static str = "expirations";
    const VERSION: u32 = 1;

    fn evolve(state: Deadline, event: &ExpirationEvent) -> Deadline {
        domain::evolve(state, event)
    }
}

/// ORDERS: the orders that wait for a card, and until when.
#[derive(Debug)]
pub struct Orders;

/// Only orders that can still expire have a row, so the table is as large as the rush, not as the history.
const WAITING: Table<Timestamp> = Table::new("waiting");

impl Projection for Orders {
    type Event = OrderEvent;
    type State = ();

    const NAME: &'static str = "orders";
    const VERSION: u32 = 2;

    fn evolve((): (), _: &OrderEvent) {}

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<OrderEvent>, (): &()) {
        match &recorded.event {
            OrderEvent::Created(order) => rows.put(&WAITING, order.id.as_bytes(), &order.expires_at),
            OrderEvent::AwaitingPayment(order) => rows.delete(&WAITING, order.id.as_bytes()),
            OrderEvent::Cancelled(order) => rows.delete(&WAITING, order.id.as_bytes()),
            OrderEvent::Completed(order) => rows.delete(&WAITING, order.id.as_bytes()),
        }
    }
}

/// Until when the order waits for a card; `None` when it does not, or not any more.
pub(crate) fn waits_until(
    orders: &View<Orders>,
    order: OrderId,
) -> Result<Option<Timestamp>, eventstore::Error> {
    orders.get(&WAITING, order.as_bytes())
}
