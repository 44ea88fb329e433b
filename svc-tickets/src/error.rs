//! What can go wrong in svc-tickets, and the one place where that becomes a status.

use eventstore::{DecideError, ReadError, Unavailable, WaitError};
use web::ApiError;

use crate::domain::Rejection;

/// Why a request or a reaction came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules say no.
    #[error("rejected: {0:?}")]
    Rejected(Rejection),
    /// Others were faster, every time.
    #[error("too many conflicts")]
    Conflicts,
    /// The log does not answer, or the projections are behind it.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// A fault of ours.
    #[error("internal: {0}")]
    Internal(String),
    /// The request itself is wrong.
    #[error("bad request")]
    Request(ApiError),
}

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Error::Rejected(rejection)
    }
}

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        Error::Request(error)
    }
}

impl From<Unavailable> for Error {
    fn from(error: Unavailable) -> Self {
        Error::Unavailable(error.to_string())
    }
}

impl From<WaitError> for Error {
    fn from(error: WaitError) -> Self {
        Error::Unavailable(error.to_string())
    }
}

impl From<ReadError> for Error {
    fn from(error: ReadError) -> Self {
        // The rows are on their way back from the log.
        Error::Unavailable(error.to_string())
    }
}

impl From<DecideError<Rejection>> for Error {
    fn from(error: DecideError<Rejection>) -> Self {
        match error {
            DecideError::Rejected(rejection) => rejection.into(),
            DecideError::Conflicts => Error::Conflicts,
            DecideError::Unavailable(error) => error.into(),
            DecideError::Wait(error) => error.into(),
            DecideError::Read(error) => error.into(),
            DecideError::Append(error) => Error::Internal(error.to_string()),
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejected(Rejection::NoSuchTicket) => ApiError::not_found(),
            Error::Rejected(Rejection::NotYourTicket) => ApiError::not_authorized(),
            Error::Rejected(Rejection::Held) => ApiError::bad_request("Cannot edit a reserved ticket"),
            Error::Conflicts => ApiError::conflict(),
            Error::Unavailable(reason) => {
                tracing::warn!(%reason, "request refused for now");
                ApiError::unavailable(1)
            }
            Error::Internal(reason) => ApiError::internal(reason),
            Error::Request(error) => error,
        }
    }
}
