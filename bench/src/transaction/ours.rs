//! Ackwell's side.

use std::path::Path;

use crate::Outcome;
use crate::listener::Meter;
use crate::target::Broker;

pub(super) fn run(
    _broker: &Broker,
    _group: &str,
    _topic: &str,
    _database: &Path,
    _meter: &Meter,
) -> Outcome<()> {
    Err("this side is not there yet".into())
}
