//! The records of a log that the broker keeps for itself, one by one.
//!
//! They are read at a start, from bytes whose checksum is right and which nothing else is known of: no memory is taken by
//! what a batch says of itself, only by what it has.

use bytes::Bytes;

use super::batch::Header;
use super::cleaner::{Unpacked, Unreadable};
use super::control::ProducerEpoch;

/// A record of the broker's own.
#[derive(Debug, Clone)]
pub(crate) struct OwnRecord {
    pub(crate) offset: i64,
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
    /// Whose transaction it is of, or ends.
    pub(crate) producer: Option<ProducerEpoch>,
    /// It ends a transaction.
    pub(crate) is_control: bool,
}

/// Gives all records of whole batches, in order.
///
/// # Errors
/// The records of a batch are not what its header says.
pub(crate) fn each_record(
    mut batches: &[u8],
    mut take: impl FnMut(OwnRecord),
) -> Result<(), Unreadable> {
    let mut unpacked = Unpacked::default();
    while !batches.is_empty() {
        let header = Header::stored(batches).ok_or(Unreadable)?;
        let size = header.size().ok_or(Unreadable)?;
        let (batch, behind) = batches.split_at_checked(size).ok_or(Unreadable)?;
        for record in unpacked.open(&header, batch)? {
            take(OwnRecord {
                offset: record.offset,
                key: record.key.map(Bytes::copy_from_slice).unwrap_or_default(),
                value: record.value.map(Bytes::copy_from_slice),
                producer: header.is_transactional().then(|| header.producer()),
                is_control: header.is_control(),
            });
        }
        batches = behind;
    }
    Ok(())
}
