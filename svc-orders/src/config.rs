//! What svc-orders is told by its environment: the only place that reads it.

use std::time::Duration;

use contract::stream::ORDERS;
use eventstore::StoreConfig;
use web::{Env, Keys, env::Invalid};

/// Everything that can be set.
#[derive(Clone)]
pub struct Config {
    /// Where the log is, and where its projections go.
    pub store: StoreConfig,
    /// What sessions are checked with.
    pub keys: Keys,
    /// How long a reservation lasts unless a card is authorised.
    pub window: Duration,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// With the first variable that is missing or wrong.
    pub fn from_env(env: &Env) -> Result<Self, Invalid> {
        let window = env.or("EXPIRATION_WINDOW_SECONDS", 900, "a whole number of seconds")?;
        Ok(Self {
            store: service::store_config(env, ORDERS)?,
            keys: Keys::from_env(env)?,
            window: Duration::from_secs(window),
        })
    }
}
