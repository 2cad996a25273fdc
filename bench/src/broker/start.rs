//! From the start of the process to its first answer, and what it needs when nothing happens.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::Arguments;
use crate::process::{program, resident_mib, work_folder};
use crate::report::{Goal, Report, quantile, sorted};
use crate::target::{self, Broker};
use crate::{Outcome, client};

const FIRST_METADATA: Goal = Goal::AtMost(20.0);
const IDLE_MEMORY: Goal = Goal::AtMost(25.0);
/// Until a started broker counts as idle.
const SETTLE: Duration = Duration::from_secs(3);

/// Metadata version 4 for all topics, as any client sends it: size, API key, version, correlation
/// id, client id, no list of topics, no creation of topics.
const METADATA: &[u8] = b"\0\0\0\x14\0\x03\0\x04\0\0\0\x07\0\x05bench\xff\xff\xff\xff\0";

pub(super) fn measure(arguments: &Arguments, report: &mut Report) -> Outcome<()> {
    let (program, data) = (program("ackwell")?, work_folder()?);
    let mut taken = Vec::new();
    // The first start creates the folder and brings the program into the page cache.
    for turn in 0..=arguments.starts {
        let started = Instant::now();
        let broker = target::start(&program, data.path(), &[])?;
        first_answer(&broker)?;
        if turn > 0 {
            taken.push(started.elapsed().as_secs_f64() * 1000.0);
        }
        broker.stop()?;
    }
    let taken = sorted(taken);
    report.figure(
        "start to first metadata, median",
        quantile(&taken, 0.5),
        "ms",
        Some(FIRST_METADATA),
    );
    report.figure(
        "start to first metadata, slowest",
        quantile(&taken, 1.0),
        "ms",
        None,
    );

    let broker = target::start(&program, data.path(), &[])?;
    first_answer(&broker)?;
    std::thread::sleep(SETTLE);
    report.figure(
        "memory when idle",
        resident_mib(broker.process().ok_or("the broker is ours")?)?,
        "MiB",
        Some(IDLE_MEMORY),
    );
    broker.stop()
}

fn first_answer(broker: &Broker) -> Outcome<()> {
    let mut connection = TcpStream::connect(broker.address())?;
    connection.set_read_timeout(Some(client::WAIT_MAX))?;
    connection.write_all(METADATA)?;
    let mut head = [0; 8];
    connection.read_exact(&mut head)?;
    if head[4..] != [0, 0, 0, 7] {
        return Err("the broker answered something else than the metadata request".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_request_names_its_own_size() {
        assert_eq!(super::METADATA.len(), 4 + usize::from(super::METADATA[3]));
    }
}
