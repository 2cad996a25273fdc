use super::*;

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn with_flush_always_records_become_visible_when_they_are_durable() {
    let log = Log::with_flush(&[], Flush::Always);
    let appended = log.partition.append(batch(&["a", "b"]), NOW).unwrap();
    runtime()
        .block_on(log.partition.durable(appended.last_offset))
        .unwrap();
    assert_eq!(log.partition.high_watermark(), 2);
    assert_eq!(log.all().len(), 2);
}

#[test]
fn records_that_nobody_waits_for_become_durable_too() {
    let log = Log::with_flush(&[], Flush::Always);
    let mut watch = log.partition.watch();
    log.partition.append(batch(&["a"]), NOW).unwrap();
    runtime()
        .block_on(watch.wait_for(|&high_watermark| high_watermark == 1))
        .unwrap();
}

#[test]
fn many_waiters_of_many_partitions_are_all_answered() {
    let logs: Vec<Log> = (0..3)
        .map(|_| Log::with_flush(&[("segment.bytes", "2000")], Flush::Always))
        .collect();
    runtime().block_on(async {
        for _ in 0..50 {
            for log in &logs {
                let last: Vec<i64> = (0..3)
                    .map(|_| {
                        log.partition
                            .append(batch(&["a"]), NOW)
                            .unwrap()
                            .last_offset
                    })
                    .collect();
                for offset in last {
                    log.partition.durable(offset).await.unwrap();
                }
            }
        }
    });
    assert!(logs.iter().all(|log| log.partition.high_watermark() == 150));
}

#[test]
fn with_an_interval_nobody_waits_and_records_are_visible_at_once() {
    let log = Log::new(&[]);
    let appended = log.partition.append(batch(&["a"]), NOW).unwrap();
    runtime()
        .block_on(log.partition.durable(appended.last_offset))
        .unwrap();
    assert_eq!(log.partition.high_watermark(), 1);
}

#[test]
fn a_closed_partition_takes_nothing() {
    let log = Log::new(&[]);
    log.partition.append(batch(&["a"]), NOW).unwrap();
    log.partition.close().unwrap();
    assert!(log.partition.append(batch(&["b"]), NOW).is_err());
    assert_eq!(log.all().len(), 1);
}

#[test]
fn who_waits_is_told_when_the_disk_refuses_and_the_log_only_reads() {
    let log = Log::with_flush(&[], Flush::Always);
    let appended = log.partition.append(batch(&["a"]), NOW).unwrap();
    runtime()
        .block_on(log.partition.durable(appended.last_offset))
        .unwrap();
    // A new segment in a folder that is gone: neither it nor the folder can be synced.
    let moved = log.folder.path().with_extension("moved");
    fs::rename(log.folder.path(), &moved).unwrap();
    let error = log
        .partition
        .retain(NOW + 8 * 24 * 60 * 60 * 1000)
        .and_then(|()| {
            let appended = log
                .partition
                .append(batch(&["b"]), NOW)
                .map_err(|_| crate::Error::new(crate::error::Kind::Io, "refused"))?;
            runtime().block_on(log.partition.durable(appended.last_offset))
        });
    assert!(error.unwrap_err().is_io());
    fs::rename(&moved, log.folder.path()).unwrap();
    assert_eq!(log.partition.high_watermark(), 1);
}

/// Whether the records become durable within a few seconds without anybody waiting for them.
fn becomes_durable(log: &Log) -> bool {
    let mut flushed = log.partition.flushed();
    let last = log.partition.log_end_offset();
    runtime()
        .block_on(async {
            let reached = flushed.wait_for(|flushed| flushed.end >= last);
            tokio::time::timeout(std::time::Duration::from_secs(10), reached)
                .await
                .map(|reached| reached.is_ok())
        })
        .unwrap_or(false)
}

#[test]
fn without_flushes_records_are_visible_at_once_and_a_full_segment_is_flushed_all_the_same() {
    let log = Log::with_flush(&[("segment.bytes", "1000")], Flush::Never);
    log.partition.append(large(500), NOW).unwrap();
    assert_eq!(log.partition.high_watermark(), 1);
    assert_eq!(log.partition.flushed().borrow().end, 0);
    log.partition.append(large(500), NOW).unwrap();
    assert!(becomes_durable(&log));
    let log = log.restart();
    assert_eq!(log.report, (0, vec![]));
    assert_eq!(log.all().len(), 2);
}

#[test]
fn a_topic_that_flushes_every_record_waits_for_the_disk_though_the_broker_does_not() {
    let log = Log::with_flush(&[("flush.messages", "1")], Flush::Never);
    log.partition.append(batch(&["a"]), NOW).unwrap();
    runtime().block_on(log.partition.durable(0)).unwrap();
    assert_eq!(log.partition.flushed().borrow().end, 1);
}

#[test]
fn so_many_records_or_so_much_time_bring_a_flush() {
    let log = Log::with_flush(
        &[("flush.messages", "3"), ("flush.ms", "3600000")],
        Flush::Never,
    );
    for _ in 0..20 {
        log.partition.append(batch(&["a", "b"]), NOW).unwrap();
        log.partition.append(batch(&["c"]), NOW).unwrap();
    }
    assert!(becomes_durable(&log));
    let log = Log::with_flush(&[("flush.ms", "5")], Flush::Never);
    log.partition.append(batch(&["a"]), NOW).unwrap();
    assert!(becomes_durable(&log));
    log.partition.append(batch(&["b"]), NOW).unwrap();
    assert!(becomes_durable(&log));
}
