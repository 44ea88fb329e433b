//! Everything of a service's that hangs on the log, behind one handle.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    database::{Database, DatabaseError},
    dead_letters::DeadLetters,
    log::{Log, OpenError, StreamConfig},
    nats::{ConnectError, Connection, Settings},
    rows::ReadError,
    snapshots::{SnapshotConfig, Snapshots},
    view::{Condition, Projection, View},
};

/// How a service reaches its log and where it keeps its projections.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Where NATS is. Its `name` is also the `ce-source` of our events.
    pub nats: Settings,
    /// How many servers keep a copy of each stream that we create: 1, or 3 on a cluster.
    pub replicas: usize,
    /// The directory of the projections. It may be deleted whenever the service does not run.
    pub database: PathBuf,
    /// How much of the projections is kept in memory, in bytes.
    pub cache_bytes: u64,
    /// Where a new replica finds the projections, and leaves them for others; `None`: each replays the log.
    pub snapshots: Option<SnapshotConfig>,
    /// The stream of dead letters.
    pub dead_letters: String,
    /// What the dead letters' subjects start with; the stream has `<prefix>.>`.
    pub dead_letters_prefix: String,
}

/// A service's connection, projections and dead letters. Clones share them.
#[derive(Clone)]
pub struct Store(Arc<Inner>);

struct Inner {
    config: StoreConfig,
    connection: Connection,
    database: Database,
    snapshots: Option<Arc<Snapshots>>,
    shutdown: CancellationToken,
    /// Ends the projections: later than `shutdown`, as what runs until the end still waits for them.
    closed: CancellationToken,
    projecting: TaskTracker,
    conditions: Mutex<Vec<NamedCondition>>,
}

type NamedCondition = (&'static str, Box<dyn Fn() -> Condition + Send + Sync>);

/// Why a service cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The settings of NATS cannot work.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// There is no place for the projections.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The projections cannot be opened.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A stream is not what it should be.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// What it was to be reached by failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Whether what is read and written here can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Not yet: the projections are being built.
    Starting(String),
    /// Reads are as of a moment ago, writes fail.
    Disconnected(String),
    /// No: a person has to look.
    Broken(String),
}

impl Store {
    /// Opens the projections and starts to connect. From `shutdown` on nothing new is begun; [`Store::close`] ends it.
    ///
    /// # Errors
    /// When the settings cannot work or the database directory cannot be used. A server that does not answer is not
    /// an error: [`Store::readiness`] tells.
    pub async fn open(config: StoreConfig, shutdown: CancellationToken) -> Result<Self, StartError> {
        let connection = Connection::open(config.nats.clone()).await?;
        let snapshots = config.snapshots.clone().map(|snapshots| {
            let StoreConfig { nats, replicas, database, cache_bytes, .. } = &config;
            Arc::new(Snapshots::new(snapshots, &connection, &nats.name, *replicas, database, *cache_bytes))
        });
        if let Some(snapshots) = &snapshots {
            let _: Option<()> = shutdown.run_until_cancelled(snapshots.start_from_newest()).await;
        }
        // It may read every row, which may take a while.
        let (path, cache_bytes) = (config.database.clone(), config.cache_bytes);
        let opened = tokio::task::spawn_blocking(move || Database::open(&path, cache_bytes));
        let database = opened.await.map_err(std::io::Error::other)??;
        let (closed, projecting) = (CancellationToken::new(), TaskTracker::new());
        if let Some(snapshots) = snapshots.clone() {
            let closed = closed.clone();
            projecting.spawn(async move { snapshots.keep(closed).await });
        }
        let conditions = Mutex::default();
        let inner =
            Inner { config, connection, database, snapshots, shutdown, closed, projecting, conditions };
        Ok(Self(Arc::new(inner)))
    }

    /// Creates the stream that we own, and that of the dead letters, as soon as the server answers.
    ///
    /// # Errors
    /// When one exists with other settings.
    pub async fn create_stream(&self, name: &str, subjects: &str) -> Result<(), StartError> {
        let dead_letters =
            (self.0.config.dead_letters.as_str(), format!("{}.>", self.0.config.dead_letters_prefix));
        for (name, subjects) in [(name, subjects.to_owned()), dead_letters] {
            let config = StreamConfig {
                name: name.into(),
                subjects,
                replicas: self.0.config.replicas,
                source: self.source().into(),
            };
            loop {
                match Log::create(&self.0.connection, &config).await {
                    Ok(_) => break,
                    Err(OpenError::Unavailable(error)) => {
                        tracing::warn!(%error, "waiting for nats");
                        tokio::select! {
                            () = self.0.shutdown.cancelled() => return Ok(()),
                            () = tokio::time::sleep(Duration::from_millis(500)) => {}
                        }
                    }
                    Err(error @ (OpenError::Different { .. } | OpenError::Alone { .. })) => {
                        return Err(error.into());
                    }
                }
            }
        }
        Ok(())
    }

    /// The log of `stream`, which need not exist yet.
    pub fn log(&self, stream: &str) -> Log {
        Log::reader(&self.0.connection, stream, self.source())
    }

    /// Starts to project `stream`.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn project<P: Projection>(&self, stream: &str) -> Result<View<P>, ReadError> {
        let Inner { database, closed, projecting, .. } = &*self.0;
        let dead_letters = self.dead_letters();
        let view = View::<P>::start(database, self.log(stream), dead_letters, projecting, closed.clone())?;
        if let Some(snapshots) = &self.0.snapshots {
            snapshots.include(&view);
        }
        let condition = view.clone();
        let mut conditions = self.0.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        conditions.push((P::NAME, Box::new(move || condition.condition())));
        Ok(view)
    }

    /// Where reactors put what they cannot read.
    pub fn dead_letters(&self) -> DeadLetters {
        let Inner { config, connection, .. } = &*self.0;
        DeadLetters::new(connection, &config.dead_letters, &config.dead_letters_prefix, self.source())
    }

    /// The connection to NATS.
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Whether what is read and written here can be relied on, right now: the worst that is true of any part.
    pub fn readiness(&self) -> Readiness {
        let conditions = self.0.conditions.lock().unwrap_or_else(PoisonError::into_inner);
        let away = (!self.0.connection.is_up()).then(|| match self.0.connection.failure() {
            Some(reason) => format!("nats is not connected: {reason}"),
            None => "nats is not connected".into(),
        });
        let mut readiness = away.clone().map_or(Readiness::Ready, Readiness::Disconnected);
        for (name, condition) in conditions.iter() {
            match condition() {
                Condition::Broken(reason) => return Readiness::Broken(format!("{name}: {reason}")),
                Condition::CatchingUp { applied, end: Some(end) } => {
                    readiness = Readiness::Starting(format!("{name} has replayed {applied} of {end}"));
                }
                Condition::CatchingUp { end: None, .. } => {
                    let why = away.as_ref().map_or(String::new(), |away| format!(": {away}"));
                    readiness = Readiness::Starting(format!("{name} waits for its stream{why}"));
                }
                Condition::Live => {}
            }
        }
        readiness
    }

    /// Ends the projections, sends and writes what is still buffered: the last thing before the end.
    pub async fn close(&self) {
        self.0.closed.cancel();
        self.0.projecting.close();
        self.0.projecting.wait().await;
        self.0.connection.flush().await;
        self.0.database.close().await;
    }

    fn source(&self) -> &str {
        &self.0.config.nats.name
    }
}
