//! The answer to a fetch, put together around records that stay where they are.
//!
//! The codec wants records in memory. Here it encodes each structure without its last field (a list, or the records),
//! which is then written in its place: its length, what it holds, and the empty tagged fields that end a structure in
//! flexible versions. The result is byte for byte what the codec would have made of it.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchResponse, ResponseHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion};
use tokio::sync::OwnedSemaphorePermit;

use super::{Context, Refusal, Reply};
use crate::log::Stretch;

/// The first version with compact lengths and tagged fields.
const FLEXIBLE: i16 = 12;
/// Bytes of a partition in an answer, beside its records: a guess that saves growing.
const PARTITION_BYTES: usize = 64;

/// A part of a response.
#[derive(Debug)]
pub(crate) enum Piece {
    Bytes(Bytes),
    Records(InFile),
}

/// Records in a file that is held open for them.
#[derive(Debug)]
pub(crate) struct InFile {
    pub(crate) records: Stretch,
    _open: OwnedSemaphorePermit,
}

impl InFile {
    /// `open` is the permission to hold one more file open.
    pub(super) fn new(records: Stretch, open: OwnedSemaphorePermit) -> Self {
        let _open = open;
        Self { records, _open }
    }
}

impl Piece {
    /// Bytes that it has in memory.
    pub(crate) fn in_memory(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Records(_) => 0,
        }
    }
}

/// The records of one partition in an answer.
#[derive(Debug)]
pub(super) enum Records {
    Memory(Bytes),
    File(InFile),
}

impl Records {
    pub(super) fn none() -> Self {
        Self::Memory(Bytes::new())
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(found) => found.records.len(),
        }
    }

    pub(super) fn in_memory(&self) -> usize {
        match self {
            Self::Memory(bytes) => bytes.len(),
            Self::File(_) => 0,
        }
    }
}

/// What a fetch answers: a response whose topics and partitions are beside it.
#[derive(Debug, Default)]
pub(super) struct Fetched {
    pub(super) response: FetchResponse,
    pub(super) topics: Vec<(FetchableTopicResponse, Vec<(PartitionData, Records)>)>,
}

impl Fetched {
    pub(super) fn without_records(response: FetchResponse) -> Self {
        let topics = Vec::new();
        Self { response, topics }
    }

    /// The pieces of the response's frame.
    pub(super) fn reply(self, cx: &Context) -> Result<Reply, Refusal> {
        let (version, correlation_id) = (cx.version, cx.correlation_id);
        let pieces = self.pieces(version, correlation_id);
        pieces.map(Reply::Pieces).map_err(|reason| Refusal {
            api_key: None,
            version: Some(version),
            reason: Cow::Owned(format!("encoding the response: {reason}")),
        })
    }

    fn pieces(self, version: i16, correlation_id: i32) -> Result<Vec<Piece>, String> {
        let partitions = self.topics.iter().map(|(_, partitions)| partitions.len());
        let mut writer = Writer {
            text: BytesMut::with_capacity(PARTITION_BYTES * (2 + partitions.sum::<usize>())),
            version,
            records: Vec::new(),
        };
        // The length, which is known at the end.
        writer.text.put_i32(0);
        let header = ResponseHeader::default().with_correlation_id(correlation_id);
        header
            .encode(&mut writer.text, FetchResponse::header_version(version))
            .map_err(|error| format!("{error:#}"))?;
        writer.begin(&self.response, self.topics.len())?;
        for (topic, partitions) in self.topics {
            writer.begin(&topic, partitions.len())?;
            for (partition, records) in partitions {
                writer.begin(&partition, records.len())?;
                writer.records(records);
                writer.end();
            }
            writer.end();
        }
        writer.end();
        writer.finish()
    }
}

struct Writer {
    /// All bytes but those in files.
    text: BytesMut,
    version: i16,
    /// What goes in behind so many bytes of the text.
    records: Vec<(usize, InFile)>,
}

impl Writer {
    /// A structure whose last field is empty, up to that field, and the length that it has in truth.
    fn begin(&mut self, shell: &impl Encodable, len: usize) -> Result<(), String> {
        let encoded = shell.encode(&mut self.text, self.version);
        encoded.map_err(|error| format!("{error:#}"))?;
        // An empty field, as a list or as bytes: a length of one more than none, and no tagged fields; or 0.
        let empty: &[u8] = match self.version >= FLEXIBLE {
            true => &[1, 0],
            false => &[0; 4],
        };
        let cut = self.text.len().saturating_sub(empty.len());
        if self.text.get(cut..) != Some(empty) {
            return Err("its last field is not empty".to_owned());
        }
        self.text.truncate(cut);
        match self.version >= FLEXIBLE {
            true => self.put_unsigned_varint(len + 1),
            false => {
                let len = i32::try_from(len).map_err(|_| format!("{len} bytes of records"))?;
                self.text.put_i32(len);
            }
        }
        Ok(())
    }

    fn records(&mut self, records: Records) {
        match records {
            Records::Memory(bytes) => self.text.extend_from_slice(&bytes),
            Records::File(found) => self.records.push((self.text.len(), found)),
        }
    }

    /// The end of a structure.
    fn end(&mut self) {
        if self.version >= FLEXIBLE {
            self.text.put_u8(0);
        }
    }

    fn put_unsigned_varint(&mut self, mut value: usize) {
        while value > 0x7f {
            self.text.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.text.put_u8(value as u8);
    }

    fn finish(mut self) -> Result<Vec<Piece>, String> {
        let in_files = self.records.iter().map(|(_, found)| found.records.len());
        let size = self.text.len() - size_of::<i32>() + in_files.sum::<usize>();
        let length = i32::try_from(size).map_err(|_| format!("{size} bytes"))?;
        self.text[..4].copy_from_slice(&length.to_be_bytes());
        let text = self.text.freeze();
        let mut pieces = Vec::with_capacity(2 * self.records.len() + 1);
        let mut from = 0;
        for (at, found) in self.records {
            pieces.push(Piece::Bytes(text.slice(from..at)));
            pieces.push(Piece::Records(found));
            from = at;
        }
        if from < text.len() {
            pieces.push(Piece::Bytes(text.slice(from..)));
        }
        Ok(pieces)
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TopicName;
    use kafka_protocol::messages::fetch_response::AbortedTransaction;
    use kafka_protocol::protocol::StrBytes;
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::api::reply::frame;

    /// A partition, and its records: large ones make lengths of several bytes.
    fn partition() -> impl Strategy<Value = (PartitionData, Bytes)> {
        let records = prop_oneof![0..3_usize, 100..300_usize, 16_000..17_000_usize];
        let aborted = proptest::option::of(0..3_usize);
        (any::<i32>(), any::<i16>(), aborted, records).prop_map(
            |(index, error, aborted, records)| {
                let aborted = aborted.map(|count| vec![AbortedTransaction::default(); count]);
                let data = PartitionData::default()
                    .with_partition_index(index)
                    .with_error_code(error)
                    .with_aborted_transactions(aborted);
                (data, Bytes::from(vec![7; records]))
            },
        )
    }

    proptest! {
        #[test]
        fn it_is_what_the_codec_makes_of_records_in_memory(
            topics in proptest::collection::vec(proptest::collection::vec(partition(), 0..4), 0..4),
            version in 4..=18_i16,
            throttle in any::<i32>(),
        ) {
            let response = FetchResponse::default().with_throttle_time_ms(throttle);
            let topic = |number: usize| FetchableTopicResponse::default()
                .with_topic(TopicName(StrBytes::from_string(format!("topic-{number}"))))
                .with_topic_id(Uuid::from_u128(number as u128));
            let whole = topics.iter().enumerate().map(|(number, partitions)| {
                let partitions = partitions.iter().map(|(data, records)| {
                    data.clone().with_records(Some(records.clone()))
                });
                topic(number).with_partitions(partitions.collect())
            });
            let expected = response.clone().with_responses(whole.collect());
            let expected = frame(77, version, &expected).unwrap();

            let beside = topics.iter().enumerate().map(|(number, partitions)| {
                let partitions = partitions.iter().map(|(data, records)| {
                    let data = data.clone().with_records(Some(Bytes::new()));
                    (data, Records::Memory(records.clone()))
                });
                (topic(number), partitions.collect())
            });
            let fetched = Fetched { response, topics: beside.collect() };
            let pieces = fetched.pieces(version, 77).unwrap();
            let [Piece::Bytes(found)] = pieces.as_slice() else { panic!("one piece") };
            prop_assert_eq!(found, &expected);
        }
    }
}
