//! How many records of a listener share a transaction: as many as don't make its lanes wait for each other.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use ackwell::core::window::Window;

use crate::database::Database;

/// Room for records in a transaction. All lanes of a listener share it, since their records are of one kind. On
/// a SQLite file, which has one writer, nobody is ever in the way.
pub(crate) struct Room {
    window: Mutex<Window>,
    /// The window's size, which is looked at after each record.
    size: AtomicUsize,
}

impl Room {
    pub(crate) fn new(database: &Database) -> Self {
        let window = Window::new(database.gate().group_members());
        Self {
            size: AtomicUsize::new(window.size()),
            window: Mutex::new(window),
        }
    }

    /// Whether a group of this many members should take no more.
    pub(super) fn is_full(&self, members: usize) -> bool {
        members >= self.size.load(Relaxed)
    }

    /// A group of this many members has given way.
    pub(super) fn gave_way(&self, members: usize) {
        self.change(|window| window.met(members));
    }

    /// A group of this many members was full before it met others.
    pub(super) fn filled(&self, members: usize) {
        self.change(|window| window.passed(members));
    }

    fn change(&self, change: impl FnOnce(&mut Window)) {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut window);
        self.size.store(window.size(), Relaxed);
    }
}
