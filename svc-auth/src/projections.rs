//! What svc-auth has read: its own users.

use contract::UserEvent;
use eventstore::Projection;

use crate::domain::{self, Address};

/// USERS: the state of each address. No rows beside that: a user is only ever looked for by their address.
#[derive(Debug)]
pub struct Users;

impl Projection for Users {
    type Event = UserEvent;
    type State = Address;

    const NAME: &'static str = "users";
    const VERSION: u32 = 2;

    fn evolve(state: Address, event: &UserEvent) -> Address {
        domain::evolve(state, event)
    }
}
