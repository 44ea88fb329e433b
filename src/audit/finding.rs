//! What an audit finds, and by which name.

use std::{cmp::Ordering, collections::BTreeMap};

use serde::Serialize;

/// How many findings of one code are told in detail: a log that is broken all over must not fill the memory.
pub(crate) const KEPT: u64 = 1000;

/// What is wrong. The name in the report is the variant's, in kebab case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Code {
    /// A stream is gone, and others have messages.
    StreamMissing,
    /// Messages are gone from a stream.
    MessagesMissing,
    /// A message is no event of its stream.
    Unreadable,
    /// A header names another service, subject or message than where the event stands.
    HeaderUnfit,
    /// The payload is about something else than the subject.
    SubjectUnfit,
    /// A version is left out.
    VersionGap,
    /// A version is there twice.
    VersionRepeated,
    /// Two events have one id.
    IdRepeated,
    /// An id is neither a UUIDv7 nor what follows from the cause.
    IdNotDerived,
    /// An event that only another one can cause names none.
    CauseMissing,
    /// The cause is in no stream.
    CauseUnknown,
    /// The cause cannot have led to this, or is about something else.
    CauseUnfit,
    /// An event that could not follow what was before.
    IllegalTransition,
    /// Two orders hold or have bought one ticket.
    DoubleSale,
    /// An order's window is over and the order is not.
    OrderOverdue,
    /// An order is for a ticket that was never listed, or not for that price.
    OrderUnfit,
    /// An order's window is longer than any.
    WindowUnfit,
    /// A completed order without a captured payment.
    CompletedUnpaid,
    /// An order was paid for more than once.
    PaidTwice,
    /// A payment is not of its order's amount or buyer, or for no order.
    PaymentUnfit,
    /// Money was taken, and the order is neither complete nor was the money given back.
    CapturedInVain,
    /// The money of a completed order went back, and the order stands.
    RefundUnheeded,
    /// The order is over, and its payment waits.
    PaymentUnsettled,
    /// A ticket shows another order, or an older state of it, than ORDERS.
    TicketDisagrees,
    /// A window was declared over before its end, or for no order.
    ExpirationUnfit,
    /// Nobody has a key, and there are accounts.
    KeysMissing,
    /// The key of an erased user is still there.
    KeyKept,
    /// Stripe did not take what the log says it took, or took it more than once, or another sum.
    LedgerDiffers,
    /// Stripe took money that the log does not know of.
    LedgerUnrecorded,
    /// Stripe gave back another sum than the log says.
    LedgerRefundDiffers,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What.
    pub(crate) code: Code,
    /// Where: the stream, or `STRIPE` for its ledger.
    pub(crate) stream: &'static str,
    /// The sequence of the event that shows it, where one does.
    pub(crate) sequence: Option<u64>,
    /// The subject, or Stripe's id; of a whole stream or bucket its wildcard.
    pub(crate) subject: String,
    /// In words.
    pub(crate) explanation: String,
}

/// What was found: [`KEPT`] of each code in detail, and how many of it there were.
#[derive(Default)]
pub(crate) struct Findings {
    kept: Vec<Finding>,
    counts: BTreeMap<Code, u64>,
}

impl Findings {
    pub(crate) fn push(&mut self, finding: Finding) {
        let count = self.counts.entry(finding.code).or_default();
        if *count < KEPT {
            self.kept.push(finding);
        }
        *count += 1;
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.kept.extend(other.kept);
        for (code, count) in other.counts {
            *self.counts.entry(code).or_default() += count;
        }
    }

    /// The first of each code in the order that `compare` says, and how many of each code there were.
    pub(crate) fn sorted(
        self,
        compare: impl FnMut(&Finding, &Finding) -> Ordering,
    ) -> (Vec<Finding>, BTreeMap<Code, u64>) {
        let Self { mut kept, counts } = self;
        kept.sort_by(compare);
        let mut told: BTreeMap<Code, u64> = BTreeMap::new();
        kept.retain(|finding| {
            let told = told.entry(finding.code).or_default();
            *told += 1;
            *told <= KEPT
        });
        (kept, counts)
    }
}

/// Something that is not wrong, and that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Note {
    /// The stream.
    pub(crate) stream: &'static str,
    /// In words.
    pub(crate) text: String,
}
