//! Fuzzing without a nightly compiler: inputs that a seed decides, against everything that reads bytes
//! which this process did not just write itself.
//!
//! A fuzz target is a test. It makes its inputs of what is valid (requests along their outlines, files of
//! a real log, records of a real coordinator) and changes them; what was once found is kept under
//! `tests/corpus/<target>` and tried first. By default a target takes a moment, so that it runs with all
//! other tests; `ACKWELL_SECONDS=60` lets it look for longer, `ACKWELL_SEED=7` begins elsewhere, and a failing
//! input names its seed.

use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Inputs of a target when nobody asks for more.
const INPUTS: u64 = 150;

/// A small random generator (splitmix64): the same inputs for a seed on every machine.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to below `limit`; 0 if there is none.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub(crate) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// A number at which code goes wrong rather than elsewhere.
    pub(crate) fn number(&mut self) -> i64 {
        const EDGES: [i64; 18] = [
            -1,
            0,
            1,
            2,
            3,
            -2,
            127,
            128,
            255,
            i16::MAX as i64,
            i16::MIN as i64,
            i32::MAX as i64,
            i32::MAX as i64 - 1,
            i32::MIN as i64,
            u32::MAX as i64,
            i64::MAX,
            i64::MAX - 1,
            i64::MIN,
        ];
        match self.below(4) {
            0 | 1 => *self.pick(&EDGES),
            2 => self.below(300) as i64,
            _ => self.next() as i64,
        }
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

/// Changes some bytes: flips, numbers at the edges, pieces cut, repeated or moved.
pub(crate) fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.below(4) {
        if bytes.is_empty() {
            *bytes = random.bytes(8);
        }
        let at = random.below(bytes.len());
        match random.below(8) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = random.next() as u8,
            2 => overwrite(bytes, at, &random.number().to_be_bytes()[4..]),
            3 => overwrite(bytes, at, &random.number().to_be_bytes()),
            4 => bytes.truncate(at),
            5 => {
                let length = random.below((bytes.len() - at).min(64)) + 1;
                bytes.drain(at..(at + length).min(bytes.len()));
            }
            6 => {
                let length = random.below((bytes.len() - at).min(64)) + 1;
                let piece = bytes[at..(at + length).min(bytes.len())].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece);
            }
            _ => {
                let length = random.below(16);
                let piece = random.bytes(length);
                bytes.splice(at..at, piece);
            }
        }
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    let end = (at + with.len()).min(bytes.len());
    bytes[at..end].copy_from_slice(&with[..end - at]);
}

/// Gives the target one generator after the other, each with a seed of its own.
pub(crate) fn inputs(mut target: impl FnMut(&mut Random)) {
    let first = setting("ACKWELL_SEED").unwrap_or(1);
    let length = setting("ACKWELL_SECONDS").map(Duration::from_secs);
    let begun = Instant::now();
    let mut tried = 0;
    while length.map_or(tried < INPUTS, |length| begun.elapsed() < length) {
        let seed = first + tried;
        let _told = Told(seed);
        target(&mut Random::new(seed.wrapping_mul(0x5851_f42d_4c95_7f2d)));
        tried += 1;
    }
    println!("{tried} inputs from seed {first} in {:?}", begun.elapsed());
}

/// How long a target runs if somebody said so, or from which seed.
pub(crate) fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What was found once: name and bytes of each file.
pub(crate) fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/corpus")
        .join(target);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut found: Vec<_> = files
        .map(|file| {
            let path = file.unwrap().path();
            (path.display().to_string(), std::fs::read(&path).unwrap())
        })
        .collect();
    found.sort();
    found
}

/// Names the seed of an input that failed.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("this input alone: ACKWELL_SEED={}", self.0);
        }
    }
}
