//! What can go wrong while a service runs, apart from what its domain objects to.

use crate::{event::EncodeError, log::Unavailable, rows::ReadError};

/// Why something came to nothing that the domain had no objection to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others were faster, every time.
    #[error("too many conflicts")]
    Conflicts,
    /// The log does not answer. Whether an event is in it may be unknown.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// A projection has not come far enough in time.
    #[error("projection {projection} has not reached sequence {sequence} of {stream} in time")]
    Late {
        /// The projection.
        projection: &'static str,
        /// Its stream.
        stream: String,
        /// What was waited for.
        sequence: u64,
    },
    /// A projection cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The event can never be appended.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

impl Error {
    /// Whether the same may go well later, without anything being mended.
    pub fn may_pass(&self) -> bool {
        !matches!(self, Error::Encode(_))
    }
}
