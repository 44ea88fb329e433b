//! Whose sessions are over before their tokens expire, as svc-auth's log tells.

use contract::{
    UserEvent, UserId,
    event::{UserErased, UserSignedOut},
    stream::USERS,
};
use eventstore::{Projection, ReadError, Recorded, Rows, Store, Table, View};
use web::{Claims, Env, Keys, Sessions, env::Invalid};

/// How often each user may ask, unless it is set.
const REQUESTS_PER_MINUTE: u32 = 600;

/// USERS, as far as it ends sessions: a row for each user who has ended theirs, and none for the others.
#[derive(Debug)]
pub struct Ended;

/// By the user's id: the epoch that a session must be of.
const EPOCHS: Table<u32> = Table::new("epochs");

/// No session is of this epoch: they are counted from 0.
const NEVER: u32 = u32::MAX;

impl Projection for Ended {
    type Event = UserEvent;
    type State = ();

    const NAME: &'static str = "sessions";
    const VERSION: u32 = 1;

    fn evolve((): (), _: &UserEvent) {}

    fn index(rows: &mut Rows<'_>, recorded: &Recorded<UserEvent>, (): &()) {
        match &recorded.event {
            UserEvent::SignedUp(_) => {}
            UserEvent::SignedOut(UserSignedOut { id, epoch }) => rows.put(&EPOCHS, id.as_bytes(), epoch),
            UserEvent::Erased(UserErased { id }) => rows.put(&EPOCHS, id.as_bytes(), &NEVER),
        }
    }
}

/// How often each user may ask a service that is not svc-auth.
///
/// # Errors
/// When the variable is wrong.
pub fn requests_per_minute(env: &Env) -> Result<u32, Invalid> {
    env.or("USER_REQUESTS_PER_MINUTE", REQUESTS_PER_MINUTE, "a whole number a minute, 0 for no limit")
}

/// Who is believed to ask: whoever has a token, has not ended their sessions since, and was not erased.
///
/// As of what this service has read: a session that was ended a moment ago may be good here for another. While NATS is
/// away, no more endings are heard of.
///
/// # Errors
/// When the database cannot be used.
pub fn sessions(store: &Store, keys: &Keys, requests_per_minute: u32) -> Result<Sessions, ReadError> {
    let ended: View<Ended> = store.project(USERS.name)?;
    Ok(Sessions::new(keys).unless(move |claims| is_over(&ended, claims)).at_most(requests_per_minute))
}

fn is_over(ended: &View<Ended>, claims: &Claims) -> bool {
    match ended.get(&EPOCHS, UserId(claims.id).as_bytes()) {
        Ok(epoch) => claims.epoch < epoch.unwrap_or(0),
        Err(error) => {
            // It may be over: whoever has a good one asks again once the rows are made anew.
            tracing::error!(%error, "nobody's session can be judged");
            true
        }
    }
}
