//! What every service of the marketplace has alike: what its environment tells of the log, of who the service is there
//! and where its projections go; and whose sessions are over, which the log tells.
//!
//! A crate of its own, as it joins what is kept apart: the event store knows no environment and no marketplace, and the
//! pages, which read an environment, no log.

mod sessions;

use std::{path::PathBuf, str::FromStr};

use contract::stream::{DEAD_LETTERS, DEAD_LETTERS_PREFIX, Stream};
use eventstore::{Auth, Settings, SnapshotConfig, StoreConfig};
use web::{Env, env::Invalid};

pub use sessions::{Ended, requests_per_minute, sessions};

/// How much of its projections each service keeps in memory, in megabytes.
const CACHE_MEGABYTES: u64 = 16;

/// How many events come before another snapshot of the projections is made: some seconds of replaying.
const SNAPSHOT_EVERY: u64 = 100_000;

/// How the service that owns a stream reaches the log, and where its projections are.
///
/// # Errors
/// With the first variable that is missing or wrong.
pub fn store_config(env: &Env, owned: Stream) -> Result<StoreConfig, Invalid> {
    let data_dir: PathBuf = env.or("DATA_DIR", "./data".into(), "a directory")?;
    Ok(StoreConfig {
        nats: nats_settings(
            env,
            env.required("NATS_URL", "the address of NATS, nats://host:4222")?,
            owned.source,
        )?,
        replicas: env.or("NATS_REPLICAS", 1, "1, or 3 on a cluster of NATS servers")?,
        // Several services may share one DATA_DIR: `orders` is that of svc-orders.
        database: data_dir.join(owned.source.trim_start_matches("svc-")),
        cache_bytes: env
            .or(
                "PROJECTION_CACHE_MB",
                Megabytes(CACHE_MEGABYTES),
                "a whole number of megabytes from 1 to 65536",
            )?
            .0
            << 20,
        snapshots: snapshots(env, owned)?,
        dead_letters: DEAD_LETTERS.into(),
        dead_letters_prefix: DEAD_LETTERS_PREFIX.into(),
    })
}

struct Megabytes(u64);

impl FromStr for Megabytes {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        text.parse().ok().filter(|megabytes| (1..=65_536).contains(megabytes)).map(Self).ok_or(())
    }
}

fn snapshots(env: &Env, owned: Stream) -> Result<Option<SnapshotConfig>, Invalid> {
    let every = env.or("SNAPSHOT_EVERY_EVENTS", SNAPSHOT_EVERY, "a number of events, or 0 for none")?;
    Ok((every > 0).then(|| SnapshotConfig { bucket: snapshot_bucket(owned), every }))
}

/// The object store's bucket where the service that owns a stream keeps its projections for replicas to come.
pub fn snapshot_bucket(owned: Stream) -> String {
    format!("snapshots-{}", owned.source)
}

/// How `name` reaches NATS at `url`, and proves who it is.
///
/// # Errors
/// With the first variable that is wrong.
pub fn nats_settings(env: &Env, url: String, name: &str) -> Result<Settings, Invalid> {
    Ok(Settings {
        url,
        auth: Auth::from_parts(
            env.optional("NATS_USER", "a NATS user")?,
            env.optional_secret("NATS_PASSWORD", "that user's password")?,
            env.optional("NATS_CREDS", "the path of a NATS credentials file")?,
            env.optional("NATS_NKEY", "the path of a file with the seed of an nkey")?,
        ),
        ca: env.optional("NATS_CA", "the path of a PEM file with the authority of NATS' certificates")?,
        name: name.into(),
    })
}

#[cfg(test)]
mod tests {
    use contract::stream::{ALL, ORDERS};

    use super::*;

    fn read(set: &'static [(&'static str, &'static str)]) -> Result<StoreConfig, String> {
        let value = move |name: &str| {
            let mut set = set.iter();
            set.find(|(asked, _)| *asked == name).map(|(_, value)| (*value).to_owned())
        };
        store_config(&Env::from(value), ORDERS).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn what_is_not_set_has_the_documented_default() {
        let config = read(&[("NATS_URL", "nats://nats:4222")]).unwrap();
        assert_eq!(config.nats.name, "svc-orders");
        assert_eq!((config.replicas, config.database), (1, PathBuf::from("./data/orders")));
        assert_eq!(config.cache_bytes, 16 << 20);
        assert_eq!((format!("{:?}", config.nats.auth), config.nats.ca), ("None".to_owned(), None));
    }

    #[test]
    fn it_is_told_who_it_is_and_whom_to_believe() {
        let set = &[
            ("NATS_URL", "nats://nats:4222"),
            ("NATS_USER", "x"),
            ("NATS_NKEY", "/keys/nats.nk"),
            ("NATS_CA", "/keys/ca.pem"),
        ];
        let nats = read(set).unwrap().nats;
        assert_eq!(format!("{:?}", nats.auth), "Nkey", "the stronger proof");
        assert_eq!(nats.ca, Some("/keys/ca.pem".into()));
    }

    #[test]
    fn a_wrong_value_is_named() {
        let url = r"NATS_URL is not set; it must be the address of NATS, nats://host:4222";
        assert_eq!(read(&[]).unwrap_err(), url);
        let replicas = r#"NATS_REPLICAS is "many"; it must be 1, or 3 on a cluster of NATS servers"#;
        assert_eq!(read(&[("NATS_URL", "x"), ("NATS_REPLICAS", "many")]).unwrap_err(), replicas);
    }

    #[test]
    fn how_much_is_kept_in_memory_can_be_said() {
        let cache = |set| read(set).map(|config| config.cache_bytes);
        assert_eq!(cache(&[("NATS_URL", "x"), ("PROJECTION_CACHE_MB", "64")]), Ok(64 << 20));
        let wrong = r#"PROJECTION_CACHE_MB is "0"; it must be a whole number of megabytes from 1 to 65536"#;
        assert_eq!(cache(&[("NATS_URL", "x"), ("PROJECTION_CACHE_MB", "0")]), Err(wrong.to_owned()));
    }

    #[test]
    fn in_one_directory_they_do_not_meet() {
        let env = Env::from(|name| (name == "NATS_URL").then(|| "nats://nats:4222".to_owned()));
        let mut places: Vec<_> =
            ALL.iter().map(|stream| store_config(&env, *stream).unwrap().database).collect();
        places.sort();
        places.dedup();
        assert_eq!(places.len(), ALL.len());
    }
}
