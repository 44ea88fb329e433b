//! Expiry against payment: the order's log decides, and the money follows it.

mod support;

use std::{collections::HashMap, time::Duration};

use contract::Timestamp;
use futures::{StreamExt, stream};
use support::{Layout, System};

const ORDERS: u64 = 200;

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_complete_and_charged_or_cancelled_and_not() {
    let system = System::start(Layout { window_seconds: 6, ..Layout::default() }).await;
    let seller = system.person();
    let purchases: Vec<_> = stream::iter(0..ORDERS)
        .map(|number| {
            let (system, seller) = (&system, &seller);
            async move {
                let buyer = system.person();
                let ticket = system.list_ticket(seller, 10.0).await;
                let order = system.reserve(&buyer, &ticket).await;
                let expires_at = system.order(&buyer, &order).await["expiresAt"].clone();
                let expires_at: Timestamp = serde_json::from_value(expires_at).unwrap();
                // Spread over the moment of expiry: 150 ms before to 150 ms after.
                let left = expires_at.since(Timestamp::from(std::time::SystemTime::now()));
                let offset = Duration::from_millis(number * 300 / ORDERS);
                tokio::time::sleep((left + offset).saturating_sub(Duration::from_millis(150))).await;
                system.try_pay(&buyer, &order, "pm_card_visa").await;
                (buyer, ticket, order)
            }
        })
        .buffer_unordered(ORDERS as usize)
        .collect()
        .await;

    let mut complete = 0;
    for (buyer, ticket, order) in &purchases {
        let settled = || async {
            let status = support::text(&system.order(buyer, order).await["status"]);
            (status == "complete" || status == "cancelled").then_some(status)
        };
        let status = support::within(support::PATIENCE, settled).await.expect("settled in time");
        system.until_ticket(ticket, if status == "complete" { "sold" } else { "available" }).await;
        complete += u64::from(status == "complete");

        let matches = || async {
            let mut captured = HashMap::<String, i64>::new();
            let mut held = false;
            for intent in system.stripe.ledger() {
                if intent.metadata.values().any(|value| value == order) {
                    *captured.entry(order.clone()).or_default() += intent.amount_captured;
                    held |= intent.status == sandbox::stripe::Status::RequiresCapture;
                }
            }
            let charged = captured.get(order).copied().unwrap_or(0);
            let expected = if status == "complete" { 1000 } else { 0 };
            (charged == expected && !held).then_some(())
        };
        support::within(support::PATIENCE, matches)
            .await
            .unwrap_or_else(|| panic!("order {order} is {status}; the ledger: {:?}", system.stripe.ledger()));
    }
    println!("{complete} of {ORDERS} were paid in time");
    assert!(complete > 0 && complete < ORDERS, "no race: {complete} of {ORDERS} complete");
}
