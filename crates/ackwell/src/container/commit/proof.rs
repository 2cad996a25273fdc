//! Whether the broker takes metadata of a length that it has not been seen to take.

use std::time::Duration;

use ackwell_core::engine::Event;
use rdkafka::consumer::Consumer;
use rdkafka::topic_partition_list::{TopicPartitionList, TopicPartitionListElem};

use super::super::consumer::Client;
use super::super::mailbox::Mailbox;

/// How long the broker may take to say which positions it has.
const PROOF_WAIT: Duration = Duration::from_secs(5);

/// How much metadata the broker was seen to take.
///
/// The client tells of an error only if it concerns all partitions of a commit. Metadata that is
/// longer than any before is therefore looked at once: a position that is not there was refused.
#[derive(Default)]
pub(super) struct Proof {
    bytes: usize,
}

impl Proof {
    pub(super) fn look(
        &mut self,
        client: &Client,
        committed: &TopicPartitionList,
        mailbox: &Mailbox,
    ) -> Result<(), String> {
        let elements = committed.elements();
        let length = |element: &TopicPartitionListElem<'_>| element.metadata().len();
        let new = elements
            .iter()
            .filter(|element| length(element) > self.bytes);
        let mut asked = TopicPartitionList::new();
        let mut wanted = Vec::new();
        for element in new {
            asked.add_partition(element.topic(), element.partition());
            wanted.push(element);
        }
        let Some(longest) = wanted.iter().map(|element| length(element)).max() else {
            return Ok(());
        };
        let found = client.committed_offsets(asked, PROOF_WAIT);
        let found = found.map_err(|error| format!("seeing whether it was stored: {error}"))?;
        let stored = |element: &&TopicPartitionListElem<'_>| {
            let there = found.find_partition(element.topic(), element.partition());
            there.is_some_and(|there| there.offset() == element.offset())
        };
        if wanted.iter().all(stored) {
            self.bytes = longest;
            return Ok(());
        }
        tracing::warn!(bytes = longest, "the broker does not take so much metadata");
        mailbox.send(Event::MetadataRefused);
        Err(format!(
            "the broker does not take {longest} bytes of metadata beside a position"
        ))
    }
}
