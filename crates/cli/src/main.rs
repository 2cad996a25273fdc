//! The command line: ackwell.

fn main() {}
