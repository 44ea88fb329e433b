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
    /// How often each user may ask; 0 is no limit.
    pub requests_per_minute: u32,
    /// How long a reservation lasts unless a card is authorised.
    pub window: Duration,
    /// How many reservations each user may have open at once; 0 is no limit.
    pub max_open_orders: usize,
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
            requests_per_minute: service::requests_per_minute(env)?,
            window: Duration::from_secs(window),
            max_open_orders: env.or("MAX_OPEN_ORDERS", 10, "a whole number, 0 for no limit")?,
        })
    }
}
