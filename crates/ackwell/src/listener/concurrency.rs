pub use ackwell_core::Concurrency;
use ackwell_core::commit::Schedule;

/// One record of a partition at a time, in Kafka's own order: the default.
pub const fn by_partition() -> Concurrency {
    Concurrency::ByPartition
}

/// Up to `lanes` records of a partition at a time, order kept per key. 0 is refused at the start.
pub const fn by_key(lanes: u16) -> Concurrency {
    Concurrency::ByKey(lanes)
}

/// When settled positions are committed. Only settled records are ever passed, in either mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckMode {
    /// When the records of a poll are settled: fewest requests. The default, as in Spring.
    #[default]
    Batch,
    /// After each record: least repetition after a crash. Commits are pipelined, so what settles
    /// while one is under way rides on the next.
    Record,
}

impl From<AckMode> for Schedule {
    fn from(mode: AckMode) -> Self {
        match mode {
            AckMode::Batch => Self::Batch,
            AckMode::Record => Self::Record,
        }
    }
}

/// What happens to a record that the handler's extractors can't decode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUndecodable {
    /// It is dead-lettered at once. The default.
    #[default]
    DeadLetter,
    /// It is settled, counted and logged: for topics on which others' records are none of ours.
    Skip,
    /// The listener stops, unsettled and visibly failed.
    Stop,
}
