//! What can go wrong in svc-expiration. All of it passes, and the event comes again; nothing becomes a status.

use std::convert::Infallible;

use eventstore::{DecideError, ReadError, WaitError};

/// Why a reaction came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The deadline could not be told.
    #[error(transparent)]
    Decide(#[from] DecideError<Infallible>),
    /// The projection is behind.
    #[error(transparent)]
    Wait(#[from] WaitError),
    /// The projection cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
}
