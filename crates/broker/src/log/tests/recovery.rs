use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;

use super::*;

fn ten() -> Log {
    let log = Log::new(&[("segment.bytes", "1500")]);
    for at in 0..10 {
        log.partition
            .append(batch(&[&format!("{at:0>300}")]), NOW)
            .unwrap();
    }
    log
}

fn offsets(log: &Log) -> Vec<i64> {
    log.all().iter().map(|(offset, _)| *offset).collect()
}

fn flip(path: &PathBuf, at: u64) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0xff], at).unwrap();
}

fn cut(path: &PathBuf, by: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() - by).unwrap();
}

#[test]
fn a_clean_shutdown_leaves_nothing_to_check() {
    let log = ten().restart();
    assert_eq!(log.report, (0, vec![]));
    assert_eq!(offsets(&log), Vec::from_iter(0..10));
    assert_eq!(
        log.partition
            .append(batch(&["a"]), NOW)
            .unwrap()
            .base_offset,
        10
    );
}

#[test]
fn a_crash_loses_nothing_that_was_written() {
    let log = ten().crash();
    assert!(log.report.0 > 0);
    assert_eq!(log.report.1, []);
    assert_eq!(offsets(&log), Vec::from_iter(0..10));
}

#[test]
fn only_what_came_after_the_checkpoint_is_checked() {
    let log = ten().restart();
    let sent = batch(&["a"]);
    log.partition.append(sent.clone(), NOW).unwrap();
    let log = log.crash();
    assert_eq!(log.report, (sent.len() as u64, vec![]));
    assert_eq!(log.crash().report, (0, vec![]));
}

#[test]
fn the_beginning_of_a_batch_is_cut_and_reported() {
    let log = ten().reopen(|folder| {
        let mut file = OpenOptions::new()
            .append(true)
            .open(logs(folder).last().unwrap())
            .unwrap();
        file.write_all(&batch(&["torn"])[..40]).unwrap();
    });
    assert_eq!(log.report.1.len(), 1);
    assert_eq!(
        (log.report.1[0].cut_bytes, log.report.1[0].missing_offsets),
        (40, None)
    );
    assert_eq!(offsets(&log), Vec::from_iter(0..10));
    assert_eq!(
        log.partition
            .append(batch(&["a"]), NOW)
            .unwrap()
            .base_offset,
        10
    );
    assert_eq!(log.crash().report.1, []);
}

#[test]
fn damage_in_the_middle_costs_only_the_damaged_batch() {
    let log = ten().reopen(|folder| flip(&logs(folder)[1], 100));
    let left: Vec<i64> = offsets(&log);
    assert_eq!(left.len(), 9);
    assert_eq!(left[..4], [0, 1, 2, 3]);
    assert!(!left.contains(&4));
    assert_eq!(log.report.1.len(), 2);
    assert_eq!(log.report.1[1].missing_offsets, Some((4, 5)));
    let kept = fs::read_dir(log.folder.path()).unwrap().filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .path()
            .to_string_lossy()
            .contains("damaged")
    });
    assert_eq!(kept.count(), 1);
    let log = log.crash();
    assert_eq!((offsets(&log), log.report.1.len()), (left, 0));
}

#[test]
fn offsets_that_were_given_out_are_not_given_out_again() {
    let log = ten();
    log.partition.close().unwrap();
    let log = log.reopen(|folder| cut(logs(folder).last().unwrap(), 1));
    assert_eq!(offsets(&log), Vec::from_iter(0..9));
    assert_eq!(log.report.1.last().unwrap().missing_offsets, Some((9, 10)));
    assert!(log.partition.read(9, 100, true).unwrap().records.is_empty());
    assert_eq!(
        log.partition
            .append(batch(&["a"]), NOW)
            .unwrap()
            .base_offset,
        10
    );
    assert_eq!(
        values(&log.partition.read(9, 100, true).unwrap().records),
        [(10, "a".into())]
    );
    let log = log.crash();
    assert_eq!(offsets(&log), Vec::from_iter((0..9).chain([10])));
    assert_eq!(log.report.1, []);
}

#[test]
fn a_missing_segment_is_reported_and_the_others_are_read() {
    let log = ten();
    log.partition.close().unwrap();
    let log = log.reopen(|folder| fs::remove_file(&logs(folder)[1]).unwrap());
    assert_eq!(offsets(&log), [0, 1, 2, 3, 8, 9]);
    assert_eq!(log.report.1.len(), 1);
    assert_eq!(log.report.1[0].missing_offsets, Some((4, 8)));
    assert_eq!(
        values(&log.partition.read(5, 1, true).unwrap().records)[0].0,
        8
    );
}

#[test]
fn without_any_segment_the_offsets_still_go_on() {
    let log = ten();
    log.partition.close().unwrap();
    let log = log.reopen(|folder| {
        logs(folder)
            .iter()
            .for_each(|path| fs::remove_file(path).unwrap())
    });
    assert_eq!(log.report.1[0].missing_offsets, Some((0, 10)));
    assert_eq!(
        log.partition
            .append(batch(&["a"]), NOW)
            .unwrap()
            .base_offset,
        10
    );
}

#[test]
fn a_damaged_checkpoint_costs_only_time() {
    let log = ten();
    log.partition.close().unwrap();
    let log = log.reopen(|folder| flip(&folder.join("checkpoint"), 30));
    assert!(log.report.0 > 0);
    assert_eq!(log.report.1, []);
    assert_eq!(offsets(&log), Vec::from_iter(0..10));
}

#[test]
fn a_batch_inside_of_a_record_is_not_taken_for_one_of_the_log() {
    let log = Log::new(&[]);
    log.partition.append(batch(&["first"]), NOW).unwrap();
    // A whole batch as a record's value, with an offset that would fit.
    let mut inner = batch(&["inner"]).to_vec();
    inner[..8].copy_from_slice(&3_i64.to_be_bytes());
    let mut outer = BytesMut::from(&batch(&["outer"])[..]);
    outer.extend_from_slice(&inner);
    let length = (outer.len() - 12) as i32;
    outer[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&outer[21..]);
    outer[17..21].copy_from_slice(&crc.to_be_bytes());
    log.partition.append(outer.freeze(), NOW).unwrap();
    log.partition.append(batch(&["last"]), NOW).unwrap();
    let first = batch(&["first"]).len() as u64;
    let log = log.reopen(|folder| flip(&logs(folder)[0], first + 62));
    assert_eq!(log.all(), [(0, "first".into()), (2, "last".into())]);
}

#[test]
fn foreign_files_in_the_folder_are_left_alone() {
    let log = ten().reopen(|folder| {
        fs::write(folder.join("5.log"), "notes").unwrap();
        fs::write(folder.join("notes.txt"), "notes").unwrap();
    });
    assert_eq!(offsets(&log), Vec::from_iter(0..10));
    assert!(log.folder.path().join("5.log").exists());
}
