//! What was answered, and what was promised by it: all that buyers and sellers could hold against us.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Mutex, MutexGuard, PoisonError},
};

use contract::{
    OrderId, UserId,
    http::{Order, Payment, Ticket, User},
};

/// What an answer of 2xx promised: this is so, whatever happens.
#[derive(Clone, Debug)]
pub(crate) enum Promise {
    SignedUp(User),
    Erased(UserId),
    Listed(Ticket),
    Edited(Ticket),
    Ordered(Order),
    Cancelled(OrderId),
    /// 201: it was paid.
    Paid(Payment),
    /// 202: it will be paid, or not.
    Requested(Payment),
    /// The money goes back, or went.
    Refunded(Payment),
}

impl Promise {
    /// As it is counted.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::SignedUp(_) => "signed up",
            Self::Erased(_) => "erased",
            Self::Listed(_) => "listed",
            Self::Edited(_) => "edited",
            Self::Ordered(_) => "ordered",
            Self::Cancelled(_) => "cancelled",
            Self::Paid(_) => "paid",
            Self::Requested(_) => "requested",
            Self::Refunded(_) => "refunded",
        }
    }
}

/// The notes.
#[derive(Clone, Default)]
pub(crate) struct Notes {
    pub(crate) promises: Vec<Promise>,
    /// Orders whose sellers wanted to give the money back.
    pub(crate) given_back: HashSet<OrderId>,
    /// How often each route was answered how; 0 stands for no answer.
    pub(crate) answers: BTreeMap<(&'static str, u16), u64>,
    /// Answers that are wrong whatever has happened.
    pub(crate) wrong: Vec<String>,
}

/// Notes that everybody writes.
#[derive(Default)]
pub(crate) struct Notebook(Mutex<Notes>);

impl Notebook {
    pub(crate) fn promised(&self, promise: Promise) {
        self.write().promises.push(promise);
    }

    pub(crate) fn to_give_back(&self, order: OrderId) {
        self.write().given_back.insert(order);
    }

    pub(crate) fn answered(&self, route: &'static str, status: u16) {
        *self.write().answers.entry((route, status)).or_default() += 1;
    }

    pub(crate) fn wrong(&self, what: String) {
        self.write().wrong.push(what);
    }

    /// How many promises there are so far.
    pub(crate) fn count(&self) -> usize {
        self.write().promises.len()
    }

    /// All of them.
    pub(crate) fn read(&self) -> Notes {
        self.write().clone()
    }

    fn write(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
