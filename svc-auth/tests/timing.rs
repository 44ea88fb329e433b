//! How long a refusal takes does not tell whether anybody has the address.

mod service;

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use sandbox::nats::NatsServer;
use svc_auth::Config;
use tempfile::TempDir;

use crate::service::{Service, config, newcomer};

/// How often each is tried: enough that a difference of a tenth shows.
const TRIES: usize = 150;

/// How many standard deviations apart two of the same are once in 30,000 runs.
const ALIKE: f64 = 4.0;

/// How far apart two samples are, in standard deviations, by which of each pair is the larger
/// (Mann and Whitney's U, as a normal deviate). A few outliers, as on a machine that others share, count as any.
fn apart(one: &[Duration], other: &[Duration]) -> f64 {
    let wins: f64 = one
        .iter()
        .flat_map(|one| other.iter().map(move |other| one.cmp(other)))
        .map(|order| match order {
            std::cmp::Ordering::Less => 0.0,
            std::cmp::Ordering::Equal => 0.5,
            std::cmp::Ordering::Greater => 1.0,
        })
        .sum();
    let (one, other) = (one.len() as f64, other.len() as f64);
    (wins - one * other / 2.0) / (one * other * (one + other + 1.0) / 12.0).sqrt()
}

#[test]
fn samples_that_differ_are_told_from_those_that_do_not() {
    let sample = |from: u64| {
        (0..TRIES as u64).map(|at| Duration::from_micros(from + at * 7 % 100)).collect::<Vec<_>>()
    };
    assert!(apart(&sample(1_000), &sample(1_000)).abs() < 0.1);
    assert!(apart(&sample(1_040), &sample(1_000)) > ALIKE);
    assert!(apart(&sample(1_000), &sample(1_040)) < -ALIKE);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_wrong_are_told_apart_by_nobody() {
    let (nats, dir) = (NatsServer::temporary().await.unwrap(), TempDir::new().unwrap());
    // Costly enough that leaving the hash out would be most of the difference, and quick enough for many tries.
    let auth = Service::start(Config { scrypt_log_n: 12, ..config(&nats, dir.path()) }).await;
    for number in 0..TRIES {
        newcomer(&auth, &format!("known{number}@example.com"), "correct horse").await;
    }
    let refusal = async |email: String, password: &str| {
        let started = Instant::now();
        let answer = auth.sign_in(&email, password).await;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        started.elapsed()
    };
    let (mut wrong, mut unknown, mut shapeless) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..TRIES {
        // In turns, so that whatever else the machine does falls on both; and each of the two comes first as often.
        let (known, stranger) = (format!("known{number}@example.com"), format!("other{number}@example.com"));
        if number % 2 == 0 {
            wrong.push(refusal(known, "wrong horse").await);
            unknown.push(refusal(stranger, "wrong horse").await);
        } else {
            unknown.push(refusal(stranger, "wrong horse").await);
            wrong.push(refusal(known, "wrong horse").await);
        }
        // What is refused before anything is looked up: a difference that has to show.
        shapeless.push(refusal("nobody".into(), "wrong horse").await);
    }
    let apart_are = apart(&wrong, &unknown);
    assert!(apart_are.abs() < ALIKE, "{apart_are} standard deviations");
    assert!(apart(&wrong, &shapeless) > ALIKE);
    auth.stop().await;
}
