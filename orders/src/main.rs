//! The order system: Ackwell's proof.

fn main() {}
