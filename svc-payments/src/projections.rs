//! What svc-payments has read: its own payments, the orders that can be paid, and whose tickets they are for.

use contract::{
    OrderEvent, OrderId, PaymentEvent, PaymentId, TicketEvent, TicketId, Timestamp, UserId,
    http::{self, PaymentStatus},
    stream::payment_subject,
};
use eventstore::{Order as Direction, Projection, Recorded, Rows, Table, View};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::domain::{self, Order, Payment, Status};

/// PAYMENTS: the last try to pay for each order, each try, and the orders for which something is still to come.
#[derive(Debug)]
pub struct Payments;

const TRIES: Table<Payment> = Table::new("tries");
const UNSETTLED: Table<Unsettled> = Table::new("unsettled");

/// A payment that waits for somebody: for Stripe, the buyer's bank, or the order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Unsettled {
    /// When it was asked for, the payment or the refund; or when that failed.
    pub(crate) since: Timestamp,
    /// The trace of who asked, as `_trace` has it.
    pub(crate) trace: Option<String>,
}

impl Projection for Payments {
    type Event = PaymentEvent;
    type State = Option<Payment>;

    const NAME: &'static str = "payments";
    const VERSION: u32 = 4;

    fn evolve(state: Option<Payment>, event: &PaymentEvent) -> Option<Payment> {
        domain::evolve(state, event)
    }

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<PaymentEvent>, state: &Option<Payment>) {
        let Some(payment) = state else { return };
        rows.put(&TRIES, payment.id.as_bytes(), payment);
        let order = payment.order.as_bytes();
        match &recorded.event {
            // Whether that leaves a ticket sold or a card charged in vain, the order says.
            PaymentEvent::RefundFailed(_) | PaymentEvent::Requested(_) | PaymentEvent::RefundRequested(_) => {
                let since = Timestamp::from(recorded.time);
                let trace = recorded.trace_text();
                rows.put(&UNSETTLED, order, &Unsettled { since, trace });
            }
            PaymentEvent::PartiallyRefunded(_) | PaymentEvent::Disputed(_) => {}
            _ if payment.status.is_settled() => rows.delete(&UNSETTLED, order),
            _ => {}
        }
    }
}

/// The last try to pay for the order.
pub(crate) fn payment_of(
    payments: &View<Payments>,
    order: OrderId,
) -> Result<Option<Payment>, eventstore::Error> {
    Ok(payments.head(&payment_subject(order))?.state)
}

/// The try `id`, which need not be the last.
pub(crate) fn payment(
    payments: &View<Payments>,
    id: PaymentId,
) -> Result<Option<Payment>, eventstore::Error> {
    payments.get(&TRIES, id.as_bytes())
}

/// Up to `limit` orders whose payments wait for somebody, after the order `after`.
pub(crate) fn unsettled(
    payments: &View<Payments>,
    after: Option<OrderId>,
    limit: usize,
) -> Result<Vec<(OrderId, Unsettled)>, eventstore::Error> {
    let after = after.as_ref().map(|order| order.as_bytes().as_slice());
    let rows = payments.scan(&UNSETTLED, &[], after, Direction::Ascending, limit)?;
    let order = |key: &[u8]| Uuid::from_slice(key).ok().map(OrderId);
    Ok(rows.into_iter().filter_map(|(key, row)| Some((order(&key)?, row))).collect())
}

/// The payment as HTTP shows it.
pub(crate) fn shown(payment: Payment) -> http::Payment {
    let status = match &payment.status {
        Status::Requested => PaymentStatus::Requested,
        Status::ActionRequired { .. } => PaymentStatus::RequiresAction,
        Status::Authorized { .. } => PaymentStatus::Authorized,
        Status::Created(_) => PaymentStatus::Created,
        Status::Refunding(_) => PaymentStatus::Refunding,
        Status::Declined(_) => PaymentStatus::Declined,
        Status::Voided(_) => PaymentStatus::Voided,
        Status::Refunded(_) => PaymentStatus::Refunded,
    };
    let stripe_id = payment.status.stripe_id().map(str::to_owned);
    let reason = match payment.status {
        Status::Declined(why) => Some(why.reason),
        _ => None,
    };
    http::Payment { id: payment.id, order_id: payment.order, stripe_id, status, reason, client_secret: None }
}

/// ORDERS: each order. Its subjects are tickets, of which nothing has to be known here.
#[derive(Debug)]
pub struct Orders;

const ORDERS: Table<Order> = Table::new("orders");

impl Projection for Orders {
    type Event = OrderEvent;
    type State = ();

    const NAME: &'static str = "orders";
    const VERSION: u32 = 2;

    fn evolve((): (), _: &OrderEvent) {}

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<OrderEvent>, (): &()) {
        let id = match &recorded.event {
            OrderEvent::Created(event) => event.id,
            OrderEvent::AwaitingPayment(event) => event.id,
            OrderEvent::Cancelled(event) => event.id,
            OrderEvent::Completed(event) => event.id,
        };
        let before = rows.get(&ORDERS, id.as_bytes());
        if let Some(order) = domain::follow(before, &recorded.event) {
            rows.put(&ORDERS, id.as_bytes(), &order);
        }
    }
}

/// The order `id`.
pub(crate) fn order(orders: &View<Orders>, id: OrderId) -> Result<Option<Order>, eventstore::Error> {
    orders.get(&ORDERS, id.as_bytes())
}

/// TICKETS: who sells each. Of the tickets themselves nothing has to be known here.
#[derive(Debug)]
pub struct Tickets;

const SELLERS: Table<UserId> = Table::new("sellers");

impl Projection for Tickets {
    type Event = TicketEvent;
    type State = ();

    const NAME: &'static str = "tickets";
    const VERSION: u32 = 2;

    fn evolve((): (), _: &TicketEvent) {}

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<TicketEvent>, (): &()) {
        match &recorded.event {
            TicketEvent::Created(ticket) => rows.put(&SELLERS, ticket.id.as_bytes(), &ticket.user_id),
            // A ticket keeps its seller.
            TicketEvent::Updated(_) => {}
        }
    }
}

/// Who sells the ticket.
pub(crate) fn seller(tickets: &View<Tickets>, id: TicketId) -> Result<Option<UserId>, eventstore::Error> {
    tickets.get(&SELLERS, id.as_bytes())
}
