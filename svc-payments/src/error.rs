//! What can go wrong in svc-payments, and the one place where that becomes a status.

use eventstore::DecideError;
use web::ApiError;

use crate::{domain::Rejection, stripe::Failure, webhook::Forged};

/// Why a request or a reaction came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The rules say no.
    #[error("rejected: {0:?}")]
    Rejected(Rejection),
    /// The card was refused, in words for its owner.
    #[error("declined: {0}")]
    Declined(String),
    /// Stripe would not give the money back.
    #[error("not refunded")]
    NotRefunded,
    /// What came to the webhook is not Stripe's, or not meant for now.
    #[error("forged: {0}")]
    Forged(Forged),
    /// There is no such order, or nobody has asked to pay for it.
    #[error("not found")]
    NotFound,
    /// The log or a projection of it lets us down.
    #[error(transparent)]
    Store(#[from] eventstore::Error),
    /// Stripe does not answer.
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

impl From<DecideError<Rejection>> for Error {
    fn from(error: DecideError<Rejection>) -> Self {
        match error {
            DecideError::Rejected(rejection) => Error::Rejected(rejection),
            DecideError::Failed(error) => Error::Store(error),
        }
    }
}

impl From<Failure> for Error {
    /// Where no answer but yes can be used: it is asked again later.
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Broken(reason) | Failure::Unavailable(reason) | Failure::Refused(reason) => {
                Error::Unavailable(reason)
            }
            Failure::Declined(why) => Error::Unavailable(why.reason),
        }
    }
}

impl From<Error> for ApiError {
    fn from(error: Error) -> Self {
        match error {
            Error::Rejected(Rejection::NotYourOrder | Rejection::NotYourTicket) => ApiError::not_authorized(),
            Error::Rejected(Rejection::OrderCancelled) => {
                ApiError::bad_request("Cannot pay for a cancelled order")
            }
            Error::Rejected(Rejection::NotCharged) => {
                ApiError::bad_request("Cannot refund an order that is not paid")
            }
            Error::NotRefunded => ApiError::bad_request("Stripe does not refund this payment"),
            Error::Forged(why) => ApiError::bad_request(why.to_string()),
            Error::Declined(reason) => ApiError::payment_required(reason),
            Error::NotFound => ApiError::not_found(),
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
