//! Transactions of Kafka: who a producer is to the broker, and how long one may stay open.

use std::time::Duration;

use serde::Deserialize;

use super::error::{Error, Problem};

/// Longest timeout: the broker's default for `transaction.max.timeout.ms`.
const TIMEOUT_MAX: Duration = Duration::from_secs(15 * 60);
/// Below this, a broker that collects its garbage would abort everything.
const TIMEOUT_MIN: Duration = Duration::from_secs(1);
/// Each is a client with its own threads and connections.
const PRODUCERS_MAX: u32 = 64;
/// A transactional id and the name of its file are made of these.
const NAME_BYTES_MAX: usize = 100;

/// Transactions of Kafka, section `[transactions]`; see [`transaction`](mod@crate::transaction).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Transactions {
    /// What transactional ids begin with, so that rights can be granted by prefix; default the
    /// service's name.
    pub prefix: Option<String>,
    /// What tells this instance from the others; default a name that is made up at the first start
    /// and kept in the data folder. Where the data folder does not survive a restart, name it here
    /// (a pod of a stateful set, for instance): what a crash has left open is then ended at the
    /// next start, and not first when it times out.
    pub instance: Option<String>,
    /// When the broker aborts a transaction that was neither committed nor aborted (Kafka's
    /// `transaction.timeout.ms`); default 30 s. So long may readers wait behind an instance that died
    /// and did not come back. It is no limit for handlers: what they send waits here until they
    /// return.
    #[serde(deserialize_with = "super::duration::deserialize")]
    pub timeout: Duration,
    /// Transactions that a listener, or a [`Transactions`](crate::Transactions), may have open at
    /// the same time; default 4. Each is a producer of its own; what exceeds them waits.
    pub producers: u32,
}

impl Default for Transactions {
    fn default() -> Self {
        Self {
            prefix: None,
            instance: None,
            timeout: Duration::from_secs(30),
            producers: 4,
        }
    }
}

impl Transactions {
    /// Refuses what can't be.
    ///
    /// # Errors
    /// With every problem found.
    pub fn check(&self) -> Result<(), Error> {
        let mut problems = Vec::new();
        let names = [
            ("transactions.prefix", &self.prefix),
            ("transactions.instance", &self.instance),
        ];
        for (key, name) in names {
            if let Some(name) = name.as_ref().filter(|name| !is_name(name)) {
                problems.push(
                    Problem::new(key, format!("`{name}` can't be part of a transactional id"))
                        .mend("use up to 100 letters, digits, `.`, `_` and `-`"),
                );
            }
        }
        if !(TIMEOUT_MIN..=TIMEOUT_MAX).contains(&self.timeout) {
            problems.push(
                Problem::new("transactions.timeout", "it is not between 1 s and 15 min")
                    .mend("write a time in between; it must outlast a pause of the broker"),
            );
        }
        if !(1..=PRODUCERS_MAX).contains(&self.producers) {
            problems.push(
                Problem::new("transactions.producers", "it is not between 1 and 64")
                    .mend("write a number in between; a few serve many partitions"),
            );
        }
        Error::from_problems(problems)
    }
}

fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_is_refused_with_a_mend() {
        assert!(Transactions::default().check().is_ok());
        let wrong = [
            Transactions {
                prefix: Some("a b".into()),
                ..Transactions::default()
            },
            Transactions {
                instance: Some(String::new()),
                ..Transactions::default()
            },
            Transactions {
                timeout: Duration::ZERO,
                ..Transactions::default()
            },
            Transactions {
                producers: 0,
                ..Transactions::default()
            },
        ];
        for wrong in wrong {
            let refused = wrong.check().expect_err("a problem");
            assert_eq!(refused.problems().len(), 1, "{wrong:?}");
        }
    }
}
