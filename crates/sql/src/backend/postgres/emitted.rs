//! What a transaction has emitted and not yet written to the outbox.
//!
//! A row's id is its place in the order in which events are published. Were it written when the
//! handler emits, a handler that emits and then waits for a lock would have a lower id than whoever holds
//! that lock, although it takes effect later. So the rows are written last, when the transaction has all
//! the locks that it will ever have: whoever waits for one of them writes its own rows later.
//! It also makes them one statement for the whole group.
//!
//! What is emitted waits in memory until then. A transaction that emits more than [`BYTES_MAX`] writes its
//! rows early, and has them moved behind what others wrote meanwhile when it commits.

use ackwell::EncodedEvent;

/// Bytes of events that an open transaction keeps in memory.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Events of the open transaction, in the order in which its members emitted them.
#[derive(Debug, Default)]
pub(super) struct Emitted {
    /// Not in the table; those of kept members come first.
    waiting: Vec<EncodedEvent>,
    /// How many of them belong to kept members.
    kept: usize,
    /// Of those that wait; what is lent is as much again at most.
    bytes: usize,
    /// Events of kept members that the member at work has written with its own: if it is taken back, they
    /// go with it.
    lent: Vec<EncodedEvent>,
    /// The lowest id of a row that was written early.
    early: Option<i64>,
}

impl Emitted {
    /// Forgets everything: another transaction begins.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.lent.clear();
        self.kept = 0;
        self.bytes = 0;
        self.early = None;
    }

    /// Adds an event of the member at work; answers whether all that wait should be written now.
    pub(super) fn push(&mut self, event: EncodedEvent) -> bool {
        self.bytes += size(&event);
        self.waiting.push(event);
        self.bytes > BYTES_MAX
    }

    /// What is not in the table.
    pub(super) fn waiting(&self) -> &[EncodedEvent] {
        &self.waiting
    }

    /// The lowest id of a row that was written early and whose place is not right.
    pub(super) fn early(&self) -> Option<i64> {
        self.early
    }

    /// All that waited is in the table now, from this id on.
    pub(super) fn written(&mut self, first: i64) {
        self.lent.extend(self.waiting.drain(..self.kept));
        self.waiting.clear();
        self.kept = 0;
        self.bytes = 0;
        self.early.get_or_insert(first);
    }

    /// The member at work is kept.
    pub(super) fn keep(&mut self) {
        self.lent.clear();
        self.kept = self.waiting.len();
    }

    /// The member at work is taken back, also what it has written.
    pub(super) fn take_back(&mut self) {
        if self.lent.is_empty() {
            self.waiting.truncate(self.kept);
        } else {
            // Written with the first ones of the member, they come before all of its own.
            self.waiting = std::mem::take(&mut self.lent);
        }
        self.bytes = self.waiting.iter().map(size).sum();
        self.keep();
    }
}

fn size(event: &EncodedEvent) -> usize {
    let headers = event.headers.iter();
    let headers = headers.map(|header| header.name().len() + header.value().map_or(0, <[u8]>::len));
    event.key.len() + event.value.len() + headers.sum::<usize>() + size_of::<EncodedEvent>()
}

#[cfg(test)]
mod tests {
    use ackwell::Headers;
    use bytes::Bytes;
    use uuid::Uuid;

    use super::*;

    fn event(name: &'static str) -> EncodedEvent {
        EncodedEvent {
            topic: "t",
            key: Bytes::from_static(name.as_bytes()),
            value: Bytes::new(),
            headers: Headers::new(),
            event_id: Uuid::nil(),
        }
    }

    fn emitted(names: &[&'static str]) -> Emitted {
        let mut emitted = Emitted::default();
        for name in names {
            emitted.push(event(name));
        }
        emitted
    }

    fn waiting(emitted: &Emitted) -> Vec<&str> {
        let keys = emitted.waiting().iter().map(|event| &event.key[..]);
        keys.map(|key| str::from_utf8(key).unwrap()).collect()
    }

    #[test]
    fn a_member_that_is_taken_back_takes_its_events_and_no_others() {
        let mut emitted = emitted(&["a1", "a2"]);
        emitted.keep();
        emitted.push(event("b1"));
        emitted.take_back();
        emitted.push(event("c1"));
        emitted.keep();
        emitted.take_back();
        assert_eq!(waiting(&emitted), ["a1", "a2", "c1"]);
        assert_eq!(emitted.early(), None);
    }

    #[test]
    fn events_that_were_written_with_a_member_that_is_taken_back_wait_again() {
        let mut emitted = emitted(&["a1"]);
        emitted.keep();
        emitted.push(event("b1"));
        emitted.written(7);
        assert_eq!(waiting(&emitted), [""; 0]);
        emitted.push(event("b2"));
        emitted.written(9);
        emitted.push(event("b3"));
        emitted.take_back();
        assert_eq!(waiting(&emitted), ["a1"]);
    }

    #[test]
    fn events_that_were_written_with_a_member_that_is_kept_are_not_written_again() {
        let mut emitted = emitted(&["a1"]);
        emitted.keep();
        emitted.push(event("b1"));
        emitted.written(7);
        emitted.push(event("b2"));
        emitted.keep();
        emitted.push(event("c1"));
        emitted.take_back();
        assert_eq!(waiting(&emitted), ["b2"]);
        assert_eq!(emitted.early(), Some(7), "the others must move");
    }

    #[test]
    fn memory_is_bounded_also_by_many_small_events() {
        let mut emitted = Emitted::default();
        let mut count = 0;
        while !emitted.push(event("a")) {
            count += 1;
            assert!(count < BYTES_MAX, "it never ends");
        }
        emitted.written(1);
        assert!(!emitted.push(event("b")));
    }
}
