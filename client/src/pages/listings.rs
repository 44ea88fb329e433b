//! What I sell.

use std::collections::HashMap;

use contract::{
    TicketId,
    event::OrderStatus,
    http::{Sale, Ticket, TicketStatus},
};
use maud::{Markup, html};

use super::parts::{moment, order_badge, pages, price, short, ticket_badge};
use crate::api::Listed;

/// My tickets, newest first, each with what became of it.
pub(crate) fn list(tickets: &Listed<Ticket>, sales: &[Sale], cursor: Option<&str>) -> Markup {
    let mut of_ticket: HashMap<TicketId, Vec<&Sale>> = HashMap::new();
    for sale in sales {
        of_ticket.entry(sale.ticket.id).or_default().push(sale);
    }
    html! {
        h1 { "My listings" }
        @if tickets.items.is_empty() {
            p.empty { "You are not selling anything yet. " a href="/tickets/new" { "Sell a ticket" } }
        }
        @for ticket in &tickets.items {
            section.panel.listing aria-labelledby={ "listing-" (ticket.id) } {
                h2 #{ "listing-" (ticket.id) } { a href={ "/tickets/" (ticket.id) } { (ticket.title) } }
                dl.facts {
                    div { dt { "Price" } dd { (price(ticket.price)) } }
                    div { dt { "Availability" } dd { (ticket_badge(ticket.status)) } }
                }
                @match of_ticket.get(&ticket.id) {
                    Some(sales) => (orders(ticket, sales)),
                    None => @if ticket.status == TicketStatus::Available { p { "Nobody has reserved it yet." } },
                }
            }
        }
        (pages("/listings", &[], cursor, tickets.next.as_deref()))
    }
}

fn orders(ticket: &Ticket, sales: &[&Sale]) -> Markup {
    html! {
        table.rows {
            caption.visually-hidden { "Orders for " (ticket.title) }
            thead { tr { th scope="col" { "Buyer" } th scope="col" { "Ordered" } th scope="col" { "Price" } th scope="col" { "Status" } th scope="col" { "Refund" } } }
            tbody {
                @for sale in sales {
                    tr {
                        th scope="row" { "Buyer " (short(sale.user_id.0)) }
                        td data-label="Ordered" { (moment(sale.time)) }
                        td data-label="Price" { (price(sale.ticket.price)) }
                        td data-label="Status" { (order_badge(sale.status, sale.reason)) }
                        td data-label="Refund" { (refund(sale)) }
                    }
                }
            }
        }
    }
}

fn refund(sale: &Sale) -> Markup {
    html! {
        @if sale.status == OrderStatus::Complete {
            a.button.secondary href={ "/listings/" (sale.order_id) "/refund?ticket=" (sale.ticket.id) } {
                "Give the money back" span.visually-hidden { " to buyer " (short(sale.user_id.0)) }
            }
        } @else { "–" }
    }
}

/// Asks once more: what was given back cannot be taken again.
pub(crate) fn confirm(sale: &Sale) -> Markup {
    html! {
        h1 { "Give the money back?" }
        section.panel {
            p {
                "Buyer " (short(sale.user_id.0)) " gets " (price(sale.ticket.price)) " back for “" (sale.ticket.title) "” and loses the ticket, "
                "which is then for sale again. This cannot be undone."
            }
            form method="post" action={ "/listings/" (sale.order_id) "/refund" } {
                div.actions {
                    button.danger { "Give " (price(sale.ticket.price)) " back" }
                    a.button.secondary href="/listings" { "Keep it" }
                }
            }
        }
    }
}
