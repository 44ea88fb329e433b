//! Where each user's wrapped key is kept: a key-value bucket in JetStream, outside the log, so that it can be deleted.
//!
//! Under `<user id>` stands the wrapped key of [`sealing`](crate::sealing); under `master-key` the fingerprint of the
//! master key, so that a service with another one does not start instead of knowing nobody.
//!
//! Absent: a cache, and direct get. What was deleted is gone at once, what was put is there at once, on any replica.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_nats::{
    HeaderMap,
    jetstream::{
        ErrorCode,
        context::GetStreamErrorKind,
        kv,
        stream::{LastRawMessageErrorKind, StorageType},
    },
};
use contract::UserId;
use eventstore::{Connection, OpenError, Unavailable};
use tokio_util::sync::CancellationToken;

/// The bucket. In JetStream a bucket is a stream whose name begins with `KV_`.
pub const BUCKET: &str = "user-keys";
const STREAM: &str = "KV_user-keys";
const MASTER_KEY: &str = "master-key";
/// How often the server is asked again while it does not answer.
const AGAIN: Duration = Duration::from_millis(500);

/// The users' wrapped keys. Clones share the bucket.
#[derive(Clone, Debug)]
pub struct UserKeys(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    connection: Connection,
    bucket: OnceLock<kv::Store>,
}

impl UserKeys {
    /// The keys behind `connection`, once [`open`](Self::open) has opened them.
    pub fn new(connection: &Connection) -> Self {
        Self(Arc::new(Inner { connection: connection.clone(), bucket: OnceLock::new() }))
    }

    /// Creates the bucket if it is missing, as soon as the server answers.
    ///
    /// # Errors
    /// When it exists with other settings, or for another master key.
    pub async fn open(
        &self,
        replicas: usize,
        fingerprint: &str,
        shutdown: &CancellationToken,
    ) -> Result<(), OpenError> {
        loop {
            match self.try_open(replicas, fingerprint).await {
                Err(OpenError::Unavailable(error)) => tracing::info!(%error, "waiting for nats"),
                result => return result,
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// Whether keys can be put and got.
    pub fn is_open(&self) -> bool {
        self.0.bucket.get().is_some()
    }

    /// Keeps a user's wrapped key. When this returns `Ok` it is on disk.
    ///
    /// # Errors
    /// When the server does not answer, or refuses: it may be kept or not.
    pub async fn put(&self, owner: UserId, wrapped: Vec<u8>) -> Result<(), Unavailable> {
        let put = self.bucket()?.put(owner.to_string(), wrapped.into()).await;
        put.map(|_| ()).map_err(|error| unavailable("putting into", &error))
    }

    /// The wrapped key of a user; `None` when there is none, or no longer.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn get(&self, owner: UserId) -> Result<Option<Vec<u8>>, Unavailable> {
        get(self.bucket()?, &owner.to_string()).await
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

    fn bucket(&self) -> Result<&kv::Store, Unavailable> {
        // Better to say so at once than to wait for an answer that cannot come.
        if !self.0.connection.is_up() {
            return Err(unavailable("reaching", &"not connected"));
        }
        self.0.bucket.get().ok_or_else(|| unavailable("reaching", &"not opened yet"))
    }

    async fn try_open(&self, replicas: usize, fingerprint: &str) -> Result<(), OpenError> {
        let bucket = self.create(replicas).await?;
        match get(&bucket, MASTER_KEY).await? {
            None => {
                let put = bucket.create(MASTER_KEY, fingerprint.to_owned().into()).await;
                put.map_err(|error| unavailable("putting into", &error))?;
            }
            Some(found) if found == fingerprint.as_bytes() => {}
            Some(found) => {
                let found = String::from_utf8_lossy(&found).into_owned();
                return Err(different("master key, by its fingerprint,", found, fingerprint.into()));
            }
        }
        let _ = self.0.bucket.set(bucket);
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
