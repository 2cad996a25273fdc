//! Settings of the transaction coordinator, with Kafka's names; where one node wants another value
//! than a cluster, or a limit that Kafka does not have, the reason stands beside it.

use std::time::Duration;

use crate::Error;
use crate::error::Kind;

/// Settings of transactions.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Transactions {
    /// `transaction.max.timeout.ms`: the longest timeout that a producer may ask for. Default 15
    /// minutes, as Kafka's. An open transaction holds up readers of committed records for as long.
    pub timeout_max: Duration,

    /// `transactional.id.expiration.ms`: how long a transactional id without a transaction is
    /// remembered. Default 7 days, as Kafka's.
    pub id_expiration: Duration,

    /// `transaction.state.log.num.partitions`: partitions of `__transaction_state`, read when it is
    /// created. Default 4 instead of Kafka's 50: they spread producers over brokers there, over
    /// cores here.
    pub state_partitions: i32,
}

impl Default for Transactions {
    fn default() -> Self {
        Self {
            timeout_max: Duration::from_secs(15 * 60),
            id_expiration: Duration::from_secs(7 * 24 * 60 * 60),
            state_partitions: 4,
        }
    }
}

/// What the coordinator goes by: the settings and its own limits. Times are milliseconds, sizes
/// bytes.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) timeout_max_ms: i32,
    pub(crate) id_expiration_ms: i64,
    pub(crate) state_partitions: i32,

    /// Bytes of a transactional id. 1,024, as for groups: a longer name is a mistake.
    pub(crate) id_bytes_max: usize,

    /// Transactional ids of one partition of `__transaction_state`. 10,000: a client that invents an
    /// id for each run is noticed before it has eaten the memory.
    pub(crate) ids_max: usize,

    /// Partitions of one transaction. 10,000: its record is written anew with each that is added.
    pub(crate) partitions_max: usize,

    /// How long a request waits for the end of the transaction before it. 1 s: the end takes one
    /// write to the disk, and a client that is told to come back (`CONCURRENT_TRANSACTIONS`) waits
    /// 20 to 100 ms.
    pub(crate) hold_max_ms: u64,

    /// How often ids are looked through for expired ones
    /// (`transaction.remove.expired.transaction.cleanup.interval.ms`). 1 hour, as Kafka's.
    pub(crate) expiry_check_ms: u64,

    /// How many bytes may be appended to a partition of `__transaction_state` before its live state
    /// is written anew. 4 MiB, as for groups.
    pub(crate) snapshot_bytes: u64,

    /// Requests that wait for one partition's task. 1,024, as for groups.
    pub(crate) queue_max: usize,
}

impl Config {
    /// # Errors
    /// When settings cannot work.
    pub(crate) fn new(transactions: &Transactions) -> Result<Self, Error> {
        let wrong = |what: &str| Err(Error::new(Kind::Config, what));
        if transactions.timeout_max.is_zero() {
            return wrong("transactions.timeout_max must be longer than nothing");
        }
        if transactions.id_expiration.is_zero() {
            return wrong("transactions.id_expiration must be longer than nothing");
        }
        if !(1..=1_000).contains(&transactions.state_partitions) {
            return wrong("transactions.state_partitions must be from 1 to 1000");
        }
        Ok(Self::from(transactions))
    }
}

impl From<&Transactions> for Config {
    fn from(transactions: &Transactions) -> Self {
        Self {
            timeout_max_ms: i32::try_from(transactions.timeout_max.as_millis()).unwrap_or(i32::MAX),
            id_expiration_ms: i64::try_from(transactions.id_expiration.as_millis())
                .unwrap_or(i64::MAX),
            state_partitions: transactions.state_partitions,
            id_bytes_max: 1_024,
            ids_max: 10_000,
            partitions_max: 10_000,
            hold_max_ms: 1_000,
            expiry_check_ms: 60 * 60 * 1_000,
            snapshot_bytes: 4 * 1024 * 1024,
            queue_max: 1_024,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::from(&Transactions::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_refused() {
        assert!(Config::new(&Transactions::default()).is_ok());
        let none = Transactions {
            state_partitions: 0,
            ..Transactions::default()
        };
        assert!(Config::new(&none).unwrap_err().is_config());
        let never = Transactions {
            timeout_max: Duration::ZERO,
            ..Transactions::default()
        };
        assert!(Config::new(&never).unwrap_err().is_config());
    }
}
