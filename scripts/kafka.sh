#!/usr/bin/env bash
# One Apache Kafka node (KRaft) for the behaviour tests: is it the embedded broker that differs, or the test?
#
#   scripts/kafka.sh start [PORT]    fetches Kafka's jars from Maven Central once, starts a node (default port 19092)
#   scripts/kafka.sh stop            stops it and removes its data
#
# Then: KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:19092 cargo test --workspace
# Needs java 17 and mvn. Everything lies in ~/.cache/ackwell, outside the tree.
set -euo pipefail

version=4.1.1
home=${XDG_CACHE_HOME:-$HOME/.cache}/ackwell/kafka-$version
data=$home/data
ready_max_seconds=60

fetch() {
    [ ! -e "$home/complete" ] || return 0
    mkdir -p "$home"
    cat >"$home/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>ackwell</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version></dependency>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka-tools</artifactId><version>$version</version></dependency>
  </dependencies>
</project>
POM
    (cd "$home" && mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs)
    touch "$home/complete"
}

java_kafka() {
    java -Xmx512m -cp "$home/libs/*" "$@"
}

start() {
    port=${1:-19092}
    fetch
    stop
    mkdir -p "$data"
    cat >"$data/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$data/log
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
group.initial.rebalance.delay.ms=0
PROPERTIES
    java_kafka kafka.tools.StorageTool format -t "$(java_kafka kafka.tools.StorageTool random-uuid 2>/dev/null)" \
        -c "$data/server.properties" >"$data/format.log" 2>&1
    java_kafka kafka.Kafka "$data/server.properties" >"$data/server.log" 2>&1 &
    echo $! >"$home/pid"
    for _ in $(seq $((ready_max_seconds * 5))); do
        if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            echo "KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:$port"
            return
        fi
        kill -0 "$(cat "$home/pid")" 2>/dev/null || break
        sleep 0.2
    done
    echo "Kafka did not start; see $data/server.log" >&2
    exit 1
}

stop() {
    if [ -e "$home/pid" ]; then
        kill "$(cat "$home/pid")" 2>/dev/null || true
        while kill -0 "$(cat "$home/pid")" 2>/dev/null; do sleep 0.1; done
        rm -f "$home/pid"
    fi
    rm -rf "$data"
}

case ${1:-} in
    start) start "${2:-}" ;;
    stop) stop ;;
    *) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
