//! What can go wrong in svc-auth, and the one place where that becomes a status.

use eventstore::{DecideError, Unavailable};
use web::{ApiError, limit::TooMany};

use crate::{domain::Rejection, passwords, sealing, user_keys};

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules say no.
    #[error("rejected: {0:?}")]
    Rejected(Rejection),
    /// No such address, or not its password: which of the two is not told.
    #[error("invalid credentials")]
    InvalidCredentials,
    /// Too often, from one client or at one account.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// The log or a projection of it lets us down.
    #[error(transparent)]
    Store(#[from] eventstore::Error),
    /// There is too much to do.
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

impl From<Rejection> for Error {
    fn from(rejection: Rejection) -> Self {
        Error::Rejected(rejection)
    }
}

impl From<Unavailable> for Error {
    fn from(error: Unavailable) -> Self {
        Error::Store(error.into())
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

impl From<sealing::Error> for Error {
    fn from(error: sealing::Error) -> Self {
        Error::Internal(error.to_string())
    }
}

impl From<user_keys::Error> for Error {
    fn from(error: user_keys::Error) -> Self {
        match error {
            user_keys::Error::Unavailable(error) => error.into(),
            user_keys::Error::Sealing(error) => error.into(),
        }
    }
}

impl From<passwords::Error> for Error {
    fn from(error: passwords::Error) -> Self {
        match error {
            passwords::Error::Busy => Error::Unavailable(error.to_string()),
            error => Error::Internal(error.to_string()),
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejected(Rejection::EmailInUse) => ApiError::bad_request("Email in use"),
            Error::InvalidCredentials => ApiError::bad_request("Invalid credentials"),
            Error::TooMany(too_many) => too_many.into(),
            Error::Store(eventstore::Error::Conflicts) => ApiError::conflict(),
            Error::Store(error) if error.may_pass() => {
                tracing::warn!(%error, "request refused for now");
                ApiError::unavailable(1)
            }
            Error::Store(error) => ApiError::internal(error),
            Error::Unavailable(reason) => {
                tracing::warn!(%reason, "request refused for now");
                ApiError::unavailable(1)
            }
            Error::Internal(reason) => ApiError::internal(reason),
            Error::Request(error) => error,
        }
    }
}
