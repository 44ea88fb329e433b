//! What svc-payments has read: its own payments, and the orders that can be paid.

use contract::{
    OrderEvent, OrderId, PaymentEvent, PaymentId,
    http::{self, PaymentStatus},
    stream::payment_subject,
};
use eventstore::{Projection, Recorded, Rows, Table, View};

use crate::domain::{self, Order, Payment, Status};

/// PAYMENTS: the last try to pay for each order, and each try.
#[derive(Debug)]
pub struct Payments;

const TRIES: Table<Payment> = Table::new("tries");

impl Projection for Payments {
    type Event = PaymentEvent;
    type State = Option<Payment>;

    const NAME: &'static str = "payments";
    const VERSION: u32 = 1;

    fn evolve(state: Option<Payment>, event: &PaymentEvent) -> Option<Payment> {
        domain::evolve(state, event)
    }

    fn index(rows: &mut Rows<'_>, _: &Recorded<PaymentEvent>, state: &Option<Payment>) {
        if let Some(payment) = state {
            rows.put(&TRIES, payment.id.as_bytes(), payment);
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

/// The payment as HTTP shows it.
pub(crate) fn shown(payment: Payment) -> http::Payment {
    let (status, stripe_id) = match payment.status {
        Status::Requested => (PaymentStatus::Requested, None),
        Status::Authorized { stripe_id } => (PaymentStatus::Authorized, Some(stripe_id)),
        Status::Created { stripe_id } => (PaymentStatus::Created, Some(stripe_id)),
        Status::Declined(undone) => (PaymentStatus::Declined, undone.stripe_id),
        Status::Voided(undone) => (PaymentStatus::Voided, undone.stripe_id),
        Status::Refunded(undone) => (PaymentStatus::Refunded, undone.stripe_id),
    };
    http::Payment { id: payment.id, order_id: payment.order, stripe_id, status }
}

/// ORDERS: each order. Its subjects are tickets, of which nothing has to be known here.
#[derive(Debug)]
pub struct Orders;

const ORDERS: Table<Order> = Table::new("orders");

impl Projection for Orders {
    type Event = OrderEvent;
    type State = ();

    const NAME: &'static str = "orders";
    const VERSION: u32 = 1;

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
