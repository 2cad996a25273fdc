//! A data folder that a disk, or somebody, has changed: files cut, flipped, exchanged, missing, or of another program. It
//! is opened or refused by the name of what is wrong, never panics, and never makes things worse.

use std::fs;
use std::path::Path;

use super::*;
use crate::fuzz::{Random, inputs, mutate};
use crate::log::{Isolation, Stop, batches_of_all_kinds, memory_folder};

/// Topics of each kind: compacted, deleted, and a coordinator's.
const TOPICS: [(&str, &str); 3] = [
    ("orders", "compact"),
    ("stock", "delete"),
    ("__consumer_offsets", "compact,delete"),
];

/// Names that mean something in some folder.
const NAMES: [&str; 14] = [
    "lock",
    "format",
    "catalog",
    "group-configs",
    "producer-ids",
    "topics",
    "00000000000000000000.log",
    "00000000000000000007.index",
    "aborted",
    "checkpoint",
    "compaction",
    "log-start",
    "notes.txt",
    "0",
];

#[test]
fn a_damaged_data_folder_is_opened_or_refused_by_name() {
    inputs(|random| {
        let folder = memory_folder();
        let config = StoreConfig {
            data_dir: folder.path().join("data"),
            flush: Flush::Never,
            topic_defaults: BTreeMap::new(),
        };
        fill(random, &config);
        for _ in 0..=random.below(4) {
            damage(random, &config.data_dir);
        }
        for _ in 0..2 {
            match Store::open(&config) {
                Ok((store, _)) => {
                    use_all(random, &store);
                    finish(random, &store);
                }
                Err(error) => {
                    let folder = config.data_dir.to_str().unwrap();
                    let named = error.to_string();
                    assert!(named.contains(folder), "it names what is wrong: {named}");
                    return;
                }
            }
        }
    });
}

/// A folder with some topics, and a life behind it.
fn fill(random: &mut Random, config: &StoreConfig) {
    let (store, _) = Store::open(config).unwrap();
    for (name, policy) in TOPICS {
        let settings = [
            ("cleanup.policy", policy),
            ("segment.bytes", "600"),
            ("min.cleanable.dirty.ratio", "0"),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        store.create_topic(name, 2, settings.into()).unwrap();
    }
    store.next_producer_id().unwrap();
    let settings = BTreeMap::from([("consumer.session.timeout.ms".to_owned(), "9000".to_owned())]);
    store.set_group_config("shipping", settings).unwrap();
    use_all(random, &store);
    finish(random, &store);
}

/// What clients and the broker's own threads do with a store; what is refused is refused.
fn use_all(random: &mut Random, store: &Store) {
    let now = now_ms();
    for partition in store
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions().to_vec())
    {
        for _ in 0..random.below(6) {
            let _ = partition.append(batches_of_all_kinds(random).into(), now);
        }
        let (mut from, end) = (partition.log_start_offset(), partition.log_end_offset());
        for _ in 0..random.below(20) {
            let found = partition.find(from, 500, true, Isolation::Committed);
            let next = found.ok().and_then(|found| found.end);
            from = next.unwrap_or_else(|| from.saturating_add(1));
        }
        let _ = partition.offset_for_time(now - 1, Isolation::Uncommitted);
        let _ = partition.offset_of_max_timestamp();
        if random.one_in(3) {
            let _ = partition.delete_records(random.below(end.clamp(1, 1000) as usize) as i64);
        }
    }
    store.retain(now);
    let stop = Stop::default();
    store.clean(now, &mut Pace::new(&stop, 1 << 20, None));
    let _ = store.next_producer_id();
    if random.one_in(3) {
        let _ = store.create_topic("fresh", 1, BTreeMap::new());
        let _ = store.add_partitions("stock", 3);
        let _ = store.delete_topic("orders");
    }
}

/// A stop, or as after `kill -9`.
fn finish(random: &mut Random, store: &Store) {
    if random.one_in(2) {
        let _ = store.close();
    }
}

fn damage(random: &mut Random, data: &Path) {
    let mut all = Vec::new();
    walk(data, &mut all);
    let (path, other) = (random.pick(&all).clone(), random.pick(&all).clone());
    match random.below(10) {
        0 => remove(&path),
        1 => {
            remove(&path);
            copy(&other, &path);
        }
        2 => {
            let folder = if path.is_dir() { &path } else { data };
            let foreign = folder.join(random.pick(&NAMES));
            remove(&foreign);
            match random.one_in(4) {
                true => fs::create_dir(foreign).unwrap(),
                false => {
                    let length = random.below(300);
                    fs::write(foreign, random.bytes(length)).unwrap();
                }
            }
        }
        // A name without a file, and one for another.
        3 if random.one_in(3) => {
            remove(&path);
            std::os::unix::fs::symlink(&other, &path).unwrap();
        }
        _ => change(random, &path),
    }
}

/// Changes the bytes of a file; often so that its checksum is right again.
fn change(random: &mut Random, path: &Path) {
    let Ok(mut bytes) = fs::read(path) else {
        return;
    };
    let body = bytes.iter().position(|byte| *byte == b'\n');
    if let Some(body) = body.filter(|_| bytes.starts_with(b"ackwell") && random.one_in(2)) {
        let text = other_numbers(random, &bytes[body + 1..]);
        let crc = crc32c::crc32c(text.strip_suffix(b"\n").unwrap_or(&text));
        bytes = format!("ackwell {crc:08x}\n").into_bytes();
        bytes.extend(text);
    } else {
        mutate(random, &mut bytes);
    }
    fs::write(path, bytes).unwrap();
}

/// The text with one of its numbers exchanged for one at which code goes wrong.
fn other_numbers(random: &mut Random, text: &[u8]) -> Vec<u8> {
    let is_digit = |at: usize| text.get(at).is_some_and(u8::is_ascii_digit);
    let starts: Vec<_> = (1..text.len())
        .filter(|&at| is_digit(at) && !is_digit(at - 1))
        .collect();
    if starts.is_empty() {
        return text.to_vec();
    }
    let start = *random.pick(&starts);
    let end = (start..text.len())
        .find(|&at| !is_digit(at))
        .unwrap_or(text.len());
    let number = random.number().to_string().into_bytes();
    [&text[..start], &number, &text[end..]].concat()
}

fn walk(folder: &Path, all: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && !path.is_symlink() {
            walk(&path, all);
        }
        all.push(path);
    }
}

fn remove(path: &Path) {
    let _ = fs::remove_file(path);
    let _ = fs::remove_dir_all(path);
}

fn copy(from: &Path, to: &Path) {
    if from.is_dir() {
        // Of a folder that is copied into itself, one level is enough.
        let entries: Vec<_> = fs::read_dir(from)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        let _ = fs::create_dir(to);
        for path in entries.iter().filter(|path| path.is_file()) {
            let _ = fs::copy(path, to.join(path.file_name().unwrap()));
        }
    } else {
        let _ = fs::copy(from, to);
    }
}
