//! `ackwell broker` as a process: what it prints, and how it ends.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

struct Process {
    child: Child,
    address: String,
}

fn ackwell(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ackwell"));
    command
        .arg("broker")
        .args(arguments)
        .env("ACKWELL_DATA", folder)
        .env("RUST_LOG", "info");
    command
}

impl Process {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut child = ackwell(folder, arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("spawned");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        let address = line
            .trim()
            .strip_prefix("broker listening on ")
            .expect("the address")
            .to_owned();
        Self { child, address }
    }

    /// SIGTERM; gives the exit code and the log.
    fn terminate(mut self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &id]).status();
        assert!(sent.expect("kill runs").success());
        let code = self.child.wait().expect("ends").code();
        let mut log = String::new();
        let mut stderr = self.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut log).expect("text");
        (code, log)
    }
}

/// What one GET is answered.
fn get(address: &str, path: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("text");
    answer
}

fn fails(folder: &Path, arguments: &[&str]) -> String {
    let output = ackwell(folder, arguments).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8(output.stderr).expect("text");
    assert!(!message.contains("panicked"), "{message}");
    message
}

#[test]
fn it_prints_its_address_and_stops_cleanly_on_sigterm() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(folder.path(), &["--listen", "127.0.0.1:0"]);
    TcpStream::connect(&process.address).expect("listens");
    assert!(folder.path().join("broker").is_dir());
    let (code, log) = process.terminate();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("recovered"), "{log}");
    assert!(log.contains("broker stopped"), "{log}");
}

#[test]
fn its_metrics_and_its_health_are_served_where_the_flag_says() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0"];
    let mut child = ackwell(folder.path(), &flags)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("spawned");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut line = || lines.next().expect("a line").expect("text");
    let address = line();
    let address = address.strip_prefix("broker listening on ");
    let address = address.expect("the address").to_owned();
    let metrics = line();
    let metrics = metrics.strip_prefix("metrics on http://");
    let metrics = metrics.and_then(|rest| rest.strip_suffix("/metrics"));
    let metrics = metrics.expect("the address");

    let _connection = TcpStream::connect(&address).expect("listens");
    let text = get(metrics, "/metrics");
    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
    assert!(text.contains("ackwell_broker_connections"), "{text}");
    assert!(text.contains("# EOF"), "the whole of it: {text}");
    for path in ["/healthz", "/readyz"] {
        let answer = get(metrics, path);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(answer.contains("disk"), "{path}: {answer}");
    }
    assert!(get(metrics, "/nothing").starts_with("HTTP/1.1 404"));
    let (code, log) = Process { child, address }.terminate();
    assert_eq!(code, Some(0), "{log}");
}

#[test]
fn an_address_for_metrics_that_is_taken_is_one_clear_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let flags = ["--listen", "127.0.0.1:0", "--metrics", &address];
    let message = fails(folder.path(), &flags);
    assert!(message.contains(&address), "{message}");
}

#[test]
fn a_port_in_use_is_one_clear_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound").to_string();
    let message = fails(folder.path(), &["--listen", &address]);
    assert!(message.contains(&address), "{message}");
    assert!(
        message.contains("another process listens there"),
        "{message}"
    );
}

#[test]
fn a_folder_in_use_is_one_clear_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let process = Process::start(folder.path(), &["--listen", "127.0.0.1:0"]);
    let message = fails(folder.path(), &["--listen", "127.0.0.1:0"]);
    assert!(message.contains("in use"), "{message}");
    process.terminate();
}

#[test]
fn a_folder_that_cannot_be_made_is_one_clear_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("a file");
    std::fs::write(&file, "not a folder").expect("written");
    let message = fails(&file, &["--listen", "127.0.0.1:0"]);
    assert!(message.contains("a file"), "{message}");
}

#[test]
fn wrong_flags_say_what_is_right() {
    let folder = tempfile::tempdir().expect("a folder");
    for (flag, value, mend) in [
        ("--flush", "sometimes", "interval:MS"),
        ("--retention", "long", "7d"),
        ("--default-partitions", "0", "1.."),
        ("--cleaning-interval", "0", "1.."),
        ("--idle-max", "0", "1.."),
    ] {
        let output = ackwell(folder.path(), &[flag, value])
            .output()
            .expect("runs");
        assert_eq!(output.status.code(), Some(2));
        let message = String::from_utf8(output.stderr).expect("text");
        assert!(message.contains(mend), "{message}");
    }
}

#[test]
fn settings_come_from_a_file_and_flags_have_precedence() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("broker.toml");
    let text = "listen = \"127.0.0.1:1\"\nfolder = \"unused\"\n[limits]\nconnections_max = 1\n";
    std::fs::write(&file, text).expect("written");
    let path = file.to_str().expect("text");
    let process = Process::start(
        folder.path(),
        &["--config", path, "--listen", "127.0.0.1:0"],
    );
    assert!(folder.path().join("broker").is_dir());
    assert!(!folder.path().join("unused").exists());
    let _first = TcpStream::connect(&process.address).expect("listens");
    let mut second = TcpStream::connect(&process.address).expect("listens");
    let ended = second.read(&mut [0; 1]);
    assert!(matches!(ended, Ok(0) | Err(_)), "the file's limit holds");
    process.terminate();
}

#[test]
fn a_file_that_cannot_work_is_one_clear_message() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("broker.toml");
    let path = file.to_str().expect("text").to_owned();
    let message = fails(folder.path(), &["--config", &path]);
    assert!(message.contains("broker.toml"), "{message}");
    for (text, mend) in [
        ("\nlistne = 1", "line 2: unknown field `listne`"),
        (
            "[[listeners]]\nname = \"a\"\nlisten = \"127.0.0.1:0\"\nsasl = [\"PLAIN\"]",
            "there are no users",
        ),
        (
            "[[users]]\nname = \"a\"\npassword = \"s3cret\"",
            "does not stand in this file",
        ),
    ] {
        std::fs::write(&file, text).expect("written");
        let message = fails(folder.path(), &["--config", &path]);
        assert!(message.contains(mend), "{message}");
        assert!(!message.contains("s3cret"), "{message}");
    }
}

#[test]
fn the_example_of_a_file_is_what_the_broker_reads() {
    let folder = tempfile::tempdir().expect("a folder");
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/broker.toml");
    let text = std::fs::read_to_string(example).expect("the example");
    let file = folder.path().join("broker.toml");
    std::fs::write(&file, text).expect("written");
    std::fs::write(folder.path().join("orders.password"), "s3cret\n").expect("written");
    let output = ackwell(folder.path(), &["--config", file.to_str().expect("text")])
        .env("ACKWELL_ADMIN_PASSWORD", "s3cret")
        .output()
        .expect("runs");
    let message = String::from_utf8(output.stderr).expect("text");
    // Everything is understood; only the certificate is not there.
    assert!(message.contains("broker.pem"), "{message}");
}
