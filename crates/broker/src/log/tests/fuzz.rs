//! What a client sends, and what a disk gives back, changed at random: nothing panics, nothing goes on for ever,
//! and what was taken in comes back as it was.

use super::super::batch::{CRC_FROM, Header};
use super::super::cleaner::{Pace, Stop};
use super::super::control::{ProducerEpoch, Verdict};
use super::*;
use crate::fuzz::{Random, corpus, inputs, mutate};

/// Offsets that are looked at: damage can move a batch by millions.
const READS_MAX: usize = 60;

/// The records field of a produce request, with everything that producers use.
pub(crate) fn batches_of_all_kinds(random: &mut Random) -> Vec<u8> {
    const COMPRESSIONS: [Compression; 5] = [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    let idempotent = random.one_in(2);
    let transactional = idempotent && random.one_in(2);
    let (producer_id, producer_epoch, sequence) = match idempotent {
        true => (
            random.below(6) as i64,
            random.below(3) as i16,
            random.below(4) as i32,
        ),
        false => (-1, -1, -1),
    };
    let timestamp = *random.pick(&[NOW, NOW, NOW, -1, 0, i64::MAX - 100]);
    let records: Vec<Record> = (0..1 + random.below(4))
        .map(|at| Record {
            transactional,
            control: false,
            delete_horizon: false,
            partition_leader_epoch: -1,
            producer_id,
            producer_epoch,
            timestamp_type: TimestampType::Creation,
            offset: at as i64,
            sequence: sequence + at as i32,
            timestamp: timestamp + random.below(50) as i64,
            key: (!random.one_in(3)).then(|| vec![b'a' + random.below(5) as u8].into()),
            value: (!random.one_in(4)).then(|| vec![b'v'; random.below(90)].into()),
            headers: (0..random.below(3))
                .map(|at| {
                    (
                        format!("h{at}").try_into().unwrap(),
                        Some(Bytes::from_static(b"x")),
                    )
                })
                .collect(),
        })
        .collect();
    let options = RecordEncodeOptions {
        version: 2,
        compression: *random.pick(&COMPRESSIONS),
    };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    bytes.to_vec()
}

/// The batches of segments that Apache Kafka wrote, markers of transactions among them.
fn of_apache_kafka() -> Vec<Vec<u8>> {
    let mut batches = Vec::new();
    for (_, segment) in corpus("segments") {
        let mut rest = segment.as_slice();
        while let Some(header) = Header::stored(rest) {
            let (batch, behind) = rest.split_at(header.size().unwrap());
            batches.push(batch.to_vec());
            rest = behind;
        }
        assert!(rest.is_empty());
    }
    batches
}

/// Makes the checksum of the first batch right, so that what is behind it is looked at.
fn seal(batch: &mut [u8]) {
    if batch.len() > CRC_FROM {
        let crc = crc32c::crc32c(&batch[CRC_FROM..]);
        batch[17..CRC_FROM].copy_from_slice(&crc.to_be_bytes());
    }
}

fn settings(random: &mut Random) -> Vec<(&'static str, &'static str)> {
    let mut settings = vec![("segment.bytes", *random.pick(&["600", "2000", "100000"]))];
    settings.push(("min.cleanable.dirty.ratio", "0"));
    if random.one_in(2) {
        settings.push(("cleanup.policy", "compact"));
    }
    if random.one_in(4) {
        settings.push(("message.timestamp.type", "LogAppendTime"));
    }
    settings
}

/// Asks for everything that a client or the broker itself may ask of a log, whatever is in it.
fn look_at(partition: &Partition) {
    let (start, end) = (partition.log_start_offset(), partition.log_end_offset());
    let (mut from, mut reads) = (start, 0);
    while from < end && reads < READS_MAX {
        reads += 1;
        for isolation in [Isolation::Committed, Isolation::Uncommitted] {
            let Ok(found) = partition.find(from, 1 + reads * 40, true, isolation) else {
                continue;
            };
            let _ = found.records.map(|records| records.read());
            if isolation == Isolation::Uncommitted {
                from = found.end.unwrap_or(from).max(from);
            }
        }
        from += 1;
    }
    for ms in [i64::MIN, -2, 0, NOW, NOW + 20, i64::MAX] {
        let _ = partition.offset_for_time(ms, Isolation::Committed);
    }
    let _ = partition.offset_of_max_timestamp();
    partition.active_producers();
    partition.open_transactions();
}

fn clean(partition: &Partition, now_ms: i64) {
    let stop = Stop::default();
    partition.flush(false);
    let _ = partition.clean(now_ms, &mut Pace::new(&stop, 1 << 20, None));
}

/// Some of what happens to a log in its life.
fn live(random: &mut Random, partition: &Partition) {
    for _ in 0..random.below(12) {
        let producer = ProducerEpoch {
            id: random.below(6) as i64,
            epoch: random.below(3) as i16,
        };
        match random.below(8) {
            0 => partition.admit(producer),
            1 => {
                let verdict = *random.pick(&[Verdict::Commit, Verdict::Abort]);
                let _ = partition.end_transaction(producer, verdict, NOW);
            }
            2 => partition.flush(false),
            3 if random.one_in(4) => {
                let _ = partition.delete_records(random.below(20) as i64);
            }
            _ => {
                let _ = partition.append(batches_of_all_kinds(random).into(), NOW);
            }
        }
    }
}

#[test]
fn a_batch_that_is_taken_in_stays_as_it_came_and_can_be_read() {
    let kafkas = of_apache_kafka();
    inputs(|random| {
        let log = Log::new(&settings(random));
        live(random, &log.partition);
        let mut batch = match random.one_in(2) {
            true => random.pick(&kafkas).clone(),
            false => batches_of_all_kinds(random),
        };
        if random.one_in(2) {
            mutate(random, &mut batch);
        }
        if random.one_in(2) {
            seal(&mut batch);
        }
        let _ = log.partition.append(batch.into(), NOW);
        look_at(&log.partition);
        clean(&log.partition, NOW + 1_000_000_000);
        look_at(&log.partition);
        let (before, end) = (read_bytes(&log.partition), log.partition.log_end_offset());
        let log = if random.one_in(2) {
            log.crash()
        } else {
            log.restart()
        };
        assert_eq!(log.report.1, [], "nothing is lost without damage");
        assert_eq!(log.partition.log_end_offset(), end);
        assert_eq!(read_bytes(&log.partition), before);
    });
}

/// All that consumers see, byte for byte.
fn read_bytes(partition: &Partition) -> Vec<u8> {
    read_bytes_from(partition, partition.log_start_offset())
}

fn read_bytes_from(partition: &Partition, from: i64) -> Vec<u8> {
    let (mut from, mut all) = (from, Vec::new());
    while let Some(read) = partition
        .read(from, 10_000, true)
        .ok()
        .filter(|read| !read.records.is_empty())
    {
        all.extend_from_slice(&read.records);
        from = read.end.unwrap();
    }
    all
}

#[test]
fn a_damaged_folder_is_opened_or_refused_and_never_harms() {
    inputs(|random| {
        let settings = settings(random);
        let log = Log::new(&settings);
        live(random, &log.partition);
        clean(&log.partition, NOW + 1_000_000_000);
        live(random, &log.partition);
        if random.one_in(2) {
            log.partition.close().unwrap();
        }
        log.shared.flusher.stop();
        for _ in 0..=random.below(3) {
            damage(random, log.folder.path());
        }
        open_and_use(random, &log);
    });
}

/// The files beside the segments: a shortcut, or found again.
#[test]
fn damage_beside_a_whole_log_costs_no_record_and_no_answer() {
    inputs(|random| {
        let log = Log::new(&settings(random));
        live(random, &log.partition);
        clean(&log.partition, NOW + 1_000_000_000);
        live(random, &log.partition);
        for _ in 0..random.below(60) {
            // So much that an index has entries; a log that is compacted takes none without a key.
            let _ = log.partition.append(large(1_000), NOW);
        }
        if random.one_in(2) {
            log.partition.close().unwrap();
        }
        let start = log.partition.log_start_offset();
        let (before, end) = (read_bytes(&log.partition), log.partition.log_end_offset());
        let damaged = log.reopen(|folder| {
            for _ in 0..=random.below(3) {
                damage_beside(random, folder);
            }
        });
        let partition = &damaged.partition;
        assert_eq!(partition.log_end_offset(), end);
        assert!(partition.log_start_offset() <= start);
        assert_eq!(read_bytes_from(partition, start), before);
        for ms in [0, NOW, NOW + 20, i64::MAX] {
            let _ = partition
                .offset_for_time(ms, Isolation::Uncommitted)
                .unwrap();
        }
        partition.offset_of_max_timestamp().unwrap();
    });
}

/// Of a file that is no segment, and not the one that says what was given up: without that one nobody knows.
fn damage_beside(random: &mut Random, folder: &std::path::Path) {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_none_or(|ending| ending != "log"))
        .filter(|path| !path.ends_with("log-start"))
        .collect();
    files.sort();
    if files.is_empty() {
        return;
    }
    let (file, other) = (random.pick(&files).clone(), random.pick(&files).clone());
    let of_a_kind = |path: &PathBuf| path.extension().is_some();
    match random.below(5) {
        0 => fs::remove_file(file).unwrap(),
        1 if of_a_kind(&file) == of_a_kind(&other) => {
            fs::copy(file, other).unwrap();
        }
        _ => {
            let mut bytes = fs::read(&file).unwrap();
            mutate(random, &mut bytes);
            fs::write(file, bytes).unwrap();
        }
    }
}

/// One file is changed, cut, removed, exchanged for another, or there is one too many.
fn damage(random: &mut Random, folder: &std::path::Path) {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    if files.is_empty() {
        return;
    }
    let (file, other) = (random.pick(&files).clone(), random.pick(&files).clone());
    match random.below(8) {
        0 => fs::remove_file(file).unwrap(),
        1 => {
            fs::copy(file, other).unwrap();
        }
        2 => {
            let name = *random.pick(&[
                "00000000000000000007.log",
                "00000000000000000007.index",
                "99999999999999999999.log",
                "09223372036854775807.log",
                "00000000000000000003.log.tmp",
                "notes.txt",
                "aborted",
                "compaction",
            ]);
            let length = random.below(200);
            fs::write(folder.join(name), random.bytes(length)).unwrap();
        }
        kind => {
            let mut bytes = fs::read(&file).unwrap();
            mutate(random, &mut bytes);
            let is_log = file.extension().is_some_and(|extension| extension == "log");
            if kind == 3 && is_log && random.one_in(2) {
                seal(&mut bytes);
            }
            fs::write(file, bytes).unwrap();
        }
    }
}

fn open_and_use(random: &mut Random, log: &Log) {
    let config = TopicConfig::new(log.config.clone(), &BTreeMap::new()).unwrap();
    let config = Arc::new(RwLock::new(Arc::new(config)));
    for _ in 0..2 {
        let place = Place {
            topic: "orders".to_owned(),
            index: 3,
            folder: log.folder.path().to_owned(),
        };
        let opened = match Partition::open(place, config.clone(), log.shared.clone(), NOW) {
            Ok(opened) => opened,
            Err(error) => {
                let folder = log.folder.path().to_str().unwrap();
                assert!(
                    error.to_string().contains(folder),
                    "it names the file: {error}"
                );
                return;
            }
        };
        let partition = opened.partition;
        look_at(&partition);
        live(random, &partition);
        clean(&partition, NOW + 2_000_000_000);
        let _ = partition.retain(NOW);
        look_at(&partition);
        let _ = partition.close();
    }
}
