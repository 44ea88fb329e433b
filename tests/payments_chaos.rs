//! Buyers who pay, change their minds, or do not hear from their banks; sellers who give money back; a Stripe that
//! fails a fifth of the time; and two svc-payments that are killed again and again. Whatever becomes of an order, its
//! buyer was charged if they have the ticket, and else not.

mod support;

use std::time::Duration;

use futures::future::join_all;
use reqwest::StatusCode;
use sandbox::stripe::{Authentication, Delivery, Status};
use serde_json::Value;
use support::{
    Layout, PATIENCE,
    Service::{Orders, Payments},
    System, faults,
    purchase::{ASKS_ITS_OWNER, Purchase, VISA, ledger_equals_log},
    within,
};
use tokio::task::JoinHandle;

const PURCHASES: usize = 120;
/// How often a svc-payments is killed, the two in turn, and after how many events each time.
const KILLS: usize = 6;
const EVENTS: usize = 40;
/// How long to wait for those events: while all wait for their banks there may be none.
const LULL: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_killed_and_whatever_fails_ledger_and_log_end_alike() {
    let mut system = System::start(Layout {
        payments_replicas: 2,
        window_seconds: 20,
        stripe_timeout_seconds: 1,
        reconcile_seconds: 2,
        webhook: Some(Delivery { delay_ms: (0, 1_000), duplicate_percent: 20, lose_percent: 20 }),
        ..Layout::default()
    })
    .await;
    let purchases = Purchase::many(&system, PURCHASES).await;
    faults::let_a_fifth_fail(&system.stripe);

    let asking = ask_all(&system, &purchases);
    kill_in_turn(&mut system).await;
    join_all(asking).await;
    give_some_back(&mut system, &purchases).await;
    let mut complete = 0;
    for purchase in &purchases {
        complete += usize::from(is_complete_in_the_end(&system, purchase).await);
    }
    let met = faults::met(&system.stripe);
    println!("{complete} of {PURCHASES} are complete; faults met: {met}");

    system.stripe.clear_faults();
    ledger_equals_log(&system).await;
    system.is_sound().await;
    for purchase in &purchases {
        is_charged_if_sold(&system, purchase).await;
    }
    assert!(complete > 0 && complete < PURCHASES, "{complete}");
}

/// Everybody pays, a third of them with cards whose banks ask; a fifth cancel at the same time.
fn ask_all(system: &System, purchases: &[Purchase]) -> Vec<JoinHandle<(StatusCode, Value)>> {
    let mut asking = Vec::new();
    for (number, purchase) in purchases.iter().enumerate() {
        let card = if number % 3 == 0 { ASKS_ITS_OWNER } else { VISA };
        asking.push(purchase.start_to_pay(system, card, number % 2));
        if number % 5 == 0 {
            let url = system.url(Orders, 0, &format!("/api/orders/{}", purchase.order));
            let buyer = purchase.buyer.clone();
            asking.push(tokio::spawn(async move { buyer.delete(&url).await }));
        }
    }
    asking
}

/// Kills one svc-payments after the other while the payments go on.
async fn kill_in_turn(system: &mut System) {
    for kill in 1..=KILLS {
        let reached = || async {
            answer_banks(system);
            (system.length("PAYMENTS").await >= (EVENTS * kill) as u64).then_some(())
        };
        // In vain is no error: killed it is either way.
        let _ = within(LULL, reached).await;
        system.kill(Payments, kill % 2).await;
        system.spawn(Payments, kill % 2);
    }
    for replica in 0..2 {
        system.ready(Payments, replica).await;
    }
}

/// The sellers of a fourth give the money back if there is any by then, and who does that for them is killed.
async fn give_some_back(system: &mut System, purchases: &[Purchase]) {
    let fourth: Vec<_> = purchases.iter().step_by(4).collect();
    let one_is_paid = || async {
        answer_banks(system);
        for purchase in &fourth {
            if system.order(&purchase.buyer, &purchase.order).await["status"] == "complete" {
                return Some(());
            }
        }
        None
    };
    within(PATIENCE, one_is_paid).await.expect("one of them is paid");
    let asking: Vec<_> = fourth.iter().map(|purchase| purchase.start_to_refund(system, 0)).collect();
    let first = || async {
        let events = system.read_stream("PAYMENTS").await;
        events.iter().any(|event| event.event_type == "payment:refund-requested").then_some(())
    };
    assert!(within(PATIENCE, first).await.is_some(), "nobody was to get their money back");
    system.restart(Payments, 0).await;
    join_all(asking).await;
}

/// Whether the order ended complete. It may be refunded after that.
async fn is_complete_in_the_end(system: &System, purchase: &Purchase) -> bool {
    let over = || async {
        answer_banks(system);
        match system.order(&purchase.buyer, &purchase.order).await["status"].as_str() {
            Some("complete") => Some(true),
            Some("cancelled") => Some(false),
            _ => None,
        }
    };
    let complete = within(PATIENCE, over).await;
    complete.unwrap_or_else(|| panic!("order {} hangs\n{}", purchase.order, system.log(Payments, 0)))
}

/// Waits until the ticket is sold and charged for in full, or neither.
async fn is_charged_if_sold(system: &System, purchase: &Purchase) {
    let intents = purchase.intents(system);
    let kept = intents.iter().map(|intent| intent.amount_captured - intent.amount_refunded).sum::<i64>();
    assert!(kept == 0 || kept == purchase.cents, "{intents:?}");
    let (order, ticket) = if kept == 0 { ("cancelled", "available") } else { ("complete", "sold") };
    system.until_order(&purchase.buyer, &purchase.order, order).await;
    system.until_ticket(&purchase.ticket, ticket).await;
}

/// Owners of cards: some agree, some do not, and some never say.
fn answer_banks(system: &System) {
    for (number, intent) in system.stripe.ledger().iter().enumerate() {
        let outcome = match number % 4 {
            0 => Authentication::Fails,
            1 | 2 => Authentication::Succeeds,
            _ => continue,
        };
        if intent.status == Status::RequiresAction {
            // In vain where svc-payments has given it up in between.
            let _ = system.stripe.authenticate(&intent.id, outcome);
        }
    }
}
