//! What one stream says, message by message: whether it is whole, and whether each event could follow those before.

use std::{collections::HashMap, mem};

use contract::stream::Stream;
use uuid::Uuid;

use super::{
    finding::{Code, Finding, Findings},
    record::{self, Fact, Kind, Record, Wrong},
};
use crate::streams::Stored;

/// What follows from the events of one stream, and which of them could not follow.
pub(crate) trait Fold: Default + Send + 'static {
    /// Folds an event in, lawful or not: the log says so.
    fn take(&mut self, record: &mut Record, wrong: &mut Vec<Wrong>);
}

/// A stream, read so far.
pub(crate) struct Book<F> {
    pub(crate) stream: Stream,
    /// Up to which sequence what the other streams say counts against it.
    pub(crate) judged: u64,
    /// What the stream's own rules remember.
    pub(crate) fold: F,
    /// Every event by its id and its cause.
    pub(crate) events: Vec<Known>,
    pub(crate) findings: Findings,
    /// The sequence of the last message.
    pub(crate) last: u64,
    /// How many messages there were.
    pub(crate) messages: u64,
    /// The next version of each subject.
    versions: HashMap<Uuid, u64>,
    wrong: Vec<Wrong>,
}

/// What the rules across streams need of an event.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(crate) id: Uuid,
    pub(crate) cause: Option<Uuid>,
    /// The boundary within its stream.
    pub(crate) key: Uuid,
    /// The order that it is about; none for a ticket that is free.
    pub(crate) order: Option<Uuid>,
    /// The payment that it is about, or names.
    pub(crate) payment: Option<Uuid>,
    pub(crate) sequence: u64,
    /// Of a ticket that follows its orders: their version. Of others: their own.
    pub(crate) version: u64,
    pub(crate) kind: Kind,
    /// Why an order was cancelled.
    pub(crate) reason: Option<record::Reason>,
    /// Whether a ticket is sold.
    pub(crate) is_sold: bool,
}

impl<F: Fold> Book<F> {
    pub(crate) fn of(stream: Stream, judged: u64) -> Self {
        Self {
            stream,
            judged,
            fold: F::default(),
            events: Vec::new(),
            findings: Findings::default(),
            last: 0,
            messages: 0,
            versions: HashMap::new(),
            wrong: Vec::new(),
        }
    }

    /// Takes the next message.
    pub(crate) fn take(&mut self, stored: &Stored) {
        let mut wrong = mem::take(&mut self.wrong);
        let expected = self.last + 1;
        if stored.sequence > expected {
            let gone = stored.sequence - expected;
            wrong.push((Code::MessagesMissing, format!("{gone} messages from {expected} on are gone")));
        }
        (self.last, self.messages) = (stored.sequence, self.messages + 1);
        if let Some(mut record) = record::read(&self.stream, stored, &mut wrong) {
            self.count(&record, &mut wrong);
            wrong.extend(misnamed(&record));
            self.fold.take(&mut record, &mut wrong);
            self.events.push(Known::of(&record));
        }
        for (code, explanation) in wrong.drain(..) {
            self.findings.push(Finding {
                code,
                stream: self.stream.name,
                sequence: Some(stored.sequence),
                subject: stored.message.subject.to_string(),
                explanation,
            });
        }
        self.wrong = wrong;
    }

    /// Nothing more came, and the stream goes to `until`.
    pub(crate) fn end(&mut self, until: u64) {
        if self.last < until {
            let gone = until - self.last;
            self.findings.push(Finding {
                code: Code::MessagesMissing,
                stream: self.stream.name,
                sequence: Some(until),
                subject: self.stream.subjects.to_owned(),
                explanation: format!("the last {gone} messages are gone"),
            });
        }
    }

    /// Each subject's versions are 0, 1, 2, … After one that is wrong it goes on from there: the rest may be right.
    fn count(&mut self, record: &Record, wrong: &mut Vec<Wrong>) {
        let next = self.versions.entry(record.key).or_default();
        let found = record.version;
        if found > *next {
            wrong.push((Code::VersionGap, format!("version {found} where {next} comes next")));
        } else if found < *next {
            wrong.push((Code::VersionRepeated, format!("version {found} again, where {next} comes next")));
        }
        *next = found.max(*next).saturating_add(u64::from(found >= *next));
    }
}

/// An id is new, or follows from the cause: so a cause that is heard of twice makes one event.
fn misnamed(record: &Record) -> Option<Wrong> {
    let id = record.id;
    let (derived, right) = match record.cause {
        Some(cause) => {
            let wanted = Uuid::new_v5(&cause, record.kind.name().as_bytes());
            (id == wanted, format!("{wanted}, which its cause makes"))
        }
        None => (id.get_version_num() == 7, "a UUIDv7".to_owned()),
    };
    (!derived).then(|| (Code::IdNotDerived, format!("id {id} is not {right}")))
}

impl Known {
    fn of(record: &Record) -> Self {
        let (order, version, reason) = match &record.fact {
            Fact::User { .. } => (None, record.version, None),
            Fact::Ticket(ticket) => (ticket.order, ticket.order_version.unwrap_or_default(), None),
            Fact::Ordered { order, .. } => (Some(*order), record.version, None),
            Fact::OrderChanged { order, reason, .. } => (Some(*order), record.version, *reason),
            Fact::PaymentRequested { .. } | Fact::PaymentChanged { .. } | Fact::Expired => {
                (Some(record.key), record.version, None)
            }
        };
        let payment = match &record.fact {
            Fact::OrderChanged { payment, .. } => *payment,
            Fact::PaymentRequested { payment, .. } | Fact::PaymentChanged { payment, .. } => Some(*payment),
            Fact::User { .. } | Fact::Ticket(_) | Fact::Ordered { .. } | Fact::Expired => None,
        };
        Self {
            id: record.id,
            cause: record.cause,
            key: record.key,
            order,
            payment,
            sequence: record.sequence,
            version,
            kind: record.kind,
            reason,
            is_sold: matches!(&record.fact, Fact::Ticket(ticket) if ticket.sold),
        }
    }
}
