//! What stands around handlers: [tower](https://docs.rs/tower-layer) layers, of one listener or of
//! all.
//!
//! A layer sees each call of a handler as one [`Request`] and its end as `Result<(), Failure>`. It
//! may measure, trace, limit or refuse; what it answers is what the listener acts on. Layers of
//! the crate `tower` fit where they are `Clone` and don't repeat a request: a timeout, a limit on
//! concurrency, a filter. Repeating is the listener's, see [`retry`](crate::retry).
//!
//! # Order
//!
//! As in axum: each `.layer(..)` stands around all that was there before, so the one added last
//! sees a request first. The app's layers stand around the listener's. (Within one
//! `tower::ServiceBuilder` it is the other way round: the first sees it first.)
//!
//! ```text
//! App::layer(b) > App::layer(a) > listener's .layer(d) > listener's .layer(c) > extractors > handler
//! ```
//!
//! The transaction of a listener stands outside: it is committed when the outermost layer answers
//! `Ok`, and rolled back when it answers an error, such as that of a timeout.
//!
//! ```
//! use std::task::{Context, Poll};
//! use ackwell::layer::{Next, Request};
//! use ackwell::{Listener, extract::Text};
//! use tower_layer::layer_fn;
//! use tower_service::Service;
//!
//! /// Says which record is handled.
//! #[derive(Clone)]
//! struct Told<S>(S);
//!
//! impl<S: Service<Request>> Service<Request> for Told<S> {
//!     type Response = S::Response;
//!     type Error = S::Error;
//!     type Future = S::Future;
//!
//!     fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
//!         self.0.poll_ready(cx)
//!     }
//!
//!     fn call(&mut self, request: Request) -> S::Future {
//!         println!("{}: {}", request.listener(), request.record().offset());
//!         self.0.call(request)
//!     }
//! }
//!
//! async fn print(Text(text): Text) {
//!     println!("{text}");
//! }
//!
//! let listener = Listener::on("audit-events").layer(layer_fn(Told::<Next>)).handle(print);
//! # let _ = listener;
//! ```

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use tower_layer::Layer;
use tower_service::Service;

use crate::container::RecordHandler;
use crate::extensions::Extensions;
use crate::failure::Failure;
use crate::record::Record;

/// One call of a handler: a record, or the records of a batch.
#[derive(Debug)]
pub struct Request {
    listener: Arc<str>,
    /// The first one.
    record: Record,
    /// All of them, for a batch listener.
    batch: Option<Vec<Record>>,
    attempt: u32,
    extensions: Extensions,
}

impl Request {
    /// The listener's name.
    pub fn listener(&self) -> &str {
        &self.listener
    }

    /// The record; of a batch, the first.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// All of its records: one, unless the listener takes batches.
    pub fn records(&self) -> &[Record] {
        let one = std::slice::from_ref(&self.record);
        self.batch.as_deref().unwrap_or(one)
    }

    /// Which attempt at the (first) record it is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Values that travel with it.
    pub fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The same, to add one: the handler asks for it as
    /// [`Extension<T>`](struct@crate::extract::Extension).
    pub fn extensions_mut(&mut self) -> &mut Extensions {
        &mut self.extensions
    }
}

/// What a layer stands around: the layers within it and the handler. Cheap to clone.
#[derive(Clone)]
pub struct Next(Arc<dyn RecordHandler>);

impl Service<Request> for Next {
    type Response = ();
    type Error = Failure;
    type Future = BoxFuture<'static, Result<(), Failure>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Request {
            record,
            batch,
            attempt,
            extensions,
            ..
        } = request;
        match batch {
            None => self.0.call(record, attempt, extensions),
            Some(records) => self.0.call_batch(records, attempt, extensions),
        }
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Next")
    }
}

/// A layer whose types are forgotten.
#[derive(Clone)]
pub(crate) struct ErasedLayer(Arc<Wrap>);

type Wrap = dyn Fn(&Arc<str>, Next) -> Arc<dyn RecordHandler> + Send + Sync;

impl ErasedLayer {
    pub(crate) fn new<L>(layer: L) -> Self
    where
        L: Layer<Next> + Send + Sync + 'static,
        L::Service: Service<Request, Response = ()> + Clone + Send + Sync + 'static,
        <L::Service as Service<Request>>::Error: Into<Failure>,
        <L::Service as Service<Request>>::Future: Send,
    {
        Self(Arc::new(move |listener, next: Next| {
            let batch = next.0.is_batch();
            let service = layer.layer(next);
            let listener = Arc::clone(listener);
            Arc::new(Layered {
                service,
                listener,
                batch,
            })
        }))
    }
}

/// Puts layers around a listener's handler, the first one innermost.
pub(crate) fn wrapped<'a>(
    listener: &str,
    handler: Arc<dyn RecordHandler>,
    layers: impl Iterator<Item = &'a ErasedLayer>,
) -> Arc<dyn RecordHandler> {
    let listener: Arc<str> = listener.into();
    layers.fold(handler, |handler, layer| {
        (layer.0)(&listener, Next(handler))
    })
}

struct Layered<S> {
    service: S,
    listener: Arc<str>,
    batch: bool,
}

impl<S> Layered<S>
where
    S: Service<Request, Response = ()> + Clone + Send + Sync + 'static,
    S::Error: Into<Failure>,
    S::Future: Send,
{
    fn send(&self, request: Request) -> BoxFuture<'static, Result<(), Failure>> {
        let mut service = self.service.clone();
        Box::pin(async move {
            poll_fn(|cx| service.poll_ready(cx))
                .await
                .map_err(Into::into)?;
            service.call(request).await.map_err(Into::into)
        })
    }
}

impl<S> RecordHandler for Layered<S>
where
    S: Service<Request, Response = ()> + Clone + Send + Sync + 'static,
    S::Error: Into<Failure>,
    S::Future: Send,
{
    fn call(
        &self,
        record: Record,
        attempt: u32,
        extensions: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        self.send(Request {
            listener: Arc::clone(&self.listener),
            record,
            batch: None,
            attempt,
            extensions,
        })
    }

    fn is_batch(&self) -> bool {
        self.batch
    }

    fn call_batch(
        &self,
        records: Vec<Record>,
        attempt: u32,
        extensions: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        let Some(record) = records.first().cloned() else {
            return Box::pin(std::future::ready(Ok(())));
        };
        self.send(Request {
            listener: Arc::clone(&self.listener),
            record,
            batch: Some(records),
            attempt,
            extensions,
        })
    }
}
