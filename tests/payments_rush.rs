//! A thousand payments at once, while a fifth of all requests to Stripe fails: none is lost, none is made twice.

mod support;

use std::time::Duration;

use futures::{StreamExt, stream};
use reqwest::StatusCode;
use sandbox::stripe::Delivery;
use support::{
    Layout,
    Service::Payments,
    System, faults,
    purchase::{Purchase, VISA, ledger_equals_log},
    within,
};
use tokio::time::Instant;

const COUNT: usize = 1_000;
/// How many wait for an answer at a time: each is a socket, and 1,024 files for a process are a usual limit.
const AT_ONCE: usize = 500;
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(180);

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_payments_under_faults_are_a_thousand_charges() {
    let layout = Layout {
        payments_replicas: 2,
        stripe_timeout_seconds: 1,
        webhook: Some(Delivery { delay_ms: (0, 500), duplicate_percent: 10, lose_percent: 10 }),
        ..Layout::default()
    };
    let system = System::start(layout).await;
    let purchases = Purchase::many(&system, COUNT).await;
    faults::let_a_fifth_fail(&system.stripe);

    let (started, system) = (Instant::now(), &system);
    let answers: Vec<_> = stream::iter(purchases.iter().enumerate())
        .map(|(number, purchase)| async move {
            loop {
                let answer = system.try_pay_at(&purchase.buyer, &purchase.order, VISA, number % 2).await;
                // That promises nothing, and says so: its rows are late, as five hundred ask at once.
                if answer.0 != StatusCode::SERVICE_UNAVAILABLE || started.elapsed() > PATIENCE {
                    return answer;
                }
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let answered = started.elapsed();
    for (status, answer) in &answers {
        assert!([StatusCode::CREATED, StatusCode::ACCEPTED].contains(status), "{status}: {answer}");
    }
    // Created, awaiting its payment, complete.
    let complete = || async { (system.length("ORDERS").await >= 3 * COUNT as u64).then_some(()) };
    let all = within(PATIENCE, complete).await;
    let met = faults::met(&system.stripe);
    println!(
        "{COUNT} payments were answered in {answered:?}, complete after {:?}; faults met: {met}",
        started.elapsed()
    );
    if all.is_none() {
        panic!("not all are complete\n{}", system.log(Payments, 0));
    }

    system.stripe.clear_faults();
    ledger_equals_log(system).await;
    system.is_sound().await;
    let ledger = system.stripe.ledger();
    assert_eq!(ledger.iter().map(|intent| intent.captures).sum::<u32>(), COUNT as u32);
    let completed = system.read_stream("ORDERS").await;
    assert_eq!(completed.iter().filter(|event| event.event_type == "order:completed").count(), COUNT);
    assert!(met as usize > COUNT / 5, "too few faults: {met}");
}
