//! What goes wrong, where, when and for how long: made of the seed alone, so that a run can be had again.

use std::{collections::BTreeMap, fmt, time::Duration};

use fastrand::Rng;

use crate::service::Service;

/// From one fault to the next, on the average; less where time would not do for one of each kind.
const GAP: Duration = Duration::from_secs(3);
/// How many faults there are at once, at most. The system is to be hurt, not to stand still.
const AT_ONCE: usize = 4;
/// How long whoever had a fault is left alone after it.
const REST: Duration = Duration::from_secs(2);
/// More than the 5 s after which JetStream takes what is not acknowledged to be lost.
const STOPPED: (u64, u64) = (6_000, 11_000);

/// One of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Who {
    pub(crate) service: Service,
    pub(crate) replica: usize,
}

impl Who {
    /// How many there are of each service.
    pub(crate) const REPLICAS: usize = 2;

    /// Everybody.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let of = |service| (0..Self::REPLICAS).map(move |replica| Self { service, replica });
        Service::ALL.into_iter().flat_map(of)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.service, self.replica)
    }
}

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// SIGKILL, and started again.
    Kill,
    /// SIGKILL, and started again without its projections.
    Wipe,
    /// SIGKILL, and started again with another clock.
    Clock,
    /// SIGSTOP, and SIGCONT.
    Stop,
    /// Its connections to NATS are cut, and no new one is let through.
    Cut,
    /// They stay, and nothing passes.
    Stall,
    /// They stay, what it says is heard, and no answer comes; then they are cut.
    Deaf,
    /// SIGKILL to nats-server, and started again.
    NatsKill,
    /// The log's disk is full. Then there is room, and nats-server is started again, which needs that after it.
    DiskFull,
    /// Stripe answers 503 to everything.
    StripeDown,
    /// Stripe does half of what it is asked without saying so: the answer is lost, late, or an error.
    StripeMute,
}

impl Kind {
    /// Each as often as it is dealt before all are shuffled again.
    const DECK: [(Self, usize); 11] = [
        (Self::Kill, 4),
        (Self::Wipe, 2),
        (Self::Clock, 2),
        (Self::Stop, 2),
        (Self::Cut, 2),
        (Self::Stall, 1),
        (Self::Deaf, 2),
        (Self::NatsKill, 1),
        (Self::DiskFull, 1),
        (Self::StripeDown, 1),
        (Self::StripeMute, 1),
    ];

    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::DECK.into_iter().map(|(kind, _)| kind)
    }

    /// As it is counted.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Wipe => "wipe",
            Self::Clock => "clock",
            Self::Stop => "stop",
            Self::Cut => "cut",
            Self::Stall => "stall",
            Self::Deaf => "deaf",
            Self::NatsKill => "nats-kill",
            Self::DiskFull => "disk-full",
            Self::StripeDown => "stripe-down",
            Self::StripeMute => "stripe-mute",
        }
    }

    /// How long it may last, in milliseconds.
    fn range(self) -> (u64, u64) {
        match self {
            Self::Kill | Self::Wipe | Self::Clock | Self::NatsKill => (0, 5_000),
            Self::Stop => STOPPED,
            Self::Cut | Self::Stall | Self::Deaf => (1_000, 9_000),
            Self::DiskFull => (2_000, 5_000),
            Self::StripeDown => (2_000, 8_000),
            Self::StripeMute => (3_000, 10_000),
        }
    }
}

/// Who has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Process(Who),
    Nats,
    Stripe,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(who) => who.fmt(f),
            Self::Nats => f.write_str("nats"),
            Self::Stripe => f.write_str("stripe"),
        }
    }
}

/// One fault to come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault {
    /// Counted from the start.
    pub(crate) at: Duration,
    pub(crate) lasts: Duration,
    pub(crate) kind: Kind,
    pub(crate) target: Target,
    /// How far its clock is ahead from then on, in milliseconds; for [`Kind::Clock`].
    pub(crate) ahead_ms: i64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { lasts, kind, target, ahead_ms, .. } = self;
        write!(f, "{:<11}  {target}, {:.1} s", kind.name(), lasts.as_secs_f64())?;
        match kind {
            Kind::Clock => write!(f, ", then {:+.1} s", *ahead_ms as f64 / 1_000.0),
            _ => Ok(()),
        }
    }
}

/// The faults of a run that lasts so long, in order of time.
pub(crate) fn plan(seed: u64, lasts: Duration, skew: Duration) -> Vec<Fault> {
    let mut rng = Rng::with_seed(seed);
    let cards: usize = Kind::DECK.iter().map(|(_, count)| count).sum();
    let gap = GAP.min(lasts.mul_f64(0.6) / cards as u32);
    let mut free: BTreeMap<Target, Duration> = BTreeMap::new();
    let (mut faults, mut deck) = (Vec::<Fault>::new(), Vec::new());
    let mut at = gap;
    loop {
        let kind = deck.pop().unwrap_or_else(|| {
            deck = Kind::DECK.iter().flat_map(|(kind, count)| std::iter::repeat_n(*kind, *count)).collect();
            rng.shuffle(&mut deck);
            deck.pop().expect("there are kinds")
        });
        let mut busy: Vec<_> =
            faults.iter().map(|fault| fault.at + fault.lasts).filter(|end| *end > at).collect();
        busy.sort();
        if busy.len() >= AT_ONCE {
            at = busy[busy.len() - AT_ONCE];
        }
        let is_free = |target: &Target| free.get(target).is_none_or(|from| *from <= at);
        let target = match kind {
            Kind::NatsKill | Kind::DiskFull => Target::Nats,
            Kind::StripeDown | Kind::StripeMute => Target::Stripe,
            _ => {
                let well: Vec<_> = Who::all().map(Target::Process).filter(is_free).collect();
                rng.choice(well).expect("there are more processes than faults at once")
            }
        };
        at = at.max(free.get(&target).copied().unwrap_or_default());
        if at >= lasts {
            return faults;
        }
        let (least, most) = kind.range();
        let lasts = Duration::from_millis(rng.u64(least..=most));
        let ahead_ms = if kind == Kind::Clock { ahead_ms(&mut rng, skew) } else { 0 };
        free.insert(target, at + lasts + REST);
        faults.push(Fault { at, lasts, kind, target, ahead_ms });
        at += gap.mul_f64(0.5 + rng.f64());
    }
}

/// How far each clock is ahead at the start, in milliseconds.
pub(crate) fn clocks(seed: u64, skew: Duration) -> BTreeMap<Who, i64> {
    // Apart from the faults, so that the two do not change each other.
    let mut rng = Rng::with_seed(!seed);
    Who::all().map(|who| (who, ahead_ms(&mut rng, skew))).collect()
}

fn ahead_ms(rng: &mut Rng, skew: Duration) -> i64 {
    let most = skew.as_millis() as i64;
    rng.i64(-most..=most)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_secs(10);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_seed_makes_the_same_faults_again_and_another_one_others() {
        assert_eq!(plan(7, seconds(600), SKEW), plan(7, seconds(600), SKEW));
        assert_ne!(plan(7, seconds(600), SKEW), plan(8, seconds(600), SKEW));
        assert_eq!(clocks(7, SKEW), clocks(7, SKEW));
    }

    #[test]
    fn each_kind_comes_in_40_seconds_already() {
        for seed in 0..200 {
            let faults = plan(seed, seconds(40), SKEW);
            let missing: Vec<_> =
                Kind::all().filter(|kind| faults.iter().all(|fault| fault.kind != *kind)).collect();
            assert!(missing.is_empty(), "seed {seed}: {missing:?}");
        }
    }

    #[test]
    fn nobody_has_two_faults_at_once_and_not_too_many_have_one() {
        for seed in 0..50 {
            let faults = plan(seed, seconds(1_200), SKEW);
            for (index, fault) in faults.iter().enumerate() {
                let over = |other: &&Fault| other.at + other.lasts > fault.at;
                let others: Vec<_> = faults[..index].iter().filter(over).collect();
                assert!(others.len() < AT_ONCE, "seed {seed}: {others:?}");
                assert!(others.iter().all(|other| other.target != fault.target), "seed {seed}: {fault:?}");
            }
        }
    }
}
