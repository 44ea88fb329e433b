//! The sled database under the projections: disposable, so whatever is wrong with it is answered by starting empty.

use std::{
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

/// How long one who is just ending may still hold the database.
const RELEASE: Duration = Duration::from_secs(2);

/// How often rows are synced to disk, in milliseconds. Seldom, as the log syncs for a living and shares the disk as a rule;
/// what a hard stop loses comes back from the log.
const SYNC_EVERY: u64 = 10_000;

/// The file, among sled's, that says of a database that it was closed and not cut off.
const CLOSED: &str = "closed";

/// A service's projections on disk. Clones share it.
#[derive(Clone, Debug)]
pub struct Database {
    db: sled::Db,
    path: PathBuf,
    /// Whether something in it was found to be wrong.
    doubted: Arc<AtomicBool>,
}

/// The directory cannot be used at all: it is not that its content is damaged.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot hold a database: {reason}", path.display())]
pub struct DatabaseError {
    path: PathBuf,
    reason: String,
}

impl Database {
    /// Opens the database in directory `path`, with at most `cache_bytes` of it in memory.
    ///
    /// One that is damaged is moved aside, to `<path>.damaged`, and an empty one takes its place: every row comes
    /// back from the log. To know, every row is read once, which also checks its checksum; but not after
    /// [`Database::close`], so that a long history does not make every start a long one.
    ///
    /// # Errors
    /// When an empty database cannot be made there either, or another process goes on having it open.
    pub fn open(path: &Path, cache_bytes: u64) -> Result<Self, DatabaseError> {
        let failed = |reason: String| DatabaseError { path: path.into(), reason };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(|error| failed(error.to_string()))?;
        }
        let mut opened = open_checked(path, cache_bytes);
        let patience = Instant::now() + RELEASE;
        while matches!(opened, Err(OpenFailure::InUse(_))) && Instant::now() < patience {
            std::thread::sleep(Duration::from_millis(50));
            opened = open_checked(path, cache_bytes);
        }
        match opened {
            Ok(db) => Ok(Self::opened(db, path)),
            Err(OpenFailure::InUse(reason)) => Err(failed(reason)),
            Err(OpenFailure::Damaged(reason)) => {
                let aside = path.with_extension("damaged");
                tracing::warn!(database = %path.display(), %reason, "projections are damaged and will be replayed");
                metrics::counter!("eventstore_projections_damaged_total").increment(1);
                set_aside(path, &aside).map_err(|error| failed(error.to_string()))?;
                match open_checked(path, cache_bytes) {
                    Ok(db) => Ok(Self::opened(db, path)),
                    Err(OpenFailure::InUse(reason) | OpenFailure::Damaged(reason)) => Err(failed(reason)),
                }
            }
        }
    }

    fn opened(db: sled::Db, path: &Path) -> Self {
        Self { db, path: path.into(), doubted: Arc::default() }
    }

    /// Has the next start look at every row, however this one ends.
    pub(crate) fn doubt(&self) {
        self.doubted.store(true, Ordering::Relaxed);
    }

    pub(crate) fn tree(&self, name: &str) -> sled::Result<sled::Tree> {
        self.db.open_tree(name)
    }

    /// Writes the same rows into an empty database at `path`: sled keeps room for what was there before, several times
    /// what there is. Every row of the copy has been read again when it is answered.
    ///
    /// # Errors
    /// When either cannot be used, or at `stop`.
    pub(crate) fn copy_rows(
        &self,
        path: &Path,
        cache_bytes: u64,
        stop: &CancellationToken,
    ) -> Result<Self, DatabaseError> {
        let failed =
            |reason: &dyn std::fmt::Display| DatabaseError { path: path.into(), reason: reason.to_string() };
        let copy = Self::open(path, cache_bytes)?;
        for name in self.db.tree_names() {
            let tree = copy.db.open_tree(&name).map_err(|error| failed(&error))?;
            for row in &self.db.open_tree(&name).map_err(|error| failed(&error))? {
                let (key, value) = row.map_err(|error| failed(&error))?;
                tree.insert(key, value).map_err(|error| failed(&error))?;
                if stop.is_cancelled() {
                    return Err(failed(&"it is not needed any more"));
                }
            }
        }
        copy.db.flush().map_err(|error| failed(&error))?;
        drop(copy);
        Self::open(path, cache_bytes)
    }

    /// Writes everything to disk, and that it did: the last thing before the end. It saves the next start some
    /// replaying, and looking for damage.
    pub async fn close(&self) {
        match self.db.flush_async().await {
            // The next start is to look, and to heal what it finds.
            Ok(_) if self.doubted.load(Ordering::Relaxed) => {}
            Ok(_) => {
                if let Err(error) = mark_closed(&self.path) {
                    tracing::warn!(%error, "the next start will look at every row of the projections");
                }
            }
            Err(error) => tracing::warn!(%error, "projections were not flushed and will be replayed in part"),
        }
    }
}

fn mark_closed(path: &Path) -> io::Result<()> {
    File::create(path.join(CLOSED))?.sync_all()
}

/// Whether it was closed, which is forgotten with this: it is open from now on.
fn was_closed(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path.join(CLOSED)) {
        // Synced: were it found again after a hard stop, damage would not be looked for.
        Ok(()) => File::open(path)?.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

enum OpenFailure {
    InUse(String),
    Damaged(String),
}

fn open_checked(path: &Path, cache_bytes: u64) -> Result<sled::Db, OpenFailure> {
    // sled panics on some damage, so the panic is an answer here.
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let config = sled::Config::new().path(path).cache_capacity(cache_bytes);
        let db = config.flush_every_ms(Some(SYNC_EVERY)).open()?;
        // Asked of an open one: whoever else had it open would still have to close it.
        if was_closed(path)? {
            return Ok(db);
        }
        for name in db.tree_names() {
            for row in &db.open_tree(name)? {
                row?;
            }
        }
        Ok(db)
    }));
    match opened {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(error))) if is_locked(&error) => Err(OpenFailure::InUse(error.to_string())),
        Ok(Err(error)) => Err(OpenFailure::Damaged(error.to_string())),
        Err(_) => Err(OpenFailure::Damaged("it made sled panic".into())),
    }
}

/// sled says that it could not have the lock with an error of kind `Other` around the operating system's.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

fn set_aside(path: &Path, aside: &Path) -> io::Result<()> {
    match fs::remove_dir_all(aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::rename(path, aside)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CACHE: u64 = 4 << 20;

    #[test]
    fn a_directory_full_of_garbage_is_an_empty_database() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("orders");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("conf"), b"garbage").unwrap();
        std::fs::write(path.join("db"), vec![0xa5; 100_000]).unwrap();
        let database = Database::open(&path, CACHE).unwrap();
        assert_eq!(database.tree("rows").unwrap().len(), 0);
    }

    /// A database with rows, closed, one of which is damaged after that.
    async fn damaged(path: &Path, doubted: bool) {
        let database = Database::open(path, CACHE).unwrap();
        for key in 0..1_000_u32 {
            database.tree("rows").unwrap().insert(key.to_be_bytes(), vec![7; 1_000]).unwrap();
        }
        database.close().await;
        drop(database);
        // By now sled knows where each row is; before, it would take the damage for its end.
        let database = Database::open(path, CACHE).unwrap();
        if doubted {
            database.doubt();
        }
        database.close().await;
        drop(database);
        let mut bytes = fs::read(path.join("db")).unwrap();
        let rows: Vec<_> =
            (0..bytes.len() - 800).filter(|at| bytes[*at..at + 800].iter().all(|byte| *byte == 7)).collect();
        // Not at either end, where sled looks as it opens.
        rows[rows.len() / 4..rows.len() * 3 / 4].iter().for_each(|at| bytes[at + 400] = 9);
        fs::write(path.join("db"), bytes).unwrap();
    }

    #[tokio::test]
    async fn one_that_was_closed_is_not_looked_through_and_one_that_was_cut_off_is() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("orders"), directory.path().join("orders.damaged"));
        damaged(&path, false).await;
        drop(Database::open(&path, CACHE).unwrap());
        assert!(!aside.exists(), "it was closed");
        // Not closed this time.
        let database = Database::open(&path, CACHE).unwrap();
        assert!(aside.exists(), "every row was read");
        assert_eq!(database.tree("rows").unwrap().len(), 0);
    }

    #[tokio::test]
    async fn one_that_is_doubted_is_looked_through_however_it_ended() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("orders");
        damaged(&path, true).await;
        drop(Database::open(&path, CACHE).unwrap());
        assert!(directory.path().join("orders.damaged").exists());
    }

    #[tokio::test]
    async fn a_copy_has_the_same_rows_and_less_besides() {
        let directory = tempfile::tempdir().unwrap();
        let (path, slim) = (directory.path().join("orders"), directory.path().join("slim"));
        let database = Database::open(&path, CACHE).unwrap();
        for round in 0..20_u8 {
            for key in 0..1_000_u32 {
                database.tree("rows").unwrap().insert(key.to_be_bytes(), vec![round; 1_000]).unwrap();
            }
        }
        let copy = database.copy_rows(&slim, CACHE, &CancellationToken::new()).unwrap();
        let rows: Vec<_> = copy.tree("rows").unwrap().iter().map(Result::unwrap).collect();
        assert_eq!(rows.len(), 1_000);
        assert!(rows.iter().all(|(_, value)| value.as_ref() == [19; 1_000]));
        database.db.flush().unwrap();
        let [slim, grown] = [&copy, &database].map(|database| database.db.size_on_disk().unwrap());
        assert!(slim < grown, "{slim} of {grown}");

        let stop = CancellationToken::new();
        stop.cancel();
        assert!(database.copy_rows(&directory.path().join("stopped"), CACHE, &stop).is_err());
    }

    #[test]
    fn a_database_that_is_open_elsewhere_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("orders");
        let first = Database::open(&path, CACHE).unwrap();
        first.tree("rows").unwrap().insert("key", "value").unwrap();
        assert!(Database::open(&path, CACHE).is_err());
        assert!(!path.with_extension("damaged").exists());
        assert_eq!(first.tree("rows").unwrap().len(), 1);
    }
}
