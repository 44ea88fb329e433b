//! Where each user's wrapped key is kept: a key-value bucket in JetStream, outside the log, so that it can be deleted.
//!
//! | under | stands |
//! |---|---|
//! | `<user id>` | that user's key, wrapped as [`sealing`] says |
//! | `email-key` | the email key, wrapped likewise |
//! | `master-key`, `master-key.2`, … | the fingerprint of each master key, so that a service with another one does not start instead of knowing nobody |
//! | `wrapped-since` | how far the keys were looked at, and the oldest master key that these still need: `<version> <sequence>` |
//!
//! When the master key changes, all keys are wrapped again here. The log stays as it is.
//!
//! A replica of before the change may still wrap by the old key after the others have wrapped all again. So whoever starts
//! without an old key looks through what was put since: it starts only if it can open each.
//!
//! Absent: a cache, and direct get. What was deleted is gone at once, what was put is there at once, on any replica.

use std::{
    error::Error as _,
    fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::{
        self, ErrorCode,
        context::GetStreamErrorKind,
        kv::{self, CreateErrorKind, UpdateError, UpdateErrorKind},
        message::StreamMessage,
        stream::{LastRawMessageErrorKind, StorageType},
    },
};
use contract::UserId;
use eventstore::{Connection, OpenError, Unavailable};
use tokio_util::sync::CancellationToken;

use crate::{
    domain::Email,
    sealing::{self, EmailKey, MasterKey, MasterKeys, UserKey, Wrapped},
};

/// The bucket. In JetStream a bucket is a stream whose name begins with `KV_`.
pub const BUCKET: &str = "user-keys";

const STREAM: &str = "KV_user-keys";
/// The fingerprint of the first master key; that of another has its version behind it.
const MASTER_KEY: &str = "master-key";
const EMAIL_KEY: &str = "email-key";
/// How far the keys were looked at ([`Looked`]).
const WRAPPED_SINCE: &str = "wrapped-since";

/// How often the server is asked again while it does not answer.
const AGAIN: Duration = Duration::from_millis(500);
/// How often what was put since is looked at, while there is another master key that may have wrapped it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Behind how many entries it is worth another one to say that they were looked at.
const MANY: u64 = 1_000;

/// The users' keys, and the email key. Clones share the bucket.
#[derive(Clone, Debug)]
pub struct UserKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Connection,
    master: MasterKeys,
    open: OnceLock<Open>,
}

#[derive(Debug)]
struct Open {
    bucket: kv::Store,
    email_key: EmailKey,
}

/// Why a key could not be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The server does not answer.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// What was kept is not ours.
    #[error(transparent)]
    Sealing(#[from] sealing::Error),
}

impl UserKeys {
    /// The keys behind `connection`, once [`open`](Self::open) has opened them.
    pub fn new(connection: &Connection, master: MasterKeys) -> Self {
        Self(Arc::new(Inner { connection: connection.clone(), master, open: OnceLock::new() }))
    }

    /// Creates the bucket if it is missing, as soon as the server answers.
    ///
    /// # Errors
    /// When it exists with other settings, or for other master keys.
    pub async fn open(&self, replicas: usize, shutdown: &CancellationToken) -> Result<(), OpenError> {
        loop {
            match shutdown.run_until_cancelled(self.try_open(replicas)).await {
                None => return Ok(()),
                Some(Err(OpenError::Unavailable(error))) => tracing::info!(%error, "waiting for nats"),
                Some(result) => return result,
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Whether keys can be put and got.
    pub fn is_open(&self) -> bool {
        self.0.open.get().is_some()
    }

    /// What stands for an address in a subject.
    ///
    /// # Errors
    /// Before they are open.
    pub fn email_key(&self, email: &Email) -> Result<String, Unavailable> {
        Ok(self.opened()?.email_key.of(email))
    }

    /// Makes a key for a user. When this returns `Ok` it is on disk, wrapped.
    ///
    /// # Errors
    /// When the server does not answer, or refuses: it may be kept or not.
    pub async fn make(&self, owner: UserId) -> Result<UserKey, Error> {
        let (key, wrapped) = self.0.master.new_user_key(owner)?;
        let put = self.bucket()?.put(owner.to_string(), wrapped.into()).await;
        put.map_err(|error| unavailable("putting into", &error))?;
        Ok(key)
    }

    /// The key of a user; `None` when there is none, or no longer.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn get(&self, owner: UserId) -> Result<Option<UserKey>, Error> {
        match get(self.bucket()?, &owner.to_string()).await? {
            Some(wrapped) => Ok(Some(self.0.master.unwrap(owner, &wrapped)?)),
            None => Ok(None),
        }
    }

    /// Destroys the wrapped key of a user, and every revision that the bucket has of it. Without one, nothing happens.
    ///
    /// The server overwrites nothing: until it compacts its file, the disk holds a key that it serves to nobody.
    ///
    /// # Errors
    /// When the server does not answer, or refuses: it may be destroyed or not.
    pub async fn destroy(&self, owner: UserId) -> Result<(), Unavailable> {
        let destroyed = self.bucket()?.purge(owner.to_string()).await;
        destroyed.map_err(|error| unavailable("purging", &error))
    }

    /// Wraps again what an earlier master key has wrapped, and what a replica that still has it as its own goes on to
    /// wrap. Until the shutdown, if there is such a key; else there is nothing to do.
    pub async fn wrap_again(&self, shutdown: &CancellationToken) {
        let current = self.0.master.current().version();
        if self.0.master.all().all(|key| key.version() >= current) {
            return;
        }
        let (mut next, mut done, mut first_left) = (1, None, None);
        while !shutdown.is_cancelled() {
            match self.wrap_next(next).await {
                Ok(Some(seen)) => {
                    next = seen.sequence + 1;
                    match seen.what {
                        What::Fine => {}
                        What::Wrapped => {
                            metrics::counter!("auth_user_keys_wrapped_again_total").increment(1);
                            *done.get_or_insert(0) += 1;
                        }
                        What::Left => _ = first_left.get_or_insert(seen.sequence),
                        What::Moving => next = seen.sequence,
                    }
                    continue;
                }
                Ok(None) => {
                    let looked = Looked { version: current, up_to: first_left.unwrap_or(next) - 1 };
                    if let Err(error) = self.note(looked, done.is_some()).await {
                        tracing::warn!(%error, "wrapping keys again, later");
                    } else if let Some(count) = done.take() {
                        tracing::info!(count, version = current, "keys are wrapped by this master key now");
                    }
                }
                Err(error) => tracing::warn!(%error, "wrapping keys again, later"),
            }
            let _: Option<()> = shutdown.run_until_cancelled(tokio::time::sleep(LOOK_AGAIN)).await;
        }
    }

    /// Wraps the first entry from a sequence on, if it needs that; `None` behind the last.
    async fn wrap_next(&self, sequence: u64) -> Result<Option<Seen>, Unavailable> {
        let bucket = self.bucket()?;
        let Some(Entry { name, sequence, value }) = first_entry(bucket, sequence).await? else {
            return Ok(None);
        };
        let again =
            wrapped(&name).zip(value).map(|(what, value)| self.0.master.wrap_again(what, &value)).transpose();
        let what = match again.map(Option::flatten) {
            Ok(None) => What::Fine,
            Err(error) => {
                tracing::error!(%error, key = name, "a key cannot be wrapped again");
                What::Left
            }
            // Only if nobody has touched it since: a key that was destroyed stays so.
            Ok(Some(again)) => match bucket.update(&name, again.into(), sequence).await {
                Ok(_) => What::Wrapped,
                Err(error) if is_conflict(&error) => What::Moving,
                Err(error) => return Err(unavailable("putting into", &error)),
            },
        };
        Ok(Some(Seen { sequence, what }))
    }

    /// Notes what was looked at, if it says more than what is noted, or `anyway`.
    async fn note(&self, looked: Looked, anyway: bool) -> Result<(), Unavailable> {
        let bucket = self.bucket()?;
        if anyway || wrapped_since(bucket).await?.version < looked.version {
            put_note(bucket, looked).await?;
        }
        Ok(())
    }

    fn opened(&self) -> Result<&Open, Unavailable> {
        self.0.open.get().ok_or_else(|| unavailable("reaching", &"not opened yet"))
    }

    fn bucket(&self) -> Result<&kv::Store, Unavailable> {
        // Better to say so at once than to wait for an answer that cannot come.
        if !self.0.connection.is_up() {
            return Err(unavailable("reaching", &"not connected"));
        }
        Ok(&self.opened()?.bucket)
    }

    async fn try_open(&self, replicas: usize) -> Result<(), OpenError> {
        let bucket = self.create(replicas).await?;
        let master = &self.0.master;
        // Before keys had versions there was one.
        let is_new = get(&bucket, MASTER_KEY).await?.is_none() && get(&bucket, EMAIL_KEY).await?.is_none();
        for key in master.all() {
            recognise(&bucket, key).await?;
        }
        let current = master.current().version();
        if is_new {
            // Before the email key, by which a bucket is known not to be new.
            if current > 1 && get(&bucket, WRAPPED_SINCE).await?.is_none() {
                let nothing = Looked { version: current, up_to: 0 };
                create(&bucket, WRAPPED_SINCE, nothing.to_string().into()).await?;
            }
        } else {
            can_open_all(&bucket, master).await?;
        }
        let email_key = match get(&bucket, EMAIL_KEY).await? {
            Some(wrapped) => master.unwrap_email_key(&wrapped).map_err(|error| match error {
                sealing::Error::NoSuchVersion(version) => {
                    different("email key's master key", version.to_string(), current.to_string())
                }
                error => unavailable("reading the email key from", &error).into(),
            })?,
            None => {
                let of = if is_new { Ok(master.current()) } else { master.of(1) };
                let made = of.and_then(|of| master.first_email_key(of));
                let (key, wrapped) = made.map_err(|error| unavailable("making a key for", &error))?;
                create(&bucket, EMAIL_KEY, wrapped).await?;
                key
            }
        };
        let _ = self.0.open.set(Open { bucket, email_key });
        Ok(())
    }

    async fn create(&self, replicas: usize) -> Result<kv::Store, OpenError> {
        let jetstream = self.0.connection.jetstream();
        match jetstream.get_stream(STREAM).await {
            Ok(stream) => {
                let found = &stream.cached_info().config;
                if found.num_replicas != replicas {
                    let (found, wanted) = (found.num_replicas.to_string(), replicas.to_string());
                    return Err(different("number of replicas", found, wanted));
                }
                // An older value of a key that was deleted must not be left.
                if found.max_messages_per_subject != 1 {
                    return Err(different("history", found.max_messages_per_subject.to_string(), "1".into()));
                }
                let bucket = jetstream.get_key_value(BUCKET).await;
                Ok(bucket.map_err(|error| unavailable("opening", &error))?)
            }
            Err(error) if is_missing(&error.kind()) => {
                let config = kv::Config {
                    bucket: BUCKET.into(),
                    description: "the wrapped key of each user".into(),
                    history: 1,
                    storage: StorageType::File,
                    num_replicas: replicas,
                    ..Default::default()
                };
                let bucket = jetstream.create_key_value(config).await;
                Ok(bucket.map_err(|error| unavailable("creating", &error))?)
            }
            Err(error) => Err(unavailable("opening", &error).into()),
        }
    }
}

/// An entry that was looked at.
struct Seen {
    sequence: u64,
    what: What,
}

/// What was found, or done.
enum What {
    /// It needs no older master key.
    Fine,
    /// It did, and does no more.
    Wrapped,
    /// It cannot be opened here.
    Left,
    /// Somebody else is changing it. That may come to nothing: it is to be looked at again.
    Moving,
}

/// What the bucket keeps under a name.
struct Entry {
    name: String,
    sequence: u64,
    /// `None` where it was deleted.
    value: Option<Vec<u8>>,
}

/// How far the keys were looked at: up to that sequence of the bucket none needs an older master key than that of
/// `version`. Missing, it is the first, up to none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Looked {
    version: u8,
    up_to: u64,
}

impl fmt::Display for Looked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.version, self.up_to)
    }
}

impl Looked {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (version, up_to) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
        Some(Self { version: version.parse().ok()?, up_to: up_to.parse().ok()? })
    }
}

/// Refuses master keys that lack one by which a key is wrapped.
async fn can_open_all(bucket: &kv::Store, master: &MasterKeys) -> Result<(), OpenError> {
    let current = master.current().version();
    let has_all_since = |version: u8| (version..=current).all(|version| master.of(version).is_ok());
    if has_all_since(1) {
        return Ok(());
    }
    let since = wrapped_since(bucket).await?;
    let (from, mut oldest) = if since.version <= current && has_all_since(since.version) {
        (since.up_to + 1, since.version)
    } else {
        (1, current)
    };
    let mut next = from;
    while let Some(Entry { name, sequence, value }) = first_entry(bucket, next).await? {
        next = sequence + 1;
        let by = value.filter(|_| wrapped(&name).is_some()).and_then(|value| value.first().copied());
        if let Some(by) = by.filter(|by| master.of(*by).is_err()) {
            return Err(different("master key that still wraps", by.to_string(), current.to_string()));
        }
        oldest = oldest.min(by.unwrap_or(oldest));
    }
    // So that whoever starts next has less to look through.
    if next - from >= MANY {
        put_note(bucket, Looked { version: oldest, up_to: next - 1 }).await?;
    }
    Ok(())
}

/// The first entry from a sequence on; `None` behind the last.
async fn first_entry(bucket: &kv::Store, sequence: u64) -> Result<Option<Entry>, Unavailable> {
    let all = format!("{}>", bucket.prefix);
    match bucket.stream.get_first_raw_message_by_subject(&all, sequence).await {
        Ok(StreamMessage { subject, sequence, payload, headers, .. }) => {
            let name = subject.strip_prefix(bucket.prefix.as_str()).unwrap_or_default().to_owned();
            let value = (!is_deleted(&headers)).then(|| payload.to_vec());
            Ok(Some(Entry { name, sequence, value }))
        }
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(unavailable("reading from", &error)),
    }
}

async fn put_note(bucket: &kv::Store, looked: Looked) -> Result<(), Unavailable> {
    let put = bucket.put(WRAPPED_SINCE, looked.to_string().into()).await;
    put.map(|_| ()).map_err(|error| unavailable("putting into", &error))
}

/// Whether somebody else has put or deleted it meanwhile. Three replicas tell that by another code than one.
fn is_conflict(error: &UpdateError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let code = error.downcast_ref::<jetstream::Error>().map(jetstream::Error::error_code);
        if code == Some(ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT) {
            return true;
        }
        cause = error.source();
    }
    error.kind() == UpdateErrorKind::WrongLastRevision
}

/// What is kept under a name, if it is wrapped.
fn wrapped(name: &str) -> Option<Wrapped> {
    match name {
        EMAIL_KEY => Some(Wrapped::EmailKey),
        name => name.parse().ok().map(Wrapped::UserKey),
    }
}

/// Refuses a key that is not the one of its version, which whoever comes first decides.
async fn recognise(bucket: &kv::Store, key: &MasterKey) -> Result<(), OpenError> {
    let name = match key.version() {
        1 => MASTER_KEY.to_owned(),
        version => format!("{MASTER_KEY}.{version}"),
    };
    match get(bucket, &name).await? {
        None => create(bucket, &name, key.fingerprint().into()).await,
        Some(found) if found == key.fingerprint().as_bytes() => Ok(()),
        Some(found) => {
            let found = String::from_utf8_lossy(&found).into_owned();
            Err(different("master key, by its fingerprint,", found, key.fingerprint().into()))
        }
    }
}

/// Puts what is not there yet. Where another replica was faster, what it has put is looked at next time.
async fn create(bucket: &kv::Store, name: &str, value: Vec<u8>) -> Result<(), OpenError> {
    match bucket.create(name, value.into()).await {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == CreateErrorKind::AlreadyExists => {
            Err(unavailable("putting into", &"another replica did").into())
        }
        Err(error) => Err(unavailable("putting into", &error).into()),
    }
}

async fn wrapped_since(bucket: &kv::Store) -> Result<Looked, Unavailable> {
    let since = get(bucket, WRAPPED_SINCE).await?;
    Ok(since.and_then(|since| Looked::parse(&since)).unwrap_or(Looked { version: 1, up_to: 0 }))
}

/// Reads from the leader: direct get may be served by a replica that has not heard of the key yet.
async fn get(bucket: &kv::Store, key: &str) -> Result<Option<Vec<u8>>, Unavailable> {
    let subject = format!("{}{key}", bucket.prefix);
    match bucket.stream.get_last_raw_message_by_subject(&subject).await {
        Ok(message) if is_deleted(&message.headers) => Ok(None),
        Ok(message) => Ok(Some(message.payload.to_vec())),
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(error) => Err(unavailable("reading from", &error)),
    }
}

/// A deleted key leaves a message that says so.
fn is_deleted(headers: &HeaderMap) -> bool {
    headers.get("KV-Operation").is_some()
}

fn is_missing(error: &GetStreamErrorKind) -> bool {
    matches!(error, GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
}

fn unavailable(what: &'static str, reason: &dyn std::fmt::Display) -> Unavailable {
    Unavailable { what, stream: STREAM.into(), reason: reason.to_string() }
}

fn different(setting: &'static str, found: String, wanted: String) -> OpenError {
    OpenError::Different { stream: STREAM.into(), setting, found, wanted }
}
