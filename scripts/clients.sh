# What the checks with foreign clients need, fetched once into ~/.cache/ackwell, outside the tree. Sourced by
# foreign-clients.sh, differential.sh and openapi.sh; changing a version here makes a new folder beside the old one.

cache=${XDG_CACHE_HOME:-$HOME/.cache}/ackwell
python_packages=(confluent-kafka==2.16.1 kafka-python==3.0.12 aiokafka==0.14.0 crc32c==2.9.post0 lz4==4.4.5
    python-snappy==0.7.3 zstandard==0.25.0 cramjam==2.14.0)
schemathesis_version=4.32.5
kafkajs_version=2.2.4
java_client_version=4.4.0
# The newest whose tools Maven Central has; kafka-configs is in the server's own jar.
tools_version=4.1.1

# Debian's packages, if one of these commands is missing: `command:package ...`.
debian() {
    local wanted missing=() sudo=
    for wanted in "$@"; do command -v "${wanted%%:*}" >/dev/null || missing+=("${wanted#*:}"); done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || sudo=sudo
    $sudo apt-get update -qq
    $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

# Runs a command once in a folder of its own, and prints the folder; two runs at once wait for each other.
once() {
    local folder=$cache/$1
    shift
    mkdir -p "$folder"
    (
        flock 8
        [ -e "$folder/complete" ] || { cd "$folder" && "$@" >&2 && touch complete; }
    ) 8>"$folder/lock"
    echo "$folder"
}

fill_venv() {
    python3 -c 'import ensurepip' 2>/dev/null || debian no-such-command:python3-venv
    python3 -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check "${python_packages[@]}"
}

python_clients() {
    local key
    key=$(printf '%s\n' "${python_packages[@]}" | cksum | cut -d' ' -f1)
    echo "$(once "python-clients-$key" fill_venv)/venv/bin/python"
}

fill_schemathesis() {
    python3 -c 'import ensurepip' 2>/dev/null || debian no-such-command:python3-venv
    python3 -m venv venv
    venv/bin/pip install --quiet --disable-pip-version-check "schemathesis==$schemathesis_version"
}

schemathesis() {
    "$(once "schemathesis-$schemathesis_version" fill_schemathesis)/venv/bin/schemathesis" "$@"
}

fill_node() { npm install --silent --no-fund --no-audit "kafkajs@$kafkajs_version"; }

node_clients() { once "kafkajs-$kafkajs_version" fill_node; }

# $1: the version, then artifacts of org.apache.kafka.
fill_jars() {
    local version=$1 artifact
    shift
    {
        cat <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>ackwell</groupId><artifactId>clients</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
POM
        for artifact in "$@"; do
            echo "    <dependency><groupId>org.apache.kafka</groupId><artifactId>$artifact</artifactId><version>$version</version></dependency>"
        done
        echo '  </dependencies></project>'
    } >pom.xml
    mvn -q -B dependency:copy-dependencies -DoutputDirectory=libs
}

java_client() { echo "$(once "kafka-clients-$java_client_version" fill_jars "$java_client_version" kafka-clients)/libs"; }

kafka_tools() { echo "$(once "kafka-tools-$tools_version" fill_jars "$tools_version" kafka-tools kafka_2.13)/libs"; }

# Confluent's client for Rust, with its checks: built apart from the workspace, whose dependencies it does not share.
# $1: the folder of the repository.
rust_client() {
    local folder=${CARGO_TARGET_DIR:-$1/target}/foreign-clients
    cargo build --quiet --locked --manifest-path "$1/scripts/foreign_clients/rust/Cargo.toml" --target-dir "$folder" >&2
    echo "$folder/debug/rust-checks"
}
