//! Ids: UUIDs, one type for each thing that has one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The id's sixteen bytes; a UUIDv7's sort by the time it was made.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            /// Reads the hyphenated form alone: an id has one spelling, in paths as in subjects.
            ///
            /// # Errors
            /// When the text is anything but a hyphenated UUID.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                uuid::fmt::Hyphenated::from_str(text).map(|id| Self(id.into_uuid()))
            }
        }
    )*};
}

ids! {
    /// A person who signed up.
    UserId,
    /// A ticket.
    TicketId,
    /// A reservation of a ticket.
    OrderId,
    /// One try to pay for an order; after a declined card the next try has another.
    PaymentId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_spelling() {
        let text = "0190b6a2-7c3e-7b1a-9d55-0f6b1c2d3e4f";
        assert_eq!(text.parse::<OrderId>().unwrap().to_string(), text);
        for other in
            ["", "1", "0190b6a27c3e7b1a9d550f6b1c2d3e4f", &format!("{{{text}}}"), &format!("{text} ")]
        {
            assert!(other.parse::<OrderId>().is_err(), "{other:?}");
        }
    }
}
