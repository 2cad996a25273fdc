//! A Kafka client of a few lines: requests one at a time, and the two ways to log in.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ackwell_broker::Mechanism;
use base64::prelude::{BASE64_STANDARD, Engine};
use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, MetadataRequest, MetadataResponse, RequestHeader, ResponseHeader,
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use ring::{digest, hmac, pbkdf2};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;

/// Longer than anything takes here; a test that waits as long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Client<S> {
    pub(crate) stream: S,
}

impl Client<TcpStream> {
    pub(crate) async fn plain(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("connects");
        Self { stream }
    }
}

impl Client<TlsStream<TcpStream>> {
    pub(crate) async fn tls(address: SocketAddr, config: Arc<ClientConfig>) -> io::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        let name = "localhost".try_into().expect("a name");
        let agreed = timeout(PATIENCE, TlsConnector::from(config).connect(name, socket));
        Ok(Self {
            stream: agreed.await.expect("in time")?,
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends a request and reads its response.
    pub(crate) async fn call<Q, A>(&mut self, key: ApiKey, version: i16, body: &Q) -> io::Result<A>
    where
        Q: Encodable + HeaderVersion,
        A: Decodable + HeaderVersion,
    {
        let header = RequestHeader::default()
            .with_request_api_key(key as i16)
            .with_request_api_version(version)
            .with_correlation_id(7)
            .with_client_id(Some(StrBytes::from_static_str("secure")));
        let mut request = BytesMut::new();
        header
            .encode(&mut request, Q::header_version(version))
            .expect("encodes");
        body.encode(&mut request, version).expect("encodes");
        self.send(&request).await?;
        let mut response = self.read().await?;
        let header = ResponseHeader::decode(&mut response, A::header_version(version));
        assert_eq!(header.expect("a header").correlation_id, 7);
        Ok(A::decode(&mut response, version).expect("a body"))
    }

    /// Sends a frame.
    pub(crate) async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut bytes = BytesMut::new();
        bytes.put_u32(u32::try_from(frame.len()).expect("short"));
        bytes.put_slice(frame);
        self.stream.write_all(&bytes).await?;
        self.stream.flush().await
    }

    /// Reads a frame.
    pub(crate) async fn read(&mut self) -> io::Result<Bytes> {
        let read = async {
            let length = self.stream.read_u32().await?;
            let mut frame = vec![0; length as usize];
            self.stream.read_exact(&mut frame).await?;
            Ok(frame.into())
        };
        timeout(PATIENCE, read).await.expect("in time")
    }

    pub(crate) async fn handshake(&mut self, mechanism: &str) -> io::Result<SaslHandshakeResponse> {
        let wanted = StrBytes::from_string(mechanism.to_owned());
        let request = SaslHandshakeRequest::default().with_mechanism(wanted);
        self.call(ApiKey::SaslHandshake, 1, &request).await
    }

    pub(crate) async fn token(&mut self, token: &[u8]) -> io::Result<SaslAuthenticateResponse> {
        let token = Bytes::copy_from_slice(token);
        let request = SaslAuthenticateRequest::default().with_auth_bytes(token);
        self.call(ApiKey::SaslAuthenticate, 2, &request).await
    }

    /// The answer to the last token.
    pub(crate) async fn log_in(
        &mut self,
        mechanism: Mechanism,
        name: &str,
        password: &str,
    ) -> io::Result<SaslAuthenticateResponse> {
        let agreed = self.handshake(mechanism.name()).await?;
        assert_eq!(agreed.error_code, 0);
        if mechanism == Mechanism::Plain {
            return self.token(format!("\0{name}\0{password}").as_bytes()).await;
        }
        let bare = format!("n={name},r=of-the-client");
        let asked = self.token(format!("n,,{bare}").as_bytes()).await?;
        assert_eq!(asked.error_code, 0);
        let asked = String::from_utf8(asked.auth_bytes.to_vec()).expect("text");
        self.token(proof(mechanism, password, &bare, &asked).as_bytes())
            .await
    }

    /// Whether requests are answered.
    pub(crate) async fn metadata(&mut self) -> io::Result<MetadataResponse> {
        let nothing = MetadataRequest::default().with_topics(Some(Vec::new()));
        self.call(ApiKey::Metadata, 9, &nothing).await
    }

    /// The broker closes: by an end of stream, or a reset where unread bytes were left.
    pub(crate) async fn assert_closed(mut self) {
        let mut rest = Vec::new();
        let ended = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        let _ended_or_reset = ended.expect("closed in time");
    }
}

/// The client's second message of SCRAM.
fn proof(mechanism: Mechanism, password: &str, bare: &str, asked: &str) -> String {
    let (digest, mac, derivation) = match mechanism {
        Mechanism::ScramSha512 => (
            &digest::SHA512,
            hmac::HMAC_SHA512,
            pbkdf2::PBKDF2_HMAC_SHA512,
        ),
        _ => (
            &digest::SHA256,
            hmac::HMAC_SHA256,
            pbkdf2::PBKDF2_HMAC_SHA256,
        ),
    };
    let field = |prefix| {
        let mut fields = asked.split(',');
        fields.find_map(|field| field.strip_prefix(prefix)).unwrap()
    };
    let sign = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(mac, key), text);
    let salt = BASE64_STANDARD.decode(field("s=")).unwrap();
    let mut salted = vec![0; digest.output_len()];
    let iterations = field("i=").parse().unwrap();
    pbkdf2::derive(
        derivation,
        iterations,
        &salt,
        password.as_bytes(),
        &mut salted,
    );
    let client_key = sign(&salted, b"Client Key");
    let without_proof = format!("c=biws,r={}", field("r="));
    let stored = digest::digest(digest, client_key.as_ref());
    let signed = format!("{bare},{asked},{without_proof}");
    let signature = sign(stored.as_ref(), signed.as_bytes());
    let pairs = client_key.as_ref().iter().zip(signature.as_ref());
    let proof: Vec<u8> = pairs.map(|(key, signature)| key ^ signature).collect();
    format!("{without_proof},p={}", BASE64_STANDARD.encode(proof))
}
