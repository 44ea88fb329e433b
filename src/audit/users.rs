//! USERS: an address has one account at a time, and an account is one person's for ever.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    book::Fold,
    finding::Code,
    record::{Fact, Kind, Record, Wrong},
};

/// What USERS says.
#[derive(Default)]
pub(crate) struct Users {
    /// Who has each address.
    holders: HashMap<Uuid, Uuid>,
    /// Everybody who ever signed up, and the sequence at which they were erased.
    pub(crate) people: HashMap<Uuid, Option<u64>>,
}

impl Fold for Users {
    fn take(&mut self, record: &mut Record, wrong: &mut Vec<Wrong>) {
        let Fact::User { user } = record.fact else { return };
        let holder = self.holders.get(&record.key).copied();
        if record.kind == Kind::UserSignedUp {
            if let Some(holder) = holder {
                wrong.push((
                    Code::IllegalTransition,
                    format!("{user} signs up while {holder} has the address"),
                ));
            }
            if self.people.insert(user, None).is_some() {
                wrong.push((Code::IllegalTransition, format!("{user} signs up a second time")));
            }
            self.holders.insert(record.key, user);
        } else {
            if holder != Some(user) {
                wrong.push((
                    Code::IllegalTransition,
                    format!("{user}, who is erased, did not have the address"),
                ));
            }
            self.people.insert(user, Some(record.sequence));
            self.holders.remove(&record.key);
        }
    }
}
