//! When a transient failure is repeated, and when to give up.
//!
//! ```
//! use std::time::Duration;
//! use ackwell::retry::{exponential, fixed};
//!
//! let patient = exponential(Duration::from_secs(1), 2.0)
//!     .max(Duration::from_secs(10))
//!     .within(Duration::from_secs(60))
//!     .jitter(0.2);
//! let quick = fixed(Duration::from_millis(100)).max_attempts(3);
//! # let _ = (patient, quick);
//! ```
//!
//! The listener waits, not the handler: polling goes on, so a long wait never costs the
//! partition. Other lanes go on too; the failing lane keeps its order.

use std::time::Duration;

pub use ackwell_core::RetryPolicy;

/// The same wait before each attempt. Without [`RetryPolicy::max_attempts`] or
/// [`RetryPolicy::within`] it is never given up.
pub fn fixed(interval: Duration) -> RetryPolicy {
    RetryPolicy::fixed(interval)
}

/// A first wait of `initial`, each later one `multiplier` times longer, up to
/// [`RetryPolicy::max`]. Without a limit on attempts or time it is never given up.
pub fn exponential(initial: Duration, multiplier: f64) -> RetryPolicy {
    RetryPolicy::exponential(initial, multiplier)
}

/// No second attempt: what fails is recovered at once.
pub fn none() -> RetryPolicy {
    RetryPolicy::none()
}
