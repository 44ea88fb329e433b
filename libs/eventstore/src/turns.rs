//! One append to a subject at a time, of those of this process.
//!
//! Two that are decided on the same state expect the same sequence, so only one of them can land. The second waits for
//! the first, and needs no server to hear that it has lost.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

/// The subjects that something is on its way to, and where it landed, once it has.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<String, watch::Sender<Option<u64>>>>);

/// The right to append to a subject, until it is dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    subject: &'a str,
}

impl Turns {
    /// The turn, if nobody has it.
    pub(crate) fn take<'a>(&'a self, subject: &'a str) -> Option<Turn<'a>> {
        match self.subjects().entry(subject.to_owned()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(free) => {
                free.insert(watch::Sender::new(None));
                Some(Turn { turns: self, subject })
            }
        }
    }

    /// Returns once nobody has the turn that somebody has now; the sequence of what they appended, if it landed.
    pub(crate) async fn over(&self, subject: &str) -> Option<u64> {
        let mut turn = self.subjects().get(subject)?.subscribe();
        // Fails at its end, when the sender goes.
        while turn.changed().await.is_ok() {}
        *turn.borrow()
    }

    fn subjects(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Option<u64>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    /// Tells those who wait where the append landed.
    pub(crate) fn landed(&self, sequence: u64) {
        if let Some(turn) = self.turns.subjects().get(self.subject) {
            turn.send_replace(Some(sequence));
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.turns.subjects().remove(self.subject);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn one_has_the_turn_and_the_next_hears_where_it_landed() {
        let turns = Turns::default();
        let turn = turns.take("a").unwrap();
        assert!(turns.take("a").is_none());
        assert!(turns.take("b").is_some(), "subjects are apart");
        let waiting = turns.over("a");
        turn.landed(7);
        let mut waiting = std::pin::pin!(waiting);
        assert_eq!(waiting.as_mut().now_or_never(), None, "not before the turn is over");
        drop(turn);
        assert_eq!(waiting.await, Some(7));
        assert!(turns.take("a").is_some());
    }

    #[tokio::test]
    async fn a_turn_that_came_to_nothing_says_so() {
        let turns = Turns::default();
        assert_eq!(turns.over("a").await, None, "nobody had it");
        let turn = turns.take("a").unwrap();
        let mut waiting = std::pin::pin!(turns.over("a"));
        assert_eq!(waiting.as_mut().now_or_never(), None);
        drop(turn);
        assert_eq!(waiting.await, None);
        assert!(turns.take("a").is_some());
    }
}
