//! One file per Kafka API; the table of keys, versions and handlers.
