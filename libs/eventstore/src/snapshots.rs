//! Snapshots: a service's projections as one object in an object store, so that a new replica replays only what came
//! after.
//!
//! An object is the directory of a closed database, packed. A replica makes one on the side: it takes the one before,
//! replays what has come since, copies the rows into an empty database, which is several times smaller, and puts that in
//! the place of the other. What is being read goes on as if nothing were.
//!
//! It is a shortcut and nothing else. Each projection checks what it finds against its stream as it does after every
//! start; whoever gets no snapshot, or one that does not fit, replays the log.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    fs::{self, File},
    io::{self, BufReader, BufWriter, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    consumer::{DeliverPolicy, ReplayPolicy, pull},
    object_store::{self, InfoErrorKind, ObjectInfo, ObjectMetadata, ObjectStore},
};
use base64::{Engine, prelude::BASE64_URL_SAFE};
use futures::{StreamExt, TryStreamExt, future::BoxFuture};
use lz4_flex::frame::{FrameDecoder, FrameEncoder};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    database::{Database, DatabaseError},
    log::Log,
    nats::Connection,
    rows::{Checkpoint, ReadError, Tree},
    view::{Projection, View},
};

/// The one object of a bucket.
const OBJECT: &str = "projections";
/// How the object's bytes are to be read. What is written otherwise is passed over.
const FORMAT: &str = "sled 0.34, tar, lz4";
/// Under which name the object's metadata has its format; its other names are projections.
const FORMAT_KEY: &str = "format";

/// How long a new replica waits for a server before it starts without a snapshot.
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);
/// How long it may take to start from one, and how often it is tried: another may take its place meanwhile.
const FETCH_PATIENCE: Duration = Duration::from_secs(60);
const FETCH_TRIES: usize = 2;
/// How long the next piece of an object may take.
const PIECE_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is looked whether a new snapshot is due.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a replica rests after it has made one, or failed to.
const REST: Duration = Duration::from_secs(600);
/// After how long pieces that belong to no object are nobody's any more: their maker has lost, or is gone.
const ABANDONED: Duration = Duration::from_secs(600);

/// Where snapshots of a service's projections are, and when there is to be another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotConfig {
    /// The bucket of the object store: this service's alone. The first snapshot makes it.
    pub bucket: String,
    /// A new snapshot is made when so many events have come since the last, in all streams together; at least 1.
    pub every: u64,
}

/// The snapshots of one service, and how a replica of it makes one.
pub(crate) struct Snapshots {
    config: SnapshotConfig,
    connection: Connection,
    source: String,
    replicas: usize,
    /// The directory of the live database.
    database: PathBuf,
    cache_bytes: u64,
    members: Mutex<Vec<Member>>,
}

/// One projection of the service.
#[derive(Clone)]
struct Member {
    name: &'static str,
    version: u32,
    log: Log,
    /// How far the rows are that are read; `None` before they have caught up.
    reached: Arc<dyn Fn() -> Result<Option<Checkpoint>, ReadError> + Send + Sync>,
    replay: fn(Database, Log) -> BoxFuture<'static, Result<(), ReadError>>,
}

/// How far a snapshot has come with each projection.
type Contents = BTreeMap<String, Progress>;

/// How far one projection had come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Progress {
    stream: String,
    checkpoint: Checkpoint,
}

impl Progress {
    /// Whether it is farther than the other, or has rows of a later version: then the other does not take its place.
    fn beats(&self, other: &Self) -> bool {
        let [ours, theirs] = [self.checkpoint, other.checkpoint];
        ours.projection_version > theirs.projection_version
            || (ours.stream == theirs.stream
                && (ours.projection_version, ours.sequence) > (theirs.projection_version, theirs.sequence))
    }
}

/// There is no snapshot to be had, or none was made. The log has everything.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SnapshotError(String);

impl SnapshotError {
    fn new(what: &str, reason: impl fmt::Display) -> Self {
        Self(format!("{what}: {reason}"))
    }
}

impl From<io::Error> for SnapshotError {
    fn from(error: io::Error) -> Self {
        Self::new("files", error)
    }
}

impl From<DatabaseError> for SnapshotError {
    fn from(error: DatabaseError) -> Self {
        Self(error.to_string())
    }
}

impl From<ReadError> for SnapshotError {
    fn from(error: ReadError) -> Self {
        Self(error.to_string())
    }
}

impl Snapshots {
    /// The snapshots in `config.bucket`, for the service whose database is in directory `database`.
    pub(crate) fn new(
        config: SnapshotConfig,
        connection: &Connection,
        source: &str,
        replicas: usize,
        database: &Path,
        cache_bytes: u64,
    ) -> Self {
        Self {
            config,
            connection: connection.clone(),
            source: source.into(),
            replicas,
            database: database.into(),
            cache_bytes,
            members: Mutex::default(),
        }
    }

    /// From now on, snapshots have this projection too.
    pub(crate) fn include<P: Projection>(&self, view: &View<P>) {
        let log = view.log().clone();
        let view = view.clone();
        let member = Member {
            name: P::NAME,
            version: P::VERSION,
            log,
            reached: Arc::new(move || view.reached()),
            replay: |database, log| Box::pin(async move { View::<P>::replay(&database, log).await }),
        };
        self.members.lock().unwrap_or_else(PoisonError::into_inner).push(member);
    }

    /// Puts the newest snapshot where the database is to be, if there is no database yet. Without a server, or a
    /// snapshot that fits, there is none afterwards either.
    pub(crate) async fn start_from_newest(&self) {
        if let Err(error) = remove(&self.workshop()) {
            tracing::warn!(%error, "what an interrupted snapshot has left stays");
        }
        if self.database.exists() {
            return;
        }
        let began = Instant::now();
        while !self.connection.is_up() && began.elapsed() < CONNECT_PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if !self.connection.is_up() {
            tracing::info!("nats is not connected yet: projections start without a snapshot");
            return;
        }
        for _ in 0..FETCH_TRIES {
            let fetched = tokio::time::timeout(FETCH_PATIENCE, self.fetch(&self.database)).await;
            let fetched = fetched.unwrap_or_else(|_| Err(SnapshotError("it takes too long".into())));
            if let Err(error) = remove(&self.workshop()) {
                tracing::warn!(%error, "what was fetched stays");
            }
            match fetched {
                Ok(Some(contents)) => {
                    let milliseconds = began.elapsed().as_millis() as u64;
                    let contents = shown(&contents);
                    tracing::info!(contents, milliseconds, "projections start from a snapshot");
                    metrics::counter!("eventstore_snapshots_total", "outcome" => "used").increment(1);
                    return;
                }
                Ok(None) => return,
                Err(error) => tracing::warn!(%error, "no snapshot to start from"),
            }
        }
    }

    /// Makes a snapshot whenever one is due, until `closed`.
    pub(crate) async fn keep(&self, closed: CancellationToken) {
        let keeping = async {
            loop {
                tokio::time::sleep(a_while()).await;
                match self.is_due().await {
                    Ok(true) => {
                        self.make_and_tell(&closed).await;
                        tokio::time::sleep(REST).await;
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(%error, "whether a snapshot is due is not known");
                        tokio::time::sleep(REST / 10).await;
                    }
                }
            }
        };
        let _: Option<()> = closed.run_until_cancelled(keeping).await;
    }

    async fn make_and_tell(&self, stop: &CancellationToken) {
        let began = Instant::now();
        let made = self.make(stop).await;
        if let Err(error) = remove(&self.workshop()) {
            tracing::warn!(%error, "what a snapshot was made of stays");
        }
        let outcome = match &made {
            Ok(Some(_)) => "made",
            Ok(None) => "late",
            Err(_) => "failed",
        };
        metrics::counter!("eventstore_snapshots_total", "outcome" => outcome).increment(1);
        match made {
            Ok(None) => tracing::info!("another replica was faster with a snapshot"),
            Ok(Some((contents, bytes))) => tracing::info!(
                contents = shown(&contents),
                bytes,
                milliseconds = began.elapsed().as_millis() as u64,
                "a snapshot of the projections was made"
            ),
            Err(error) => tracing::warn!(%error, "no snapshot of the projections was made"),
        }
    }

    /// Whether enough has happened since the newest snapshot, and all of it is applied. Not, when that one has rows of a
    /// later version: then we are the last of the old ones, and what we make would throw the new ones back.
    async fn is_due(&self) -> Result<bool, SnapshotError> {
        let newest = self.newest().await?.map(|(_, contents)| contents).unwrap_or_default();
        let mut behind = 0;
        for member in self.members() {
            let Some(live) = (member.reached)()? else { return Ok(false) };
            behind += match newest.get(member.name).map(|progress| progress.checkpoint) {
                Some(found) if found.projection_version > member.version => return Ok(false),
                Some(found) if (found.stream, found.projection_version) == (live.stream, member.version) => {
                    live.sequence.saturating_sub(found.sequence)
                }
                _ => live.sequence,
            };
        }
        Ok(behind >= self.config.every.max(1))
    }

    /// Makes one and puts it in the place of the one before. Answers what is in it, and its size in bytes; `None` when
    /// there is a newer one by now.
    async fn make(&self, stop: &CancellationToken) -> Result<Option<(Contents, u64)>, SnapshotError> {
        remove(&self.workshop())?;
        fs::create_dir_all(self.workshop())?;
        let [grown, slim, packed] = ["grown", "slim", "packed"].map(|what| self.workshop().join(what));
        if let Err(error) = self.fetch(&grown).await {
            tracing::info!(%error, "a snapshot is made from the beginning");
        }
        let contents = match self.grow(&grown).await {
            Ok(contents) => contents,
            // What the one before has may be what is wrong.
            Err(error) => {
                tracing::info!(%error, "a snapshot is made once more, from the beginning");
                remove(&grown)?;
                self.grow(&grown).await?
            }
        };
        let (path, cache_bytes, stop) = (slim.clone(), self.cache_bytes, stop.clone());
        let copy = blocking(move || {
            let grown = Database::open(&grown, cache_bytes)?;
            grown.copy_rows(&path, cache_bytes, &stop)
        });
        let copy = copy.await??;
        // One that was found to be damaged is empty by now.
        for (name, progress) in &contents {
            if Tree(copy.tree(name).map_err(ReadError::from)?).checkpoint()? != progress.checkpoint {
                return Err(SnapshotError(format!("the copy of {name} is not what was copied")));
            }
        }
        copy.close().await;
        let to = packed.clone();
        blocking(move || {
            // The last one who has it: sled lets go of its files.
            drop(copy);
            pack(&slim, &to)
        })
        .await??;
        let newest = self.newest().await?.map(|(_, contents)| contents).unwrap_or_default();
        if contents
            .iter()
            .any(|(name, progress)| newest.get(name).is_some_and(|newest| newest.beats(progress)))
        {
            return Ok(None);
        }
        let object = self.put(&packed, &contents).await?;
        if let Err(error) = self.remove_abandoned(&object).await {
            tracing::warn!(%error, "pieces of no snapshot stay");
        }
        Ok(Some((contents, object.size as u64)))
    }

    /// Replays what is missing into the database in `directory`, and answers what is in it then.
    async fn grow(&self, directory: &Path) -> Result<Contents, SnapshotError> {
        let (path, cache_bytes) = (directory.to_owned(), self.cache_bytes);
        let database = blocking(move || Database::open(&path, cache_bytes)).await??;
        let mut contents = Contents::new();
        for Member { name, log, replay, .. } in self.members() {
            replay(database.clone(), log.clone()).await?;
            let checkpoint = Tree(database.tree(name).map_err(ReadError::from)?).checkpoint()?;
            contents.insert(name.into(), Progress { stream: log.name().into(), checkpoint });
        }
        // It may wait for the disk.
        blocking(move || drop(database)).await?;
        Ok(contents)
    }

    /// Unpacks the newest snapshot into `directory`, which does not exist yet; `None` when there is none, or none that
    /// fits the streams.
    async fn fetch(&self, directory: &Path) -> Result<Option<Contents>, SnapshotError> {
        let Some((info, contents)) = self.newest().await? else { return Ok(None) };
        for (projection, Progress { stream, checkpoint }) in &contents {
            let log = Log::reader(&self.connection, stream, &self.source);
            let state = log.state().await.map_err(|error| SnapshotError(error.to_string()))?;
            let mut fits = state.is_some_and(|state| {
                state.created == checkpoint.stream && state.last_sequence >= checkpoint.sequence
            });
            if fits {
                let held = log.holds(checkpoint.sequence, checkpoint.event).await;
                fits = held.map_err(|error| SnapshotError(error.to_string()))?;
            }
            if !fits {
                tracing::info!(
                    projection,
                    stream,
                    "the newest snapshot is of another stream, or ahead of it"
                );
                return Ok(None);
            }
        }
        fs::create_dir_all(self.workshop())?;
        let [packed, unpacked] = ["fetched", "unpacked"].map(|what| self.workshop().join(what));
        for leftover in [&packed, &unpacked] {
            remove(leftover)?;
        }
        self.download(&info, &packed).await?;
        let directory = directory.to_owned();
        // In one move: whoever is interrupted before has no database, and not half of one.
        blocking(move || unpack(&packed, &unpacked).and_then(|()| fs::rename(unpacked, directory))).await??;
        Ok(Some(contents))
    }

    /// The newest snapshot; `None` when there is none, or none that we could read.
    async fn newest(&self) -> Result<Option<(ObjectInfo, Contents)>, SnapshotError> {
        let Some(bucket) = self.bucket().await? else { return Ok(None) };
        let info = match bucket.info(OBJECT).await {
            Ok(info) => info,
            Err(error) if error.kind() == InfoErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SnapshotError::new("asking for the newest snapshot", error)),
        };
        let mut metadata = info.metadata.clone();
        if info.deleted || metadata.remove(FORMAT_KEY).as_deref() != Some(FORMAT) {
            return Ok(None);
        }
        let read = |(projection, progress): (String, String)| {
            Some((projection, serde_json::from_str(&progress).ok()?))
        };
        let contents: Option<Contents> = metadata.into_iter().map(read).collect();
        Ok(contents.map(|contents| (info, contents)))
    }

    /// The bucket; `None` before the first snapshot.
    async fn bucket(&self) -> Result<Option<ObjectStore>, SnapshotError> {
        let failed = |reason: &dyn fmt::Display| SnapshotError::new("looking for the bucket", reason);
        // The object store's own errors do not say that it is missing.
        let stream = Log::reader(&self.connection, &self.stream(), &self.source);
        if stream.state().await.map_err(|error| failed(&error))?.is_none() {
            return Ok(None);
        }
        let bucket = self.connection.jetstream().get_object_store(&self.config.bucket).await;
        bucket.map(Some).map_err(|error| failed(&error))
    }

    /// The stream that the bucket is.
    fn stream(&self) -> String {
        format!("OBJ_{}", self.config.bucket)
    }

    /// Writes the object's bytes to `file`.
    ///
    /// Not by the client's own reader, which has them pushed: a consumer that is pulled needs a name, which says in its
    /// subject what it reads, and so can be permitted to us alone.
    async fn download(&self, info: &ObjectInfo, file: &Path) -> Result<(), SnapshotError> {
        let failed = |reason: &dyn fmt::Display| SnapshotError::new("reading a snapshot", reason);
        let stream = self.connection.jetstream().get_stream_no_info(self.stream()).await;
        let stream = stream.map_err(|error| failed(&error))?;
        let config = pull::OrderedConfig {
            name: Some(format!("{}-snapshot-{}", self.source, Uuid::now_v7().simple())),
            filter_subject: format!("$O.{}.C.{}", self.config.bucket, info.nuid),
            deliver_policy: DeliverPolicy::All,
            replay_policy: ReplayPolicy::Instant,
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|error| failed(&error))?;
        let mut pieces = consumer.messages().await.map_err(|error| failed(&error))?;
        let mut file = tokio::fs::File::create(file).await?;
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        for _ in 0..info.chunks {
            let piece = tokio::time::timeout(PIECE_PATIENCE, pieces.next()).await;
            let piece = piece.map_err(|_| failed(&"the next piece does not come"))?;
            let piece = piece.ok_or_else(|| failed(&"it ended"))?.map_err(|error| failed(&error))?;
            digest.update(&piece.payload);
            file.write_all(&piece.payload).await?;
        }
        file.flush().await?;
        let digest = format!("SHA-256={}", BASE64_URL_SAFE.encode(digest.finish()));
        match info.digest.as_deref() == Some(digest.as_str()) {
            true => Ok(()),
            false => Err(failed(&"its digest is another")),
        }
    }

    /// Puts the file in the place of the snapshot before.
    async fn put(&self, file: &Path, contents: &Contents) -> Result<ObjectInfo, SnapshotError> {
        let bucket = match self.bucket().await? {
            Some(bucket) => bucket,
            None => self.make_bucket().await?,
        };
        let mut metadata = HashMap::from([(FORMAT_KEY.to_owned(), FORMAT.to_owned())]);
        for (projection, progress) in contents {
            let progress = serde_json::to_string(progress).map_err(ReadError::from)?;
            metadata.insert(projection.clone(), progress);
        }
        let object = ObjectMetadata { name: OBJECT.into(), metadata, ..Default::default() };
        let mut file = tokio::fs::File::open(file).await?;
        let put = bucket.put(object, &mut file).await;
        put.map_err(|error| SnapshotError::new("writing a snapshot", error))
    }

    /// Removes the pieces of what was never finished, or has lost against another. What is being written is left alone.
    async fn remove_abandoned(&self, newest: &ObjectInfo) -> Result<(), SnapshotError> {
        let failed = |reason: &dyn fmt::Display| SnapshotError::new("clearing the bucket", reason);
        let stream =
            self.connection.jetstream().get_stream(self.stream()).await.map_err(|error| failed(&error))?;
        let pieces = stream.info_with_subjects(format!("$O.{}.C.>", self.config.bucket)).await;
        let mut pieces = pieces.map_err(|error| failed(&error))?;
        while let Some((subject, _)) = pieces.try_next().await.map_err(|error| failed(&error))? {
            if subject.ends_with(&newest.nuid) {
                continue;
            }
            let last = stream.direct_get_last_for_subject(subject.as_str()).await;
            if OffsetDateTime::now_utc() - last.map_err(|error| failed(&error))?.time > ABANDONED {
                stream.purge().filter(subject).await.map_err(|error| failed(&error))?;
            }
        }
        Ok(())
    }

    async fn make_bucket(&self) -> Result<ObjectStore, SnapshotError> {
        let bucket = object_store::Config {
            bucket: self.config.bucket.clone(),
            description: Some(format!("The projections of {}. May be deleted at any time.", self.source)),
            num_replicas: self.replicas,
            ..Default::default()
        };
        let made = self.connection.jetstream().create_object_store(bucket).await;
        made.map_err(|error| SnapshotError::new("making the bucket", error))
    }

    fn members(&self) -> Vec<Member> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The directory for what is under way: beside the database, as what is fetched is moved there.
    fn workshop(&self) -> PathBuf {
        self.database.with_extension("snapshot")
    }
}

fn shown(contents: &Contents) -> String {
    let one = |(projection, progress): (&String, &Progress)| {
        format!("{projection} up to {} of {}", progress.checkpoint.sequence, progress.stream)
    };
    contents.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// Until the next look; not the same for all replicas, as one that makes a snapshot is enough.
fn a_while() -> Duration {
    LOOK_EVERY.mul_f64(0.5 + f64::from(Uuid::new_v4().as_bytes()[0]) / 255.0)
}

fn pack(directory: &Path, file: &Path) -> io::Result<()> {
    let packed = FrameEncoder::new(BufWriter::new(File::create(file)?));
    let mut archive = tar::Builder::new(packed);
    archive.append_dir_all("", directory)?;
    archive.into_inner()?.finish()?.flush()
}

/// Files and directories alone: what else an archive can hold is none of ours.
fn unpack(file: &Path, directory: &Path) -> io::Result<()> {
    let mut archive = tar::Archive::new(FrameDecoder::new(BufReader::new(File::open(file)?)));
    fs::create_dir(directory)?;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let kind = entry.header().entry_type();
        entry.set_mask(0o077);
        if !(kind.is_file() || kind.is_dir()) || !entry.unpack_in(directory)? {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{:?}", entry.path()?)));
        }
    }
    Ok(())
}

/// Removes a file or a directory, if it is there.
fn remove(path: &Path) -> io::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Not on a thread that others need: it waits for the disk.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, SnapshotError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| SnapshotError::new("a thread", error))
}
