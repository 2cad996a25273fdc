//! Why a handler failed.
//!
//! A handler's error type says its [`Class`] by implementing one trait; everything that follows
//! (retry, dead letter, pause, stop) hangs on it. A listener may see an error otherwise, by its
//! type or by that of a cause beneath it: see
//! [`ListenerBuilder::classify`](crate::listener::ListenerBuilder::classify).
//!
//! | class | what happens | by which policy |
//! |---|---|---|
//! | [`Class::Transient`] | repeated in place, then by retry topics if there are any, then dead-lettered | [`retry`](crate::listener::ListenerBuilder::retry), or by cause [`retry_for`](crate::listener::ListenerBuilder::retry_for) |
//! | [`Class::Permanent`] | dead-lettered at once | |
//! | [`Class::Skip`] | settled, counted, logged | |
//! | [`Class::Unavailable`] | the listener pauses and probes with one record; no attempt and none of the retry's time is used up | [`probe`](crate::listener::ListenerBuilder::probe) |
//! | [`Class::Stop`] | the listener stops, unsettled, visibly failed | |
//!
//! **When counts begin anew.** Attempts are counted for one record, from its first failure until
//! it is settled, whatever the causes are: a change of cause does not give it a new life, and no
//! other record, key or partition touches its count. A rebalance or a restart does begin the
//! attempts in place anew; those counted by retry topics travel with the record. An outage that
//! ends counts nothing.

mod alert;
mod listener;
mod notices;
mod verdicts;

use std::error::Error;
use std::fmt;
use std::time::Duration;

pub use ackwell_core::Class;
#[cfg(test)]
pub(crate) use alert::AlertHook;
pub(crate) use alert::Hook;
pub use alert::{Alert, Counted, Raised};
pub use listener::{
    Destination, FailedAttempt, FailureListener, Place, Recovered, RecoveryFailed, Settlement,
};
pub(crate) use notices::{Notice, Notifier};
pub(crate) use verdicts::Verdict;
pub use verdicts::Verdicts;

/// An error that knows its class. The default, transient, is the careful one: the record is
/// retried and then dead-lettered, never dropped.
///
/// ```
/// use ackwell::failure::{Class, Classify};
///
/// #[derive(Debug)]
/// struct UnknownProduct(u64);
///
/// impl std::fmt::Display for UnknownProduct {
///     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
///         write!(f, "product {} is unknown", self.0)
///     }
/// }
///
/// impl std::error::Error for UnknownProduct {}
///
/// impl Classify for UnknownProduct {
///     fn class(&self) -> Class {
///         Class::Permanent
///     }
/// }
/// ```
pub trait Classify: Error + Send + Sync + 'static {
    /// What kind of failure this is.
    fn class(&self) -> Class {
        Class::Transient
    }

    /// The wait that it asks for before the next attempt, as by a `Retry-After` header. See
    /// [`Failure::retry_after`].
    fn retry_after(&self) -> Option<Duration> {
        None
    }
}

/// A classified failure of one record: what the container acts on and what a dead letter says.
///
/// It is one word, so that `Ok(())`, which nearly every record ends with, is passed on in a register.
#[derive(Debug)]
pub struct Failure(Box<Details>);

#[derive(Debug)]
struct Details {
    class: Class,
    summary: String,
    cause: Cause,
    retry_after: Option<Duration>,
}

/// The error behind a failure.
#[derive(Debug)]
enum Cause {
    None,
    /// The summary is its text.
    Same(Box<dyn Error + Send + Sync>),
    /// The summary tells more than its text.
    Beneath(Box<dyn Error + Send + Sync>),
}

impl Failure {
    /// A failure of this class; `summary` becomes the dead letter's `failure.reason`.
    pub fn new(class: Class, summary: impl Into<String>) -> Self {
        Failure(Box::new(Details {
            class,
            summary: summary.into(),
            cause: Cause::None,
            retry_after: None,
        }))
    }

    /// Shorthand for a [`Class::Transient`] failure.
    pub fn transient(summary: impl Into<String>) -> Self {
        Failure::new(Class::Transient, summary)
    }

    /// Shorthand for a [`Class::Permanent`] failure.
    pub fn permanent(summary: impl Into<String>) -> Self {
        Failure::new(Class::Permanent, summary)
    }

    /// Shorthand for a [`Class::Unavailable`] failure.
    pub fn unavailable(summary: impl Into<String>) -> Self {
        Failure::new(Class::Unavailable, summary)
    }

    /// Adds the cause, which logs show in full and by which a listener can classify.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.0.cause = Cause::Beneath(source.into());
        self
    }

    /// The record is handled again after this wait, instead of the one that the listener's policy
    /// would choose: Spring's nack with a delay, and what to do with a `Retry-After` header. It
    /// counts as an attempt, and the policy's limits hold. The container waits, not the handler;
    /// later records of the lane wait too.
    ///
    /// When the attempts in place are used up and there are retry topics, the next topic's delay
    /// is made as long as this wait, but not longer than the longest of them. Failures of other
    /// classes than [`Class::Transient`] ignore it.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// The same failure in another class.
    #[must_use]
    pub(crate) fn reclassified(mut self, class: Class) -> Self {
        self.0.class = class;
        self
    }

    /// Takes its cause out, if that is a `T`.
    pub(crate) fn take_cause<T: Error + 'static>(&mut self) -> Option<T> {
        let (error, again): (_, fn(_) -> Cause) =
            match std::mem::replace(&mut self.0.cause, Cause::None) {
                Cause::None => return None,
                Cause::Same(error) => (error, Cause::Same),
                Cause::Beneath(error) => (error, Cause::Beneath),
            };
        match error.downcast() {
            Ok(cause) => Some(*cause),
            Err(other) => {
                self.0.cause = again(other);
                None
            }
        }
    }

    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        self.0.class
    }

    /// What went wrong, in a sentence.
    pub fn summary(&self) -> &str {
        &self.0.summary
    }

    /// The wait asked for by [`retry_after`](Failure::retry_after).
    pub fn wait(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// What went wrong with all that caused it, outermost first: `charging the card: connection
    /// reset`. A cause whose text has been said already is left out.
    pub fn reason(&self) -> String {
        let mut reason = self.0.summary.clone();
        for cause in self.causes() {
            let text = cause.to_string();
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
        }
        reason
    }

    /// The errors behind it, outermost first.
    pub fn causes(&self) -> impl Iterator<Item = &(dyn Error + 'static)> {
        let first: Option<&(dyn Error + 'static)> = match &self.0.cause {
            Cause::None => None,
            Cause::Same(error) | Cause::Beneath(error) => Some(&**error),
        };
        std::iter::successors(first, |error: &&(dyn Error + 'static)| (*error).source())
    }

    /// The first error of type `E` behind it.
    pub fn find<E: Error + 'static>(&self) -> Option<&E> {
        self.causes().find_map(|error| error.downcast_ref())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.summary)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match &self.0.cause {
            Cause::None => None,
            Cause::Same(error) => error.source(),
            Cause::Beneath(error) => Some(&**error),
        }
    }
}

impl<E: Classify> From<E> for Failure {
    fn from(error: E) -> Self {
        Failure(Box::new(Details {
            class: error.class(),
            summary: error.to_string(),
            retry_after: error.retry_after(),
            cause: Cause::Same(Box::new(error)),
        }))
    }
}

impl From<Box<dyn Error + Send + Sync>> for Failure {
    /// Transient, unless it is a failure already.
    fn from(error: Box<dyn Error + Send + Sync>) -> Self {
        match error.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(error) => Failure(Box::new(Details {
                class: Class::Transient,
                summary: error.to_string(),
                cause: Cause::Same(error),
                retry_after: None,
            })),
        }
    }
}

/// The cause of a failure by a panic in the handler, to classify panics by: permanent unless
/// the listener says otherwise.
#[derive(Debug)]
#[non_exhaustive]
pub struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the handler panicked")
    }
}

impl Error for Panicked {}

#[cfg(test)]
mod tests {
    use super::*;

    type Boxed = Box<dyn Error + Send + Sync>;

    #[derive(Debug, thiserror::Error)]
    #[error("charging the card")]
    struct Charging(#[source] std::io::Error);

    impl Classify for Charging {}

    fn reset() -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::ConnectionReset, "connection reset")
    }

    #[test]
    fn an_error_without_a_class_is_transient() {
        let error: Boxed = "connection reset".into();
        let failure = Failure::from(error);
        assert_eq!(failure.class(), Class::Transient);
        assert_eq!(failure.summary(), "connection reset");
    }

    #[test]
    fn a_failure_in_a_box_keeps_its_class() {
        let error: Boxed = Box::new(Failure::permanent("no such product"));
        assert_eq!(Failure::from(error).class(), Class::Permanent);
    }

    #[test]
    fn the_reason_names_every_cause_once() {
        let failure = Failure::from(Charging(reset()));
        assert_eq!(failure.summary(), "charging the card");
        assert_eq!(failure.reason(), "charging the card: connection reset");
        let told = Failure::unavailable("connection reset").with_source(reset());
        assert_eq!(told.reason(), "connection reset");
    }

    #[test]
    fn causes_are_found_however_deep_they_lie() {
        let failure = Failure::transient("paying").with_source(Charging(reset()));
        assert!(failure.find::<Charging>().is_some());
        assert!(failure.find::<std::io::Error>().is_some());
        assert!(failure.find::<fmt::Error>().is_none());
        assert!(
            Failure::from(Charging(reset()))
                .find::<Charging>()
                .is_some()
        );
    }
}
