#!/usr/bin/env bash
# PostgreSQL on loopback, for the tests of everything that writes to a database.
#
#   scripts/postgres.sh start [PORT]     starts an empty server, prints DATABASE_URL=.. when it answers
#   scripts/postgres.sh start --tls [PORT]    the same, which speaks to nobody without TLS
#   scripts/postgres.sh stop [PORT]      ends it and removes its data
#   scripts/postgres.sh status [PORT]    one line; fails unless it answers
#   scripts/postgres.sh restart [PORT]   ends all sessions and starts it again on its data
#   scripts/postgres.sh crash [PORT]     kills all its processes and starts it again on its data
#
# Then: DATABASE_URL=postgres://.. cargo test --workspace --test 'sql_*'
#
# PORT (default $POSTGRES_PORT, else 15432) names the server: several run side by side. Starting one that runs changes
# nothing. Every test makes a schema of its own in the one database. With --tls its certificate is for localhost, signed
# by an authority of its own, which the printed URL names. A commit is on disk before it is answered, as in production.
# Needs PostgreSQL 13 or newer (Debian: apt-get install postgresql), and no rights of root. Started by root, who may not
# run the server, it runs as user `postgres`, with its data in /var/cache/ackwell instead of ~/.cache/ackwell.
set -euo pipefail

ready_max_seconds=60
# Each test opens a dozen; the tests of several runs share a server.
connections=500
user=ackwell
password=ackwell-tests

fail() { printf '%s\n' "$*" >&2; exit 1; }
usage() { sed -n '2,18s/^# \{0,1\}//p' "$0"; exit 2; }

if [ "$(id -u)" = 0 ]; then
    cache=/var/cache/ackwell
    as_owner=(runuser -u postgres --)
else
    cache=${XDG_CACHE_HOME:-$HOME/.cache}/ackwell
    as_owner=()
fi

# Prints the path of a program of the newest PostgreSQL: Debian keeps them out of PATH.
program() {
    local found
    found=$(find /usr/lib/postgresql -mindepth 3 -maxdepth 3 -path "*/bin/$1" 2>/dev/null | sort -V | tail -n 1)
    found=${found:-$(command -v "$1")} || fail "needs PostgreSQL; $1 is not there (Debian: apt-get install postgresql)"
    echo "$found"
}

owner_runs() { (cd "$server" && "${as_owner[@]}" "$@"); }
control() { owner_runs "$(program pg_ctl)" --pgdata="$server/data" "$@"; }
runs() { [ -d "$server/data" ] && control status >/dev/null 2>&1; }
answers() { owner_runs "$(program pg_isready)" --quiet --host=127.0.0.1 --port="$port"; }
print_url() {
    if [ -f "$server/data/server.crt" ]; then
        echo "DATABASE_URL=postgres://$user:$password@localhost:$port/$user?sslmode=verify-full&sslrootcert=$server/authority.crt"
    else
        echo "DATABASE_URL=postgres://$user:$password@127.0.0.1:$port/$user"
    fi
}

# An authority, and a certificate for localhost that it has signed. TLS is all that comes in.
certify() {
    command -v openssl >/dev/null || fail "needs openssl (Debian: apt-get install openssl)"
    owner_runs bash -euc '
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=authority of tests" \
            -keyout authority.key -out authority.crt
        openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout data/server.key -out data/server.csr
        openssl x509 -req -in data/server.csr -CA authority.crt -CAkey authority.key -CAcreateserial -days 30 \
            -extfile <(echo subjectAltName=DNS:localhost) -out data/server.crt
        chmod 600 data/server.key
        chmod 644 authority.crt
        sed -i "s/^host /hostssl /" data/pg_hba.conf
        echo "ssl = on" >>data/postgresql.conf' >"$server/certify.log" 2>&1 ||
        fail "the certificates are not made: $(tail -n 3 "$server/certify.log")"
}

create() {
    local secret=$server/password
    rm -rf "$server/data"
    printf '%s\n' $password >"$secret"
    owner_runs "$(program initdb)" --pgdata="$server/data" --username=$user --auth=scram-sha-256 --pwfile="$secret" \
        --encoding=UTF8 --locale=C.UTF-8 >"$server/initdb.log" 2>&1 ||
        fail "the data folder is not created: $(tail -n 3 "$server/initdb.log")"
    # Tests need no more memory, and leave the disk to each other.
    cat >>"$server/data/postgresql.conf" <<CONF
listen_addresses = '127.0.0.1'
port = $port
unix_socket_directories = ''
max_connections = $connections
shared_buffers = 64MB
max_wal_size = 256MB
log_line_prefix = '%m [%p] %a '
CONF
}

launch() {
    control --log="$server/server.log" --timeout=$ready_max_seconds --wait start >/dev/null 9>&- ||
        fail "PostgreSQL does not start; see $server/server.log"
}

start() {
    if ! runs; then
        ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || fail "port $port is in use; name another port"
        create
        if [ -n "$tls" ]; then certify; fi
        launch
        PGPASSWORD=$password "$(program psql)" --quiet --host=127.0.0.1 --port="$port" --username=$user \
            --dbname=postgres --command="CREATE DATABASE $user"
    fi
    answers || fail "PostgreSQL runs and does not answer; see $server/server.log"
    print_url
}

stop() {
    if runs; then control --mode=immediate --wait stop >/dev/null; fi
    rm -rf "$server/data"
}

restart() {
    runs || fail "no server on port $port"
    control --mode="$1" --wait stop >/dev/null
    launch
}

status() {
    runs || fail "no server on port $port"
    answers || fail "PostgreSQL on port $port runs and does not answer; see $server/server.log"
    echo "PostgreSQL on 127.0.0.1:$port: answers (process $(head -n 1 "$server/data/postmaster.pid"))"
}

command=${1:-}
case $command in start | stop | status | restart | crash) ;; *) usage ;; esac
tls=
if [ "${2:-}" = --tls ]; then
    [ "$command" = start ] || usage
    tls=yes
    set -- "$1" "${@:3}"
fi
port=${2:-${POSTGRES_PORT:-15432}}
[[ $# -le 2 && $port =~ ^[0-9]+$ ]] || usage
server=$cache/postgres/$port
mkdir -p "$server"
if [ "$(id -u)" = 0 ]; then chown postgres: "$server"; fi
# One command at a time for a server.
exec 9>"$server/lock"
flock 9

case $command in
    start) start ;;
    stop) stop ;;
    status) status ;;
    restart) restart fast ;;
    crash) restart immediate ;;
esac
