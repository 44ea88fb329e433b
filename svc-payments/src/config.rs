//! What svc-payments is told by its environment: the only place that reads it.

use std::{
    num::{NonZeroU8, NonZeroU32},
    time::Duration,
};

use contract::stream::PAYMENTS;
use eventstore::StoreConfig;
use web::{Env, Keys, env::Invalid};

pub use crate::{
    domain::Currency,
    stripe::{ApiBase, SecretKey},
    webhook::{Secret, Secrets},
};

/// Everything that can be set.
#[derive(Clone)]
pub struct Config {
    /// Where the log is, and where its projections go.
    pub store: StoreConfig,
    /// What sessions are checked with.
    pub keys: Keys,
    /// How often each user may ask; 0 is no limit.
    pub requests_per_minute: u32,
    /// Who we are to Stripe.
    pub stripe_key: SecretKey,
    /// Where Stripe is, or a sandbox that answers as it does.
    pub stripe_api_base: ApiBase,
    /// How long Stripe may take for an answer before it is asked again.
    pub stripe_timeout: Duration,
    /// What Stripe signs its webhook with; the one before it, too, while it is changed.
    pub webhook_secrets: Secrets,
    /// How often log and Stripe are laid side by side.
    pub reconcile_every: Duration,
    /// What is charged in.
    pub currency: Currency,
    /// How long a request to pay waits for its outcome before it is answered with 202.
    pub patience: Duration,
}

/// Stripe answers within a second or two. And a shutdown waits for what runs, but not much longer than this.
const STRIPE_TIMEOUT_SECONDS: NonZeroU8 = NonZeroU8::new(8).unwrap();
const RECONCILE_SECONDS: NonZeroU32 = NonZeroU32::new(300).unwrap();
const WEBHOOK_SECRET: &str = "the signing secret of a Stripe webhook endpoint, whsec_…";
/// Less than a shutdown waits for requests that run.
const PATIENCE: Duration = Duration::from_secs(7);

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// With the first variable that is missing or wrong.
    pub fn from_env(env: &Env) -> Result<Self, Invalid> {
        Ok(Self {
            store: service::store_config(env, PAYMENTS)?,
            keys: Keys::from_env(env)?,
            requests_per_minute: service::requests_per_minute(env)?,
            stripe_key: env
                .secret("STRIPE_KEY", "a Stripe secret key; the all-in-one starts a sandbox instead")?,
            stripe_api_base: env.or("STRIPE_API_BASE", ApiBase::default(), "an http or https address")?,
            stripe_timeout: env
                .or("STRIPE_TIMEOUT_SECONDS", STRIPE_TIMEOUT_SECONDS, "seconds, from 1 to 255")
                .map(|seconds| Duration::from_secs(seconds.get().into()))?,
            webhook_secrets: Secrets::new(
                env.optional_secret::<Secret>("STRIPE_WEBHOOK_SECRET", WEBHOOK_SECRET)?,
                env.optional_secret::<Secret>("STRIPE_WEBHOOK_SECRET_PREVIOUS", WEBHOOK_SECRET)?,
            ),
            reconcile_every: env
                .or("RECONCILE_SECONDS", RECONCILE_SECONDS, "seconds, 1 or more")
                .map(|seconds| Duration::from_secs(seconds.get().into()))?,
            currency: env.or(
                "CURRENCY",
                Currency::default(),
                "a currency with cents, in lower case, as usd",
            )?,
            patience: PATIENCE,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(name: &'static str, value: &'static str) -> String {
        let env = Env::from(move |asked| match asked {
            _ if asked == name => Some(value.to_owned()),
            "NATS_URL" => Some("nats://localhost:4222".to_owned()),
            "JWT_KEY" => Some("a key for tests, of more than 32 characters".to_owned()),
            "STRIPE_KEY" => Some("sk_test_1".to_owned()),
            _ => None,
        });
        Config::from_env(&env).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn it_does_not_start_without_a_stripe_key_that_is_secret() {
        let right = "it must be a Stripe secret key; the all-in-one starts a sandbox instead";
        assert_eq!(refused("STRIPE_KEY", ""), format!("STRIPE_KEY is not set; {right}"));
        let published = refused("STRIPE_KEY", "pk_test_1");
        assert_eq!(published, format!("STRIPE_KEY is set to something else (not shown); {right}"));
    }

    #[test]
    fn it_does_not_start_in_a_currency_without_cents() {
        assert_eq!(
            refused("CURRENCY", "jpy"),
            r#"CURRENCY is "jpy"; it must be a currency with cents, in lower case, as usd"#
        );
        assert_eq!(refused("CURRENCY", "eur"), "");
    }
}
