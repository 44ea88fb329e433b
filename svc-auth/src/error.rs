//! What can go wrong in svc-auth, and the one place where that becomes a status.

use eventstore::{DecideError, ReadError, Unavailable, WaitError};
use web::ApiError;

use crate::{domain::Rejection, limits::TooMany, passwords, sealing};

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules say no.
    #[error("rejected: {0:?}")]
    Rejected(Rejection),
    /// No such address, or not its password: which of the two is not told.
    #[error("invalid credentials")]
    InvalidCredentials,
    /// The client tries too often.
    #[error(transparent)]
    TooMany(#[from] TooMany),
    /// Others were faster, every time.
    #[error("too many conflicts")]
    Conflicts,
    /// The log does not answer, the projection is behind it, or there is too much to do.
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

impl From<sealing::Error> for Error {
    fn from(error: sealing::Error) -> Self {
        Error::Internal(error.to_string())
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
            Error::TooMany(TooMany { retry_after }) => {
                // Rounded up: never so soon that it would be refused again.
                let begun = u64::from(retry_after.subsec_nanos() > 0);
                ApiError::too_many_requests(retry_after.as_secs() + begun)
            }
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
