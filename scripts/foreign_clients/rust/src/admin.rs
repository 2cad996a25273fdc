//! What operators ask for.

use std::collections::{BTreeSet, HashMap};

use confluent_kafka::admin::{
    AlterConfigOp, ConfigEntry, NewPartitions, NewTopic, OffsetSpec, OpType, RecordsToDelete,
};
use confluent_kafka::common::config::{ConfigResource, config_resource};
use confluent_kafka::consumer::OffsetAndMetadata;
use confluent_kafka::producer::Producer;

use crate::{On, Outcome, numbers, same};

impl On {
    pub(crate) async fn the_admin_describes_what_is_there(&self) -> Outcome {
        let producer = self.producer(&[])?;
        self.send(&producer, 1, &numbers(0..3)).await?;
        producer.close().await?;
        let admin = self.admin()?;
        same(
            "brokers",
            admin.describe_cluster().nodes().get().await?.len(),
            1,
        )?;
        let described = admin.describe_topics_with_topic_names(&[self.topic.clone()]);
        let described = described
            .all_topic_names()
            .ok_or("asked by name")?
            .get()
            .await?;
        let partitions: BTreeSet<_> = described[&self.topic]
            .partitions()
            .iter()
            .map(|it| it.partition())
            .collect();
        same("partitions", partitions, BTreeSet::from([0, 1]))?;
        let asked = HashMap::from([
            (self.partition(1), OffsetSpec::latest()),
            (self.partition(0), OffsetSpec::earliest()),
        ]);
        let offsets = admin.list_offsets(&asked).all().get().await?;
        same(
            "offsets",
            (
                offsets[&self.partition(0)].offset(),
                offsets[&self.partition(1)].offset(),
            ),
            (0, 3),
        )?;
        let resource = ConfigResource::new(config_resource::Type::Topic, self.topic.clone());
        let configs = admin
            .describe_configs(std::slice::from_ref(&resource))
            .all()
            .get()
            .await?;
        let policy = configs[&resource]
            .get("cleanup.policy")
            .and_then(|entry| entry.value());
        same("cleanup.policy", policy, Some("delete"))?;
        same(
            "transactions are listed",
            admin.list_transactions().all().get().await.is_ok(),
            true,
        )?;
        admin.close().await;
        Ok(())
    }

    pub(crate) async fn the_admin_changes_settings_and_offsets(&self) -> Outcome {
        let admin = self.admin()?;
        let name = format!("{}-made", self.topic);
        let topic =
            NewTopic::with_num_partitions_replication_factor(name.as_str(), Some(1), Some(1));
        admin.create_topics(&[topic]).all().get().await?;
        let again =
            NewTopic::with_num_partitions_replication_factor(name.as_str(), Some(1), Some(1));
        let refused = admin.create_topics(&[again]).all().get().await;
        same(
            "made twice",
            refused.err().map(|error| error.is_topic_exists_error()),
            Some(true),
        )?;
        let grown = HashMap::from([(name.clone(), NewPartitions::increase_to(3))]);
        admin.create_partitions(&grown).all().get().await?;

        let resource = ConfigResource::new(config_resource::Type::Topic, name.clone());
        let entry = ConfigEntry::new("retention.ms".to_owned(), Some("7200000".to_owned()));
        let change = HashMap::from([(
            resource.clone(),
            vec![AlterConfigOp::new(entry, OpType::Set)],
        )]);
        admin.incremental_alter_configs(&change).all().get().await?;
        let configs = admin
            .describe_configs(std::slice::from_ref(&resource))
            .all()
            .get()
            .await?;
        let told = configs[&resource]
            .get("retention.ms")
            .and_then(|entry| entry.value());
        same("retention.ms", told, Some("7200000"))?;

        let producer = self.producer(&[])?;
        self.send(&producer, 0, &numbers(0..10)).await?;
        producer.close().await?;
        let below = HashMap::from([(self.partition(0), RecordsToDelete::with_offset(4))]);
        let deleted = admin.delete_records(&below);
        same(
            "low watermark",
            deleted.low_watermarks()[&self.partition(0)]
                .get()
                .await?
                .low_watermark(),
            4,
        )?;
        let position = HashMap::from([(self.partition(0), OffsetAndMetadata::new(6)?)]);
        admin
            .alter_consumer_group_offsets(&self.group, &position)
            .all()
            .get()
            .await?;
        let kept = admin.list_consumer_group_offsets_with_group_id(&self.group);
        let kept = kept.partitions_to_offset_and_metadata()?.get().await?;
        same(
            "position",
            kept.get(&self.partition(0))
                .and_then(Option::as_ref)
                .map(OffsetAndMetadata::offset),
            Some(6),
        )?;
        let listed = admin.list_groups().all().get().await?;
        same(
            "listed",
            listed.iter().any(|group| group.group_id() == self.group),
            true,
        )?;
        admin
            .delete_consumer_groups(&[self.group.clone()])
            .all()
            .get()
            .await?;
        admin
            .delete_topics_with_string_slice(&[name])
            .all()
            .get()
            .await?;
        admin.close().await;
        Ok(())
    }
}
