//! Load drivers, and the peers' side of every comparison.

fn main() {}
