//! Property names and values of the Java client that librdkafka does not have.
//!
//! librdkafka refuses them with "No such configuration property", which leaves people who come
//! from Java guessing. Each is answered with what takes its place.

/// A value as librdkafka writes it, where Java's word for the same is another.
pub(super) fn in_librdkafka<'a>(name: &str, value: &'a str) -> &'a str {
    match (name, value) {
        ("auto.offset.reset", "none") => "error",
        _ => value,
    }
}

/// What to use in place of a Java property, if `name` is one that librdkafka lacks.
pub(super) fn instead_of(name: &str) -> Option<&'static str> {
    let answer = match name {
        "max.poll.records" => {
            "librdkafka has no poll size: the listener's `.run_limit(n)` bounds the records handed to a lane at once"
        }
        "buffer.memory" => {
            "write `queue.buffering.max.kbytes` (in KiB, not bytes), or the setting `producer.queue_records`"
        }
        "fetch.max.wait.ms" => "write `fetch.wait.max.ms`",
        "max.block.ms" => {
            "remove it: a full queue makes `Producer::send` wait, and dropping its future gives up"
        }
        "max.request.size" => "write `message.max.bytes`",
        "default.api.timeout.ms" => "write `socket.timeout.ms`",
        "send.buffer.bytes" => "write `socket.send.buffer.bytes`",
        "receive.buffer.bytes" => "write `socket.receive.buffer.bytes`",
        "ssl.truststore.location" | "ssl.truststore.password" | "ssl.truststore.type" => {
            "librdkafka reads PEM files, not Java key stores: write `ssl.ca.location`"
        }
        "ssl.keystore.type" => {
            "librdkafka reads PEM and PKCS#12: write `ssl.keystore.location` (PKCS#12) or `ssl.key.location` and `ssl.certificate.location`"
        }
        "sasl.jaas.config" => "write `sasl.username` and `sasl.password`",
        "key.deserializer" | "value.deserializer" | "key.serializer" | "value.serializer" => {
            "remove it: the handler's extractors and the event types decide"
        }
        "interceptor.classes" | "metric.reporters" | "partitioner.class" => {
            "remove it: it names a Java class"
        }
        _ => return None,
    };
    Some(answer)
}
