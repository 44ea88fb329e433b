//! The use cases: load, decide, append; and what is asked of Stripe in between, after it stands in the log.

use std::time::Duration;

use contract::{
    OrderId, PaymentEvent, PaymentId, UserId,
    http::{self, PaymentStatus},
    stream::payment_subject,
};
use eventstore::{Cause, Decider, Reaction, View};
use uuid::Uuid;

use crate::{
    domain::{self, Currency, Held, Order, Payment, Rejection, Status, Step, Token, Undone},
    error::Error,
    projections::{self, Orders, Payments},
    reactors::Command,
    stripe::{Failure, Intent, Stripe},
};

/// How long to wait for a projection to reach the end of its stream.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long what only a person can settle rests before it is looked at again.
const ALARM: Duration = Duration::from_secs(60);

/// What the use cases work on. Clones share it.
#[derive(Clone, Debug)]
pub struct App {
    pub(crate) payments: Decider<Payments>,
    pub(crate) orders: View<Orders>,
    pub(crate) stripe: Stripe,
    pub(crate) currency: Currency,
    pub(crate) patience: Duration,
}

/// A payment, and the sequence that a reader must have seen to see it.
pub(crate) struct Paid {
    pub(crate) payment: http::Payment,
    pub(crate) sequence: u64,
}

/// Pays for `order` with `token`, or waits with those who asked before; in vain is no error: the payment goes on.
pub(crate) async fn pay(app: &App, by: UserId, order: OrderId, token: &Token) -> Result<Paid, Error> {
    // Known or not: an order that ended a moment ago is not to be paid, and a card declined a moment ago, on another
    // replica, leaves room for another.
    tokio::try_join!(app.orders.catch_up(PATIENCE), app.payments.view().catch_up(PATIENCE))?;
    let order = projections::order(&app.orders, order)?.ok_or(Error::NotFound)?;
    let subject = payment_subject(order.id);
    let id = PaymentId(Uuid::now_v7());
    let decided = app
        .payments
        .transact(&subject, Cause::Command, |last| {
            domain::request(last.as_ref(), &order, by, id, token, &app.currency)
        })
        .await?;
    let id = decided.state.map(|payment| payment.id);
    let id = id.ok_or_else(|| Error::Internal("a request to pay left no payment".into()))?;

    let view = app.payments.view();
    let settled = || match projections::payment(view, id)? {
        Some(Payment { status: Status::Requested | Status::Authorized { .. }, .. }) | None => Ok(None),
        settled => Ok::<_, Error>(settled),
    };
    let payment = match view.wait_until(&subject, app.patience, settled).await? {
        None => http::Payment { id, order_id: order.id, stripe_id: None, status: PaymentStatus::Requested },
        Some(Payment { status: Status::Declined(why), .. }) => return Err(Error::Declined(why.reason)),
        Some(Payment { status: Status::Voided(_) | Status::Refunded(_), .. }) => {
            return Err(Error::Rejected(Rejection::OrderCancelled));
        }
        Some(created) => projections::shown(created),
    };
    Ok(Paid { payment, sequence: view.head(&subject)?.sequence })
}

/// The last payment of `order`, for its buyer alone.
pub(crate) async fn read(app: &App, order: OrderId, reader: UserId) -> Result<http::Payment, Error> {
    let payment = match projections::payment_of(app.payments.view(), order)? {
        Some(payment) => payment,
        None => {
            // Another replica may have taken the request a moment ago.
            app.payments.view().catch_up(PATIENCE).await?;
            projections::payment_of(app.payments.view(), order)?.ok_or(Error::NotFound)?
        }
    };
    match payment.buyer == reader {
        true => Ok(projections::shown(payment)),
        false => Err(Error::Rejected(Rejection::NotYourOrder)),
    }
}

/// Where the event stands that is reacted to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// On PAYMENTS.
    Payments,
    /// At this sequence of ORDERS.
    Orders(u64),
}

/// Does what an event asks for. Nothing, when it is done or was overtaken.
pub(crate) async fn handle(app: &App, cause: Uuid, at: Place, command: Command) -> Result<Reaction, Error> {
    let cause = Cause::Event(cause);
    let (last, order) = as_of(app, cause, at, command.order()).await?;
    match command {
        Command::Authorize { payment, .. } => authorize(app, cause, last, order, payment).await,
        Command::Settle { .. } => settle(app, cause, last, order).await,
    }
}

/// Has the card hold the money for the try `id`, and records what came of it.
///
/// Stripe is asked even when the order is over by now: a delivery before this one may have reached it and have
/// crashed, so that money is held of which nobody knows. Asking again is harmless, as Stripe answers the same to
/// the same key; and [`settle`], which reacts to the authorisation, lets the money go. While Stripe does not answer
/// the payment stays requested and its event comes again.
async fn authorize(
    app: &App,
    cause: Cause,
    last: Option<Payment>,
    order: Order,
    id: PaymentId,
) -> Result<Reaction, Error> {
    let Some(payment) = domain::unanswered(last.as_ref(), id) else { return Ok(Reaction::Done) };
    match app.stripe.authorize(payment, order.ticket).await {
        Ok(stripe_id) => {
            record(app, cause, order.id, |last| domain::authorize(last, id, &stripe_id)).await?;
        }
        Err(Failure::Declined(why)) => {
            record(app, cause, order.id, |last| domain::decline(last, id, &why)).await?;
        }
        Err(Failure::Refused(detail)) => {
            tracing::warn!(payment.id = %id, %detail, "stripe does not take a card");
            let why = Undone { stripe_id: None, reason: "Your card could not be used".into() };
            record(app, cause, order.id, |last| domain::decline(last, id, &why)).await?;
        }
        Err(Failure::Unavailable(reason)) => return Err(Error::Unavailable(reason)),
    }
    Ok(Reaction::Done)
}

/// Takes held money that the order awaits; lets it go if the order is over.
///
/// Money that is held meets its order's end whichever comes first. Both `payment:authorized` and the order's own
/// event (`awaiting-payment` or `cancelled`) make us come here, and what is decided on holds that event and all that
/// the other stream held after it ([`as_of`]). So whichever of the two was appended later, the reaction to it sees
/// both, however stale the rows were before; the earlier one's may see too little and does nothing. When both see
/// both, they ask Stripe the same under the same key, and one of two appends gets in.
///
/// Capturing what the order awaits needs no look back: an order leaves that state only after our own
/// `payment:created` or `payment:voided`.
async fn settle(app: &App, cause: Cause, last: Option<Payment>, order: Order) -> Result<Reaction, Error> {
    match domain::next_step(last.as_ref(), &order) {
        None => Ok(Reaction::Done),
        Some(Step::Capture(held)) => take(app, cause, order.id, &held).await,
        Some(Step::Void(held)) => match let_go(app, &held).await? {
            LetGo::Gone => voided(app, cause, order.id, &held, "the order was cancelled").await,
            LetGo::Taken => {
                // We never do that; somebody at Stripe's dashboard can.
                tracing::error!(order.id = %order.id, stripe.id = held.stripe_id, "a cancelled order was charged");
                Ok(Reaction::Later(ALARM))
            }
        },
    }
}

async fn take(app: &App, cause: Cause, order: OrderId, held: &Held) -> Result<Reaction, Error> {
    let refusal = match app.stripe.capture(held).await {
        Ok(()) => return created(app, cause, order, held).await,
        Err(Failure::Unavailable(reason)) => return Err(Error::Unavailable(reason)),
        Err(Failure::Refused(reason)) => reason,
        Err(Failure::Declined(why)) => why.reason,
    };
    // The hold may have run out, or the money is taken already and Stripe has forgotten the key.
    tracing::warn!(payment.id = %held.payment, %refusal, "held money cannot be taken");
    match let_go(app, held).await? {
        LetGo::Taken => created(app, cause, order, held).await,
        LetGo::Gone => voided(app, cause, order, held, "the card could not be charged").await,
    }
}

enum LetGo {
    /// No money is held any more, and none was taken.
    Gone,
    /// Too late.
    Taken,
}

async fn let_go(app: &App, held: &Held) -> Result<LetGo, Error> {
    let unavailable = |failure| match failure {
        Failure::Unavailable(reason) | Failure::Refused(reason) => Error::Unavailable(reason),
        Failure::Declined(why) => Error::Unavailable(why.reason),
    };
    match app.stripe.cancel(held).await {
        Ok(()) => return Ok(LetGo::Gone),
        Err(Failure::Refused(_)) => {}
        Err(failure) => return Err(unavailable(failure)),
    }
    match app.stripe.retrieve(held).await.map_err(unavailable)? {
        Intent::Gone => Ok(LetGo::Gone),
        Intent::Taken => Ok(LetGo::Taken),
        Intent::Held => Err(Error::Unavailable(format!("{} is still held", held.stripe_id))),
        Intent::Unclear(status) => Err(Error::Unavailable(status)),
    }
}

async fn created(app: &App, cause: Cause, order: OrderId, held: &Held) -> Result<Reaction, Error> {
    record(app, cause, order, |last| domain::capture(last, held.payment)).await
}

async fn voided(app: &App, cause: Cause, order: OrderId, held: &Held, why: &str) -> Result<Reaction, Error> {
    record(app, cause, order, |last| domain::void(last, held.payment, why)).await
}

/// Appends what follows from what Stripe said, unless it stands there already.
async fn record(
    app: &App,
    cause: Cause,
    order: OrderId,
    decide: impl Fn(Option<&Payment>) -> Option<PaymentEvent>,
) -> Result<Reaction, Error> {
    let subject = payment_subject(order);
    let decide = |last: &Option<Payment>| Ok::<_, Rejection>(decide(last.as_ref()));
    app.payments.transact(&subject, cause, decide).await?;
    Ok(Reaction::Done)
}

/// The payment and its order: with the event that is reacted to, and all that the other stream holds at this moment.
async fn as_of(app: &App, cause: Cause, at: Place, id: OrderId) -> Result<(Option<Payment>, Order), Error> {
    match at {
        Place::Payments => app.orders.catch_up(PATIENCE).await?,
        Place::Orders(sequence) => app.orders.wait_for(sequence, PATIENCE).await?,
    }
    let order = projections::order(&app.orders, id)?;
    let order = order.ok_or_else(|| Error::Internal(format!("order {id} is paid for and not in the log")))?;
    // To decide nothing because of an event compares the state with the log's leader first.
    let nothing = |_: &Option<Payment>| Ok::<_, Rejection>(None);
    let verified = app.payments.transact(&payment_subject(id), cause, nothing).await?;
    Ok((verified.state, order))
}
