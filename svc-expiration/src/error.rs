//! What can go wrong in svc-expiration. All of it passes, and the event comes again; nothing becomes a status.

use std::convert::Infallible;

use eventstore::DecideError;

/// Why a reaction came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The deadline could not be told.
    #[error(transparent)]
    Decide(#[from] DecideError<Infallible>),
    /// The log or a projection of it lets us down.
    #[error(transparent)]
    Store(#[from] eventstore::Error),
}
