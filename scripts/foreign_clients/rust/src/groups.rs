//! Groups, for which this client has the broker assign (KIP-848).

use std::collections::HashMap;
use std::time::Instant;

use confluent_kafka::consumer::{Consumer, OffsetAndMetadata};
use confluent_kafka::producer::Producer;

use crate::{On, Outcome, POLL_WAIT, WAIT_MAX, numbers, read, same, values};

impl On {
    pub(crate) async fn a_group_commits_and_resumes(&self) -> Outcome {
        let producer = self.producer(&[])?;
        self.send(&producer, 0, &numbers(0..10)).await?;
        let mut consumer = self.consumer(&self.group, &[])?;
        consumer
            .subscribe_with_topics(vec![self.topic.clone()])
            .await?;
        same(
            "at first",
            values(&read(&mut consumer, 10).await?),
            numbers(0..10),
        )?;
        let position = OffsetAndMetadata::with_metadata(7, "seven")?;
        consumer
            .commit_sync_with_offsets(HashMap::from([(self.partition(0), position)]))
            .await?;
        consumer.close().await?;

        self.send(&producer, 0, &numbers(10..12)).await?;
        producer.close().await?;
        let mut consumer = self.consumer(&self.group, &[])?;
        consumer
            .subscribe_with_topics(vec![self.topic.clone()])
            .await?;
        same(
            "resumed",
            values(&read(&mut consumer, 5).await?),
            numbers(7..12),
        )?;
        let committed = consumer.committed(&[self.partition(0)]).await?;
        let committed = committed.get(&self.partition(0)).cloned().flatten();
        let committed = committed.map(|it| (it.offset(), it.metadata().to_owned()));
        same("committed", committed, Some((7, "seven".to_owned())))?;
        Ok(consumer.close().await?)
    }

    pub(crate) async fn two_members_share(&self) -> Outcome {
        let mut members = [
            self.consumer(&self.group, &[])?,
            self.consumer(&self.group, &[])?,
        ];
        for member in &mut members {
            member
                .subscribe_with_topics(vec![self.topic.clone()])
                .await?;
        }
        let until = Instant::now() + WAIT_MAX;
        loop {
            for member in &mut members {
                member.poll(POLL_WAIT).await?;
            }
            let owned: Vec<_> = members.iter_mut().map(Consumer::assignment).collect();
            if owned.iter().all(|it| it.len() == 1) && owned[0] != owned[1] {
                break;
            }
            if Instant::now() > until {
                return Err(format!("not shared: {owned:?}").into());
            }
        }
        let admin = self.admin()?;
        let described = admin
            .describe_consumer_groups(&[self.group.clone()])
            .all()
            .get()
            .await?;
        let members_told = described
            .get(&self.group)
            .map(|group| group.members().len());
        same("members told", members_told, Some(2))?;
        admin.close().await;
        for mut member in members {
            member.close().await?;
        }
        Ok(())
    }
}
