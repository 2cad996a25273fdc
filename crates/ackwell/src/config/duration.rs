//! Durations as people write them: `"250ms"`, `"10s"`, `"5m"`, `"24h"`, `"7d"`.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

const UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

/// Reads a duration with a unit; a bare number is refused, since nobody agrees on its unit.
///
/// For settings of one's own: `#[serde(deserialize_with = "ackwell::config::duration")]`.
///
/// # Errors
/// When the text is not a whole number followed by `ms`, `s`, `m`, `h` or `d`.
pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(input)?;
    parse(&text).ok_or_else(|| {
        de::Error::custom(format_args!(
            "`{text}` is not a duration: write a whole number and a unit, as in \"250ms\", \"10s\", \"5m\", \"24h\" or \"7d\""
        ))
    })
}

fn parse(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    number
        .parse::<u64>()
        .ok()?
        .checked_mul(*millis)
        .map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_its_unit() {
        assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse("10 s"), Some(Duration::from_secs(10)));
        assert_eq!(parse("7d"), Some(Duration::from_secs(7 * 86_400)));
        for refused in [
            "",
            "10",
            "s",
            "-1s",
            "1.5s",
            "10 sec",
            "99999999999999999999ms",
            "18446744073709551615d",
        ] {
            assert_eq!(parse(refused), None, "{refused}");
        }
    }
}
