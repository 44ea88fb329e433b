//! Pages for everybody: by keyboard alone, by ear, on a narrow screen, and with what was typed wrongly.

mod browser;
mod support;
mod whole;

use browser::{
    Look, Shop, Thing, Visitor,
    caller::PASSWORD,
    strings,
    tour::{VARIABLES, tour},
};
use serde_json::json;
use support::text;
use thirtyfour::Key;

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_is_bought_by_keyboard_alone() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let seller = shop.caller("seller").await;
    seller.lists("Opera", "20").await;
    seller.lists("Concert", "19.99").await;
    let caller = shop.caller("buyer").await;
    let buyer = shop.visitor(Look::default()).await;

    // The first stop leads past what is on every page.
    buyer.tabs_to("Skip to content").await;
    buyer.types(Key::Enter).await;
    buyer.tabs_to("Search by title").await;
    buyer.goes_to("/").await;
    for stop in [
        "Skip to content",
        "Ticketing",
        "Sign Up",
        "Sign In",
        "Search by title",
        "Search",
        "Concert",
        "Opera",
    ] {
        buyer.types(Key::Tab).await;
        assert_eq!(buyer.focus().await.name, stop);
    }

    buyer.goes_to("/").await;
    buyer.tabs_to("Concert").await;
    buyer.types(Key::Enter).await;
    buyer.sees(Thing::Heading, "Concert").await;
    buyer.tabs_to("Buy for $19.99").await;
    buyer.types(Key::Space).await;
    buyer.sees(Thing::Heading, "Sign in").await;
    buyer.tabs_to("Email address").await;
    buyer.types(caller.email.as_str()).await;
    buyer.tabs_to("Password").await;
    buyer.types(PASSWORD).await;
    buyer.types(Key::Enter).await;
    buyer.sees(Thing::Heading, "Concert").await;
    buyer.tabs_to("Buy for $19.99").await;
    buyer.types(Key::Enter).await;
    buyer.sees(Thing::Heading, "Your order: Concert").await;

    // Through the cards by arrows, there and back.
    buyer.tabs_to("A card that pays").await;
    buyer.types(Key::Down).await;
    assert_eq!(buyer.focus().await.name, "A card that is declined");
    buyer.types(Key::Up).await;
    assert_eq!(buyer.focus().await.name, "A card that pays");
    buyer.tabs_to("Pay $19.99").await;
    buyer.types(Key::Space).await;
    buyer.reads("It is paid. The ticket is yours.").await;
    buyer.tabs_to("My orders").await;
    buyer.types(Key::Enter).await;
    buyer.sees(Thing::Heading, "My orders").await;
    buyer.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_wrongly_stays_is_named_and_has_the_focus() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let visitor = shop.visitor(Look::default()).await;
    visitor.goes_to("/auth/signup").await;
    visitor.fills("Email address", "nobody at all").await;
    visitor.fills("Password", "short").await;
    visitor.presses("Sign Up").await;
    names(&visitor, "Email address", "Email must be valid", "nobody at all").await;
    names(&visitor, "Password", "Password must be between 8 and 128 characters", "").await;
    assert_eq!(visitor.status().await, 400);
    assert!(visitor.driver.title().await.unwrap().starts_with("Error: "));
    // From the summary to the field.
    visitor.follows("Email must be valid").await;
    assert_eq!(visitor.focus().await.name, "Email address");

    visitor.fills("Email address", "visitor@example.com").await;
    visitor.fills("Password", PASSWORD).await;
    visitor.presses("Sign Up").await;
    visitor.sees(Thing::Button, "Sign Out").await;
    visitor.follows("Sell Tickets").await;
    visitor.fills("Title", "Concert").await;
    visitor.fills("Price", "nineteen").await;
    visitor.presses("List it").await;
    names(&visitor, "Price", "Price must be greater than 0", "nineteen").await;
    assert_eq!(visitor.sees(Thing::Field, "Title").await.prop("value").await.unwrap().unwrap(), "Concert");

    visitor.fills("Price", "19.99").await;
    visitor.presses("List it").await;
    visitor.sees(Thing::Heading, "Concert").await;
    visitor.fills("Title", " ").await;
    visitor.presses("Save").await;
    names(&visitor, "Title", "Title is required", " ").await;

    visitor.presses("Sign Out").await;
    visitor.follows("Sign In").await;
    visitor.fills("Email address", "visitor@example.com").await;
    visitor.fills("Password", "not this one").await;
    visitor.presses("Sign In").await;
    has_the_focus(&visitor, "Invalid credentials").await;
    assert_eq!(
        visitor.sees(Thing::Field, "Email address").await.prop("value").await.unwrap().unwrap(),
        "visitor@example.com"
    );
    let source = visitor.driver.source().await.unwrap();
    assert!(!source.contains("not this one"), "the password was sent back");
    visitor.leaves().await;
}

/// Whether the field says what is wrong with it to who sees it and who hears it, and holds what was typed.
async fn names(visitor: &Visitor, label: &str, problem: &str, typed: &str) {
    has_the_focus(visitor, problem).await;
    let field = visitor.sees(Thing::Field, label).await;
    assert_eq!(field.prop("value").await.unwrap().unwrap(), typed, "{label}");
    assert_eq!(field.attr("aria-invalid").await.unwrap().as_deref(), Some("true"), "{label}");
    let script = r#"
        const ids = (arguments[0].getAttribute("aria-describedby") ?? "").split(" ");
        return ids.map(id => document.getElementById(id)?.innerText ?? "").join(" ").replace(/\s+/g, " ");
    "#;
    let described = text(&visitor.asks(script, &[field.to_json().unwrap()]).await);
    assert!(described.contains(&format!("Error: {problem}")), "{label} is described by {described:?}");
}

/// Whether a summary with that problem is where the keyboard is.
async fn has_the_focus(visitor: &Visitor, problem: &str) {
    visitor.sees(Thing::Heading, "There is a problem").await;
    let said = async || {
        let script =
            r#"return document.activeElement.id === "problems" ? document.activeElement.innerText : """#;
        text(&visitor.asks(script, &[]).await).contains(problem).then_some(())
    };
    visitor.until(&format!("the focus on {problem:?}"), said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn axe_finds_no_barrier_on_any_page() {
    let Some(shop) = Shop::open(&VARIABLES).await else { return };
    let mut barriers = Vec::new();
    tour(&shop, Look::default(), async |visitor, page| {
        for (width, dark) in [(375, false), (375, true), (1280, true), (1280, false)] {
            visitor.looks(Look { width, dark, ..Look::default() }).await;
            let scheme = if dark { "dark" } else { "light" };
            let found = visitor.barriers().await.into_iter();
            barriers.extend(found.map(|barrier| format!("{page}, {width} px, {scheme}: {barrier}")));
        }
    })
    .await;
    assert!(barriers.is_empty(), "\n{}", barriers.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_barrier_would_be_found() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let visitor = shop.visitor(Look::default()).await;
    visitor.goes_to("/auth/signin").await;
    visitor.asks(r#"document.querySelector("label[for=email]").remove()"#, &[]).await;
    let barriers = visitor.barriers().await;
    assert!(barriers.iter().any(|barrier| barrier.contains("#email")), "{barriers:?}");
    visitor.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_page_is_wider_than_the_narrowest_screen() {
    let Some(shop) = Shop::open(&VARIABLES).await else { return };
    let mut wide = Vec::new();
    let look = Look { width: 320, ..Look::default() };
    tour(&shop, look, async |visitor, page| {
        let script = r#"
            const width = arguments[0];
            if (document.documentElement.scrollWidth <= width && innerWidth === width) return [];
            const out = [...document.body.querySelectorAll("*")].filter(one => one.getBoundingClientRect().right > width + 1);
            return [`${document.documentElement.scrollWidth} px`, ...out.map(one => one.outerHTML.slice(0, 80))];
        "#;
        let found = strings(&visitor.asks(script, &[json!(look.width)]).await);
        if !found.is_empty() {
            wide.push(format!("{page}: {}", found.join("\n    ")));
        }
    })
    .await;
    assert!(wide.is_empty(), "\n{}", wide.join("\n"));
}
