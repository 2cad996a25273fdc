use std::path::Path;

use super::super::batch::{CRC_FROM, Header};
use super::super::cleaner::{Cleaned, Compaction, Halt, Pace, Stop};
use super::super::incoming::Incoming;
use super::super::record_times;
use super::*;

const MEMORY: usize = 1024 * 1024;
const COMPACT: (&str, &str) = ("cleanup.policy", "compact");
const ALWAYS_DUE: (&str, &str) = ("min.cleanable.dirty.ratio", "0");
pub(super) const TRANSACTIONAL: u8 = 0x10;
const CONTROL: u8 = 0x20;

type Keyed = (i64, String, Option<String>);

/// A compacted log with segments of some batches.
fn compacted() -> Log {
    Log::new(&[COMPACT, ALWAYS_DUE, ("segment.bytes", "1000")])
}

/// As [`compacted`], and all closed segments fit into one.
fn roomy() -> Log {
    Log::new(&[COMPACT, ALWAYS_DUE])
}

pub(super) fn record(offset: usize, key: Option<&str>, value: Option<&str>, make: Make) -> Record {
    let (producer_id, producer_epoch, sequence) = make.producer;
    Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id,
        producer_epoch,
        timestamp_type: TimestampType::Creation,
        offset: offset as i64,
        sequence: match producer_id {
            -1 => offset as i32 - 1,
            _ => sequence + offset as i32,
        },
        timestamp: make.timestamp + offset as i64,
        key: key.map(|key| Bytes::copy_from_slice(key.as_bytes())),
        value: value.map(|value| Bytes::copy_from_slice(value.as_bytes())),
        headers: IndexMap::new(),
    }
}

fn keyed_as(records: &[(&str, Option<&str>)], make: Make) -> Bytes {
    let records: Vec<_> = records
        .iter()
        .enumerate()
        .map(|(at, (key, value))| record(at, Some(key), *value, make))
        .collect();
    encode(&records, make.compression)
}

pub(super) fn encode(records: &[Record], compression: Compression) -> Bytes {
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression,
    };
    RecordBatchEncoder::encode(&mut bytes, records, &options).unwrap();
    bytes.freeze()
}

fn keyed(records: &[(&str, Option<&str>)]) -> Bytes {
    keyed_as(records, PLAIN)
}

/// `batch` with more attributes, and the checksum of it.
pub(super) fn with_attributes(batch: Bytes, attributes: u8) -> Bytes {
    let mut bytes = batch.to_vec();
    bytes[22] |= attributes;
    let crc = crc32c::crc32c(&bytes[CRC_FROM..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

fn transactional(records: &[(&str, Option<&str>)], producer: i64, sequence: i32) -> Bytes {
    let make = Make {
        producer: (producer, 0, sequence),
        ..PLAIN
    };
    with_attributes(keyed_as(records, make), TRANSACTIONAL)
}

fn marker(producer: i64, commits: bool) -> Bytes {
    let make = Make {
        producer: (producer, 0, 0),
        ..PLAIN
    };
    let mut marker = record(0, None, Some("\0\0\0\0\0\0"), make);
    marker.key = Some(Bytes::copy_from_slice(&[0, 0, 0, commits.into()]));
    with_attributes(
        encode(&[marker], Compression::None),
        TRANSACTIONAL | CONTROL,
    )
}

impl Log {
    fn keyed(&self, records: &[(&str, Option<&str>)]) -> i64 {
        let appended = self.partition.append(keyed(records), NOW).unwrap();
        appended.base_offset
    }

    /// Appends what no client may send.
    fn raw(&self, batch: Bytes) {
        let header = Header::parse(&batch).unwrap();
        let mut writer = self.partition.writer();
        let incoming = Incoming {
            header,
            bytes: batch,
        };
        writer.write(&[incoming], None, NOW).unwrap();
        self.partition.publish(writer);
    }

    /// Closes the active segment.
    fn roll(&self) {
        let mut writer = self.partition.writer();
        self.partition.roll(&mut writer).unwrap();
        self.partition.publish(writer);
    }

    fn clean_at(&self, now_ms: i64) -> Option<Cleaned> {
        self.clean_with(now_ms, MEMORY).unwrap()
    }

    fn clean(&self) -> Option<Cleaned> {
        self.clean_at(NOW)
    }

    fn clean_with(&self, now_ms: i64, memory: usize) -> Result<Option<Cleaned>, Halt> {
        self.partition.flush(false);
        let stop = Stop::default();
        self.partition
            .clean(now_ms, &mut Pace::new(&stop, memory, None))
    }

    /// Three keys written again and again over many segments, the last one closed.
    fn filled(self) -> Self {
        for round in 0..20 {
            for key in ["a", "b", "c"] {
                let value = format!("{key}{round:0>100}");
                self.keyed(&[(key, Some(&value)), ("other", Some("x"))]);
            }
            self.roll();
        }
        self
    }

    fn records(&self) -> Vec<Keyed> {
        keyed_records(&self.partition)
    }
}

fn keyed_records(partition: &Partition) -> Vec<Keyed> {
    batches(partition)
        .into_iter()
        .filter(|(header, _)| !header.is_control())
        .flat_map(|(_, mut bytes)| RecordBatchDecoder::decode(&mut bytes).unwrap().records)
        .map(|record| {
            let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
            let key = record.key.map(text).unwrap_or_default();
            (record.offset, key, record.value.map(text))
        })
        .collect()
}

/// Every batch from the log start on, read as a consumer would.
fn batches(partition: &Partition) -> Vec<(Header, Bytes)> {
    let (mut from, mut all) = (partition.log_start_offset(), Vec::new());
    loop {
        let mut bytes = partition.read(from, 10_000, true).unwrap().records;
        if bytes.is_empty() {
            return all;
        }
        while !bytes.is_empty() {
            let header = Header::stored(&bytes).unwrap();
            assert!(header.last_offset() >= from);
            from = header.next_offset();
            all.push((header, bytes.split_to(header.size().unwrap())));
        }
    }
}

fn last_values(records: &[Keyed]) -> BTreeMap<String, (i64, Option<String>)> {
    let values = records.iter().cloned();
    values
        .map(|(offset, key, value)| (key, (offset, value)))
        .collect()
}

#[test]
fn of_each_key_the_last_record_stays_at_its_offset() {
    let log = compacted().filled();
    let before = log.records();
    let cleaned = log.clean().unwrap();
    assert_eq!(cleaned.end, 120);
    assert_eq!(cleaned.records_removed, 116);
    assert!(cleaned.bytes_after < cleaned.bytes_before / 5);
    let after = log.records();
    assert_eq!(last_values(&after), last_values(&before));
    assert_eq!(after.len(), 4);
    assert_eq!(log.clean(), None, "nothing is dirty any more");
}

#[test]
fn small_segments_become_one_and_every_offset_can_still_be_asked_for() {
    let log = roomy().filled();
    assert!(log.logs().len() > 10);
    log.clean().unwrap();
    assert_eq!(log.logs().len(), 2);
    for from in 0..120 {
        let read = log.partition.read(from, 10, true).unwrap();
        let first = Header::stored(&read.records).unwrap();
        assert!(first.last_offset() >= from);
    }
    assert_eq!(log.partition.log_end_offset(), 120);
    assert_eq!(log.keyed(&[("a", Some("next"))]), 120);
}

#[test]
fn the_active_segment_is_left_alone() {
    let log = Log::new(&[COMPACT, ALWAYS_DUE]);
    log.keyed(&[("a", Some("1"))]);
    log.keyed(&[("a", Some("2"))]);
    assert_eq!(log.clean(), None);
    assert_eq!(log.records().len(), 2);
}

#[test]
fn a_topic_that_only_deletes_is_not_compacted() {
    let log = Log::new(&[ALWAYS_DUE, ("segment.bytes", "1000")]).filled();
    assert_eq!(log.clean(), None);
}

#[test]
fn a_record_without_key_is_refused_as_apache_kafka_does() {
    let log = compacted();
    let refused = log.partition.append(batch(&["no key"]), NOW).unwrap_err();
    assert_eq!(
        refused.code(),
        kafka_protocol::error::ResponseError::InvalidRecord
    );
}

#[test]
fn records_without_key_of_a_topic_that_was_not_compacted_before_go_and_are_counted() {
    let log = compacted();
    log.raw(batch(&["no key"]));
    log.keyed(&[("a", Some("1"))]);
    log.roll();
    assert_eq!(log.clean().unwrap().keyless_removed, 1);
    assert_eq!(log.records().len(), 1);
}

#[test]
fn batches_of_any_compression_are_rewritten_as_their_producer_packed_them() {
    for compression in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let log = compacted();
        let make = Make {
            compression,
            ..PLAIN
        };
        let long = "long".repeat(100);
        let batch = keyed_as(&[("a", Some("1")), ("b", Some(&long)), ("c", None)], make);
        log.partition.append(batch, NOW).unwrap();
        log.keyed(&[("a", Some("2"))]);
        log.roll();
        log.clean().unwrap();
        let records = log.records();
        assert_eq!(records[0], (1, "b".to_owned(), Some(long)));
        assert_eq!(records[1], (2, "c".to_owned(), None));
        assert_eq!(records[2], (3, "a".to_owned(), Some("2".to_owned())));
        let (header, _) = batches(&log.partition)[0].clone();
        assert_eq!(header.compression(), compression as u8);
    }
}

#[test]
fn a_tombstone_goes_when_its_time_is_over_and_the_first_pass_begins_it() {
    let log = Log::new(&[
        COMPACT,
        ALWAYS_DUE,
        ("segment.bytes", "1000"),
        ("delete.retention.ms", "100"),
    ]);
    log.keyed(&[("a", Some("1")), ("b", Some("1"))]);
    log.keyed(&[("a", None), ("c", Some("1"))]);
    log.roll();
    let pass = |now_ms: i64| {
        log.keyed(&[("dirty", Some("x"))]);
        log.roll();
        log.clean_at(now_ms).unwrap();
        log.records()
            .into_iter()
            .filter(|(_, key, _)| key != "dirty")
            .collect::<Vec<_>>()
    };
    let kept = vec![
        (1, "b".to_owned(), Some("1".to_owned())),
        (2, "a".to_owned(), None),
        (3, "c".to_owned(), Some("1".to_owned())),
    ];
    assert_eq!(pass(NOW), kept);
    let (header, bytes) = batches(&log.partition)[1].clone();
    let time = record_times::first_since(&header, &bytes, 0, 2).unwrap();
    assert_eq!(time, Some((2, NOW)), "its time is as it was");
    assert_eq!(pass(NOW + 99), kept);
    assert_eq!(pass(NOW + 100), [kept[0].clone(), kept[2].clone()]);
}

#[test]
fn the_end_of_the_log_can_be_reached_when_its_last_record_goes() {
    let log = Log::new(&[COMPACT, ALWAYS_DUE, ("delete.retention.ms", "0")]);
    log.keyed(&[("a", Some("1"))]);
    log.keyed(&[("a", None)]);
    log.roll();
    log.clean().unwrap();
    assert_eq!(log.records().len(), 1);
    // Nothing else becomes dirty, so the second look at the tombstone needs a new record; it goes again.
    log.keyed(&[("b", None)]);
    log.roll();
    log.clean().unwrap();
    log.keyed(&[("b", None)]);
    log.roll();
    log.clean().unwrap();
    let last = batches(&log.partition).last().unwrap().0;
    assert_eq!(last.next_offset(), log.partition.high_watermark());
}

#[test]
fn aborted_records_go_and_supersede_nothing() {
    let log = compacted();
    log.keyed(&[("a", Some("before")), ("b", Some("before"))]);
    log.raw(transactional(&[("a", Some("aborted"))], 7, 0));
    log.raw(transactional(&[("b", Some("committed"))], 8, 0));
    log.raw(marker(7, false));
    log.raw(marker(8, true));
    log.raw(transactional(&[("c", Some("committed"))], 7, 1));
    log.raw(marker(7, true));
    log.roll();
    log.clean().unwrap();
    let values: Vec<_> = log
        .records()
        .into_iter()
        .map(|(_, key, value)| (key, value.unwrap()))
        .collect();
    let expected = [("a", "before"), ("b", "committed"), ("c", "committed")];
    assert_eq!(
        values,
        expected.map(|(key, value)| (key.to_owned(), value.to_owned()))
    );
}

#[test]
fn a_marker_stays_while_its_transaction_does_and_for_the_retention_of_deletes() {
    let log = Log::new(&[COMPACT, ALWAYS_DUE, ("delete.retention.ms", "100")]);
    log.raw(transactional(&[("a", Some("1"))], 7, 0));
    log.raw(marker(7, true));
    log.raw(transactional(&[("x", Some("x"))], 7, 1));
    log.raw(marker(7, true));
    log.roll();
    let markers = |now_ms: i64| {
        log.keyed(&[("a", Some("2"))]);
        log.roll();
        log.clean_at(now_ms).unwrap();
        let all = batches(&log.partition);
        all.iter().filter(|(header, _)| header.is_control()).count()
    };
    assert_eq!(markers(NOW), 2, "its record goes in this pass");
    assert_eq!(markers(NOW + 1), 2, "this one finds it bare");
    assert_eq!(markers(NOW + 100), 2);
    assert_eq!(markers(NOW + 101), 1, "the other one has its record");
}

#[test]
fn a_transaction_that_is_not_decided_is_not_touched() {
    let log = compacted();
    log.keyed(&[("a", Some("1"))]);
    log.keyed(&[("a", Some("2"))]);
    log.raw(transactional(&[("a", Some("open"))], 7, 0));
    log.keyed(&[("a", Some("3"))]);
    log.roll();
    assert_eq!(log.clean().unwrap().end, 2);
    assert_eq!(log.records().len(), 3);
    log.raw(marker(7, true));
    log.roll();
    assert_eq!(log.clean().unwrap().end, 5);
    assert_eq!(log.records().len(), 1);
}

#[test]
fn a_producers_last_batch_is_known_for_ever() {
    let log = compacted();
    let send = |sequence| {
        let make = Make {
            producer: (9, 0, sequence),
            ..PLAIN
        };
        keyed_as(&[("a", Some("1"))], make)
    };
    for sequence in 0..3 {
        log.partition.append(send(sequence), NOW).unwrap();
    }
    log.keyed(&[("a", Some("2"))]);
    log.roll();
    log.clean().unwrap();
    assert_eq!(log.records().len(), 1);
    let log = log.reopen(|folder| fs::write(folder.join("checkpoint"), "damaged").unwrap());
    assert!(log.partition.append(send(2), NOW).unwrap().duplicate);
    assert!(!log.partition.append(send(3), NOW).unwrap().duplicate);
}

#[test]
fn with_little_memory_several_passes_come_to_the_same() {
    let log = compacted();
    for at in 0..300 {
        log.keyed(&[(&format!("key-{}", at % 100), Some(&at.to_string()))]);
    }
    log.roll();
    let before = last_values(&log.records());
    // Room for 28 keys.
    let mut passes = 0;
    while log.clean_with(NOW, 32 * 25).unwrap().is_some() {
        passes += 1;
        assert_eq!(last_values(&log.records()), before);
    }
    assert!((4..=12).contains(&passes), "{passes} passes");
    // What a later pass would still have superseded in an earlier part is gone, too.
    assert_eq!(log.records().len(), 100);
}

#[test]
fn young_records_stay() {
    let log = Log::new(&[COMPACT, ALWAYS_DUE, ("min.compaction.lag.ms", "1000")]);
    log.keyed(&[("a", Some("1"))]);
    log.keyed(&[("a", Some("2"))]);
    log.roll();
    assert_eq!(log.clean_at(NOW + 999), None);
    assert!(log.clean_at(NOW + 1001).is_some());
}

#[test]
fn a_log_that_compacts_and_deletes_does_both() {
    let log = Log::new(&[
        ("cleanup.policy", "compact,delete"),
        ALWAYS_DUE,
        ("retention.ms", "1000"),
        ("segment.bytes", "1000"),
    ])
    .filled();
    log.clean().unwrap();
    assert_eq!(log.records().len(), 4);
    log.partition.retain(NOW + 2000).unwrap();
    assert_eq!(log.records().len(), 0);
    assert_eq!(log.partition.log_start_offset(), 120);
}

#[test]
fn a_compacted_log_is_whole_after_a_restart_and_after_a_crash() {
    let log = compacted().filled();
    log.clean().unwrap();
    let before = log.records();
    let log = log.crash();
    assert_eq!((log.records(), &log.report.1), (before.clone(), &vec![]));
    assert_eq!(log.partition.log_end_offset(), 120);
    let log = log.restart();
    assert_eq!(log.report, (0, vec![]));
    assert_eq!(log.records(), before);
    assert_eq!(log.clean(), None);
    for damaged in ["checkpoint", "compaction"] {
        let path = log.folder.path().join(damaged);
        assert!(path.exists(), "{damaged}");
    }
    let log = log.reopen(|folder| fs::write(folder.join("checkpoint"), "damaged").unwrap());
    assert_eq!((log.records(), &log.report.1), (before.clone(), &vec![]));
    let log = log.reopen(|folder| {
        fs::write(folder.join("checkpoint"), "damaged").unwrap();
        fs::write(folder.join("compaction"), "damaged").unwrap();
    });
    assert_eq!((log.records(), &log.report.1), (before, &vec![]));
}

#[test]
fn a_missing_segment_of_the_compacted_part_is_reported() {
    let log = Log::new(&[COMPACT, ALWAYS_DUE, ("segment.bytes", "300")]);
    for at in 0..30 {
        log.keyed(&[(&format!("key-{at}"), Some("some value that takes room"))]);
        log.keyed(&[("again", Some("x"))]);
    }
    log.roll();
    log.clean().unwrap();
    let middle = log.logs().len() / 2;
    for checkpoint in [true, false] {
        let copy = Log::new(&[]);
        let log_folder = log.folder.path().to_owned();
        let copy = copy.reopen(|folder| {
            for path in fs::read_dir(&log_folder).unwrap() {
                let path = path.unwrap().path();
                fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
            }
            fs::remove_file(&logs(folder)[middle]).unwrap();
            if !checkpoint {
                fs::remove_file(folder.join("checkpoint")).unwrap();
            }
        });
        assert_eq!(copy.report.1.len(), 1, "{:?}", copy.report);
        assert!(copy.report.1[0].missing_offsets.is_some());
    }
}

/// The folder as it was before a pass, and the new segment that the pass wrote.
struct Interrupted {
    log: Log,
    old: Vec<PathBuf>,
    new: Vec<u8>,
    last: BTreeMap<String, (i64, Option<String>)>,
}

fn interrupted() -> Interrupted {
    let log = roomy().filled();
    let last = last_values(&log.records());
    log.partition.flush(false);
    let before = folder();
    for entry in fs::read_dir(log.folder.path()).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, before.path().join(path.file_name().unwrap())).unwrap();
    }
    log.clean().unwrap();
    let new = fs::read(&log.logs()[0]).unwrap();
    let log = log.reopen(|folder| {
        for entry in fs::read_dir(folder).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        for entry in fs::read_dir(before.path()).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    });
    Interrupted {
        old: log.logs(),
        log,
        new,
        last,
    }
}

/// What the pass does on the disk, in order, as far as `steps`.
fn carry_out(folder: &Path, case: &Interrupted, steps: usize) {
    let bases: Vec<i64> = case
        .old
        .iter()
        .map(|path| path.file_stem().unwrap().to_str().unwrap().parse().unwrap())
        .collect();
    let (base, others) = (bases[0], bases[1..bases.len() - 1].to_vec());
    let unfinished = folder.join(format!("{base:020}.cleaned.tmp"));
    if steps >= 1 {
        fs::write(&unfinished, &case.new[..case.new.len() / 2]).unwrap();
    }
    if steps >= 2 {
        fs::write(&unfinished, &case.new).unwrap();
    }
    let mut state = Compaction::recover(folder).unwrap().0;
    if steps >= 3 {
        state
            .begin(folder, 120, vec![base], base, others.clone())
            .unwrap();
    }
    if steps >= 4 {
        fs::rename(&unfinished, folder.join(format!("{base:020}.log"))).unwrap();
    }
    if steps >= 5 {
        fs::remove_file(folder.join(format!("{:020}.log", others[0]))).unwrap();
        fs::remove_file(folder.join(format!("{:020}.index", others[0]))).unwrap();
    }
    if steps >= 6 {
        state.remove_replaced(folder).unwrap();
    }
    if steps >= 7 {
        state.finish(folder, 120, vec![base]).unwrap();
    }
}

#[test]
fn a_crash_at_any_point_of_a_pass_leaves_the_old_or_the_new() {
    for checkpoint in [true, false] {
        for steps in 0..=7 {
            let mut case = interrupted();
            let last = case.last.clone();
            let log = std::mem::replace(&mut case.log, Log::new(&[]));
            let log = log.reopen(|folder| {
                carry_out(folder, &case, steps);
                if !checkpoint {
                    fs::remove_file(folder.join("checkpoint")).unwrap();
                }
            });
            assert_eq!(log.report.1, [], "after {steps} steps");
            let records = log.records();
            assert_eq!(last_values(&records), last, "after {steps} steps");
            assert_eq!(records.len(), if steps < 3 { 120 } else { 4 });
            assert_eq!(log.partition.log_end_offset(), 120);
            log.clean();
            assert_eq!(log.records().len(), 4);
            assert_eq!(log.keyed(&[("next", None)]), 120);
            let left = fs::read_dir(log.folder.path()).unwrap();
            let unfinished = |path: PathBuf| path.extension().is_some_and(|end| end == "tmp");
            assert!(
                !left
                    .into_iter()
                    .any(|entry| unfinished(entry.unwrap().path()))
            );
        }
    }
}

#[test]
fn who_reads_while_segments_are_replaced_misses_nothing() {
    let log = compacted();
    let done = std::sync::atomic::AtomicBool::new(false);
    log.keyed(&[("first", Some("0"))]);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut rounds = 0;
            while !done.load(std::sync::atomic::Ordering::Acquire) || rounds == 0 {
                let records = keyed_records(&log.partition);
                assert_eq!(records[0].1, "first");
                assert!(records.is_sorted_by(|a, b| a.0 < b.0));
                log.partition
                    .offset_for_time(NOW, Isolation::Uncommitted)
                    .unwrap()
                    .unwrap();
                rounds += 1;
            }
        });
        for _ in 0..30 {
            for key in ["a", "b", "c", "d", "e", "f"] {
                let value = format!("{key:0>200}");
                log.keyed(&[(key, Some(&value))]);
            }
            log.roll();
            log.clean().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Release);
        reader.join().unwrap();
    });
    assert_eq!(log.records().len(), 7);
}

#[test]
fn a_stopped_pass_leaves_the_log_as_it_was() {
    let log = compacted().filled();
    log.partition.flush(false);
    let stop = Stop::default();
    stop.request();
    let stopped = log
        .partition
        .clean(NOW, &mut Pace::new(&stop, MEMORY, None));
    assert!(matches!(stopped, Err(Halt::Stopped)));
    assert_eq!(log.records().len(), 120);
    assert!(log.clean().is_some());
}

#[test]
fn a_damaged_log_is_not_compacted() {
    let log = compacted().filled();
    log.partition.flush(false);
    let path = log.logs()[3].clone();
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0xff;
    fs::write(&path, bytes).unwrap();
    let before = log.logs().len();
    assert!(matches!(log.clean_with(NOW, MEMORY), Err(Halt::Storage(_))));
    assert_eq!(log.clean(), None, "not before somebody has looked");
    assert_eq!(log.logs().len(), before);
}

#[test]
fn a_segment_that_was_deleted_meanwhile_does_not_come_back() {
    let log = compacted().filled();
    log.partition.flush(false);
    log.partition.delete_records(60).unwrap();
    log.partition.retain(NOW).unwrap();
    log.clean().unwrap();
    let log = log.crash();
    assert_eq!(log.partition.log_start_offset(), 60);
    assert_eq!(log.report.1, []);
    assert_eq!(log.records().len(), 4);
}
