//! The topics, from their beginning to where they ended when the audit looked.

use ackwell::config::Kafka;
use ackwell::extract;
use ackwell::reader::{self, ReadError};
use ackwell::{Event, Record};
use uuid::Uuid;

/// What was read.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Reading {
    /// Records.
    pub(crate) records: u64,
    /// Records that are no event of this topic; they are dead-lettered by those who listen.
    pub(crate) strange: u64,
    /// Retention has taken records from the beginning.
    pub(crate) shortened: bool,
}

/// Reads every event of `E`'s topic, one record in memory at a time. Blocks.
///
/// # Errors
/// [`ReadError`]; a topic that does not exist has no records.
pub(crate) fn read<E: Event>(
    kafka: &Kafka,
    mut each: impl FnMut(Uuid, E),
) -> Result<Reading, ReadError> {
    let mut strange = 0;
    let extent = reader::read(kafka, E::TOPIC.name(), |record| match decode::<E>(record) {
        Some((event_id, event)) => each(event_id, event),
        None => strange += 1,
    })?;
    Ok(Reading {
        records: extent.records,
        strange,
        shortened: extent.shortened,
    })
}

fn decode<E: Event>(record: &Record) -> Option<(Uuid, E)> {
    let event_id = record.headers().get_str(ackwell::EVENT_ID)?.parse().ok()?;
    let event = extract::Event::decode(record).ok()?;
    Some((event_id, event))
}
