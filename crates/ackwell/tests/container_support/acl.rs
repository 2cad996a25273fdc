//! Apache Kafka that demands rights (`scripts/kafka.sh start --acl`), and rights that come and go.

use std::io::{Read, Write};
use std::net::TcpStream;

use ackwell::Config;

use super::raw::text;

/// On what a right is granted.
#[derive(Clone, Copy)]
pub enum On<'a> {
    Topic(&'a str),
    Group(&'a str),
}

/// What is granted.
#[derive(Clone, Copy)]
pub enum Right {
    Read = 3,
    Write = 4,
    Create = 5,
    Describe = 8,
}

/// Where the user `service` has the rights that a test grants.
pub struct Guarded {
    servers: String,
}

impl Guarded {
    pub fn named() -> Guarded {
        let servers = std::env::var("KAFKA_ACL_BOOTSTRAP_SERVERS");
        Guarded {
            servers: servers
                .expect("KAFKA_ACL_BOOTSTRAP_SERVERS, from scripts/kafka.sh start --acl"),
        }
    }

    pub fn servers(&self) -> &str {
        &self.servers
    }

    /// The settings of `admin`, who may do everything, or of `service`.
    pub fn login(user: &str) -> [(String, String); 4] {
        let settings = [
            ("security.protocol", "sasl_plaintext".to_owned()),
            ("sasl.mechanism", "PLAIN".to_owned()),
            ("sasl.username", user.to_owned()),
            ("sasl.password", format!("{user}-secret")),
        ];
        settings.map(|(name, value)| (name.to_owned(), value))
    }

    pub fn config(&self, user: &str) -> Config {
        let mut config = Config::with_bootstrap_servers(self.servers.clone());
        config.kafka.extra.extend(Self::login(user));
        config
    }

    pub fn grant(&self, on: On<'_>, right: Right) {
        // CreateAcls, version 1.
        let mut bytes = binding(on, right);
        bytes.splice(0..0, 1_i32.to_be_bytes());
        let answer = self.ask((30, 1), &bytes);
        // Throttle time, the number of results, the error of the first.
        assert_eq!(answer[8..10], [0, 0], "the right is granted");
    }

    pub fn revoke(&self, on: On<'_>, right: Right) {
        // DeleteAcls, version 1.
        let mut bytes = binding(on, right);
        bytes.splice(0..0, 1_i32.to_be_bytes());
        let answer = self.ask((31, 1), &bytes);
        assert_eq!(answer[8..10], [0, 0], "the right is taken away");
    }

    /// Takes this right away from `service` on all topics.
    pub fn revoke_everywhere(&self, right: Right) {
        let mut bytes = 1_i32.to_be_bytes().to_vec();
        // Topics, of any name and pattern.
        bytes.push(2);
        bytes.extend((-1_i16).to_be_bytes());
        bytes.push(1);
        text(&mut bytes, "User:service");
        bytes.extend((-1_i16).to_be_bytes());
        bytes.extend([right as u8, 3]);
        let answer = self.ask((31, 1), &bytes);
        assert_eq!(answer[8..10], [0, 0], "the right is taken away");
    }

    /// Asks as `admin`.
    fn ask(&self, api: (i16, i16), body: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(&self.servers).expect("a connection");
        let mut mechanism = Vec::new();
        text(&mut mechanism, "PLAIN");
        exchange(&mut stream, (17, 1), &mechanism);
        let token = b"\0admin\0admin-secret";
        let mut login = 19_i32.to_be_bytes().to_vec();
        login.extend(token);
        exchange(&mut stream, (36, 0), &login);
        exchange(&mut stream, api, body)
    }
}

/// A binding, which is also a filter.
fn binding(on: On<'_>, right: Right) -> Vec<u8> {
    let (kind, name) = match on {
        On::Topic(name) => (2, name),
        On::Group(name) => (3, name),
    };
    let mut bytes = vec![kind];
    text(&mut bytes, name);
    // Literally this name.
    bytes.push(3);
    text(&mut bytes, "User:service");
    text(&mut bytes, "*");
    bytes.push(right as u8);
    // Allowed.
    bytes.push(3);
    bytes
}

/// Sends a request and returns its answer without the correlation id.
fn exchange(stream: &mut TcpStream, (key, version): (i16, i16), body: &[u8]) -> Vec<u8> {
    let mut request = Vec::new();
    request.extend(key.to_be_bytes());
    request.extend(version.to_be_bytes());
    request.extend(7_i32.to_be_bytes());
    text(&mut request, "acl");
    request.extend(body);
    let size = u32::try_from(request.len()).expect("a size").to_be_bytes();
    stream.write_all(&size).expect("the size is sent");
    stream.write_all(&request).expect("the request is sent");
    let mut size = [0; 4];
    stream.read_exact(&mut size).expect("an answer");
    let mut answer = vec![0; u32::from_be_bytes(size) as usize];
    stream.read_exact(&mut answer).expect("the whole answer");
    answer.split_off(4)
}
