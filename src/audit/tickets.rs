//! TICKETS: listed once, edited by its seller while nobody holds it, else following its orders.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    book::Fold,
    finding::Code,
    record::{Fact, Kind, Record, TicketFact, Wrong},
};

/// What TICKETS says.
#[derive(Default)]
pub(crate) struct Tickets {
    pub(crate) tickets: HashMap<Uuid, Ticket>,
}

/// A ticket.
pub(crate) struct Ticket {
    seller: Uuid,
    price: i64,
    /// What it cost before.
    earlier_prices: Vec<i64>,
    /// The order that holds or bought it.
    pub(crate) order: Option<Uuid>,
    pub(crate) sold: bool,
    /// The version of ORDERS that it reflects.
    pub(crate) order_version: Option<u64>,
    /// The sequence of its last event.
    pub(crate) last: u64,
}

impl Ticket {
    /// Whether it was ever for sale at that price.
    pub(crate) fn cost(&self, price: i64) -> bool {
        self.price == price || self.earlier_prices.contains(&price)
    }
}

impl Fold for Tickets {
    fn take(&mut self, record: &mut Record, wrong: &mut Vec<Wrong>) {
        let Fact::Ticket(fact) = &record.fact else { return };
        let before = self.tickets.get_mut(&record.key);
        if let Some(what) = objection(record, fact, before.as_deref()) {
            wrong.push((Code::IllegalTransition, what));
        }
        match before {
            None => {
                let ticket = Ticket {
                    seller: fact.seller,
                    price: fact.price,
                    earlier_prices: Vec::new(),
                    order: fact.order,
                    sold: fact.sold,
                    order_version: fact.order_version,
                    last: record.sequence,
                };
                self.tickets.insert(record.key, ticket);
            }
            Some(ticket) => {
                if ticket.price != fact.price {
                    ticket.earlier_prices.push(ticket.price);
                    ticket.price = fact.price;
                }
                (ticket.order, ticket.sold) = (fact.order, fact.sold);
                (ticket.order_version, ticket.last) = (fact.order_version, record.sequence);
            }
        }
    }
}

/// Why the event could not follow.
fn objection(record: &Record, fact: &TicketFact, before: Option<&Ticket>) -> Option<String> {
    let Some(before) = before else {
        return (record.kind != Kind::TicketCreated).then(|| "it was never listed".to_owned());
    };
    if record.kind == Kind::TicketCreated {
        return Some("it was listed before".into());
    }
    if before.seller != fact.seller {
        return Some(format!("{} sells what {} listed", fact.seller, before.seller));
    }
    if fact.sold && fact.order.is_none() {
        return Some("it is sold to no order".into());
    }
    match record.cause {
        // It follows an order: what the seller says stays, and what is older changes nothing.
        Some(_) if before.price != fact.price => Some("its price changes with its order".into()),
        Some(_) if fact.order_version <= before.order_version => Some(format!(
            "it follows version {} of its orders after version {}",
            shown(fact.order_version),
            shown(before.order_version)
        )),
        Some(_) => None,
        // Its seller edits it.
        None if before.order.is_some() => Some("it is edited while an order holds it".into()),
        None if fact.order.is_some() || fact.order_version != before.order_version => {
            Some("an edit changes the order that holds it".into())
        }
        None => None,
    }
}

fn shown(version: Option<u64>) -> String {
    version.map_or("none".into(), |version| version.to_string())
}
