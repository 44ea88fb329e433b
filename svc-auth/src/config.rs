//! What svc-auth is told by its environment: the only place that reads it.

use std::str::FromStr;

use contract::stream::USERS;
use eventstore::StoreConfig;
use web::{Env, Proxies, SessionCookie, Signer, env::Invalid};

use crate::sealing::{MasterKey, MasterKeys};

/// Everything that can be set.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the log is, and where its projections go.
    pub store: StoreConfig,
    /// What sessions are signed and checked with.
    pub signer: Signer,
    /// How the session's cookie is set.
    pub cookie: SessionCookie,
    /// What people's data is sealed with: without it nobody can sign in any more.
    pub master_keys: MasterKeys,
    /// Passwords are hashed by scrypt with N = 2^this: 14 to 20 from the environment, less in tests.
    pub scrypt_log_n: u8,
    /// Whose word about where a request came from counts.
    pub trusted_proxies: Proxies,
    /// How many may sign up from one address; 0 is no limit.
    pub signups_per_minute: u32,
    /// How many may fail to sign in from one address, and ten times as many with one account; 0 is no limit.
    pub signin_failures_per_minute: u32,
}

impl Config {
    /// Reads the environment.
    ///
    /// # Errors
    /// With the first variable that is missing or wrong.
    pub fn from_env(env: &Env) -> Result<Self, Invalid> {
        let per_minute = "a whole number a minute, 0 for no limit";
        Ok(Self {
            store: service::store_config(env, USERS)?,
            signer: Signer::from_env(env)?,
            cookie: SessionCookie { secure: env.or("SECURE_COOKIES", true, "true or false")? },
            master_keys: master_keys(env)?,
            scrypt_log_n: env.or("SCRYPT_LOG_N", LogN(17), "a whole number from 14 to 20")?.0,
            trusted_proxies: Proxies::from_env(env)?,
            signups_per_minute: env.or("SIGNUPS_PER_MINUTE", 60, per_minute)?,
            signin_failures_per_minute: env.or("SIGNIN_FAILURES_PER_MINUTE", 10, per_minute)?,
        })
    }
}

/// Reads `MASTER_KEY`, and `MASTER_KEY_PREVIOUS` if it is set.
fn master_keys(env: &Env) -> Result<MasterKeys, Invalid> {
    let current: MasterKey =
        env.secret("MASTER_KEY", "32 random bytes as 64 hexadecimal digits, behind 2: if it is the second")?;
    let another = "another master key, of another version";
    let previous: Option<MasterKey> = env.optional_secret("MASTER_KEY_PREVIOUS", another)?;
    MasterKeys::new(current, previous.into_iter().collect())
        .map_err(|_version| Invalid::secret("MASTER_KEY_PREVIOUS", another))
}

/// Under 14 a stolen hash is guessed in no time; over 20 one password takes more than a gibibyte.
struct LogN(u8);

impl FromStr for LogN {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().ok().filter(|log_n| (14..=20).contains(log_n)).map(Self).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(changes: &'static [(&'static str, &'static str)]) -> Result<Config, String> {
        let master_key = "0123456789abcdef".repeat(4);
        let env = Env::from(move |name| {
            let usual = match name {
                "NATS_URL" => "nats://127.0.0.1:4222",
                "JWT_KEY" => "a secret of at least 32 characters",
                "MASTER_KEY" => &master_key,
                _ => "",
            };
            Some(
                changes
                    .iter()
                    .find(|(changed, _)| *changed == name)
                    .map_or(usual, |(_, value)| value)
                    .to_owned(),
            )
        });
        Config::from_env(&env).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn what_is_not_set_has_the_documented_default() {
        let config = read(&[]).unwrap();
        assert_eq!(
            (config.scrypt_log_n, config.signups_per_minute, config.signin_failures_per_minute),
            (17, 60, 10)
        );
        assert!(config.cookie.secure);
    }

    #[test]
    fn a_wrong_value_is_named() {
        for (changes, expected) in [
            (
                &[("MASTER_KEY", "")],
                "MASTER_KEY is not set; it must be 32 random bytes as 64 hexadecimal digits, behind 2: if it is the second",
            ),
            (
                &[("MASTER_KEY", "hunter2")],
                "MASTER_KEY is set to something else (not shown); it must be 32 random bytes as 64 hexadecimal digits, behind 2: if it is the second",
            ),
            (
                &[(
                    "MASTER_KEY_PREVIOUS",
                    "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210",
                )],
                "MASTER_KEY_PREVIOUS is set to something else (not shown); it must be another master key, of another version",
            ),
            (&[("SCRYPT_LOG_N", "13")], r#"SCRYPT_LOG_N is "13"; it must be a whole number from 14 to 20"#),
            (&[("SCRYPT_LOG_N", "21")], r#"SCRYPT_LOG_N is "21"; it must be a whole number from 14 to 20"#),
            (&[("SECURE_COOKIES", "no")], r#"SECURE_COOKIES is "no"; it must be true or false"#),
            (
                &[("SIGNUPS_PER_MINUTE", "-1")],
                r#"SIGNUPS_PER_MINUTE is "-1"; it must be a whole number a minute, 0 for no limit"#,
            ),
        ] as [(&'static [_], _); 7]
        {
            assert_eq!(read(changes).err().as_deref(), Some(expected));
        }
    }
}
