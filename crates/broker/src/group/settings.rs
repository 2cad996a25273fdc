//! The settings of one group, in Kafka's words: a group may need other times than the broker's (KIP-848).
//!
//! They are a group's, not its members': whoever joins is told them by the coordinator. A group need not exist to
//! have settings, and keeps them when it is deleted.

use std::collections::BTreeMap;

use kafka_protocol::error::ResponseError;

use crate::Error;

/// `consumer.session.timeout.ms`.
const SESSION: &str = "consumer.session.timeout.ms";
/// `consumer.heartbeat.interval.ms`.
const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
/// Kafka's `group.consumer.min.session.timeout.ms` and `.max.session.timeout.ms`.
const SESSION_MS: (u64, u64) = (45_000, 60_000);
/// Kafka's `group.consumer.min.heartbeat.interval.ms` and `.max.heartbeat.interval.ms`.
const HEARTBEAT_MS: (u64, u64) = (5_000, 15_000);

/// How often members of a KIP-848 group are heard, and how long they may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) session_ms: u64,
    pub(crate) heartbeat_interval_ms: u64,
}

/// A group's settings in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupConfig {
    overrides: BTreeMap<String, String>,
    pub(crate) timeouts: Timeouts,
}

impl GroupConfig {
    /// Checks a group's own settings, on top of the broker's. What Kafka takes by default is taken; and what lies
    /// between that and the broker's own times.
    ///
    /// # Errors
    /// A setting is unknown, or its value out of bounds.
    pub(crate) fn new(
        overrides: BTreeMap<String, String>,
        defaults: Timeouts,
    ) -> Result<Self, Error> {
        let mut timeouts = defaults;
        for (name, value) in &overrides {
            let (setting, (min, max)) = match name.as_str() {
                SESSION => (&mut timeouts.session_ms, SESSION_MS),
                HEARTBEAT => (&mut timeouts.heartbeat_interval_ms, HEARTBEAT_MS),
                _ => return Err(invalid(name, value, "it is unknown")),
            };
            let (min, max) = (min.min(*setting), max.max(*setting));
            *setting = match value.trim().parse() {
                Ok(ms) if (min..=max).contains(&ms) => ms,
                _ => {
                    let wanted = format!("it must be a whole number from {min} to {max}");
                    return Err(invalid(name, value, &wanted));
                }
            };
        }
        if timeouts.heartbeat_interval_ms >= timeouts.session_ms {
            let value = timeouts.session_ms.to_string();
            return Err(invalid(
                SESSION,
                &value,
                "it must be longer than the interval",
            ));
        }
        Ok(Self {
            overrides,
            timeouts,
        })
    }

    /// Every setting with its value in force, and whether it is the group's own.
    pub(crate) fn values(&self) -> impl Iterator<Item = (&'static str, String, bool)> {
        let own = |name| self.overrides.contains_key(name);
        let Timeouts {
            session_ms,
            heartbeat_interval_ms,
        } = self.timeouts;
        [
            (HEARTBEAT, heartbeat_interval_ms.to_string(), own(HEARTBEAT)),
            (SESSION, session_ms.to_string(), own(SESSION)),
        ]
        .into_iter()
    }
}

fn invalid(name: &str, value: &str, reason: &str) -> Error {
    Error::refused(
        ResponseError::InvalidConfig,
        format!("group setting {name}={value}: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKERS: Timeouts = Timeouts {
        session_ms: 45_000,
        heartbeat_interval_ms: 500,
    };

    fn config(settings: &[(&str, &str)]) -> Result<GroupConfig, Error> {
        let own = settings
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        GroupConfig::new(own.collect(), BROKERS)
    }

    #[test]
    fn a_group_has_the_brokers_times_but_for_its_own() {
        assert_eq!(config(&[]).unwrap().timeouts, BROKERS);
        let own = config(&[(SESSION, "60000")]).unwrap();
        assert_eq!(own.timeouts.session_ms, 60_000);
        assert_eq!(own.timeouts.heartbeat_interval_ms, 500);
        let own: Vec<_> = own.values().map(|(name, _, own)| (name, own)).collect();
        assert_eq!(own, [(HEARTBEAT, false), (SESSION, true)]);
    }

    #[test]
    fn times_out_of_bounds_and_unknown_settings_are_refused() {
        for (name, value) in [
            (SESSION, "44999"),
            (SESSION, "60001"),
            (HEARTBEAT, "499"),
            (HEARTBEAT, "15001"),
            (HEARTBEAT, "soon"),
            ("share.session.timeout.ms", "45000"),
        ] {
            let refused = config(&[(name, value)]).unwrap_err();
            assert_eq!(
                refused.code(),
                ResponseError::InvalidConfig,
                "{name}={value}"
            );
        }
        assert!(config(&[(HEARTBEAT, "500"), (SESSION, "45000")]).is_ok());
    }
}
