//! Which transactions were aborted, for readers of committed records to leave their records out.
//!
//! A reader is told, with each fetch, of the aborted transactions that touch what it got. They are
//! kept in memory (32 bytes each, as long as their records are kept), and in a file that is brought
//! up to date before each checkpoint; what came later is found again by the check of the log. A
//! file that is damaged or missing therefore costs a check of the whole log, no more.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use bytes::{Buf, BufMut};

use crate::{Error, disk};

/// The file in a partition's folder.
const FILE: &str = "aborted";
/// Four numbers and a checksum.
const ENTRY: usize = 4 * 8 + 4;
/// The file is written anew when it holds so many entries that nobody needs, and more than are
/// needed.
const DEAD_MAX: usize = 1_000;

/// A transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortedTransaction {
    pub(crate) producer_id: i64,
    /// Its first record.
    pub(crate) first_offset: i64,
    /// Its marker.
    pub(crate) last_offset: i64,
    /// Where the last stable offset went with it: transactions that ended later began behind.
    pub(crate) last_stable_offset: i64,
}

/// All of a partition, by their markers.
#[derive(Debug, Default)]
pub(super) struct Aborted {
    transactions: Vec<AbortedTransaction>,
    /// How many of them the file has, and how many others before them.
    written: usize,
    dead: usize,
}

impl Aborted {
    pub(super) fn push(&mut self, transaction: AbortedTransaction) {
        self.transactions.push(transaction);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.transactions.is_empty()
    }

    /// How many ended before `offset`.
    pub(super) fn count_below(&self, offset: i64) -> usize {
        self.transactions
            .partition_point(|transaction| transaction.last_offset < offset)
    }

    /// Those with records in `from..below`.
    pub(super) fn touching(&self, from: i64, below: i64) -> Vec<AbortedTransaction> {
        let first = self
            .transactions
            .partition_point(|transaction| transaction.last_offset < from);
        let mut touching = Vec::new();
        for transaction in &self.transactions[first..] {
            if transaction.first_offset < below {
                touching.push(*transaction);
            }
            if transaction.last_stable_offset >= below {
                break;
            }
        }
        touching
    }

    /// Forgets those whose records are gone.
    pub(super) fn forget_before(&mut self, log_start: i64) {
        let gone = self
            .transactions
            .partition_point(|transaction| transaction.last_offset < log_start);
        self.transactions.drain(..gone);
        self.dead += gone.min(self.written);
        self.written = self.written.saturating_sub(gone);
    }

    /// Reads the file: what it has of markers below `next_offset`. `None` when it has less than the
    /// `expected` last ones of them.
    pub(super) fn read(
        folder: &Path,
        next_offset: i64,
        expected: usize,
    ) -> io::Result<Option<Self>> {
        let bytes = match fs::read(folder.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let mut transactions: Vec<_> = bytes
            .chunks_exact(ENTRY)
            .map_while(decode)
            .take_while(|transaction| transaction.last_offset < next_offset)
            .collect();
        let Some(dead) = transactions.len().checked_sub(expected) else {
            return Ok(None);
        };
        transactions.drain(..dead);
        Ok(Some(Self {
            written: transactions.len(),
            transactions,
            dead,
        }))
    }

    /// Brings the file up to date, on the disk when it returns.
    pub(super) fn write(&mut self, folder: &Path) -> Result<(), Error> {
        let path = folder.join(FILE);
        let anew = self.dead > self.transactions.len().max(DEAD_MAX);
        if !anew && self.written == self.transactions.len() {
            return Ok(());
        }
        let from = if anew { 0 } else { self.written };
        let mut bytes = Vec::with_capacity((self.transactions.len() - from) * ENTRY);
        for transaction in &self.transactions[from..] {
            encode(transaction, &mut bytes);
        }
        let written = if anew {
            replace(&path, &bytes)
        } else {
            append(&path, (self.dead + self.written) * ENTRY, &bytes)
        };
        written.map_err(|error| Error::io(format_args!("writing {}", path.display()), error))?;
        self.written = self.transactions.len();
        if anew {
            self.dead = 0;
        }
        Ok(())
    }
}

/// What stands behind `good` bytes was not vouched for.
fn append(path: &Path, good: usize, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    file.set_len(good as u64)?;
    file.write_all(bytes)?;
    disk::sync_file(&file, path)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let unfinished = path.with_added_extension(crate::store::UNFINISHED);
    let mut file = File::create(&unfinished)?;
    file.write_all(bytes)?;
    disk::sync_file(&file, &unfinished)?;
    fs::rename(&unfinished, path)
}

fn encode(transaction: &AbortedTransaction, into: &mut Vec<u8>) {
    let at = into.len();
    into.put_i64(transaction.producer_id);
    into.put_i64(transaction.first_offset);
    into.put_i64(transaction.last_offset);
    into.put_i64(transaction.last_stable_offset);
    let crc = crc32c::crc32c(&into[at..]);
    into.put_u32(crc);
}

fn decode(mut entry: &[u8]) -> Option<AbortedTransaction> {
    let crc = crc32c::crc32c(entry.get(..ENTRY - 4)?);
    let transaction = AbortedTransaction {
        producer_id: entry.try_get_i64().ok()?,
        first_offset: entry.try_get_i64().ok()?,
        last_offset: entry.try_get_i64().ok()?,
        last_stable_offset: entry.try_get_i64().ok()?,
    };
    (entry.try_get_u32().ok()? == crc).then_some(transaction)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(first: i64, last: i64, stable: i64) -> AbortedTransaction {
        AbortedTransaction {
            producer_id: 7,
            first_offset: first,
            last_offset: last,
            last_stable_offset: stable,
        }
    }

    fn of(transactions: &[(i64, i64, i64)]) -> Aborted {
        let mut aborted = Aborted::default();
        for &(first, last, stable) in transactions {
            aborted.push(transaction(first, last, stable));
        }
        aborted
    }

    fn firsts(aborted: &Aborted, from: i64, below: i64) -> Vec<i64> {
        let touching = aborted.touching(from, below);
        touching.iter().map(|found| found.first_offset).collect()
    }

    #[test]
    fn a_reader_is_told_of_what_touches_its_records() {
        // The second is long: it began before the first and ended behind the third began.
        let aborted = of(&[(5, 9, 2), (2, 20, 15), (15, 30, 31), (40, 50, 51)]);
        assert_eq!(firsts(&aborted, 0, 2), [0; 0]);
        assert_eq!(firsts(&aborted, 0, 6), [5, 2]);
        assert_eq!(firsts(&aborted, 10, 12), [2]);
        assert_eq!(firsts(&aborted, 21, 41), [15, 40]);
        assert_eq!(firsts(&aborted, 51, 99), [0; 0]);
    }

    #[test]
    fn the_file_brings_back_what_was_known_at_the_checkpoint() {
        let folder = tempfile::tempdir().unwrap();
        let mut aborted = of(&[(1, 2, 3), (4, 5, 6)]);
        aborted.write(folder.path()).unwrap();
        aborted.push(transaction(7, 8, 9));
        aborted.write(folder.path()).unwrap();

        let back = Aborted::read(folder.path(), 10, 3).unwrap().unwrap();
        assert_eq!(back.transactions, aborted.transactions);
        // As of an older checkpoint; what follows is found anew and replaces the rest.
        let mut older = Aborted::read(folder.path(), 6, 2).unwrap().unwrap();
        assert_eq!(older.transactions, aborted.transactions[..2]);
        older.push(transaction(6, 9, 10));
        older.write(folder.path()).unwrap();
        let back = Aborted::read(folder.path(), 10, 3).unwrap().unwrap();
        assert_eq!(back.transactions, older.transactions);
    }

    #[test]
    fn a_damaged_or_missing_file_is_told() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Aborted::read(folder.path(), 10, 1).unwrap().is_none());
        let mut aborted = of(&[(1, 2, 3), (4, 5, 6)]);
        aborted.write(folder.path()).unwrap();
        let path = folder.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        bytes[ENTRY + 3] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(Aborted::read(folder.path(), 10, 2).unwrap().is_none());
        assert!(Aborted::read(folder.path(), 10, 1).unwrap().is_some());
    }

    #[test]
    fn what_was_deleted_leaves_the_file_after_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let many: Vec<_> = (0..3_000).map(|n| (n * 2, n * 2 + 1, n * 2 + 2)).collect();
        let mut aborted = of(&many);
        aborted.write(folder.path()).unwrap();
        aborted.forget_before(5_000);
        aborted.push(transaction(6_000, 6_001, 6_002));
        aborted.write(folder.path()).unwrap();
        let size = fs::metadata(folder.path().join(FILE)).unwrap().len();
        assert_eq!(size, (aborted.count_below(i64::MAX) * ENTRY) as u64);
        let back = Aborted::read(folder.path(), 7_000, aborted.count_below(7_000))
            .unwrap()
            .unwrap();
        assert_eq!(back.transactions, aborted.transactions);
    }
}
