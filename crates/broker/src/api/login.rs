//! Logging in: SaslHandshake names the mechanism, SaslAuthenticate carries its tokens (KIP-43,
//! KIP-152).
//!
//! Until it has ended well, ApiVersions is the only other request that is answered, as in Kafka; a
//! client that asks for anything else has been set up for another listener.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::{
    ApiKey, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest,
    SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::reply::frame;
use super::{Caller, Context, Node, Opened, Refusal, Reply, call, decode, open};
use crate::Mechanism;
use crate::sasl::{Denied, Exchange, Step};

/// One connection's way to a user.
#[derive(Debug)]
pub(crate) struct Login {
    node: Arc<Node>,
    caller: Caller,
    state: State,
}

#[derive(Debug)]
enum State {
    /// No mechanism is agreed on.
    Greeting,
    /// Tokens come in SaslAuthenticate.
    Wrapped(Exchange),
    /// Tokens are frames of their own: what SaslHandshake 0 asks for.
    Bare(Exchange),
}

/// What a frame led to.
#[derive(Debug)]
pub(crate) enum Progress {
    /// Send this and go on.
    Reply(Bytes),
    /// Send this; the client is this user now.
    LoggedIn(Bytes, Arc<str>),
    /// Send this, if anything, and close the connection.
    Refused(Option<Bytes>, LoginRefused),
}

/// Why somebody is not let in: what the log line says.
#[derive(Debug)]
pub(crate) struct LoginRefused {
    pub(crate) mechanism: Option<Mechanism>,
    /// The user that it claimed to be, where there is such a user.
    pub(crate) user: Option<Arc<str>>,
    pub(crate) why: &'static str,
}

impl Login {
    pub(crate) fn new(node: Arc<Node>, caller: Caller) -> Self {
        Self {
            node,
            caller,
            state: State::Greeting,
        }
    }

    /// Takes the client's next frame (without its length).
    ///
    /// # Errors
    /// When it cannot be understood, or asks for something before it is said who asks.
    pub(crate) async fn answer(&mut self, frame: Bytes) -> Result<Progress, Refusal> {
        if let State::Bare(exchange) = &mut self.state {
            return Ok(bare(exchange, &frame));
        }
        match open(&self.node, &self.caller, frame)? {
            Opened::Answered(reply) => replied(reply),
            Opened::Request(cx, ApiKey::ApiVersions, body) => {
                replied(call(&cx, ApiKey::ApiVersions, body).await?)
            }
            Opened::Request(cx, ApiKey::SaslHandshake, body) => self.handshake(&cx, body),
            Opened::Request(cx, ApiKey::SaslAuthenticate, body) => match &mut self.state {
                State::Wrapped(exchange) => wrapped(exchange, &cx, body),
                State::Greeting | State::Bare(_) => Err(Refusal::new(
                    ApiKey::SaslAuthenticate,
                    cx.version,
                    "a token before a mechanism is agreed on",
                )),
            },
            Opened::Request(cx, key, _) => Err(Refusal::new(
                key,
                cx.version,
                "a request before logging in; set security.protocol and sasl.mechanism",
            )),
        }
    }

    fn handshake(&mut self, cx: &Context, body: Bytes) -> Result<Progress, Refusal> {
        let request: SaslHandshakeRequest = decode(cx, ApiKey::SaslHandshake, body)?;
        let offered = &self.caller.entrance.mechanisms;
        let names = offered.iter().map(|mechanism| mechanism.name());
        let response = SaslHandshakeResponse::default()
            .with_mechanisms(names.map(StrBytes::from_static_str).collect());
        let wanted = request.mechanism.parse::<Mechanism>();
        let Some(mechanism) = wanted.ok().filter(|wanted| offered.contains(wanted)) else {
            let code = ResponseError::UnsupportedSaslMechanism.code();
            let reply = encoded(cx, &response.with_error_code(code))?;
            let refused = LoginRefused {
                mechanism: None,
                user: None,
                why: "the mechanism is not offered by this listener",
            };
            return Ok(Progress::Refused(Some(reply), refused));
        };
        let nonce = Uuid::new_v4().simple().to_string();
        let exchange = Exchange::new(Arc::clone(&self.node.users), mechanism, nonce);
        self.state = match cx.version {
            0 => State::Bare(exchange),
            _ => State::Wrapped(exchange),
        };
        Ok(Progress::Reply(encoded(cx, &response)?))
    }
}

fn wrapped(exchange: &mut Exchange, cx: &Context, body: Bytes) -> Result<Progress, Refusal> {
    let request: SaslAuthenticateRequest = decode(cx, ApiKey::SaslAuthenticate, body)?;
    let response = SaslAuthenticateResponse::default().with_error_message(None);
    match exchange.step(&request.auth_bytes) {
        Ok(Step::Challenge(token)) => {
            let response = response.with_auth_bytes(token.into());
            Ok(Progress::Reply(encoded(cx, &response)?))
        }
        Ok(Step::Proved(user, token)) => {
            let response = response.with_auth_bytes(token.into());
            Ok(Progress::LoggedIn(encoded(cx, &response)?, user))
        }
        Err(denied) => {
            let told = format!(
                "Authentication failed: invalid username or password for {}",
                exchange.mechanism()
            );
            let response = response
                .with_error_code(ResponseError::SaslAuthenticationFailed.code())
                .with_error_message(Some(StrBytes::from_string(told)));
            let reply = encoded(cx, &response)?;
            Ok(Progress::Refused(Some(reply), refused(exchange, denied)))
        }
    }
}

/// A refusal cannot be told in this form; the connection is closed.
fn bare(exchange: &mut Exchange, token: &[u8]) -> Progress {
    match exchange.step(token) {
        Ok(Step::Challenge(token)) => Progress::Reply(unwrapped(&token)),
        Ok(Step::Proved(user, token)) => Progress::LoggedIn(unwrapped(&token), user),
        Err(denied) => Progress::Refused(None, refused(exchange, denied)),
    }
}

fn unwrapped(token: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(4 + token.len());
    // A token is a few hundred bytes.
    frame.put_u32(u32::try_from(token.len()).unwrap_or(u32::MAX));
    frame.put_slice(token);
    frame.freeze()
}

fn refused(exchange: &Exchange, denied: Denied) -> LoginRefused {
    LoginRefused {
        mechanism: Some(exchange.mechanism()),
        user: denied.user,
        why: denied.why,
    }
}

fn replied(reply: Reply) -> Result<Progress, Refusal> {
    match reply {
        Reply::Now(bytes) => Ok(Progress::Reply(bytes)),
        Reply::Pieces(_) | Reply::Later(_) | Reply::Silent => Err(Refusal::headless()),
    }
}

fn encoded<T>(cx: &Context, response: &T) -> Result<Bytes, Refusal>
where
    T: kafka_protocol::protocol::Encodable + kafka_protocol::protocol::HeaderVersion,
{
    frame(cx.correlation_id, cx.version, response)
}

/// Where nobody is asked, or who it is has been said already.
pub(super) async fn handshake_again(
    _cx: &Context,
    _request: SaslHandshakeRequest,
) -> SaslHandshakeResponse {
    SaslHandshakeResponse::default().with_error_code(ResponseError::IllegalSaslState.code())
}

/// Sessions do not end, so there is nothing to renew (KIP-368).
pub(super) async fn authenticate_again(
    _cx: &Context,
    _request: SaslAuthenticateRequest,
) -> SaslAuthenticateResponse {
    SaslAuthenticateResponse::default()
        .with_error_code(ResponseError::IllegalSaslState.code())
        .with_error_message(Some(StrBytes::from_static_str(
            "SaslAuthenticate request received after successful authentication, or where nobody logs in",
        )))
}
