//! How single values are written.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Visitor};

use crate::{Flush, Mechanism};

/// A length of time: a number with its unit.
pub(super) struct Time(Duration);

/// How long records are kept.
pub(super) enum Kept {
    Forever,
    For(Time),
}

/// Wraps what is parsed from a text.
pub(super) struct Written<T>(pub(super) T);

impl FromStr for Time {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [
            // Before the units that it ends with.
            ("ms", 1),
            ("s", 1_000),
            ("m", 60 * 1_000),
            ("h", 60 * 60 * 1_000),
            ("d", 24 * 60 * 60 * 1_000),
        ];
        let found = units
            .iter()
            .find_map(|(unit, ms)| Some((text.strip_suffix(unit)?, ms)));
        found
            .and_then(|(number, ms)| number.parse::<u64>().ok()?.checked_mul(*ms))
            .map(|ms| Self(Duration::from_millis(ms)))
            .ok_or_else(|| "a time is a number with ms, s, m, h or d, as in 7d".to_owned())
    }
}

impl FromStr for Kept {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "forever" => Ok(Self::Forever),
            text => match text.parse() {
                Ok(time) => Ok(Self::For(time)),
                Err(why) => Err(format!("{why}, or forever")),
            },
        }
    }
}

impl From<Time> for Duration {
    fn from(time: Time) -> Self {
        time.0
    }
}

impl From<Kept> for Option<Duration> {
    fn from(kept: Kept) -> Self {
        match kept {
            Kept::Forever => None,
            Kept::For(time) => Some(time.0),
        }
    }
}

impl From<Written<Flush>> for Flush {
    fn from(written: Written<Flush>) -> Self {
        written.0
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let what = "a time: a number with ms, s, m, h or d, as in 7d";
        deserializer.deserialize_str(Text::new(what))
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let what = "a time: a number with ms, s, m, h or d, as in 7d, or forever";
        deserializer.deserialize_str(Text::new(what))
    }
}

impl<'de> Deserialize<'de> for Written<Flush> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(Text::new("when to flush"))
            .map(Self)
    }
}

impl<'de> Deserialize<'de> for Written<Mechanism> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer
            .deserialize_str(Text::new("a mechanism"))
            .map(Self)
    }
}

/// Reads a text and parses it.
struct Text<T> {
    what: &'static str,
    parsed: std::marker::PhantomData<T>,
}

impl<T> Text<T> {
    fn new(what: &'static str) -> Self {
        Self {
            what,
            parsed: std::marker::PhantomData,
        }
    }
}

impl<T: FromStr<Err = String>> Visitor<'_> for Text<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
}
