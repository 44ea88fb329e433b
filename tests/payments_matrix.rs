//! Every step of a payment under every fault that Stripe or the way there can have, svc-payments killed in the middle
//! of it or not: afterwards the card was charged once and the order is complete, or neither; and Stripe's ledger
//! equals the log.
//!
//! Stripe's events are lost here: nothing helps but asking again.

mod support;

use std::time::Duration;

use futures::future::join_all;
use reqwest::StatusCode;
use sandbox::stripe::{Fault, Mode, Step};
use serde_json::Value;
use support::{
    Layout, PATIENCE,
    Service::Payments,
    System, faults,
    purchase::{Purchase, VISA, ledger_equals_log},
};
use tokio::{task::JoinHandle, time::timeout};

/// How often a request fails before it gets through, where svc-payments lives on.
const TIMES: u32 = 2;

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_held_once() {
    passes(Step::Create).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_held_once_by_a_service_that_is_killed() {
    survives(Step::Create).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_charged_once() {
    passes(Step::Capture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_charged_once_by_a_service_that_is_killed() {
    survives(Step::Capture).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_let_go() {
    passes(Step::Cancel).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_card_is_let_go_by_a_service_that_is_killed() {
    survives(Step::Cancel).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_goes_back_once() {
    passes(Step::Refund).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn money_goes_back_once_from_a_service_that_is_killed() {
    survives(Step::Refund).await;
}

/// Every fault a few times, and svc-payments asks until there is an answer.
async fn passes(step: Step) {
    let layout = Layout { stripe_timeout_seconds: 1, webhook: None, ..Layout::default() };
    let system = System::start(layout).await;
    let met = meet_all(&system, step, Duration::from_millis(500), Some(TIMES)).await;
    for Met { mode, purchase, asking } in met {
        let (status, answer) = asking.await.unwrap();
        let expected: &[_] = match step {
            // The order was given up meanwhile.
            Step::Cancel => &[StatusCode::BAD_REQUEST, StatusCode::ACCEPTED],
            Step::Refund => &[StatusCode::OK, StatusCode::ACCEPTED],
            _ => &[StatusCode::CREATED, StatusCode::ACCEPTED],
        };
        assert!(expected.contains(&status), "{mode:?}: {status} {answer}");
        ends_right(&system, step, &purchase).await;
    }
    ledger_equals_log(&system).await;
    system.is_sound().await;
}

/// Every fault without an end, until svc-payments is killed by SIGKILL. Its next life finds Stripe well.
async fn survives(step: Step) {
    let mut system = System::start(Layout { webhook: None, ..Layout::default() }).await;
    let met = meet_all(&system, step, PATIENCE, None).await;
    system.kill(Payments, 0).await;
    system.stripe.clear_faults();
    system.restart(Payments, 0).await;
    for Met { purchase, .. } in &met {
        ends_right(&system, step, purchase).await;
    }
    ledger_equals_log(&system).await;
    system.is_sound().await;
}

/// A purchase whose step has met a fault.
struct Met {
    mode: Mode,
    purchase: Purchase,
    /// What asked for the step, and waits for its answer.
    asking: JoinHandle<(StatusCode, Value)>,
}

/// Has a purchase for each fault, and each meet it at `step`, `times` at most: all at once, as they are about
/// different orders.
async fn meet_all(system: &System, step: Step, delay: Duration, times: Option<u32>) -> Vec<Met> {
    let met = faults::ALL.map(async |mode| {
        let purchase = match step {
            Step::Refund => Purchase::bought(system).await,
            _ => Purchase::reserved(system).await,
        };
        let mut fault = Fault::new(mode).at(step).only(("order_id", &purchase.order));
        fault.times = times;
        if mode == Mode::Delay {
            fault = fault.delay(delay);
        }
        system.stripe.add_fault(fault);
        let asking = match step {
            Step::Refund => purchase.start_to_refund(system, 0),
            Step::Cancel => give_up_while_paying(system, &purchase).await,
            _ => purchase.start_to_pay(system, VISA, 0),
        };
        let met = timeout(PATIENCE, system.stripe.until_met(&purchase.order)).await;
        assert!(met.is_ok(), "{mode:?} was not met at {step:?}\n{}", system.log(Payments, 0));
        Met { mode, purchase, asking }
    });
    join_all(met).await
}

/// Cancels the order while its card is being held: the hold is to be let go.
async fn give_up_while_paying(system: &System, purchase: &Purchase) -> JoinHandle<(StatusCode, Value)> {
    // By another value, so that it can be cleared alone.
    let slow = Fault::new(Mode::HoldBefore).at(Step::Create).only(("ticket_id", &purchase.ticket));
    system.stripe.add_fault(slow);
    let paying = purchase.start_to_pay(system, VISA, 0);
    let met = timeout(PATIENCE, system.stripe.until_met(&purchase.ticket)).await;
    assert!(met.is_ok(), "stripe was not asked\n{}", system.log(Payments, 0));
    purchase.cancel(system).await;
    system.stripe.clear_faults_of(&purchase.ticket);
    paying
}

async fn ends_right(system: &System, step: Step, purchase: &Purchase) {
    match step {
        Step::Cancel => purchase.is_not_bought(system, "buyer").await,
        Step::Refund => purchase.is_refunded(system).await,
        _ => purchase.is_bought(system).await,
    }
}
