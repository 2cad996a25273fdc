//! Requests of every kind and version, along their outlines and beside them, at a broker that runs.
//!
//! Whatever arrives: nothing panics, nothing hangs, and no request takes much more memory than its
//! bytes. The broker is in a process of its own (this test binary again), so that a panic in any
//! of its threads, an allocation that fails and memory are all that input's.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BufMut;
use tokio::runtime;

use super::outline::{Field, Part};
use super::{Api, TABLE};
use crate::fuzz::{Random, corpus, inputs, mutate};
use crate::log::batches_of_all_kinds;
use crate::{Broker, Config, Flush, Listener, Mechanism, User};

/// As long may the broker take to answer ApiVersions, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an answer is waited for; a fetch or a join may rightly take longer, and is left alone.
const ANSWER: Duration = Duration::from_millis(40);
/// What one small request may allocate in all, over its whole life: responses that name every
/// topic, plans for new partitions.
const ALLOCATED_MAX: usize = 64 * 1024 * 1024;
/// What the broker may hold more at the end than at the beginning: topics and groups that were made.
const KEPT_MAX: usize = 256 * 1024 * 1024;

static PANICS: AtomicUsize = AtomicUsize::new(0);

#[test]
fn no_request_makes_the_broker_panic_hang_or_take_much_memory() {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "api::fuzz::broker", "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{err}");
    println!("{out}");
}

/// Not a test of its own: what runs in the process.
#[test]
#[ignore = "run by the test that watches it"]
fn broker() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        report(panic);
    }));
    let mut target = Target::start();
    let held = crate::ALLOCATOR.stats();
    for (name, frame) in corpus("requests") {
        println!("{name}");
        target.send(&frame);
    }
    let mut largest = (0, String::new());
    inputs(|random| {
        // A few in a row, since what one leaves behind is what the next one meets.
        for _ in 0..8 {
            let (name, frame) = target.request(random);
            let allocated = target.send(&frame);
            assert!(
                allocated < ALLOCATED_MAX,
                "{name} took {allocated} bytes: {frame:?}"
            );
            if allocated > largest.0 {
                largest = (allocated, name);
            }
        }
        target.check();
    });
    println!("most memory: {} bytes by {}", largest.0, largest.1);
    let now = crate::ALLOCATOR.stats();
    let live = |stats: stats_alloc::Stats| {
        stats
            .bytes_allocated
            .saturating_sub(stats.bytes_deallocated)
    };
    let kept = live(now).saturating_sub(live(held));
    println!("kept: {kept} bytes");
    assert!(kept < KEPT_MAX, "{kept} bytes more than at the start");
    target.stop();
    assert_eq!(PANICS.load(Ordering::SeqCst), 0, "see above for where");
}

/// A broker on one thread, so that a request which does not end holds up all others, and is seen.
struct Target {
    broker: Broker,
    runtime: runtime::Runtime,
    connection: TcpStream,
    login: bool,
    honest: TcpStream,
    /// What responses named: members' ids, for instance. Later requests use them.
    names: Vec<Vec<u8>>,
    _folder: tempfile::TempDir,
}

impl Target {
    fn start() -> Self {
        let folder = crate::log::memory_folder();
        let mut config = Config::new(folder.path());
        config.flush = Flush::Never;
        config.auto_create_topics = true;
        config.groups.session_timeout_min = Duration::from_millis(1);
        config.groups.initial_rebalance_delay = Duration::from_millis(1);
        let plain = Listener::new("PLAIN", "127.0.0.1:0");
        let mut login = Listener::new("LOGIN", "127.0.0.1:0");
        login.sasl = vec![
            Mechanism::Plain,
            Mechanism::ScramSha256,
            Mechanism::ScramSha512,
        ];
        config.listeners = vec![plain, login];
        config.users = vec![User::new("alice", "secret")];
        let runtime = runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let broker = runtime.block_on(Broker::start(config)).unwrap();
        let address = broker.local_addr();
        Self {
            broker,
            runtime,
            connection: connect(address, ANSWER),
            login: false,
            honest: connect(address, PATIENCE),
            names: Vec::new(),
            _folder: folder,
        }
    }

    /// Sends a frame and reads what comes soon; gives what was allocated meanwhile.
    fn send(&mut self, frame: &[u8]) -> usize {
        let before = crate::ALLOCATOR.stats().bytes_allocated;
        let length = i32::try_from(frame.len()).unwrap().to_be_bytes();
        let sent = self.connection.write_all(&[&length, frame].concat());
        match sent.and_then(|()| read_frame(&mut self.connection)) {
            Ok(response) => self.learn(&response),
            // It was refused, or waits: the next one comes over a new connection.
            Err(_) => self.reconnect(),
        }
        crate::ALLOCATOR
            .stats()
            .bytes_allocated
            .saturating_sub(before)
    }

    fn reconnect(&mut self) {
        let addresses: Vec<_> = self
            .broker
            .addresses()
            .map(|(_, address)| address)
            .collect();
        self.login = self.names.len() % 4 == 3 && !self.login;
        self.connection = connect(addresses[usize::from(self.login)], ANSWER);
    }

    /// Others are served all the time.
    fn check(&mut self) {
        let asked = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 77, 0xff, 0xff];
        let begun = Instant::now();
        let answered = self
            .honest
            .write_all(&asked)
            .and_then(|()| read_frame(&mut self.honest));
        let answer = answered
            .unwrap_or_else(|error| panic!("no answer after {:?}: {error}", begun.elapsed()));
        assert_eq!(answer[..6], [0, 0, 0, 77, 0, 0]);
        assert_eq!(
            PANICS.load(Ordering::SeqCst),
            0,
            "a panic, see above for where"
        );
    }

    fn stop(self) {
        let stopping = async { tokio::time::timeout(PATIENCE, self.broker.shutdown()).await };
        let stopped = self.runtime.block_on(stopping);
        stopped.expect("in time").expect("stops");
    }

    /// Keeps what looks like an id that the broker made up.
    fn learn(&mut self, response: &[u8]) {
        for run in response.split(|byte| !byte.is_ascii_graphic()) {
            if run.len() > 24
                && run.len() < 80
                && run.contains(&b'-')
                && !self.names.iter().any(|name| name == run)
            {
                if self.names.len() >= 16 {
                    self.names.remove(0);
                }
                self.names.push(run.to_vec());
            }
        }
    }

    /// A request as its outline says, or nearly, or not at all; and what it is.
    fn request(&self, random: &mut Random) -> (String, Vec<u8>) {
        let api = random.pick(TABLE);
        let version = match random.below(20) {
            0 => random.number() as i16,
            _ => {
                let (first, last) = (*api.versions.start(), *api.versions.end());
                first + random.below((last - first + 1) as usize) as i16
            }
        };
        let mut frame = Writer {
            random,
            api,
            version,
            names: &self.names,
            out: Vec::new(),
        }
        .frame();
        if random.one_in(3) {
            mutate(random, &mut frame);
        }
        (format!("{} v{version}", api.name()), frame)
    }
}

/// Tries again for a while: so many connections come and go that the system may run out of ports for a moment.
fn connect(address: SocketAddr, timeout: Duration) -> TcpStream {
    let begun = Instant::now();
    let socket = loop {
        match TcpStream::connect(address) {
            Ok(socket) => break socket,
            Err(error) if begun.elapsed() > PATIENCE => panic!("connecting: {error}"),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    };
    socket.set_read_timeout(Some(timeout)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

fn read_frame(socket: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    socket.read_exact(&mut length)?;
    let length = usize::try_from(i32::from_be_bytes(length)).map_err(|_| ErrorKind::InvalidData)?;
    let mut frame = vec![0; length];
    socket.read_exact(&mut frame)?;
    Ok(frame)
}

/// Writes a request field by field.
struct Writer<'a> {
    random: &'a mut Random,
    api: &'a Api,
    version: i16,
    names: &'a [Vec<u8>],
    out: Vec<u8>,
}

impl Writer<'_> {
    fn frame(mut self) -> Vec<u8> {
        let header = self.api.key.request_header_version(self.version);
        self.out.put_i16(self.api.key as i16);
        self.out.put_i16(self.version);
        self.out.put_i32(7);
        self.out.put_i16(4);
        self.out.put_slice(b"fuzz");
        let flexible = header >= 2;
        if flexible {
            self.out.put_u8(0);
        }
        self.record(self.api.outline, flexible);
        self.out
    }

    fn record(&mut self, parts: &[Part], flexible: bool) {
        for part in parts {
            self.part(part, flexible);
        }
        match self.random.below(30) {
            _ if !flexible => {}
            0 => self.out.put_slice(&[1, 9, 2, 0xab, 0xcd]),
            _ => self.out.put_u8(0),
        }
    }

    fn part(&mut self, part: &Part, flexible: bool) {
        if self.version < part.since || self.version > part.until {
            return;
        }
        match part.field {
            Field::Fixed(size) => self.fixed(size),
            Field::Text => {
                let text = self.text();
                self.counted(text.as_deref(), 2, flexible);
            }
            Field::Bytes => {
                let bytes = self.bytes();
                self.counted(bytes.as_deref(), 4, flexible);
            }
            Field::Structs(parts) => {
                for _ in 0..self.count(flexible) {
                    self.record(parts, flexible);
                }
            }
            Field::Nullable(parts) => match self.random.below(4) {
                0 => self.out.put_u8(0xff),
                1 => self.fixed(1),
                _ => {
                    self.out.put_u8(1);
                    self.record(parts, flexible);
                }
            },
            Field::Plain(element) => {
                for _ in 0..self.count(flexible) {
                    self.part(element, flexible);
                }
            }
        }
    }

    /// Neighbours of fixed size are one part: it is filled as if they had four bytes each, mostly.
    fn fixed(&mut self, size: usize) {
        let mut left = size;
        while left > 0 {
            let width = match (left, self.random.below(4)) {
                (8.., 0) => 8,
                (4.., 0..3) => 4,
                (2.., 0..3) => 2,
                _ => 1,
            };
            let small = self.random.below(8) as i64 - 1;
            let value = if self.random.one_in(3) {
                self.random.number()
            } else {
                small
            };
            self.out.put_slice(&value.to_be_bytes()[8 - width..]);
            left -= width;
        }
    }

    fn count(&mut self, flexible: bool) -> usize {
        let count = match self.random.below(40) {
            0 => None,
            1 => Some(0),
            2 => Some(20),
            _ => Some(1 + self.random.below(3)),
        };
        match (flexible, count) {
            (true, count) => self.varint(count.map_or(0, |count| count + 1)),
            (false, count) => self.out.put_i32(count.map_or(-1, |count| count as i32)),
        }
        count.unwrap_or(0)
    }

    fn counted(&mut self, bytes: Option<&[u8]>, width: usize, flexible: bool) {
        let length = bytes.map(<[u8]>::len);
        match (flexible, width) {
            (true, _) => self.varint(length.map_or(0, |length| length + 1)),
            (_, 2) => self.out.put_i16(length.map_or(-1, |length| length as i16)),
            _ => self.out.put_i32(length.map_or(-1, |length| length as i32)),
        }
        self.out.put_slice(bytes.unwrap_or_default());
    }

    fn varint(&mut self, mut value: usize) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    fn text(&mut self) -> Option<Vec<u8>> {
        const WORDS: [&str; 28] = [
            "a",
            "b",
            "a",
            "b",
            "g",
            "h",
            "t",
            "",
            "range",
            "uniform",
            "consumer",
            "__consumer_offsets",
            "__transaction_state",
            "cleanup.policy",
            "compact",
            "retention.ms",
            "-1",
            "1",
            "0",
            "segment.bytes",
            "9223372036854775807",
            "PLAIN",
            "SCRAM-SHA-256",
            "Stable",
            "a*(b|c)+",
            "..",
            "nul\0l",
            "ü",
        ];
        match self.random.below(12) {
            0 => None,
            1 => Some(self.random.bytes(5)),
            2 => {
                let length = self.random.below(400);
                Some(vec![b'x'; length])
            }
            3 | 4 if !self.names.is_empty() => Some(self.random.pick(self.names).clone()),
            _ => Some(self.random.pick(&WORDS).as_bytes().to_vec()),
        }
    }

    fn bytes(&mut self) -> Option<Vec<u8>> {
        const SUBSCRIPTION: &[u8] = b"\0\x01\0\0\0\x02\0\x01a\0\x01b\xff\xff\xff\xff\0\0\0\0";
        const LOGIN: &[u8] = b"\0alice\0secret";
        const SCRAM: &[u8] = b"n,,n=alice,r=fyko+d2lbbFgONRv9qkxdawL";
        let mut bytes = match self.random.below(8) {
            0 => return None,
            1 => SUBSCRIPTION.to_vec(),
            2 => LOGIN.to_vec(),
            3 => SCRAM.to_vec(),
            4 => self.random.bytes(20),
            _ => batches_of_all_kinds(self.random),
        };
        if self.random.one_in(4) {
            mutate(self.random, &mut bytes);
        }
        Some(bytes)
    }
}
