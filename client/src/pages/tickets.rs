//! What is for sale.

use contract::{
    UserId,
    http::{Ticket, TicketStatus},
};
use maud::{Markup, html};

use super::parts::{Field, address, grouped, pages, price, short, ticket_badge};
use crate::{api::Listed, forms::Form};

/// The tickets for sale.
pub(crate) fn list(tickets: &Listed<Ticket>, search: &str, cursor: Option<&str>) -> Markup {
    html! {
        h1 { "Tickets for sale" }
        form.search role="search" method="get" action="/" {
            label for="search" { "Search by title" }
            div.row {
                input #search name="search" type="search" value=(search) maxlength="200" autocomplete="off";
                button { "Search" }
            }
        }
        @if !search.is_empty() {
            p.found { "Tickets with “" (search) "” in their title. " a href="/" { "Show all" } }
        }
        p #news hidden { a href=(address("/", &[("search", search)], cursor)) { "The list has changed. Show it as it is now." } }
        @if tickets.items.is_empty() {
            p.empty {
                @if tickets.next.is_some() { "None among the newest. There may be some among the older ones." }
                @else { "No tickets here at the moment." }
            }
        }
        ul.cards data-live="/live/tickets" {
            @for ticket in &tickets.items { (card(ticket)) }
        }
        (pages("/", &[("search", search)], cursor, tickets.next.as_deref()))
    }
}

/// A ticket in the list.
pub(crate) fn card(ticket: &Ticket) -> Markup {
    html! {
        li.card #{ "ticket-" (ticket.id) } data-version=(ticket.version) data-status=(status(ticket.status)) {
            h2 { a #{ "to-" (ticket.id) } href={ "/tickets/" (ticket.id) } { (ticket.title) } }
            (price(ticket.price))
            (ticket_badge(ticket.status))
        }
    }
}

fn status(status: TicketStatus) -> &'static str {
    match status {
        TicketStatus::Available => "available",
        TicketStatus::Reserved => "reserved",
        TicketStatus::Sold => "sold",
    }
}

/// One ticket: whoever may, buys it; its seller edits it, with what was wrong with that.
pub(crate) fn one(ticket: &Ticket, viewer: Option<UserId>, edit: Option<&Form>) -> Markup {
    let is_sellers = viewer == Some(ticket.user_id);
    let filled;
    let form = match edit {
        Some(form) => form,
        None => {
            let price = super::parts::dollars(ticket.price);
            filled = Form::holding([("title", ticket.title.clone()), ("price", price)]);
            &filled
        }
    };
    html! {
        div data-live={ "/live/tickets/" (ticket.id) } { (state(ticket, viewer)) }
        // What somebody typed stays, though it was reserved meanwhile.
        @if is_sellers && (ticket.status == TicketStatus::Available || edit.is_some()) {
            section.panel aria-labelledby="edit" {
                h2 #edit { "Change it" }
                (terms(form, &format!("/tickets/{}", ticket.id), "Save"))
            }
        }
    }
}

/// What changes by itself of a ticket's page.
pub(crate) fn state(ticket: &Ticket, viewer: Option<UserId>) -> Markup {
    let is_sellers = viewer == Some(ticket.user_id);
    html! {
        article.panel #ticket data-version=(ticket.version) {
            h1 { (ticket.title) }
            dl.facts {
                div { dt { "Price" } dd { (price(ticket.price)) } }
                div { dt { "Availability" } dd { (ticket_badge(ticket.status)) } }
                div { dt { "Seller" } dd { @if is_sellers { "You" } @else { (short(ticket.user_id.0)) } } }
            }
            @match ticket.status {
                _ if is_sellers => {
                    @if ticket.status != TicketStatus::Available {
                        p { "It cannot be changed while it is reserved or sold. " a href="/listings" { "My listings" } }
                    }
                }
                TicketStatus::Available => {
                    form method="post" action={ "/tickets/" (ticket.id) "/buy" } {
                        button #buy .primary { "Buy for " (price(ticket.price)) }
                    }
                    p.hint { "It is reserved for you while you pay." }
                }
                TicketStatus::Reserved => p { "Somebody has reserved it. If they do not pay in time, it is for sale again." },
                TicketStatus::Sold => p { "It is sold." },
            }
        }
    }
}

/// The form that lists a ticket.
pub(crate) fn new(form: &Form) -> Markup {
    html! {
        h1 { "Sell a ticket" }
        section.panel { (terms(form, "/tickets/new", "List it")) }
    }
}

fn terms(form: &Form, action: &str, verb: &str) -> Markup {
    let most = grouped(contract::Cents::MAX_PRICE);
    let hint = format!("In dollars, as 19.99. At most {most}.");
    html! {
        form method="post" action=(action) novalidate {
            (Field::text("title", "Title").hint("What is for sale, where and when. At most 200 characters.").render(form))
            (Field::text("price", "Price").hint(&hint).inputmode("decimal").render(form))
            div.actions { button.primary { (verb) } }
        }
    }
}
