//! The order system: Ackwell's proof.

use std::process::ExitCode;

fn main() -> ExitCode {
    ackwell_orders::main()
}
