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
    /// Records without a key have no order among themselves: they are dealt to the lanes in turn,
    /// by their offset, so that they use all of them.
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

    /// The lane of the record at `offset` whose key has this hash.
    pub fn lane(self, key_hash: Option<u64>, offset: i64) -> LaneId {
        let hash = key_hash.unwrap_or(offset.unsigned_abs());
        let lanes = u64::from(self.lanes());
        LaneId(u16::try_from(hash % lanes).unwrap_or(0))
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
        assert_eq!(by_key.lane(Some(77), 1), by_key.lane(Some(77), 2));
        assert!((0..1000).all(|hash| by_key.lane(Some(hash), 0).0 < 32));
    }

    #[test]
    fn records_without_a_key_use_all_lanes_in_turn() {
        let lanes = (40..48).map(|offset| Concurrency::ByKey(8).lane(None, offset).0);
        assert_eq!(lanes.collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6, 7]);
    }

    #[test]
    fn with_zero_lanes_there_is_still_a_lane() {
        assert_eq!(Concurrency::ByKey(0).lane(Some(9), 9), LaneId(0));
        assert_eq!(Concurrency::ByPartition.lane(Some(9), 9), LaneId(0));
        assert_eq!(Concurrency::ByPartition.lane(None, 9), LaneId(0));
    }
}
