//! A call of a handler, whose panics stay its own.

use std::any::Any;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;

use crate::failure::{Failure, Panicked};

/// Records being handled. A panic of the handler is a permanent failure.
pub struct Handling(BoxFuture<'static, Result<(), Failure>>);

impl Handling {
    pub(super) fn begin(call: impl FnOnce() -> BoxFuture<'static, Result<(), Failure>>) -> Self {
        match std::panic::catch_unwind(AssertUnwindSafe(call)) {
            Ok(handling) => Handling(handling),
            Err(panic) => Handling::refused(panicked("the handler", &*panic)),
        }
    }

    pub(super) fn refused(failure: Failure) -> Self {
        Handling(Box::pin(std::future::ready(Err(failure))))
    }
}

impl Future for Handling {
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = AssertUnwindSafe(|| self.0.as_mut().poll(cx));
        let polled = std::panic::catch_unwind(poll);
        polled.unwrap_or_else(|panic| Poll::Ready(Err(panicked("the handler", &*panic))))
    }
}

impl fmt::Debug for Handling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handling")
    }
}

/// A panic of the user's code as a permanent failure of its record.
pub(crate) fn panicked(who: &str, panic: &(dyn Any + Send)) -> Failure {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    Failure::permanent(format!("{who} panicked: {text}")).with_source(Panicked)
}
