//! The data folder: who has it open, and which version of the broker wrote it.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::sealed;
use crate::Error;
use crate::error::Kind;

/// The format that this program writes. One that reads older ones raises it and converts in [`Folder::open`].
const FORMAT: u32 = 1;
const FORMAT_FILE: &str = "format";
const LOCK_FILE: &str = "lock";
const TOPICS: &str = "topics";

/// A data folder that this process has to itself while the value lives.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    pub(super) cluster_id: String,
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Format {
    format: u32,
    #[serde(default)]
    cluster_id: String,
}

impl Folder {
    /// Locks the folder, creating what is missing, and checks its format.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        fs::create_dir_all(path).map_err(|error| {
            Error::io(
                format_args!("creating data folder {}", path.display()),
                error,
            )
        })?;
        let lock = lock(path)?;
        let format = match sealed::read::<Format>(&path.join(FORMAT_FILE))? {
            Some(format) => format,
            None => begin(path)?,
        };
        if format.format > FORMAT {
            let (found, path) = (format.format, path.display());
            return Err(Error::new(
                Kind::Corrupt,
                format!(
                    "data folder {path} has format {found} of a newer program; this one knows {FORMAT}: use the newer program or another folder"
                ),
            ));
        }
        Ok(Self {
            path: path.to_owned(),
            cluster_id: format.cluster_id,
            _lock: lock,
        })
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The folder of all topics.
    pub(super) fn topics(&self) -> PathBuf {
        self.path.join(TOPICS)
    }

    /// The folder of one topic.
    pub(super) fn topic(&self, id: Uuid) -> PathBuf {
        self.topics().join(id.to_string())
    }
}

fn lock(path: &Path) -> Result<File, Error> {
    let path = path.to_owned();
    let locking = |error| {
        Error::io(
            format_args!("locking data folder {}", path.display()),
            error,
        )
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path.join(LOCK_FILE))
        .map_err(locking)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::new(
            Kind::FolderInUse,
            format!(
                "data folder {} is in use by another process",
                path.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(locking(error)),
    }
}

/// Makes a new data folder.
fn begin(path: &Path) -> Result<Format, Error> {
    let topics = path.join(TOPICS);
    if topics.exists() {
        return Err(Error::new(
            Kind::Corrupt,
            format!(
                "data folder {} has topics but no file \"{FORMAT_FILE}\": restore it, or use another folder",
                path.display()
            ),
        ));
    }
    let format = Format {
        format: FORMAT,
        cluster_id: cluster_id(Uuid::new_v4()),
    };
    sealed::write_durably(&path.join(FORMAT_FILE), &format)?;
    fs::create_dir(&topics)
        .map_err(|error| Error::io(format_args!("creating {}", topics.display()), error))?;
    sealed::sync_folder(path)?;
    Ok(format)
}

/// 22 characters of URL-safe base64, as Kafka writes UUIDs.
fn cluster_id(id: Uuid) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let bits = id.as_u128();
    // 128 bits are 21 digits of six bits and one of two, which stands for its upper two.
    let digits = (0..21)
        .map(|at| (bits >> (122 - 6 * at)) as usize & 63)
        .chain([(bits as usize & 3) << 4]);
    digits.map(|digit| char::from(ALPHABET[digit])).collect()
}
