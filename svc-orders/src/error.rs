//! What can go wrong in svc-orders, and the one place where that becomes a status.

use eventstore::DecideError;
use web::ApiError;

use crate::domain::Rejection;

/// Why a request or a reaction came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules say no.
    #[error("rejected: {0:?}")]
    Rejected(Rejection),
    /// There is no such ticket or order.
    #[error("not found")]
    NotFound,
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

impl From<ApiError> for Error {
    fn from(error: ApiError) -> Self {
        Error::Request(error)
    }
}

impl From<DecideError<Rejection>> for Error {
    fn from(error: DecideError<Rejection>) -> Self {
        match error {
            DecideError::Rejected(rejection) => Error::Rejected(rejection),
            DecideError::Failed(error) => Error::Store(error),
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejected(Rejection::AlreadyReserved) => {
                ApiError::bad_request("Ticket is already reserved")
            }
            Error::Rejected(Rejection::BeingPaid) => {
                ApiError::bad_request("Cannot cancel an order that is being paid")
            }
            Error::Rejected(Rejection::Paid) => ApiError::bad_request("Cannot cancel an order that is paid"),
            Error::Rejected(Rejection::HoldsTooMany { most }) => {
                ApiError::bad_request(format!("You can hold at most {most} reservations at once"))
            }
            Error::Rejected(Rejection::NotYourOrder) => ApiError::not_authorized(),
            Error::NotFound => ApiError::not_found(),
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
