//! The thread that compacts: one, so that compaction takes one core and one map of keys at most.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::pace::{Pace, Stop};
use crate::{Cleaning, Error};

/// A running cleaner. Dropping it ends the thread soon, [`Cleaner::stop`] waits for that.
#[derive(Debug)]
pub(crate) struct Cleaner {
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

impl Cleaner {
    /// Runs `pass` every so often, with what it may take.
    pub(crate) fn start(
        config: Cleaning,
        pass: impl Fn(&mut Pace<'_>) + Send + 'static,
    ) -> Result<Self, Error> {
        let stop = Arc::new(Stop::default());
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name("ackwell-cleaner".to_owned())
            .spawn(move || {
                while !stopped.wait(config.interval) {
                    let mut pace = Pace::new(&stopped, config.memory_max, config.bytes_per_second);
                    pass(&mut pace);
                }
            })
            .map_err(|error| Error::io("starting the cleaner thread", error))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the pass in progress at its next batch, and the thread. Blocking.
    pub(crate) fn stop(mut self) {
        self.stop.request();
        if self
            .thread
            .take()
            .is_some_and(|thread| thread.join().is_err())
        {
            tracing::error!("the cleaner thread panicked; this is a bug in the broker");
        }
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.stop.request();
    }
}
