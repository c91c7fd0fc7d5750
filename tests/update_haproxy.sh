#!/bin/sh
# scripts/update_haproxy.sh against real HAProxys: each usual set-up, each way to fail. Run by scripts/test, which
# has installed what it needs; alone: sh tests/update_haproxy.sh. Prints one line for each case and the counts in the
# words of cargo test. COSMONAUT_TEST_WITHOUT=docker leaves out the containers, =haproxy everything.
#
# shellcheck disable=SC2016,SC2317 # the cases are text that try evaluates, and so are calls of what they call
set -u

top=$(cd "$(dirname "$0")/.." && pwd) || exit 1
# shellcheck source=scripts/setup
. "$top/scripts/setup"
script=$top/scripts/update_haproxy.sh
container=cosmonaut-script-$$
passed=0
failed=0
ignored=0
pid=
PATH=$PATH:/usr/sbin:/sbin

leave() {
    status=$?
    trap - EXIT INT TERM
    stop_host
    setup_remove
    exit "$status"
}
trap leave EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# Ends the HAProxy of this machine that pid names, and waits for it.
stop_host() {
    [ -n "$pid" ] || return 0
    [ ! -s "$dir/pid" ] || pid="$pid $(cat "$dir/pid")"
    # shellcheck disable=SC2086 # a list
    kill $pid 2>/dev/null
    n=0
    # shellcheck disable=SC2086 # a list
    while kill -0 $pid 2>/dev/null && [ $n -lt 100 ]; do
        sleep 0.05
        n=$((n + 1))
    done
    pid=
}

# config VERSION [LINE]: a config that answers with VERSION, LINE in its frontend. Installed as the tool does it.
config() {
    cat >"$dir/haproxy.cfg.new" <<END
global
    maxconn 200
${socket:+    stats socket '$socket' mode 600 level admin expose-fd listeners}
defaults
    mode http
    timeout connect 1s
    timeout client 60s
    timeout server 5s
frontend f
    bind $bind
    http-request return status 200 content-type text/plain string v$1
    ${2:-}
global
    description cosmonaut:$(printf %016x "$1")
END
}
install() {
    config "$@"
    mv "$dir/haproxy.cfg.new" "$dir/haproxy.cfg"
}

# run EXIT WORDS MODE FILE: the script's exit code, and a part of its words.
run() {
    output=$("$script" "$3" "$4" 2>&1)
    status=$?
    [ "$status" = "$1" ] || {
        problem="$3: exit $status, wanted $1: $output"
        return 1
    }
    case $output in *"$2"*) ;; *)
        problem="$3: said '$output', wanted '$2'"
        return 1
        ;;
    esac
    # A clean run has nothing to say.
    if [ "$1" = 0 ] && [ -n "$output" ]; then
        problem="$3: said '$output', wanted nothing"
        return 1
    fi
}

serves() {
    answer=$(curl --silent --max-time 2 "http://$address/")
    [ "$answer" = "v$1" ] || {
        problem="serves '$answer', wanted v$1"
        return 1
    }
}

# Is HAProxy's master noted for the next run?
noted() {
    answer=$(sed -n -e '1s/ .*//p' -e '2p' "$dir/.haproxy-master" | tr '\n' ' ')
    wanted="$pid $(tr '\0' '\n' <"/proc/$pid/cmdline" | head -n 1) "
    [ "$answer" = "$wanted" ] || {
        problem="process '$answer' is noted, wanted '$wanted'"
        return 1
    }
}

# try NAME COMMANDS: COMMANDS is sh, evaluated here; it ends at the first thing that is not as it should be.
try() {
    problem=
    if eval "$2"; then
        passed=$((passed + 1))
        printf 'ok      %s\n' "$1"
    else
        failed=$((failed + 1))
        printf 'FAILED  %s: %s\n' "$1" "${problem:-see above}"
    fi
}

finish() {
    result=ok
    [ "$failed" = 0 ] || result=FAILED
    printf '\ntest result: %s. %d passed; %d failed; %d ignored\n' "$result" "$passed" "$failed" "$ignored"
    [ "$failed" = 0 ]
    exit
}

# new_case: a folder of its own, no HAProxy.
new_case() {
    dir=$setup_work/case
    rm -rf "$dir"
    mkdir -p "$dir"
    chmod 755 "$setup_work" "$dir"
    export COSMONAUT_CONFIG="$dir/haproxy.cfg" COSMONAUT_STATE_DIR="$dir" COSMONAUT_HAPROXY_CONTAINER="$container"
    unset COSMONAUT_FINGERPRINT COSMONAUT_HAPROXY_SOCKET COSMONAUT_HAPROXY_MASTER
    # A loopback address of this run's own needs no free port.
    bind=127.77.$(($$ / 250 % 250)).$(($$ % 250 + 1)):8080 address='' socket=''
    address=$bind
}

# start_host ARGUMENTS: HAProxy on this machine, ready to serve.
start_host() {
    install 1
    rm -f "$dir/pid"
    haproxy -D -p "$dir/pid" -f "$dir/haproxy.cfg" "$@" 2>/dev/null
    # The command may return before the master has written its pid.
    n=0
    until [ -s "$dir/pid" ] || [ $n -ge 100 ]; do
        sleep 0.01
        n=$((n + 1))
    done
    pid=$(cat "$dir/pid")
}

start_container() {
    install 1
    docker run -d --name "$container" --label "$setup_label" "$@" >/dev/null || return 1
    address=$(docker inspect --format '{{.NetworkSettings.IPAddress}}' "$container"):8080
    n=0
    until serves 1 || [ $n -ge 100 ]; do
        sleep 0.05
        n=$((n + 1))
    done
}

dir=$setup_work
case " ${COSMONAUT_TEST_WITHOUT:-} " in *[\ ,]haproxy[\ ,]*)
    ignored=1
    finish
    ;;
esac
# Where there is a docker command, the script asks it before it says that nobody runs.
case " ${COSMONAUT_TEST_WITHOUT:-} " in *[\ ,]docker[\ ,]*) ;; *) setup_docker ;; esac

for words in '' check 'mend /x' 'check /x /y' 'check /nonexistent'; do
    # shellcheck disable=SC2086 # several words
    try "wrong arguments: '$words'" 'output=$("$script" $words 2>&1); [ $? = 2 ] && [ -n "$output" ]'
done

for mode in '-W' ''; do
    for with in '' a.sock; do
        what="host, haproxy -D $mode, ${with:-no socket}"
        new_case
        socket=${with:+$dir/$with}
        # shellcheck disable=SC2086 # no word when there is no mode
        start_host $mode
        try "$what: check accepts" 'config 2; run 0 "" check "$dir/haproxy.cfg.new" && serves 1'
        try "$what: check refuses with HAProxy's words" 'config 2 nonsense; run 1 "unknown keyword '\''nonsense'\''" check "$dir/haproxy.cfg.new"'
        for n in 2 3 4 5; do
            try "$what: reload at once, $n" 'install $n; run 0 "" reload "$dir/haproxy.cfg" && serves $n'
        done
        try "$what: refused after the check" 'install 6 "bind 192.0.2.1:1"; run 0 "" check "$dir/haproxy.cfg" && run 1 "old" reload "$dir/haproxy.cfg" && serves 5'
        try "$what: the last good file again" 'install 5; run 0 "" reload "$dir/haproxy.cfg" && serves 5'
        try "$what: a chroot that would end it" 'config 7; echo "    chroot /nowhere" >>"$dir/haproxy.cfg.new"; run 1 chroot check "$dir/haproxy.cfg.new"'
        try "$what: a chroot that does not" 'config 7; echo "    chroot \"/tmp\"" >>"$dir/haproxy.cfg.new"; run 0 "" check "$dir/haproxy.cfg.new"'
        try "$what: a socket that does not answer" 'install 8; COSMONAUT_HAPROXY_SOCKET=$dir/none.sock; export COSMONAUT_HAPROXY_SOCKET; run 1 none.sock reload "$dir/haproxy.cfg"; r=$?; unset COSMONAUT_HAPROXY_SOCKET; [ $r = 0 ]'
        stop_host
        try "$what: not running" 'install 9; run 4 "not running" reload "$dir/haproxy.cfg"'
    done
done

new_case
start_host -W
try "host: a signal right after the start is not lost" 'stop_host; start_host -W; install 2; run 0 "" reload "$dir/haproxy.cfg" && serves 2'
( n=0; while [ $n -lt 30 ]; do kill -USR2 "$pid" 2>/dev/null; sleep 0.06; n=$((n + 1)); done ) &
storm=$!
for n in 11 12 13 14 15 16; do
    try "host: reload among somebody else's, $n" 'install $n; run 0 "" reload "$dir/haproxy.cfg" && serves $n'
done
wait "$storm"
mkfifo "$dir/slow"
socat - "TCP:$address" <"$dir/slow" >/dev/null 2>&1 &
slow=$!
exec 8>"$dir/slow"
try "host: an old worker that still serves" 'install 20; run 0 "" reload "$dir/haproxy.cfg" && serves 20'
exec 8>&-
kill "$slow" 2>/dev/null
try "host: the last reload noted the master" noted
read -r worker _ <"/proc/$pid/task/$pid/children"
n=30
for wrong in '' 4194304 "$$" "$worker" ../1 "$pid" "$pid 1"; do
    n=$((n + 1))
    try "host: a note that says '${wrong:-nothing}' is not believed" 'printf "%s\n" "$wrong" -f /elsewhere >"$dir/.haproxy-master"; install $n; run 0 "" check "$dir/haproxy.cfg" && run 0 "" reload "$dir/haproxy.cfg" && serves $n && noted'
done
# As where the kernel puts each stack at the same place.
echo 0 >"$dir/random"
sed "s|/proc/sys/kernel/randomize_va_space|$dir/random|" "$script" >"$dir/script"
chmod 755 "$dir/script"
try "host, no place tells a new master: reload" 'install 40; script=$dir/script run 0 "" reload "$dir/haproxy.cfg" && serves 40'
try "host, no place tells a new master: refused after the check" 'install 41 "bind 192.0.2.1:1"; script=$dir/script run 1 refused reload "$dir/haproxy.cfg" && serves 40'
try "host: the same with its place" 'run 1 refused reload "$dir/haproxy.cfg" && serves 40'
try "host: it reads another file" 'mkdir "$dir/other"; cp "$dir/haproxy.cfg" "$dir/other/"; run 4 "but it reads $dir/haproxy.cfg" reload "$dir/other/haproxy.cfg"'
stop_host

new_case
start_host -W -S "$dir/master.sock,mode,600"
try "host, master socket: reload" 'install 2; run 0 "" reload "$dir/haproxy.cfg" && serves 2'
try "host, master socket: refused" 'install 3 nonsense; run 1 nonsense reload "$dir/haproxy.cfg" && serves 2'
stop_host

case " ${COSMONAUT_TEST_WITHOUT:-} " in *[\ ,]docker[\ ,]*)
    ignored=$((ignored + 1))
    finish
    ;;
esac
setup_images

folder=/usr/local/etc/haproxy
for init in '' --init; do
    for with in '' /var/lib/haproxy/a.sock; do
        what="container${init:+ with $init}, ${with:-no socket}"
        new_case
        bind=:8080 socket=$with
        # shellcheck disable=SC2086 # no word when there is no init
        start_container -v "$dir:$folder:ro" $init "$setup_haproxy"
        try "$what: check accepts" 'config 2; run 0 "" check "$dir/haproxy.cfg.new" && serves 1'
        try "$what: check refuses" 'config 2 nonsense; run 1 "unknown keyword" check "$dir/haproxy.cfg.new"'
        for n in 2 3 4; do
            try "$what: reload at once, $n" 'install $n; run 0 "" reload "$dir/haproxy.cfg" && serves $n'
        done
        try "$what: refused after the check" 'install 5 "bind 192.0.2.1:1"; run 0 "" check "$dir/haproxy.cfg" && run 1 "cannot bind" reload "$dir/haproxy.cfg" && serves 4'
        docker stop -t 1 "$container" >/dev/null
        try "$what: stopped, check accepts" 'config 6; run 0 "" check "$dir/haproxy.cfg.new"'
        try "$what: stopped, check refuses" 'config 6 nonsense; run 1 "unknown keyword" check "$dir/haproxy.cfg.new"'
        try "$what: stopped, nothing to reload" 'install 6; run 4 "does not run" reload "$dir/haproxy.cfg"'
        docker rm -f "$container" >/dev/null
    done
done

new_case
bind=:8080
start_container -v "$dir:$folder:ro" "$setup_haproxy"
docker pause "$container" >/dev/null
try "container: paused" 'install 2; run 1 unpause reload "$dir/haproxy.cfg"'
docker rm -f "$container" >/dev/null
new_case
bind=:8080
install 1
start_container -v "$dir/haproxy.cfg:$folder/haproxy.cfg:ro" "$setup_haproxy"
try "container: a single file is mounted" 'install 2; run 1 "single file" reload "$dir/haproxy.cfg" && serves 1'
docker rm -f "$container" >/dev/null
start_container -v "$dir:$folder:ro" --entrypoint haproxy "$setup_haproxy" -db -f "$folder/haproxy.cfg"
try "container: no master" 'install 2; run 1 "without -W" reload "$dir/haproxy.cfg"'
docker rm -f "$container" >/dev/null
try "container: none" 'run 4 "not running" reload "$dir/haproxy.cfg" && run 0 "" check "$dir/haproxy.cfg"'
try "container: the daemon is away" 'd=${DOCKER_HOST:-}; export DOCKER_HOST=unix:///nonexistent; run 5 daemon check "$dir/haproxy.cfg" && run 1 daemon reload "$dir/haproxy.cfg"; r=$?; if [ -n "$d" ]; then DOCKER_HOST=$d; else unset DOCKER_HOST; fi; [ $r = 0 ]'
try "as sh -c TEXT" 'output=$(sh -c "$(cat "$script")" update_haproxy.sh check "$dir/haproxy.cfg" 2>&1) && [ -z "$output" ]'
finish
