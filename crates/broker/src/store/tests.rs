//! Tests of the data folder.

use std::fs;

use bytes::{Bytes, BytesMut};
use kafka_protocol::error::ResponseError;
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records::{Compression, Record, RecordBatchEncoder, RecordEncodeOptions};

use super::*;

fn config(folder: &tempfile::TempDir) -> StoreConfig {
    StoreConfig {
        data_dir: folder.path().join("data"),
        flush: Flush::Always,
        topic_defaults: BTreeMap::new(),
    }
}

fn open(folder: &tempfile::TempDir) -> (Arc<Store>, RecoveryReport) {
    Store::open(&config(folder)).unwrap()
}

fn batch() -> Bytes {
    let record = Record {
        transactional: false,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: -1,
        producer_epoch: -1,
        timestamp_type: kafka_protocol::records::TimestampType::Creation,
        offset: 0,
        sequence: -1,
        timestamp: now_ms(),
        key: None,
        value: Some(Bytes::from_static(b"value")),
        headers: IndexMap::new(),
    };
    let mut bytes = BytesMut::new();
    RecordBatchEncoder::encode(
        &mut bytes,
        [&record],
        &RecordEncodeOptions {
            version: 2,
            compression: Compression::None,
        },
    )
    .unwrap();
    bytes.freeze()
}

fn settings(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[test]
fn topics_their_ids_settings_and_records_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder);
    let (cluster, id) = {
        let topic = store
            .create_topic("orders", 3, settings(&[("retention.ms", "1000")]))
            .unwrap();
        topic
            .partition(2)
            .unwrap()
            .append(batch(), now_ms())
            .unwrap();
        (store.cluster_id().to_owned(), topic.id)
    };
    store.add_partitions("orders", 5).unwrap();
    store.close().unwrap();
    drop(store);

    let (store, report) = open(&folder);
    assert_eq!(
        (report.topics, report.partitions, report.checked_bytes),
        (1, 5, 0)
    );
    assert_eq!(report.losses, []);
    let topic = store.topic("orders").unwrap();
    assert_eq!(
        (topic.id, topic.partition_count(), store.cluster_id()),
        (id, 5, cluster.as_str())
    );
    assert_eq!(cluster.len(), 22);
    assert_eq!(topic.config().retention_ms, Some(1000));
    assert_eq!(topic.partition(2).unwrap().high_watermark(), 1);
    assert!(topic.partition(5).is_none() && topic.partition(-1).is_none());
    assert!(store.topic_by_id(id).is_some());
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder);
    let error = Store::open(&config(&folder)).unwrap_err();
    assert!(error.is_folder_in_use());
    assert!(error.to_string().contains("is in use by another process"));
    drop(store);
    open(&folder);
}

#[test]
fn whoever_still_holds_a_partition_of_a_dropped_store_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder);
    let partition = store
        .create_topic("orders", 1, BTreeMap::new())
        .unwrap()
        .partition(0)
        .unwrap();
    drop(store);
    assert!(partition.append(batch(), now_ms()).is_err());
}

#[test]
fn a_newer_format_is_refused_with_a_clear_message() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(&folder));
    sealed::write(
        &folder.path().join("data/format"),
        &serde_json::json!({"format": 2, "something": "new"}),
    )
    .unwrap();
    let error = Store::open(&config(&folder)).unwrap_err();
    assert!(error.is_corrupt());
    assert!(
        error
            .to_string()
            .contains("has format 2 of a newer program; this one knows 1"),
        "{error}"
    );
}

#[test]
fn a_damaged_catalog_is_refused_and_no_records_are_removed() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder);
    store
        .create_topic("orders", 1, BTreeMap::new())
        .unwrap()
        .partition(0)
        .unwrap()
        .append(batch(), now_ms())
        .unwrap();
    drop(store);
    let path = folder.path().join("data/catalog");
    let good = fs::read(&path).unwrap();
    for len in [0, 5, good.len() / 2, good.len() - 1] {
        fs::write(&path, &good[..len]).unwrap();
        assert!(
            Store::open(&config(&folder)).unwrap_err().is_corrupt(),
            "{len} bytes"
        );
    }
    // Even without a catalog at all: the folder may be wanted yet.
    fs::remove_file(&path).unwrap();
    assert!(Store::open(&config(&folder)).unwrap_err().is_corrupt());
    fs::write(&path, &good).unwrap();
    assert_eq!(
        open(&folder)
            .0
            .topic("orders")
            .unwrap()
            .partition(0)
            .unwrap()
            .high_watermark(),
        1
    );
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder);
    let old = store.create_topic("orders", 2, BTreeMap::new()).unwrap();
    old.partition(0).unwrap().append(batch(), now_ms()).unwrap();
    store.delete_topic("orders").unwrap();
    assert!(store.topic("orders").is_none());
    assert_eq!(
        store.delete_topic("orders").unwrap_err().code(),
        ResponseError::UnknownTopicOrPartition
    );
    let new = store.create_topic("orders", 1, BTreeMap::new()).unwrap();
    assert_ne!(new.id, old.id);
    assert_eq!(new.partition(0).unwrap().high_watermark(), 0);
    assert_eq!(
        fs::read_dir(folder.path().join("data/topics"))
            .unwrap()
            .count(),
        1
    );
}

#[test]
fn a_deletion_that_was_interrupted_is_finished_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder);
    let topic = store.create_topic("orders", 1, BTreeMap::new()).unwrap();
    store.topic_folder(topic.id).begin_removal().unwrap();
    drop((store, topic));
    let (store, report) = open(&folder);
    assert_eq!((report.topics, store.topics().len()), (0, 0));
    assert_eq!(
        fs::read_dir(folder.path().join("data/topics"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn a_creation_that_was_interrupted_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder);
    store.topic_folder(Uuid::new_v4()).create(0..3).unwrap();
    drop(store);
    let _store = open(&folder);
    assert_eq!(
        fs::read_dir(folder.path().join("data/topics"))
            .unwrap()
            .count(),
        0
    );
}

#[test]
fn impossible_topics_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder);
    let code = |name: &str, partitions, configs: &[(&str, &str)]| {
        store
            .create_topic(name, partitions, settings(configs))
            .unwrap_err()
            .code()
    };
    for name in ["", ".", "..", "a/b", "a b", "ü", &"x".repeat(250)] {
        assert_eq!(
            code(name, 1, &[]),
            ResponseError::InvalidTopicException,
            "{name}"
        );
    }
    assert_eq!(code("orders", 0, &[]), ResponseError::InvalidPartitions);
    assert_eq!(
        code("orders", 10_001, &[]),
        ResponseError::InvalidPartitions
    );
    for (name, value) in [
        ("retention.ms", "soon"),
        ("retention.ms", "-2"),
        ("no.such", "1"),
        ("min.insync.replicas", "2"),
        ("compression.type", "rar"),
    ] {
        assert_eq!(
            code("orders", 1, &[(name, value)]),
            ResponseError::InvalidConfig,
            "{name}"
        );
    }
    store.create_topic("orders", 1, BTreeMap::new()).unwrap();
    assert_eq!(code("orders", 1, &[]), ResponseError::TopicAlreadyExists);
    assert_eq!(
        store.add_partitions("orders", 1).unwrap_err().code(),
        ResponseError::InvalidPartitions
    );
}

#[test]
fn changed_settings_are_obeyed_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder);
    let topic = store.create_topic("orders", 1, BTreeMap::new()).unwrap();
    store
        .set_configs("orders", settings(&[("max.message.bytes", "10")]))
        .unwrap();
    let refused = topic
        .partition(0)
        .unwrap()
        .append(batch(), now_ms())
        .unwrap_err();
    assert_eq!(refused.code(), ResponseError::MessageTooLarge);
    assert_eq!(topic.configs(), settings(&[("max.message.bytes", "10")]));
}

#[test]
fn producer_ids_are_given_out_once_over_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut last = -1;
    for _ in 0..3 {
        let (store, _) = open(&folder);
        for _ in 0..1500 {
            let id = store.next_producer_id().unwrap();
            assert!(id > last);
            last = id;
        }
    }
}

#[test]
fn a_closed_store_takes_no_changes() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder);
    store.close().unwrap();
    store.close().unwrap();
    assert!(store.create_topic("orders", 1, BTreeMap::new()).is_err());
}

#[test]
fn a_missing_catalog_is_refused_by_name_when_there_are_records() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder);
    let topic = store.create_topic("orders", 1, BTreeMap::new()).unwrap();
    topic
        .partition(0)
        .unwrap()
        .append(batch(), now_ms())
        .unwrap();
    store.close().unwrap();
    drop((topic, store));
    fs::remove_file(folder.path().join("data/catalog")).unwrap();
    let refused = Store::open(&config(&folder)).unwrap_err();
    assert!(refused.is_corrupt());
    assert!(refused.to_string().contains("catalog is missing"));
}

#[test]
fn foreign_files_are_named_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (store, _) = open(&folder);
    let topic = store.create_topic("orders", 1, BTreeMap::new()).unwrap();
    let partition = folder.path().join("data/topics").join(topic.id.to_string());
    let notes = partition.join("0").join("notes.txt");
    fs::write(&notes, "mine").unwrap();
    store.close().unwrap();
    drop((topic, store));
    let (_store, report) = open(&folder);
    assert_eq!(report.foreign, std::slice::from_ref(&notes));
    assert!(notes.exists());
}
