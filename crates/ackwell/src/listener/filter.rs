use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use crate::failure::Failure;
use crate::record::Record;
use crate::unit::panicked;

/// Which records a listener handles at all.
#[derive(Clone)]
pub struct Filter(Arc<dyn Fn(&Record) -> bool + Send + Sync>);

/// What a filter made of a record.
#[derive(Debug)]
pub(crate) enum Passage {
    Handled,
    PassedOver,
    /// The predicate panicked: nobody knows what it would have said.
    Failed(Failure),
}

impl Filter {
    /// Handles the records for which `predicate` is true.
    pub fn new(predicate: impl Fn(&Record) -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(predicate))
    }

    /// Handles what both filters let through; this one is asked first.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self::new(move |record| (self.0)(record) && (other.0)(record))
    }

    pub(crate) fn passage(&self, record: &Record) -> Passage {
        let asked = std::panic::catch_unwind(AssertUnwindSafe(|| (self.0)(record)));
        match asked {
            Ok(true) => Passage::Handled,
            Ok(false) => Passage::PassedOver,
            Err(panic) => Passage::Failed(panicked("the filter", &*panic)),
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Filter")
    }
}
