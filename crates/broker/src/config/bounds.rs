//! What numbers and times must be like, told before anything is begun.

use super::{Cleaning, Config, Limits};
use crate::Error;
use crate::error::Kind;

impl Config {
    /// # Errors
    /// When a setting is out of its bounds, with what they are.
    pub(crate) fn check_bounds(&self) -> Result<(), Error> {
        at_least_1("default_partitions", i64::from(self.default_partitions))?;
        if self.default_partitions > self.limits.partitions_max {
            return Err(wrong(&format!(
                "default_partitions is {}, more than the {} of limits.partitions_max: lower the one or \
                 raise the other",
                self.default_partitions, self.limits.partitions_max
            )));
        }
        if self.retention_check.is_zero() {
            return Err(wrong("retention_check must be longer than nothing"));
        }
        if !(14..=i32::MAX.unsigned_abs()).contains(&self.segment_bytes) {
            return Err(wrong("segment_bytes must be from 14 to 2147483647"));
        }
        self.limits.check()?;
        self.cleaning.check()
    }
}

impl Limits {
    fn check(&self) -> Result<(), Error> {
        at_least_1("limits.connections_max", self.connections_max)?;
        if let Some(max) = self.connections_per_address_max {
            at_least_1("limits.connections_per_address_max", max)?;
        }
        at_least_1("limits.request_bytes_max", self.request_bytes_max)?;
        at_least_1("limits.request_elements_max", self.request_elements_max)?;
        at_least_1("limits.partitions_max", i64::from(self.partitions_max))?;
        if self.memory_max < self.request_bytes_max.max(self.fetch_bytes_max) {
            let what = "limits.memory_max must be at least request_bytes_max and fetch_bytes_max";
            return Err(wrong(what));
        }
        if self.idle_max.is_zero() {
            return Err(wrong(
                "limits.idle_max must be longer than nothing: every connection would be closed at once",
            ));
        }
        if self.login_max.is_zero() {
            return Err(wrong(
                "limits.login_max must be longer than nothing: nobody could agree on TLS or log in",
            ));
        }
        Ok(())
    }
}

impl Cleaning {
    fn check(&self) -> Result<(), Error> {
        if self.interval.is_zero() {
            return Err(wrong("cleaning.interval must be longer than nothing"));
        }
        if self.memory_max < 1024 * 1024 {
            return Err(wrong("cleaning.memory_max must be at least 1 MiB"));
        }
        match self.bytes_per_second {
            Some(bytes) => at_least_1("cleaning.bytes_per_second", bytes),
            None => Ok(()),
        }
    }
}

fn at_least_1<T: PartialOrd + From<u8>>(setting: &str, value: T) -> Result<(), Error> {
    match value >= T::from(1) {
        true => Ok(()),
        false => Err(wrong(&format!("{setting} must be at least 1"))),
    }
}

fn wrong(what: &str) -> Error {
    Error::new(Kind::Config, what)
}
