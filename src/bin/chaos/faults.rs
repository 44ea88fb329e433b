//! The schedule, carried out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
    time::Duration,
};

use sandbox::stripe::{Fault as StripeFault, Mode};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    cast::Cast,
    proxy::Way,
    schedule::{Fault, Kind, Target, Who},
    tell,
};

/// What a Stripe that says nothing does, and to how many of a hundred.
const MUTE: [(Mode, u8); 6] = [
    (Mode::ResetAfter, 20),
    (Mode::Status500After, 10),
    (Mode::Status500Stored, 5),
    (Mode::HoldAfter, 10),
    (Mode::Status429, 5),
    (Mode::ResetBefore, 10),
];

/// Lets each fault happen at its time until `stop`, and returns when all of them are over: how many there were of each kind.
///
/// # Errors
/// When something that was hurt cannot be mended.
pub(crate) async fn play(
    cast: &Arc<Cast>,
    faults: Vec<Fault>,
    stop: &CancellationToken,
) -> anyhow::Result<BTreeMap<Kind, u64>> {
    let started = Instant::now();
    let counts = Arc::new(Mutex::new(BTreeMap::new()));
    let mut running = JoinSet::new();
    for fault in faults {
        if stop.run_until_cancelled(sleep_until(started + fault.at)).await.is_none() {
            break;
        }
        if cast.skipped.contains_key(&fault.kind) {
            tell(&format!("skipped: {fault}"));
            continue;
        }
        tell(&fault.to_string());
        let (cast, counts) = (cast.clone(), counts.clone());
        running.spawn(async move {
            carry_out(&cast, &fault).await?;
            *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(fault.kind).or_default() += 1;
            anyhow::Ok(())
        });
    }
    while let Some(done) = running.join_next().await {
        done??;
    }
    Ok(counts.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

async fn carry_out(cast: &Cast, fault: &Fault) -> anyhow::Result<()> {
    let Fault { lasts, kind, target, ahead_ms, .. } = *fault;
    match target {
        Target::Process(who) => hurt(cast, who, kind, lasts, ahead_ms).await,
        Target::Nats => {
            // Held, so that two faults whose undoing takes longer than planned follow each other.
            let mut nats = cast.nats.lock().await;
            match &cast.disk {
                Some(disk) if kind == Kind::DiskFull => {
                    disk.fill()?;
                    sleep(lasts).await;
                    disk.free()?;
                }
                _ => {
                    nats.kill();
                    sleep(lasts).await;
                }
            }
            Ok(nats.restart().await?)
        }
        Target::Stripe => {
            match kind {
                Kind::StripeDown => cast.stripe.add_fault(StripeFault::new(Mode::Down)),
                _ => MUTE.into_iter().for_each(|(mode, percent)| {
                    cast.stripe.add_fault(StripeFault::new(mode).percent(percent))
                }),
            }
            sleep(lasts).await;
            let met = cast.stripe.faults().met.values().sum::<u32>();
            cast.stripe_faults_met.fetch_add(met.into(), Relaxed);
            cast.stripe.clear_faults();
            Ok(())
        }
    }
}

async fn hurt(cast: &Cast, who: Who, kind: Kind, lasts: Duration, ahead_ms: i64) -> anyhow::Result<()> {
    let replica = &cast.replicas[&who];
    let way = match kind {
        Kind::Cut => Way::Cut,
        Kind::Stall => Way::Blocked,
        Kind::Deaf => Way::Deaf,
        Kind::Stop => {
            replica.signal("STOP").await?;
            sleep(lasts).await;
            return replica.signal("CONT").await;
        }
        _ => {
            cast.kill(who).await?;
            match kind {
                Kind::Wipe => replica.wipe()?,
                Kind::Clock => replica.ahead_ms.store(ahead_ms, Relaxed),
                _ => {}
            }
            sleep(lasts).await;
            return cast.start_again(who).await;
        }
    };
    replica.way.set(way);
    sleep(lasts).await;
    replica.way.set(Way::Open);
    Ok(())
}
