//! A dead letter as JSON, for people and their tools.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::letter::DeadLetter;
use super::queue::Found;
use crate::record::Headers;

impl Found {
    /// Where it stands, where it came from, why it failed and what was done with it: nothing that
    /// the record itself holds.
    pub fn summary(&self) -> Value {
        let Found { letter, done } = self;
        let origin = letter.origin().map(|origin| {
            json!({
                "topic": origin.topic,
                "partition": origin.partition,
                "offset": origin.offset,
                "timestamp": origin.timestamp,
            })
        });
        let first = letter.first_failure().map(|first| {
            json!({
                "at": first.at.to_string(),
                "class": first.class,
                "reason": first.reason,
            })
        });
        json!({
            "position": letter.position().to_string(),
            "origin": origin,
            "group": letter.group(),
            "class": letter.class_name(),
            "reason": letter.reason(),
            "failed_at": letter.failed_at().map(|at| at.to_string()),
            "attempts": letter.attempts(),
            "first_failure": first,
            "hops": letter.hops(),
            "event_type": letter.event_type(),
            "bytes": letter.record().size(),
            "done": done,
        })
    }

    /// The same with key, value and headers: only for whoever asks for this very record.
    pub fn full(&self) -> Value {
        let mut view = self.summary();
        if let Value::Object(fields) = &mut view {
            fields.insert("key".to_owned(), shown(self.letter.key()));
            fields.insert("value".to_owned(), shown(self.letter.value()));
            let own = self.letter.headers();
            fields.insert("headers".to_owned(), shown_headers(&own));
            let all = self.letter.record().headers();
            let added = all.len() - own.len();
            fields.insert("added_headers".to_owned(), added.into());
        }
        view
    }
}

/// Bytes as text if they are; otherwise in hexadecimal.
pub fn shown(bytes: Option<&[u8]>) -> Value {
    match bytes.map(|bytes| (bytes, std::str::from_utf8(bytes))) {
        None => Value::Null,
        Some((_, Ok(text))) => text.into(),
        Some((bytes, Err(_))) => json!({ "hex": hex(bytes) }),
    }
}

fn shown_headers(headers: &Headers) -> Value {
    let each = headers.iter().map(|header| {
        let mut fields = Map::new();
        fields.insert("name".to_owned(), header.name().into());
        fields.insert("value".to_owned(), shown(header.value()));
        Value::Object(fields)
    });
    each.collect()
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a text does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

impl DeadLetter {
    /// Where it stands on its dead-letter topic.
    pub fn position(&self) -> super::Position {
        let (_, partition, offset) = self.record().read_from();
        super::Position { partition, offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    #[test]
    fn only_who_asks_for_it_sees_what_it_holds() {
        let mut headers = Headers::new();
        headers.push("secret", "s3cret");
        let record = Record::new("t.DLQ", 0, 1, Some(b"\xff\x01"), Some(b"s3cret"));
        let letter = DeadLetter::new(record.with_headers(headers));
        let found = Found { letter, done: None };
        assert!(!found.summary().to_string().contains("cret"));
        let full = found.full();
        assert_eq!(full["key"], json!({ "hex": "ff01" }));
        assert_eq!(full["value"], "s3cret");
        assert_eq!(full["headers"][0]["value"], "s3cret");
        assert_eq!(shown(None), Value::Null);
    }
}
