//! What the pages are told by their environment: the only place that reads it.

use std::str::FromStr;

use reqwest::Url;
use web::{Env, env::Invalid};

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the API is: the ingress, or whatever sends each path to its service.
    pub api_url: ApiUrl,
    /// How cards are taken.
    pub stripe: Stripe,
}

/// How cards are taken.
#[derive(Clone, Debug)]
pub enum Stripe {
    /// By Stripe's own form in the visitor's browser, with this key of ours that everybody may see.
    Live(PublishableKey),
    /// By a form that offers the sandbox's cards.
    Sandbox {
        /// Where the visitor's browser reaches the sandbox: its bank asks there whether it was the card's owner.
        url: Option<String>,
    },
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// With the first variable that is missing or wrong.
    pub fn from_env(env: &Env) -> Result<Self, Invalid> {
        let key = env.optional("STRIPE_PUBLISHABLE_KEY", "a publishable key of Stripe's, pk_…")?;
        let sandbox =
            env.optional::<ApiUrl>("STRIPE_SANDBOX_URL", "the sandbox's address, http://host:port")?;
        Ok(Self {
            api_url: env.required("API_URL", "the address of the API, http://host:port")?,
            stripe: match key {
                Some(key) => Stripe::Live(key),
                None => Stripe::Sandbox { url: sandbox.map(|url| url.0) },
            },
        })
    }
}

/// An http address without a path.
#[derive(Clone, Debug)]
pub struct ApiUrl(String);

impl ApiUrl {
    /// The address, without a slash at its end.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApiUrl {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let url = text.parse::<Url>().map_err(|_| ())?;
        let plain = url.scheme() == "http" && url.has_host() && url.path() == "/" && url.query().is_none();
        if plain { Ok(Self(url.origin().ascii_serialization())) } else { Err(()) }
    }
}

/// A key that Stripe's script is started with. No secret.
#[derive(Clone, Debug)]
pub struct PublishableKey(String);

impl PublishableKey {
    /// The key.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PublishableKey {
    type Err = ();

    // A secret key in this place would be shown to everybody.
    fn from_str(text: &str) -> Result<Self, ()> {
        let is_key = text.strip_prefix("pk_").is_some_and(|rest| {
            rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') && !rest.is_empty()
        });
        is_key.then(|| Self(text.to_owned())).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_api_is_at_a_plain_address() {
        let check = |text: &str, expected: Option<&str>| {
            let url = text.parse::<ApiUrl>().ok();
            assert_eq!(url.as_ref().map(ApiUrl::as_str), expected, "{text}");
        };
        check("http://localhost:3000", Some("http://localhost:3000"));
        check("http://ingress/", Some("http://ingress"));
        for wrong in ["", "localhost:3000", "https://ingress", "http://ingress/api", "http://a/?b=c"] {
            check(wrong, None);
        }
    }

    #[test]
    fn a_secret_key_is_not_shown_to_everybody() {
        assert!("pk_test_51abc".parse::<PublishableKey>().is_ok());
        for wrong in ["sk_test_51abc", "pk_", "pk_test\"><script>", ""] {
            assert!(wrong.parse::<PublishableKey>().is_err(), "{wrong}");
        }
    }
}
