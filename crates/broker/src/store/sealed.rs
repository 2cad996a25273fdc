//! Small files that are written whole and are either there or not: catalog, checkpoint, ids.
//!
//! The text is JSON so that a person can read it; the first line carries a checksum, so that a damaged file is
//! told from a strange one. A new version is written beside the old one and renamed over it.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Kind;
use crate::{Error, disk};

const MARK: &str = "ackwell";
/// The ending of files being written; what is left of them after a crash is removed.
pub(crate) const UNFINISHED: &str = "tmp";

/// Writes `value` to `path`. When it returns, either version may be found after a power cut, but no mixture.
pub(crate) fn write(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let body = serde_json::to_string_pretty(value).map_err(|error| {
        Error::new(Kind::Corrupt, format!("encoding {}", path.display())).caused_by(error)
    })?;
    let text = format!("{MARK} {:08x}\n{body}\n", crc32c::crc32c(body.as_bytes()));
    let unfinished = path.with_added_extension(UNFINISHED);
    let writing = |error| Error::io(format_args!("writing {}", path.display()), error);
    let mut file = File::create(&unfinished).map_err(writing)?;
    file.write_all(text.as_bytes())
        .and_then(|()| disk::sync_file(&file, &unfinished))
        .map_err(writing)?;
    fs::rename(&unfinished, path).map_err(writing)
}

/// As [`write`], and the new version is on the disk when it returns.
pub(crate) fn write_durably(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    write(path, value)?;
    path.parent().map_or(Ok(()), sync_folder)
}

/// Reads what [`write`] wrote; `None` if there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(format_args!("reading {}", path.display()), error)),
    };
    let damaged = |what: &str| {
        Error::new(
            Kind::Corrupt,
            format!(
                "{} is damaged: {what}; restore it from a backup of the data folder",
                path.display()
            ),
        )
    };
    let text = String::from_utf8(text).map_err(|_| damaged("not text"))?;
    let (first, body) = text.split_once('\n').ok_or_else(|| damaged("cut short"))?;
    let body = body
        .strip_suffix('\n')
        .ok_or_else(|| damaged("cut short"))?;
    let crc = first
        .strip_prefix(MARK)
        .map(str::trim)
        .and_then(|crc| u32::from_str_radix(crc, 16).ok());
    if crc != Some(crc32c::crc32c(body.as_bytes())) {
        return Err(damaged("its checksum is wrong"));
    }
    serde_json::from_str(body)
        .map(Some)
        .map_err(|error| damaged("unexpected content").caused_by(error))
}

/// Makes created, renamed and removed names of a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<(), Error> {
    disk::sync_folder(folder)
        .map_err(|error| Error::io(format_args!("syncing folder {}", folder.display()), error))
}
