//! Limits per client address, in this process: each replica counts for itself.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

const MINUTE: Duration = Duration::from_secs(60);
/// How many addresses are remembered before those that no longer matter are looked for.
const MANY: usize = 1_024;

/// At most so many at once, and so many a minute, of each address: the generic cell rate algorithm, that is a bucket
/// that refills evenly.
#[derive(Debug)]
pub struct Limit {
    /// How long it takes to refill one; `None` when there is no limit.
    refill: Option<Duration>,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// When the bucket of each address is full again.
    full_at: HashMap<IpAddr, Instant>,
    prune_at: usize,
}

/// Over the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many of one address")]
pub struct TooMany {
    /// How long until one more is let through.
    pub retry_after: Duration,
}

impl Limit {
    /// So many a minute; 0 is no limit.
    pub fn per_minute(count: u32) -> Self {
        let seen = Seen { full_at: HashMap::new(), prune_at: MANY };
        Self { refill: (count > 0).then(|| MINUTE / count), seen: Mutex::new(seen) }
    }

    /// Whether one more may be counted. Counts nothing.
    ///
    /// # Errors
    /// When it may not.
    pub fn check(&self, client: IpAddr, now: Instant) -> Result<(), TooMany> {
        match self.refill {
            Some(refill) => self.seen().check(bucket(client), now, refill),
            None => Ok(()),
        }
    }

    /// Counts one, whether or not it may be.
    pub fn count(&self, client: IpAddr, now: Instant) {
        if let Some(refill) = self.refill {
            self.seen().count(bucket(client), now, refill);
        }
    }

    /// Counts one, if it may be.
    ///
    /// # Errors
    /// When it may not.
    pub fn take(&self, client: IpAddr, now: Instant) -> Result<(), TooMany> {
        let Some(refill) = self.refill else { return Ok(()) };
        let mut seen = self.seen();
        seen.check(bucket(client), now, refill)?;
        seen.count(bucket(client), now, refill);
        Ok(())
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn check(&self, client: IpAddr, now: Instant, refill: Duration) -> Result<(), TooMany> {
        let full_at = self.full_at.get(&client).copied().unwrap_or(now);
        // With one more it would be full only after a minute: there is none left.
        let retry_after = (full_at + refill).saturating_duration_since(now + MINUTE);
        if retry_after.is_zero() { Ok(()) } else { Err(TooMany { retry_after }) }
    }

    fn count(&mut self, client: IpAddr, now: Instant, refill: Duration) {
        if self.full_at.len() >= self.prune_at {
            self.full_at.retain(|_, full_at| *full_at > now);
            // Twice what is left: looking through all of them stays rare however many there are.
            self.prune_at = (self.full_at.len() * 2).max(MANY);
        }
        let full_at = self.full_at.entry(client).or_insert(now);
        *full_at = now.max(*full_at) + refill;
    }
}

/// Whom an address belongs to: with IPv6 one customer has the whole last half of it to choose from.
fn bucket(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn so_many_at_once_and_then_evenly() {
        let (limit, now, client) = (Limit::per_minute(3), Instant::now(), ip("192.0.2.1"));
        for _ in 0..3 {
            assert_eq!(limit.take(client, now), Ok(()));
        }
        assert_eq!(limit.take(client, now), Err(TooMany { retry_after: Duration::from_secs(20) }));
        let later = now + Duration::from_secs(15);
        assert_eq!(limit.take(client, later), Err(TooMany { retry_after: Duration::from_secs(5) }));
        let later = now + Duration::from_secs(20);
        assert_eq!(limit.take(client, later), Ok(()));
        assert!(limit.take(client, later).is_err());
        let much_later = now + Duration::from_secs(3600);
        assert_eq!((0..9).filter(|_| limit.take(client, much_later).is_ok()).count(), 3);
    }

    #[test]
    fn to_check_counts_nothing() {
        let (limit, now, client) = (Limit::per_minute(1), Instant::now(), ip("192.0.2.1"));
        for _ in 0..9 {
            assert_eq!(limit.check(client, now), Ok(()));
        }
        limit.count(client, now);
        assert!(limit.check(client, now).is_err());
    }

    #[test]
    fn clients_do_not_share_a_limit_but_one_network_does() {
        let (limit, now) = (Limit::per_minute(1), Instant::now());
        for (client, free) in [
            ("192.0.2.1", true),
            ("192.0.2.2", true),
            ("::ffff:192.0.2.2", false),
            ("2001:db8::1", true),
            ("2001:db8::ffff:2", false),
            ("2001:db8:0:1::1", true),
        ] {
            assert_eq!(limit.take(ip(client), now).is_ok(), free, "{client}");
        }
    }

    #[test]
    fn zero_is_no_limit() {
        let limit = Limit::per_minute(0);
        assert!((0..1_000).all(|_| limit.take(ip("192.0.2.1"), Instant::now()).is_ok()));
    }

    #[test]
    fn addresses_are_forgotten() {
        let (limit, now) = (Limit::per_minute(60), Instant::now());
        for number in 0..10_000_u32 {
            limit.count(IpAddr::V4(number.into()), now + Duration::from_millis(number.into()) * 10);
        }
        assert!(limit.seen().full_at.len() <= 2 * MANY);
    }
}
