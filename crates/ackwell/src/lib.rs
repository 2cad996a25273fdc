//! Services on Kafka records that lose none and apply none twice.
