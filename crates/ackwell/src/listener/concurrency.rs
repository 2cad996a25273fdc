pub use ackwell_core::Concurrency;
pub use ackwell_core::commit::AckMode;

/// One record of a partition at a time, in Kafka's own order: the default.
pub const fn by_partition() -> Concurrency {
    Concurrency::ByPartition
}

/// Up to `lanes` records of a partition at a time, order kept per key. 0 is refused at the start.
pub const fn by_key(lanes: u16) -> Concurrency {
    Concurrency::ByKey(lanes)
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
