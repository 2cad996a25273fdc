use super::*;
use crate::log::error::AppendError;

fn send(
    log: &Log,
    producer: (i64, i16, i32),
    values: &[&str],
) -> Result<crate::log::Appended, AppendError> {
    log.partition
        .append(batch_of(values, Make { producer, ..PLAIN }), NOW)
}

#[test]
fn a_batch_sent_twice_is_stored_once_and_answered_with_its_offsets() {
    let log = Log::new(&[]);
    send(&log, (7, 0, 0), &["a", "b"]).unwrap();
    send(&log, (7, 0, 2), &["c"]).unwrap();
    let again = send(&log, (7, 0, 0), &["a", "b"]).unwrap();
    assert!(again.duplicate);
    assert_eq!((again.base_offset, again.last_offset), (0, 1));
    assert_eq!(log.all().len(), 3);
}

#[test]
fn the_last_five_batches_are_known() {
    let log = Log::new(&[]);
    for sequence in 0..6 {
        send(&log, (7, 0, sequence), &["a"]).unwrap();
    }
    assert!(matches!(
        send(&log, (7, 0, 0), &["a"]),
        Err(AppendError::OutOfOrderSequence { last: 5, .. })
    ));
    for sequence in 1..6 {
        assert!(send(&log, (7, 0, sequence), &["a"]).unwrap().duplicate);
    }
}

#[test]
fn a_gap_in_the_sequence_is_refused() {
    let log = Log::new(&[]);
    send(&log, (7, 0, 0), &["a"]).unwrap();
    assert!(matches!(
        send(&log, (7, 0, 2), &["c"]),
        Err(AppendError::OutOfOrderSequence {
            found: 2,
            last: 0,
            ..
        })
    ));
    send(&log, (7, 0, 1), &["b"]).unwrap();
}

#[test]
fn a_newer_epoch_starts_at_zero_and_fences_the_older() {
    let log = Log::new(&[]);
    send(&log, (7, 0, 0), &["a"]).unwrap();
    assert!(matches!(
        send(&log, (7, 1, 1), &["b"]),
        Err(AppendError::OutOfOrderSequence { .. })
    ));
    send(&log, (7, 1, 0), &["b"]).unwrap();
    assert!(matches!(
        send(&log, (7, 0, 1), &["c"]),
        Err(AppendError::InvalidProducerEpoch { current: 1, .. })
    ));
}

#[test]
fn sequences_go_on_at_zero_after_the_largest() {
    let log = Log::new(&[]);
    send(&log, (7, 0, i32::MAX - 1), &["a", "b"]).unwrap();
    send(&log, (7, 0, 0), &["c"]).unwrap();
    send(&log, (8, 0, i32::MAX), &["a", "b"]).unwrap();
    send(&log, (8, 0, 1), &["c"]).unwrap();
    assert!(send(&log, (8, 0, i32::MAX), &["a", "b"]).unwrap().duplicate);
}

#[test]
fn duplicates_are_known_after_a_restart_and_after_a_crash() {
    let mut log = Log::new(&[]);
    send(&log, (7, 0, 0), &["a"]).unwrap();
    log = log.restart();
    send(&log, (7, 0, 1), &["b"]).unwrap();
    log = log.crash();
    assert_eq!(send(&log, (7, 0, 0), &["a"]).unwrap().base_offset, 0);
    let again = send(&log, (7, 0, 1), &["b"]).unwrap();
    assert_eq!((again.base_offset, again.duplicate), (1, true));
    assert!(matches!(
        send(&log, (7, 0, 3), &["d"]),
        Err(AppendError::OutOfOrderSequence { .. })
    ));
    assert_eq!(log.all().len(), 2);
}

#[test]
fn a_producer_that_was_idle_for_a_day_is_forgotten() {
    let log = Log::new(&[]);
    send(&log, (7, 0, 0), &["a"]).unwrap();
    log.partition.retain(NOW + 24 * 60 * 60 * 1000).unwrap();
    assert!(!send(&log, (7, 0, 9), &["b"]).unwrap().duplicate);
}

#[test]
fn an_idempotent_producer_sends_one_batch_a_call() {
    let log = Log::new(&[]);
    let make = |sequence| {
        batch_of(
            &["a"],
            Make {
                producer: (7, 0, sequence),
                ..PLAIN
            },
        )
    };
    let refused = log
        .partition
        .append([make(0), make(1)].concat().into(), NOW);
    assert!(matches!(refused, Err(AppendError::Invalid(_))));
}
