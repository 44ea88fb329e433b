//! What can go wrong in svc-tickets, and the one place where that becomes a status.

use eventstore::DecideError;
use web::ApiError;

use crate::domain::Rejection;

/// Why a request or a reaction came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules say no.
    #[error("rejected: {0:?}")]
    Rejected(Rejection),
    /// The log or a projection of it lets us down.
    #[error(transparent)]
    Store(#[from] eventstore::Error),
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

impl From<DecideError<Rejection>> for Error {
    fn from(error: DecideError<Rejection>) -> Self {
        match error {
            DecideError::Rejected(rejection) => rejection.into(),
            DecideError::Failed(error) => Error::Store(error),
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejected(Rejection::NoSuchTicket) => ApiError::not_found(),
            Error::Rejected(Rejection::NotYourTicket) => ApiError::not_authorized(),
            Error::Rejected(Rejection::Held) => ApiError::bad_request("Cannot edit a reserved ticket"),
            Error::Store(eventstore::Error::Conflicts) => ApiError::conflict(),
            Error::Store(error) if error.may_pass() => {
                tracing::warn!(%error, "request refused for now");
                ApiError::unavailable(1)
            }
            Error::Store(error) => ApiError::internal(error),
            Error::Internal(reason) => ApiError::internal(reason),
            Error::Request(error) => error,
        }
    }
}
