#!/usr/bin/env bash
# Debian's RabbitMQ as a broker to prove the conformance suite on, with everything of its own: a temporary data
# directory, a node name, ports, and an epmd, so that it neither meets nor disturbs another RabbitMQ of the machine.
#
#   .ci/rabbitmq.sh start HOME    start it with its data in HOME (made by us), wait until it answers, print its port
#   .ci/rabbitmq.sh stop HOME     stop it and remove HOME
#   .ci/rabbitmq.sh ctl HOME ...  rabbitmqctl for it
#
# It is started with the users that conformance/test_access.py logs in with, or the definitions in RABBITISH_DEFINITIONS.
set -euo pipefail

command=$1
home=$2
start_seconds=90
stop_seconds=30

free_ports() {  # three ports that are free now
  python3 - <<'PY'
import socket

sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
print(*(each.getsockname()[1] for each in sockets))
PY
}

# Names that RabbitMQ's own scripts read
settings() {
  read -r port dist_port epmd_port <"$home/ports"
  node="rabbitish-ci-$port@localhost"
  export RABBITMQ_NODENAME=$node RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=$port \
    RABBITMQ_DIST_PORT=$dist_port ERL_EPMD_PORT=$epmd_port ERL_EPMD_ADDRESS=127.0.0.1 \
    RABBITMQ_MNESIA_BASE=$home/mnesia RABBITMQ_LOG_BASE=$home/log RABBITMQ_PID_FILE=$home/pid \
    RABBITMQ_ENABLED_PLUGINS_FILE=$home/enabled_plugins RABBITMQ_CONFIG_FILE=$home/rabbitmq.conf \
    RABBITMQ_CONF_ENV_FILE=$home/rabbitmq-env.conf
}

answers() {
  (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null
}

start() {
  mkdir -p "$home/mnesia" "$home/log"
  free_ports >"$home/ports"
  settings
  echo "[]." >"$home/enabled_plugins"
  : >"$home/rabbitmq-env.conf"
  cp "${RABBITISH_DEFINITIONS:-$(dirname "$0")/../conformance/users.json}" "$home/definitions.json"
  echo "load_definitions = $home/definitions.json" >"$home/rabbitmq.conf"
  # Debian's wrapper runs the broker as the user rabbitmq when root starts it
  if [ "$(id -u)" = 0 ]; then
    chmod 755 "$home"
    chown -R rabbitmq: "$home"
  fi
  setsid rabbitmq-server >"$home/out" 2>&1 </dev/null &
  local starter=$!
  echo "$starter" >"$home/starter"
  for _ in $(seq $((start_seconds * 2))); do
    if answers; then
      echo "$port"
      return
    fi
    kill -0 "$starter" 2>/dev/null || break
    sleep 0.5
  done
  echo "RabbitMQ did not answer within $start_seconds s:" >&2
  tail -n 30 "$home/out" >&2
  exit 1
}

stop() {
  [ -f "$home/ports" ] || return 0
  settings
  if [ -s "$home/pid" ]; then
    local pid
    pid=$(cat "$home/pid")
    kill -TERM "$pid" 2>/dev/null || true
    for _ in $(seq $((stop_seconds * 5))); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.2
    done
    kill -KILL "$pid" 2>/dev/null || true
  elif [ -s "$home/starter" ]; then # it never came so far as to write its id
    kill -KILL -- "-$(cat "$home/starter")" 2>/dev/null || true
  fi
  epmd -port "$epmd_port" -kill >/dev/null 2>&1 || true
  rm -rf "$home"
}

case $command in
start) start ;;
stop) stop ;;
ctl)
  settings
  shift 2
  exec rabbitmqctl -n "$node" "$@"
  ;;
*)
  echo "usage: $0 start|stop|ctl HOME" >&2
  exit 2
  ;;
esac
