//! Why a handler failed.
//!
//! A handler's error type says its [`Class`] by implementing one trait; everything that follows
//! (retry, dead letter, pause, stop) hangs on it.

use std::error::Error;
use std::fmt;

pub use ackwell_core::Class;

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
/// impl Classify for UnknownProduct {
///     fn class(&self) -> Class {
///         Class::Permanent
///     }
/// }
/// ```
pub trait Classify: fmt::Display {
    /// What kind of failure this is.
    fn class(&self) -> Class {
        Class::Transient
    }

    /// The failure that it stands for: its class and its text. Override it to add the cause.
    fn into_failure(self) -> Failure
    where
        Self: Sized,
    {
        Failure::new(self.class(), self.to_string())
    }
}

/// Transient, unless it is a [`Failure`]: that stays as it is, also on its way through a layer that
/// boxes errors.
impl Classify for Box<dyn Error + Send + Sync> {
    fn class(&self) -> Class {
        let failure = self.downcast_ref::<Failure>();
        failure.map_or(Class::Transient, Failure::class)
    }

    fn into_failure(self) -> Failure {
        match self.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(error) => Failure::new(Class::Transient, error.to_string()).with_source(error),
        }
    }
}

/// A classified failure of one record: what the container acts on and what a dead letter says.
#[derive(Debug)]
pub struct Failure {
    class: Class,
    summary: String,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl Failure {
    /// A failure of this class; `summary` becomes the dead letter's `failure.reason`.
    pub fn new(class: Class, summary: impl Into<String>) -> Self {
        Failure {
            class,
            summary: summary.into(),
            source: None,
        }
    }

    /// Shorthand for a [`Class::Permanent`] failure.
    pub fn permanent(summary: impl Into<String>) -> Self {
        Failure::new(Class::Permanent, summary)
    }

    /// Shorthand for a [`Class::Unavailable`] failure.
    pub fn unavailable(summary: impl Into<String>) -> Self {
        Failure::new(Class::Unavailable, summary)
    }

    /// Adds the cause, which logs show in full.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    pub fn class(&self) -> Class {
        self.class
    }

    pub(crate) fn is_caused_by<T: Error + 'static>(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.is::<T>())
    }

    /// Takes the cause out, if it is a `T`.
    pub(crate) fn take_source<T: Error + 'static>(&mut self) -> Option<Box<T>> {
        match self.source.take()?.downcast() {
            Ok(source) => Some(source),
            Err(other) => {
                self.source = Some(other);
                None
            }
        }
    }

    /// What went wrong, in a sentence.
    pub fn summary(&self) -> &str {
        &self.summary
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)
    }
}

impl Error for Failure {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source
            .as_deref()
            .map(|source| source as &(dyn Error + 'static))
    }
}

impl<E: Classify> From<E> for Failure {
    fn from(error: E) -> Self {
        error.into_failure()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_without_a_class_is_transient() {
        let error: Box<dyn Error + Send + Sync> = "connection reset".into();
        let failure = Failure::from(error);
        assert_eq!(failure.class(), Class::Transient);
        assert_eq!(failure.summary(), "connection reset");
    }
}
