//! The programs under test as children, and what the kernel knows of a process.
//!
//! The broker runs as a process of its own, so that its CPU time is not taken for the client's,
//! and so that what is started, measured and killed is the program that users start.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::Outcome;

/// How long a child may take until it says where it listens.
const READY_MAX: Duration = Duration::from_secs(30);
/// How long a child may take to stop after SIGTERM before it is killed.
const STOP_MAX: Duration = Duration::from_secs(30);

/// A program of this workspace, running. Killed when dropped.
pub(crate) struct Child {
    process: std::process::Child,
    addresses: Vec<SocketAddr>,
}

impl Child {
    /// Starts a program and waits until its output has named `addresses` addresses.
    pub(crate) fn start<A: AsRef<OsStr>>(
        program: &Path,
        arguments: &[A],
        environment: &[(&str, String)],
        addresses: usize,
    ) -> Outcome<Self> {
        let mut process = quiet(program)
            .args(arguments)
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = process.stdout.take().ok_or("standard output is a pipe")?;
        let (told, heard) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                for address in line_addresses(&line) {
                    // Reading goes on without a listener: the child must not block on a full pipe.
                    let _ = told.send(address);
                }
            }
        });
        let mut child = Self {
            process,
            addresses: Vec::new(),
        };
        let until = Instant::now() + READY_MAX;
        while child.addresses.len() < addresses {
            match heard.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(address) => child.addresses.push(address),
                Err(_) => {
                    return Err(
                        format!("{} did not say where it listens", program.display()).into(),
                    );
                }
            }
        }
        Ok(child)
    }

    /// The addresses it named, in its order.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Asks it to stop and waits for its end.
    pub(crate) fn stop(mut self) -> Outcome<()> {
        Command::new("kill")
            .args(["-TERM", &self.id().to_string()])
            .status()?;
        let until = Instant::now() + STOP_MAX;
        while self.process.try_wait()?.is_none() {
            if Instant::now() > until {
                return Err(format!(
                    "process {} did not stop within {STOP_MAX:?} of SIGTERM",
                    self.id()
                )
                .into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// The program with only its warnings, unless `RUST_LOG` asks for more: logging is not measured.
fn quiet(program: &Path) -> Command {
    let mut command = Command::new(program);
    if std::env::var_os("RUST_LOG").is_none() {
        command.env("RUST_LOG", "warn");
    }
    command
}

impl Drop for Child {
    fn drop(&mut self) {
        // It may have ended by itself; there is nobody left to tell.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Addresses with a port in a line, with or without something like `http://` before them.
fn line_addresses(line: &str) -> impl Iterator<Item = SocketAddr> {
    line.split(|sign: char| sign.is_whitespace() || "/=\",()".contains(sign))
        .filter_map(|word| word.parse().ok())
}

/// The release build of one of the workspace's programs, built now if it is not up to date.
pub(crate) fn program(name: &str) -> Outcome<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(name);
    if let Some(cargo) = std::env::var_os("CARGO") {
        let profile: &[&str] = if cfg!(debug_assertions) {
            &[]
        } else {
            &["--release"]
        };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let built = Command::new(cargo)
            .args(["build", "--bin", name])
            .args(profile)
            .current_dir(root)
            .status()?;
        if !built.success() {
            return Err(format!("building {name} failed").into());
        }
    }
    if !beside.exists() {
        return Err(format!(
            "{} is missing; build it with `cargo build --release`",
            beside.display()
        )
        .into());
    }
    Ok(beside)
}

/// A folder for data under test, on the disk that holds the build: `/tmp` may be in memory, where
/// fsync costs nothing.
pub(crate) fn work_folder() -> Outcome<tempfile::TempDir> {
    let root = std::env::current_exe()?.with_file_name("bench-data");
    std::fs::create_dir_all(&root)?;
    Ok(tempfile::tempdir_in(root)?)
}

/// CPU time that a process has used, all its threads, in steps of 10 ms.
pub(crate) fn cpu(pid: u32) -> Outcome<Duration> {
    Ok(stat(pid)?.own)
}

/// The same of a server with a process for each connection, all of them and those that have ended.
pub(crate) fn cpu_with_children(pid: u32) -> Outcome<Duration> {
    let server = stat(pid)?;
    let mut used = server.own + server.ended_children;
    for entry in std::fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(Ok(child)) = name.to_str().map(str::parse) else {
            continue;
        };
        // One that ends meanwhile is missed here once, and told by the server next time.
        used += stat(child)
            .ok()
            .filter(|child| child.parent == pid)
            .map_or(Duration::ZERO, |child| child.own);
    }
    Ok(used)
}

/// What `/proc/pid/stat` tells.
struct Stat {
    parent: u32,
    own: Duration,
    ended_children: Duration,
}

fn stat(pid: u32) -> Outcome<Stat> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat
        .rsplit_once(')')
        .ok_or("/proc/pid/stat names the program in brackets")?
        .1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let field = |number: usize| {
        let found = fields.get(number - 3);
        found.ok_or("/proc/pid/stat has fields up to 52")
    };
    // User and system time; Linux tells them in hundredths of a second.
    let time = |user: usize| -> Outcome<Duration> {
        let ticks = field(user)?.parse::<u64>()? + field(user + 1)?.parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 10))
    };
    Ok(Stat {
        parent: field(4)?.parse()?,
        own: time(14)?,
        ended_children: time(16)?,
    })
}

/// Memory of a process that is in RAM, in MiB.
pub(crate) fn resident_mib(pid: u32) -> Outcome<f64> {
    status_mib(pid, "VmRSS:")
}

/// The most that [`resident_mib`] has been since the process began.
pub(crate) fn resident_peak_mib(pid: u32) -> Outcome<f64> {
    status_mib(pid, "VmHWM:")
}

fn status_mib(pid: u32, field: &str) -> Outcome<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(field))
        .ok_or("the process has ended")?;
    let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// Runs a program to its end and returns what it printed.
pub(crate) fn output<A: AsRef<OsStr>>(
    program: &Path,
    arguments: &[A],
    environment: &[(&str, String)],
) -> Outcome<(bool, String)> {
    let mut process = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut text = String::new();
    process
        .stdout
        .take()
        .ok_or("standard output is a pipe")?
        .read_to_string(&mut text)?;
    Ok((process.wait()?.success(), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_found_in_a_sentence_an_assignment_and_a_url() {
        let found = |line| {
            line_addresses(line)
                .map(|address| address.port())
                .collect::<Vec<_>>()
        };
        assert_eq!(found("listening on 127.0.0.1:9092"), [9092]);
        assert_eq!(found("bootstrap.servers=127.0.0.1:41 folder=/x"), [41]);
        assert_eq!(
            found("order  http://127.0.0.1:8080/  product http://127.0.0.1:8081"),
            [8080, 8081]
        );
        assert_eq!(found("127.0.0.1 has no port"), Vec::<u16>::new());
    }

    #[test]
    fn this_process_has_memory_and_cpu_time() {
        assert!(resident_mib(std::process::id()).unwrap() > 0.5);
        assert!(resident_peak_mib(std::process::id()).unwrap() > 0.5);
        cpu(std::process::id()).unwrap();
    }
}
