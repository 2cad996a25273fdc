//! What a replay does with one dead letter, decided without doing it.

use ackwell_core::envelope::{failure, replay};
use bytes::Bytes;

use super::audit::Action;
use super::format::{first_told, last_told, write_first, write_origin};
use super::letter::DeadLetter;
use super::policy::{origin_of, parking_topic};
use crate::producer::OutgoingRecord;
use crate::record::Headers;

/// What is changed before a dead letter is sent. The dead letter itself stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edit {
    /// Another key; `Some(None)` is no key.
    pub key: Option<Option<Bytes>>,
    /// Another value; `Some(None)` is null, a tombstone.
    pub value: Option<Option<Bytes>>,
    /// Headers in place of those of the same name.
    pub set_headers: Vec<(String, Bytes)>,
    /// Headers that are taken out.
    pub remove_headers: Vec<String>,
}

impl Edit {
    /// Whether it changes nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it fits one dead letter only.
    pub fn is_for_one(&self) -> bool {
        self.key.is_some() || self.value.is_some()
    }

    /// What it changes, for the audit trail; not to what.
    pub(super) fn parts(&self) -> Vec<String> {
        let key = self.key.is_some().then(|| "key".to_owned());
        let value = self.value.is_some().then(|| "value".to_owned());
        let set = self.set_headers.iter().map(|(name, _)| name);
        let headers = set.chain(&self.remove_headers);
        let headers = headers.map(|name| format!("header {name}"));
        key.into_iter().chain(value).chain(headers).collect()
    }

    fn headers(&self, headers: &mut Headers) {
        for name in &self.remove_headers {
            headers.remove(name);
        }
        for (name, value) in &self.set_headers {
            headers.remove(name);
            headers.push(name, value.clone());
        }
    }
}

/// How dead letters are judged.
#[derive(Debug)]
pub(super) struct Rules<'a> {
    pub(super) edit: &'a Edit,
    /// Replays after which a record is parked.
    pub(super) hops_max: u32,
    /// Everything is parked.
    pub(super) park: bool,
}

/// Where a dead letter goes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Move {
    pub(super) action: Action,
    pub(super) to: String,
    /// Wanted, if the topic has it.
    pub(super) partition: Option<i32>,
    pub(super) record: OutgoingRecord,
    pub(super) hops: u32,
}

impl Move {
    /// The record without what the listener can do without, if it has any of that.
    pub(super) fn shorter(&self) -> Option<OutgoingRecord> {
        if self.action != Action::Replay {
            return None;
        }
        self.record.without(&failure::FIRST)
    }
}

/// Decides about one dead letter.
///
/// # Errors
///
/// Why it can't be moved.
pub(super) fn decide(letter: &DeadLetter, rules: &Rules<'_>) -> Result<Move, String> {
    if letter.record().has_unreadable_headers() {
        return Err("its header names are not UTF-8, so no copy would have them".to_owned());
    }
    if rules.park || letter.hops() >= rules.hops_max {
        return Ok(park(letter));
    }
    let own = letter.record().topic();
    let origin = letter.origin();
    let Some(to) = origin.map(|origin| origin.topic).or_else(|| origin_of(own)) else {
        return Err("no headers say where it comes from".to_owned());
    };
    let edit = rules.edit;
    let key = (edit.key.clone()).unwrap_or_else(|| letter.record().key_bytes());
    let value = (edit.value.clone()).unwrap_or_else(|| letter.record().value_bytes());
    let hops = letter.hops().saturating_add(1);
    let mut headers = letter.headers();
    edit.headers(&mut headers);
    headers.remove(replay::HOPS);
    if let Some(origin) = &origin {
        write_origin(&mut headers, origin, letter.group().unwrap_or_default());
        let written = letter.record().headers();
        if let Some(first) = first_told(written).or_else(|| last_told(written)) {
            write_first(&mut headers, &first);
        }
    }
    headers.push_static(replay::HOPS, hops.to_string());
    // With the key of its neighbours it goes to their partition, whoever has chosen it.
    let same_key = edit.key.is_none();
    let partition = origin.filter(|_| same_key).map(|origin| origin.partition);
    Ok(Move {
        action: Action::Replay,
        to: to.to_owned(),
        partition,
        record: outgoing(to, key, value, headers),
        hops,
    })
}

/// Byte for byte, with all that was added: a parked record is still a dead letter.
fn park(letter: &DeadLetter) -> Move {
    let record = letter.record();
    let to = parking_topic(record.topic());
    let headers = record.headers().clone();
    Move {
        action: Action::Park,
        record: outgoing(&to, record.key_bytes(), record.value_bytes(), headers),
        partition: Some(record.partition()),
        to,
        hops: letter.hops(),
    }
}

fn outgoing(
    to: &str,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Headers,
) -> OutgoingRecord {
    let mut record = OutgoingRecord::to(to.to_owned()).headers(headers);
    if let Some(key) = key {
        record = record.key(key);
    }
    match value {
        Some(value) => record.value(value),
        None => record,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    const NO_EDIT: &Edit = &Edit {
        key: None,
        value: None,
        set_headers: Vec::new(),
        remove_headers: Vec::new(),
    };

    fn letter(more: &[(&'static str, &'static str)]) -> DeadLetter {
        let mut headers = Headers::new();
        headers.push("mine", "1");
        for (name, value) in [
            ("original.topic", "orders"),
            ("original.partition", "2"),
            ("original.offset", "42"),
            ("original.timestamp", "7"),
            ("original.group", "g"),
            ("failure.reason", "boom"),
            ("failure.class", "permanent"),
            ("failure.timestamp", "2026-01-01T00:00:00Z"),
            ("failure.attempts", "1"),
        ] {
            headers.push(name, value);
        }
        for (name, value) in more {
            headers.push(name, *value);
        }
        let record = Record::new("orders.DLQ", 0, 5, Some(b"k"), None);
        DeadLetter::new(record.with_headers(headers))
    }

    fn judged(letter: &DeadLetter, edit: &Edit) -> Move {
        let rules = Rules {
            edit,
            hops_max: 3,
            park: false,
        };
        decide(letter, &rules).unwrap()
    }

    fn names(record: &OutgoingRecord) -> Vec<&str> {
        let headers = record.own_headers().iter();
        headers.map(crate::record::Header::name).collect()
    }

    #[test]
    fn a_replay_goes_back_as_it_was_and_says_where_it_came_from() {
        let to = judged(&letter(&[]), NO_EDIT);
        assert_eq!((to.action, &*to.to), (Action::Replay, "orders"));
        assert_eq!((to.partition, to.hops), (Some(2), 1));
        assert_eq!(
            names(&to.record),
            [
                "mine",
                "original.topic",
                "original.partition",
                "original.offset",
                "original.timestamp",
                "original.group",
                "failure.first.timestamp",
                "failure.first.class",
                "failure.first.reason",
                "replay.hops"
            ]
        );
        let reason = to.record.own_headers().get("failure.first.reason");
        assert_eq!(reason, Some(&b"boom"[..]));
        assert_eq!(to.record.own_headers().get("replay.hops"), Some(&b"1"[..]));
    }

    #[test]
    fn the_first_failure_of_all_is_kept_over_replays() {
        let first = [
            ("failure.first.timestamp", "2025-12-31T00:00:00Z"),
            ("failure.first.class", "transient"),
            ("failure.first.reason", "not yet"),
        ];
        let to = judged(&letter(&first), NO_EDIT);
        for (name, value) in first {
            assert_eq!(to.record.own_headers().get_str(name), Some(value));
        }
    }

    #[test]
    fn after_so_many_replays_it_is_parked_as_it_is() {
        let often = letter(&[("replay.hops", "3")]);
        let to = judged(&often, NO_EDIT);
        assert_eq!((to.action, &*to.to), (Action::Park, "orders.parked"));
        assert_eq!(to.record.own_headers(), often.record().headers());
    }

    #[test]
    fn hops_are_counted_on_and_not_piled_up() {
        let to = judged(&letter(&[("replay.hops", "1")]), NO_EDIT);
        assert_eq!(to.hops, 2);
        let hops = names(&to.record);
        assert_eq!(
            hops.iter().filter(|name| **name == "replay.hops").count(),
            1
        );
    }

    #[test]
    fn what_was_edited_is_sent_and_a_new_key_chooses_its_partition() {
        let edit = Edit {
            key: Some(Some("other".into())),
            value: Some(Some("mended".into())),
            set_headers: vec![("mine".into(), "2".into()), ("new".into(), "3".into())],
            remove_headers: vec!["gone".into()],
        };
        let to = judged(&letter(&[("gone", "x")]), &edit);
        assert_eq!(to.partition, None);
        let headers = to.record.own_headers();
        assert_eq!(headers.get("mine"), Some(&b"2"[..]));
        assert_eq!(headers.get("new"), Some(&b"3"[..]));
        assert!(!headers.contains("gone"));
        assert_eq!(
            edit.parts(),
            ["key", "value", "header mine", "header new", "header gone"]
        );
    }

    #[test]
    fn without_an_origin_the_topics_name_says_where_it_belongs() {
        let rules = Rules {
            edit: NO_EDIT,
            hops_max: 3,
            park: false,
        };
        let on = |topic: &'static str| DeadLetter::new(Record::new(topic, 0, 1, None, None));
        let to = decide(&on("orders-dlt"), &rules).unwrap();
        assert_eq!((&*to.to, to.partition), ("orders", None));
        assert!(decide(&on("rubbish"), &rules).is_err());
    }
}
