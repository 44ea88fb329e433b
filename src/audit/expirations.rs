//! EXPIRATIONS: an order's window ends once.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    book::Fold,
    finding::Code,
    record::{Fact, Record, Wrong},
};

/// What EXPIRATIONS says: by order, the sequence of the event and the time that its writer had.
#[derive(Default)]
pub(crate) struct Expirations {
    pub(crate) orders: HashMap<Uuid, (u64, i64)>,
}

impl Fold for Expirations {
    fn take(&mut self, record: &mut Record, wrong: &mut Vec<Wrong>) {
        let Fact::Expired = record.fact else { return };
        if self.orders.insert(record.key, (record.sequence, record.told_ms)).is_some() {
            wrong.push((Code::IllegalTransition, "its window was over before".into()));
        }
    }
}
