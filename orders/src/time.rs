//! Moments in microseconds.
//!
//! Latencies of a few milliseconds are reported from these, so milliseconds would
//! be too coarse; the database keeps them as integers, users see RFC 3339.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Microseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Micros(i64);

impl Micros {
    /// This moment, by the machine's clock.
    pub(crate) fn now() -> Self {
        Self(Timestamp::now().as_microsecond())
    }

    /// A moment as it was stored.
    pub(crate) const fn from_stored(micros: i64) -> Self {
        Self(micros)
    }

    /// The count of microseconds.
    pub(crate) const fn get(self) -> i64 {
        self.0
    }

    /// Microseconds from `earlier` to `self`; zero if the clock was set back.
    pub(crate) fn since(self, earlier: Self) -> u64 {
        u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0)
    }
}

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_microsecond(self.0) {
            Ok(moment) => write!(f, "{moment:.6}"),
            Err(_) => write!(f, "{} µs", self.0),
        }
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        let moment: Timestamp = text.parse().map_err(de::Error::custom)?;
        Ok(Self(moment.as_microsecond()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_shown_to_the_microsecond_and_reads_back() {
        let moment = Micros::from_stored(852_076_800_000_001);
        let json = serde_json::to_string(&moment).unwrap();
        assert_eq!(json, "\"1997-01-01T00:00:00.000001Z\"");
        assert_eq!(serde_json::from_str::<Micros>(&json).unwrap(), moment);
    }

    #[test]
    fn a_clock_that_went_back_gives_zero() {
        assert_eq!(Micros::from_stored(5).since(Micros::from_stored(9)), 0);
        assert_eq!(Micros::from_stored(9).since(Micros::from_stored(5)), 4);
    }
}
