//! Hashing passwords: slow on purpose, so off the async threads and a few at a time.

use std::{fs, sync::Arc, time::Duration};

use scrypt::{
    Params, Scrypt,
    password_hash::{self, PasswordHasher, PasswordVerifier, phc::PasswordHash},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

use crate::{domain::Password, sealing};

/// scrypt's other parameters: with N = 2^17 what OWASP recommends (Password Storage Cheat Sheet).
const R: u32 = 8;
const P: u32 = 1;
/// How many are hashed at once at most, on however many processors and in however much memory.
const AT_ONCE: usize = 4;
/// How long somebody waits for their turn.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many wait for each turn: about as many as get theirs in time. Whoever else comes is sent away at once.
const IN_LINE: usize = 12;

/// Hashes passwords. Clones share the turns.
#[derive(Clone)]
pub struct Passwords {
    scrypt: Scrypt,
    turns: Arc<Semaphore>,
    /// Places for those who have a turn, and for those who wait for one.
    places: Arc<Semaphore>,
    nobodys: Arc<str>,
}

/// The right to hash one password now, until it is dropped.
#[derive(Clone)]
pub struct Turn {
    scrypt: Scrypt,
    nobodys: Arc<str>,
    // Hashing goes on when the caller has left, and then holds the last of these.
    _permits: Arc<[OwnedSemaphorePermit; 2]>,
}

/// Why a password was not hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too many others wait.
    #[error("too many passwords are being hashed")]
    Busy,
    /// There is no randomness for a salt.
    #[error(transparent)]
    Salt(#[from] sealing::Error),
    /// A hash is not one of ours, or the parameters are none of scrypt's.
    #[error("a password's hash: {0}")]
    Hash(#[from] password_hash::Error),
    /// Hashing was broken off, as at the end of the process.
    #[error("hashing a password was broken off")]
    BrokenOff,
}

impl Passwords {
    /// Hashes with N = 2^`log_n`.
    ///
    /// # Errors
    /// When scrypt does not take that, or there is no randomness.
    pub async fn new(log_n: u8) -> Result<Self, Error> {
        let params = Params::new(log_n, R, P).map_err(|_| password_hash::Error::ParamsInvalid)?;
        let scrypt = Scrypt::new_with_params(params);
        let nobodys = blocking(move || hash(&scrypt, &sealing::random::<16>()?)).await?;
        let at_once = at_once(log_n);
        tracing::info!(at_once, "hashing passwords");
        let (turns, places) = (Semaphore::new(at_once), Semaphore::new(at_once * (1 + IN_LINE)));
        Ok(Self { scrypt, turns: Arc::new(turns), places: Arc::new(places), nobodys: nobodys.into() })
    }

    /// Waits for a turn.
    ///
    /// # Errors
    /// At once when too many wait already, and else when it does not come within seconds.
    pub async fn turn(&self) -> Result<Turn, Error> {
        let Ok(place) = self.places.clone().try_acquire_owned() else { return Err(Error::Busy) };
        let permit = tokio::time::timeout(PATIENCE, self.turns.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else { return Err(Error::Busy) };
        let permits = Arc::new([place, permit]);
        Ok(Turn { scrypt: self.scrypt, nobodys: self.nobodys.clone(), _permits: permits })
    }
}

impl Turn {
    /// The password's hash in PHC form, with a salt of its own.
    ///
    /// # Errors
    /// Without randomness.
    pub async fn hash(&self, password: Password) -> Result<String, Error> {
        self.run(move |turn| hash(&turn.scrypt, password.as_bytes())).await
    }

    /// Whether it is the password that `hash` was made of. Without one it is not, and that takes as long to tell:
    /// the time does not give away who has an account.
    ///
    /// # Errors
    /// When `hash` is not one of ours.
    pub async fn verify(&self, password: Password, hash: Option<String>) -> Result<bool, Error> {
        self.run(move |turn| {
            let right = PasswordHash::new(hash.as_deref().unwrap_or(&turn.nobodys))
                .map_err(password_hash::Error::from)?;
            // As it is spelt, then as it was typed: nobody's hash fits neither, in the same time.
            for bytes in [Some(password.as_bytes()), password.as_typed()].into_iter().flatten() {
                match turn.scrypt.verify_password(bytes, &right) {
                    Ok(()) => return Ok(hash.is_some()),
                    Err(password_hash::Error::PasswordInvalid) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(false)
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        hashing: impl FnOnce(&Self) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let turn = self.clone();
        blocking(move || hashing(&turn)).await
    }
}

/// How many can be hashed at once: one for each processor, in half of the memory that there is.
fn at_once(log_n: u8) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    // scrypt's array (RFC 7914, section 2): 128 MiB with N = 2^17.
    let each = (128 * u64::from(R)) << log_n;
    let in_memory = memory().map_or(AT_ONCE, |memory| usize::try_from(memory / 2 / each).unwrap_or(AT_ONCE));
    processors.min(in_memory).clamp(1, AT_ONCE)
}

/// What this process may have in memory, in bytes: what its container says, or the whole machine.
fn memory() -> Option<u64> {
    let container = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let container = container.and_then(|limit| limit.trim().parse().ok());
    let machine = fs::read_to_string("/proc/meminfo").ok().and_then(|info| {
        let total = info.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        total.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kibibytes| kibibytes * 1024)
    });
    container.into_iter().chain(machine).min()
}

fn hash(scrypt: &Scrypt, password: &[u8]) -> Result<String, Error> {
    let salt = sealing::random::<16>()?;
    Ok(scrypt.hash_password_with_salt(password, &salt)?.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.unwrap_or(Err(Error::BrokenOff))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn hash_of(passwords: &Passwords, password: &str) -> String {
        passwords.turn().await.unwrap().hash(Password::parse(password).unwrap()).await.unwrap()
    }

    async fn verify(passwords: &Passwords, password: &str, hash: Option<&str>) -> Result<bool, Error> {
        let hash = hash.map(str::to_owned);
        passwords.turn().await.unwrap().verify(Password::parse(password).unwrap(), hash).await
    }

    #[tokio::test]
    async fn a_password_fits_its_own_hash_alone() {
        let passwords = Passwords::new(4).await.unwrap();
        let hash = hash_of(&passwords, "hunter22").await;
        assert!(hash.starts_with("$scrypt$ln=4,r=8,p=1$"), "{hash}");
        assert_eq!(verify(&passwords, "hunter22", Some(&hash)).await, Ok(true));
        assert_eq!(verify(&passwords, "hunter23", Some(&hash)).await, Ok(false));
        assert_eq!(verify(&passwords, "hunter22", None).await, Ok(false));
        assert!(verify(&passwords, "hunter22", Some("$argon2id$v=19$x")).await.is_err());
        assert_ne!(hash_of(&passwords, "hunter22").await, hash);
    }

    #[tokio::test]
    async fn who_signed_up_before_passwords_had_one_spelling_still_signs_in() {
        let passwords = Passwords::new(4).await.unwrap();
        // An umlaut as a letter and two dots, hashed as it was typed.
        let typed = "scho\u{308}nes wetter";
        let before = super::hash(&passwords.scrypt, typed.as_bytes()).unwrap();
        assert_eq!(verify(&passwords, typed, Some(&before)).await, Ok(true));
        let now = hash_of(&passwords, typed).await;
        assert_eq!(verify(&passwords, "sch\u{f6}nes wetter", Some(&now)).await, Ok(true));
        assert_eq!(verify(&passwords, typed, Some(&now)).await, Ok(true));
        assert_eq!(verify(&passwords, "scho\u{308}nes Wetter", Some(&before)).await, Ok(false));
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_still_fits() {
        let cheap = hash_of(&Passwords::new(4).await.unwrap(), "hunter22").await;
        assert_eq!(verify(&Passwords::new(5).await.unwrap(), "hunter22", Some(&cheap)).await, Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_for_a_turn_is_sent_away() {
        let passwords = Passwords::new(4).await.unwrap();
        let mut turns = Vec::new();
        for _ in 0..passwords.turns.available_permits() {
            turns.push(passwords.turn().await.unwrap());
        }
        assert_eq!(passwords.turn().await.err(), Some(Error::Busy));
        drop(turns);
        assert!(passwords.turn().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_when_too_many_wait_is_sent_away_at_once() {
        let passwords = Passwords::new(4).await.unwrap();
        let all = passwords.places.available_permits();
        let waiting: Vec<_> = (0..all)
            .map(|_| {
                tokio::spawn({
                    let passwords = passwords.clone();
                    // A turn that is never given back.
                    async move { passwords.turn().await.map(std::mem::forget) }
                })
            })
            .collect();
        tokio::task::yield_now().await;
        let started = tokio::time::Instant::now();
        assert_eq!(passwords.turn().await.err(), Some(Error::Busy));
        assert_eq!(started.elapsed(), Duration::ZERO);
        for waits in waiting {
            waits.await.unwrap().ok();
        }
        assert!(started.elapsed() >= PATIENCE);
    }
}
