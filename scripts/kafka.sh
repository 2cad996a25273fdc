#!/usr/bin/env bash
# Apache Kafka (KRaft) on loopback, for the behaviour tests: one node, or a cluster of three.
#
#   scripts/kafka.sh start [--nodes 1|3] [PORT]   starts empty nodes, prints KAFKA_BOOTSTRAP_SERVERS=.. when all answer
#   scripts/kafka.sh start --acl [PORT]           one node that demands rights, prints KAFKA_ACL_BOOTSTRAP_SERVERS=..
#   scripts/kafka.sh stop [PORT]                  kills them and removes their data
#   scripts/kafka.sh status [PORT]                one line a node; fails unless all answer
#   scripts/kafka.sh fetch                        only gets the jars that `start` needs
#   scripts/kafka.sh kill N [PORT]                SIGKILL for node N
#   scripts/kafka.sh pause N [PORT]               SIGSTOP for node N; `continue N` wakes it
#   scripts/kafka.sh restart N [PORT]             starts node N again on its data, stopping it before if it runs
#
# Then: KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:19092 cargo test --workspace --test 'container_*'
#
# PORT (default $KAFKA_PORT, else 19092) is the first of two ports a node, and names the cluster: several run side by side. Starting one
# that runs changes nothing. With three nodes, topics have three replicas, and two must have what is acknowledged.
# With --acl, clients log in (SASL PLAIN, no TLS) as `admin`, who may do everything, or as `service`, who may do nothing
# until it is granted; passwords are `admin-secret` and `service-secret`. Only for tests: the controller's port asks nobody.
# Needs java 17 and, for the first start, mvn, which fetches Kafka's jars from Maven Central. Jars and data are kept in
# ~/.cache/ackwell, outside the tree.
set -euo pipefail

version=4.4.0
cache=${XDG_CACHE_HOME:-$HOME/.cache}/ackwell
home=$cache/kafka-$version
# A loaded machine with two cores starts three nodes in half a minute.
ready_max_seconds=180
# For other purposes than tests: a heap, and lines for the end of server.properties.
heap_max=${KAFKA_HEAP:-384m}
# As many as a node needs for tests: its thread pools are made for large machines.
threads=2

fail() { printf '%s\n' "$*" >&2; exit 1; }
usage() { sed -n '2,20s/^# \{0,1\}//p' "$0"; exit 2; }

java_is_there() {
    local found
    found=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p') || true
    [ "${found:-0}" -ge 17 ] || fail "Apache Kafka needs java 17 or newer; found ${found:-none} (Debian: apt-get install openjdk-17-jre-headless)"
}

# The jars, once for all clusters, even if several are started at once.
fetch() {
    [ ! -e "$home/complete" ] || return 0
    command -v mvn >/dev/null || fail "fetching Apache Kafka $version needs mvn (Debian: apt-get install maven)"
    mkdir -p "$home"
    (
        flock 9
        [ ! -e "$home/complete" ] || exit 0
        pom >"$home/pom.xml"
        cd "$home"
        mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs
        touch complete
    ) 9>"$home/lock"
}

# `kafka-tools-api` serves command-line tools only. Without an slf4j backend, Kafka logs nothing.
pom() {
    cat <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>ackwell</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>$version</version>
      <exclusions><exclusion><groupId>org.apache.kafka</groupId><artifactId>kafka-tools-api</artifactId></exclusion></exclusions>
    </dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
POM
}

kafka_java() {
    exec java -Xms64m -Xmx$heap_max -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.showDateTime=true \
        -Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS -cp "$home/libs/*" "$@"
}

broker_port() { echo $((port + 2 * ($1 - 1))); }
controller_port() { echo $((port + 2 * ($1 - 1) + 1)); }
# The nodes' numbers, from the folders that they have.
members() { find "$cluster" -mindepth 1 -maxdepth 1 -type d -name 'node-*' 2>/dev/null | sed 's/.*node-//' | sort -n; }
count() { members | wc -l; }

# Prints the node's process, if it is still that node: ids are used again.
process() {
    local id
    id=$(cat "$cluster/node-$1/pid" 2>/dev/null) || return 1
    tr '\0' '\n' <"/proc/$id/cmdline" 2>/dev/null | grep -qxF "$cluster/node-$1/server.properties" || return 1
    echo "$id"
}

# How many brokers a node names in its answer to Metadata (version 1: length, correlation id, brokers).
brokers_named() {
    timeout 10 bash -c '
        exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        if [ "$2" = yes ]; then
            # SaslHandshake (version 1) and SaslAuthenticate (version 0); their answers have 21 and 16 bytes.
            printf "\0\0\0\x11\0\x11\0\x01\0\0\0\x07\xff\xff\0\x05PLAIN" >&3
            head -c 21 <&3 >/dev/null
            printf "\0\0\0\x21\0\x24\0\0\0\0\0\x07\xff\xff\0\0\0\x13\0admin\0admin-secret" >&3
            head -c 16 <&3 >/dev/null
        fi
        printf "\0\0\0\x0e\0\x03\0\x01\0\0\0\x07\xff\xff\0\0\0\0" >&3
        head -c 12 <&3 | od -An -v -tu1
    ' _ "$(broker_port "$1")" "$(login)" 2>/dev/null | { read -r -a answer && echo "${answer[11]}"; }
}

# Whether clients have to log in.
login() {
    if grep -qs StandardAuthorizer "$cluster/node-1/server.properties"; then echo yes; else echo no; fi
}

# Whether a node names all brokers that run; a killed one is named until its session ends.
answers() {
    local named
    named=$(brokers_named "$1") || return 1
    [ "$named" -ge "$(running_count)" ]
}

running_count() {
    local n running=0
    for n in $(members); do
        if process "$n" >/dev/null; then running=$((running + 1)); fi
    done
    echo $running
}

settings() {
    local n=$1 nodes=$2 voters='' replicas=$2 in_sync=1 other protocol=PLAINTEXT
    [ "$acl" = no ] || protocol=SASL_PLAINTEXT
    [ "$nodes" = 1 ] || in_sync=2
    for other in $(seq "$nodes"); do voters+=,$other@127.0.0.1:$(controller_port "$other"); done
    cat <<PROPERTIES
process.roles=broker,controller
node.id=$n
controller.quorum.voters=${voters#,}
listeners=$protocol://127.0.0.1:$(broker_port "$n"),CONTROLLER://127.0.0.1:$(controller_port "$n")
advertised.listeners=$protocol://127.0.0.1:$(broker_port "$n")
controller.listener.names=CONTROLLER
log.dirs=$cluster/node-$n/log
auto.create.topics.enable=false
default.replication.factor=$replicas
min.insync.replicas=$in_sync
offsets.topic.replication.factor=$replicas
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=$replicas
transaction.state.log.min.isr=$in_sync
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=$replicas
share.coordinator.state.topic.min.isr=$in_sync
share.coordinator.state.topic.num.partitions=4
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
broker.session.timeout.ms=6000
num.network.threads=$threads
num.io.threads=$((threads * 2))
background.threads=$threads
log.cleaner.dedupe.buffer.size=4194304
${KAFKA_SETTINGS:-}
PROPERTIES
    [ "$acl" = no ] || cat <<PROPERTIES
listener.security.protocol.map=CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT
inter.broker.listener.name=SASL_PLAINTEXT
sasl.enabled.mechanisms=PLAIN
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username="admin" password="admin-secret" user_admin="admin-secret" user_service="service-secret";
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin;User:ANONYMOUS
PROPERTIES
}

# Writes node N's settings and formats its folder.
format() {
    local n=$1 nodes=$2 id=$3 folder=$cluster/node-$1
    settings "$n" "$nodes" >"$folder/server.properties"
    (kafka_java kafka.tools.StorageTool format -t "$id" -c "$folder/server.properties") >"$folder/format.log" 2>&1 ||
        fail "node $n is not formatted: $(tail -n 3 "$folder/format.log")"
}

# Starts node N, whose folder is there.
launch() {
    local folder=$cluster/node-$1
    (kafka_java kafka.Kafka "$folder/server.properties") </dev/null >>"$folder/server.log" 2>&1 9>&- &
    echo $! >"$folder/pid"
}

await_ready() {
    local n until=$((SECONDS + ready_max_seconds))
    for n in $(members); do
        process "$n" >/dev/null || continue
        until answers "$n"; do
            process "$n" >/dev/null || fail "node $n ended; see $cluster/node-$n/server.log"
            [ $SECONDS -lt $until ] || fail "node $n does not know all brokers after $ready_max_seconds s; see $cluster/node-$n/server.log"
            sleep 0.3
        done
    done
}

print_servers() {
    local n servers=
    for n in $(members); do servers+=,127.0.0.1:$(broker_port "$n"); done
    if [ "$(login)" = yes ]; then
        echo "KAFKA_ACL_BOOTSTRAP_SERVERS=${servers#,}"
    else
        echo "KAFKA_BOOTSTRAP_SERVERS=${servers#,}"
    fi
}

runs() { [ "$(running_count)" -gt 0 ]; }

ports_are_free() {
    local n used
    for n in $(seq "$1"); do
        for used in "$(broker_port "$n")" "$(controller_port "$n")"; do
            ! (exec 3<>"/dev/tcp/127.0.0.1/$used") 2>/dev/null || fail "port $used is in use; name another first port"
        done
    done
}

start() {
    local nodes=$1 n id
    if runs; then
        [ "$(count) $(login)" = "$nodes $acl" ] ||
            fail "another cluster of $(count) runs on port $port; stop it first: $0 stop $port"
        await_ready
        print_servers
        return
    fi
    ports_are_free "$nodes"
    java_is_there
    fetch
    rm -rf "$cluster"/node-*
    # A cluster id is 16 bytes in base64url. By its beginning, tests know that they may delete what is in the cluster.
    id=AckwellTests$(head -c 7 /dev/urandom | base64 | tr '+/' '-_' | cut -c-10)
    for n in $(seq "$nodes"); do mkdir -p "$cluster/node-$n"; done
    local formats=()
    for n in $(seq "$nodes"); do format "$n" "$nodes" "$id" & formats+=($!); done
    for n in "${formats[@]}"; do wait "$n"; done
    for n in $(seq "$nodes"); do launch "$n"; done
    await_ready
    print_servers
}

stop() {
    local n id
    for n in $(members); do
        if id=$(process "$n"); then end "$n" "$id" KILL; fi
    done
    rm -rf "$cluster"/node-*
}

# Sends node N's process a signal that ends it, and waits for its end.
end() {
    local id=$2
    kill "-$3" "$id" 2>/dev/null || true
    while process "$1" >/dev/null; do sleep 0.05; done
}

restart() {
    local id
    if id=$(process "$1"); then
        kill -CONT "$id"
        end "$1" "$id" TERM
    fi
    launch "$1"
    await_ready
}

status() {
    local n id state healthy=0
    [ "$(count)" -gt 0 ] || fail "no cluster on port $port"
    for n in $(members); do
        if ! id=$(process "$n"); then
            state='does not run'
        elif grep -q '^State:[[:space:]]*T' "/proc/$id/status"; then
            state="paused (process $id)"
        elif answers "$n"; then
            echo "node $n, 127.0.0.1:$(broker_port "$n"): answers (process $id)"
            continue
        else
            state="does not know all brokers (process $id)"
        fi
        healthy=1
        echo "node $n, 127.0.0.1:$(broker_port "$n"): $state; see $cluster/node-$n/server.log"
    done
    return $healthy
}

# The process of node N, which must run.
running() {
    process "$1" || fail "node $1 does not run; $0 status $port"
}

command=${1:-}
[ $# -eq 0 ] || shift
nodes=1 node= acl=no
case $command in
    start)
        if [ "${1:-}" = --nodes ]; then nodes=${2:-}; shift 2 || usage; fi
        if [ "${1:-}" = --acl ]; then acl=yes; shift; fi
        [[ $nodes =~ ^[13]$ && ($acl = no || $nodes = 1) ]] || usage ;;
    stop | status | fetch) ;;
    kill | pause | continue | restart)
        node=${1:-}
        [[ $node =~ ^[123]$ ]] || usage
        shift ;;
    *) usage ;;
esac
port=${1:-${KAFKA_PORT:-19092}}
[[ $# -le 1 && $port =~ ^[0-9]+$ ]] || usage
cluster=$cache/kafka-clusters/$port
mkdir -p "$cluster"
[ -z "$node" ] || [ -d "$cluster/node-$node" ] || fail "no node $node in a cluster on port $port"
# One command at a time for a cluster.
exec 9>"$cluster/lock"
flock 9

case $command in
    start) start "$nodes" ;;
    fetch) java_is_there; fetch ;;
    stop) stop ;;
    status) status ;;
    kill) id=$(running "$node"); end "$node" "$id" KILL ;;
    pause) id=$(running "$node"); kill -STOP "$id" ;;
    continue) id=$(running "$node"); kill -CONT "$id" ;;
    restart) restart "$node" ;;
esac
