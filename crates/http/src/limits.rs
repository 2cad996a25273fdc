use std::time::Duration;

/// What one server takes on at once, and how long it waits for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's body; larger ones are answered with 413. Default 1 MiB.
    pub body_bytes: usize,
    /// How long a client may take to send a request's head, and how long a connection may idle
    /// between two requests. Default 10 s: a client that sends a byte a minute holds nothing.
    pub header_wait: Duration,
    /// How long a request may take, its body included; then it is answered with 503 and its
    /// handler dropped. Default 30 s.
    pub request_wait: Duration,
    /// Requests handled at once; more are answered with 503 and `Retry-After`. Default 1,024.
    pub requests: usize,
    /// Connections held at once; more wait in the system's queue. Default 4,096.
    pub connections: usize,
    /// How long requests in work may take to finish at a stop. Default 10 s.
    pub stop_wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 1 << 20,
            header_wait: Duration::from_secs(10),
            request_wait: Duration::from_secs(30),
            requests: 1_024,
            connections: 4_096,
            stop_wait: Duration::from_secs(10),
        }
    }
}
