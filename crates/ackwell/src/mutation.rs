//! Real faults in what carries decisions out, to see that the process suites notice each of them.
//!
//! A suite that has never failed may be unable to. With the feature `mutations`, the environment
//! variable [`FAULT`] names the one fault that a process has; `scripts/faults.sh` builds the suites
//! so and shows for each fault the test that finds it. Without the feature, which is how the crate
//! is always built but for that, [`is`] is a constant `false` and nothing is left of it. A build
//! without debug assertions refuses the feature.
//!
//! Faults of decisions are built into `ackwell-core`, whose simulation finds them.

#[cfg(all(feature = "mutations", not(debug_assertions)))]
compile_error!("`mutations` builds faults into listeners: it is for tests, not for a release");

/// One thing that a container does wrong.
#[cfg_attr(
    not(feature = "mutations"),
    expect(unreachable_pub, reason = "the module is public with the feature")
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Records count as settled when they go to their handler.
    SettledBeforeHandled,
    /// A commit that failed counts as done.
    CommitErrorIgnored,
    /// A commit that had to wait is sent although its partitions have gone meanwhile.
    GonePartitionsCommitted,
    /// A record counts as settled before its dead letter is acknowledged.
    DeadLetterNotAwaited,
    /// A record counts as settled before its copy in a retry topic is acknowledged.
    RetryNotAwaited,
    /// Partitions are handed over while their records are in work, without a last commit.
    DrainSkipped,
    /// What is settled beyond a position is not read back with it.
    MetadataNotRead,
}

/// Whether this fault is switched on.
#[cfg(not(feature = "mutations"))]
pub(crate) const fn is(_: Fault) -> bool {
    false
}

#[cfg(feature = "mutations")]
pub use chosen::{FAULT, is};

#[cfg(feature = "mutations")]
mod chosen {
    use std::fmt::Debug;
    use std::sync::LazyLock;

    /// The environment variable that names the fault of this process.
    pub const FAULT: &str = "ACKWELL_FAULT";

    static CHOSEN: LazyLock<Option<String>> = LazyLock::new(|| std::env::var(FAULT).ok());

    /// Whether the process has this fault, of this crate or of one that builds on it.
    pub fn is(fault: impl Debug) -> bool {
        let chosen = CHOSEN.as_deref();
        chosen.is_some_and(|chosen| chosen == format!("{fault:?}"))
    }
}
