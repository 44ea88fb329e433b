//! The use cases: load, decide, append; and what is asked of Stripe in between, after it stands in the log.

use std::time::Duration;

use contract::{
    OrderId, PaymentEvent, PaymentId, TicketId, UserId,
    http::{self, PaymentStatus},
    stream::payment_subject,
};
use eventstore::{Cause, Decider, Reaction, View};
use tracing::Instrument;
use uuid::Uuid;

use crate::{
    domain::{
        self, Currency, Difference, Intent, IntentRef, Money, Order, Payment, Rejection, Status, Step, Token,
        Undone,
    },
    error::Error,
    projections::{self, Orders, Payments, Tickets},
    reactors::Command,
    stripe::{Cancelled, Failure, Found, Stripe},
    webhook::Notice,
};

/// How long to wait for a projection to reach the end of its stream.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long Stripe's refusal to give money back rests before it is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(24 * 3600);
/// How often log and Stripe are laid side by side again after something was done about a difference.
const ROUNDS: usize = 5;

/// What the use cases work on. Clones share it.
#[derive(Clone, Debug)]
pub struct App {
    pub(crate) payments: Decider<Payments>,
    pub(crate) orders: View<Orders>,
    pub(crate) tickets: View<Tickets>,
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
    telemetry::attribute("order.id", order.id.to_string());
    telemetry::attribute("payment.id", id.to_string());

    let view = app.payments.view();
    let answered = || match projections::payment(view, id)? {
        Some(Payment { status: Status::Requested | Status::Authorized { .. }, .. }) | None => Ok(None),
        answered => Ok::<_, Error>(answered),
    };
    let payment = match view.wait_until(&subject, app.patience, answered).await? {
        None => http::Payment {
            id,
            order_id: order.id,
            stripe_id: None,
            status: PaymentStatus::Requested,
            reason: None,
            client_secret: None,
        },
        Some(Payment { status: Status::Declined(why), .. }) => return Err(Error::Declined(why.reason)),
        Some(Payment { status: Status::Voided(_) | Status::Refunded(_), .. }) => {
            return Err(Error::Rejected(Rejection::OrderCancelled));
        }
        Some(answered) => look(app, answered).await?,
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
        true => look(app, payment).await,
        false => Err(Error::Rejected(Rejection::NotYourOrder)),
    }
}

/// Gives the buyer's money back, at the word of the ticket's seller, or waits with those who asked before.
pub(crate) async fn refund(app: &App, by: UserId, order: OrderId) -> Result<Paid, Error> {
    tokio::try_join!(app.orders.catch_up(PATIENCE), app.payments.view().catch_up(PATIENCE))?;
    let order = projections::order(&app.orders, order)?.ok_or(Error::NotFound)?;
    telemetry::attribute("order.id", order.id.to_string());
    let seller = seller_of(app, order.ticket).await?;
    let subject = payment_subject(order.id);
    let decided = app
        .payments
        .transact(&subject, Cause::Command, |last| domain::request_refund(last.as_ref(), seller, by))
        .await?;
    let asked = decided.state.ok_or_else(|| Error::Internal("a refund left no payment".into()))?;

    let view = app.payments.view();
    let refusals = |payment: &Payment| payment.status.charge().map_or(0, |charge| charge.refusals);
    let answered = || match projections::payment(view, asked.id)? {
        Some(Payment { status: Status::Refunding(_), .. }) | None => Ok(None),
        answered => Ok::<_, Error>(answered),
    };
    let payment = view.wait_until(&subject, app.patience, answered).await?.unwrap_or(asked.clone());
    match refusals(&payment) > refusals(&asked) {
        true => Err(Error::NotRefunded),
        false => Ok(Paid { payment: projections::shown(payment), sequence: view.head(&subject)?.sequence }),
    }
}

async fn seller_of(app: &App, ticket: TicketId) -> Result<UserId, Error> {
    if let Some(seller) = projections::seller(&app.tickets, ticket)? {
        return Ok(seller);
    }
    app.tickets.catch_up(PATIENCE).await?;
    projections::seller(&app.tickets, ticket)?.ok_or(Error::NotFound)
}

/// The payment as its buyer sees it. While their bank wants to hear from them, Stripe is asked how that went, and for
/// the secret that they need for it. It stands nowhere: whoever reads the log could act as the buyer.
async fn look(app: &App, payment: Payment) -> Result<http::Payment, Error> {
    let Status::ActionRequired { stripe_id } = &payment.status else {
        return Ok(projections::shown(payment));
    };
    let Some(found) = app.stripe.glance(stripe_id).await else { return Ok(projections::shown(payment)) };
    let client_secret = found.client_secret.clone();
    if let Err(error) = bring_together(app, Cause::Command, found).await {
        tracing::warn!(payment.id = %payment.id, %error, "showing what the log has");
    }
    let payment = projections::payment(app.payments.view(), payment.id)?.unwrap_or(payment);
    let shown = projections::shown(payment);
    let client_secret = client_secret.filter(|_| shown.status == PaymentStatus::RequiresAction);
    Ok(http::Payment { client_secret, ..shown })
}

/// Where the event stands that is reacted to.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// On PAYMENTS.
    Payments,
    /// At this sequence of ORDERS.
    Orders(u64),
}

/// Does what an event asks for. Nothing, when it is done or was overtaken. `trace` is the event's.
pub(crate) async fn handle(
    app: &App,
    cause: Uuid,
    trace: Option<&str>,
    at: Place,
    command: Command,
) -> Result<Reaction, Error> {
    let cause = Cause::Event(cause);
    match at {
        Place::Payments => app.orders.catch_up(PATIENCE).await?,
        Place::Orders(sequence) => app.orders.wait_for(sequence, PATIENCE).await?,
    }
    let id = command.order();
    telemetry::attribute("order.id", id.to_string());
    let order = projections::order(&app.orders, id)?;
    let order = order.ok_or_else(|| Error::Internal(format!("order {id} is paid for and not in the log")))?;
    let last = app.payments.current(&payment_subject(id)).await?.state;
    match command {
        Command::Authorize { payment, .. } => authorize(app, cause, trace, last, order, payment).await?,
        Command::Settle { .. } => settle(app, cause, last, order).await?,
    }
    Ok(Reaction::Done)
}

/// Goes on with a payment that waits for somebody, in case nobody else does: for `waited` so far. `trace` is that of
/// who asked for it. Returns whether it did wait: a refund that failed leaves a sold ticket, too.
pub(crate) async fn resume(
    app: &App,
    id: OrderId,
    trace: Option<&str>,
    waited: Duration,
) -> Result<bool, Error> {
    app.orders.catch_up(PATIENCE).await?;
    let Some(order) = projections::order(&app.orders, id)? else { return Ok(false) };
    let Some(last) = app.payments.current(&payment_subject(id)).await?.state else { return Ok(false) };
    match &last.status {
        Status::Created(_) if !domain::is_charged_in_vain(Some(&last), &order) => return Ok(false),
        Status::Created(charge) if charge.refusals > 0 => {
            tracing::error!(order.id = %id, "a card was charged for a lost order, and stripe did not refund");
            if waited >= ASK_AGAIN {
                let refund = |last: Option<&Payment>| domain::refund_lost(last, &order);
                record(app, Cause::Command, id, refund).await?;
            }
        }
        Status::Requested => {
            let payment = last.id;
            authorize(app, Cause::Command, trace, Some(last), order, payment).await?;
        }
        Status::ActionRequired { stripe_id } => {
            if let Some(found) = app.stripe.retrieve(stripe_id).await? {
                bring_together(app, Cause::Command, found).await?;
            }
            let last = app.payments.current(&payment_subject(id)).await?.state;
            settle(app, Cause::Command, last, order).await?;
        }
        _ => settle(app, Cause::Command, Some(last), order).await?,
    }
    Ok(true)
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
    trace: Option<&str>,
    last: Option<Payment>,
    order: Order,
    id: PaymentId,
) -> Result<(), Error> {
    let Some(payment) = domain::unanswered(last.as_ref(), id) else { return Ok(()) };
    match app.stripe.authorize(payment, order.ticket, trace).await {
        Ok(intent) => record(app, cause, order.id, |last| unrecorded(last, &order, &intent)).await,
        Err(Failure::Declined(why)) => {
            record(app, cause, order.id, |last| domain::decline(last, id, &why)).await
        }
        Err(Failure::Refused(detail)) => {
            tracing::warn!(payment.id = %id, %detail, "stripe does not take a card");
            let why = Undone { stripe_id: None, reason: "Your card could not be used".into() };
            record(app, cause, order.id, |last| domain::decline(last, id, &why)).await
        }
        Err(failure) => Err(failure.into()),
    }
    .map(drop)
}

/// Takes held money that the order awaits; lets it go if the order is over; gives back what was taken in vain.
///
/// Money that is held meets its order's end whichever comes first. Both `payment:authorized` and the order's own
/// event (`awaiting-payment` or `cancelled`) make us come here, and what is decided on holds that event and all that
/// the other stream held after it ([`handle`]). So whichever of the two was appended later, the reaction to it sees
/// both, however stale the rows were before; the earlier one's may see too little and does nothing. When both see
/// both, they ask Stripe the same under the same key, and one of two appends gets in.
///
/// Capturing what the order awaits needs no look back: an order leaves that state only after our own
/// `payment:created` or `payment:voided`.
async fn settle(app: &App, cause: Cause, last: Option<Payment>, order: Order) -> Result<(), Error> {
    match domain::next_step(last.as_ref(), &order) {
        None => Ok(()),
        Some(Step::Capture(held)) => take(app, cause, order.id, &held).await,
        Some(Step::Void(held)) => let_go(app, cause, order.id, &held, "the order was cancelled").await,
        Some(Step::RequestRefund) => {
            if record(app, cause, order.id, |last| domain::refund_lost(last, &order)).await? {
                // All guards notwithstanding: somebody captured it at Stripe's dashboard, or a guard has a hole.
                tracing::error!(order.id = %order.id, "a card was charged for a lost order: giving it back");
                metrics::counter!("payments_charged_in_vain_total").increment(1);
            }
            Ok(())
        }
        Some(Step::Refund { intent, refusals }) => give_back(app, cause, order.id, &intent, refusals).await,
    }
}

async fn take(app: &App, cause: Cause, order: OrderId, held: &IntentRef) -> Result<(), Error> {
    match app.stripe.capture(held).await {
        Ok(()) => record(app, cause, order, |last| domain::capture(last, held.payment)).await.map(drop),
        Err(Failure::Refused(refusal) | Failure::Declined(Undone { reason: refusal, .. })) => {
            // The hold may have run out, or the money is taken already and Stripe has forgotten the key.
            tracing::warn!(payment.id = %held.payment, %refusal, "held money cannot be taken");
            let_go(app, cause, order, held, "the card could not be charged").await
        }
        Err(failure) => Err(failure.into()),
    }
}

async fn let_go(app: &App, cause: Cause, order: OrderId, held: &IntentRef, why: &str) -> Result<(), Error> {
    match app.stripe.cancel(held).await? {
        Cancelled::Gone => record(app, cause, order, |last| domain::void(last, held.payment, why)).await,
        // Too late. If the order is over, the money goes back.
        Cancelled::Taken => record(app, cause, order, |last| domain::capture(last, held.payment)).await,
    }
    .map(drop)
}

async fn give_back(
    app: &App,
    cause: Cause,
    order: OrderId,
    charged: &IntentRef,
    refusals: u32,
) -> Result<(), Error> {
    let refusal = match app.stripe.refund(charged, refusals).await {
        Ok(()) => {
            return record(app, cause, order, |last| domain::refund(last, charged.payment)).await.map(drop);
        }
        Err(Failure::Refused(reason) | Failure::Declined(Undone { reason, .. })) => reason,
        Err(failure) => return Err(failure.into()),
    };
    match app.stripe.retrieve(&charged.stripe_id).await? {
        Some(Found { intent: Intent { money: Money::Taken { in_full: true, .. }, .. }, .. }) => {
            record(app, cause, order, |last| domain::refund(last, charged.payment)).await
        }
        _ => {
            tracing::error!(order.id = %order, stripe.id = charged.stripe_id, refusal, "stripe does not refund");
            record(app, cause, order, |last| domain::fail_refund(last, charged.payment, &refusal)).await
        }
    }
    .map(drop)
}

/// What came of a look at Stripe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Looked {
    /// The log said so already.
    Alike,
    /// Log and Stripe were brought together.
    Mended,
    /// It is about nothing of ours.
    Foreign,
    /// A person has to look.
    Differs,
}

/// Looks at the intent that Stripe tells of, unless the log shows that there is nothing to be seen.
pub(crate) async fn hear(app: &App, notice: &Notice) -> Result<Looked, Error> {
    if let Some(order) = notice.order {
        let last = projections::payment_of(app.payments.view(), order)?;
        if !domain::is_news(last.as_ref(), &notice.intent, notice.happened) {
            return Ok(Looked::Alike);
        }
    }
    look_at(app, &notice.intent).await
}

/// Brings together what the log and Stripe have of an intent, as it stands now.
pub(crate) async fn look_at(app: &App, stripe_id: &str) -> Result<Looked, Error> {
    match app.stripe.retrieve(stripe_id).await? {
        Some(found) => bring_together(app, Cause::Command, found).await,
        None => Ok(Looked::Foreign),
    }
}

/// Brings together what the log and Stripe have of an intent.
///
/// The log is read after Stripe was: an intent is made after its payment stands in the log, so one that the log does
/// not know is nobody's. What the log learned in between may look like a difference; it is gone at the second look.
pub(crate) async fn bring_together(app: &App, cause: Cause, found: Found) -> Result<Looked, Error> {
    // Whoever told us, what follows belongs to the purchase.
    let span = tracing::info_span!("look", otel.name = "look at payment", service = "svc-payments", order.id = %found.order);
    telemetry::http::continue_text(&span, found.trace.as_deref());
    bring_together_within(app, cause, found).instrument(span).await
}

async fn bring_together_within(app: &App, cause: Cause, mut found: Found) -> Result<Looked, Error> {
    let (mut looked, mut doubted) = (Looked::Alike, None);
    for _ in 0..ROUNDS {
        app.orders.catch_up(PATIENCE).await?;
        let Some(order) = projections::order(&app.orders, found.order)? else {
            return Ok(Looked::Foreign);
        };
        let last = app.payments.current(&payment_subject(order.id)).await?.state;
        let seen = &found.intent;
        let intent = IntentRef { payment: seen.payment, stripe_id: seen.id.clone() };
        match domain::compare(last.as_ref(), &order, seen) {
            None => return Ok(looked),
            Some(Difference::Unrecorded(_)) => {
                if record(app, cause, order.id, |last| unrecorded(last, &order, seen)).await? {
                    tell_of_trouble(last.as_ref(), seen);
                    looked = Looked::Mended;
                }
                continue;
            }
            // Still so, and the log has not moved since it was doubted.
            Some(Difference::Reversed(event)) if last == doubted => {
                let reversed = |now: Option<&Payment>| (now == last.as_ref()).then(|| event.clone());
                if record(app, cause, order.id, reversed).await? {
                    looked = Looked::Mended;
                }
                continue;
            }
            Some(Difference::Reversed(_)) => doubted = last,
            Some(Difference::Stray) => {
                tracing::warn!(order.id = %order.id, stripe.id = seen.id, "giving up a stray intent");
                app.stripe.cancel(&intent).await?;
                looked = Looked::Mended;
            }
            Some(Difference::StrayCharge) => {
                tracing::error!(order.id = %order.id, stripe.id = seen.id, "giving back a stray charge");
                match app.stripe.refund(&intent, 0).await {
                    Ok(()) => {
                        metrics::counter!("payments_charged_in_vain_total").increment(1);
                        looked = Looked::Mended;
                    }
                    // The next look shows it.
                    Err(Failure::Refused(_) | Failure::Declined(_)) => {}
                    Err(failure) => return Err(failure.into()),
                }
            }
            Some(Difference::Lost) => break,
        }
        match app.stripe.retrieve(&intent.stripe_id).await? {
            Some(again) => found = again,
            None => return Ok(looked),
        }
    }
    tracing::error!(order.id = %found.order, stripe.id = found.intent.id, "log and stripe differ");
    Ok(Looked::Differs)
}

fn unrecorded(last: Option<&Payment>, order: &Order, seen: &Intent) -> Option<PaymentEvent> {
    match domain::compare(last, order, seen)? {
        Difference::Unrecorded(event) => Some(event),
        Difference::Reversed(_) | Difference::Stray | Difference::StrayCharge | Difference::Lost => None,
    }
}

/// What a person should hear of, once it is in the log.
fn tell_of_trouble(before: Option<&Payment>, seen: &Intent) {
    let Some(payment) = before else { return };
    let Money::Taken { disputed, .. } = seen.money else { return };
    let was_disputed = payment.status.charge().is_some_and(|charge| charge.disputed);
    if disputed && !was_disputed {
        tracing::error!(order.id = %payment.order, stripe.id = seen.id, "a charge is disputed");
        metrics::counter!("payments_disputed_total").increment(1);
    }
    if payment.status.charge().is_none() && seen.amount != payment.amount {
        let (charged, price) = (seen.amount.0, payment.amount.0);
        tracing::error!(order.id = %payment.order, stripe.id = seen.id, charged, price, "another sum was charged");
    }
}

/// Looks whether the log has what Stripe has of an intent, and if not, brings them together.
pub(crate) async fn reconcile(app: &App, found: Found) -> Result<Looked, Error> {
    if let Some(order) = projections::order(&app.orders, found.order)? {
        let last = projections::payment_of(app.payments.view(), found.order)?;
        // Rows that are behind may hide a difference. The next sweep sees it.
        if domain::compare(last.as_ref(), &order, &found.intent).is_none() {
            return Ok(Looked::Alike);
        }
    }
    bring_together(app, Cause::Command, found).await
}

/// Appends what follows from what Stripe said, unless it stands there already; returns whether it did.
async fn record(
    app: &App,
    cause: Cause,
    order: OrderId,
    decide: impl Fn(Option<&Payment>) -> Option<PaymentEvent>,
) -> Result<bool, Error> {
    let subject = payment_subject(order);
    let decide = |last: &Option<Payment>| Ok::<_, Rejection>(decide(last.as_ref()));
    let decided = app.payments.transact(&subject, cause, decide).await?;
    if let Some(payment) = decided.state {
        telemetry::attribute("payment.id", payment.id.to_string());
    }
    let Some(appended) = decided.appended else { return Ok(false) };
    let outcome = appended.event_type.trim_start_matches("payment:").to_owned();
    metrics::counter!("payments_total", "outcome" => outcome).increment(1);
    Ok(true)
}
