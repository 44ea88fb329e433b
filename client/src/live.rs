//! Pages that change by themselves: the API's events, as the parts of pages that they change.

use std::{sync::Arc, time::Duration};

use contract::{OrderId, TicketId, UserId, http::Ticket};
use futures::{Stream, StreamExt};
use tokio::{
    sync::{
        OwnedSemaphorePermit,
        broadcast::{self, error::RecvError},
    },
    time::{MissedTickBehavior, interval, sleep},
};
use warp::reply::Response;
use web::Event;

use crate::{
    api::{Api, Told, Upstream},
    config::Stripe,
    error::Error,
    pages::{self, orders::Standing},
};

/// How many changes a slow visitor may be behind before the page is asked for anew.
const BACKLOG: usize = 1_024;
/// How long after the API's events ended they are asked for again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How often a payment that is under way is looked at: the events of an order do not tell how that goes.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Every change of a ticket, asked for once and rendered once for all who look at the list.
#[derive(Clone, Debug)]
pub(crate) struct TicketFeed(broadcast::Sender<Option<Arc<Change>>>);

/// A ticket as it is now.
#[derive(Debug)]
struct Change {
    ticket: Ticket,
    card: String,
}

impl TicketFeed {
    pub(crate) fn new() -> Self {
        Self(broadcast::Sender::new(BACKLOG))
    }

    /// Follows the API's events, and does so again whenever they end: for ever.
    pub(crate) async fn follow(&self, upstream: Upstream) {
        let api = upstream.anonymous();
        loop {
            if let Ok(changes) = api.ticket_changes().await {
                // Whoever looks has missed what happened until now.
                let _ = self.0.send(None);
                changes.for_each(|told| async { self.tell(told) }).await;
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    fn tell(&self, told: Told<Ticket>) {
        let change = match told {
            Told::Changed(ticket) => {
                let card = pages::tickets::card(&ticket).into_string();
                Some(Arc::new(Change { ticket, card }))
            }
            Told::Missed => None,
        };
        let _ = self.0.send(change);
    }

    /// `None` stands for changes that were missed.
    fn changes(&self) -> impl Stream<Item = Option<Arc<Change>>> + Send + use<> {
        let changes = self.0.subscribe();
        futures::stream::unfold(changes, |mut changes| async move {
            match changes.recv().await {
                Ok(change) => Some((change, changes)),
                Err(RecvError::Lagged(_)) => Some((None, changes)),
                Err(RecvError::Closed) => None,
            }
        })
    }
}

fn reload() -> Event {
    Event::default().event("reload").data("")
}

/// Elements as an event. A carriage return would end its line, and what follows would be an event of somebody's.
fn elements(name: &str, html: &str) -> Event {
    Event::default().event(name).data(html.replace('\r', "&#13;"))
}

/// The cards of the list, as they change.
pub(crate) fn tickets(feed: &TicketFeed, place: OwnedSemaphorePermit) -> Response {
    let events = feed.changes().map(|change| match change {
        Some(change) => elements("ticket", &change.card),
        None => reload(),
    });
    web::sse(place, events)
}

/// One ticket's page, as the visitor may see it.
pub(crate) async fn ticket(
    feed: &TicketFeed,
    api: &Api,
    id: TicketId,
    place: OwnedSemaphorePermit,
) -> Result<Response, Error> {
    let changes = feed.changes();
    let viewer: Option<UserId> = api.current_user().await?.map(|user| user.id);
    let first = api.ticket(id).await?;
    let show =
        move |ticket: &Ticket| elements("ticket", &pages::tickets::state(ticket, viewer).into_string());
    let then = changes.filter_map(move |change| {
        let event = match change {
            Some(change) => (change.ticket.id == id).then(|| show(&change.ticket)),
            None => Some(reload()),
        };
        std::future::ready(event)
    });
    Ok(web::sse(place, futures::stream::iter([show(&first)]).chain(then)))
}

/// One order's page, as it stands and whenever that changes.
pub(crate) async fn order(
    api: Api,
    stripe: Stripe,
    id: OrderId,
    place: OwnedSemaphorePermit,
) -> Result<Response, Error> {
    let mut changes = api.order_changes(id).await?.fuse().boxed();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let events = async_stream::stream! {
        let mut shown = String::new();
        let (mut is_moving, mut version) = (true, 0);
        loop {
            tokio::select! {
                told = changes.next() => match told {
                    Some(Told::Changed(order)) => version = order.version.max(version),
                    Some(Told::Missed) => {}
                    None => return,
                },
                _ = look.tick(), if is_moving => {}
            }
            let Ok(standing) = Standing::of(&api, id).await else { return };
            // Another replica may not have heard of it yet: then there is more to come.
            is_moving = standing.is_moving() || standing.version() < version;
            let html = pages::orders::parts(&standing, &stripe).into_string();
            if html != shown {
                yield elements("order", &html);
                shown = html;
            }
        }
    };
    Ok(web::sse(place, events))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_writes_events_by_a_title() {
        let event = elements("ticket", "a\rretry:1\r\nevent:x\n\nb").to_string();
        assert!(!event.contains('\r'), "{event:?}");
        assert!(
            event.lines().all(|line| line.is_empty() || line.starts_with("data:") || line == "event:ticket")
        );
    }
}
