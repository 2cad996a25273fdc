//! Which records may be handled at the same time.
//!
//! A lane is serial: its records are handled one after another, in the order of their offsets.
//! Order per key is therefore kept exactly when all records of a key fall into one lane.

/// How a listener's records are spread over lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Concurrency {
    /// One lane a partition: Kafka's own order. The default, because it promises the most.
    #[default]
    ByPartition,
    /// Up to this many lanes a partition, chosen by the key's hash: order is kept per key.
    /// Records without a key share lane 0 and so keep their order among themselves.
    ByKey(u16),
}

impl Concurrency {
    /// Lanes of one partition; at least 1.
    pub fn lanes(self) -> u16 {
        match self {
            Concurrency::ByPartition => 1,
            Concurrency::ByKey(lanes) => lanes.max(1),
        }
    }

    /// The lane of a record whose key has this hash.
    pub fn lane(self, key_hash: Option<u64>) -> LaneId {
        match key_hash {
            Some(hash) => {
                let lanes = u64::from(self.lanes());
                LaneId(u16::try_from(hash % lanes).unwrap_or(0))
            }
            None => LaneId(0),
        }
    }
}

/// Number of a lane within its partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LaneId(pub u16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_one_key_share_a_lane() {
        let by_key = Concurrency::ByKey(32);
        assert_eq!(by_key.lane(Some(77)), by_key.lane(Some(77)));
        assert!((0..1000).all(|hash| by_key.lane(Some(hash)).0 < 32));
    }

    #[test]
    fn without_a_key_or_with_zero_lanes_there_is_still_a_lane() {
        assert_eq!(Concurrency::ByKey(0).lane(Some(9)), LaneId(0));
        assert_eq!(Concurrency::ByKey(8).lane(None), LaneId(0));
        assert_eq!(Concurrency::ByPartition.lane(Some(9)), LaneId(0));
    }
}
