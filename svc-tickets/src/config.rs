//! What svc-tickets is told by its environment: the only place that reads it.

use contract::stream::TICKETS;
use eventstore::StoreConfig;
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
        Ok(Self { store: service::store_config(env, TICKETS)?, keys: Keys::from_env(env)? })
    }
}
