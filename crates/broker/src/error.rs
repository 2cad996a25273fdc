//! What can go wrong in the broker, in one type.
//!
//! An error is met by two readers: the person who starts the broker (a port in use, a folder in
//! use, a full disk) and the Kafka client whose request failed. So it has a text that says what was
//! being done to what, predicates for programs, and a Kafka error code for the wire.

use std::error::Error as StdError;
use std::fmt::{self, Display};
use std::io;

use kafka_protocol::error::ResponseError;

/// Why the broker could not start, or could not carry out a request.
///
/// The text says what was being done, to what, and where it helps, the mend. The cause is in
/// [`source`](StdError::source) and not repeated in the text.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What sort of error it is; decides the predicates and the code on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A setting that cannot work.
    Config,
    /// The listen address belongs to another process.
    AddressInUse,
    /// The data folder is locked by another broker.
    FolderInUse,
    /// The operating system refused: full disk, missing right, broken device.
    Io,
    /// Stored bytes are not what was written, or of a format this version does not know.
    Corrupt,
    /// The broker is stopping.
    Closed,
    /// A refusal with a Kafka error code, for the client that asked.
    Refused(ResponseError),
}

impl Error {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// An operating system error while `doing` something, for instance `writing /data/x.log`.
    pub(crate) fn io(doing: impl Display, source: io::Error) -> Self {
        Self::new(Kind::Io, doing.to_string()).caused_by(source)
    }

    /// A refusal that the client sees as `code` with this message.
    pub(crate) fn refused(code: ResponseError, message: impl Into<String>) -> Self {
        Self::new(Kind::Refused(code), message)
    }

    pub(crate) fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The code a Kafka client gets for this error.
    pub(crate) fn code(&self) -> ResponseError {
        match self.kind {
            Kind::Refused(code) => code,
            Kind::Config => ResponseError::InvalidConfig,
            Kind::Io | Kind::Corrupt => ResponseError::KafkaStorageError,
            Kind::Closed => ResponseError::NotLeaderOrFollower,
            Kind::AddressInUse | Kind::FolderInUse => ResponseError::UnknownServerError,
        }
    }

    /// Whether a setting is wrong; repeating it without changing the setting fails again.
    pub fn is_config(&self) -> bool {
        self.kind == Kind::Config
    }

    /// Whether the listen address is used by another process.
    pub fn is_address_in_use(&self) -> bool {
        self.kind == Kind::AddressInUse
    }

    /// Whether the data folder is used by another broker.
    pub fn is_folder_in_use(&self) -> bool {
        self.kind == Kind::FolderInUse
    }

    /// Whether the operating system refused (full disk, missing right); can succeed later.
    pub fn is_io(&self) -> bool {
        self.kind == Kind::Io
    }

    /// Whether stored data is damaged beyond what recovery mends, or of an unknown format.
    pub fn is_corrupt(&self) -> bool {
        self.kind == Kind::Corrupt
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &self.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}
