//! What svc-tickets is told by its environment: the only place that reads it.

use contract::stream::TICKETS;
use eventstore::StoreConfig;
use web::{Env, Keys, Proxies, env::Invalid};

/// Everything that can be set.
#[derive(Clone)]
pub struct Config {
    /// Where the log is, and where its projections go.
    pub store: StoreConfig,
    /// What sessions are checked with.
    pub keys: Keys,
    /// How often each user may ask; 0 is no limit.
    pub requests_per_minute: u32,
    /// Whose word about where a request came from counts.
    pub trusted_proxies: Proxies,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// With the first variable that is missing or wrong.
    pub fn from_env(env: &Env) -> Result<Self, Invalid> {
        Ok(Self {
            store: service::store_config(env, TICKETS)?,
            keys: Keys::from_env(env)?,
            requests_per_minute: service::requests_per_minute(env)?,
            trusted_proxies: Proxies::from_env(env)?,
        })
    }
}
