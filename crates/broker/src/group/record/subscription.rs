//! `ConsumerProtocolSubscription`: the part of a consumer's join metadata that the coordinator
//! looks at, to know which offsets are still in use. All else in it is between the members.

use kafka_protocol::protocol::StrBytes;

use crate::coordinator::{Malformed, Reader};

/// The topics that a consumer's join metadata names; they come first in every version.
pub(crate) fn subscribed_topics(metadata: &[u8]) -> Result<Vec<StrBytes>, Malformed> {
    let mut metadata = Reader::new(metadata);
    if metadata.int16()? < 0 {
        return Err(Malformed(
            "negative version of ConsumerProtocolSubscription",
        ));
    }
    let count = metadata.count()?;
    (0..count).map(|_| metadata.string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_read_whatever_follows() {
        let topics = subscribed_topics(b"\0\x01\0\0\0\x02\0\x01a\0\x02bc\xff\xff\xff\xff").unwrap();
        assert_eq!(
            topics,
            [
                StrBytes::from_static_str("a"),
                StrBytes::from_static_str("bc")
            ]
        );
    }

    #[test]
    fn metadata_of_another_kind_is_an_error() {
        assert!(subscribed_topics(b"").is_err());
        assert!(subscribed_topics(b"\0\x01\x7f\xff\xff\xff").is_err());
    }
}
