//! What the sandbox remembers: rows in tables. Amounts are in the currency's smallest unit, times in seconds of the
//! Unix epoch.

use std::collections::{BTreeMap, HashMap};
use std::mem;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::LedgerEntry;
use super::cards::{self, Card};
use super::events::Happening;

/// Everything there is, by id.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) intents: Table<Intent>,
    pub(super) methods: Table<PaymentMethod>,
    pub(super) charges: Table<Charge>,
    pub(super) refunds: Table<Refund>,
    pub(super) disputes: Table<Dispute>,
    pub(super) replays: Table<Replay>,
    /// Where the sandbox is reached: what a customer has to do next is a page of it.
    pub(super) base: String,
    /// What the request at hand has changed.
    unsaved: Vec<Record>,
    /// What it has made happen.
    happened: Vec<Happening>,
}

/// The new state of one row. A journal line is an array of these: all that one request changed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    Intent(Intent),
    PaymentMethod(PaymentMethod),
    Charge(Charge),
    Refund(Refund),
    Dispute(Dispute),
    Replay(Replay),
    /// All replays are gone.
    KeysForgotten {},
}

impl Books {
    /// Adds a row, or replaces the one with its id.
    pub(super) fn put(&mut self, record: impl Into<Record>) {
        let record = record.into();
        match &record {
            Record::Intent(intent) => self.intents.put(intent.clone()),
            Record::PaymentMethod(method) => self.methods.put(method.clone()),
            Record::Charge(charge) => self.charges.put(charge.clone()),
            Record::Refund(refund) => self.refunds.put(refund.clone()),
            Record::Dispute(dispute) => self.disputes.put(dispute.clone()),
            Record::Replay(replay) => self.replays.put(replay.clone()),
            Record::KeysForgotten {} => self.replays = Table::default(),
        }
        self.unsaved.push(record);
    }

    pub(super) fn take_unsaved(&mut self) -> Vec<Record> {
        mem::take(&mut self.unsaved)
    }

    /// An event of this type is due, about the object as it is now.
    pub(super) fn happened(&mut self, kind: &'static str, object: Value) {
        self.happened.push(Happening { kind, object });
    }

    pub(super) fn take_happened(&mut self) -> Vec<Happening> {
        mem::take(&mut self.happened)
    }

    pub(super) fn charge_of(&self, intent: &Intent) -> Option<&Charge> {
        self.charges.get(intent.latest_charge.as_deref()?)
    }

    /// Oldest first.
    pub(super) fn ledger(&self) -> Vec<LedgerEntry> {
        let entry = |intent: &Intent| LedgerEntry {
            id: intent.id.clone(),
            amount: intent.amount,
            currency: intent.currency.clone(),
            status: intent.status,
            amount_captured: intent.amount_captured,
            amount_refunded: intent.amount_refunded,
            metadata: intent.metadata.clone(),
            authorizations: intent.authorizations,
            declines: intent.declines,
            captures: intent.captures,
            cancellations: intent.cancellations,
            refunds: intent.refunds,
            disputed: self.charge_of(intent).is_some_and(|charge| charge.disputed),
        };
        self.intents.iter().map(entry).collect()
    }

    /// Makes up for what older files do not have: charges were ids on intents once, and refunds not counted.
    pub(super) fn complete(&mut self) {
        let intents: Vec<Intent> = self.intents.iter().cloned().collect();
        for mut intent in intents {
            let Some(id) = &intent.latest_charge else { continue };
            if self.charges.get(id).is_some() {
                continue;
            }
            let refunds = self.refunds.iter().filter(|refund| refund.payment_intent == intent.id).count();
            intent.refunds = u32::try_from(refunds).unwrap_or(u32::MAX);
            let charge = Charge::of_older_file(id.clone(), &intent);
            self.put(charge);
            self.put(intent);
        }
    }
}

/// Rows in the order in which they came.
#[derive(Debug)]
pub(super) struct Table<T> {
    rows: Vec<T>,
    index: HashMap<String, usize>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), index: HashMap::new() }
    }
}

pub(super) trait Row {
    fn id(&self) -> &str;
}

/// A row that is listed.
pub(super) trait Dated: Row {
    fn created(&self) -> i64;
}

impl<T: Row> Table<T> {
    fn put(&mut self, row: T) {
        match self.index.get(row.id()) {
            Some(&at) => self.rows[at] = row,
            None => {
                self.index.insert(row.id().to_owned(), self.rows.len());
                self.rows.push(row);
            }
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&T> {
        self.index.get(id).map(|&at| &self.rows[at])
    }

    /// Oldest first.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        self.rows.iter()
    }
}

macro_rules! row {
    ($type:ident, $id:ident) => {
        impl Row for $type {
            fn id(&self) -> &str {
                &self.$id
            }
        }
        impl From<$type> for Record {
            fn from(row: $type) -> Self {
                Self::$type(row)
            }
        }
    };
    ($type:ident, $id:ident, $created:ident) => {
        row!($type, $id);
        impl Dated for $type {
            fn created(&self) -> i64 {
                self.$created
            }
        }
    };
}
row!(Intent, id, created);
row!(PaymentMethod, id);
row!(Charge, id, created);
row!(Refund, id, created);
row!(Dispute, id, created);
row!(Replay, key);

/// Where a PaymentIntent stands. `processing` is absent: cards answer at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// New, or declined.
    RequiresPaymentMethod,
    /// It has a payment method that was not tried yet.
    RequiresConfirmation,
    /// The customer's bank wants to hear from the customer: 3-D Secure.
    RequiresAction,
    /// Authorised: the money is held, not taken.
    RequiresCapture,
    /// The money is taken.
    Succeeded,
    /// Given up; a hold is released.
    Canceled,
}

impl Status {
    /// As Stripe spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequiresPaymentMethod => "requires_payment_method",
            Self::RequiresConfirmation => "requires_confirmation",
            Self::RequiresAction => "requires_action",
            Self::RequiresCapture => "requires_capture",
            Self::Succeeded => "succeeded",
            Self::Canceled => "canceled",
        }
    }
}

/// When the money is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum CaptureMethod {
    Automatic,
    AutomaticAsync,
    Manual,
}

/// Whether an intent that takes whatever the account takes may send the customer elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum AllowRedirects {
    Always,
    Never,
}

/// A PaymentIntent.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Intent {
    pub(super) id: String,
    pub(super) client_secret: String,
    pub(super) created: i64,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) capture_method: CaptureMethod,
    pub(super) payment_method_types: Vec<String>,
    /// `None`: only the listed types are accepted.
    pub(super) automatic_payment_methods: Option<AllowRedirects>,
    pub(super) description: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) status: Status,
    pub(super) payment_method: Option<String>,
    /// What the customer has to do while it is `requires_action`.
    #[serde(default)]
    pub(super) action: Option<Action>,
    pub(super) latest_charge: Option<String>,
    pub(super) last_payment_error: Option<Value>,
    pub(super) canceled_at: Option<i64>,
    pub(super) cancellation_reason: Option<String>,
    pub(super) amount_captured: i64,
    pub(super) amount_refunded: i64,
    /// How often each happened: what a test compares with its own books.
    pub(super) authorizations: u32,
    pub(super) declines: u32,
    pub(super) captures: u32,
    pub(super) cancellations: u32,
    #[serde(default)]
    pub(super) refunds: u32,
}

/// An authentication that the customer's bank waits for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Action {
    /// `src_…`
    pub(super) source: String,
    /// Where the customer goes afterwards, if the shop redirects.
    pub(super) return_url: Option<String>,
}

/// A PaymentMethod: always a test card.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PaymentMethod {
    pub(super) id: String,
    pub(super) created: i64,
    number: String,
    pub(super) metadata: BTreeMap<String, String>,
}

impl PaymentMethod {
    pub(super) fn new(card: &Card, metadata: BTreeMap<String, String>) -> Self {
        Self { id: new_id("pm"), created: now(), number: card.number.to_owned(), metadata }
    }

    pub(super) fn card(&self) -> &'static Card {
        cards::of_number(&self.number).expect("made of a card of the list")
    }
}

/// One attempt to charge a card.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Charge {
    pub(super) id: String,
    pub(super) created: i64,
    pub(super) payment_intent: String,
    pub(super) payment_method: Option<String>,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) description: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    /// The card error of a failed one.
    pub(super) failure: Option<Value>,
    /// The customer has been through 3-D Secure for it.
    pub(super) authenticated: bool,
    pub(super) captured: bool,
    pub(super) amount_captured: i64,
    /// Given back, or let go by a cancellation.
    pub(super) amount_refunded: i64,
    pub(super) disputed: bool,
}

impl Charge {
    pub(super) fn new(intent: &Intent) -> Self {
        Self {
            id: new_id("ch"),
            created: now(),
            payment_intent: intent.id.clone(),
            payment_method: intent.payment_method.clone(),
            amount: intent.amount,
            currency: intent.currency.clone(),
            description: intent.description.clone(),
            metadata: intent.metadata.clone(),
            failure: None,
            authenticated: false,
            captured: false,
            amount_captured: 0,
            amount_refunded: 0,
            disputed: false,
        }
    }

    fn of_older_file(id: String, intent: &Intent) -> Self {
        let let_go = intent.status == Status::Canceled && intent.last_payment_error.is_none();
        Self {
            id,
            created: intent.created,
            failure: intent.last_payment_error.clone(),
            captured: intent.captures > 0,
            amount_captured: intent.amount_captured,
            amount_refunded: if let_go { intent.amount } else { intent.amount_refunded },
            ..Self::new(intent)
        }
    }

    /// What can still be given back.
    pub(super) fn left(&self) -> i64 {
        if self.captured { self.amount_captured - self.amount_refunded } else { 0 }
    }

    /// Whether nothing is left of it.
    pub(super) fn is_refunded(&self) -> bool {
        let whole = if self.captured { self.amount_captured } else { self.amount };
        self.amount_refunded > 0 && self.amount_refunded >= whole
    }
}

/// A Refund.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Refund {
    pub(super) id: String,
    pub(super) created: i64,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) payment_intent: String,
    pub(super) charge: String,
    pub(super) reason: Option<String>,
    pub(super) metadata: BTreeMap<String, String>,
    /// Why the bank sent it back.
    #[serde(default)]
    pub(super) failure_reason: Option<String>,
}

/// A Dispute: a cardholder who says it was not them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Dispute {
    pub(super) id: String,
    pub(super) created: i64,
    pub(super) amount: i64,
    pub(super) currency: String,
    pub(super) payment_intent: String,
    pub(super) charge: String,
}

/// The answer that an idempotency key has until the keys are forgotten.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Replay {
    pub(super) key: String,
    /// Path and parameters it was first used with.
    pub(super) request: String,
    pub(super) status: u16,
    pub(super) body: Value,
}

/// An id in Stripe's way, `pi_…`. Random, so that sandboxes with memories of their own do not collide.
pub(super) fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", Uuid::new_v4().simple())
}

/// Seconds of the Unix epoch.
pub(super) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}
