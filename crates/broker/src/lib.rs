//! An embedded Kafka broker: one node, durable, any Kafka client can connect.
