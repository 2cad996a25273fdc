//! Plain async functions as handlers.
//!
//! A handler asks for what it needs by the types of its arguments, as in axum. Whether each
//! argument can be had is checked by the compiler, and what only the running app knows (a
//! state, a database) when the listener starts, never at the first record.

mod batch;
mod events;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Map};

use crate::container::RecordHandler;
use crate::context::{Context, Setup, SetupError, Shared};
use crate::extensions::Extensions;
use crate::extract::FromRecord;
use crate::failure::Failure;
use crate::record::Record;
use crate::trace;
use crate::unit::{Run, panicked};

pub(crate) use batch::TypedBatch;
pub use events::EventArguments;
pub(crate) use events::Routes;

/// An async function with up to eight extractors that returns nothing, or `Result<(), E>` where
/// `E` says its class ([`Classify`](crate::Classify)).
///
/// ```
/// use ackwell::extract::{Key, Offset, Text};
///
/// async fn print(Key(key): Key, Text(text): Text, Offset(offset): Offset) {
///     println!("{offset}: {key:?} = {text}");
/// }
/// # fn handler<A>(_: impl ackwell::Handler<A>) {}
/// # handler(print);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't handle records",
    label = "not a handler",
    note = "a handler is an `async fn` with up to 8 arguments that implement `FromRecord`, taken by value; its future must be `Send`",
    note = "it returns `()` or `Result<(), E>` where `E: Classify` (or `Failure`, or a boxed error)",
    note = "a handler that takes a `Batch` is given to `.handle_batch(..)`"
)]
pub trait Handler<Arguments>: Clone + Send + Sync + 'static {
    /// The verdict on the record, once it is handled.
    type Future: Future<Output = Result<(), Failure>> + Send + 'static;

    /// Whether one of its arguments [may look](FromRecord::LOOKS_AT_HEADERS) at a record's headers.
    const LOOKS_AT_HEADERS: bool = true;

    /// Calls it with what it asks for.
    ///
    /// # Errors
    /// With the failure of an extractor; the function has then not been called.
    fn call(&self, cx: &mut Context) -> Result<Self::Future, Failure>;

    /// Asks every extractor what it will need.
    ///
    /// # Errors
    /// When something is missing.
    fn prepare(setup: &mut Setup<'_>) -> Result<(), SetupError>;
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler can't return `{Self}`",
    label = "neither `()` nor `Result<(), E>` with a classified error",
    note = "implement `ackwell::Classify` for the error type to say whether it is transient, permanent, .."
)]
pub trait Outcome {
    /// The verdict on the record.
    ///
    /// # Errors
    /// With the handler's classified failure.
    fn into_result(self) -> Result<(), Failure>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: Into<Failure>> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), Failure> {
        self.map_err(Into::into)
    }
}

macro_rules! handler {
    ($($argument:ident),*) => {
        #[expect(clippy::allow_attributes, reason = "some arities use every name")]
        #[allow(non_snake_case, unused_variables, reason = "type names double as variables")]
        impl<F, R, $($argument,)*> Handler<($($argument,)*)> for F
        where
            F: Fn($($argument),*) -> R + Clone + Send + Sync + 'static,
            R: Future + Send + 'static,
            R::Output: Outcome,
            $($argument: FromRecord,)*
        {
            type Future = Map<R, fn(R::Output) -> Result<(), Failure>>;

            const LOOKS_AT_HEADERS: bool = false $(|| $argument::LOOKS_AT_HEADERS)*;

            fn call(&self, cx: &mut Context) -> Result<Self::Future, Failure> {
                $(let $argument = $argument::from_record(cx)?;)*
                Ok(self($($argument),*).map(Outcome::into_result as fn(R::Output) -> _))
            }

            fn prepare(setup: &mut Setup<'_>) -> Result<(), SetupError> {
                $($argument::prepare(setup)?;)*
                Ok(())
            }
        }
    };
}

handler!();
handler!(A);
handler!(A, B);
handler!(A, B, C);
handler!(A, B, C, D);
handler!(A, B, C, D, E);
handler!(A, B, C, D, E, G);
handler!(A, B, C, D, E, G, H);
handler!(A, B, C, D, E, G, H, I);

/// A handler whose arguments' types are forgotten, so that listeners can stand in one list.
pub(crate) trait Erased: Send + Sync + 'static {
    fn prepare(&self, setup: &mut Setup<'_>) -> Result<(), SetupError>;
    fn bind(&self, shared: Arc<Shared>) -> Arc<dyn RecordHandler>;
}

pub(crate) struct Typed<H, A> {
    handler: H,
    arguments: PhantomData<fn() -> A>,
}

impl<H, A> Typed<H, A> {
    pub(crate) fn new(handler: H) -> Self {
        Self {
            handler,
            arguments: PhantomData,
        }
    }
}

impl<H: Handler<A>, A: 'static> Erased for Typed<H, A> {
    fn prepare(&self, setup: &mut Setup<'_>) -> Result<(), SetupError> {
        setup.handler(H::prepare)
    }

    fn bind(&self, shared: Arc<Shared>) -> Arc<dyn RecordHandler> {
        let handler = self.handler.clone();
        Arc::new(Bound {
            handler,
            shared,
            arguments: PhantomData,
        })
    }
}

struct Bound<H, A> {
    handler: H,
    shared: Arc<Shared>,
    arguments: PhantomData<fn() -> A>,
}

impl<H: Handler<A>, A: 'static> RecordHandler for Bound<H, A> {
    fn call(
        &self,
        record: Record,
        attempt: u32,
        extensions: Extensions,
    ) -> BoxFuture<'static, Result<(), Failure>> {
        let cause = record.clone();
        let mut cx = Context::new(record, attempt, extensions, Arc::clone(&self.shared));
        match self.handler.call(&mut cx) {
            Ok(handling) => Box::pin(trace::following(cause, handling)),
            Err(failure) => Box::pin(std::future::ready(Err(self.shared.refused(failure)))),
        }
    }

    fn looks_at_headers(&self) -> bool {
        H::LOOKS_AT_HEADERS
    }

    fn handle_run<'a>(&'a self, run: &'a mut Run) -> BoxFuture<'a, ()> {
        Box::pin(trace::following_records(async move {
            let mut cx: Option<Context> = None;
            while let Some((record, attempt)) = run.take() {
                trace::turn_to(record);
                let cx = match &mut cx {
                    Some(cx) => {
                        cx.turn_to(record, attempt);
                        cx
                    }
                    none => none.insert(self.context(record.clone(), attempt)),
                };
                run.put_ack(cx.extensions());
                match self.handle(run, cx).await {
                    Ok(()) => run.settled(1),
                    Err(failure) => return run.failed(failure),
                }
            }
        }))
    }
}

impl<H: Handler<A>, A: 'static> Bound<H, A> {
    fn context(&self, record: Record, attempt: u32) -> Context {
        Context::new(record, attempt, Extensions::new(), Arc::clone(&self.shared))
    }

    /// Handles one record where the run's own future lies, so that it costs no allocation.
    async fn handle(&self, run: &mut Run, cx: &mut Context) -> Result<(), Failure> {
        if let Some(refusal) = run.refusal(cx.record()) {
            return Err(refusal);
        }
        let call = AssertUnwindSafe(|| self.handler.call(cx));
        let called =
            std::panic::catch_unwind(call).map_err(|panic| panicked("the handler", &*panic))?;
        let handling = called.map_err(|failure| self.shared.refused(failure))?;
        let handling = AssertUnwindSafe(handling).catch_unwind();
        let handled = run.drive(handling).await;
        handled.unwrap_or_else(|panic| Err(panicked("the handler", &*panic)))
    }
}

impl<H, A> fmt::Debug for Typed<H, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Typed")
    }
}
