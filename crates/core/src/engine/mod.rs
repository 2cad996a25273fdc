//! The container: events in, effects out.

/// What the engine must know of a record.
pub trait Record {
    /// Its offset within the partition.
    fn offset(&self) -> i64;
    /// A hash of its key; `None` without a key.
    fn key_hash(&self) -> Option<u64>;
    /// Its bytes, for the queue's limit.
    fn size(&self) -> usize;
}
