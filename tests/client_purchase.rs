//! Buying and selling in real browsers: the whole way, its bad ends, and hands that are too quick.

mod browser;
mod support;
mod whole;

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use browser::{
    Look, Shop, Thing, Visitor,
    caller::{Caller, VISA},
};
use reqwest::StatusCode;
use support::{PATIENCE, within};

/// How long a page may take to say something new by itself.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread")]
async fn one_sells_a_ticket_and_another_buys_it_and_both_see_that() {
    let Some(shop) = Shop::open(&[]).await else { return };
    one_sells_and_another_buys(&shop, Look::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_it_works_without_javascript() {
    let Some(shop) = Shop::open(&[]).await else { return };
    one_sells_and_another_buys(&shop, Look::without_scripts()).await;
}

async fn one_sells_and_another_buys(shop: &Shop, look: Look) {
    let (seller, buyer) = (shop.visitor(look).await, shop.visitor(look).await);
    seller.signs_up("seller@example.com").await;
    seller.sells("Concert", "19.99").await;
    seller.reads("Available").await;

    // As a stranger, who is asked to sign in, and is back at the ticket then.
    buyer.goes_to("/").await;
    buyer.follows("Concert").await;
    buyer.presses("Buy for $19.99").await;
    buyer.follows("Sign up").await;
    buyer.fills("Email address", "buyer@example.com").await;
    buyer.fills("Password", browser::caller::PASSWORD).await;
    buyer.presses("Sign Up").await;
    buyer.sees(Thing::Heading, "Concert").await;
    buyer.presses("Buy for $19.99").await;
    buyer.sees(Thing::Heading, "Your order: Concert").await;
    buyer.reads("Reserved for you until").await;
    let order = buyer.path().await;

    seller.follows("My Listings").await;
    reads_at_last(&seller, "Reserved").await;
    seller.follows("Concert").await;
    reads_at_last(&seller, "It cannot be changed while it is reserved or sold.").await;
    assert!(seller.finds(Thing::Field, "Price").await.is_none(), "it can be changed");

    buyer.chooses("A card that pays").await;
    buyer.presses("Pay $19.99").await;
    reads_at_last(&buyer, "It is paid. The ticket is yours.").await;
    assert_eq!(buyer.path().await, order);
    for step in ["You reserved the ticket", "Your card was authorised", "Your card was charged"] {
        reads_at_last(&buyer, step).await;
    }
    buyer.follows("My Orders").await;
    assert!(buyer.text_of("table").await.contains("Concert $19.99 Paid"), "{}", buyer.text().await);

    seller.follows("My Listings").await;
    reads_at_last(&seller, "Sold").await;
    seller.follows("Give the money back").await;
    seller.sees(Thing::Heading, "Give the money back?").await;
    seller.presses("Give $19.99 back").await;
    reads_at_last(&seller, "Available").await;
    buyer.goes_to(&order).await;
    reads_at_last(&buyer, "The seller has given your money back.").await;

    let id = order.trim_start_matches("/orders/");
    assert_eq!(shop.captures(id).await, 1);
    seller.leaves().await;
    buyer.leaves().await;
}

/// Waits until the page says so: by itself, or, as without scripts, when it is loaded again.
async fn reads_at_last(visitor: &Visitor, text: &str) {
    let loaded = Cell::new(Instant::now());
    visitor
        .until(&format!("{text:?}, loading again"), async || {
            if visitor.text().await.contains(text) {
                return Some(());
            }
            // Not at once: what was sent a moment ago is not answered yet, and loading again would take it back.
            if loaded.get().elapsed() > ANSWERED_WITHIN {
                visitor.driver.refresh().await.unwrap();
                loaded.set(Instant::now());
            }
            None
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_card_says_why_and_another_one_pays() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let (buyer, order) = reserved(&shop, Look::default()).await;
    buyer.chooses("A card without enough money").await;
    buyer.presses("Pay $19.99").await;
    buyer.sees(Thing::Heading, "There is a problem").await;
    assert_eq!(buyer.status().await, 402);
    let said = buyer.text_of("#problems").await;
    assert!(said.contains("insufficient funds"), "{said}");
    assert_eq!(shop.captures(&order).await, 0);

    buyer.chooses("A card that pays").await;
    buyer.presses("Pay $19.99").await;
    buyer.reads("It is paid. The ticket is yours.").await;
    assert_eq!(buyer.count("#problems").await, 0, "the old problem is still shown");
    assert_eq!(shop.captures(&order).await, 1);
    buyer.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_asks_its_owner_on_a_page_of_its_own_and_then_the_ticket_is_paid() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let (buyer, order) = reserved(&shop, Look::default()).await;
    buyer.chooses("A card whose bank asks its owner first").await;
    buyer.presses("Pay $19.99").await;
    let shop_window = buyer.driver.window().await.unwrap();
    buyer.follows("Open your bank’s page").await;
    let windows = async || {
        let windows = buyer.driver.windows().await.unwrap();
        windows.into_iter().find(|window| *window != shop_window)
    };
    let bank = buyer.until("the bank's window", windows).await;
    buyer.driver.switch_to_window(bank).await.unwrap();
    buyer.presses("Complete authentication").await;
    buyer.reads("You may close this page.").await;
    buyer.driver.close_window().await.unwrap();
    buyer.driver.switch_to_window(shop_window).await.unwrap();
    buyer.reads("It is paid. The ticket is yours.").await;
    assert_eq!(shop.captures(&order).await, 1);
    buyer.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_buy_one_ticket_at_once_one_gets_it_and_the_other_reads_why() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let seller = shop.caller("seller").await;
    let path = format!("/tickets/{}", seller.lists("Concert", "19.99").await);
    let (ann, bob) = tokio::join!(shop.caller("ann"), shop.caller("bob"));
    // Without scripts: with them the button may be gone before the second one has clicked.
    let look = Look::without_scripts();
    let (ann, bob) = (shop.visits(&ann, look).await, shop.visits(&bob, look).await);
    for visitor in [&ann, &bob] {
        visitor.goes_to(&path).await;
        visitor.sees(Thing::Button, "Buy for $19.99").await;
    }
    tokio::join!(ann.presses("Buy for $19.99"), bob.presses("Buy for $19.99"));

    let got_it = async |visitor: &Visitor| {
        visitor
            .until("an order, or why not", async || match visitor.heading().await.as_str() {
                "Your order: Concert" => Some(true),
                "Concert" if visitor.count("#problems").await == 1 => Some(false),
                _ => None,
            })
            .await
    };
    let loser = match (got_it(&ann).await, got_it(&bob).await) {
        (true, false) => &bob,
        (false, true) => &ann,
        both => panic!("ann, bob: {both:?}"),
    };
    assert_eq!(loser.status().await, 400);
    let said = loser.text_of("#problems").await;
    assert!(said.contains("Ticket is already reserved"), "{said}");
    assert!(loser.finds(Thing::Button, "Buy for").await.is_none(), "it can be bought again");
    ann.leaves().await;
    bob.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_double_click_buys_once_and_pays_once() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let seller = shop.caller("seller").await;
    for (name, look) in [("ann", Look::default()), ("bob", Look::without_scripts())] {
        let ticket = seller.lists("Concert", "19.99").await;
        let caller = shop.caller(name).await;
        let buyer = shop.visits(&caller, look).await;
        buyer.goes_to(&format!("/tickets/{ticket}")).await;
        buyer.presses_twice("Buy for $19.99").await;
        buyer.sees(Thing::Heading, "Your order: Concert").await;
        let order = order_of(&caller).await;
        assert_eq!(buyer.path().await, format!("/orders/{order}"), "somebody else's order");

        buyer.presses_twice("Pay $19.99").await;
        is_paid_once(&shop, &caller, &order).await;
        reads_at_last(&buyer, "It is paid. The ticket is yours.").await;
        buyer.leaves().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_form_was_answered_with_can_be_loaded_again() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let (buyer, order) = reserved(&shop, Look::default()).await;
    // The answer itself: the form is sent again, and declined again.
    buyer.chooses("A card that is declined").await;
    buyer.presses("Pay $19.99").await;
    buyer.sees(Thing::Heading, "There is a problem").await;
    buyer.driver.refresh().await.unwrap();
    buyer.sees(Thing::Heading, "There is a problem").await;

    // Where the answer leads: nothing is sent again.
    buyer.chooses("A card that pays").await;
    buyer.presses("Pay $19.99").await;
    buyer.reads("It is paid. The ticket is yours.").await;
    buyer.driver.refresh().await.unwrap();
    buyer.reads("It is paid. The ticket is yours.").await;
    assert_eq!(shop.captures(&order).await, 1);
    buyer.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_goes_back_pays_nothing_twice() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let seller = shop.caller("seller").await;
    for (name, look) in [("ann", Look::default()), ("bob", Look::without_scripts())] {
        let ticket = seller.lists("Concert", "19.99").await;
        let caller = shop.caller(name).await;
        let buyer = shop.visits(&caller, look).await;
        buyer.goes_to(&format!("/tickets/{ticket}")).await;
        buyer.presses("Buy for $19.99").await;
        buyer.sees(Thing::Heading, "Your order: Concert").await;
        let order = order_of(&caller).await;
        buyer.presses("Pay $19.99").await;
        is_paid_once(&shop, &caller, &order).await;
        reads_at_last(&buyer, "It is paid. The ticket is yours.").await;

        // Back past where one could pay, to where one could buy.
        let at_the_ticket = async || {
            buyer.driver.back().await.unwrap();
            if look.scripts {
                buyer.shows_no("#pay").await;
            }
            (buyer.heading().await == "Concert").then_some(())
        };
        buyer.until("the ticket", at_the_ticket).await;
        // Both once more, as if nothing had happened.
        buyer.posts(&format!("/tickets/{ticket}/buy"), &[]).await;
        buyer.sees(Thing::Heading, "Your order: Concert").await;
        assert_eq!(buyer.path().await, format!("/orders/{order}"));
        buyer.posts(&format!("/orders/{order}/pay"), &[("token", VISA)]).await;
        buyer.sees(Thing::Heading, "Your order: Concert").await;
        assert_eq!(order_of(&caller).await, order);
        is_paid_once(&shop, &caller, &order).await;
        buyer.leaves().await;
    }
}

/// Somebody at the page of their order, and its id.
async fn reserved(shop: &Shop, look: Look) -> (Visitor, String) {
    let (seller, buyer) = tokio::join!(shop.caller("seller"), shop.caller("buyer"));
    let order = buyer.orders(&seller.lists("Concert", "19.99").await).await;
    let visitor = shop.visits(&buyer, look).await;
    visitor.goes_to(&format!("/orders/{order}")).await;
    (visitor, order)
}

/// The one order that there is.
async fn order_of(caller: &Caller) -> String {
    let orders = caller.asks("/api/orders").await;
    assert_eq!(orders.as_array().unwrap().len(), 1, "{orders}");
    support::text(&orders[0]["id"])
}

/// Waits until the order is complete. Then money was taken once, and asking for more takes none.
async fn is_paid_once(shop: &Shop, caller: &Caller, order: &str) {
    caller.until(&format!("/api/orders/{order}"), "complete").await;
    let taken = async || (shop.captures(order).await == 1).then_some(());
    assert!(within(PATIENCE, taken).await.is_some(), "taken {} times", shop.captures(order).await);
    assert_eq!(caller.pays(order, VISA).await, StatusCode::CREATED);
    assert_eq!(shop.captures(order).await, 1);
}
