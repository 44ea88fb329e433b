//! What can go wrong in svc-payments, and the one place where that becomes a status.

use eventstore::{DecideError, ReadError, Unavailable, WaitError};
use web::ApiError;

use crate::domain::Rejection;

/// Why a request or a reaction came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules say no.
    #[error("rejected: {0:?}")]
    Rejected(Rejection),
    /// The card was refused, in words for its owner.
    #[error("declined: {0}")]
    Declined(String),
    /// There is no such order, or nobody has asked to pay for it.
    #[error("not found")]
    NotFound,
    /// Others were faster, every time.
    #[error("too many conflicts")]
    Conflicts,
    /// The log or Stripe does not answer, or the projections are behind the log.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// A fault of ours.
    #[error("internal: {0}")]
    Internal(String),
    /// The request itself is wrong.
    #[error("bad request")]
    Request(ApiError),
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
            DecideError::Rejected(rejection) => Error::Rejected(rejection),
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
            Error::Rejected(Rejection::NotYourOrder) => ApiError::not_authorized(),
            Error::Rejected(Rejection::OrderCancelled) => {
                ApiError::bad_request("Cannot pay for a cancelled order")
            }
            Error::Declined(reason) => ApiError::payment_required(reason),
            Error::NotFound => ApiError::not_found(),
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
