//! USERS: an address has one account at a time, and an account is one person's for ever. Each time that they end all their
//! sessions is counted.

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
    /// Who has each address, and how often they have ended all their sessions.
    holders: HashMap<Uuid, (Uuid, u32)>,
    /// Everybody who ever signed up, and the sequence at which they were erased.
    pub(crate) people: HashMap<Uuid, Option<u64>>,
}

impl Fold for Users {
    fn take(&mut self, record: &mut Record, wrong: &mut Vec<Wrong>) {
        let Fact::User { user, epoch } = record.fact else { return };
        let holder = self.holders.get(&record.key).copied();
        if record.kind == Kind::UserSignedUp {
            if let Some((holder, _)) = holder {
                wrong.push((
                    Code::IllegalTransition,
                    format!("{user} signs up while {holder} has the address"),
                ));
            }
            if self.people.insert(user, None).is_some() {
                wrong.push((Code::IllegalTransition, format!("{user} signs up a second time")));
            }
            self.holders.insert(record.key, (user, 0));
        } else if record.kind == Kind::UserSignedOut {
            if holder != Some((user, epoch.wrapping_sub(1))) {
                wrong.push((
                    Code::IllegalTransition,
                    format!(
                        "{user} ends all sessions before epoch {epoch}, and had not begun the one before"
                    ),
                ));
            }
            self.holders.insert(record.key, (user, epoch));
        } else {
            if holder.is_none_or(|(holder, _)| holder != user) {
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
