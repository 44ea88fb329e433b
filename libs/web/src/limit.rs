//! Limits of what one client, or one user, may do. Each process counts for itself.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::ApiError;

const MINUTE: Duration = Duration::from_secs(60);
/// How many are remembered before those that no longer matter are looked for.
const MANY: usize = 1_024;

/// At most so many at once, and so many a minute, of each: the generic cell rate algorithm, that is a bucket that refills
/// evenly.
#[derive(Debug)]
pub struct Limit<K> {
    /// How long it takes to refill one; `None` when there is no limit.
    refill: Option<Duration>,
    seen: Mutex<Seen<K>>,
}

#[derive(Debug)]
struct Seen<K> {
    /// When the bucket of each is full again.
    full_at: HashMap<K, Instant>,
    prune_at: usize,
}

/// Over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many of one kind")]
pub struct TooMany {
    /// How long until one more is let through.
    pub retry_after: Duration,
}

impl From<TooMany> for ApiError {
    fn from(TooMany { retry_after }: TooMany) -> Self {
        // Rounded up: never so soon that it would be refused again.
        let begun = u64::from(retry_after.subsec_nanos() > 0);
        ApiError::too_many_requests(retry_after.as_secs() + begun)
    }
}

impl<K: Eq + Hash> Limit<K> {
    /// So many a minute; 0 is no limit.
    pub fn per_minute(count: u32) -> Self {
        let seen = Seen { full_at: HashMap::new(), prune_at: MANY };
        Self { refill: (count > 0).then(|| MINUTE / count), seen: Mutex::new(seen) }
    }

    /// Whether one more may be counted. Counts nothing.
    ///
    /// # Errors
    /// When it may not.
    pub fn check(&self, whose: &K, now: Instant) -> Result<(), TooMany> {
        match self.refill {
            Some(refill) => self.seen().check(whose, now, refill),
            None => Ok(()),
        }
    }

    /// Counts one, whether or not it may be.
    pub fn count(&self, whose: K, now: Instant) {
        if let Some(refill) = self.refill {
            self.seen().count(whose, now, refill);
        }
    }

    /// Counts one, if it may be.
    ///
    /// # Errors
    /// When it may not.
    pub fn take(&self, whose: K, now: Instant) -> Result<(), TooMany> {
        let Some(refill) = self.refill else { return Ok(()) };
        let mut seen = self.seen();
        seen.check(&whose, now, refill)?;
        seen.count(whose, now, refill);
        Ok(())
    }

    fn seen(&self) -> MutexGuard<'_, Seen<K>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Seen<K> {
    fn check(&self, whose: &K, now: Instant, refill: Duration) -> Result<(), TooMany> {
        let full_at = self.full_at.get(whose).copied().unwrap_or(now);
        // With one more it would be full only after a minute: there is none left.
        let retry_after = (full_at + refill).saturating_duration_since(now + MINUTE);
        if retry_after.is_zero() { Ok(()) } else { Err(TooMany { retry_after }) }
    }

    fn count(&mut self, whose: K, now: Instant, refill: Duration) {
        if self.full_at.len() >= self.prune_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            // Twice what is left: looking through all of them stays rare however many there are.
            self.prune_at = (self.full_at.len() * 2).max(MANY);
        }
        let full_at = self.full_at.entry(whose).or_insert(now);
        *full_at = now.max(*full_at) + refill;
    }
}

/// So many at once of each, for as long as they hold what [`take`](Self::take) gave them. Clones share it.
#[derive(Debug)]
pub struct AtOnce<K: Eq + Hash> {
    most: usize,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

/// One of those at once, until it is dropped.
#[derive(Debug)]
pub struct Held<K: Eq + Hash> {
    whose: K,
    before: usize,
    held: Arc<Mutex<HashMap<K, usize>>>,
}

impl<K: Eq + Hash> Clone for AtOnce<K> {
    fn clone(&self) -> Self {
        Self { most: self.most, held: Arc::clone(&self.held) }
    }
}

impl<K: Eq + Hash + Clone> AtOnce<K> {
    /// At most so many of each.
    pub fn new(most: usize) -> Self {
        Self { most, held: Arc::default() }
    }

    /// One more; `None` when all are held.
    pub fn take(&self, whose: K) -> Option<Held<K>> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let count = held.entry(whose.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        let before = *count;
        *count += 1;
        drop(held);
        Some(Held { whose, before, held: Arc::clone(&self.held) })
    }
}

impl<K: Eq + Hash> Held<K> {
    /// How many the same held already when this one was taken.
    pub fn before(&self) -> usize {
        self.before
    }
}

impl<K: Eq + Hash> Drop for Held<K> {
    fn drop(&mut self) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = held.get_mut(&self.whose) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.whose);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_at_once_and_then_evenly() {
        let (limit, now, ann) = (Limit::per_minute(3), Instant::now(), "ann");
        for _ in 0..3 {
            assert_eq!(limit.take(ann, now), Ok(()));
        }
        assert_eq!(limit.take(ann, now), Err(TooMany { retry_after: Duration::from_secs(20) }));
        assert_eq!(limit.take("bob", now), Ok(()));
        let later = now + Duration::from_secs(15);
        assert_eq!(limit.take(ann, later), Err(TooMany { retry_after: Duration::from_secs(5) }));
        let later = now + Duration::from_secs(20);
        assert_eq!(limit.take(ann, later), Ok(()));
        assert!(limit.take(ann, later).is_err());
        let much_later = now + Duration::from_secs(3600);
        assert_eq!((0..9).filter(|_| limit.take(ann, much_later).is_ok()).count(), 3);
    }

    #[test]
    fn to_check_counts_nothing() {
        let (limit, now, ann) = (Limit::per_minute(1), Instant::now(), "ann");
        for _ in 0..9 {
            assert_eq!(limit.check(&ann, now), Ok(()));
        }
        limit.count(ann, now);
        assert!(limit.check(&ann, now).is_err());
    }

    #[test]
    fn zero_is_no_limit() {
        let limit = Limit::per_minute(0);
        assert!((0..1_000).all(|_| limit.take("ann", Instant::now()).is_ok()));
    }

    #[test]
    fn who_has_all_back_is_forgotten() {
        let (limit, now) = (Limit::per_minute(60), Instant::now());
        for number in 0..10_000_u64 {
            limit.count(number, now + Duration::from_millis(number) * 10);
        }
        assert!(limit.seen().full_at.len() <= 2 * MANY);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let at_once = AtOnce::new(2);
        let (one, two) = (at_once.take("ann"), at_once.take("ann"));
        assert_eq!([&one, &two].map(|held| held.as_ref().map(Held::before)), [Some(0), Some(1)]);
        assert!(at_once.take("ann").is_none());
        assert!(at_once.take("bob").is_some());
        drop(one);
        assert!(at_once.take("ann").is_some());
        drop(two);
        assert!(at_once.held.lock().unwrap().is_empty());
    }
}
