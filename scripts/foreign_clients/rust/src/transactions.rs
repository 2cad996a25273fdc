//! Transactions, by themselves and with the offsets of a group.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use confluent_kafka::consumer::{Consumer, OffsetAndMetadata};
use confluent_kafka::producer::Producer;

use crate::{On, Outcome, POLL_WAIT, WAIT_MAX, numbers, same, values};

impl On {
    pub(crate) async fn a_transaction_counts_as_a_whole(&self) -> Outcome {
        let producer = self.producer(&[("transactional.id", &self.group)])?;
        producer.init_transactions().await?;
        for (range, committed) in [(0..5, true), (5..8, false), (8..11, true)] {
            producer.begin_transaction()?;
            self.send(&producer, 0, &numbers(range)).await?;
            match committed {
                true => producer.commit_transaction().await?,
                false => producer.abort_transaction().await?,
            }
        }
        producer.close().await?;
        let wanted: Vec<_> = numbers(0..5).into_iter().chain(numbers(8..11)).collect();
        same("committed", values(&self.read_from(0, 8).await?), wanted)
    }

    pub(crate) async fn an_older_instance_is_fenced(&self) -> Outcome {
        let id = [("transactional.id", self.group.as_str())];
        let (older, newer) = (self.producer(&id)?, self.producer(&id)?);
        older.init_transactions().await?;
        older.begin_transaction()?;
        self.send(&older, 0, &numbers(0..1)).await?;
        newer.init_transactions().await?;
        newer.begin_transaction()?;
        self.send(&newer, 0, &numbers(1..2)).await?;
        newer.commit_transaction().await?;
        let refused = older.commit_transaction().await;
        let fenced = refused.err().map(|error| {
            (
                error.is_producer_fenced_error() || error.is_invalid_producer_epoch_error(),
                error.to_string(),
            )
        });
        same("fenced", fenced.as_ref().map(|it| it.0), Some(true))
            .map_err(|error| format!("{error}: {fenced:?}"))?;
        newer.close().await?;
        older.close_with_timeout(Duration::ZERO).await?;
        same(
            "committed",
            values(&self.read_from(0, 1).await?),
            numbers(1..2),
        )
    }

    pub(crate) async fn what_is_read_is_written_once(&self) -> Outcome {
        let source = self.producer(&[])?;
        self.send(&source, 0, &numbers(0..100)).await?;
        source.close().await?;
        let producer = self.producer(&[("transactional.id", &self.group)])?;
        producer.init_transactions().await?;
        let mut consumer = self.consumer(
            &self.group,
            &[
                ("max.poll.records", "7"),
                ("isolation.level", "read_committed"),
            ],
        )?;
        consumer
            .subscribe_with_topics(vec![self.topic.clone()])
            .await?;
        let (mut turn, mut done, until) = (0, 0, Instant::now() + WAIT_MAX);
        while done < 100 && Instant::now() < until {
            let read = consumer.poll(POLL_WAIT).await?;
            let read: Vec<_> = read
                .into_iter()
                .filter(|record| record.partition() == 0)
                .collect();
            let Some(last) = read.last() else { continue };
            let next = last.offset() + 1;
            producer.begin_transaction()?;
            self.send(&producer, 1, &values(&read)).await?;
            let offsets = HashMap::from([(self.partition(0), OffsetAndMetadata::new(next)?)]);
            let metadata = consumer.group_metadata();
            producer
                .send_offsets_to_transaction(offsets, &*metadata)
                .await?;
            turn += 1;
            if turn % 3 == 0 {
                producer.abort_transaction().await?;
                consumer
                    .seek_with_offset(self.partition(0), read[0].offset())
                    .await?;
                continue;
            }
            producer.commit_transaction().await?;
            done += read.len();
        }
        consumer.close().await?;
        producer.close().await?;
        same(
            "written",
            values(&self.read_from(1, 100).await?),
            numbers(0..100),
        )
    }
}
