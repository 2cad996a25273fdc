//! Which dead letters are meant.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;

use super::letter::DeadLetter;

/// Where a dead letter stands on its topic: how one is named. Written `partition:offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (partition, offset) = text.split_once([':', '/'])?;
            let (partition, offset) = (partition.parse().ok()?, offset.parse().ok()?);
            (partition >= 0 && offset >= 0).then_some(Position { partition, offset })
        };
        parse()
            .ok_or_else(|| format!("`{text}` is no position; write partition:offset, as in 0:42"))
    }
}

/// A moment as people write it: RFC 3339, or how long ago (`90m`, `2h`, `3d`).
///
/// # Errors
///
/// When it is neither; says what to write.
pub fn moment(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(moment) = text.parse() {
        return Ok(moment);
    }
    let ago = text.parse::<jiff::Span>().ok();
    let moment = ago.and_then(|ago| {
        let now = now.to_zoned(jiff::tz::TimeZone::UTC);
        let moment = now.checked_sub(ago.abs()).ok()?;
        Some(moment.timestamp())
    });
    moment.ok_or_else(|| {
        format!("`{text}` is no time; write 2026-01-31T12:00:00Z, or how long ago: 90m, 2h, 3d")
    })
}

/// Which dead letters are meant: all that meet every condition given; by default, all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only these.
    pub positions: BTreeSet<Position>,
    /// The class of the failure, or for Spring's dead letters the exception.
    pub class: Option<String>,
    /// A part of the reason, in any case.
    pub reason: Option<String>,
    /// The topic on which the record was first read.
    pub topic: Option<String>,
    /// The group in which it failed.
    pub group: Option<String>,
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The event's type.
    pub event_type: Option<String>,
    /// Headers that it has; with a value, one of that name must have it.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// Given up at this time or later.
    pub since: Option<Timestamp>,
    /// Given up before this time.
    pub until: Option<Timestamp>,
}

impl Filter {
    /// All dead letters.
    pub fn all() -> Self {
        Self::default()
    }

    /// These ones.
    pub fn positions(positions: impl IntoIterator<Item = Position>) -> Self {
        Self {
            positions: positions.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Whether every dead letter meets it.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a dead letter meets it.
    pub fn matches(&self, letter: &DeadLetter) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let origin = letter.origin();
        (self.positions.is_empty() || self.positions.contains(&letter.position()))
            && is(&self.class, letter.class_name())
            && is(&self.topic, origin.map(|origin| origin.topic))
            && is(&self.group, letter.group())
            && is(&self.event_type, letter.event_type())
            && (self.key.is_none() || self.key.as_deref() == letter.key())
            && self.matches_reason(letter)
            && self.matches_time(letter)
            && self.matches_headers(letter)
    }

    fn matches_reason(&self, letter: &DeadLetter) -> bool {
        self.reason.as_ref().is_none_or(|part| {
            let reason = letter.reason().unwrap_or_default().to_lowercase();
            reason.contains(&part.to_lowercase())
        })
    }

    fn matches_time(&self, letter: &DeadLetter) -> bool {
        let at = letter.failed_at();
        self.since.is_none_or(|since| at >= Some(since))
            && self
                .until
                .is_none_or(|until| at.is_some_and(|at| at < until))
    }

    fn matches_headers(&self, letter: &DeadLetter) -> bool {
        let headers = letter.record().headers();
        self.headers.iter().all(|(name, value)| {
            headers.iter().any(|header| {
                header.name() == name && (value.is_none() || value.as_deref() == header.value())
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use ackwell_core::Class;

    use super::super::format::Verdict;
    use super::super::policy::Format;
    use super::*;
    use crate::origin::Origin;
    use crate::record::Record;

    fn letter() -> DeadLetter {
        let mut headers = Format::Ackwell.write(&Verdict {
            origin: Origin {
                topic: "orders",
                partition: 1,
                offset: 2,
                timestamp: None,
            },
            stamped_by_broker: false,
            group: "g",
            class: Class::Transient,
            reason: "Database is LOCKED",
            attempts: 3,
            at: Timestamp::from_second(1_000).unwrap(),
            first: None,
        });
        headers.push("eventType", "OrderPlaced");
        headers.push("tenant", "7");
        headers.push_null("flag");
        DeadLetter::new(Record::new("orders.DLQ", 4, 9, Some(b"k"), None).with_headers(headers))
    }

    fn at(text: &str) -> Position {
        text.parse().unwrap()
    }

    fn meets(change: impl FnOnce(&mut Filter)) -> bool {
        let mut filter = Filter::all();
        change(&mut filter);
        assert!(!filter.is_all());
        filter.matches(&letter())
    }

    #[test]
    fn a_dead_letter_meets_what_is_true_of_it() {
        assert!(Filter::all().matches(&letter()));
        assert!(meets(|f| f.class = Some("transient".into())));
        assert!(meets(|f| f.reason = Some("locked".into())));
        assert!(meets(|f| f.topic = Some("orders".into())));
        assert!(meets(|f| f.group = Some("g".into())));
        assert!(meets(|f| f.key = Some(b"k".to_vec())));
        assert!(meets(|f| f.event_type = Some("OrderPlaced".into())));
        assert!(meets(|f| f.headers = vec![("flag".into(), None)]));
        assert!(meets(
            |f| f.headers = vec![("tenant".into(), Some(b"7".to_vec()))]
        ));
        assert!(meets(|f| f.since = Timestamp::from_second(1_000).ok()));
        assert!(meets(|f| f.until = Timestamp::from_second(1_001).ok()));
        assert!(meets(|f| f.positions = [at("4:9")].into()));
    }

    #[test]
    fn and_not_what_is_untrue() {
        assert!(!meets(|f| f.class = Some("permanent".into())));
        assert!(!meets(|f| f.reason = Some("full".into())));
        assert!(!meets(|f| f.topic = Some("order".into())));
        assert!(!meets(|f| f.key = Some(b"".to_vec())));
        assert!(!meets(|f| f.headers = vec![("none".into(), None)]));
        assert!(!meets(
            |f| f.headers = vec![("tenant".into(), Some(b"8".to_vec()))]
        ));
        assert!(!meets(|f| f.since = Timestamp::from_second(1_001).ok()));
        assert!(!meets(|f| f.until = Timestamp::from_second(1_000).ok()));
        assert!(!meets(|f| f.positions = [at("4:8")].into()));
    }

    #[test]
    fn a_moment_is_a_time_or_how_long_ago() {
        let now: Timestamp = "2026-01-31T12:00:00Z".parse().unwrap();
        for (text, expected) in [
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
            ("90m", "2026-01-31T10:30:00Z"),
            ("2h", "2026-01-31T10:00:00Z"),
            ("3d", "2026-01-28T12:00:00Z"),
        ] {
            assert_eq!(moment(text, now), Ok(expected.parse().unwrap()), "{text}");
        }
        for wrong in ["", "yesterday", "99999999y", "12"] {
            assert!(moment(wrong, now).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_position_is_written_as_it_is_read() {
        let position: Position = "4:9".parse().unwrap();
        assert_eq!(position.to_string(), "4:9");
        assert_eq!("4/9".parse(), Ok(position));
        for wrong in ["", "4", "4:", "a:b", "-1:3", "1:-3", "4:9:1"] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong}");
        }
    }
}
