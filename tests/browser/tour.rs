//! Every page, in each of its states.

use serde_json::json;

use super::{
    Look, Shop, Thing, Visitor,
    alone::ClientAlone,
    caller::{PASSWORD, VISA},
};

/// What the all-in-one is told for a tour: to wait for Stripe no longer than it has to.
pub(crate) const VARIABLES: [(&str, &str); 1] = [("STRIPE_TIMEOUT_SECONDS", "2")];

/// As long as a title may be, in one word.
const LONG: usize = 200;

/// Leads a visitor through all of them; `look_at` sees each under its name.
pub(crate) async fn tour(shop: &Shop, look: Look, mut look_at: impl AsyncFnMut(&Visitor, &str)) {
    let visitor = shop.visitor(look).await;
    let mut look_at = async |name: &str| {
        look_at(&visitor, name).await;
        assert_eq!(visitor.complaints().await, Vec::<String>::new(), "{name}");
    };

    // Signed out, in an empty shop.
    look_at("home-empty").await;
    for (path, name) in [
        ("/auth/signup", "sign-up"),
        ("/auth/signin", "sign-in"),
        ("/api/docs", "docs"),
        ("/nothing/here", "not-found"),
    ] {
        visitor.goes_to(path).await;
        look_at(name).await;
    }
    visitor.goes_to("/auth/signup").await;
    visitor.fills("Email address", "nobody").await;
    visitor.fills("Password", "short").await;
    visitor.presses("Sign Up").await;
    visitor.sees(Thing::Heading, "There is a problem").await;
    look_at("sign-up-wrong").await;
    visitor.goes_to("/auth/signin").await;
    visitor.fills("Email address", "nobody@example.com").await;
    visitor.fills("Password", "not this one").await;
    visitor.presses("Sign In").await;
    visitor.sees(Thing::Heading, "There is a problem").await;
    look_at("sign-in-wrong").await;

    // Signed in, with nothing yet.
    let (seller, buyer, other) =
        tokio::join!(shop.caller("seller"), shop.caller("buyer"), shop.caller("other"));
    visitor.is_now(Some(&buyer)).await;
    for (path, name) in [
        ("/orders", "orders-empty"),
        ("/listings", "listings-empty"),
        ("/account", "account"),
        ("/auth/signout", "sign-out"),
        ("/tickets/new", "sell"),
    ] {
        visitor.goes_to(path).await;
        look_at(name).await;
    }
    visitor.presses("List it").await;
    visitor.sees(Thing::Heading, "There is a problem").await;
    look_at("sell-wrong").await;

    // Tickets.
    let bought = seller.lists("Opera: The Magic Flute, stalls, row 4", "89").await;
    let refunded = seller.lists("Chess final, day 2", "12.50").await;
    let reserved =
        seller.lists("Jazz at the harbour, two seats, 12 December, doors open at seven", "40").await;
    let cancelled = seller.lists("Museum night", "7.5").await;
    let declined = seller.lists("Cinema: the late show", "9.99").await;
    let asked = seller.lists("Football, north stand", "55").await;
    let under_way = seller.lists("Ballet", "120").await;
    seller.lists(&"W".repeat(LONG), "999999.99").await;
    let ticket = seller.lists("Concert", "19.99").await;
    visitor.goes_to("/").await;
    look_at("home").await;
    visitor.goes_to("/?search=nothing+like+it").await;
    look_at("search-empty").await;
    visitor.goes_to("/?search=the").await;
    look_at("search").await;

    let path = format!("/tickets/{ticket}");
    visitor.goes_to(&path).await;
    look_at("ticket").await;
    visitor.is_now(None).await;
    visitor.goes_to(&path).await;
    look_at("ticket-signed-out").await;
    visitor.goes_to("/").await;
    look_at("home-signed-out").await;
    visitor.is_now(Some(&seller)).await;
    visitor.goes_to(&path).await;
    look_at("ticket-own").await;
    visitor.fills("Price", "-1").await;
    visitor.presses("Save").await;
    visitor.sees(Thing::Heading, "There is a problem").await;
    look_at("ticket-own-wrong").await;
    let others = other.orders(&reserved).await;
    visitor.goes_to(&format!("/tickets/{reserved}")).await;
    visitor.reads("Reserved").await;
    look_at("ticket-own-reserved").await;
    visitor.is_now(Some(&buyer)).await;
    visitor.goes_to(&format!("/tickets/{reserved}")).await;
    look_at("ticket-reserved").await;
    visitor.posts(&format!("/tickets/{reserved}/buy"), &[]).await;
    visitor.sees(Thing::Heading, "There is a problem").await;
    look_at("ticket-taken").await;
    visitor.goes_to(&format!("/orders/{others}")).await;
    look_at("not-yours").await;

    // Orders.
    let order = buyer.orders(&ticket).await;
    visitor.goes_to(&format!("/orders/{order}")).await;
    look_at("order-created").await;
    let order = buyer.orders(&declined).await;
    visitor.goes_to(&format!("/orders/{order}")).await;
    visitor.chooses("A card that is declined").await;
    visitor.presses("Pay $9.99").await;
    visitor.sees(Thing::Heading, "There is a problem").await;
    look_at("order-declined").await;
    let order = buyer.orders(&asked).await;
    buyer.pays(&order, "pm_card_authenticationRequired").await;
    visitor.goes_to(&format!("/orders/{order}")).await;
    visitor.sees(Thing::Heading, "Your bank wants to hear from you").await;
    look_at("order-authenticate").await;
    let order = buyer.orders(&cancelled).await;
    buyer.cancels(&order).await;
    visitor.goes_to(&format!("/orders/{order}")).await;
    look_at("order-cancelled").await;
    let order = buyer.buys(&bought).await;
    visitor.goes_to(&format!("/orders/{order}")).await;
    visitor.reads("Paid").await;
    look_at("order-complete").await;
    visitor.goes_to(&format!("/tickets/{bought}")).await;
    look_at("ticket-sold").await;
    let order = buyer.buys(&refunded).await;
    seller.refunds(&order).await;
    seller.until(&format!("/api/tickets/{refunded}"), "available").await;
    visitor.goes_to(&format!("/orders/{order}")).await;
    visitor.reads("Refunded").await;
    look_at("order-refunded").await;
    let order = buyer.orders(&under_way).await;
    let faults = format!("{}/_sandbox/faults", shop.stripe_url());
    let http = reqwest::Client::new();
    let hold = json!({ "mode": "hold_before", "step": "capture" });
    assert!(http.post(&faults).json(&hold).send().await.unwrap().status().is_success());
    buyer.pays(&order, VISA).await;
    visitor.goes_to(&format!("/orders/{order}")).await;
    visitor.reads("Being paid").await;
    look_at("order-being-paid").await;
    assert!(http.delete(&faults).send().await.unwrap().status().is_success());
    buyer.until(&format!("/api/orders/{order}"), "complete").await;
    visitor.goes_to("/orders").await;
    look_at("orders").await;
    visitor.is_now(Some(&seller)).await;
    visitor.goes_to("/listings").await;
    look_at("listings").await;
    visitor.follows("Give the money back").await;
    visitor.sees(Thing::Heading, "Give the money back?").await;
    look_at("refund").await;

    // More than one page has room for.
    for number in 0..60 {
        seller.lists(&format!("Seat {number}"), "5").await;
    }
    visitor.goes_to("/").await;
    visitor.follows("Older").await;
    visitor.sees(Thing::Link, "Newest").await;
    look_at("home-older").await;

    // The end.
    visitor.is_now(Some(&other)).await;
    visitor.goes_to("/account").await;
    visitor.fills("Password", "not this one").await;
    visitor.presses("Erase my account").await;
    visitor.sees(Thing::Heading, "There is a problem").await;
    look_at("account-wrong").await;
    visitor.fills("Password", PASSWORD).await;
    visitor.presses("Erase my account").await;
    visitor.sees(Thing::Heading, "Your account is erased").await;
    look_at("erased").await;

    let alone = ClientAlone::without_api().await;
    visitor.driver.goto(&alone.url).await.unwrap();
    look_at("unavailable").await;

    visitor.leaves().await;
}
