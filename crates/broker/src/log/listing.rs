//! The files in a partition's folder.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::open_files::OpenFiles;
use super::segment::{self, DIGITS, LOG, Segment};
use crate::Error;
use crate::store::UNFINISHED;

/// How the ending of a file with damaged bytes begins; where they were follows.
pub(super) const DAMAGED: &str = "damaged-";

/// The files of a partition: base offset, bytes of the log, bytes of the index.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) segments: BTreeMap<i64, (u64, u64)>,
    /// Files that this broker does not write. They are left alone.
    pub(super) foreign: Vec<PathBuf>,
}

/// The other files of a partition.
const KNOWN: [&str; 4] = ["aborted", "checkpoint", "compaction", "log-start"];

impl Listing {
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let listing = |error| Error::io(format_args!("listing {}", folder.display()), error);
        let (mut segments, mut indexes) = (BTreeMap::new(), BTreeMap::new());
        let mut foreign = Vec::new();
        for entry in fs::read_dir(folder).map_err(listing)? {
            let entry = entry.map_err(listing)?;
            let path = entry.path();
            let base = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .filter(|stem| stem.len() == DIGITS && stem.bytes().all(|c| c.is_ascii_digit()))
                .and_then(|stem| stem.parse::<i64>().ok());
            match (
                path.extension().and_then(|extension| extension.to_str()),
                base,
            ) {
                (Some(UNFINISHED), _) => fs::remove_file(&path).map_err(listing)?,
                (Some(LOG), Some(base)) => {
                    segments.insert(base, (entry.metadata().map_err(listing)?.len(), 0));
                }
                (Some(segment::INDEX), Some(base)) => {
                    indexes.insert(base, entry.metadata().map_err(listing)?.len());
                }
                (Some(extension), Some(_)) if extension.starts_with(DAMAGED) => {}
                _ if KNOWN.iter().any(|known| path.ends_with(known)) => {}
                _ => foreign.push(path),
            }
        }
        for (base, bytes) in indexes {
            if let Some(segment) = segments.get_mut(&base) {
                segment.1 = bytes;
            }
        }
        Ok(Self { segments, foreign })
    }

    /// Segments before the log start are left of a deletion that was interrupted.
    pub(super) fn remove_deleted(
        &mut self,
        folder: &Path,
        log_start: i64,
        files: &Arc<OpenFiles>,
    ) -> Result<(), Error> {
        while self
            .segments
            .keys()
            .nth(1)
            .is_some_and(|&second| second <= log_start)
        {
            if let Some((base, _)) = self.segments.pop_first() {
                Segment::new(folder, base, 0, -1, files).remove()?;
            }
        }
        Ok(())
    }
}

/// Copies a part of a file into a new file, which is there whole or not at all.
pub(super) fn copy(from: &Path, range: Range<u64>, to: &Path) -> io::Result<()> {
    let unfinished = to.with_added_extension(UNFINISHED);
    let mut source = File::open(from)?;
    source.seek(SeekFrom::Start(range.start))?;
    let mut target = File::create(&unfinished)?;
    io::copy(&mut source.take(range.end - range.start), &mut target)?;
    crate::disk::sync_file(&target, &unfinished)?;
    fs::rename(&unfinished, to)
}
