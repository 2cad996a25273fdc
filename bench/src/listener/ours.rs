//! Ackwell's side.

use super::{Meter, Way};
use crate::Outcome;
use crate::target::Broker;

pub(super) fn run(
    _broker: &Broker,
    _group: &str,
    _topic: &str,
    _way: Way,
    _meter: &Meter,
) -> Outcome<()> {
    Err("this side is not there yet".into())
}
