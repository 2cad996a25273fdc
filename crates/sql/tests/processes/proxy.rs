//! Stands between one client and its brokers, knows where a request begins and which it is, and
//! does to chosen ones what a bad network does.
//!
//! Brokers tell clients where to connect; the proxy puts itself there, a listener for each broker.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use kafka_protocol::messages::{
    ApiKey, FindCoordinatorResponse, MetadataResponse, OffsetCommitRequest, OffsetCommitResponse,
    RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, watch};
use tokio_util::sync::CancellationToken;

/// A frame longer than this is none.
const FRAME_BYTES_MAX: usize = 64 << 20;

/// A partition that no topic has.
const NOWHERE: i32 = 1_000;

/// What happens to a request or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The connection ends before the broker has seen the request.
    CutRequest,
    /// The broker carries the request out; the connection ends before the client knows.
    CutResponse,
    /// The broker never sees the request, and the client waits.
    DropRequest,
    /// The broker carries the request out, and the client waits for its answer.
    DropResponse,
    /// The request and all behind it on its connection arrive late.
    Delay(Duration),
    /// The request waits until it is released or discarded.
    HoldRequest,
    /// The broker carries the request out; its answer waits until it is released or discarded.
    HoldResponse,
    /// Of a commit of several partitions, the broker refuses one.
    RefuseOnePartition,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Closed,
    Released,
    Discarded,
}

/// A fate for requests of one kind. Lasts as long as the proxy, or until it is lifted.
pub struct Fault {
    api: Option<ApiKey>,
    fates: Vec<Fate>,
    every: usize,
    seen: AtomicUsize,
    lifted: AtomicBool,
    hits: watch::Sender<usize>,
    gate: watch::Sender<Gate>,
}

impl Fault {
    fn choose(&self, api: ApiKey) -> Option<Fate> {
        if self.lifted.load(SeqCst) || self.api.is_some_and(|of| of != api) {
            return None;
        }
        let seen = self.seen.fetch_add(1, SeqCst) + 1;
        if !seen.is_multiple_of(self.every) {
            return None;
        }
        let mut chosen = 0;
        self.hits.send_modify(|hits| {
            chosen = *hits;
            *hits += 1;
        });
        Some(self.fates[chosen % self.fates.len()])
    }

    /// How many requests it has met.
    pub fn hits(&self) -> usize {
        *self.hits.borrow()
    }

    /// Waits until it has met so many requests.
    pub async fn met(&self, hits: usize) {
        let mut changes = self.hits.subscribe();
        super::within("a request at the proxy", async {
            changes.wait_for(|met| *met >= hits).await.unwrap();
        })
        .await;
    }

    /// No more requests are met; what is held stays held.
    pub fn lift(&self) {
        self.lifted.store(true, SeqCst);
    }

    /// Lifts it and sends what was held on its way.
    pub fn release(&self) {
        self.lift();
        self.gate.send_replace(Gate::Released);
    }

    /// Lifts it and ends the connections whose requests or answers were held.
    pub fn discard(&self) {
        self.lift();
        self.gate.send_replace(Gate::Discarded);
    }

    /// Waits at the gate; answers whether to go on.
    async fn pass(&self) -> bool {
        let mut gate = self.gate.subscribe();
        let opened = gate.wait_for(|gate| *gate != Gate::Closed).await;
        opened.is_ok_and(|gate| *gate == Gate::Released)
    }
}

/// A proxy for one client. Dropped, it ends its connections.
pub struct Proxy {
    shared: Arc<Shared>,
    address: String,
}

struct Shared {
    /// Our address for each broker's.
    fronts: Mutex<HashMap<String, (String, u16)>>,
    faults: std::sync::Mutex<Vec<Arc<Fault>>>,
    connected: watch::Sender<bool>,
    ended: CancellationToken,
}

impl Proxy {
    /// A proxy in front of a cluster.
    pub async fn start(servers: &str) -> Self {
        let shared = Arc::new(Shared {
            fronts: Mutex::default(),
            faults: std::sync::Mutex::default(),
            connected: watch::Sender::new(true),
            ended: CancellationToken::new(),
        });
        let first = servers.split(',').next().unwrap();
        let (host, port) = Shared::front(&shared, first.to_owned()).await;
        Self {
            shared,
            address: format!("{host}:{port}"),
        }
    }

    /// What the client takes for the cluster's address.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Each `every`-th request of a kind meets one of `fates`, in turn.
    pub fn on(&self, api: ApiKey, every: usize, fates: &[Fate]) -> Arc<Fault> {
        self.fault(Some(api), every, fates)
    }

    /// Each `every`-th request of any kind meets one of `fates`, in turn.
    pub fn on_any(&self, every: usize, fates: &[Fate]) -> Arc<Fault> {
        self.fault(None, every, fates)
    }

    fn fault(&self, api: Option<ApiKey>, every: usize, fates: &[Fate]) -> Arc<Fault> {
        let fault = Arc::new(Fault {
            api,
            fates: fates.to_vec(),
            every,
            seen: AtomicUsize::new(0),
            lifted: AtomicBool::new(false),
            hits: watch::Sender::new(0),
            gate: watch::Sender::new(Gate::Closed),
        });
        self.shared.faults.lock().unwrap().push(Arc::clone(&fault));
        fault
    }

    /// Ends all connections, and takes no others until [`connect`](Self::connect).
    pub fn disconnect(&self) {
        self.shared.connected.send_replace(false);
    }

    pub fn connect(&self) {
        self.shared.connected.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.cancel();
    }
}

impl Shared {
    /// Where clients reach a broker through us.
    fn front(shared: &Arc<Self>, broker: String) -> BoxFuture<'static, (String, u16)> {
        let shared = Arc::clone(shared);
        Box::pin(async move {
            let mut fronts = shared.fronts.lock().await;
            if let Some(front) = fronts.get(&broker) {
                return front.clone();
            }
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let front = (address.ip().to_string(), address.port());
            fronts.insert(broker.clone(), front.clone());
            let ended = shared.ended.clone();
            let accepting = accept(Arc::clone(&shared), listener, broker);
            tokio::spawn(async move { ended.run_until_cancelled(accepting).await });
            front
        })
    }

    fn fate(&self, api: ApiKey) -> Option<(Fate, Arc<Fault>)> {
        let faults = self.faults.lock().unwrap();
        faults
            .iter()
            .find_map(|fault| Some((fault.choose(api)?, Arc::clone(fault))))
    }
}

async fn accept(shared: Arc<Shared>, listener: TcpListener, broker: String) {
    loop {
        let Ok((client, _)) = listener.accept().await else {
            continue;
        };
        let (shared, broker) = (Arc::clone(&shared), broker.clone());
        tokio::spawn(async move {
            let mut connected = shared.connected.subscribe();
            tokio::select! {
                biased;
                () = shared.ended.cancelled() => {}
                _ = connected.wait_for(|connected| !connected) => {}
                _ = carry(&shared, client, &broker) => {}
            }
        });
    }
}

/// Requests of a connection that wait for their answers.
type Awaited = std::sync::Mutex<HashMap<i32, Request>>;

struct Request {
    api: ApiKey,
    version: i16,
    fate: Option<(Fate, Arc<Fault>)>,
    /// The partition that became [`NOWHERE`] on the way.
    refused: Option<i32>,
}

async fn carry(shared: &Arc<Shared>, client: TcpStream, broker: &str) -> Option<()> {
    let broker = TcpStream::connect(broker).await.ok()?;
    client.set_nodelay(true).ok()?;
    broker.set_nodelay(true).ok()?;
    let (from_client, to_client) = client.into_split();
    let (from_broker, to_broker) = broker.into_split();
    let awaited = Awaited::default();
    tokio::select! {
        _ = requests(shared, from_client, to_broker, &awaited) => {}
        _ = responses(shared, from_broker, to_client, &awaited) => {}
    }
    Some(())
}

/// Carries requests until the connection ends or is to end.
async fn requests(
    shared: &Shared,
    mut client: OwnedReadHalf,
    mut broker: OwnedWriteHalf,
    awaited: &Awaited,
) -> Option<()> {
    loop {
        let mut frame = read(&mut client).await?;
        let mut refused = None;
        let number = |at: usize| Some(i16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
        let api = ApiKey::try_from(number(0)?).ok()?;
        let version = number(2)?;
        let correlation = i32::from_be_bytes(frame.get(4..8)?.try_into().ok()?);
        let fate = shared.fate(api);
        match &fate {
            Some((Fate::CutRequest, _)) => return None,
            Some((Fate::DropRequest, _)) => continue,
            Some((Fate::Delay(delay), _)) => tokio::time::sleep(*delay).await,
            Some((Fate::HoldRequest, fault)) if !fault.pass().await => return None,
            Some((Fate::RefuseOnePartition, _)) => (frame, refused) = refusing(frame, version),
            _ => {}
        }
        let request = Request {
            api,
            version,
            fate,
            refused,
        };
        awaited.lock().unwrap().insert(correlation, request);
        write(&mut broker, &frame).await?;
    }
}

/// Carries answers until the connection ends or is to end.
async fn responses(
    shared: &Arc<Shared>,
    mut broker: OwnedReadHalf,
    mut client: OwnedWriteHalf,
    awaited: &Awaited,
) -> Option<()> {
    loop {
        let frame = read(&mut broker).await?;
        let correlation = i32::from_be_bytes(frame.get(..4)?.try_into().ok()?);
        let Request {
            api,
            version,
            fate,
            refused,
        } = awaited.lock().unwrap().remove(&correlation)?;
        match &fate {
            Some((Fate::CutResponse, _)) => return None,
            Some((Fate::DropResponse, _)) => continue,
            Some((Fate::HoldResponse, fault)) if !fault.pass().await => return None,
            _ => {}
        }
        let frame = match api {
            ApiKey::Metadata => metadata(shared, frame, version).await,
            ApiKey::FindCoordinator => coordinator(shared, frame, version).await,
            ApiKey::OffsetCommit => match refused {
                Some(refused) => renamed(frame, version, refused),
                None => frame,
            },
            _ => frame,
        };
        write(&mut client, &frame).await?;
    }
}

async fn metadata(shared: &Arc<Shared>, mut frame: Bytes, version: i16) -> Bytes {
    let header_version = ApiKey::Metadata.response_header_version(version);
    let header = ResponseHeader::decode(&mut frame, header_version).unwrap();
    let mut answer = MetadataResponse::decode(&mut frame, version).unwrap();
    for broker in &mut answer.brokers {
        (broker.host, broker.port) = replaced(shared, &broker.host, broker.port).await;
    }
    encoded(&header, header_version, &answer, version)
}

async fn coordinator(shared: &Arc<Shared>, mut frame: Bytes, version: i16) -> Bytes {
    let header_version = ApiKey::FindCoordinator.response_header_version(version);
    let header = ResponseHeader::decode(&mut frame, header_version).unwrap();
    let mut answer = FindCoordinatorResponse::decode(&mut frame, version).unwrap();
    if version < 4 {
        (answer.host, answer.port) = replaced(shared, &answer.host, answer.port).await;
    }
    for broker in &mut answer.coordinators {
        (broker.host, broker.port) = replaced(shared, &broker.host, broker.port).await;
    }
    encoded(&header, header_version, &answer, version)
}

/// Has a commit of several partitions name one that does not exist; answers instead of which.
fn refusing(frame: Bytes, version: i16) -> (Bytes, Option<i32>) {
    let header_version = ApiKey::OffsetCommit.request_header_version(version);
    let mut rest = frame.clone();
    let header = RequestHeader::decode(&mut rest, header_version).unwrap();
    let mut request = OffsetCommitRequest::decode(&mut rest, version).unwrap();
    let partitions = &mut request.topics[0].partitions;
    if partitions.len() < 2 {
        return (frame, None);
    }
    let refused = std::mem::replace(&mut partitions[0].partition_index, NOWHERE);
    (
        encoded(&header, header_version, &request, version),
        Some(refused),
    )
}

/// Has the answer name the partition for which the other one stood.
fn renamed(mut frame: Bytes, version: i16, refused: i32) -> Bytes {
    let header_version = ApiKey::OffsetCommit.response_header_version(version);
    let header = ResponseHeader::decode(&mut frame, header_version).unwrap();
    let mut answer = OffsetCommitResponse::decode(&mut frame, version).unwrap();
    for topic in &mut answer.topics {
        for partition in &mut topic.partitions {
            if partition.partition_index == NOWHERE {
                partition.partition_index = refused;
            }
        }
    }
    encoded(&header, header_version, &answer, version)
}

/// An answer that names no broker stays as it is.
async fn replaced(shared: &Arc<Shared>, host: &StrBytes, port: i32) -> (StrBytes, i32) {
    if host.is_empty() || port <= 0 {
        return (host.clone(), port);
    }
    let (host, port) = Shared::front(shared, format!("{}:{port}", host.as_str())).await;
    (StrBytes::from_string(host), i32::from(port))
}

fn encoded(
    header: &impl Encodable,
    header_version: i16,
    body: &impl Encodable,
    version: i16,
) -> Bytes {
    let mut frame = BytesMut::new();
    header.encode(&mut frame, header_version).unwrap();
    body.encode(&mut frame, version).unwrap();
    frame.freeze()
}

async fn read(from: &mut OwnedReadHalf) -> Option<Bytes> {
    let length = usize::try_from(from.read_i32().await.ok()?).ok()?;
    assert!(length <= FRAME_BYTES_MAX, "a frame of {length} bytes");
    let mut frame = vec![0; length];
    from.read_exact(&mut frame).await.ok()?;
    Some(frame.into())
}

async fn write(to: &mut OwnedWriteHalf, frame: &[u8]) -> Option<()> {
    let length = i32::try_from(frame.len()).unwrap().to_be_bytes();
    to.write_all(&[&length[..], frame].concat()).await.ok()
}
