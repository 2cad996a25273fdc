use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// Appends batches of so many records each; gives every record.
fn fill(log: &Log, sizes: &[usize], next: &mut i64) -> Vec<(i64, String)> {
    let mut all = Vec::new();
    for &size in sizes {
        let values: Vec<String> = (0..size)
            .map(|at| format!("{:0>40}", *next + at as i64))
            .collect();
        let texts: Vec<&str> = values.iter().map(String::as_str).collect();
        let base = log
            .partition
            .append(batch(&texts), NOW)
            .unwrap()
            .base_offset;
        assert_eq!(base, *next);
        all.extend(
            values
                .into_iter()
                .enumerate()
                .map(|(at, value)| (base + at as i64, value)),
        );
        *next += size as i64;
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The file is cut anywhere behind the checkpoint: every batch before the cut is there, and nothing else.
    #[test]
    fn every_batch_before_a_cut_survives_and_nothing_is_invented(
        before in vec(1_usize..5, 0..10),
        after in vec(1_usize..5, 1..10),
        cut in 0.0_f64..1.0,
        segment_bytes in 600_u32..5000,
    ) {
        let log = Log::new(&[("segment.bytes", &segment_bytes.to_string())]);
        let mut next = 0;
        let mut all = fill(&log, &before, &mut next);
        let log = log.restart();
        let checkpoint = log.logs().last().unwrap().clone();
        let known = checkpoint.metadata().unwrap().len();
        all.extend(fill(&log, &after, &mut next));
        let log = log.reopen(|folder| {
            let last = logs(folder).pop().unwrap();
            let size = last.metadata().unwrap().len();
            let from = if last.file_name() == checkpoint.file_name() { known } else { 0 };
            let to = from + ((size - from) as f64 * cut) as u64;
            OpenOptions::new().write(true).open(&last).unwrap().set_len(to).unwrap();
        });
        let left = log.all();
        prop_assert!(all.starts_with(&left));
        let stored: u64 = log.logs().iter().map(|path| path.metadata().unwrap().len()).sum();
        let cut: u64 = log.report.1.iter().map(|loss| loss.cut_bytes).sum();
        prop_assert!(cut < 61 + 5 * 60, "a whole batch was cut: {cut} bytes");
        prop_assert_eq!(stored, log.partition.size_bytes());
        let again = log.partition.append(batch(&["again"]), NOW).unwrap();
        prop_assert_eq!(again.base_offset, left.len() as i64);
        let log = log.crash();
        prop_assert_eq!(log.all().len(), left.len() + 1);
    }

    /// Bytes are overwritten anywhere, in logs, indexes and checkpoints: opening and reading never panics, and what is
    /// read of records that pass their checksum is what was written.
    #[test]
    fn damaged_bytes_never_panic_and_never_change_a_record(
        sizes in vec(1_usize..5, 1..12),
        damage in vec((0_usize..20, 0.0_f64..1.0, any::<u8>()), 1..6),
        clean in any::<bool>(),
    ) {
        let log = Log::new(&[("segment.bytes", "900")]);
        let mut next = 0;
        let all = fill(&log, &sizes, &mut next);
        if clean {
            log.partition.close().unwrap();
        }
        log.shared.flusher.stop();
        let mut files: Vec<PathBuf> = fs::read_dir(log.folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for (file, at, byte) in damage {
            let path = &files[file % files.len()];
            let size = path.metadata().unwrap().len();
            let file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all_at(&[byte], (size as f64 * at) as u64).unwrap();
        }
        let config = TopicConfig::new([("segment.bytes".to_owned(), "900".to_owned())].into(), &BTreeMap::new()).unwrap();
        let place = Place { topic: "orders".to_owned(), index: 3, folder: log.folder.path().to_owned() };
        let Ok(opened) = Partition::open(place, Arc::new(RwLock::new(Arc::new(config))), log.shared.clone(), NOW) else { return Ok(()) };
        let partition = opened.partition;
        // Two damages can move a batch by millions of offsets: a batch's own offset is outside of its checksum.
        let (start, end) = (partition.log_start_offset(), partition.log_end_offset());
        for offset in (start..end.min(start + 100)).chain((end - 100).max(start + 100)..end) {
            let Ok(read) = partition.read(offset, 1, true) else { continue };
            // The client checks the checksum.
            let mut records = read.records.clone();
            if RecordBatchDecoder::decode_batch_info(&mut records).is_ok() && !read.records.is_empty() {
                for (_, value) in values(&read.records) {
                    prop_assert!(all.iter().any(|(_, written)| *written == value));
                }
            }
            let _ = partition.offset_for_time(NOW + offset, Isolation::Uncommitted);
        }
        partition.retain(NOW).ok();
        partition.append(batch(&["more"]), NOW).ok();
    }

    #[test]
    fn bytes_from_outside_never_panic(bytes in vec(any::<u8>(), 0..300), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..5), fix_crc in any::<bool>()) {
        let log = Log::new(&[]);
        log.partition.append(bytes.into(), NOW).ok();
        let mut near = batch(&["a", "b", "c"]).to_vec();
        for (at, byte) in flips {
            let at = at.index(near.len());
            near[at] = byte;
        }
        if fix_crc {
            let crc = crc32c::crc32c(&near[21..]);
            near[17..21].copy_from_slice(&crc.to_be_bytes());
        }
        if log.partition.append(near.into(), NOW).is_ok() {
            log.partition.read(0, 1000, true).unwrap();
            log.partition.offset_for_time(0, Isolation::Uncommitted).unwrap();
        }
    }
}
