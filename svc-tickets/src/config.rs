//! What svc-tickets is told by its environment: the only place that reads it.

use std::path::PathBuf;

use contract::stream::{DEAD_LETTERS, DEAD_LETTERS_PREFIX};
use eventstore::{Auth, Settings, StoreConfig};
use web::{Env, Keys, env::Invalid};

/// Everything that can be set.
#[derive(Clone)]
pub struct Config {
    /// Where the log is, and where its projections go.
    pub store: StoreConfig,
    /// What sessions are checked with.
    pub keys: Keys,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// With the first variable that is missing or wrong.
    pub fn from_env(env: &Env) -> Result<Self, Invalid> {
        let data_dir: PathBuf = env.or("DATA_DIR", "./data".into(), "a directory")?;
        Ok(Self {
            store: StoreConfig {
                nats: Settings {
                    url: env.required("NATS_URL", "the address of NATS, nats://host:4222")?,
                    auth: Auth::from_parts(
                        env.optional("NATS_USER", "a NATS user")?,
                        env.optional_secret("NATS_PASSWORD", "that user's password")?,
                        env.optional("NATS_CREDS", "the path of a NATS credentials file")?,
                        env.optional("NATS_NKEY", "the path of a file with the seed of an nkey")?,
                    ),
                    name: "svc-tickets".into(),
                },
                replicas: env.or("NATS_REPLICAS", 1, "1, or 3 on a cluster of NATS servers")?,
                database: data_dir.join("tickets"),
                cache_bytes: 32 << 20,
                dead_letters: DEAD_LETTERS.into(),
                dead_letters_prefix: DEAD_LETTERS_PREFIX.into(),
            },
            keys: Keys::from_env(env)?,
        })
    }
}
