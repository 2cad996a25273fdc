//! What comes over a socket may be anything. The worst that happens is that its own connection is
//! closed.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it did"
)]

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::Duration;

use ackwell_broker::{Broker, Config, User};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse, FetchRequest, FetchResponse, MetadataRequest,
    MetadataResponse, ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use prometheus_client::registry::Registry;
use proptest::prelude::*;
use tempfile::TempDir;
use tokio::runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(20);

/// A broker on a runtime of its own, so that tests can speak to it with blocking sockets.
struct Node {
    broker: Option<Broker>,
    runtime: Runtime,
    _folder: TempDir,
}

impl Node {
    fn start(adjust: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::new(folder.path());
        config.listen = "127.0.0.1:0".to_owned();
        adjust(&mut config);
        let runtime = Runtime::new().expect("a runtime");
        let broker = runtime.block_on(Broker::start(config)).expect("starts");
        Self {
            broker: Some(broker),
            runtime,
            _folder: folder,
        }
    }

    fn address(&self) -> SocketAddr {
        self.broker.as_ref().expect("running").local_addr()
    }

    fn connect(&self) -> TcpStream {
        connect(self.address())
    }

    /// The value of one of the broker's metrics.
    fn metric(&self, name: &str) -> i64 {
        let mut registry = Registry::default();
        registry.register_collector(self.broker.as_ref().expect("running").metrics());
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("encodes");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&format!("ackwell_broker_{name} ")));
        line.and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("no {name} in {text}"))
    }

    fn await_metric(&self, name: &str, reached: impl Fn(i64) -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !reached(self.metric(name)) {
            assert!(std::time::Instant::now() < deadline, "{name} in time");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(mut self) {
        let broker = self.broker.take().expect("running");
        self.runtime.block_on(broker.shutdown()).expect("stops");
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).expect("connects");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

fn request<T: Encodable + HeaderVersion>(key: ApiKey, version: i16, id: i32, body: &T) -> Bytes {
    let header = RequestHeader::default()
        .with_request_api_key(key as i16)
        .with_request_api_version(version)
        .with_correlation_id(id)
        .with_client_id(Some(StrBytes::from_static_str("hostile")));
    let mut frame = BytesMut::new();
    frame.put_i32(0);
    header
        .encode(&mut frame, T::header_version(version))
        .expect("encodes");
    body.encode(&mut frame, version).expect("encodes");
    let length = i32::try_from(frame.len() - 4).expect("short");
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

fn read_frame(socket: &mut TcpStream) -> Bytes {
    let mut length = [0; 4];
    socket.read_exact(&mut length).expect("a length");
    let length = usize::try_from(i32::from_be_bytes(length)).expect("a length");
    let mut frame = vec![0; length];
    socket.read_exact(&mut frame).expect("a frame");
    frame.into()
}

fn read_response<T: Decodable + HeaderVersion>(socket: &mut TcpStream, version: i16) -> (i32, T) {
    let mut frame = read_frame(socket);
    let header = ResponseHeader::decode(&mut frame, T::header_version(version)).expect("a header");
    let body = T::decode(&mut frame, version).expect("a body");
    assert!(!frame.has_remaining(), "the whole response is understood");
    (header.correlation_id, body)
}

/// The broker closes: by an end of stream, or a reset where unread bytes were left.
fn assert_closed(socket: &mut TcpStream) {
    match socket.read(&mut [0; 64]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the connection should be closed: {other:?}"),
    }
}

fn assert_serves(socket: &mut TcpStream) {
    let asked = request(ApiKey::ApiVersions, 0, 77, &ApiVersionsRequest::default());
    socket.write_all(&asked).expect("sent");
    let (id, response) = read_response::<ApiVersionsResponse>(socket, 0);
    assert_eq!(id, 77);
    assert!(response.api_keys.len() > 20);
}

#[test]
fn a_malformed_request_closes_its_connection_and_no_other() {
    let node = Node::start(|_| ());
    let mut honest = node.connect();
    let hostile: &[(&str, &[u8])] = &[
        ("http", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("a negative length", &[0xff, 0xff, 0xff, 0xff]),
        ("a huge length", &[0x7f, 0xff, 0xff, 0xff]),
        ("no header", &[0, 0, 0, 2, 0, 18]),
        ("an empty frame", &[0, 0, 0, 0]),
        (
            "an unknown API",
            &[0, 0, 0, 10, 0x7f, 0, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
        ),
        (
            "an API that is not served",
            &[0, 0, 0, 10, 0, 4, 0, 0, 0, 0, 0, 1, 0xff, 0xff],
        ),
        (
            "a version too new",
            &[0, 0, 0, 10, 0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff],
        ),
        (
            "a body cut short",
            &[0, 0, 0, 10, 0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff],
        ),
        (
            "two billion topics",
            &[
                0, 0, 0, 14, 0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff,
            ],
        ),
    ];
    for (name, bytes) in hostile {
        println!("{name}");
        let mut socket = node.connect();
        socket.write_all(bytes).expect("sent");
        assert_closed(&mut socket);
        assert_serves(&mut honest);
    }
    node.stop();
}

#[test]
fn a_connection_that_ends_in_the_middle_of_a_request_is_forgotten() {
    let node = Node::start(|config| config.limits.connections_max = 1);
    for _ in 0..3 {
        let mut socket = await_seat(&node);
        socket.write_all(&[0, 0, 1, 0, 0, 18, 0]).expect("sent");
    }
    assert_serves(&mut await_seat(&node));
    node.stop();
}

/// Connects until the one seat is free and the connection is served.
fn await_seat(node: &Node) -> TcpStream {
    let deadline = std::time::Instant::now() + PATIENCE;
    let asked = request(ApiKey::ApiVersions, 0, 1, &ApiVersionsRequest::default());
    loop {
        let mut socket = node.connect();
        let served = socket.write_all(&asked).is_ok() && socket.read_exact(&mut [0; 4]).is_ok();
        if served {
            let mut rest = vec![0; 4096];
            let _ = socket.read(&mut rest).expect("the response");
            return socket;
        }
        assert!(std::time::Instant::now() < deadline, "no seat in time");
    }
}

#[test]
fn a_connection_beyond_the_limit_is_refused_and_the_others_go_on() {
    let node = Node::start(|config| config.limits.connections_max = 2);
    let (mut first, mut second) = (node.connect(), node.connect());
    assert_serves(&mut first);
    assert_serves(&mut second);
    let mut third = node.connect();
    assert_closed(&mut third);
    assert_serves(&mut first);
    drop(second);
    await_seat(&node);
    node.stop();
}

#[test]
fn an_address_beyond_its_limit_is_refused_until_it_closes_one() {
    let node = Node::start(|config| config.limits.connections_per_address_max = Some(1));
    let mut first = node.connect();
    assert_serves(&mut first);
    assert_closed(&mut node.connect());
    assert!(node.metric(r#"connections_refused_total{limit="connections_per_address_max"}"#) >= 1);
    drop(first);
    await_seat(&node);
    node.stop();
}

#[test]
fn without_memory_a_large_request_is_refused_and_small_ones_are_served() {
    const LARGE: i32 = 900 * 1024;
    let node = Node::start(|config| {
        let limits = &mut config.limits;
        (limits.memory_max, limits.request_bytes_max) = (1 << 20, 1 << 20);
        limits.fetch_bytes_max = 1 << 20;
        limits.memory_wait_max = Duration::from_millis(300);
    });
    let begin = |socket: &mut TcpStream| {
        socket.write_all(&LARGE.to_be_bytes()).expect("sent");
        // The peer may close before all of it was sent.
        let _ = socket.write_all(&vec![0; LARGE as usize - 1]);
    };
    let mut holder = node.connect();
    begin(&mut holder);
    node.await_metric("memory_used_bytes", |used| used > 800 * 1024);
    let mut refused = node.connect();
    begin(&mut refused);
    assert_closed(&mut refused);
    assert_eq!(node.metric("connections_out_of_memory_total"), 1);
    assert_serves(&mut node.connect());
    drop(holder);
    node.await_metric("memory_used_bytes", |used| used == 0);
    node.stop();
}

#[test]
fn a_fetch_that_may_follow_no_partition_waits_all_the_same() {
    let node = Node::start(|config| config.limits.waiting_partitions_max = 0);
    let mut socket = node.connect();
    let begun = std::time::Instant::now();
    let wait = waiting_fetch(300);
    socket
        .write_all(&request(ApiKey::Fetch, 12, 1, &wait))
        .expect("sent");
    read_frame(&mut socket);
    assert!(begun.elapsed() >= Duration::from_millis(300));
    node.stop();
}

#[test]
fn what_the_broker_does_is_counted() {
    let node = Node::start(|_| ());
    let mut socket = node.connect();
    assert_serves(&mut socket);
    assert_eq!(node.metric(r#"requests_total{api="ApiVersions"}"#), 1);
    assert_eq!(node.metric("connections"), 1);
    assert_eq!(node.metric("under_replicated_partitions"), 0);
    // Counted when all of it was sent, which the peer may see first.
    node.await_metric("sent_bytes_total", |sent| sent > 0);
    drop(socket);
    node.await_metric("connections", |open| open == 0);
    node.stop();
}

/// A fetch from a topic that is always there.
fn waiting_fetch(max_wait_ms: i32) -> FetchRequest {
    FetchRequest::default()
        .with_max_wait_ms(max_wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1000)
        .with_topics(vec![
            FetchTopic::default()
                .with_topic(StrBytes::from_static_str("__consumer_offsets").into())
                .with_partitions(vec![
                    FetchPartition::default()
                        .with_partition(0)
                        .with_partition_max_bytes(1000),
                ]),
        ])
}

#[test]
fn a_request_beyond_the_limit_closes_its_connection_before_it_is_read() {
    let node = Node::start(|config| config.limits.request_bytes_max = 1000);
    let mut socket = node.connect();
    socket.write_all(&1001_i32.to_be_bytes()).expect("sent");
    assert_closed(&mut socket);
    assert_serves(&mut node.connect());
    node.stop();
}

#[test]
fn a_silent_connection_is_closed() {
    let node = Node::start(|config| config.limits.idle_max = Duration::from_millis(100));
    assert_closed(&mut node.connect());
    node.stop();
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let node = Node::start(|_| ());
    let mut socket = node.connect();
    let mut newer = BytesMut::new();
    newer.put_slice(&[0, 0, 0, 20, 0, 18, 0, 99, 0, 0, 0, 5]);
    newer.put_bytes(0x2a, 12);
    socket.write_all(&newer).expect("sent");
    let (id, response) = read_response::<ApiVersionsResponse>(&mut socket, 0);
    assert_eq!((id, response.error_code), (5, 35));
    assert_eq!(response.api_keys[0].api_key, ApiKey::ApiVersions as i16);
    assert_serves(&mut socket);
    node.stop();
}

/// The codec refuses to encode a field that the version does not have, so each version must be
/// asked once: old clients use old versions (kcat asks ListOffsets in version 2).
#[test]
fn every_version_that_is_served_is_answered() {
    use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
    use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse};

    let node = Node::start(|_| ());
    let mut socket = node.connect();
    for version in 1..=7 {
        let wanted = ListOffsetsRequest::default().with_topics(vec![
            ListOffsetsTopic::default()
                .with_name(StrBytes::from_static_str("__consumer_offsets").into())
                .with_partitions(vec![ListOffsetsPartition::default().with_timestamp(-1)]),
        ]);
        let asked = request(ApiKey::ListOffsets, version, 1, &wanted);
        socket.write_all(&asked).expect("sent");
        let (_, response) = read_response::<ListOffsetsResponse>(&mut socket, version);
        assert_eq!(response.topics[0].partitions[0].offset, 0);
    }
    for version in 0..=13 {
        let asked = request(ApiKey::Metadata, version, 1, &MetadataRequest::default());
        socket.write_all(&asked).expect("sent");
        let (_, response) = read_response::<MetadataResponse>(&mut socket, version);
        assert_eq!(response.brokers.len(), 1);
    }
    node.stop();
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let node = Node::start(|config| config.limits.in_flight_max = 4);
    let mut socket = node.connect();
    let mut reader = socket.try_clone().expect("a second handle");
    let mut asked = BytesMut::new();
    for id in 0..500 {
        asked.put(request(
            ApiKey::Metadata,
            9,
            id,
            &MetadataRequest::default(),
        ));
    }
    let writer = std::thread::spawn(move || socket.write_all(&asked));
    for expected in 0..500 {
        let (id, response) = read_response::<MetadataResponse>(&mut reader, 9);
        assert_eq!(id, expected);
        assert_eq!(response.brokers[0].port, i32::from(node.address().port()));
    }
    writer.join().expect("ends").expect("sent");
    node.stop();
}

#[test]
fn a_waiting_fetch_does_not_hold_up_the_shutdown() {
    let node = Node::start(|_| ());
    let mut socket = node.connect();
    assert_serves(&mut socket);
    let wait = waiting_fetch(60_000);
    socket
        .write_all(&request(ApiKey::Fetch, 12, 1, &wait))
        .expect("sent");
    let begun = std::time::Instant::now();
    node.stop();
    assert!(begun.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_port_in_use_is_a_clear_error() {
    let node = Node::start(|_| ());
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = Config::new(folder.path());
    config.listen = node.address().to_string();
    let error = node
        .runtime
        .block_on(Broker::start(config))
        .expect_err("the port is taken");
    assert!(error.is_address_in_use());
    assert!(error.to_string().contains(&node.address().to_string()));
    node.stop();
}

#[test]
fn a_folder_in_use_is_a_clear_error() {
    let node = Node::start(|_| ());
    let mut config = Config::new(node._folder.path());
    config.listen = "127.0.0.1:0".to_owned();
    let error = node
        .runtime
        .block_on(Broker::start(config))
        .expect_err("the folder is locked");
    assert!(error.is_folder_in_use(), "{error}");
    node.stop();
}

#[test]
fn settings_that_cannot_work_are_refused_at_the_start() {
    let runtime = Runtime::new().expect("a runtime");
    let folder = tempfile::tempdir().expect("a folder");
    let refused = |adjust: fn(&mut Config)| {
        let mut config = Config::new(folder.path());
        config.listen = "127.0.0.1:0".to_owned();
        adjust(&mut config);
        let outcome = runtime.block_on(Broker::start(config));
        outcome.expect_err("refused").is_config()
    };
    assert!(refused(|config| config.default_partitions = 0));
    assert!(refused(
        |config| config.advertised = Some("nowhere".to_owned())
    ));
    assert!(refused(|config| config.limits.connections_max = 0));
    assert!(refused(|config| config
        .limits
        .connections_per_address_max = Some(0)));
    assert!(refused(|config| config.limits.memory_max = 1));
    assert!(refused(|config| config.cleaning.memory_max = 1));
    assert!(refused(|config| config.limits.idle_max = Duration::ZERO));
    assert!(refused(|config| config.limits.login_max = Duration::ZERO));
    assert!(refused(|config| config.limits.request_elements_max = 0));
    assert!(refused(|config| config.limits.partitions_max = 0));
    assert!(refused(|config| config.default_partitions = 10_001));
    assert!(refused(|config| config.segment_bytes = u32::MAX));
    assert!(refused(|config| {
        config.users = vec![User::new("orders", "s3cret")];
    }));
}

/// One broker for all cases of the property tests.
fn shared() -> SocketAddr {
    static SHARED: OnceLock<(SocketAddr, Node)> = OnceLock::new();
    let (address, _) = SHARED.get_or_init(|| {
        let node = Node::start(|_| ());
        (node.address(), node)
    });
    *address
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Any bytes as the body of any request in any version: an answer or a closed connection.
    #[test]
    fn random_requests_never_take_the_broker_down(
        key in 0i16..80,
        version in 0i16..16,
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let address = shared();
        let mut socket = connect(address);
        let mut frame = BytesMut::new();
        frame.put_i32(i32::try_from(10 + body.len()).expect("short"));
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_i32(1);
        frame.put_i16(-1);
        frame.put_slice(&body);
        // Handlers that wait (a join, a fetch) end with the connection's other half.
        socket.write_all(&frame).expect("sent");
        socket.shutdown(std::net::Shutdown::Write).expect("half closed");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout");
        let _ = socket.read(&mut [0; 256]);
        assert_serves(&mut connect(address));
    }
}

/// What is asked in `version` on this connection.
fn ask<Q, A>(socket: &mut TcpStream, key: ApiKey, version: i16, asked: &Q) -> A
where
    Q: Encodable + HeaderVersion,
    A: Decodable + HeaderVersion,
{
    let asked = request(key, version, 1, asked);
    socket.write_all(&asked).expect("sent");
    read_response(socket, version).1
}

fn create(socket: &mut TcpStream, topic: &str) -> uuid::Uuid {
    let wanted = CreatableTopic::default()
        .with_name(StrBytes::from_string(topic.to_owned()).into())
        .with_num_partitions(1)
        .with_replication_factor(1);
    let wanted = CreateTopicsRequest::default().with_topics(vec![wanted]);
    let created: CreateTopicsResponse = ask(socket, ApiKey::CreateTopics, 7, &wanted);
    assert_eq!(created.topics[0].error_code, 0);
    created.topics[0].topic_id
}

/// Who holds an id is never led to another topic of the same name (KIP-516).
#[test]
fn the_id_of_a_deleted_topic_is_unknown_also_when_its_name_is_given_again() {
    let node = Node::start(|_| ());
    let mut socket = node.connect();
    let old = create(&mut socket, "orders");
    let gone = DeleteTopicsRequest::default()
        .with_topics(vec![DeleteTopicState::default().with_topic_id(old)]);
    let gone: DeleteTopicsResponse = ask(&mut socket, ApiKey::DeleteTopics, 6, &gone);
    assert_eq!(gone.responses[0].error_code, 0);
    let new = create(&mut socket, "orders");
    assert_ne!(old, new);

    let unknown = ResponseError::UnknownTopicId.code();
    for (id, code) in [(old, unknown), (new, 0)] {
        let partition = FetchPartition::default().with_partition_max_bytes(1000);
        let topic = FetchTopic::default()
            .with_topic_id(id)
            .with_partitions(vec![partition]);
        let fetch = FetchRequest::default().with_topics(vec![topic]);
        let fetched: FetchResponse = ask(&mut socket, ApiKey::Fetch, 13, &fetch);
        assert_eq!(fetched.responses[0].partitions[0].error_code, code);

        // Without records a known partition refuses them as invalid.
        let topic = TopicProduceData::default()
            .with_topic_id(id)
            .with_partition_data(vec![PartitionProduceData::default()]);
        let produce = ProduceRequest::default()
            .with_acks(-1)
            .with_topic_data(vec![topic]);
        let produced: ProduceResponse = ask(&mut socket, ApiKey::Produce, 13, &produce);
        let told = produced.responses[0].partition_responses[0].error_code;
        let expected = if code == 0 {
            ResponseError::InvalidRecord.code()
        } else {
            unknown
        };
        assert_eq!(told, expected);
    }
    node.stop();
}
