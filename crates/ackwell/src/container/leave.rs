//! The end of the poll thread: the group is left, and the clients end beside that.
//!
//! Clients end slowly: threads that poll them look every 100 ms whether they are to end, and so does the consumer whether
//! the group is left. One after another, that came to a quarter of a second behind the limit of a stop.

use std::thread;
use std::time::Duration;

use rdkafka::consumer::Consumer;

use super::consumer::Client;
use super::observation::Observation;
use super::poll::Poller;

/// Between two looks whether the group is left.
const LOOK: Duration = Duration::from_millis(2);

impl Poller {
    /// Returns when the group is left and all that the thread owns has ended.
    pub(super) fn leave(mut self) {
        if let Some(acks) = &mut self.dispatcher.acks {
            acks.close_all();
        }
        // Rebalances are answered on the spot from here.
        self.client.context().close();
        self.answer_open_rebalance();
        let Poller {
            client,
            committer,
            lookups,
            mut partitions,
            dispatcher,
            dead_letters,
            retry_topics,
            ..
        } = self;
        committer.join();
        lookups.join();
        partitions.clear();
        dispatcher.observer.observe(&Observation::Ended);
        thread::scope(|scope| {
            scope.spawn(move || drop((dead_letters, retry_topics)));
            leave_group(&client);
        });
    }
}

/// As dropping the client does, which then finds it done.
fn leave_group(client: &Client) {
    if let Err(error) = client.close_queue() {
        tracing::warn!(%error, "the group could not be left");
        return;
    }
    while !client.closed() {
        // What still comes is told to the context; records count no more.
        drop(client.poll(LOOK));
    }
}
