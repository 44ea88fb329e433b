//! Rows on their way into sled, all or nothing, without sled's own batches.
//!
//! A batch of sled's takes one lock for the whole process: while one projection writes, every read of every other waits,
//! in the all-in-one those of all services. And nothing that a batch replaces is freed before its end. So rows are written
//! one by one, behind one row that has all of them: whoever is stopped in between finds that one at the next start, and
//! writes them again. What a hard stop cuts off is always the end of what was written, as sled's file is a log; but for what
//! is too large for that log, which sled keeps in files of their own, unsynced.

use indexmap::IndexMap;

/// Under which key all that is being written stands first. No table and no head starts like this.
const REDO: &[u8] = b"r";

/// From how many bytes on they are to be committed: so that the row that has all of them, together with the fifteen that may
/// share its page, stays below the 128 KiB from which on sled has it in a file of its own.
const ENOUGH: usize = 48 << 10;

/// Rows to be written, in the order in which they were first set; `None` removes one.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    rows: IndexMap<Vec<u8>, Option<Vec<u8>>>,
    bytes: usize,
}

/// The row that all others stand in is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what was being written cannot be read")]
pub(crate) struct Unreadable;

impl Writes {
    pub(crate) fn set(&mut self, key: Vec<u8>, value: Option<Vec<u8>>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.rows.insert(key, value);
    }

    /// What is to be at `key`: nothing said, nothing any more, or this.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        self.rows.get(key).map(Option::as_deref)
    }

    /// Whether it is time to commit.
    pub(crate) fn are_enough(&self) -> bool {
        self.bytes >= ENOUGH
    }

    /// Writes them to the tree. Readers see them come one by one; after a hard stop it is all of them or none.
    pub(crate) fn commit(self, tree: &sled::Tree) -> sled::Result<()> {
        tree.insert(REDO, self.encode())?;
        self.write(tree)
    }

    /// What was committed last to the tree, all of it or a part; `None` when nothing was.
    pub(crate) fn last(tree: &sled::Tree) -> sled::Result<Option<Result<Self, Unreadable>>> {
        Ok(tree.get(REDO)?.map(|bytes| Self::decode(&bytes)))
    }

    /// Writes them to the tree where they were committed before: the same again, or what a hard stop has cut off.
    pub(crate) fn write(self, tree: &sled::Tree) -> sled::Result<()> {
        for (key, value) in self.rows {
            match value {
                Some(value) => tree.insert(key, value)?,
                None => tree.remove(key)?,
            };
        }
        Ok(())
    }

    /// For each row its key and a value, or none: 0, or 1 and the value; lengths are of four bytes, the largest first.
    fn encode(&self) -> Vec<u8> {
        let mut encoded = Vec::with_capacity(self.bytes + 13 * self.rows.len());
        let mut put = |bytes: &[u8]| {
            encoded.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
            encoded.extend_from_slice(bytes);
        };
        for (key, value) in &self.rows {
            put(key);
            put(&[u8::from(value.is_some())]);
            if let Some(value) = value {
                put(value);
            }
        }
        encoded
    }

    fn decode(mut encoded: &[u8]) -> Result<Self, Unreadable> {
        let mut take = || -> Option<Vec<u8>> {
            let (length, rest) = encoded.split_first_chunk()?;
            let (bytes, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            encoded = rest;
            Some(bytes.to_vec())
        };
        let mut writes = Self::default();
        while let Some(key) = take() {
            let value = match take().ok_or(Unreadable)?.as_slice() {
                [0] => None,
                [1] => Some(take().ok_or(Unreadable)?),
                _ => return Err(Unreadable),
            };
            writes.set(key, value);
        }
        match encoded {
            [] => Ok(writes),
            _ => Err(Unreadable),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> sled::Tree {
        sled::Config::new().temporary(true).open().unwrap().open_tree("test").unwrap()
    }

    fn writes() -> Writes {
        let mut writes = Writes::default();
        writes.set(b"new".into(), Some(b"1".into()));
        writes.set(b"empty".into(), Some(Vec::new()));
        writes.set(b"old".into(), None);
        writes
    }

    fn rows(tree: &sled::Tree) -> Vec<(Vec<u8>, Vec<u8>)> {
        let rows = tree.iter().map(Result::unwrap).filter(|(key, _)| key != REDO);
        rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }

    #[test]
    fn all_of_them_are_found_again_and_can_be_written_once_more() {
        let tree = tree();
        tree.insert("old", "0").unwrap();
        assert!(Writes::last(&tree).unwrap().is_none());
        writes().commit(&tree).unwrap();
        let committed = rows(&tree);
        assert_eq!(committed, [(b"empty".to_vec(), Vec::new()), (b"new".to_vec(), b"1".to_vec())]);
        // What a hard stop leaves of it.
        for key in ["new", "empty"] {
            tree.remove(key).unwrap();
            tree.insert("old", "0").unwrap();
            Writes::last(&tree).unwrap().unwrap().unwrap().write(&tree).unwrap();
            assert_eq!(rows(&tree), committed);
        }
    }

    #[test]
    fn what_is_enough_stays_in_sleds_own_log() {
        let directory = tempfile::tempdir().unwrap();
        let database = sled::Config::new().path(directory.path()).open().unwrap();
        let tree = database.open_tree("test").unwrap();
        let mut keys = 0_u32..;
        for _ in 0..40 {
            let mut writes = Writes::default();
            while !writes.are_enough() {
                writes.set(keys.next().unwrap().to_be_bytes().into(), Some(vec![7; 1_000]));
            }
            writes.commit(&tree).unwrap();
        }
        database.flush().unwrap();
        let apart: Vec<_> = std::fs::read_dir(directory.path().join("blobs")).unwrap().collect();
        assert!(apart.is_empty(), "unsynced: {apart:?}");
    }

    #[test]
    fn what_is_cut_off_or_garbled_is_not_written() {
        let encoded = writes().encode();
        assert!(Writes::decode(&encoded).is_ok());
        // Between two rows there is nothing to tell by: sled checks that the value is whole.
        let whole_rows = [0, 17, 35, encoded.len()];
        for length in 0..encoded.len() {
            let cut = Writes::decode(&encoded[..length]);
            assert_eq!(cut.is_ok(), whole_rows.contains(&length), "{length} bytes");
        }
        assert_eq!(Writes::decode(b"\0\0\0\x01k\0\0\0\x01\x02").map(|_| ()), Err(Unreadable));
    }

    #[test]
    fn the_last_word_on_a_row_counts_in_the_place_of_the_first() {
        let mut writes = writes();
        writes.set(b"new".into(), Some(b"2".into()));
        assert_eq!(writes.get(b"new"), Some(Some(b"2".as_slice())));
        assert_eq!(writes.get(b"old"), Some(None));
        assert_eq!(writes.get(b"other"), None);
        assert_eq!(writes.rows.first().unwrap().0, b"new");
    }
}
