use super::*;
use crate::log::ReadError;

const DAY: i64 = 24 * 60 * 60 * 1000;

fn segments(config: &[(&str, &str)]) -> Log {
    let config: Vec<_> = [("segment.bytes", "1000")]
        .iter()
        .chain(config)
        .copied()
        .collect();
    let log = Log::new(&config);
    for at in 0..10 {
        let value = "x".repeat(300);
        log.partition
            .append(
                batch_of(
                    &[value.as_str()],
                    Make {
                        timestamp: NOW - 10 * DAY + at * DAY,
                        ..PLAIN
                    },
                ),
                NOW,
            )
            .unwrap();
    }
    log
}

#[test]
fn segments_whose_newest_record_is_too_old_are_removed() {
    let mut log = segments(&[]);
    log.partition.retain(NOW).unwrap();
    // Records 0 to 2 are older than seven days; a segment holds two.
    assert_eq!(log.partition.log_start_offset(), 2);
    assert!(matches!(
        log.partition.read(1, 10, true),
        Err(ReadError::OutOfRange { start: 2, .. })
    ));
    for _ in 0..2 {
        assert_eq!(log.all().first().unwrap().0, 2);
        assert_eq!(log.all().len(), 8);
        log = log.restart();
        assert_eq!(log.report.1, []);
    }
}

#[test]
fn the_active_segment_is_removed_too_when_all_of_it_is_too_old() {
    let mut log = segments(&[]);
    log.partition.retain(NOW + 100 * DAY).unwrap();
    assert_eq!(log.partition.log_start_offset(), 10);
    log = log.crash();
    assert_eq!(
        (
            log.partition.log_start_offset(),
            log.partition.log_end_offset()
        ),
        (10, 10)
    );
    assert_eq!(log.report.1, []);
    assert_eq!(
        log.partition
            .append(batch(&["a"]), NOW)
            .unwrap()
            .base_offset,
        10
    );
}

#[test]
fn segments_beyond_the_size_are_removed_oldest_first() {
    let log = segments(&[("retention.bytes", "2000"), ("retention.ms", "-1")]);
    log.partition.retain(NOW).unwrap();
    assert!(
        (2000..3000).contains(&log.partition.size_bytes()),
        "{}",
        log.partition.size_bytes()
    );
    assert_eq!(log.logs().len(), 3);
}

#[test]
fn deleted_records_stay_deleted_after_a_crash() {
    let mut log = segments(&[]);
    assert_eq!(log.partition.delete_records(5).unwrap(), 5);
    assert_eq!(log.partition.delete_records(3).unwrap(), 5);
    log = log.crash();
    assert_eq!(log.partition.log_start_offset(), 5);
    assert!(matches!(
        log.partition.read(4, 10, true),
        Err(ReadError::OutOfRange { start: 5, .. })
    ));
    log.partition.retain(NOW - 100 * DAY).unwrap();
    assert_eq!(log.logs().len(), 3);
    log = log.restart();
    assert_eq!(
        (log.partition.log_start_offset(), log.report.1.len()),
        (5, 0)
    );
}

#[test]
fn records_can_be_deleted_up_to_the_high_watermark_and_no_further() {
    let log = segments(&[]);
    assert!(matches!(
        log.partition.delete_records(11),
        Err(ReadError::OutOfRange { end: 10, .. })
    ));
    assert_eq!(log.partition.delete_records(-1).unwrap(), 10);
    assert!(log.partition.read(10, 10, true).unwrap().records.is_empty());
}

#[test]
fn a_segment_that_is_given_up_before_it_was_flushed_stops_nobody() {
    let log = Log::new(&[("segment.bytes", "100"), ("retention.bytes", "0")]);
    for at in 0..3 * OPEN_MAX {
        log.partition
            .append(batch(&[&at.to_string()]), NOW)
            .unwrap();
    }
    log.partition.retain(NOW).unwrap();
    assert_eq!(log.logs().len(), 1);
    log.shared.flusher.stop();
    log.partition.append(batch(&["more"]), NOW).unwrap();
    log.partition.close().unwrap();
}
