//! What the streams say of each other.
//!
//! A running system is audited as of a moment. What an event needs to have happened before it, its cause, is looked
//! for in streams that were read up to a later moment: so it is there. What has to follow from it, at some time, is
//! looked for only when the event is older than a grace.

use std::collections::HashMap;

use contract::stream::{EXPIRATIONS, ORDERS, PAYMENTS, Stream, TICKETS, USERS};
use uuid::Uuid;

use super::{
    book::{Book, Fold, Known},
    expirations::Expirations,
    finding::{Code, Finding, Findings, Note},
    orders::{self, Order, Orders, time},
    payments::{self, Payments, Try},
    record::{Kind, Reason},
    tickets::{Ticket, Tickets},
    users::Users,
};

/// All streams, read.
pub(crate) struct Books {
    pub(crate) users: Book<Users>,
    pub(crate) tickets: Book<Tickets>,
    pub(crate) orders: Book<Orders>,
    pub(crate) payments: Book<Payments>,
    pub(crate) expirations: Book<Expirations>,
}

/// As of when is judged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// When the ends of the streams were asked for, by this machine's clock, in milliseconds since 1970.
    pub(crate) as_of_ms: i64,
    /// How long what has to follow may take.
    pub(crate) grace_ms: i64,
}

impl Moment {
    /// Whether what happened then must have had its consequences by now.
    pub(crate) fn is_due(self, happened_ms: i64) -> bool {
        happened_ms.saturating_add(self.grace_ms) < self.as_of_ms
    }
}

/// Which users have a key, as of a moment after USERS was read.
pub(crate) type Keys = HashMap<Uuid, bool>;

/// What is found, and where it is put.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) findings: Findings,
    pub(crate) notes: Vec<Note>,
}

impl Found {
    pub(crate) fn add(
        &mut self,
        code: Code,
        stream: &Stream,
        sequence: u64,
        key: Uuid,
        explanation: impl Into<String>,
    ) {
        let subject = match stream.name == USERS.name {
            // Only the service that has its key can tell the subject of a user.
            true => stream.subjects.to_owned(),
            false => format!("{}{key}", stream.subjects.trim_end_matches('*')),
        };
        let (stream, explanation) = (stream.name, explanation.into());
        self.findings.push(Finding { code, stream, sequence: Some(sequence), subject, explanation });
    }
}

/// Holds the streams against each other.
pub(crate) fn conclude(books: &Books, moment: Moment, keys: Option<&Keys>) -> Found {
    let mut found = Found::default();
    causes(books, &mut found);
    for (id, order) in &books.orders.fold.orders {
        judge_order(books, moment, *id, order, &mut found);
    }
    for (order, tries) in &books.payments.fold.orders {
        for one in tries {
            judge_payment(books, moment, *order, one, &mut found);
        }
    }
    for (id, ticket) in &books.tickets.fold.tickets {
        judge_ticket(books, moment, *id, ticket, &mut found);
    }
    for (order, (sequence, told_ms)) in &books.expirations.fold.orders {
        judge_expiration(books, *order, *sequence, *told_ms, &mut found);
    }
    match keys {
        Some(keys) => judge_keys(&books.users, keys, &mut found),
        None => judge_no_keys(&books.users, &mut found),
    }
    found
}

/// Where a cause may be looked up: each event with its stream, by its id.
struct Index<'a>(Vec<(Uuid, &'a Stream, &'a Known)>);

impl<'a> Index<'a> {
    fn of(books: &'a Books) -> Self {
        fn all<F>(book: &Book<F>) -> impl Iterator<Item = (Uuid, &Stream, &Known)> {
            book.events.iter().map(|known| (known.id, &book.stream, known))
        }
        let mut events: Vec<_> = all(&books.users)
            .chain(all(&books.tickets))
            .chain(all(&books.orders))
            .chain(all(&books.payments))
            .chain(all(&books.expirations))
            .collect();
        // Stable, so that of two with one id the later one is the second.
        events.sort_by_key(|(id, ..)| *id);
        Self(events)
    }

    fn find(&self, id: Uuid) -> Option<(&'a Stream, &'a Known)> {
        let at = self.0.binary_search_by_key(&id, |(id, ..)| *id).ok()?;
        self.0.get(at).map(|(_, stream, known)| (*stream, *known))
    }
}

/// Every id is one event's, and every cause is there, and could lead to what it led to.
fn causes(books: &Books, found: &mut Found) {
    let index = Index::of(books);
    for pair in index.0.windows(2) {
        let [(_, _, first), (_, stream, second)] = pair else { continue };
        if first.id == second.id {
            let what = format!("id {} is also that of the {} at {}", second.id, first.kind, first.sequence);
            found.add(Code::IdRepeated, stream, second.sequence, second.key, what);
        }
    }
    judge_causes(&books.users, &index, found);
    judge_causes(&books.tickets, &index, found);
    judge_causes(&books.orders, &index, found);
    judge_causes(&books.payments, &index, found);
    judge_causes(&books.expirations, &index, found);
}

fn judge_causes<F: Fold>(book: &Book<F>, index: &Index<'_>, found: &mut Found) {
    for effect in book.events.iter().take_while(|effect| effect.sequence <= book.judged) {
        let (lawful, needed) = lawful_causes(effect.kind, effect.reason);
        let mut wrong = |code, what| found.add(code, &book.stream, effect.sequence, effect.key, what);
        let Some(id) = effect.cause else {
            if needed {
                wrong(Code::CauseMissing, format!("{} names no cause", effect.kind));
            }
            continue;
        };
        let Some((stream, cause)) = index.find(id) else {
            wrong(Code::CauseUnknown, format!("its cause {id} is in no stream"));
            continue;
        };
        let named = format!("the {} at {} of {}", cause.kind, cause.sequence, stream.name);
        if !lawful.contains(&cause.kind) {
            wrong(Code::CauseUnfit, format!("{named} does not lead to {}", effect.kind));
        } else if !is_about_the_same(cause, effect) {
            wrong(Code::CauseUnfit, format!("{named} is about something else, or says something else"));
        } else if stream.name == book.stream.name && cause.sequence >= effect.sequence {
            wrong(Code::CauseUnfit, format!("{named}, its cause, comes after it"));
        }
    }
}

/// Which events may lead to this one, and whether one of them must have.
fn lawful_causes(kind: Kind, reason: Option<Reason>) -> (&'static [Kind], bool) {
    match (kind, reason) {
        (Kind::OrderAwaitingPayment, _) => (&[Kind::PaymentAuthorized], true),
        (Kind::OrderCompleted, _) => (&[Kind::PaymentCreated], true),
        (Kind::OrderCancelled, Some(Reason::Expired)) => (&[Kind::ExpirationComplete], true),
        (Kind::OrderCancelled, Some(Reason::PaymentFailed)) => (&[Kind::PaymentVoided], true),
        (Kind::OrderCancelled, Some(Reason::Refunded)) => (&[Kind::PaymentRefunded], true),
        (Kind::ExpirationComplete, _) => (&[Kind::OrderCreated], true),
        (Kind::TicketUpdated, _) => {
            (&[Kind::OrderCreated, Kind::OrderCancelled, Kind::OrderCompleted], false)
        }
        // Somebody's word: a user's, a seller's, a buyer's.
        (Kind::UserSignedUp | Kind::UserSignedOut | Kind::UserErased | Kind::TicketCreated, _)
        | (Kind::OrderCreated | Kind::OrderCancelled | Kind::PaymentRequested, _) => (&[], false),
        // What a look at Stripe showed, whatever led to the look; or a webhook did, or the clock.
        _ => (
            &[
                Kind::PaymentRequested,
                Kind::PaymentActionRequired,
                Kind::PaymentAuthorized,
                Kind::PaymentCreated,
                Kind::PaymentRefundRequested,
                Kind::OrderAwaitingPayment,
                Kind::OrderCancelled,
            ],
            false,
        ),
    }
}

fn is_about_the_same(cause: &Known, effect: &Known) -> bool {
    if effect.kind != Kind::TicketUpdated {
        // What an order:completed names is looked for among the captured payments.
        let names_it = effect.kind != Kind::OrderAwaitingPayment || cause.payment == effect.payment;
        return cause.order == effect.order && names_it;
    }
    let holder = cause.order.filter(|_| cause.kind != Kind::OrderCancelled);
    let sold = cause.kind == Kind::OrderCompleted;
    cause.key == effect.key
        && cause.version == effect.version
        && (holder, sold) == (effect.order, effect.is_sold)
}

fn judge_order(books: &Books, moment: Moment, id: Uuid, order: &Order, found: &mut Found) {
    let stream = &books.orders.stream;
    let mut wrong = |code, sequence, what: String| found.add(code, stream, sequence, order.ticket, what);
    let (last, last_ms) = order.last;
    if order.created <= books.orders.judged {
        match books.tickets.fold.tickets.get(&order.ticket) {
            None => wrong(Code::OrderUnfit, order.created, format!("order {id}: no such ticket was listed")),
            Some(ticket) if !ticket.cost(order.price) => {
                let what = format!("order {id} is at {} cents, which its ticket never cost", order.price);
                wrong(Code::OrderUnfit, order.created, what);
            }
            Some(_) => {}
        }
    }
    let tries = books.payments.fold.orders.get(&id).map_or(&[][..], Vec::as_slice);
    match order.status {
        orders::Status::Created if moment.is_due(order.expires_ms) => {
            let what = format!("order {id} waits, and its window was over at {}", time(order.expires_ms));
            wrong(Code::OrderOverdue, last, what);
        }
        orders::Status::AwaitingPayment if moment.is_due(order.expires_ms.max(last_ms)) => {
            let what = format!("order {id} has awaited its payment since {}", time(last_ms));
            wrong(Code::OrderOverdue, last, what);
        }
        orders::Status::Complete if last <= books.orders.judged => {
            let captured = tries.iter().filter(|one| holds_money(one)).count();
            let refunded = tries.iter().find(|one| one.status == payments::Status::Refunded);
            if captured > 1 {
                wrong(Code::PaidTwice, last, format!("order {id} has {captured} captured payments"));
            }
            if let Some(one) = refunded.filter(|one| captured == 0 && moment.is_due(one.last.1)) {
                let what = format!("order {id} is complete, and its payment {} went back", one.payment);
                wrong(Code::RefundUnheeded, last, what);
            }
        }
        _ => {}
    }
    if let Some((sequence, payment)) = order.completed.filter(|(at, _)| *at <= books.orders.judged) {
        let paid = tries.iter().find(|one| one.payment == payment && one.captured.is_some());
        if paid.is_none() {
            let what = format!("order {id} is completed by payment {payment}, which was not captured");
            wrong(Code::CompletedUnpaid, sequence, what);
        }
    }
}

fn holds_money(one: &Try) -> bool {
    matches!(one.status, payments::Status::Captured | payments::Status::Refunding)
}

fn judge_payment(books: &Books, moment: Moment, id: Uuid, one: &Try, found: &mut Found) {
    let stream = &books.payments.stream;
    let mut wrong = |code, sequence, what: String| found.add(code, stream, sequence, id, what);
    let (payment, (last, last_ms)) = (one.payment, one.last);
    let Some(order) = books.orders.fold.orders.get(&id) else {
        if one.requested <= books.payments.judged {
            let what = format!("payment {payment} is for an order that was never created");
            wrong(Code::PaymentUnfit, one.requested, what);
        }
        return;
    };
    if one.amount != order.price {
        let what = format!("payment {payment} is of {} cents, its order of {}", one.amount, order.price);
        wrong(Code::PaymentUnfit, one.requested, what);
    }
    if one.buyer != order.buyer {
        let what = format!("{} pays payment {payment}, and {} ordered", one.buyer, order.buyer);
        wrong(Code::PaymentUnfit, one.requested, what);
    }
    if one.status == payments::Status::Captured
        && order.status != orders::Status::Complete
        && moment.is_due(last_ms)
    {
        let what = format!("payment {payment} was captured, and its order {id} is {:?}", order.status);
        wrong(Code::CapturedInVain, last, what);
    }
    let over_ms = match order.status {
        orders::Status::Created | orders::Status::AwaitingPayment => order.expires_ms,
        orders::Status::Complete | orders::Status::Cancelled => order.last.1,
    };
    if one.status.waits() && moment.is_due(over_ms.max(last_ms)) {
        let what = format!("payment {payment} has been {:?} since {}", one.status, time(last_ms));
        wrong(Code::PaymentUnsettled, last, what);
    }
}

fn judge_ticket(books: &Books, moment: Moment, id: Uuid, ticket: &Ticket, found: &mut Found) {
    let stream = &books.tickets.stream;
    let mut wrong = |what: String| found.add(Code::TicketDisagrees, stream, ticket.last, id, what);
    let shown = books.orders.fold.tickets.get(&id).and_then(|held| held.shown);
    let Some(shown) = shown else {
        if ticket.order_version.is_some() && ticket.last <= books.tickets.judged {
            wrong("it follows orders, and there are none".into());
        }
        return;
    };
    match ticket.order_version {
        Some(version) if version == shown.version => {
            if (ticket.order, ticket.sold) != (shown.order, shown.sold) {
                let holder = |order: Option<Uuid>, sold: bool| match (order, sold) {
                    (None, _) => "nobody's".to_owned(),
                    (Some(order), false) => format!("reserved by order {order}"),
                    (Some(order), true) => format!("sold to order {order}"),
                };
                wrong(format!(
                    "it is {}, and by version {version} of its orders {}",
                    holder(ticket.order, ticket.sold),
                    holder(shown.order, shown.sold)
                ));
            }
        }
        Some(version) if version > shown.version => {
            if ticket.last <= books.tickets.judged {
                wrong(format!("it shows version {version} of its orders, which end with {}", shown.version));
            }
        }
        behind => {
            if moment.is_due(shown.stored_ms) {
                let behind = behind.map_or("none".into(), |version| version.to_string());
                let since = time(shown.stored_ms);
                wrong(format!("it shows version {behind} of its orders, not {} of {since}", shown.version));
            }
        }
    }
}

fn judge_expiration(books: &Books, id: Uuid, sequence: u64, told_ms: i64, found: &mut Found) {
    let stream = &books.expirations.stream;
    let mut wrong = |what: String| found.add(Code::ExpirationUnfit, stream, sequence, id, what);
    match books.orders.fold.orders.get(&id) {
        Some(order) if told_ms < order.expires_ms => {
            wrong(format!("over at {}, and it ends at {}", time(told_ms), time(order.expires_ms)));
        }
        None if sequence <= books.expirations.judged => wrong("no such order was created".into()),
        _ => {}
    }
}

/// Erased is who cannot be read any more: the key goes first, then the event is appended.
fn judge_keys(users: &Book<Users>, keys: &Keys, found: &mut Found) {
    let mut keyless = 0;
    for (user, erased) in &users.fold.people {
        let has_key = keys.get(user).copied().unwrap_or_default();
        match erased {
            Some(sequence) if has_key && *sequence <= users.judged => {
                let what = format!("{user} is erased, and their key is still there");
                found.add(Code::KeyKept, &users.stream, *sequence, *user, what);
            }
            None if !has_key => keyless += 1,
            _ => {}
        }
    }
    if keyless > 0 {
        let text =
            format!("{keyless} accounts have no key: nobody can sign in, and their erasure did not end");
        found.notes.push(Note { stream: users.stream.name, text });
    }
}

/// The bucket is there before the first account is. Without it nobody can sign in, or be read again.
fn judge_no_keys(users: &Book<Users>, found: &mut Found) {
    let accounts = users.fold.people.values().filter(|erased| erased.is_none()).count();
    if accounts > 0 {
        found.findings.push(Finding {
            code: Code::KeysMissing,
            stream: users.stream.name,
            sequence: None,
            subject: format!("$KV.{}.*", svc_auth::user_keys::BUCKET),
            explanation: format!("there is no such bucket, and {accounts} accounts need their keys in it"),
        });
    }
}

impl Books {
    /// Nothing read yet, to be judged up to these ends: of USERS, TICKETS, ORDERS, PAYMENTS, EXPIRATIONS.
    pub(crate) fn until([users, tickets, orders, payments, expirations]: [u64; 5]) -> Self {
        Self {
            users: Book::of(USERS, users),
            tickets: Book::of(TICKETS, tickets),
            orders: Book::of(ORDERS, orders),
            payments: Book::of(PAYMENTS, payments),
            expirations: Book::of(EXPIRATIONS, expirations),
        }
    }
}
