//! Pages that change by themselves, for whoever has scripts.

mod browser;
mod support;
mod whole;

use std::time::{Duration, Instant};

use browser::{Look, Shop, Thing, strings};
use serde_json::json;

/// Titles are text, whatever they look like.
const MARKUP: &str = "<script>alert(1)</script><b>&amp;</b> ' \"";

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_expires_says_so_without_a_reload() {
    let Some(shop) = Shop::open(&[("EXPIRATION_WINDOW_SECONDS", "10")]).await else { return };
    let (seller, buyer) = tokio::join!(shop.caller("seller"), shop.caller("buyer"));
    let ticket = seller.lists("Concert", "19.99").await;
    let visitor = shop.visits(&buyer, Look::default()).await;
    visitor.goes_to(&format!("/tickets/{ticket}")).await;
    visitor.presses("Buy for $19.99").await;
    visitor.sees(Thing::Heading, "Your order: Concert").await;
    visitor.marks().await;
    // A clock that runs.
    let left = async || {
        let left = visitor.text_of("[data-left]").await;
        (!left.is_empty()).then_some(left)
    };
    let first = visitor.until("how much time is left", left).await;
    visitor
        .until("another time than before", async || {
            (visitor.text_of("[data-left]").await != first).then_some(())
        })
        .await;

    visitor.reads("The reservation has expired.").await;
    visitor.reads("The reservation expired").await;
    assert!(visitor.finds(Thing::Button, "Pay").await.is_none(), "it can still be paid");
    assert!(!visitor.text_of("[role=status]").await.is_empty(), "nobody hears of it");
    assert!(visitor.is_marked().await, "the page was loaded again");
    visitor.leaves().await;
}

/// Once, and not each second: whoever listens has more to do.
#[tokio::test(flavor = "multi_thread")]
async fn that_time_is_running_out_is_said_aloud() {
    let Some(shop) = Shop::open(&[("EXPIRATION_WINDOW_SECONDS", "30")]).await else { return };
    let (seller, buyer) = tokio::join!(shop.caller("seller"), shop.caller("buyer"));
    let visitor = shop.visits(&buyer, Look::default()).await;
    let order = buyer.orders(&seller.lists("Concert", "19.99").await).await;
    visitor.goes_to(&format!("/orders/{order}")).await;
    assert_eq!(visitor.text_of("[role=status]").await, "");
    let said =
        async || (visitor.text_of("[role=status]").await == "20 seconds are left to pay.").then_some(());
    visitor.until("a warning", said).await;
    let left = visitor.text_of("[data-left]").await;
    // Said at twenty; a browser that is busy is asked some seconds later.
    assert!((15..=20).any(|seconds| left.contains(&format!("0:{seconds}"))), "{left}");
    visitor.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_that_somebody_reserves_changes_in_its_place() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let (seller, buyer) = tokio::join!(shop.caller("seller"), shop.caller("buyer"));
    let first = seller.lists("Concert", "19.99").await;
    seller.lists("Opera", "20").await;
    let visitor = shop.visitor(Look::default()).await;
    visitor.marks().await;
    let card = format!("#ticket-{first}");
    assert!(visitor.text_of(&card).await.contains("Available"), "{}", visitor.text().await);

    let order = buyer.orders(&first).await;
    visitor.shows(&format!("{card}[data-status=reserved]")).await;
    assert!(visitor.text_of(&card).await.contains("Reserved"), "{}", visitor.text().await);
    buyer.cancels(&order).await;
    visitor.shows(&format!("{card}[data-status=available]")).await;
    buyer.buys(&first).await;
    visitor.shows(&format!("{card}[data-status=sold]")).await;
    assert_eq!(visitor.count(".card").await, 2);

    // What is new is not pushed in between; it is offered.
    assert!(visitor.finds(Thing::Link, "The list has changed").await.is_none());
    seller.lists("Ballet", "30").await;
    visitor.sees(Thing::Link, "The list has changed").await;
    assert!(visitor.is_marked().await, "the page was loaded again");
    visitor.follows("The list has changed").await;
    visitor.sees(Thing::Heading, "Ballet").await;
    visitor.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tickets_page_and_its_order_are_the_same_in_two_windows() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let (seller, buyer) = tokio::join!(shop.caller("seller"), shop.caller("buyer"));
    let ticket = seller.lists("Concert", "19.99").await;
    let watcher = shop.visitor(Look::default()).await;
    watcher.goes_to(&format!("/tickets/{ticket}")).await;
    watcher.sees(Thing::Button, "Buy for $19.99").await;
    watcher.marks().await;
    let order = buyer.orders(&ticket).await;
    watcher.reads("Somebody has reserved it.").await;
    assert!(watcher.finds(Thing::Button, "Buy for").await.is_none(), "it can still be bought");

    let visitor = shop.visits(&buyer, Look::default()).await;
    visitor.goes_to(&format!("/orders/{order}")).await;
    visitor.marks().await;
    visitor.chooses("A card that is declined").await;
    // Paid elsewhere meanwhile, by another window of theirs.
    buyer.pays(&order, browser::caller::VISA).await;
    visitor.reads("It is paid. The ticket is yours.").await;
    watcher.reads("It is sold.").await;
    assert!(visitor.is_marked().await && watcher.is_marked().await, "a page was loaded again");
    visitor.leaves().await;
    watcher.leaves().await;
}

/// A browser opens six connections to a server at most, where that speaks HTTP/1.1, and keeps pages that were left.
#[tokio::test(flavor = "multi_thread")]
async fn pages_that_were_left_hold_no_connection() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let seller = shop.caller("seller").await;
    seller.lists("Concert", "19.99").await;
    let visitor = shop.visitor(Look::default()).await;
    let started = Instant::now();
    for _ in 0..6 {
        visitor.follows("Concert").await;
        visitor.sees(Thing::Button, "Buy for").await;
        visitor.follows("Ticketing").await;
        visitor.sees(Thing::Field, "Search by title").await;
    }
    assert!(started.elapsed() < Duration::from_secs(15), "it took {:?}", started.elapsed());

    // And whoever goes back to one of them sees it live.
    visitor.driver.back().await.unwrap();
    visitor.sees(Thing::Button, "Buy for").await;
    visitor.marks().await;
    let buyer = shop.caller("buyer").await;
    let ticket = visitor.path().await.trim_start_matches("/tickets/").to_owned();
    buyer.orders(&ticket).await;
    visitor.reads("Somebody has reserved it.").await;
    assert!(visitor.is_marked().await, "the page was loaded again");
    visitor.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn prices_and_times_are_written_as_the_visitor_does() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let (seller, buyer) = tokio::join!(shop.caller("seller"), shop.caller("buyer"));
    let ticket = seller.lists("Konzert", "1299.99").await;
    let look = Look { language: "de-DE", zone: "Europe/Berlin", ..Look::default() };
    let visitor = shop.visits(&buyer, look).await;
    let card = format!("#ticket-{ticket} .price");
    let price = async || (visitor.text_of(&card).await == "1.299,99 $").then_some(());
    visitor.until("a German price", price).await;

    // What comes later, too.
    let order = buyer.orders(&ticket).await;
    visitor.shows(&format!("#ticket-{ticket}[data-status=reserved]")).await;
    visitor.until("a German price", price).await;

    visitor.goes_to(&format!("/orders/{order}")).await;
    let expires = async || {
        let script = r#"
            const time = document.querySelector(".countdown time");
            const at = new Date(time.dateTime);
            const clock = new Intl.DateTimeFormat("de-DE", { timeZone: "Europe/Berlin", hour: "2-digit", minute: "2-digit" });
            return [time.innerText, clock.format(at)];
        "#;
        let [written, clock] = strings(&visitor.asks(script, &[]).await).try_into().unwrap();
        (written.contains(&clock) && !written.contains("UTC")).then_some(())
    };
    visitor.until("a time of day in Berlin", expires).await;
    visitor.leaves().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_title_is_text_wherever_it_is_shown() {
    let Some(shop) = Shop::open(&[]).await else { return };
    let seller = shop.caller("seller").await;
    let visitor = shop.visits(&seller, Look::default()).await;
    let path = visitor.sells(MARKUP, "19.99").await;
    let ticket = path.trim_start_matches("/tickets/").to_owned();
    is_text(&visitor, "h1").await;
    assert!(visitor.driver.title().await.unwrap().starts_with(MARKUP));
    assert_eq!(
        visitor.sees(Thing::Field, "Title").await.prop("value").await.unwrap().as_deref(),
        Some(MARKUP)
    );

    let watcher = shop.visitor(Look::default()).await;
    let card = format!("#ticket-{ticket}");
    is_text(&watcher, &format!("{card} h2")).await;
    watcher.fills("Search by title", MARKUP).await;
    watcher.presses("Search").await;
    is_text(&watcher, &format!("{card} h2")).await;
    is_text(&watcher, ".found").await;
    watcher.goes_to("/").await;

    // In what is sent later, too.
    watcher.marks().await;
    let buyer = shop.caller("buyer").await;
    let order = buyer.orders(&ticket).await;
    watcher.shows(&format!("{card}[data-status=reserved]")).await;
    is_text(&watcher, &format!("{card} h2")).await;
    assert!(watcher.is_marked().await, "the page was loaded again");
    visitor.goes_to(&path).await;
    visitor.reads("It cannot be changed").await;
    is_text(&visitor, "h1").await;
    visitor.goes_to("/listings").await;
    is_text(&visitor, ".listing h2").await;

    visitor.is_now(Some(&buyer)).await;
    visitor.goes_to(&format!("/orders/{order}")).await;
    is_text(&visitor, "h1").await;
    visitor.presses("Pay $19.99").await;
    visitor.reads("It is paid.").await;
    is_text(&visitor, "h1").await;
    visitor.goes_to("/orders").await;
    is_text(&visitor, "table").await;
    visitor.leaves().await;
    watcher.leaves().await;
}

/// Whether the title is written there, letter by letter, and nothing of it has become an element.
async fn is_text(visitor: &browser::Visitor, selector: &str) {
    visitor.shows(selector).await;
    let script = r#"
        const place = document.querySelector(arguments[0]);
        return { text: place.textContent, made: document.querySelectorAll("main b, main script").length };
    "#;
    let found = visitor.asks(script, &[json!(selector)]).await;
    assert!(found["text"].as_str().unwrap().contains(MARKUP), "{selector}: {found}");
    assert_eq!(found["made"], 0, "{selector}: {found}");
}
