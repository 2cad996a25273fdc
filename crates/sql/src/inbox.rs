//! The inbox: which records were handled, so that a redelivery does nothing.
//!
//! A mark is unique by consumer group and event. An event is known by the id in its header,
//! so that it is recognised even when it was produced twice. A record without a usable id is
//! known by its place (topic, partition, offset): a redelivery is recognised all the same, and
//! two records that carry the same nonsense as id are never taken for one.

use std::sync::Arc;

use ackwell::{EVENT_ID, Record};
use uuid::Uuid;

use crate::error::Result;
use crate::group::Turn;
use crate::params;

/// The mark of one record in one consumer group.
pub(crate) struct Entry {
    group: Arc<str>,
    record: Record,
}

impl Entry {
    pub(crate) fn new(group: &Arc<str>, record: Record) -> Self {
        Self {
            group: Arc::clone(group),
            record,
        }
    }

    /// Marks the record as handled; answers whether it was new.
    pub(crate) fn insert(&self, turn: &mut Turn) -> Result<bool> {
        let now = jiff::Timestamp::now();
        let event = match event_id(&self.record) {
            Some(id) => id.into_bytes().to_vec(),
            None => place(&self.record),
        };
        let inserted = turn.execute(
            "INSERT INTO ackwell_inbox (consumer_group, event, handled_at) VALUES ($1, $2, $3) \
             ON CONFLICT DO NOTHING",
            params![*self.group, event, now],
        )?;
        Ok(inserted == 1)
    }
}

/// The id in the record's header. The nil UUID is what a forgotten field looks like: no id.
fn event_id(record: &Record) -> Option<Uuid> {
    let id = Uuid::try_parse(record.headers().get_str(EVENT_ID)?).ok()?;
    (!id.is_nil()).then_some(id)
}

/// The record's place as bytes. Longer than any UUID, so that the two never meet.
fn place(record: &Record) -> Vec<u8> {
    const TAG: &[u8] = b"@pos:";
    let topic = record.topic().as_bytes();
    let mut place = Vec::with_capacity(TAG.len() + topic.len() + 1 + 12);
    place.extend_from_slice(TAG);
    place.extend_from_slice(topic);
    place.push(0);
    place.extend_from_slice(&record.partition().to_be_bytes());
    place.extend_from_slice(&record.offset().to_be_bytes());
    place
}

#[cfg(test)]
mod tests {
    use ackwell::Headers;

    use super::*;

    fn record(id: Option<&str>) -> Record {
        let mut headers = Headers::new();
        if let Some(id) = id {
            headers.push(EVENT_ID, id.to_owned());
        }
        Record::new("t", 1, 42, None, None).with_headers(headers)
    }

    #[test]
    fn a_record_is_known_by_its_event_id() {
        let id = Uuid::now_v7();
        assert_eq!(event_id(&record(Some(&id.to_string()))), Some(id));
    }

    #[test]
    fn nonsense_as_id_is_no_id() {
        for id in [
            None,
            Some(""),
            Some("null"),
            Some("17"),
            Some(&*Uuid::nil().to_string()),
        ] {
            assert_eq!(event_id(&record(id)), None, "{id:?}");
        }
    }

    #[test]
    fn a_place_is_never_taken_for_an_id() {
        let place = place(&record(None));
        assert!(place.len() > 16);
        assert_ne!(place, super::place(&Record::new("t", 1, 43, None, None)));
        assert_ne!(place, super::place(&Record::new("t", 2, 42, None, None)));
    }
}
