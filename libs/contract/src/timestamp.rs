//! Points in time: RFC 3339, UTC, milliseconds.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use time::{OffsetDateTime, UtcOffset, format_description::well_known::Rfc3339, macros::datetime};
use utoipa::ToSchema;

/// A point in time in UTC, to the millisecond: what a browser's `Date` keeps.
///
/// Serialises as RFC 3339 text, `2026-11-22T05:23:55.120Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ToSchema)]
#[schema(value_type = String, format = DateTime, examples("2026-11-22T05:23:55.120Z"))]
pub struct Timestamp(OffsetDateTime);

const FIRST: OffsetDateTime = datetime!(0000-01-01 00:00:00 UTC);
const LAST: OffsetDateTime = datetime!(9999-12-31 23:59:59.999 UTC);

impl Timestamp {
    /// The time, if it has a year in UTC.
    fn in_utc(time: OffsetDateTime) -> Option<Self> {
        let time = time.checked_to_offset(UtcOffset::UTC).filter(|time| time.year() >= 0)?;
        Some(Self(time.replace_millisecond(time.millisecond()).unwrap_or(time)))
    }

    /// The same time moved later; at the end of time it stays there.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        let duration = time::Duration::try_from(duration).unwrap_or(time::Duration::MAX);
        Self::from(self.0.saturating_add(duration))
    }

    /// How long it is from `earlier` to this; zero when it is not later.
    #[must_use]
    pub fn since(self, earlier: Timestamp) -> Duration {
        (self.0 - earlier.0).try_into().unwrap_or(Duration::ZERO)
    }
}

/// A time that in UTC is before the first or after the last becomes that: RFC 3339 has the years 0 to 9999.
impl From<OffsetDateTime> for Timestamp {
    fn from(time: OffsetDateTime) -> Self {
        let nearest = if time.year() < 5000 { FIRST } else { LAST };
        Self::in_utc(time).unwrap_or(Self(nearest))
    }
}

impl From<std::time::SystemTime> for Timestamp {
    fn from(time: std::time::SystemTime) -> Self {
        Self::from(OffsetDateTime::from(time))
    }
}

impl From<Timestamp> for OffsetDateTime {
    fn from(time: Timestamp) -> Self {
        time.0
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (date, clock) = (self.0.date(), self.0.time());
        write!(
            f,
            "{date}T{:02}:{:02}:{:02}.{:03}Z",
            clock.hour(),
            clock.minute(),
            clock.second(),
            clock.millisecond()
        )
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        let time = OffsetDateTime::parse(&text, &Rfc3339).map_err(D::Error::custom)?;
        Self::in_utc(time).ok_or_else(|| D::Error::custom("a time without a year in UTC"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_utc_to_the_millisecond() {
        let time = Timestamp::from(datetime!(2026-11-22 07:03:05.120_999 +02:00));
        assert_eq!(serde_json::to_string(&time).unwrap(), "\"2026-11-22T05:03:05.120Z\"");
        let back: Timestamp = serde_json::from_str("\"2026-11-22T05:03:05.12Z\"").unwrap();
        assert_eq!(back, time);
    }

    #[test]
    fn a_time_that_has_no_year_in_utc_is_none() {
        for text in ["9999-12-31T23:59:59.999-23:59", "0000-01-01T00:00:00+23:59"] {
            assert!(serde_json::from_str::<Timestamp>(&format!("{text:?}")).is_err(), "{text}");
        }
        assert_eq!(
            Timestamp::from(datetime!(9999-12-31 23:59 -23:59)).to_string(),
            "9999-12-31T23:59:59.999Z"
        );
        assert_eq!(
            Timestamp::from(datetime!(0000-01-01 00:00 +23:59)).to_string(),
            "0000-01-01T00:00:00.000Z"
        );
    }

    #[test]
    fn since_is_never_negative() {
        let early = Timestamp::from(datetime!(2026-11-22 05:00 UTC));
        let late = early.plus(Duration::from_millis(1500));
        assert_eq!(late.since(early), Duration::from_millis(1500));
        assert_eq!(early.since(late), Duration::ZERO);
    }
}
