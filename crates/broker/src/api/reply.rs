//! What a request comes to: bytes to send, now or later, or the end of its connection.

use std::borrow::Cow;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::messages::{ApiKey, ResponseHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion};

use super::Context;
use super::fetched::Piece;

/// What becomes of a request.
pub(crate) enum Reply {
    /// The response frame, length included.
    Now(Bytes),
    /// The response frame in pieces, some of them in files.
    Pieces(Vec<Piece>),
    /// The response frame when what it promises is true; other requests go on meanwhile.
    Later(BoxFuture<'static, Result<Bytes, Refusal>>),
    /// The client wants no response (acks=0).
    Silent,
}

/// What a handler whose answer may take a while returns.
pub(super) enum Answer<T> {
    Later(BoxFuture<'static, T>),
    Silent,
    /// Nothing can be answered, but the client must learn that something is wrong.
    Disconnect(&'static str),
}

/// Why a connection is closed over a request: what the log line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) api_key: Option<i16>,
    pub(crate) version: Option<i16>,
    pub(crate) reason: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn new(key: ApiKey, version: i16, reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            api_key: Some(key as i16),
            version: Some(version),
            reason: reason.into(),
        }
    }

    pub(super) fn unserved(api_key: i16, version: i16) -> Self {
        Self {
            api_key: Some(api_key),
            version: Some(version),
            reason: Cow::Borrowed("the API or its version is not served"),
        }
    }

    pub(super) fn headless() -> Self {
        Self {
            api_key: None,
            version: None,
            reason: Cow::Borrowed("the request ends before its header does"),
        }
    }
}

pub(super) fn now<T: Encodable + HeaderVersion>(
    cx: &Context,
    response: T,
) -> Result<Reply, Refusal> {
    frame(cx.correlation_id, cx.version, &response).map(Reply::Now)
}

pub(super) fn pieces(_: &Context, reply: Result<Reply, Refusal>) -> Result<Reply, Refusal> {
    reply
}

pub(super) fn later<T>(cx: &Context, answer: Answer<T>) -> Result<Reply, Refusal>
where
    T: Encodable + HeaderVersion + Send + 'static,
{
    let (correlation_id, version) = (cx.correlation_id, cx.version);
    match answer {
        Answer::Later(response) => Ok(Reply::Later(
            response
                .map(move |response| frame(correlation_id, version, &response))
                .boxed(),
        )),
        Answer::Silent => Ok(Reply::Silent),
        Answer::Disconnect(reason) => Err(Refusal {
            api_key: None,
            version: Some(version),
            reason: Cow::Borrowed(reason),
        }),
    }
}

/// A response with its length and header, in one buffer of the right size.
pub(super) fn frame<T: Encodable + HeaderVersion>(
    correlation_id: i32,
    version: i16,
    response: &T,
) -> Result<Bytes, Refusal> {
    let failed = |reason: String| Refusal {
        api_key: None,
        version: Some(version),
        reason: Cow::Owned(format!("encoding the response: {reason}")),
    };
    let header_version = T::header_version(version);
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    let size = response
        .compute_size(version)
        .and_then(|body| Ok(body + header.compute_size(header_version)?))
        .map_err(|error| failed(format!("{error:#}")))?;
    let length = i32::try_from(size).map_err(|_| failed(format!("{size} bytes")))?;

    let mut buffer = BytesMut::with_capacity(4 + size);
    buffer.put_i32(length);
    header
        .encode(&mut buffer, header_version)
        .and_then(|()| response.encode(&mut buffer, version))
        .map_err(|error| failed(format!("{error:#}")))?;
    Ok(buffer.freeze())
}
