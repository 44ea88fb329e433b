//! What the sandbox remembers, and the file that keeps it.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::cards::{self, Card};
use super::{Error, LedgerEntry};

/// Everything there is, by id.
#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) intents: Table<Intent>,
    pub(super) methods: Table<PaymentMethod>,
    pub(super) refunds: Table<Refund>,
    pub(super) replays: Table<Replay>,
    /// What the request at hand has changed.
    unsaved: Vec<Record>,
}

/// The new state of one row. A journal line is an array of these: all that one request changed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Record {
    Intent(Intent),
    PaymentMethod(PaymentMethod),
    Refund(Refund),
    Replay(Replay),
}

impl Books {
    /// Adds a row, or replaces the one with its id.
    pub(super) fn put(&mut self, record: impl Into<Record>) {
        let record = record.into();
        match &record {
            Record::Intent(intent) => self.intents.put(intent.clone()),
            Record::PaymentMethod(method) => self.methods.put(method.clone()),
            Record::Refund(refund) => self.refunds.put(refund.clone()),
            Record::Replay(replay) => self.replays.put(replay.clone()),
        }
        self.unsaved.push(record);
    }

    pub(super) fn take_unsaved(&mut self) -> Vec<Record> {
        mem::take(&mut self.unsaved)
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
}
row!(Intent, id);
row!(PaymentMethod, id);
row!(Refund, id);
row!(Replay, key);

/// Where a PaymentIntent stands. The states that need a customer's bank are absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// New, or declined.
    RequiresPaymentMethod,
    /// It has a payment method that was not tried yet.
    RequiresConfirmation,
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

/// A PaymentIntent. Amounts are in the currency's smallest unit, times in seconds of the Unix epoch.
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
}

impl Intent {
    pub(super) fn body(&self) -> Value {
        let capturable = if self.status == Status::RequiresCapture { self.amount } else { 0 };
        json!({
            "id": self.id,
            "object": "payment_intent",
            "amount": self.amount,
            "amount_capturable": capturable,
            "amount_received": self.amount_captured,
            "automatic_payment_methods": self
                .automatic_payment_methods
                .map(|allow| json!({ "enabled": true, "allow_redirects": allow })),
            "canceled_at": self.canceled_at,
            "cancellation_reason": self.cancellation_reason,
            "capture_method": self.capture_method,
            "client_secret": self.client_secret,
            "confirmation_method": "automatic",
            "created": self.created,
            "currency": self.currency,
            "customer": null,
            "description": self.description,
            "last_payment_error": self.last_payment_error,
            "latest_charge": self.latest_charge,
            "livemode": false,
            "metadata": self.metadata,
            "next_action": null,
            "payment_method": self.payment_method,
            "payment_method_options": {},
            "payment_method_types": self.payment_method_types,
            "processing": null,
            "status": self.status,
        })
    }

    pub(super) fn ledger_entry(&self) -> LedgerEntry {
        LedgerEntry {
            id: self.id.clone(),
            amount: self.amount,
            currency: self.currency.clone(),
            status: self.status,
            amount_captured: self.amount_captured,
            amount_refunded: self.amount_refunded,
            metadata: self.metadata.clone(),
            authorizations: self.authorizations,
            declines: self.declines,
            captures: self.captures,
            cancellations: self.cancellations,
        }
    }
}

/// A PaymentMethod: always a test card.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct PaymentMethod {
    pub(super) id: String,
    created: i64,
    number: String,
    metadata: BTreeMap<String, String>,
}

impl PaymentMethod {
    pub(super) fn new(card: &Card, metadata: BTreeMap<String, String>) -> Self {
        Self { id: new_id("pm"), created: now(), number: card.number.to_owned(), metadata }
    }

    pub(super) fn card(&self) -> &'static Card {
        cards::of_number(&self.number).expect("made of a card of the list")
    }

    pub(super) fn body(&self) -> Value {
        json!({
            "id": self.id,
            "object": "payment_method",
            "billing_details": { "address": null, "email": null, "name": null, "phone": null },
            "card": self.card().body(),
            "created": self.created,
            "customer": null,
            "livemode": false,
            "metadata": self.metadata,
            "type": "card",
        })
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
}

impl Refund {
    pub(super) fn body(&self) -> Value {
        json!({
            "id": self.id,
            "object": "refund",
            "amount": self.amount,
            "charge": self.charge,
            "created": self.created,
            "currency": self.currency,
            "metadata": self.metadata,
            "payment_intent": self.payment_intent,
            "reason": self.reason,
            "receipt_number": null,
            "status": "succeeded",
        })
    }
}

/// The answer that an idempotency key has for ever (Stripe forgets it after a day or more).
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

/// The file: one JSON line for each request that changed something, synced before the answer.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes of whole lines.
    len: u64,
}

impl Journal {
    /// Opens or makes the file, and reads it into books. `None`: another sandbox has it.
    pub(super) fn open(path: &Path) -> Result<Option<(Self, Books)>, Error> {
        let failed = |source| Error::File { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let mut text = String::new();
        file.read_to_string(&mut text).map_err(failed)?;

        let mut books = Books::default();
        // A last line without its end was never answered for: it was being written when all stopped.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for (index, line) in text[..whole].lines().enumerate() {
            let records: Vec<Record> = serde_json::from_str(line).map_err(|source| Error::Unreadable {
                path: path.to_owned(),
                line: index + 1,
                source,
            })?;
            records.into_iter().for_each(|record| books.put(record));
        }
        books.take_unsaved();
        let mut journal = Self { path: path.to_owned(), file, len: whole as u64 };
        journal.forget_torn_line().map_err(failed)?;
        Ok(Some((journal, books)))
    }

    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), Error> {
        let mut line = serde_json::to_vec(records).expect("records are plain data");
        line.push(b'\n');
        match self.file.write_all(&line).and_then(|()| self.file.sync_data()) {
            Ok(()) => {
                self.len += line.len() as u64;
                Ok(())
            }
            Err(source) => {
                // A full disk: what was written of the line must not stand before the next one.
                let _ = self.forget_torn_line();
                Err(Error::File { path: self.path.clone(), source })
            }
        }
    }

    fn forget_torn_line(&mut self) -> io::Result<()> {
        self.file.set_len(self.len)?;
        self.file.seek(SeekFrom::Start(self.len)).map(drop)
    }
}
