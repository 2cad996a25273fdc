//! How the poll thread hears of what happens elsewhere.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::thread::Thread;

use ackwell_core::engine::Event;

use super::command::Command;
use super::lookup::Found;
use super::rebalance::Announced;
use crate::record::Record;

/// What the poll thread hears.
#[derive(Debug)]
pub(super) enum Message {
    /// For the engine.
    Event(Event<Record>),
    /// From a handle.
    Command(Command),
    /// From the lookup thread.
    Found(Found),
    /// A rebalance listener was told.
    Announced(Announced),
}

/// Sends messages to the poll thread and wakes it.
///
/// The channel needs no bound of its own: a lane has one run, and a run sends at most one event a
/// record; lanes and queued records are bounded. So a sender never waits, whatever the poll
/// thread does. Commands are awaited one by one by those who give them.
#[derive(Debug, Clone)]
pub(super) struct Mailbox {
    sender: Sender<Message>,
    waker: Waker,
}

/// Wakes the poll thread.
#[derive(Debug, Clone, Default)]
pub(super) struct Waker(Arc<OnceLock<Thread>>);

impl Waker {
    pub(super) fn set(&self, thread: Thread) {
        // Only the poll thread calls this, once.
        let _ = self.0.set(thread);
    }

    pub(super) fn wake(&self) {
        if let Some(thread) = self.0.get() {
            thread.unpark();
        }
    }
}

impl Mailbox {
    pub(super) fn new() -> (Mailbox, Receiver<Message>) {
        let (sender, receiver) = channel();
        (
            Mailbox {
                sender,
                waker: Waker::default(),
            },
            receiver,
        )
    }

    /// Sends an event; after the container's end it goes nowhere.
    pub(super) fn send(&self, event: Event<Record>) {
        self.tell(Message::Event(event));
    }

    /// Sends any message; after the container's end it goes nowhere, and a command's answer is
    /// dropped with it.
    pub(super) fn tell(&self, message: Message) {
        if self.sender.send(message).is_ok() {
            self.waker.wake();
        }
    }

    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }
}
