//! The file that keeps the books over a restart.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Error;
use super::books::{Books, Record};

/// Reads the file, waiting a little for a predecessor that is just letting go of it.
pub(super) async fn open(path: &Path) -> Result<(Journal, Books), Error> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match Journal::open(path)? {
            Some(opened) => return Ok(opened),
            None if Instant::now() < deadline => sleep(Duration::from_millis(10)).await,
            None => return Err(Error::InUse { path: path.to_owned() }),
        }
    }
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
    fn open(path: &Path) -> Result<Option<(Self, Books)>, Error> {
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
        books.complete();
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
