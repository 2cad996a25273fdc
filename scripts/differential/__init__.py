"""The embedded broker held against Apache Kafka: the same sessions on both, answer by answer.

A program that works on one must work on the other, and clients rely on more than what is written down: error
codes, the order of checks, offsets of refused batches. So the sessions speak the protocol itself, in every version
that both brokers serve, with messages coded from the definitions in Kafka's own client jar, and whatever differs is
either listed with its reason in `known.toml` or fails.

| file            | what it holds                                                       |
|-----------------|---------------------------------------------------------------------|
| `__main__.py`   | runs the sessions on both brokers and tells what differs             |
| `definitions.py`| Kafka's message definitions, and coding by them                      |
| `batches.py`    | record batches, whole ones and damaged ones                          |
| `connection.py` | frames on a socket                                                   |
| `session.py`    | one session on one broker, and the transcript of its answers         |
| `plain.py`      | answers without what must differ: ids, times, texts                  |
| `compare.py`    | two transcripts side by side, and the list of known differences      |
| `scripted/`     | sessions written down, one behaviour each                            |
| `generated.py`  | sessions drawn from a seed                                           |
| `known.toml`    | every known difference with its reason                               |
"""
