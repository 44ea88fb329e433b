//! What svc-expiration is told by its environment: the only place that reads it.

use contract::stream::EXPIRATIONS;
use eventstore::StoreConfig;
use web::{Env, env::Invalid};

/// Everything that can be set.
#[derive(Clone)]
pub struct Config {
    /// Where the log is, and where its projections go.
    pub store: StoreConfig,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// With the first variable that is missing or wrong.
    pub fn from_env(env: &Env) -> Result<Self, Invalid> {
        Ok(Self { store: service::store_config(env, EXPIRATIONS)? })
    }
}
