//! What can go wrong while a page is made.

use http::StatusCode;
use serde::Deserialize;

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API says no, for reasons that people may read.
    #[error("refused: {0:?}")]
    Refused(Refusal),
    /// Signed out, or it is somebody else's.
    #[error("not authorized")]
    NotAuthorized,
    /// There is no such thing.
    #[error("not found")]
    NotFound,
    /// This part of the system does not answer.
    #[error("{0:?} unavailable")]
    Unavailable(Part),
    /// The API answers what nobody expects.
    #[error("unexpected: {0}")]
    Unexpected(String),
}

/// A no of the API's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: StatusCode,
    pub(crate) problems: Vec<Problem>,
    /// After how many seconds another try makes sense.
    pub(crate) retry_after: Option<u64>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Problem {
    pub(crate) message: String,
    /// The field that is wrong; for validation only.
    pub(crate) field: Option<String>,
}

/// A part of the system, by what visitors do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Accounts,
    Tickets,
    Orders,
    Payments,
}

impl Part {
    /// Whose route it is.
    pub(crate) fn of(route: &str) -> Self {
        match route.split('/').nth(2) {
            Some("users") => Part::Accounts,
            Some("orders") => Part::Orders,
            Some("payments") => Part::Payments,
            _ => Part::Tickets,
        }
    }
}
