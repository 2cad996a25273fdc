use std::io::Write;

use super::*;

const COMPRESSIONS: [Compression; 5] = [
    Compression::None,
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

#[test]
fn the_first_record_of_a_time_is_found_inside_a_batch_of_any_compression() {
    for compression in COMPRESSIONS {
        let log = Log::new(&[]);
        log.partition
            .append(
                batch_of(
                    &["a", "b", "c"],
                    Make {
                        compression,
                        timestamp: 1000,
                        ..PLAIN
                    },
                ),
                NOW,
            )
            .unwrap();
        log.partition
            .append(
                batch_of(
                    &["d", "e"],
                    Make {
                        compression,
                        timestamp: 2000,
                        ..PLAIN
                    },
                ),
                NOW,
            )
            .unwrap();
        for (ms, found) in [
            (0, Some((0, 1000))),
            (1001, Some((1, 1001))),
            (1003, Some((3, 2000))),
            (2001, Some((4, 2001))),
            (2002, None),
        ] {
            assert_eq!(
                log.partition
                    .offset_for_time(ms, Isolation::Uncommitted)
                    .unwrap(),
                found,
                "{compression:?} {ms}"
            );
        }
        assert_eq!(
            log.partition.offset_of_max_timestamp().unwrap(),
            Some((4, 2001))
        );
    }
}

#[test]
fn times_are_found_over_segments_and_after_a_restart() {
    let mut log = Log::new(&[("segment.bytes", "100000")]);
    for at in 0..300 {
        log.partition
            .append(
                batch_of(
                    &[&"x".repeat(1000)],
                    Make {
                        timestamp: at * 10,
                        ..PLAIN
                    },
                ),
                NOW,
            )
            .unwrap();
    }
    for _ in 0..2 {
        for at in [0, 1, 57, 99, 150, 299] {
            assert_eq!(
                log.partition
                    .offset_for_time(at * 10 - 5, Isolation::Uncommitted)
                    .unwrap(),
                Some((at, at * 10))
            );
        }
        log = log.restart();
    }
}

/// What is done to an entry, counted from the end of its index.
type Damage = fn(usize, &mut [u8]);

/// Bytes of an entry of an index; its time lies at 8 to 16.
const ENTRY: usize = 20;

/// Batches whose times are `between` apart, in some segments with an index of many entries each.
fn timed(between: i64) -> Log {
    let log = Log::new(&[("segment.bytes", "200000")]);
    for at in 0..400 {
        let make = Make {
            timestamp: at * between,
            ..PLAIN
        };
        let value = format!("{at:0>1500}");
        log.partition
            .append(batch_of(&[&value], make), NOW)
            .unwrap();
    }
    log
}

/// Changes the bytes of each entry of each index, which are counted from its end, with the log closed.
fn with_entries(log: Log, change: Damage) -> Log {
    log.partition.close().unwrap();
    log.reopen(|folder| {
        for path in logs(folder) {
            let path = path.with_extension("index");
            let mut bytes = fs::read(&path).unwrap();
            assert!(bytes.len() > 3 * ENTRY, "entries");
            let entries = bytes.chunks_exact_mut(ENTRY).rev().enumerate();
            entries.for_each(|(at, entry)| change(at, entry));
            fs::write(&path, bytes).unwrap();
        }
    })
}

fn assert_times_are_found(log: &Log, between: i64) {
    for at in (0..400).step_by(7).chain([399]) {
        let found = log
            .partition
            .offset_for_time(at * between, Isolation::Uncommitted);
        assert_eq!(found.unwrap(), Some((at, at * between)));
    }
    for at in (0..400).step_by(13) {
        let read = log.partition.read(at, 1, true).unwrap();
        assert_eq!(values(&read.records), [(at, format!("{at:0>1500}"))]);
    }
}

#[test]
fn an_index_with_wrong_times_hides_no_record() {
    let damages: [Damage; 4] = [
        // As if all of the log were old, or new.
        |_, entry| entry[8..16].copy_from_slice(&(-1_i64).to_be_bytes()),
        |_, entry| entry[8..16].copy_from_slice(&i64::MAX.to_be_bytes()),
        |at, entry| match at % 3 {
            0 => entry[15] ^= 0x40,
            1 => entry[14] ^= 0x01,
            _ => {}
        },
        |at, entry| {
            if at < 3 {
                entry.fill(0);
            }
        },
    ];
    for damage in damages {
        let log = with_entries(timed(10), damage);
        assert_times_are_found(&log, 10);
        assert_eq!(log.report.1, []);
    }
}

#[test]
fn the_end_of_a_segment_is_believed_of_its_own_index_only() {
    // It claims that the next segment begins early, and that no time of this one is late.
    let log = with_entries(timed(10), |at, entry| {
        if at == 0 {
            entry[..4].copy_from_slice(&1_u32.to_be_bytes());
            entry[8..16].copy_from_slice(&0_i64.to_be_bytes());
        }
    });
    assert_times_are_found(&log, 10);
}

#[test]
fn the_index_of_a_log_with_other_times_is_not_taken_for_its_own() {
    let other = timed(1);
    other.partition.close().unwrap();
    let log = timed(10);
    log.partition.close().unwrap();
    let log = log.reopen(|folder| {
        for path in other.logs() {
            let index = path.with_extension("index");
            fs::copy(&index, folder.join(index.file_name().unwrap())).unwrap();
        }
    });
    assert_times_are_found(&log, 10);
}

#[test]
fn times_that_go_back_give_the_first_offset_that_is_late_enough() {
    let log = Log::new(&[]);
    for timestamp in [100, 50, 300, 200] {
        log.partition
            .append(batch_of(&["a"], Make { timestamp, ..PLAIN }), NOW)
            .unwrap();
    }
    assert_eq!(
        log.partition
            .offset_for_time(60, Isolation::Uncommitted)
            .unwrap(),
        Some((0, 100))
    );
    assert_eq!(
        log.partition
            .offset_for_time(150, Isolation::Uncommitted)
            .unwrap(),
        Some((2, 300))
    );
    assert_eq!(
        log.partition.offset_of_max_timestamp().unwrap(),
        Some((2, 300))
    );
}

#[test]
fn deleted_records_are_not_found() {
    let log = Log::new(&[]);
    log.partition
        .append(
            batch_of(
                &["a", "b", "c"],
                Make {
                    timestamp: 100,
                    ..PLAIN
                },
            ),
            NOW,
        )
        .unwrap();
    log.partition.delete_records(2).unwrap();
    assert_eq!(
        log.partition
            .offset_for_time(0, Isolation::Uncommitted)
            .unwrap(),
        Some((2, 102))
    );
}

#[test]
fn a_batch_that_cannot_be_unpacked_gives_its_beginning() {
    let log = Log::new(&[]);
    let mut bytes = batch_of(
        &["a", "b"],
        Make {
            compression: Compression::Gzip,
            timestamp: 100,
            ..PLAIN
        },
    )
    .to_vec();
    bytes[70..].fill(0xff);
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    log.partition.append(bytes.into(), NOW).unwrap();
    assert_eq!(
        log.partition
            .offset_for_time(50, Isolation::Uncommitted)
            .unwrap(),
        Some((0, 101))
    );
}

/// The most memory that this process has had, in bytes.
fn peak_memory() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    peak.trim()
        .trim_end_matches(" kB")
        .parse::<usize>()
        .unwrap()
        * 1024
}

/// A batch of some records with these packed bytes in the place of its records.
fn packed(compression: Compression, packed: &[u8]) -> Bytes {
    let make = Make {
        compression,
        timestamp: 100,
        ..PLAIN
    };
    let mut bytes = batch_of(&["a", "b"], make)[..61].to_vec();
    bytes.extend_from_slice(packed);
    let length = (bytes.len() - 12) as u32;
    bytes[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    bytes.into()
}

#[test]
fn a_small_batch_that_unpacks_to_much_takes_no_memory() {
    // A record that claims to be of 4 GiB, and its endless content.
    const RECORD: [u8; 8] = [0xfe, 0xff, 0xff, 0xff, 0x1f, 0, 0, 0];
    let bomb = |into: &mut dyn Write| {
        into.write_all(&RECORD).unwrap();
        (0..128).for_each(|_| into.write_all(&[0; 1024 * 1024]).unwrap());
    };
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    bomb(&mut gzip);
    let mut zstd = zstd::stream::write::Encoder::new(Vec::new(), 3).unwrap();
    bomb(&mut zstd);
    let mut lz4 = lz4::EncoderBuilder::new().build(Vec::new()).unwrap();
    bomb(&mut lz4);
    // Two gigabytes are claimed by a few bytes.
    let mut snappy = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01\0\0\0\x08".to_vec();
    snappy.extend([0xff, 0xff, 0xff, 0xff, 0x07, 0, 0, 0]);
    let raw = [0xff, 0xff, 0xff, 0xff, 0x07, 0, 0, 0];
    let bombs = [
        (Compression::Gzip, gzip.finish().unwrap()),
        (Compression::Zstd, zstd.finish().unwrap()),
        (Compression::Lz4, lz4.finish().0),
        (Compression::Snappy, snappy),
        (Compression::Snappy, raw.to_vec()),
    ];
    for (compression, bomb) in bombs {
        let log = Log::new(&[("max.message.bytes", "10000000")]);
        log.partition
            .append(packed(compression, &bomb), NOW)
            .unwrap();
        let before = peak_memory();
        assert_eq!(
            log.partition
                .offset_for_time(101, Isolation::Uncommitted)
                .unwrap(),
            Some((0, 101)),
            "{compression:?}"
        );
        let taken = peak_memory() - before;
        assert!(
            taken < 64 * 1024 * 1024,
            "{compression:?} took {taken} bytes"
        );
    }
}

#[test]
fn an_empty_log_has_no_times() {
    let log = Log::new(&[]);
    assert_eq!(
        log.partition
            .offset_for_time(0, Isolation::Uncommitted)
            .unwrap(),
        None
    );
    assert_eq!(log.partition.offset_of_max_timestamp().unwrap(), None);
}
