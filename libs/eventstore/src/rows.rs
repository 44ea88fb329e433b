//! Typed rows in a projection's tree.

use std::{fmt, marker::PhantomData, ops::Bound};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use crate::writes::Writes;

/// A named set of rows with values of one type. Rows are ordered by the bytes of their keys.
pub struct Table<V> {
    name: &'static str,
    value: PhantomData<fn() -> V>,
}

impl<V> Table<V> {
    /// The table of that name. Names are unique within a projection and carry no byte 0.
    pub const fn new(name: &'static str) -> Self {
        Self { name, value: PhantomData }
    }

    fn key(&self, key: &[u8]) -> Vec<u8> {
        let mut full = self.prefix();
        full.extend_from_slice(key);
        full
    }

    fn prefix(&self) -> Vec<u8> {
        let mut prefix = Vec::with_capacity(self.name.len() + 32);
        prefix.push(b't');
        prefix.extend_from_slice(self.name.as_bytes());
        prefix.push(0);
        prefix
    }
}

/// What is kept for each subject: the state folded from its events, and where it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head<S> {
    /// Folded from all events of the subject so far.
    pub state: S,
    /// The last event's version; `None` before the first.
    pub version: Option<u64>,
    /// The sequence of the subject's last message: what the next append expects. 0 when there is none.
    pub sequence: u64,
}

impl<S> Head<S> {
    /// The version of the event to come.
    pub fn next_version(&self) -> u64 {
        self.version.map_or(0, |version| version + 1)
    }
}

/// How far a projection has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Checkpoint {
    /// The last applied sequence.
    pub(crate) sequence: u64,
    /// Which stream it is about: its creation time in nanoseconds.
    pub(crate) stream: i128,
    /// Which shape the rows have.
    pub(crate) projection_version: u32,
    /// The id of what stands at that sequence, if it has one: a log that has lost its end may have grown past it since.
    #[serde(default)]
    pub(crate) event: Option<Uuid>,
}

const CHECKPOINT: &[u8] = b"c";

fn head_key(subject: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(subject.len() + 1);
    key.push(b's');
    key.extend_from_slice(subject.as_bytes());
    key
}

/// The rows cannot be read: the disk, or damage, or they are being replayed from the log.
#[derive(Clone, Debug, thiserror::Error)]
#[error("a projection's rows cannot be read: {0}")]
pub struct ReadError(String);

impl ReadError {
    pub(crate) fn new(reason: impl fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

impl From<sled::Error> for ReadError {
    fn from(error: sled::Error) -> Self {
        Self::new(error)
    }
}

impl From<serde_json::Error> for ReadError {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error)
    }
}

/// Which end of a table a scan starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Smallest key first.
    Ascending,
    /// Largest key first.
    Descending,
}

/// The rows of a projection, to be read.
#[derive(Clone, Debug)]
pub(crate) struct Tree(pub(crate) sled::Tree);

impl Tree {
    /// Writes what a hard stop has cut off amid a commit.
    ///
    /// # Errors
    /// Also when what was committed cannot be told to be whole.
    pub(crate) fn recover(&self) -> Result<(), ReadError> {
        match Writes::last(&self.0)?.transpose().map_err(ReadError::new)? {
            // Its checkpoint is written last.
            Some(writes) if self.lacks(&writes)? => Ok(writes.write(&self.0)?),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether these go beyond where the rows are. A version of us that commits otherwise may have been at work since.
    fn lacks(&self, writes: &Writes) -> Result<bool, ReadError> {
        let theirs = writes.get(CHECKPOINT).flatten().and_then(|bytes| serde_json::from_slice(bytes).ok());
        let (theirs, ours): (Checkpoint, _) = (theirs.unwrap_or_default(), self.checkpoint()?);
        Ok(theirs.stream == ours.stream
            && theirs.projection_version == ours.projection_version
            && theirs.sequence > ours.sequence)
    }

    pub(crate) fn head<S: Default + DeserializeOwned>(&self, subject: &str) -> Result<Head<S>, ReadError> {
        match self.0.get(head_key(subject))? {
            Some(bytes) => Ok(serde_json::from_slice(&bytes)?),
            None => Ok(Head { state: S::default(), version: None, sequence: 0 }),
        }
    }

    pub(crate) fn get<V: DeserializeOwned>(
        &self,
        table: &Table<V>,
        key: &[u8],
    ) -> Result<Option<V>, ReadError> {
        Ok(self.0.get(table.key(key))?.map(|bytes| serde_json::from_slice(&bytes)).transpose()?)
    }

    pub(crate) fn scan<V: DeserializeOwned>(
        &self,
        table: &Table<V>,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, V)>, ReadError> {
        let start = table.key(prefix);
        let skip = table.prefix().len();
        let end = successor(&start).map_or(Bound::Unbounded, Bound::Excluded);
        let beyond = after.map(|key| Bound::Excluded(table.key(key)));
        let range = match order {
            Order::Ascending => self.0.range((beyond.unwrap_or(Bound::Included(start)), end)),
            Order::Descending => self.0.range((Bound::Included(start), beyond.unwrap_or(end))),
        };
        let read = |row: sled::Result<(sled::IVec, sled::IVec)>| {
            let (key, value) = row?;
            Ok((key[skip..].to_vec(), serde_json::from_slice(&value)?))
        };
        match order {
            Order::Ascending => range.take(limit).map(read).collect(),
            Order::Descending => range.rev().take(limit).map(read).collect(),
        }
    }

    /// The checkpoint; the beginning when there is none or it cannot be read.
    pub(crate) fn checkpoint(&self) -> Result<Checkpoint, ReadError> {
        let stored = self.0.get(CHECKPOINT)?;
        Ok(stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// Throws all rows away and starts over for `stream`. The checkpoint goes first: interrupted anywhere, this is
    /// found at the beginning of another stream and wiped again.
    pub(crate) fn wipe(&self, checkpoint: Checkpoint) -> Result<(), ReadError> {
        self.0.remove(CHECKPOINT)?;
        self.0.clear()?;
        self.0.insert(CHECKPOINT, serde_json::to_vec(&checkpoint)?)?;
        Ok(())
    }
}

/// The smallest key greater than every key that starts with `prefix`.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != u8::MAX)?;
    let mut next = prefix[..=last].to_vec();
    next[last] += 1;
    Some(next)
}

/// The rows of a projection while events are folded into them: reads see what was written before.
///
/// All that is written for a run of events becomes durable at once and together with the checkpoint. Readers who do not
/// wait for an event may see some rows of it and others not yet: they come in the order in which they are first written, so
/// what a row points to is written before it. (One that is written twice comes at its first place, as it is in the end.)
#[derive(Debug)]
pub struct Rows<'a> {
    tree: &'a Tree,
    pending: Writes,
    failure: Option<ReadError>,
}

impl<'a> Rows<'a> {
    pub(crate) fn new(tree: &'a Tree) -> Self {
        Self { tree, pending: Writes::default(), failure: None }
    }

    /// The row at `key`.
    pub fn get<V: DeserializeOwned>(&mut self, table: &Table<V>, key: &[u8]) -> Option<V> {
        self.read(&table.key(key))
    }

    /// Writes the row at `key`.
    pub fn put<V: Serialize>(&mut self, table: &Table<V>, key: &[u8], value: &V) {
        self.write(table.key(key), value);
    }

    /// Removes the row at `key`, if there is one.
    pub fn delete<V>(&mut self, table: &Table<V>, key: &[u8]) {
        self.pending.set(table.key(key), None);
    }

    pub(crate) fn head<S: Default + DeserializeOwned>(&mut self, subject: &str) -> Head<S> {
        self.read(&head_key(subject)).unwrap_or_else(|| Head {
            state: S::default(),
            version: None,
            sequence: 0,
        })
    }

    pub(crate) fn put_head<S: Serialize>(&mut self, subject: &str, head: &Head<S>) {
        self.write(head_key(subject), head);
    }

    /// Whether it is time to commit: a run of events may write more than is good to be written at once.
    pub(crate) fn are_enough(&self) -> bool {
        self.pending.are_enough()
    }

    /// Writes everything and the checkpoint, all or nothing. Whatever could not be read before stops it.
    pub(crate) fn commit(&mut self, checkpoint: Checkpoint) -> Result<(), ReadError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let mut writes = std::mem::take(&mut self.pending);
        writes.set(CHECKPOINT.into(), Some(serde_json::to_vec(&checkpoint)?));
        Ok(writes.commit(&self.tree.0)?)
    }

    fn read<V: DeserializeOwned>(&mut self, key: &[u8]) -> Option<V> {
        let read = match self.pending.get(key) {
            Some(pending) => Ok(pending.map(serde_json::from_slice).transpose()),
            None => self
                .tree
                .0
                .get(key)
                .map(|bytes| bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose()),
        };
        match read.map_err(ReadError::from).and_then(|row| row.map_err(ReadError::from)) {
            Ok(row) => row,
            Err(failure) => {
                self.failure = Some(failure);
                None
            }
        }
    }

    fn write<V: Serialize>(&mut self, key: Vec<u8>, value: &V) {
        match serde_json::to_vec(value) {
            Ok(bytes) => {
                self.pending.set(key, Some(bytes));
            }
            Err(error) => self.failure = Some(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: Table<String> = Table::new("names");
    const OTHERS: Table<String> = Table::new("namesake");

    fn with_tree(test: impl FnOnce(Tree)) {
        let db = sled::Config::new().temporary(true).open().unwrap();
        test(Tree(db.open_tree("test").unwrap()));
    }

    #[test]
    fn rows_see_what_was_written_before() {
        with_tree(|tree| {
            let mut rows = Rows::new(&tree);
            rows.put(&NAMES, b"1", &"one".to_string());
            assert_eq!(rows.get(&NAMES, b"1").as_deref(), Some("one"));
            rows.delete(&NAMES, b"1");
            assert_eq!(rows.get(&NAMES, b"1"), None);
            rows.put(&NAMES, b"2", &"two".to_string());
            assert_eq!(tree.get(&NAMES, b"2").unwrap(), None);
            rows.commit(Checkpoint { sequence: 7, ..Checkpoint::default() }).unwrap();
            assert_eq!(tree.get(&NAMES, b"2").unwrap().as_deref(), Some("two"));
            assert_eq!(tree.checkpoint().unwrap().sequence, 7);
        });
    }

    #[test]
    fn a_scan_stays_in_its_table_and_prefix() {
        with_tree(|tree| {
            let mut rows = Rows::new(&tree);
            for key in ["a1", "a2", "a3", "b1"] {
                rows.put(&NAMES, key.as_bytes(), &key.to_string());
                rows.put(&OTHERS, key.as_bytes(), &"other".to_string());
            }
            rows.commit(Checkpoint::default()).unwrap();
            let scan = |after: Option<&[u8]>, order, limit| -> Vec<String> {
                let rows = tree.scan(&NAMES, b"a", after, order, limit).unwrap();
                rows.into_iter().map(|(_, value)| value).collect()
            };
            assert_eq!(scan(None, Order::Ascending, 9), ["a1", "a2", "a3"]);
            assert_eq!(scan(None, Order::Descending, 2), ["a3", "a2"]);
            assert_eq!(scan(Some(b"a2"), Order::Ascending, 9), ["a3"]);
            assert_eq!(scan(Some(b"a2"), Order::Descending, 9), ["a1"]);
        });
    }

    #[test]
    fn whoever_is_stopped_amid_a_commit_finds_all_of_it_at_the_next_start() {
        with_tree(|tree| {
            let mut rows = Rows::new(&tree);
            rows.put(&NAMES, b"1", &"one".to_string());
            rows.commit(Checkpoint { sequence: 1, ..Checkpoint::default() }).unwrap();
            let one = tree.0.get(CHECKPOINT).unwrap().unwrap();
            rows.put(&NAMES, b"2", &"two".to_string());
            rows.put(&NAMES, b"3", &"three".to_string());
            rows.commit(Checkpoint { sequence: 2, ..Checkpoint::default() }).unwrap();
            // As far as a hard stop lets it come: the rest of it was not written.
            tree.0.insert(CHECKPOINT, one).unwrap();
            tree.0.remove(NAMES.key(b"3")).unwrap();
            tree.recover().unwrap();
            assert_eq!(tree.get(&NAMES, b"3").unwrap().as_deref(), Some("three"));
            assert_eq!(tree.checkpoint().unwrap().sequence, 2);
        });
    }

    #[test]
    fn what_is_beyond_a_commit_stays_as_it_is() {
        with_tree(|tree| {
            let mut rows = Rows::new(&tree);
            rows.put(&NAMES, b"1", &"one".to_string());
            rows.commit(Checkpoint { sequence: 1, ..Checkpoint::default() }).unwrap();
            // Written by somebody who does not commit as we do.
            tree.0.insert(NAMES.key(b"1"), br#""newer""#.as_slice()).unwrap();
            let newer = Checkpoint { sequence: 2, ..Checkpoint::default() };
            tree.0.insert(CHECKPOINT, serde_json::to_vec(&newer).unwrap()).unwrap();
            tree.recover().unwrap();
            assert_eq!(tree.get(&NAMES, b"1").unwrap().as_deref(), Some("newer"));
        });
    }

    #[test]
    fn what_was_thrown_away_does_not_come_back() {
        let committed = Checkpoint { sequence: 1, stream: 7, ..Checkpoint::default() };
        // Whether the wipe came to its end, or was stopped after its first step.
        for whole in [true, false] {
            with_tree(|tree| {
                tree.wipe(Checkpoint { sequence: 0, ..committed }).unwrap();
                let mut rows = Rows::new(&tree);
                rows.put(&NAMES, b"1", &"one".to_string());
                rows.commit(committed).unwrap();
                tree.0.remove(NAMES.key(b"1")).unwrap();
                match whole {
                    true => tree.wipe(Checkpoint { sequence: 0, ..committed }).unwrap(),
                    false => drop(tree.0.remove(CHECKPOINT).unwrap()),
                }
                tree.recover().unwrap();
                assert_eq!(tree.get(&NAMES, b"1").unwrap(), None);
                assert_eq!(tree.checkpoint().unwrap().sequence, 0);
            });
        }
    }

    #[test]
    fn a_commit_that_cannot_be_told_to_be_whole_is_damage() {
        with_tree(|tree| {
            let mut rows = Rows::new(&tree);
            rows.put(&NAMES, b"1", &"one".to_string());
            rows.commit(Checkpoint { sequence: 1, ..Checkpoint::default() }).unwrap();
            tree.0.insert(b"r", b"garbage").unwrap();
            assert!(tree.recover().is_err());
        });
    }

    #[test]
    fn a_row_that_cannot_be_read_stops_the_commit() {
        with_tree(|tree| {
            tree.0.insert(NAMES.key(b"1"), b"{broken").unwrap();
            let mut rows = Rows::new(&tree);
            assert_eq!(rows.get(&NAMES, b"1"), None);
            assert!(rows.commit(Checkpoint::default()).is_err());
        });
    }
}
