use super::*;
use crate::log::error::AppendError;

#[test]
fn offsets_continue_from_batch_to_batch() {
    let log = Log::new(&[]);
    let first = log.partition.append(batch(&["a", "b"]), NOW).unwrap();
    let second = log.partition.append(batch(&["c"]), NOW).unwrap();
    assert_eq!((first.base_offset, first.last_offset), (0, 1));
    assert_eq!((second.base_offset, second.last_offset), (2, 2));
    assert_eq!(
        log.all(),
        [(0, "a".into()), (1, "b".into()), (2, "c".into())]
    );
}

#[test]
fn several_batches_of_one_call_are_appended_together() {
    let log = Log::new(&[]);
    let both = [batch(&["a", "b"]), batch(&["c"])].concat();
    let appended = log.partition.append(both.into(), NOW).unwrap();
    assert_eq!((appended.base_offset, appended.last_offset), (0, 2));
    assert_eq!(log.all().len(), 3);
}

#[test]
fn a_batch_stays_byte_for_byte_but_for_its_offset_and_leader_epoch() {
    let log = Log::new(&[]);
    log.partition.append(batch(&["first"]), NOW).unwrap();
    let sent = batch_of(
        &["a", "b"],
        Make {
            compression: Compression::Zstd,
            ..PLAIN
        },
    );
    log.partition.append(sent.clone(), NOW).unwrap();
    let read = log.partition.read(1, 1000, true).unwrap().records;
    assert_eq!(read[..8], 1_i64.to_be_bytes());
    assert_eq!(read[8..12], sent[8..12]);
    assert_eq!(read[16..], sent[16..]);
}

#[test]
fn a_flipped_bit_anywhere_behind_the_length_is_refused_as_corrupt() {
    let log = Log::new(&[]);
    let good = batch(&["value"]);
    for at in 17..good.len() {
        let mut bad = good.to_vec();
        bad[at] ^= 0x10;
        let refused = log.partition.append(bad.into(), NOW);
        assert!(
            matches!(refused, Err(AppendError::Corrupt(_))),
            "byte {at}: {refused:?}"
        );
    }
    assert_eq!(log.partition.log_end_offset(), 0);
}

#[test]
fn a_batch_that_is_cut_short_is_refused() {
    let log = Log::new(&[]);
    let good = batch(&["value"]);
    for len in 1..good.len() {
        assert!(
            log.partition.append(good.slice(..len), NOW).is_err(),
            "{len} bytes"
        );
    }
    assert!(matches!(
        log.partition.append(Bytes::new(), NOW),
        Err(AppendError::Invalid(_))
    ));
}

#[test]
fn one_bad_batch_keeps_the_good_ones_of_its_call_out() {
    let log = Log::new(&[]);
    let mut bytes = [batch(&["good"]), batch(&["bad"])].concat();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    log.partition.append(bytes.into(), NOW).unwrap_err();
    assert_eq!(log.partition.log_end_offset(), 0);
}

#[test]
fn too_large_a_batch_is_refused() {
    let log = Log::new(&[("max.message.bytes", "1000")]);
    assert!(matches!(
        log.partition.append(large(1000), NOW),
        Err(AppendError::TooLarge { max: 1000, .. })
    ));
    log.partition.append(large(900), NOW).unwrap();
}

#[test]
fn a_timestamp_far_in_the_future_is_refused() {
    let log = Log::new(&[]);
    let late = batch_of(
        &["a"],
        Make {
            timestamp: NOW + 3_600_001,
            ..PLAIN
        },
    );
    assert!(matches!(
        log.partition.append(late, NOW),
        Err(AppendError::InvalidTimestamp { .. })
    ));
}

#[test]
fn log_append_time_replaces_the_timestamp_and_keeps_the_checksum_right() {
    let log = Log::new(&[("message.timestamp.type", "LogAppendTime")]);
    let appended = log
        .partition
        .append(
            batch_of(
                &["a", "b"],
                Make {
                    timestamp: 5,
                    ..PLAIN
                },
            ),
            NOW,
        )
        .unwrap();
    assert_eq!(appended.log_append_time, NOW);
    let mut read = log.partition.read(0, 1000, true).unwrap().records;
    assert_eq!(read[35..43], NOW.to_be_bytes());
    let info = RecordBatchDecoder::decode_batch_info(&mut read).unwrap();
    assert_eq!(info[0].timestamp_type, TimestampType::LogAppend);
    assert_eq!(
        log.partition
            .offset_for_time(NOW, Isolation::Uncommitted)
            .unwrap(),
        Some((0, NOW))
    );
}

#[test]
fn clients_may_not_write_control_batches() {
    let log = Log::new(&[]);
    let mut bytes = batch(&["a"]).to_vec();
    bytes[22] |= 0x20;
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    assert!(matches!(
        log.partition.append(bytes.into(), NOW),
        Err(AppendError::Invalid(_))
    ));
}

#[test]
fn a_new_segment_begins_before_one_gets_too_large() {
    let log = Log::new(&[("segment.bytes", "1000")]);
    for _ in 0..10 {
        log.partition.append(large(300), NOW).unwrap();
    }
    assert_eq!(log.logs().len(), 5);
    assert!(
        log.logs()
            .iter()
            .all(|path| path.metadata().unwrap().len() <= 1000)
    );
    assert_eq!(log.all().len(), 10);
}

#[test]
fn a_new_segment_begins_when_one_is_old() {
    let log = Log::new(&[("segment.ms", "1000")]);
    log.partition.append(batch(&["a"]), NOW).unwrap();
    log.partition.append(batch(&["b"]), NOW + 1000).unwrap();
    log.partition.append(batch(&["c"]), NOW + 1001).unwrap();
    assert_eq!(log.logs().len(), 2);
}

#[test]
fn many_segments_are_written_and_read_though_few_files_are_open() {
    let log = Log::new(&[("segment.bytes", "100")]);
    for at in 0..10 * OPEN_MAX {
        log.partition
            .append(batch(&[&at.to_string()]), NOW)
            .unwrap();
    }
    assert_eq!(log.logs().len(), 10 * OPEN_MAX);
    assert_eq!(log.all().len(), 10 * OPEN_MAX);
    let log = log.restart();
    assert_eq!(log.all().len(), 10 * OPEN_MAX);
    let open = fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|file| {
            file.starts_with(log.folder.path())
                && file.extension().is_some_and(|extension| extension == "log")
        })
        .count();
    assert!((1..=OPEN_MAX).contains(&open), "{open} files are open");
}

#[test]
fn a_topic_with_a_codec_of_its_own_packs_every_batch_by_it() {
    for (number, name) in ["uncompressed", "gzip", "snappy", "lz4", "zstd"]
        .iter()
        .enumerate()
    {
        let log = Log::new(&[("compression.type", name)]);
        let codecs = [
            Compression::None,
            Compression::Gzip,
            Compression::Snappy,
            Compression::Lz4,
            Compression::Zstd,
        ];
        for compression in codecs {
            let make = Make {
                compression,
                producer: (7, 0, 2 * log.partition.log_end_offset() as i32 / 2),
                ..PLAIN
            };
            log.partition
                .append(batch_of(&["a", "b"], make), NOW)
                .unwrap();
        }
        let read = read_all(&log.partition);
        assert_eq!(
            i16::from_be_bytes([read[21], read[22]]) & 7,
            number as i16,
            "{name}"
        );
        let expected: Vec<_> = ["a", "b"].iter().cycle().take(10).collect();
        let found: Vec<_> = values(&read).into_iter().map(|(_, value)| value).collect();
        assert!(found.iter().eq(expected), "{name}: {found:?}");
        assert_eq!(log.crash().all().len(), 10, "{name}");
    }
}

#[test]
fn a_batch_that_cannot_be_unpacked_cannot_be_packed_anew() {
    let log = Log::new(&[("compression.type", "gzip")]);
    let mut nonsense = batch(&["value"]).to_vec();
    nonsense[61] = 0xff;
    let crc = crc32c::crc32c(&nonsense[21..]);
    nonsense[17..21].copy_from_slice(&crc.to_be_bytes());
    let refused = log.partition.append(nonsense.into(), NOW);
    assert!(
        matches!(refused, Err(AppendError::Invalid(_))),
        "{refused:?}"
    );
}

#[test]
fn records_that_are_to_blame_are_told_by_their_places() {
    let log = Log::new(&[("cleanup.policy", "compact")]);
    let refused = log.partition.append(batch(&["a", "b"]), NOW).unwrap_err();
    assert_eq!(refused.records(), [0, 1]);

    let log = Log::new(&[("message.timestamp.after.max.ms", "1000")]);
    let late = Make {
        timestamp: NOW + 999,
        ..PLAIN
    };
    let refused = log
        .partition
        .append(batch_of(&["a", "b", "c", "d"], late), NOW);
    assert_eq!(refused.unwrap_err().records(), [2, 3]);
}
