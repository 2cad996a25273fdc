//! Tests of a partition's log, on real files.

mod append;
mod cleaner;
mod disk;
mod durability;
pub(crate) mod fuzz;
mod producers;
mod property;
mod read;
mod recovery;
mod retention;
mod time;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};

use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records::{
    Compression, Record, RecordBatchDecoder, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};
use tempfile::TempDir;

use super::partition::{Opened, Partition, Place, Shared};
use super::{Flusher, Isolation, OpenFiles};
use crate::Flush;
use crate::store::TopicConfig;

/// The broker's clock in these tests.
const NOW: i64 = 1_700_000_000_000;

/// Segment files open at a time in these tests.
const OPEN_MAX: usize = 4;

/// A folder in memory where the system has one. These tests write, flush and rename thousands of small files, and
/// what they show does not need a disk: on one that is busy with a build, they took minutes.
pub(crate) fn folder() -> TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// A partition in a folder of its own.
struct Log {
    folder: TempDir,
    config: BTreeMap<String, String>,
    flush: Flush,
    partition: Arc<Partition>,
    shared: Shared,
    report: (u64, Vec<crate::store::Loss>),
}

impl Log {
    fn new(config: &[(&str, &str)]) -> Self {
        Self::with_flush(
            config,
            Flush::Interval(std::time::Duration::from_secs(3600)),
        )
    }

    fn with_flush(config: &[(&str, &str)], flush: Flush) -> Self {
        let folder = folder();
        let config: BTreeMap<_, _> = config
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let (opened, shared) = open(&folder, &config, flush);
        Self {
            folder,
            config,
            flush,
            partition: opened.partition,
            shared,
            report: (opened.checked_bytes, opened.losses),
        }
    }

    /// Goes on in a copy of the folder as it is now and as `before` changes it.
    fn reopen(mut self, before: impl FnOnce(&PathBuf)) -> Self {
        let copy = folder();
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        self.shared.flusher.stop();
        self.folder = copy;
        before(&self.folder.path().to_owned());
        let (opened, shared) = open(&self.folder, &self.config, self.flush);
        (self.partition, self.shared, self.report) = (
            opened.partition,
            shared,
            (opened.checked_bytes, opened.losses),
        );
        self
    }

    /// As after `kill -9`: what was written is there, nothing else was done.
    fn crash(self) -> Self {
        self.reopen(|_| ())
    }

    fn restart(self) -> Self {
        self.shared.flusher.stop();
        self.partition.close().unwrap();
        self.reopen(|_| ())
    }

    /// The log files in order.
    fn logs(&self) -> Vec<PathBuf> {
        logs(&self.folder.path().to_owned())
    }

    /// All values that a consumer sees, with their offsets.
    fn all(&self) -> Vec<(i64, String)> {
        values(&read_all(&self.partition))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        self.shared.flusher.stop();
    }
}

fn open(folder: &TempDir, config: &BTreeMap<String, String>, flush: Flush) -> (Opened, Shared) {
    let config = TopicConfig::new(config.clone(), &BTreeMap::new()).unwrap();
    let shared = Shared {
        flusher: Flusher::start(flush).unwrap(),
        files: Arc::new(OpenFiles::at_most(OPEN_MAX)),
    };
    let place = Place {
        topic: "orders".to_owned(),
        index: 3,
        folder: folder.path().to_owned(),
    };
    let opened = Partition::open(
        place,
        Arc::new(RwLock::new(Arc::new(config))),
        shared.clone(),
        NOW,
    )
    .unwrap();
    (opened, shared)
}

fn logs(folder: &PathBuf) -> Vec<PathBuf> {
    let mut logs: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .collect();
    logs.sort();
    logs
}

/// How a batch is made.
#[derive(Clone, Copy)]
struct Make {
    producer: (i64, i16, i32),
    timestamp: i64,
    compression: Compression,
}

const PLAIN: Make = Make {
    producer: (-1, -1, -1),
    timestamp: NOW,
    compression: Compression::None,
};

/// A batch with a record for each value; timestamps go up by one.
fn batch_of(values: &[&str], make: Make) -> Bytes {
    let (producer_id, producer_epoch, sequence) = make.producer;
    let records: Vec<Record> = values
        .iter()
        .enumerate()
        .map(|(at, value)| Record {
            transactional: false,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id,
            producer_epoch,
            timestamp_type: TimestampType::Creation,
            offset: at as i64,
            sequence: if producer_id < 0 {
                at as i32 - 1
            } else {
                sequence.wrapping_add(at as i32)
            },
            timestamp: make.timestamp + at as i64,
            key: None,
            value: Some(Bytes::copy_from_slice(value.as_bytes())),
            headers: IndexMap::new(),
        })
        .collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression: make.compression,
    };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.freeze()
}

fn batch(values: &[&str]) -> Bytes {
    batch_of(values, PLAIN)
}

/// A batch of one record with `size` bytes of value.
fn large(size: usize) -> Bytes {
    batch(&["x".repeat(size).as_str()])
}

fn values(mut batches: &[u8]) -> Vec<(i64, String)> {
    let mut all = Vec::new();
    let mut bytes = Bytes::copy_from_slice(std::mem::take(&mut batches));
    while !bytes.is_empty() {
        for record in RecordBatchDecoder::decode(&mut bytes).unwrap().records {
            all.push((
                record.offset,
                String::from_utf8(record.value.unwrap().to_vec()).unwrap(),
            ));
        }
    }
    all
}

/// Everything from the log start to the high watermark, read as a consumer would.
fn read_all(partition: &Partition) -> Vec<u8> {
    let (mut from, mut all) = (partition.log_start_offset(), Vec::new());
    loop {
        let read = partition.read(from, 10_000, true).unwrap();
        let Some((next, _)) = values(&read.records)
            .last()
            .map(|(offset, value)| (offset + 1, value.clone()))
        else {
            return all;
        };
        assert!(next > from);
        from = next;
        all.extend_from_slice(&read.records);
    }
}
