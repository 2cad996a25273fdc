"""The embedded broker, checked with clients that we did not write.

| file              | what it holds                                        |
|-------------------|------------------------------------------------------|
| `__main__.py`     | runs the checks and tells what passed                |
| `broker.py`       | a broker to check: started here, or named from outside |
| `check.py`        | how a check is written, and the records it sends     |
| `kcat.py`         | kcat (librdkafka of Debian's age)                    |
| `confluent.py`    | confluent-kafka (librdkafka of today)                |
| `kafka_python.py` | kafka-python (the protocol written in Python)        |
| `aio.py`          | aiokafka (the client of asyncio)                     |
| `elsewhere.py`    | kafkajs, the Java client and Confluent's for Rust, by programs of their own |
| `tools.py`        | Kafka's command-line tools                           |
| `secured.py`      | TLS and logins by every mechanism; the other checks run there, too |
| `together.py`     | several clients on one broker, and its restart       |
"""
