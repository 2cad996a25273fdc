//! Open files of segments, so many at most: a process may open 1,024 on most systems, and a topic may have
//! thousands of segments.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Segment files open at a time. One is reopened in some microseconds, so this only has to be far below 1,024.
const OPEN_MAX: usize = 384;

/// The segment files of a data folder that are open, oldest first.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    order: Mutex<VecDeque<Weak<Slot>>>,
    max: usize,
}

impl Default for OpenFiles {
    fn default() -> Self {
        Self::at_most(OPEN_MAX)
    }
}

/// Where a segment keeps its file while it is open.
#[derive(Debug, Default)]
pub(super) struct Slot(Mutex<Option<Arc<File>>>);

impl OpenFiles {
    /// Keeps `max` files open, and for a moment those that are being used.
    pub(super) fn at_most(max: usize) -> Self {
        Self {
            order: Mutex::default(),
            max,
        }
    }

    /// The file at `path` for reading and appending; it stays open in `slot` for a while.
    pub(super) fn get(&self, slot: &Arc<Slot>, path: &Path, create: bool) -> io::Result<Arc<File>> {
        let file = {
            let mut held = slot.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(file) = &*held {
                return Ok(file.clone());
            }
            let file = Arc::new(
                OpenOptions::new()
                    .read(true)
                    .append(true)
                    .create(create)
                    .open(path)?,
            );
            held.insert(file).clone()
        };
        self.opened(slot);
        Ok(file)
    }

    fn opened(&self, slot: &Arc<Slot>) {
        let oldest = {
            let mut order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
            order.push_back(Arc::downgrade(slot));
            if order.len() > self.max {
                order.pop_front()
            } else {
                None
            }
        };
        if let Some(oldest) = oldest.and_then(|slot| slot.upgrade()) {
            oldest
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
        }
    }
}
