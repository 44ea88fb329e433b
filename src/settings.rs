//! What the environment says, and what is computed where it says nothing.

use std::{collections::HashMap, fs, path::PathBuf};

use anyhow::Context;
use web::{Env, KeyPairText, env::Invalid};

use crate::secrets;

/// What the all-in-one itself has to know.
pub(crate) struct Settings {
    /// Where the API is; 0 is a free port.
    pub(crate) port: u16,
    /// Where everything is kept.
    pub(crate) data_dir: PathBuf,
    /// Whether NATS is somewhere else already.
    pub(crate) nats_url: Option<String>,
    /// Whether payments go to the sandbox.
    pub(crate) stripe_is_sandbox: bool,
}

impl Settings {
    /// Reads the environment.
    ///
    /// # Errors
    /// With the first variable that is wrong.
    pub(crate) fn from_env(env: &Env) -> Result<Self, Invalid> {
        // A key would say whose server it is: without one, payments would quietly go to the sandbox instead.
        if env.optional::<String>("STRIPE_API_BASE", "an http or https address")?.is_some() {
            env.secret::<String>("STRIPE_KEY", "the key for the server at STRIPE_API_BASE")?;
        }
        // A live key alone would leave visitors with test cards, and a promise that no card is charged.
        let key = env.optional_secret::<String>("STRIPE_KEY", "a Stripe secret key")?;
        let publishable = "STRIPE_PUBLISHABLE_KEY";
        if key.is_some_and(|key| key.starts_with("sk_live_")) {
            env.required::<String>(publishable, "the publishable key that belongs to a live STRIPE_KEY")?;
        }
        if env.optional::<String>(publishable, "a publishable key of Stripe's")?.is_some() {
            env.secret::<String>("STRIPE_KEY", "the key that belongs to STRIPE_PUBLISHABLE_KEY")?;
        }
        Ok(Self {
            port: env.or("PORT", 3000, "a port number from 0 to 65535, 0 for a free one")?,
            data_dir: env.or("DATA_DIR", "./data".into(), "a directory")?,
            nats_url: env.optional("NATS_URL", "the address of NATS, nats://host:4222")?,
            stripe_is_sandbox: env.optional_secret::<String>("STRIPE_KEY", "a Stripe secret key")?.is_none(),
        })
    }

    /// What the services read: the environment, and where it says nothing, what only the all-in-one knows. So
    /// each variable is parsed in one place, the service's own.
    ///
    /// # Errors
    /// When a key that nobody set cannot be kept.
    pub(crate) fn for_services(&self, env: &Env, around: &Around) -> anyhow::Result<Env> {
        let data_dir = self.data_dir.display();
        fs::create_dir_all(&self.data_dir).with_context(|| format!("DATA_DIR {data_dir} cannot be made"))?;
        let mut computed = HashMap::from([
            ("NATS_URL", around.nats_url.clone()),
            ("API_URL", around.own_url.clone()),
            ("DATA_DIR", data_dir.to_string()),
            // Browsers would not send them back over http.
            ("SECURE_COOKIES", "false".into()),
        ]);
        if let Some(url) = &around.stripe_sandbox_url {
            computed.insert("STRIPE_API_BASE", url.clone());
            computed.insert("STRIPE_KEY", "sk_test_sandbox".into());
            computed.insert("STRIPE_SANDBOX_URL", url.clone());
        }
        let mut keys = vec![("MASTER_KEY", "", "master.key")];
        match said(env, "JWT_PRIVATE_KEY") {
            // Who has that to sign with needs no other. What is wrong with it is told where it is read.
            Some(private) => {
                let public = KeyPairText::public_of(&private).unwrap_or_default();
                computed.insert("JWT_PUBLIC_KEYS", public);
            }
            None => keys.push(("JWT_KEY", "", "jwt.key")),
        }
        // What the one of before has signed is still good.
        if keys.len() == 1 && self.data_dir.join("jwt.key").exists() {
            keys.push(("JWT_KEY", "", "jwt.key"));
        }
        if self.stripe_is_sandbox {
            keys.push(("STRIPE_WEBHOOK_SECRET", "whsec_", "stripe-webhook.key"));
        }
        for (name, prefix, file) in keys {
            if said(env, name).is_none() {
                let key = secrets::kept(&self.data_dir.join(file))?;
                computed.insert(name, format!("{prefix}{key}"));
            }
        }
        let env = env.clone();
        Ok(Env::from(move |name| said(&env, name).or_else(|| computed.get(name).cloned())))
    }
}

/// Where the world around the services is.
pub(crate) struct Around {
    /// Where this process itself is reached.
    pub(crate) own_url: String,
    /// The log.
    pub(crate) nats_url: String,
    /// The sandbox, if payments go there.
    pub(crate) stripe_sandbox_url: Option<String>,
}

impl Around {
    /// Addresses that nothing is sent to, to see whether all the rest is right.
    pub(crate) fn unknown() -> Self {
        let nowhere = "127.0.0.1:9";
        Self {
            own_url: format!("http://{nowhere}"),
            nats_url: format!("nats://{nowhere}"),
            stripe_sandbox_url: Some(format!("http://{nowhere}")),
        }
    }
}

/// What the environment itself says. Whether that is right is judged where it is read.
fn said(env: &Env, name: &str) -> Option<String> {
    env.optional(name, "text").ok().flatten()
}
