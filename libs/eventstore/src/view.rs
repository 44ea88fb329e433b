//! Projections: rows folded from one stream, kept up to date by a task of their own.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    panic::{AssertUnwindSafe, resume_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, ReplayPolicy, pull},
};
use futures::{FutureExt, StreamExt};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{
    sync::{Notify, broadcast, mpsc, oneshot, watch},
    task::JoinError,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    database::Database,
    dead_letters::DeadLetters,
    error::Error,
    event::{self, DecodeError, Event, Recorded},
    log::{Log, StreamState, shown},
    rows::{Checkpoint, Head, Order, ReadError, Rows, Table, Tree},
};

/// How many events one write takes at most.
const BATCH: usize = 1_000;
/// How many are fetched at most while others are applied.
const AHEAD: usize = 2 * BATCH;
/// How often the watchdog compares what is applied with the stream's end.
const WATCHDOG: Duration = Duration::from_secs(1);
/// How often a long catch-up tells how far it is.
const PROGRESS: Duration = Duration::from_secs(2);
/// How many changes a slow subscriber may be behind before it misses some.
const CHANGES: usize = 1_024;

/// How the events of one stream become rows. Pure: the same events make the same rows, always.
pub trait Projection: Send + Sync + 'static {
    /// The stream's events.
    type Event: Event + Clone;
    /// What is folded from the events of one subject. `()` where nothing is needed: then nothing is kept of subjects, so
    /// none can be decided on, and versions are not checked; whoever decides there checks them.
    type State: Default + Clone + PartialEq + Serialize + DeserializeOwned + Send + Sync;

    /// Names the projection within its [`Database`].
    const NAME: &'static str;
    /// Raised whenever the rows come out differently from the same events: the old ones are thrown away and replayed.
    const VERSION: u32;

    /// Folds one event into its subject's state. It neither fails nor judges: the event has happened.
    fn evolve(state: Self::State, event: &Self::Event) -> Self::State;

    /// Writes the rows that queries read. `state` is the subject's after the event, and already written.
    fn index(rows: &mut Rows<'_>, recorded: &Recorded<Self::Event>, state: &Self::State) {
        let _ = (rows, recorded, state);
    }
}

/// A running projection, to be read. Clones share it.
pub struct View<P: Projection>(Arc<Inner<P>>);

impl<P: Projection> Clone for View<P> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<P: Projection> fmt::Debug for View<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({})", P::NAME)
    }
}

struct Inner<P: Projection> {
    log: Log,
    /// Who is told of what is no event. `None` for a copy: the one that is read tells of it, and measures itself.
    dead_letters: Option<DeadLetters>,
    tasks: TaskTracker,
    closed: CancellationToken,
    database: Database,
    tree: Tree,
    condition: watch::Sender<Condition>,
    waiters: Mutex<Waiters>,
    changes: broadcast::Sender<Arc<Recorded<P::Event>>>,
    watched: Mutex<HashMap<String, watch::Sender<u64>>>,
    damaged: Notify,
    /// Since when there was always something that is not applied.
    behind: Mutex<Option<Instant>>,
}

impl<P: Projection> Inner<P> {
    /// For how long it has been behind its stream, which is `lag` events ahead now.
    fn behind(&self, lag: u64) -> Duration {
        let mut behind = lock(&self.behind);
        match lag {
            0 => *behind = None,
            _ => *behind = behind.or_else(|| Some(Instant::now())),
        }
        behind.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// Whether a projection can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It has not reached the end of its stream since it was started, or is being replayed.
    CatchingUp {
        /// The last applied sequence.
        applied: u64,
        /// The stream's end when the catch-up began; `None` while that is unknown.
        end: Option<u64>,
    },
    /// It follows its stream.
    Live,
    /// The log contradicts itself: nothing is applied any more, and a person has to look.
    Broken(String),
}

/// Those who wait for a sequence to be applied.
#[derive(Default)]
struct Waiters {
    applied: u64,
    waiting: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
}

impl Waiters {
    fn advance(&mut self, applied: u64) {
        self.applied = applied;
        let later = self.waiting.split_off(&(applied + 1));
        for waiter in std::mem::replace(&mut self.waiting, later).into_values().flatten() {
            let _ = waiter.send(());
        }
    }

    /// Drops those who gave up waiting for `sequence`, which may never come.
    fn forget(&mut self, sequence: u64) {
        if let Some(waiting) = self.waiting.get_mut(&sequence) {
            waiting.retain(|waiter| !waiter.is_closed());
            if waiting.is_empty() {
                self.waiting.remove(&sequence);
            }
        }
    }
}

/// One who waits. Whoever gives up, or is dropped with the request that it waits for, leaves nothing behind.
struct Waiting<'a> {
    waiters: &'a Mutex<Waiters>,
    sequence: u64,
    applied: Option<oneshot::Receiver<()>>,
}

impl Waiting<'_> {
    /// Whether it was applied.
    async fn wait(mut self) -> bool {
        match &mut self.applied {
            Some(applied) => applied.await.is_ok(),
            None => false,
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.applied = None;
        lock(self.waiters).forget(self.sequence);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<P: Projection> View<P> {
    /// Starts to project `log` into `database`, in a task of `tasks` that ends with `closed`. What is no event is
    /// skipped, and copied to `dead_letters`.
    ///
    /// The stream need not exist yet.
    ///
    /// # Errors
    /// When the database cannot be used.
    pub fn start(
        database: &Database,
        log: Log,
        dead_letters: DeadLetters,
        tasks: &TaskTracker,
        closed: CancellationToken,
    ) -> Result<Self, ReadError> {
        Self::spawn(database, log, Some(dead_letters), tasks, closed)
    }

    /// Projects into a database that nobody reads, up to the end that the stream has by now, and lets go of it.
    ///
    /// # Errors
    /// When the database cannot be used, the log contradicts itself, or it has an event that this version cannot read.
    pub(crate) async fn replay(database: &Database, log: Log) -> Result<(), ReadError> {
        let (tasks, closed) = (TaskTracker::new(), CancellationToken::new());
        let guard = closed.clone().drop_guard();
        let view = Self::spawn(database, log, None, &tasks, closed)?;
        let mut condition = view.0.condition.subscribe();
        let reached = |condition: &Condition| !matches!(condition, Condition::CatchingUp { .. });
        let end = condition.wait_for(reached).await.map(|condition| condition.clone());
        drop(guard);
        tasks.close();
        tasks.wait().await;
        match end {
            Ok(Condition::Broken(reason)) => Err(ReadError::new(reason)),
            _ => Ok(()),
        }
    }

    fn spawn(
        database: &Database,
        log: Log,
        dead_letters: Option<DeadLetters>,
        tasks: &TaskTracker,
        closed: CancellationToken,
    ) -> Result<Self, ReadError> {
        let tree = Tree(database.tree(P::NAME)?);
        let view = Self(Arc::new(Inner {
            log,
            dead_letters,
            tasks: tasks.clone(),
            closed: closed.clone(),
            database: database.clone(),
            tree,
            condition: watch::Sender::new(Condition::CatchingUp { applied: 0, end: None }),
            waiters: Mutex::default(),
            changes: broadcast::Sender::new(CHANGES),
            watched: Mutex::default(),
            damaged: Notify::new(),
            behind: Mutex::default(),
        }));
        let runner = view.clone();
        tasks.spawn(async move {
            // sled may panic where its files are damaged. Nothing is applied after that, so nobody is to rely on it.
            let running = AssertUnwindSafe(runner.run()).catch_unwind();
            if let Some(Err(_)) = closed.run_until_cancelled(running).await {
                runner.0.database.doubt();
                runner.0.condition.send_replace(Condition::Broken("it panicked".into()));
            }
        });
        Ok(view)
    }

    /// The log it follows.
    pub fn log(&self) -> &Log {
        &self.0.log
    }

    /// Whether it can be relied on, right now.
    pub fn condition(&self) -> Condition {
        self.0.condition.borrow().clone()
    }

    /// Returns once the projection has reached the end that its stream had when it was started.
    pub async fn caught_up(&self) {
        let mut condition = self.0.condition.subscribe();
        let _ = condition.wait_for(|condition| *condition == Condition::Live).await;
    }

    /// How far it is; `None` before it has caught up.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub(crate) fn reached(&self) -> Result<Option<Checkpoint>, ReadError> {
        let checkpoint = self.0.tree.checkpoint()?;
        Ok((self.condition() == Condition::Live).then_some(checkpoint))
    }

    /// The last applied sequence.
    pub fn applied(&self) -> u64 {
        lock(&self.0.waiters).applied
    }

    /// What is known of one subject; the default when nothing is.
    ///
    /// # Errors
    /// When the rows cannot be read, or are not all there: before the projection has caught up, and while it is
    /// replayed.
    pub fn head(&self, subject: &str) -> Result<Head<P::State>, Error> {
        self.read(|tree| tree.head(subject))
    }

    /// The row at `key`.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub fn get<V: DeserializeOwned>(&self, table: &Table<V>, key: &[u8]) -> Result<Option<V>, Error> {
        self.read(|tree| tree.get(table, key))
    }

    /// Up to `limit` rows whose keys start with `prefix`, in `order`, beginning behind the key `after`.
    ///
    /// # Errors
    /// When the rows cannot be read.
    pub fn scan<V: DeserializeOwned>(
        &self,
        table: &Table<V>,
        prefix: &[u8],
        after: Option<&[u8]>,
        order: Order,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, V)>, Error> {
        self.read(|tree| tree.scan(table, prefix, after, order, limit))
    }

    fn read<T>(&self, read: impl FnOnce(&Tree) -> Result<T, ReadError>) -> Result<T, Error> {
        let result = read(&self.0.tree);
        // Asked afterwards: rows that were being wiped meanwhile look like rows that never were.
        if *self.0.condition.borrow() != Condition::Live {
            return Err(ReadError::new("they are not all there").into());
        }
        if result.is_err() {
            self.0.damaged.notify_one();
        }
        Ok(result?)
    }

    /// Waits until `sequence` is applied.
    ///
    /// # Errors
    /// When that takes longer than `patience`.
    pub async fn wait_for(&self, sequence: u64, patience: Duration) -> Result<(), Error> {
        let applied = {
            let mut waiters = lock(&self.0.waiters);
            if waiters.applied >= sequence {
                return Ok(());
            }
            let (sender, receiver) = oneshot::channel();
            waiters.waiting.entry(sequence).or_default().push(sender);
            Waiting { waiters: &self.0.waiters, sequence, applied: Some(receiver) }
        };
        match tokio::time::timeout(patience, applied.wait()).await {
            Ok(true) => Ok(()),
            Ok(false) | Err(_) => {
                Err(Error::Late { projection: P::NAME, stream: self.0.log.name().into(), sequence })
            }
        }
    }

    /// Waits until everything is applied that the stream holds at this moment: afterwards, what is not here does
    /// not exist.
    ///
    /// # Errors
    /// When the stream's end cannot be asked, or is not reached within `patience`.
    pub async fn catch_up(&self, patience: Duration) -> Result<(), Error> {
        match self.0.log.state().await? {
            Some(state) => self.wait_for(state.last_sequence, patience).await,
            None => Ok(()),
        }
    }

    /// Every event from now on, once its rows can be read. A subscriber that is too slow misses some and is told.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Recorded<P::Event>>> {
        self.0.changes.subscribe()
    }

    /// Tells the sequence of the subject's last event whenever one was applied, from now on.
    pub fn watch(&self, subject: &str) -> watch::Receiver<u64> {
        let mut watched = lock(&self.0.watched);
        watched.entry(subject.into()).or_insert_with(|| watch::Sender::new(0)).subscribe()
    }

    /// Waits until `found` finds what it looks for in the rows of `subject`; `None` when `patience` runs out first.
    ///
    /// # Errors
    /// Whatever `found` fails with.
    pub async fn wait_until<T, E>(
        &self,
        subject: &str,
        patience: Duration,
        mut found: impl FnMut() -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        let mut watch = self.watch(subject);
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            if let Some(result) = found()? {
                return Ok(Some(result));
            }
            match tokio::time::timeout_at(deadline, watch.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) | Err(_) => return Ok(None),
            }
        }
    }

    async fn run(&self) {
        loop {
            let stopped = self.follow().await;
            let delay = match stopped {
                Stopped::Broken(reason) => {
                    self.0.database.doubt();
                    if self.is_read() {
                        tracing::error!(projection = P::NAME, %reason, "a projection has stopped");
                    }
                    self.0.condition.send_replace(Condition::Broken(reason));
                    return;
                }
                Stopped::Damaged(error) => {
                    self.0.database.doubt();
                    tracing::warn!(projection = P::NAME, %error, "a projection is damaged and is replayed");
                    if let Err(error) = self.wipe(Checkpoint::default(), None) {
                        self.0.condition.send_replace(Condition::Broken(error.to_string()));
                        return;
                    }
                    Duration::ZERO
                }
                Stopped::Waiting(reason) => {
                    tracing::debug!(projection = P::NAME, %reason, "a projection waits for its stream");
                    Duration::from_millis(200)
                }
                Stopped::Stalled => {
                    tracing::info!(projection = P::NAME, "a projection's consumer is made anew");
                    if self.is_read() {
                        metrics::counter!("eventstore_consumers_recreated_total", "projection" => P::NAME)
                            .increment(1);
                    }
                    Duration::ZERO
                }
            };
            tokio::time::sleep(delay).await;
        }
    }

    /// Follows the stream from the checkpoint on, until something stops that.
    async fn follow(&self) -> Stopped {
        let state = match self.0.log.state().await {
            Ok(Some(state)) => state,
            Ok(None) => return Stopped::Waiting("there is no such stream yet".into()),
            Err(error) => return Stopped::Waiting(error.to_string()),
        };
        let mut checkpoint = match self.resume(state).await {
            Ok(checkpoint) => checkpoint,
            Err(stopped) => return stopped,
        };
        self.passed(checkpoint.sequence, state.last_sequence);
        let mut deliveries = match self.consume(checkpoint.sequence + 1).await {
            Ok(deliveries) => deliveries,
            Err(reason) => return Stopped::Waiting(reason),
        };

        // The first look is a whole period away: what was asked for takes a round trip to come.
        let mut watchdog = tokio::time::interval_at(tokio::time::Instant::now() + WATCHDOG, WATCHDOG);
        watchdog.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut applied_then, mut end_then) = (checkpoint.sequence, checkpoint.sequence);
        let mut told = Instant::now();
        loop {
            tokio::select! {
                batch = deliveries.next() => {
                    let Some(batch) = batch else { return Stopped::Stalled };
                    let view = self.clone();
                    // Not on a thread that others need: it waits for the disk now and then.
                    let applying = self.0.tasks.spawn_blocking(move || view.apply(batch, checkpoint));
                    match applying.await.map_err(JoinError::try_into_panic) {
                        Ok(Ok(next)) => checkpoint = next,
                        Ok(Err(stopped)) => return stopped,
                        Err(Ok(panic)) => resume_unwind(panic),
                        Err(Err(error)) => return Stopped::Waiting(error.to_string()),
                    }
                    self.passed(checkpoint.sequence, state.last_sequence);
                    if checkpoint.sequence < state.last_sequence && told.elapsed() > PROGRESS {
                        told = Instant::now();
                        self.tell_progress(checkpoint.sequence, state.last_sequence);
                    }
                }
                _ = watchdog.tick() => {
                    let now = match tokio::time::timeout(WATCHDOG / 2, self.0.log.state()).await {
                        Ok(Ok(Some(now))) => now,
                        Ok(Ok(None)) => return Stopped::Waiting("the stream is gone".into()),
                        Ok(Err(_)) | Err(_) => continue,
                    };
                    let lag = now.last_sequence.saturating_sub(checkpoint.sequence);
                    let behind = self.0.behind(lag).as_secs_f64();
                    if self.is_read() {
                        metrics::gauge!("eventstore_projection_lag_events", "projection" => P::NAME)
                            .set(lag as f64);
                        metrics::gauge!("eventstore_projection_lag_seconds", "projection" => P::NAME)
                            .set(behind);
                    }
                    if now.created != state.created || now.last_sequence < checkpoint.sequence {
                        return Stopped::Stalled;
                    }
                    // It was behind a whole period ago, and nothing has come since.
                    if checkpoint.sequence == applied_then && checkpoint.sequence < end_then {
                        return Stopped::Stalled;
                    }
                    (applied_then, end_then) = (checkpoint.sequence, now.last_sequence);
                }
                () = self.0.damaged.notified() => {
                    return Stopped::Damaged(ReadError::new("a row could not be read"));
                }
            }
        }
    }

    /// Where to go on from. Rows of another stream, of another shape, or ahead of a log that lost its end, are wiped.
    async fn resume(&self, state: StreamState) -> Result<Checkpoint, Stopped> {
        self.0.tree.recover().map_err(Stopped::Damaged)?;
        let found = self.0.tree.checkpoint().map_err(Stopped::Damaged)?;
        let beginning =
            Checkpoint { sequence: 0, stream: state.created, projection_version: P::VERSION, event: None };
        let log = &self.0.log;
        let reason = if found.stream != state.created {
            format!("they are of a stream created {}", shown(found.stream))
        } else if found.projection_version != P::VERSION {
            format!("they have the shape of version {}", found.projection_version)
        } else if found.sequence > state.last_sequence {
            format!("they are ahead: the stream ends at {}", state.last_sequence)
        } else {
            match log.holds(found.sequence, found.event).await {
                Ok(true) => return Ok(found),
                Ok(false) => {
                    format!("the stream has lost its end and has another event at {}", found.sequence)
                }
                Err(error) => return Err(Stopped::Waiting(error.to_string())),
            }
        };
        if found != Checkpoint::default() {
            tracing::info!(projection = P::NAME, sequence = found.sequence, %reason, "wiping a projection's rows");
        }
        self.wipe(beginning, Some(state.last_sequence)).map_err(Stopped::Damaged)?;
        Ok(beginning)
    }

    /// Throws all rows away. First it is said that they are not there: nobody is to take that for "does not exist".
    fn wipe(&self, beginning: Checkpoint, end: Option<u64>) -> Result<(), ReadError> {
        self.0.condition.send_replace(Condition::CatchingUp { applied: 0, end });
        lock(&self.0.waiters).applied = 0;
        self.0.tree.wipe(beginning)
    }

    /// Starts to fetch what stands in the stream from a sequence on, in batches of what is there.
    async fn consume(&self, start_sequence: u64) -> Result<Deliveries, String> {
        let stream = self.0.log.stream_handle().await.map_err(|error| error.to_string())?;
        let config = pull::OrderedConfig {
            // By a name, so that who may make it can be told from who may take over a durable.
            name: Some(format!("{}-{}-{}", self.0.log.source(), P::NAME, Uuid::now_v7().simple())),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence },
            replay_policy: ReplayPolicy::Instant,
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(|error| error.to_string())?;
        let mut messages = consumer.messages().await.map_err(|error| error.to_string())?;
        // The client asks the server for more only while somebody waits for a message. So somebody does, also while a
        // batch is applied: a replay would stand still for a round trip with each batch.
        let (sender, deliveries) = mpsc::channel(AHEAD);
        self.0.tasks.spawn(async move {
            loop {
                let delivery = tokio::select! {
                    delivery = messages.next() => delivery,
                    () = sender.closed() => return,
                };
                let Some(delivery) = delivery else { return };
                if sender.send(delivery).await.is_err() {
                    return;
                }
            }
        });
        Ok(Deliveries(deliveries))
    }

    /// Folds a batch into rows and writes them with the checkpoint behind it, all or nothing; a large one in parts.
    fn apply(&self, batch: Vec<Delivery>, from: Checkpoint) -> Result<Checkpoint, Stopped> {
        let mut rows = Rows::new(&self.0.tree);
        let (mut checkpoint, mut already_applied) = (from, 0);
        let mut applied = Vec::with_capacity(batch.len());
        for delivery in batch {
            // The consumer heals itself; when it cannot, the watchdog sees that nothing moves.
            let Ok(message) = delivery else { continue };
            let Ok(sequence) = message.info().map(|info| info.stream_sequence) else {
                return Err(Stopped::Waiting("a delivery does not say what it is of".into()));
            };
            if sequence <= checkpoint.sequence {
                already_applied += 1;
                continue;
            }
            checkpoint.sequence = sequence;
            checkpoint.event = event::id(&message);
            let subject = message.subject.clone();
            match event::decode::<P::Event>(sequence, &message) {
                Ok(recorded) if !keeps_heads::<P>() => {
                    let state = P::evolve(P::State::default(), &recorded.event);
                    P::index(&mut rows, &recorded, &state);
                    applied.push(Arc::new(recorded));
                }
                Ok(recorded) => {
                    let mut head = rows.head::<P::State>(&subject);
                    match recorded.version.cmp(&head.next_version()) {
                        std::cmp::Ordering::Less => rows.put_head(&subject, &Head { sequence, ..head }),
                        std::cmp::Ordering::Greater => {
                            return Err(Stopped::Broken(format!(
                                "{} at sequence {sequence}: {} has version {} where {} comes next",
                                self.0.log.name(),
                                recorded.subject,
                                recorded.version,
                                head.next_version(),
                            )));
                        }
                        std::cmp::Ordering::Equal => {
                            let state = P::evolve(std::mem::take(&mut head.state), &recorded.event);
                            let head = Head { state, version: Some(recorded.version), sequence };
                            rows.put_head(&subject, &head);
                            P::index(&mut rows, &recorded, &head.state);
                            applied.push(Arc::new(recorded));
                        }
                    }
                }
                // A later version may know it: who starts from this copy then would never meet it.
                Err(error @ DecodeError::Payload(_)) if !self.is_read() => {
                    return Err(Stopped::Broken(format!(
                        "{} at sequence {sequence}: {error}",
                        self.0.log.name()
                    )));
                }
                Err(error) => {
                    self.bury(sequence, message, error.to_string());
                    if keeps_heads::<P>() {
                        // Not an event, yet it stands on the subject: the next append has to expect it.
                        let head = rows.head::<P::State>(&subject);
                        rows.put_head(&subject, &Head { sequence, ..head });
                    }
                }
            }
            if rows.are_enough() {
                rows.commit(checkpoint).map_err(Stopped::Damaged)?;
            }
        }
        if already_applied > 0 && checkpoint == from {
            // The consumer healed itself by starting over from the beginning of the stream.
            return Err(Stopped::Stalled);
        }
        rows.commit(checkpoint).map_err(Stopped::Damaged)?;
        self.announce(applied);
        Ok(checkpoint)
    }

    /// Copies what is no event to the dead letters, beside the projecting: that must not wait for an append.
    fn bury(&self, sequence: u64, message: jetstream::Message, reason: String) {
        let Some(dead_letters) = self.0.dead_letters.clone() else { return };
        let view = self.clone();
        let burying = async move {
            let log = &view.0.log;
            let reader = format!("{}-{}", log.source(), P::NAME);
            for delay in [1, 2, 4, 8, 16, 32] {
                match dead_letters.bury(log.name(), &reader, sequence, &message, &reason).await {
                    Ok(()) => return,
                    Err(error) => {
                        tracing::warn!(stream = log.name(), sequence, %error, "a dead letter is tried again")
                    }
                }
                tokio::time::sleep(Duration::from_secs(delay)).await;
            }
            tracing::error!(
                stream = log.name(),
                sequence,
                reason,
                "skipped what is no event, without a dead letter"
            );
        };
        let closed = self.0.closed.clone();
        self.0.tasks.spawn(async move { closed.run_until_cancelled(burying).await });
    }

    fn announce(&self, applied: Vec<Arc<Recorded<P::Event>>>) {
        if self.is_read() {
            metrics::counter!("eventstore_projected_total", "projection" => P::NAME)
                .increment(applied.len() as u64);
        }
        let mut watched = lock(&self.0.watched);
        if !watched.is_empty() {
            for recorded in &applied {
                if let Some(watch) = watched.get(&recorded.subject) {
                    watch.send_replace(recorded.sequence);
                }
            }
            watched.retain(|_, watch| watch.receiver_count() > 0);
        }
        drop(watched);
        if self.0.changes.receiver_count() > 0 {
            for recorded in applied {
                let _ = self.0.changes.send(recorded);
            }
        }
    }

    /// Whether this is the one that queries and decisions read, and not a copy.
    fn is_read(&self) -> bool {
        self.0.dead_letters.is_some()
    }

    fn passed(&self, applied: u64, end: u64) {
        lock(&self.0.waiters).advance(applied);
        self.0.condition.send_if_modified(|condition| {
            let now = match condition {
                Condition::CatchingUp { .. } if applied < end => {
                    Condition::CatchingUp { applied, end: Some(end) }
                }
                _ => Condition::Live,
            };
            std::mem::replace(condition, now.clone()) != now
        });
    }

    fn tell_progress(&self, applied: u64, end: u64) {
        let percent = applied * 100 / end.max(1);
        tracing::info!(projection = P::NAME, applied, end, "replaying {percent} %");
    }
}

/// Whether there is anything to know of a subject.
pub(crate) const fn keeps_heads<P: Projection>() -> bool {
    size_of::<P::State>() > 0
}

type Delivery = Result<jetstream::Message, pull::OrderedError>;

/// What a consumer delivers, fetched ahead. Dropped, it is fetched no more.
struct Deliveries(mpsc::Receiver<Delivery>);

impl Deliveries {
    /// What is there, and at least one; `None` when nothing comes any more. Cancelled, it loses nothing.
    async fn next(&mut self) -> Option<Vec<Delivery>> {
        let mut batch = Vec::new();
        (self.0.recv_many(&mut batch, BATCH).await > 0).then_some(batch)
    }
}

enum Stopped {
    Waiting(String),
    Stalled,
    Damaged(ReadError),
    Broken(String),
}
