use super::*;
use crate::log::ReadError;

fn three_batches() -> Log {
    let log = Log::new(&[]);
    for values in [["a", "b"], ["c", "d"], ["e", "f"]] {
        log.partition.append(batch(&values), NOW).unwrap();
    }
    log
}

#[test]
fn a_read_in_the_middle_of_a_batch_gives_the_whole_batch() {
    let read = three_batches().partition.read(3, 10_000, true).unwrap();
    assert_eq!(values(&read.records)[0], (2, "c".into()));
}

#[test]
fn a_read_gives_whole_batches_within_its_limit() {
    let log = three_batches();
    let size = batch(&["a", "b"]).len();
    for (max, batches) in [(size, 1), (size * 2 - 1, 1), (size * 2, 2), (size * 3, 3)] {
        assert_eq!(
            log.partition.read(0, max, false).unwrap().records.len(),
            size * batches,
            "{max} bytes"
        );
    }
}

#[test]
fn a_batch_over_the_limit_is_given_only_if_one_is_asked_for() {
    let log = three_batches();
    assert!(log.partition.read(0, 10, false).unwrap().records.is_empty());
    assert_eq!(
        values(&log.partition.read(0, 10, true).unwrap().records).len(),
        2
    );
}

#[test]
fn the_end_of_the_log_is_empty_and_beyond_it_is_out_of_range() {
    let log = three_batches();
    let read = log.partition.read(6, 1000, true).unwrap();
    assert!(read.records.is_empty());
    assert_eq!(
        (
            read.high_watermark,
            read.last_stable_offset,
            read.log_start_offset
        ),
        (6, 6, 0)
    );
    assert!(matches!(
        log.partition.read(7, 1000, true),
        Err(ReadError::OutOfRange {
            start: 0,
            end: 6,
            ..
        })
    ));
    assert!(matches!(
        log.partition.read(-1, 1000, true),
        Err(ReadError::OutOfRange { .. })
    ));
}

#[test]
fn every_offset_is_found_through_the_index_in_memory_and_in_the_file() {
    let mut log = Log::new(&[("segment.bytes", "3000000")]);
    for at in 0..4000 {
        log.partition
            .append(batch(&[&format!("{at:0>1500}")]), NOW)
            .unwrap();
    }
    for _ in 0..2 {
        for offset in (0..4000).step_by(37).chain([3999]) {
            let read = log.partition.read(offset, 1, true).unwrap();
            assert_eq!(
                values(&read.records),
                [(offset, format!("{offset:0>1500}"))]
            );
        }
        log = log.restart();
    }
}

#[test]
fn a_missing_or_broken_index_is_built_anew() {
    let mut log = Log::new(&[("segment.bytes", "200000")]);
    for at in 0..400 {
        log.partition
            .append(
                batch_of(
                    &[&format!("{at:0>1500}")],
                    Make {
                        timestamp: NOW + at,
                        ..PLAIN
                    },
                ),
                NOW,
            )
            .unwrap();
    }
    let whole = log.all();
    let break_indexes: [fn(&PathBuf); 3] = [
        |path| fs::remove_file(path).unwrap(),
        |path| fs::write(path, [0xff; 160]).unwrap(),
        |path| fs::write(path, b"short").unwrap(),
    ];
    for break_index in break_indexes {
        log.partition.close().unwrap();
        log = log.reopen(|folder| {
            logs(folder)
                .iter()
                .for_each(|path| break_index(&path.with_extension("index")))
        });
        assert_eq!(log.all(), whole);
        assert_eq!(
            log.partition
                .offset_for_time(NOW + 123, Isolation::Uncommitted)
                .unwrap(),
            Some((123, NOW + 123))
        );
        assert_eq!(log.report.1, []);
    }
}

#[test]
fn a_deleted_partition_reads_and_takes_nothing_and_wakes_who_waits() {
    let log = three_batches();
    let mut watch = log.partition.watch();
    watch.mark_unchanged();
    log.partition.delete();
    assert!(watch.has_changed().unwrap());
    assert!(matches!(
        log.partition.read(0, 10, true),
        Err(ReadError::Deleted)
    ));
    let refused = log.partition.append(batch(&["x"]), NOW).unwrap_err();
    assert_eq!(
        refused.code(),
        kafka_protocol::error::ResponseError::UnknownTopicOrPartition
    );
}
