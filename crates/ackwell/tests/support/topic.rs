//! Topics that are there when their creation is over.

#![allow(
    clippy::expect_used,
    dead_code,
    unreachable_pub,
    reason = "a test fails by panicking; each includes this file by its path"
)]

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic};
use rdkafka::client::DefaultClientContext;

/// How long a broker may take to learn of a topic, and to answer.
const LIMIT: Duration = Duration::from_secs(60);

/// Creates a topic, and waits until it is [`known`].
pub(crate) async fn create(admin: &AdminClient<DefaultClientContext>, topic: &NewTopic<'_>) {
    let made = admin.create_topics([topic], &AdminOptions::new()).await;
    for made in made.expect("an answer") {
        made.expect("the topic is made");
    }
    known(admin, topic).await;
}

/// Waits until all partitions have leaders. Apache Kafka says that a topic is made when its controller has it; on a loaded
/// machine, its brokers learn of it later.
pub(crate) async fn known(admin: &AdminClient<DefaultClientContext>, topic: &NewTopic<'_>) {
    let known = async {
        while !tokio::task::block_in_place(|| is_known(admin, topic)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let known = tokio::time::timeout(LIMIT, known).await;
    known.expect("the brokers know the topic");
}

fn is_known(admin: &AdminClient<DefaultClientContext>, topic: &NewTopic<'_>) -> bool {
    let Ok(metadata) = admin.inner().fetch_metadata(Some(topic.name), LIMIT) else {
        return false;
    };
    metadata.topics().iter().any(|found| {
        let led = found.partitions().iter().filter(|it| it.leader() >= 0);
        found.error().is_none() && i32::try_from(led.count()) == Ok(topic.num_partitions)
    })
}
