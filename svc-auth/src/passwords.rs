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
use web::{
    Client,
    limit::{AtOnce, Held},
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
/// Of so many places a client has one: so that nobody stands in everybody's way.
const SHARE: usize = 4;

/// Hashes passwords. Clones share the turns.
#[derive(Clone)]
pub struct Passwords {
    params: Params,
    turns: Arc<Semaphore>,
    /// Places for those who have a turn, and for those who wait for one.
    places: Arc<Semaphore>,
    /// How many of those places each client has.
    shares: AtOnce<Client>,
    /// For the one that costs more than ours do, as those have that were made before the cost was lowered.
    costly: Arc<Semaphore>,
    nobodys: Arc<str>,
}

/// The right to hash one password now, until it is dropped.
#[derive(Clone)]
pub struct Turn {
    params: Params,
    nobodys: Arc<str>,
    // Hashing goes on when the caller has left, and then holds the last of these.
    _permits: Arc<(Held<Client>, Vec<OwnedSemaphorePermit>)>,
}

/// Why a password was not hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Too many wait, of all clients or of this one.
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
        let nobodys = blocking(move || hash(params, &sealing::random::<16>()?)).await?;
        let at_once = at_once(params);
        tracing::info!(at_once, "hashing passwords");
        let (turns, places) = (Semaphore::new(at_once), Semaphore::new(at_once * (1 + IN_LINE)));
        let share = places.available_permits() / SHARE;
        Ok(Self {
            params,
            turns: Arc::new(turns),
            places: Arc::new(places),
            shares: AtOnce::new(share),
            costly: Arc::new(Semaphore::new(1)),
            nobodys: nobodys.into(),
        })
    }

    /// Waits for a turn: to hash a password anew, or to hold one against `hash`.
    ///
    /// A hash is computed at the cost that it was made with. Of those that cost more than ours, one at a time: so that
    /// memory is bounded.
    ///
    /// # Errors
    /// At once when too many wait already, or too many of this client's, and else when it does not come within seconds.
    /// When `hash` is not one of ours.
    pub async fn turn(&self, whose: Client, hash: Option<&str>) -> Result<Turn, Error> {
        let costs = hash.map(|hash| Params::try_from(&parse(hash)?)).transpose()?;
        let is_costly = costs.is_some_and(|costs| memory_for(costs) > memory_for(self.params));
        let share = self.shares.take(whose).ok_or(Error::Busy)?;
        let mut permits = vec![self.places.clone().try_acquire_owned().map_err(|_| Error::Busy)?];
        // Whoever waits for the costly one is in no other's way: a turn comes last.
        let wanted = is_costly.then_some(&self.costly).into_iter().chain([&self.turns]);
        let all = async {
            for semaphore in wanted {
                permits.push(semaphore.clone().acquire_owned().await.map_err(|_| Error::BrokenOff)?);
            }
            Ok::<_, Error>(permits)
        };
        let permits = tokio::time::timeout(PATIENCE, all).await.map_err(|_| Error::Busy)??;
        let nobodys = self.nobodys.clone();
        Ok(Turn { params: self.params, nobodys, _permits: Arc::new((share, permits)) })
    }
}

impl Turn {
    /// The password's hash in PHC form, with a salt of its own.
    ///
    /// # Errors
    /// Without randomness.
    pub async fn hash(&self, password: Password) -> Result<String, Error> {
        self.run(move |turn| hash(turn.params, password.as_bytes())).await
    }

    /// Whether it is the password that `hash` was made of: the one that the turn was waited for with. Without one it is
    /// not, and that takes as long to tell as of a hash that costs what ours do: the time does not give away who has an
    /// account.
    ///
    /// # Errors
    /// When `hash` is not one of ours.
    pub async fn verify(&self, password: Password, hash: Option<String>) -> Result<bool, Error> {
        self.run(move |turn| {
            let right = parse(hash.as_deref().unwrap_or(&turn.nobodys))?;
            // As it is spelt, then as it was typed: nobody's hash fits neither, in the same time.
            for bytes in [Some(password.as_bytes()), password.as_typed()].into_iter().flatten() {
                match Scrypt::new_with_params(turn.params).verify_password(bytes, &right) {
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
fn at_once(params: Params) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let fit = |memory: u64| usize::try_from(memory / 2 / memory_for(params)).unwrap_or(AT_ONCE);
    processors.min(memory().map_or(AT_ONCE, fit)).clamp(1, AT_ONCE)
}

/// How many bytes it takes to hash one: scrypt's array (RFC 7914, section 2), 128 MiB with N = 2^17.
fn memory_for(params: Params) -> u64 {
    128 * u64::from(params.r()) * params.n()
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

fn parse(hash: &str) -> Result<PasswordHash, password_hash::Error> {
    Ok(PasswordHash::new(hash)?)
}

fn hash(params: Params, password: &[u8]) -> Result<String, Error> {
    let salt = sealing::random::<16>()?;
    Ok(Scrypt::new_with_params(params).hash_password_with_salt(password, &salt)?.to_string())
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    spawn_blocking(work).await.unwrap_or(Err(Error::BrokenOff))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use tokio::task::JoinHandle;

    use super::*;

    /// Somebody else for each number.
    fn client(number: usize) -> Client {
        Client(Ipv4Addr::from(u32::try_from(number).unwrap()).into())
    }

    async fn hash_of(passwords: &Passwords, password: &str) -> String {
        passwords.turn(client(0), None).await.unwrap().hash(Password::parse(password).unwrap()).await.unwrap()
    }

    async fn verify(passwords: &Passwords, password: &str, hash: Option<&str>) -> Result<bool, Error> {
        let turn = passwords.turn(client(0), hash).await?;
        turn.verify(Password::parse(password).unwrap(), hash.map(str::to_owned)).await
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
        let before = super::hash(passwords.params, typed.as_bytes()).unwrap();
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

    #[tokio::test]
    async fn of_those_that_cost_more_one_is_computed_at_a_time() {
        let costly = hash_of(&Passwords::new(5).await.unwrap(), "hunter22").await;
        let passwords = Passwords::new(4).await.unwrap();
        let ours = hash_of(&passwords, "hunter22").await;
        let other = passwords.costly.clone().acquire_owned().await.unwrap();
        assert_eq!(verify(&passwords, "hunter22", Some(&ours)).await, Ok(true));
        let (passing, costly) = (passwords.clone(), Some(costly));
        let verifying = tokio::spawn(async move { verify(&passing, "hunter22", costly.as_deref()).await });
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(!verifying.is_finished());
        drop(other);
        assert_eq!(verifying.await.unwrap(), Ok(true));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_for_a_turn_is_sent_away() {
        let passwords = Passwords::new(4).await.unwrap();
        let mut turns = Vec::new();
        for number in 0..passwords.turns.available_permits() {
            turns.push(passwords.turn(client(number), None).await.unwrap());
        }
        assert_eq!(passwords.turn(client(99), None).await.err(), Some(Error::Busy));
        drop(turns);
        assert!(passwords.turn(client(99), None).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn who_comes_when_too_many_wait_is_sent_away_at_once() {
        let passwords = Passwords::new(4).await.unwrap();
        let all = passwords.places.available_permits();
        let waiting = wait(&passwords, (0..all).map(client)).await;
        refused_at_once(&passwords, client(99)).await;
        let started = tokio::time::Instant::now();
        for waits in waiting {
            waits.await.unwrap();
        }
        assert!(started.elapsed() >= PATIENCE);
    }

    #[tokio::test(start_paused = true)]
    async fn one_client_leaves_room_for_others() {
        let passwords = Passwords::new(4).await.unwrap();
        let share = passwords.places.available_permits() / SHARE;
        assert!(share > 1);
        wait(&passwords, (0..share).map(|_| client(1))).await;
        refused_at_once(&passwords, client(1)).await;
        let other = passwords.clone();
        let mut other = tokio::spawn(async move { other.turn(client(2), None).await.err() });
        tokio::task::yield_now().await;
        assert!(!other.is_finished());
        // All turns are held for ever here.
        assert_eq!((&mut other).await.unwrap(), Some(Error::Busy));
    }

    /// They wait, or hold a turn that they never give back.
    async fn wait(passwords: &Passwords, all: impl Iterator<Item = Client>) -> Vec<JoinHandle<()>> {
        let wait = |client| {
            let passwords = passwords.clone();
            tokio::spawn(async move {
                if let Ok(turn) = passwords.turn(client, None).await {
                    std::mem::forget(turn);
                }
            })
        };
        let waiting = all.map(wait).collect();
        tokio::task::yield_now().await;
        waiting
    }

    async fn refused_at_once(passwords: &Passwords, client: Client) {
        let started = tokio::time::Instant::now();
        assert_eq!(passwords.turn(client, None).await.err(), Some(Error::Busy));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }
}
