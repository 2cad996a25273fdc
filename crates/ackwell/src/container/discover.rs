//! The topics of a pattern: looked for while the listener runs, and subscribed to by name.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use rdkafka::consumer::Consumer;
use tokio::sync::watch;

use super::End;
use super::consumer::{Client, Told};
use super::mailbox::Waker;
use super::spec::Spec;
use crate::dead_letters::DeadLetters;
use crate::listener::Matcher;

/// How long the broker may take to list its topics.
const LIST_TIMEOUT: Duration = Duration::from_secs(5);

/// Looks for the topics of one listener's pattern.
pub(super) struct Discovery {
    /// Dropping the client leaves the group, which must not wait for a look in progress.
    client: Weak<Client>,
    matcher: Arc<Matcher>,
    named: Vec<String>,
    dead_letters: DeadLetters,
    subscribed: BTreeSet<String>,
    waker: Waker,
    problem: Option<String>,
}

impl Discovery {
    pub(super) fn new(
        spec: &Spec,
        matcher: Arc<Matcher>,
        client: &Arc<Client>,
        waker: Waker,
    ) -> Self {
        Discovery {
            client: Arc::downgrade(client),
            matcher,
            named: spec.topics.clone(),
            dead_letters: spec.dead_letters.clone(),
            subscribed: spec.topics.iter().cloned().collect(),
            waker,
            problem: None,
        }
    }

    /// Looks again and again, until the container has ended.
    pub(super) async fn run(mut self, mut end: watch::Receiver<Option<End>>) {
        let interval = self.matcher.refresh();
        loop {
            tokio::select! {
                _ = end.wait_for(Option::is_some) => return,
                looked = self.look() => self.tell(looked.err()),
            }
            tokio::select! {
                _ = end.wait_for(Option::is_some) => return,
                () = tokio::time::sleep(interval) => {}
            }
        }
    }

    /// Lets the poll thread know what keeps the pattern from meaning any topic.
    fn tell(&mut self, problem: Option<String>) {
        if self.problem == problem {
            return;
        }
        if let Some(client) = self.client.upgrade() {
            client.context().tell(Told::Topics(problem.clone()));
            self.waker.wake();
        }
        self.problem = problem;
    }

    /// Subscribes to what is there now; the error says why that is nothing, or unknown.
    async fn look(&mut self) -> Result<(), String> {
        let listed = self.list().await?;
        let meant = self.meant(&listed);
        if meant.is_empty() {
            return Err(self.nothing(&listed));
        }
        if meant == self.subscribed {
            return Ok(());
        }
        let client = self.client.upgrade().ok_or("the listener has ended")?;
        let names: Vec<_> = meant.iter().map(String::as_str).collect();
        let subscribed = client.subscribe(&names);
        subscribed.map_err(|error| format!("subscribing to {} topics: {error}", names.len()))?;
        let new: Vec<_> = meant.difference(&self.subscribed).collect();
        let gone: Vec<_> = self.subscribed.difference(&meant).collect();
        let pattern = self.matcher.source();
        tracing::info!(
            pattern,
            ?new,
            ?gone,
            topics = meant.len(),
            "topics of a pattern changed"
        );
        self.subscribed = meant;
        Ok(())
    }

    async fn list(&self) -> Result<Vec<String>, String> {
        let client = Weak::clone(&self.client);
        let list = move || {
            let client = client.upgrade().ok_or("the listener has ended")?;
            let metadata = client.fetch_metadata(None, LIST_TIMEOUT);
            let metadata = metadata.map_err(|error| format!("listing the topics: {error}"))?;
            let topics = metadata.topics().iter();
            let there = topics.filter(|topic| topic.error().is_none());
            Ok(there.map(|topic| topic.name().to_owned()).collect())
        };
        let listed = tokio::task::spawn_blocking(list).await;
        listed.unwrap_or_else(|_| Err("listing the topics was interrupted".to_owned()))
    }

    /// The topics named, and those that match and are not where the others' dead letters go.
    fn meant(&self, listed: &[String]) -> BTreeSet<String> {
        let matching: Vec<_> = (listed.iter())
            .filter(|topic| self.matcher.means(topic))
            .collect();
        let letters: BTreeSet<_> = match &self.dead_letters {
            DeadLetters::To(target) => (matching.iter())
                .flat_map(|topic| target.topics_for(topic))
                .collect(),
            DeadLetters::Stop => BTreeSet::new(),
        };
        let matching = matching
            .into_iter()
            .filter(|topic| !letters.contains(*topic));
        matching.chain(&self.named).cloned().collect()
    }

    fn nothing(&self, listed: &[String]) -> String {
        let pattern = self.matcher.source();
        let left_out = listed.iter().filter(|topic| self.matcher.leaves_out(topic));
        match left_out.count() {
            0 => format!("no topic matches `{pattern}` yet"),
            count => format!(
                "no topic matches `{pattern}` yet, except {count} that are left out as internal, dead letters or retries"
            ),
        }
    }
}
