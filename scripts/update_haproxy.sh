#!/bin/sh
# Checks a new haproxy.cfg, and makes HAProxy take it. Cosmonaut runs this (its text is also inside the binary);
# copy and edit it for a HAProxy that it does not know, and name the copy with --script.
#
#   update_haproxy.sh check STAGED     would HAProxy accept the file STAGED? Changes nothing.
#       exit 0  accepted
#       exit 1  refused; HAProxy's words on stderr
#       exit 3  there is no HAProxy here that could tell
#       other   the check itself failed (the Docker daemon is away, a time limit); words on stderr
#   update_haproxy.sh reload CONFIG    CONFIG is in place: make HAProxy run it, and prove that it does
#       exit 0  live and verified
#       exit 4  HAProxy is not running: nothing to reload, it takes the file when it starts
#       other   failed; words on stderr, HAProxy still runs what it ran before
#
# Environment, set by Cosmonaut (all may be missing when an operator runs this by hand):
#   COSMONAUT_CONFIG             where the config lives; reload's CONFIG
#   COSMONAUT_HAPROXY_CONTAINER  HAProxy's container, by default "haproxy"
#   COSMONAUT_HAPROXY_SOCKET     HAProxy's runtime socket, a path or HOST:PORT
#   COSMONAUT_HAPROXY_MASTER     HAProxy's master socket (haproxy -S), a path or HOST:PORT
#   COSMONAUT_FINGERPRINT        16 hex; the config ends in "global", "description cosmonaut:FINGERPRINT"
#   COSMONAUT_CHROOT             "none": the file has no such word, and the check need not look for it
#   DOCKER_HOST                  the daemon, as the docker command understands it
#
# Which HAProxy it is, in this order:
#   1. a haproxy process of this machine that reads COSMONAUT_CONFIG: under systemd, another master (-W), or a
#      plain one (-D)
#   2. the container: the official image's kind (master is the main process), or an old one with a /haproxy.sh
# How a reload is proved: the fingerprint is read back from HAProxy where socat is installed and a socket is known
# (given, or named in the config); otherwise a new worker process that stays, from a master that is done loading.
#
# Needs sh and /proc; uses docker (or podman), socat, systemctl and flock only where there is a use for them.
set -u

VERIFY_CS=500      # a reload that is not proved after 5 s has failed
READY_CS=200       # wait this long for a reload that somebody else has started
TRIGGERS_MAX=3     # a signal that meets a running reload is lost without a word: send it again, this often
LOST_CS=40         # no sign of a reload after 0.4 s: the signal is lost (the master re-executes itself at once)
STAY_CS=3          # a worker that lives this long after its elders left is through chroot and setuid
ELDERS_CS=60       # elders may serve long requests for minutes: a worker that lives this long counts as well
COMMAND_S=10       # limit for one docker, haproxy or systemctl command
SOCKET_S=2         # limit for one question to a socket
WORDS_MAX=40       # lines of a program's output that are passed on

self=update_haproxy.sh

say() { printf '%s: %s\n' "$self" "$*" >&2; }

have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command with a time limit; exit 124 is the limit.
limited() {
    seconds=$1
    shift
    if [ -n "$timeout_command" ]; then timeout "$seconds" "$@"; else "$@"; fi
}

# HAProxy's words without what it says at every start.
words() {
    sed -e '/^\[NOTICE\]/d' -e '/^ *$/d' | tail -n "$WORDS_MAX" >&2
}

# Sets now: hundredths of a second since boot, without starting a program.
clock() {
    read -r uptime _ </proc/uptime
    now=$((${uptime%.*} * 100 + 1${uptime#*.} - 100))
}

# Waits a hundredth of a second, or this long.
pause() { sleep "${1:-0.01}" 2>/dev/null || sleep 1; }

# ---------------------------------------------------------------------------------------------------------------
# Processes, by /proc: no program is started, so that looking every 10 ms costs nothing.

# Sets command: the name of process $1, or nothing.
name_of() {
    command=
    { read -r command <"/proc/$1/comm"; } 2>/dev/null
}

# Sets of process $1: state, parent, start_tick, stack_at (where its stack begins; 0 for who may not know) and catches
# (the signals, as bits).
stat_of() {
    state='' parent='' start_tick='' stack_at=0 catches=0
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    # shellcheck disable=SC2086 # words
    set -- ${stat##*) }
    state=${1:-} parent=${2:-} start_tick=${20:-} stack_at=${26:-0} catches=${32:-0}
}

alive() { stat_of "$1" && [ "$state" != Z ] && [ "$state" != X ]; }

# Sets workers: the haproxy children of the master $1. Other children would be programs that it runs.
list_workers() {
    workers='' children=''
    name_of "$1"
    kind=$command
    if [ -r "/proc/$1/task/$1/children" ]; then
        { read -r children <"/proc/$1/task/$1/children"; } 2>/dev/null
    else
        for path in /proc/[0-9]*; do
            stat_of "${path#/proc/}" && [ "$parent" = "$1" ] && children="$children ${path#/proc/}"
        done
    fi
    for child in $children; do
        name_of "$child"
        [ "$command" = "$kind" ] && alive "$child" && workers="$workers $child"
    done
    return 0
}

# Is the master $1 ready for a signal? While it loads a file it ignores USR2 (12, bit 11), and one that comes then is
# lost. Sets generation: a text that is another one each time that it has loaded its file, since it executes itself anew.
# Where its stack is tells, if the kernel puts each elsewhere; else the counters in its environment, for a program more.
ready() {
    stat_of "$1"
    generation=$stack_at
    [ "$random" != 0 ] && [ "$stack_at" != 0 ] || generation=$(cksum 2>/dev/null <"/proc/$1/environ")
    [ $((catches >> 11 & 1)) = 1 ]
}

# Sets program, files (one a line), mode (W, Ws or nothing), master_socket, pidfile and checks from the command line of
# process $1, unless they are of it already.
read_arguments() {
    [ "$1" != "$arguments_of" ] || return 0
    take_arguments "$1" "$(tr '\0' '\n' 2>/dev/null <"/proc/$1/cmdline")"
}

# The same from its arguments $2, one a line.
take_arguments() {
    arguments_of=$1 arguments=$2
    program='' files='' mode='' master_socket='' pidfile='' checks='' last=''
    while IFS= read -r argument; do
        [ -n "$program" ] || program=$argument
        case $last in
        -f) files="$files$argument$newline" ;;
        -S) master_socket=${argument%%,*} ;;
        -p) pidfile=$argument ;;
        --) files="$files$argument$newline" && argument=-- ;;
        esac
        case $argument in
        -W) mode=W ;;
        -Ws) mode=Ws ;;
        -c) checks=yes ;;
        esac
        last=$argument
    done <<END
$arguments
END
}

# Is one of files, as process $1 sees it below root $2, the very file $3? A directory stands for the files in it.
reads_file() {
    while IFS= read -r file; do
        case $file in
        '') continue ;;
        /*) seen=$2$file ;;
        *) seen=/proc/$1/cwd/$file ;;
        esac
        [ "$seen" = "$3" ] && return 0
        [ -d "$seen" ] && seen=$seen/${3##*/}
        # shellcheck disable=SC3013 # dash, busybox and bash all know -ef
        [ "$seen" -ef "$3" ] && return 0
    done <<END
$files
END
    return 1
}

# Is process $1 in another pid namespace than ours, that is, in a container?
in_container() {
    # shellcheck disable=SC3013 # dash, busybox and bash all know -ef
    [ "/proc/$1/ns/pid" -ef /proc/self/ns/pid ] && return 1
    while read -r key value; do
        case $key in
        NSpid:)
            case $value in
            *[!0-9]*) return 0 ;;
            *) return 1 ;;
            esac
            ;;
        esac
    done 2>/dev/null <"/proc/$1/status"
    return 1
}

# Sets haproxys: PID/comm of each process of that name. One program looks at all of them: there may be thousands, and a
# shell reads byte by byte.
list_haproxys() { haproxys=$(cd /proc && grep -l '^haproxy' [0-9]*/comm 2>/dev/null); }

# Looks for HAProxy on this machine. Sets
#   host_pid    a process of this machine that reads $1 (for a master: the master); its arguments are read
#   host_pids   all of them
#   inner_pid   the same in some container; used where there is no docker command to ask
#   stranger    a process of this machine that reads other files, and stranger_files
find_haproxy() {
    by_note=yes
    if find_again "$1"; then return; fi
    by_note=
    forget_found
    list_haproxys
    for path in $haproxys; do
        take_for_found "${path%/comm}" "$1"
    done
    pid=${host_pid:-$inner_pid}
    if [ -n "$pid" ]; then read_arguments "$pid"; fi
}

# Is the master that the last reload noted still the one? To look through the machine takes some milliseconds, of
# hundreds of processes more. Of several plain processes the right one has to be looked for.
find_again() {
    forget_found
    pid='' noted_tick='' arguments=''
    [ -n "$note" ] && [ -r "$note" ] && {
        read -r pid noted_tick
        while IFS= read -r argument; do arguments=$arguments$argument$newline; done
    } 2>/dev/null <"$note"
    case $pid in '' | *[!0-9]*) return 1 ;; esac
    name_of "$pid"
    case $command in haproxy*) ;; *) return 1 ;; esac
    # The same process has the same arguments, but for what a master adds when it executes itself.
    take_arguments "$pid" "$arguments"
    take_for_found "$pid" "$1"
    if [ -n "$host_pid" ] && [ -n "$mode" ] && [ "$start_tick" = "$noted_tick" ]; then return 0; fi
    arguments_of=
    return 1
}

# Notes the master that was found by looking.
note_found() {
    [ -n "$note" ] && [ -n "$host_pid" ] && [ -n "$mode" ] && [ -z "$by_note" ] || return 0
    read_arguments "$host_pid"
    stat_of "$host_pid" && printf '%s %s\n%s\n' "$host_pid" "$start_tick" "$arguments" >"$note"
} 2>/dev/null

forget_found() { host_pid='' host_pids='' inner_pid='' stranger='' stranger_files=''; }

# What process $1, a haproxy, is to the file $2.
take_for_found() {
    alive "$1" || return
    name_of "$parent"
    case $command in haproxy*) return ;; esac # a worker
    read_arguments "$1"
    [ -z "$checks" ] || return # somebody else's check
    if in_container "$1"; then
        if reads_file "$1" "/proc/$1/root" "$2"; then inner_pid=$1; fi
    elif reads_file "$1" '' "$2"; then
        # Of several plain processes, the one in the pidfile serves; others finish their last requests.
        host_pids="$host_pids $1"
        if [ -z "$host_pid" ] || holds_pid "$pidfile" "$1"; then host_pid=$1; fi
    else
        stranger=$1
        stranger_files=$files
    fi
}

holds_pid() { [ -n "$1" ] && [ -r "$1" ] && read -r held <"$1" && [ "$held" = "$2" ]; }

# ---------------------------------------------------------------------------------------------------------------
# Sockets

# Asks the socket $1 (PATH, unix@PATH, HOST:PORT, ipv4@HOST:PORT ...) the question $2; the answer is on stdout.
ask() {
    case $1 in
    unix://*) address=UNIX-CONNECT:${1#unix://} ;;
    unix@*) address=UNIX-CONNECT:${1#unix@} ;;
    /*) address=UNIX-CONNECT:$1 ;;
    tcp://*) address=TCP:${1#tcp://} ;;
    *@*) address=TCP:${1#*@} ;;
    *) address=TCP:$1 ;;
    esac
    # -t: how long to wait for the answer after our side is closed; a reload answers when it is over.
    printf '%s\n' "$2" | limited "$3" socat -t "$3" - "$address" 2>/dev/null
}

# The path of the first runtime socket in the config $1 whose line holds $2.
stats_socket() {
    sed -n "/^[[:space:]]*stats[[:space:]]\{1,\}socket[[:space:]].*$2/s/^[[:space:]]*stats[[:space:]]\{1,\}socket[[:space:]]\{1,\}['\"]\{0,1\}\(unix@\)\{0,1\}\(\/[^[:space:]'\"]*\).*/\2/p" "$1" | head -n 1
}

# Sets socket to what can be asked for the fingerprint: the given one, or the one that the config $1 names, below
# root $2 for a container. Nothing when there is no socat or no fingerprint.
choose_socket() {
    socket='' socket_given=''
    have socat && [ -n "$fingerprint" ] || return 0
    socket=${COSMONAUT_HAPROXY_SOCKET:-}
    socket_given=$socket
    [ -n "$socket" ] && return 0
    socket=$(stats_socket "$1" "")
    [ -n "$socket" ] && socket=$2$socket
    [ -n "$socket" ] && [ ! -S "$socket" ] && socket=
    return 0
}

# Which config answers on the socket? Exit 0: ours; 1: another one; 2: nobody answers.
fingerprint_live() {
    if [ -n "$socket" ]; then
        answer=$(ask "$socket" "show info" "$SOCKET_S")
    elif [ -n "$master" ]; then
        answer=$(ask "$master" "@1 show info" "$SOCKET_S")
    else
        return 2
    fi
    case $answer in
    *"escription: cosmonaut:$fingerprint"*) return 0 ;;
    *"Pid: "*) return 1 ;;
    *) return 2 ;;
    esac
}

# ---------------------------------------------------------------------------------------------------------------
# The reload of a master (haproxy -W): the heart of it. $1: the master's pid here. $2: how HAProxy is called in
# messages. trigger and last_words are set by the caller: the functions that ask for a reload and that print what
# HAProxy said.
reload_master() {
    pid=$1
    clock
    end=$((now + READY_CS))
    until ready "$pid"; do
        [ "$now" -lt "$end" ] || break
        pause
        clock
    done
    clock
    end=$((now + VERIFY_CS))
    tries=0
    while [ "$tries" -lt "$TRIGGERS_MAX" ] && [ "$now" -lt "$end" ]; do
        tries=$((tries + 1))
        [ "$tries" = 1 ] || ready "$pid"
        loaded=$generation
        list_workers "$pid"
        elders=$workers
        "$trigger" "$pid" || return 1
        clock
        watch_worker "$pid" "$now"
        case $? in
        0) return 0 ;;
        1)
            say "$2 refused the new config and still runs the old one; it said:"
            "$last_words"
            return 1
            ;;
        3)
            say "$2 ended while it took the new config; it said:"
            "$last_words"
            return 1
            ;;
        esac
        clock
    done
    if [ -n "$socket_given" ] && [ "$answered" = 2 ]; then
        say "$2 was told to reload, but its socket $socket_given does not answer: is that where 'stats socket' of the config is?"
    elif [ "$answered" = 1 ]; then
        say "$2 was told to reload $tries times, and $socket still shows another config: does another HAProxy answer there?"
    else
        say "$2 was told to reload $tries times, and no new worker came within $((VERIFY_CS / 100)) s"
        "$last_words"
    fi
    return 1
}

# Watches the master $1 after a trigger at time $2 until the new worker is proved.
# Exit 0: live. 1: refused. 2: nothing came of it (the signal is lost). 3: HAProxy is gone.
watch_worker() {
    born='' born_at=0 alone_at='' answered=''
    # No master loads its file in less than this; looking takes processor time that it needs.
    wait_s=0.03
    while [ "$now" -lt "$end" ]; do
        pause "$wait_s"
        wait_s=0.01
        clock
        # In this order: a master that has loaded again and is ready, and still has no new worker, has refused.
        ready=no changed=no
        if ready "$1"; then ready=yes; fi
        case $state in '' | Z | X) return 3 ;; esac
        if [ -z "$born" ] && [ "$generation" != "$loaded" ]; then changed=yes; fi
        list_workers "$1"
        fresh='' left=no
        for worker in $workers; do
            case " $elders " in *" $worker "*) left=yes ;; *) fresh=$worker ;; esac
        done
        if [ -z "$fresh" ]; then
            [ -n "$born" ] && return 1 # it came, and it died
            if [ "$changed" = yes ] && [ "$ready" = yes ]; then return 1; fi
            if [ "$changed" = no ] && [ "$ready" = yes ] && [ $((now - $2)) -ge "$LOST_CS" ]; then return 2; fi
            continue
        fi
        if [ "$fresh" != "$born" ]; then
            born=$fresh born_at=$now alone_at=''
        fi
        [ "$left" = yes ] || alone_at=${alone_at:-$now}
        if [ -n "$socket" ] || { [ -n "$master" ] && [ -n "$fingerprint" ]; }; then
            fingerprint_live
            answered=$?
            [ "$answered" = 0 ] && return 0
            # Another config is live although a worker came: it belonged to a reload before ours.
            if [ "$answered" = 1 ]; then
                if [ $((now - born_at)) -ge 100 ]; then return 2; else continue; fi
            fi
            # A socket that the operator names must answer; one that we found by ourselves need not.
            [ -n "$socket_given" ] && continue
        fi
        [ "$ready" = yes ] || continue
        if [ -n "$alone_at" ] && [ $((now - alone_at)) -ge "$STAY_CS" ]; then return 0; fi
        if [ $((now - born_at)) -ge "$ELDERS_CS" ]; then return 0; fi
    done
    return 2
}

# Ways to ask for a reload.
signal_master() { kill -USR2 "$1" || { say "cannot signal HAProxy's master, process $1: are you root?"; return 1; }; }

signal_container() {
    output=$(limited "$COMMAND_S" "$docker" kill --signal HUP "$container" 2>&1) && return 0
    say "cannot signal the container $container: $output"
    return 1
}

reload_unit() {
    output=$(limited "$COMMAND_S" systemctl reload haproxy.service 2>&1) && return 0
    # The unit checks the file quietly first; its words are what is wanted.
    binary_of "$1"
    check_on_host "$config" && printf '%s\n' "$output" | words
    say "'systemctl reload haproxy' failed; 'systemctl status haproxy' says more"
    return 1
}

# The master socket. From 2.7 on it answers when the reload is over; older ones only close the connection.
reload_by_socket() {
    if [ -z "$(ask "$master" 'show proc' "$SOCKET_S")" ]; then
        say "the master socket $master does not answer; the signal is used instead"
        "$other_trigger" "$1"
        return
    fi
    answer=$(ask "$master" reload $((VERIFY_CS / 100)))
    case $answer in
    *'[ALERT]'*) said=$answer ;;
    esac
}

# Ways to hear what HAProxy said.
said=
words_of_reply() {
    if [ -n "$said" ]; then printf '%s\n' "$said" | words; else "$other_words"; fi
}
words_of_container() {
    limited "$COMMAND_S" "$docker" logs --since "$since" --tail 200 "$container" 2>&1 |
        grep -E '\[(ALERT|WARNING|EMERG)\]|Loading failure|Failed to load worker|^haproxy:' | words
}
words_of_unit() {
    if [ -n "$host_pid" ]; then
        binary_of "$host_pid"
        check_on_host "$config" || return
    fi
    have journalctl && limited "$COMMAND_S" journalctl --unit haproxy --since "@${since%.*}" --output cat --no-pager 2>/dev/null |
        grep -E 'ALERT|WARNING|EMERG' | words
}
words_of_nobody() {
    if [ -n "$host_pid" ]; then
        binary_of "$host_pid"
        check_on_host "$config" || return
    fi
    say "its words are in its own log; the file passed 'haproxy -c', which does not see: an address in use, chroot, a socket's or pidfile's directory, limits"
}

# ---------------------------------------------------------------------------------------------------------------
# HAProxy as a process of this machine

# Sets binary: the program of process $1, or haproxy when it was replaced by an upgrade.
binary_of() {
    read_arguments "$1"
    binary=$program
    # shellcheck disable=SC3013 # dash, busybox and bash all know -ef
    case $binary in /*) [ -x "$binary" ] && [ "$binary" -ef "/proc/$1/exe" ] && return ;; esac
    binary=$(readlink "/proc/$1/exe" 2>/dev/null)
    [ -n "$binary" ] && [ -x "$binary" ] || binary=haproxy
}

# Is process $1 in the control group of haproxy.service? To ask systemctl about any other costs some milliseconds.
in_unit() {
    while read -r group; do
        case $group in */haproxy.service*) return 0 ;; esac
    done 2>/dev/null <"/proc/$1/cgroup"
    return 1
}

reload_on_host() {
    choose_socket "$1" ''
    if [ -z "$mode" ]; then
        reload_plain "$1"
        return
    fi
    [ -n "$master" ] || { have socat && [ -S "${master_socket#unix@}" ] && master=$master_socket; }
    trigger=signal_master last_words=words_of_nobody
    what="HAProxy (master process $host_pid)"
    if in_unit "$host_pid" && have systemctl &&
        [ "$(systemctl show --property MainPID haproxy.service 2>/dev/null)" = "MainPID=$host_pid" ]; then
        since=$(date +%s)
        trigger=reload_unit last_words=words_of_unit
        what="haproxy.service"
    fi
    if [ -n "$master" ]; then
        other_trigger=$trigger other_words=$last_words
        trigger=reload_by_socket last_words=words_of_reply
    fi
    reload_master "$host_pid" "$what"
}

# A process without a master cannot load a file again: a new one is started, and tells the old one to finish.
reload_plain() {
    lock=${COSMONAUT_STATE_DIR:-}
    [ -n "$lock" ] && [ -d "$lock" ] || lock=$(dirname "$1")
    # Two at once would leave two HAProxys serving two configs for ever.
    if have flock; then
        exec 9>"$lock/.haproxy-reload.lock" || return 1
        flock -w $((VERIFY_CS / 100)) 9 || {
            say "somebody else is reloading HAProxy (lock $lock/.haproxy-reload.lock)"
            return 1
        }
    fi
    binary_of "$host_pid"
    set --
    skip=no
    first=yes
    while IFS= read -r argument; do
        if [ "$first" = yes ]; then first=no && continue; fi
        # What the last reload added: -x SOCKET, -sf PID ...
        case $skip$argument in
        *-sf | *-st) skip=pids && continue ;;
        *-x) skip=one && continue ;;
        one*) skip=no && continue ;;
        pids-*) skip=no ;;
        pids*) continue ;;
        esac
        set -- "$@" "$argument"
    done <<END
$arguments
END
    # Listening sockets handed over, no connection attempt is refused in between.
    handover=$(stats_socket "$config" 'expose-fd[[:space:]]\{1,\}listeners')
    output='' status=1
    # shellcheck disable=SC2086 # host_pids is a list
    if [ -n "$handover" ] && [ -S "$handover" ]; then
        output=$(limited "$COMMAND_S" "$binary" "$@" -x "$handover" -sf $host_pids 2>&1 9>&-)
        status=$?
    fi
    if [ "$status" != 0 ]; then
        case $output in
        '' | *"sockets from the old process"*)
            # shellcheck disable=SC2086 # host_pids is a list
            output=$(limited "$COMMAND_S" "$binary" "$@" -sf $host_pids 2>&1 9>&-)
            status=$?
            ;;
        esac
    fi
    printf '%s\n' "$output" | words
    if [ "$status" != 0 ]; then
        say "a new HAProxy could not start (exit $status); process $host_pid still runs the old config"
        return 1
    fi
    old=$host_pid
    clock
    end=$((now + VERIFY_CS)) answered='' born_at=$now
    while [ "$now" -lt "$end" ]; do
        pause
        clock
        find_successor "$old" "$config"
        if [ -z "$successor" ]; then
            if ! alive "$old"; then
                say "HAProxy ended while it took the new config (a chroot that fails does this): nothing serves; start it again"
                return 1
            fi
            born_at=$now
            continue
        fi
        if [ -n "$socket" ]; then
            fingerprint_live
            answered=$?
            [ "$answered" = 0 ] && return 0
            [ "$answered" = 1 ] || [ -n "$socket_given" ] && continue
        fi
        if [ $((now - born_at)) -ge "$STAY_CS" ]; then return 0; fi
    done
    say "a new HAProxy was started, but it is not proved to run the new config after $((VERIFY_CS / 100)) s (socket: ${socket:-none})"
    return 1
}

# Sets successor: a process that reads $2 and is not $1.
find_successor() {
    successor=
    list_haproxys
    for path in $haproxys; do
        pid=${path%/comm}
        [ "$pid" != "$1" ] || continue
        alive "$pid" || continue
        in_container "$pid" && continue
        read_arguments "$pid"
        # The leaving ones were started before: only the one that was told to relieve $1 counts.
        case "$newline$arguments$newline" in *"$newline$1$newline"*) ;; *) continue ;; esac
        reads_file "$pid" '' "$2" && successor=$pid
    done
}

# ---------------------------------------------------------------------------------------------------------------
# HAProxy in a container

# Sets id, status, main_pid and image of the container. Exit 1: there is none; 2: the daemon does not say.
inspect_container() {
    id='' status='' main_pid=0 image='' started=''
    output=$(limited "$COMMAND_S" "$docker" inspect --type container \
        --format '{{.Id}} {{.State.Status}} {{.State.Pid}} {{.Image}} {{.State.StartedAt}}' "$container" 2>&1) || {
        case $output in
        *[Nn]"o such"*) return 1 ;;
        esac
        say "cannot ask '$docker' about the container $container: $output"
        return 2
    }
    # shellcheck disable=SC2086 # split on purpose: the five fields of the format
    set -- $output
    id=${1:-} status=${2:-} main_pid=${3:-0} image=${4:-} started=${5:-}
}

# Is the container's main process one of the processes that we see? The daemon may be on another machine.
visible() {
    [ "$main_pid" -gt 0 ] 2>/dev/null && [ -r "/proc/$main_pid/cgroup" ] || return 1
    while read -r line; do
        case $line in *"$id"*) return 0 ;; esac
    done 2>/dev/null <"/proc/$main_pid/cgroup"
    # A cgroup that does not tell: another pid namespace is as good a sign.
    in_container "$main_pid"
}

# Sets haproxy_pid: the master in the container, which is its main process or a child of its init.
find_master() {
    haproxy_pid=
    name_of "$main_pid"
    case $command in
    haproxy*) haproxy_pid=$main_pid ;;
    *)
        { read -r inits <"/proc/$main_pid/task/$main_pid/children"; } 2>/dev/null
        for child in ${inits:-}; do
            name_of "$child"
            case $command in haproxy*) haproxy_pid=$child ;; esac
        done
        ;;
    esac
    [ -n "$haproxy_pid" ] && read_arguments "$haproxy_pid"
}

# Does HAProxy in the container see the text of $1? A file that is mounted by itself stays the old one for ever
# when it is replaced by a rename: HAProxy would reload, and nothing would change.
sees_config() {
    while IFS= read -r file; do
        case $file in
        '') continue ;;
        /dev/*) return 0 ;;
        /*) seen=/proc/$haproxy_pid/root$file ;;
        *) seen=/proc/$haproxy_pid/cwd/$file ;;
        esac
        for seen in "$seen" "$seen/${1##*/}"; do
            cmp -s "$seen" "$1" && return 0
        done
        # A link inside the container points elsewhere for us: let the container look.
        limited "$COMMAND_S" "$docker" exec "$container" cat "$file" 2>/dev/null | cmp -s - "$1" && return 0
    done <<END
$files
END
    first=${files%%"$newline"*}
    mounts=$(limited "$COMMAND_S" "$docker" inspect --type container \
        --format '{{range .Mounts}}{{println .Source}}{{end}}' "$container" 2>/dev/null)
    case "$newline$mounts$newline" in
    *"$newline$1$newline"*)
        say "the container $container has $1 mounted as a single file and still sees the old one: mount its directory instead (-v ${1%/*}:${first%/*}), or restart the container"
        ;;
    *)
        say "HAProxy in the container $container reads $first, which is not the text of $1: mount ${1%/*} at ${first%/*} (-v ${1%/*}:${first%/*}:ro), or name the right file with --config"
        ;;
    esac
    return 1
}

reload_in_container() {
    since=$(date +%s.%N)
    since=${since%%[!0-9.]*}
    if ! visible; then
        reload_out_of_sight "$1"
        return
    fi
    if [ -e "/proc/$main_pid/root/haproxy.sh" ]; then
        reload_old_image "$1"
        return
    fi
    find_master
    if [ -z "$haproxy_pid" ]; then
        say "no haproxy runs as the main process of the container $container, and there is no /haproxy.sh in it: write a script of your own for this image and name it with --script"
        return 1
    fi
    if [ -z "$mode" ]; then
        say "HAProxy in the container $container runs without -W, so it cannot load a file again: start it as the official image does (haproxy -W -db -f ...)"
        return 1
    fi
    sees_config "$1" || return 1
    choose_socket "$1" "/proc/$haproxy_pid/root"
    if [ -z "$master" ] && [ -n "$master_socket" ] && have socat; then
        master_socket=/proc/$haproxy_pid/root${master_socket#unix@}
        [ -S "$master_socket" ] && master=$master_socket
    fi
    # The signal is sent from here, which is quicker than by the daemon, where we may.
    trigger=signal_container last_words=words_of_container
    kill -0 "$haproxy_pid" 2>/dev/null && trigger=signal_master
    if [ -n "$master" ]; then
        other_trigger=$trigger other_words=$last_words
        trigger=reload_by_socket last_words=words_of_reply
    fi
    reload_master "$haproxy_pid" "HAProxy in the container $container"
}

# The container's processes are not ours to see (the daemon is on another machine, or we are in a container).
# The daemon is asked instead, which is slower: its process list, its log.
reload_out_of_sight() {
    choose_socket "$1" /nowhere
    top=$(limited "$COMMAND_S" "$docker" top "$container" -eo pid,comm 2>/dev/null | grep haproxy)
    if limited "$COMMAND_S" "$docker" exec "$container" test -e /haproxy.sh 2>/dev/null; then
        reload_old_image "$1"
        return
    fi
    files=$(limited "$COMMAND_S" "$docker" top "$container" -eo pid,args 2>/dev/null | sed -n 's/.*haproxy .*-f \([^ ]*\).*/\1/p' | head -n 1)
    haproxy_pid=none
    if [ -n "$files" ]; then sees_config "$1" || return 1; fi
    # The daemon's clock counts for its log, and it is not ours.
    since=$(limited "$COMMAND_S" "$docker" logs --timestamps --tail 1 "$container" 2>&1 | tail -n 1)
    since=${since%% *}
    case $since in [0-9]*T*) ;; *) since=$started ;; esac
    tries=0
    clock
    end=$((now + VERIFY_CS))
    while [ "$tries" -lt "$TRIGGERS_MAX" ] && [ "$now" -lt "$end" ]; do
        tries=$((tries + 1))
        signal_container || return 1
        clock
        again=$((now + VERIFY_CS / TRIGGERS_MAX))
        while [ "$now" -lt "$again" ]; do
            log=$(limited "$COMMAND_S" "$docker" logs --since "$since" --tail 200 "$container" 2>&1 | grep -v "^$since")
            case $log in
            *'Loading failure!'* | *'Failed to load worker'*)
                say "HAProxy in the container $container refused the new config and still runs the old one; it said:"
                words_of_container
                return 1
                ;;
            esac
            if [ -n "$socket" ] || [ -n "$master" ]; then
                fingerprint_live && return 0
            else
                case $log in *'Loading success.'*) return 0 ;; esac
                after=$(limited "$COMMAND_S" "$docker" top "$container" -eo pid,comm 2>/dev/null | grep haproxy)
                for worker in $(printf '%s\n' "$after" | sed 's/^ *\([0-9]*\).*/\1/'); do
                    case $newline$top in *"$newline"*"$worker "*) ;; *) [ -n "$top" ] && return 0 ;; esac
                done
            fi
            pause
            clock
        done
        inspect_container || return 1
        if [ "$status" != running ]; then
            say "the container $container is $status after the reload; it said:"
            words_of_container
            return 1
        fi
    done
    say "HAProxy in the container $container was told to reload $tries times, and nothing shows that it did within $((VERIFY_CS / 100)) s"
    return 1
}

# Old images reload by a script that drops new connections with iptables, starts a second HAProxy, and lets them in
# again; when HAProxy refuses the file, the rules stay for ever. So: the file is checked first, and the rules are
# removed before and after, whatever happened; inside the container, where it goes on if we are killed.
reload_old_image() {
    check_in_container "$1" || {
        say "/haproxy.sh of the container $container was not called with a config that HAProxy refuses"
        return 1
    }
    if visible; then
        # The main process is mostly a shell; HAProxy itself is one of the others.
        pids=$(limited "$COMMAND_S" "$docker" top "$container" -eo pid,comm 2>/dev/null | sed -n 's/^ *\([0-9]*\) *haproxy.*/\1/p')
        for haproxy_pid in $pids; do
            read_arguments "$haproxy_pid"
            sees_config "$1" || return 1
            break
        done
        choose_socket "$1" "/proc/$main_pid/root"
    else
        pids=
    fi
    # shellcheck disable=SC2016 # expanded by the shell in the container
    output=$(limited $((COMMAND_S * 2)) "$docker" exec "$container" sh -c '
        open() {
            for port in 80 443; do
                n=0
                while [ $n -lt 50 ] && iptables -D INPUT -p tcp --dport $port --syn -j DROP 2>/dev/null; do
                    n=$((n + 1))
                    echo "cosmonaut: removed a rule that dropped new connections to port $port"
                done
            done
        }
        open
        /haproxy.sh
        status=$?
        open
        exit $status' 2>&1)
    status=$?
    printf '%s\n' "$output" | words
    if [ "$status" != 0 ]; then
        say "/haproxy.sh in the container $container failed (exit $status)"
        return 1
    fi
    clock
    end=$((now + VERIFY_CS))
    while [ "$now" -lt "$end" ]; do
        if [ -n "$socket" ]; then
            fingerprint_live && return 0
        else
            after=$(limited "$COMMAND_S" "$docker" top "$container" -eo pid,comm 2>/dev/null | sed -n 's/^ *\([0-9]*\) *haproxy.*/\1/p')
            for worker in $after; do
                case "$newline$pids$newline" in *"$newline$worker$newline"*) ;; *) return 0 ;; esac
            done
        fi
        pause
        clock
    done
    say "/haproxy.sh in the container $container ended well, but no new HAProxy runs there"
    return 1
}

# ---------------------------------------------------------------------------------------------------------------
# check

# What a finished check means. $1: its exit code, $2: its output, $3: which HAProxy it was.
verdict() {
    case $1 in
    0)
        # A warning is worth a line in the log; the file is accepted all the same.
        [ -z "$2" ] || printf '%s\n' "$2" | words
        return 0
        ;;
    1 | 2)
        printf '%s\n' "$2" | words
        return 1
        ;;
    126 | 127)
        # Removed or replaced while it runs: there is nothing to check with, which is no refusal.
        say "$3 cannot be started, so it cannot check the file: $2"
        return 3
        ;;
    124 | 137)
        say "$3 did not finish the check within $COMMAND_S s"
        return 5
        ;;
    *)
        printf '%s\n' "$2" | words
        say "$3 ended the check with exit code $1"
        return 5
        ;;
    esac
}

# The check by the HAProxy in the container. Exit 0, 1, 3, 5 as in the contract; 6: there is no such container.
check_in_container() {
    # Masters must be asked as masters; HAProxys from before masters (1.7) answer -W with their usage.
    for flag in -W ''; do
        # shellcheck disable=SC2086 # no word at all when the flag is empty
        output=$(limited "$COMMAND_S" "$docker" exec -i "$container" haproxy $flag -c -f /dev/stdin <"$1" 2>&1 >/dev/null)
        status=$?
        case $output in Usage* | *"$newline"Usage*) ;; *) break ;; esac
    done
    case $status,$output in
    0,* | *,*'[ALERT]'*) ;;
    *[Nn]"o such container"*) return 6 ;;
    *"is not running"* | *"is restarting"* | *"is paused"* | *"state improper"*)
        check_with_image "$1"
        return
        ;;
    126,* | 127,*)
        say "the container $container has no haproxy program that could check the file: $output"
        return 3
        ;;
    *"Error response from daemon"* | *[Cc]"annot connect"* | *"permission denied"*)
        say "cannot ask '$docker' about the container $container: $output"
        return 5
        ;;
    esac
    verdict "$status" "$output" "HAProxy in the container $container"
}

# The container does not run: its image holds the same HAProxy, and its volumes the files that a config may name.
check_with_image() {
    inspect_container || return 5
    output=$(limited "$COMMAND_S" "$docker" run --rm -i --network none --volumes-from "$container:ro" \
        --name "cosmonaut-check-$$" --label cosmonaut.enable=false --entrypoint haproxy \
        "$image" -W -c -f /dev/stdin <"$1" 2>&1 >/dev/null)
    status=$?
    case $status,$output in
    125,*)
        say "cannot check with the image of the container $container: $output"
        return 5
        ;;
    126,* | 127,*)
        say "the image of the container $container has no haproxy program that could check the file: $output"
        return 3
        ;;
    esac
    verdict "$status" "$output" "HAProxy in the image of the container $container"
}

check_on_host() {
    # Cosmonaut limits the time of the whole run: one program less to start.
    limit=
    [ -n "${COSMONAUT_STATE_DIR:-}" ] || limit=$timeout_command
    # shellcheck disable=SC2086 # no word at all when there is no limit, or no master mode
    output=$(exec $limit ${limit:+$COMMAND_S} "$binary" ${mode:+-$mode} -c -f /dev/stdin <"$1" 2>&1 >/dev/null)
    verdict $? "$output" "$binary"
}

# What 'haproxy -c' does not see and what is worse than a refusal: a chroot that fails ends HAProxy, old workers and
# all. $1: the staged file. Looked for where HAProxy's process can be seen.
chroot_works() {
    pid=${host_pid:-$inner_pid}
    [ -n "$pid" ] || return 0
    # The last one counts.
    # shellcheck disable=SC2016 # a line of sed's
    folder=$(sed -n -e "/^[[:space:]]*chroot[[:space:]]/{s/^[[:space:]]*chroot[[:space:]]*['\"]\{0,1\}\([^[:space:]'\"]*\).*/\1/;h;}" -e '${g;p;}' "$1")
    [ -n "$folder" ] || return 0
    user=0
    while read -r key value; do
        [ "$key" = Uid: ] && user=${value%%[!0-9]*}
    done 2>/dev/null <"/proc/$pid/status"
    root=
    [ -n "$host_pid" ] || root=/proc/$pid/root
    if [ "$user" != 0 ]; then
        say "the config says 'chroot $folder', and HAProxy (process $pid) runs as user $user, who may not do that: it would end"
        return 1
    fi
    if [ ! -d "$root$folder" ] && [ -d "${root:-/}" ]; then
        say "the config says 'chroot $folder', and there is no such folder: HAProxy (process $pid) would end"
        return 1
    fi
}

check() {
    find_haproxy "$config"
    if [ "${COSMONAUT_CHROOT:-}" = none ]; then
        check_by_haproxy "$1"
        return
    fi
    # Beside HAProxy's own check; most configs do not say it.
    grep -q '^[[:space:]]*chroot[[:space:]]' "$1" &
    grep_pid=$!
    check_by_haproxy "$1" || return
    if wait "$grep_pid"; then chroot_works "$1"; fi
}

check_by_haproxy() {
    if [ -n "$host_pid" ]; then
        binary_of "$host_pid"
        check_on_host "$1"
        return
    fi
    if [ -n "$docker" ]; then
        check_in_container "$1"
        status=$?
        [ "$status" != 6 ] && return "$status"
    fi
    # Nobody runs yet; the program that is installed will likely be the one.
    if have haproxy; then
        binary=haproxy mode=W
        check_on_host "$1"
        return
    fi
    say "no HAProxy here to check the file with: no container named $container${docker:+ (asked $docker)}, no haproxy program"
    return 3
}

# ---------------------------------------------------------------------------------------------------------------
# reload

reload() {
    find_haproxy "$1"
    note_found
    if [ -n "$host_pid" ]; then
        reload_on_host "$1"
        return
    fi
    if [ -n "$docker" ]; then
        inspect_container
        case $? in
        0)
            if [ "$status" = running ]; then
                reload_in_container "$1"
                return
            fi
            if [ "$status" = paused ]; then
                say "the container $container is paused, and HAProxy in it cannot reload: docker unpause $container"
                return 1
            fi
            say "the container $container does not run ($status): HAProxy takes $1 when it starts"
            return 4
            ;;
        2) return 1 ;;
        esac
    elif [ -n "$inner_pid" ] && [ -n "$mode" ]; then
        since=0 trigger=signal_master last_words=words_of_nobody
        choose_socket "$1" "/proc/$inner_pid/root"
        reload_master "$inner_pid" "HAProxy in a container (process $inner_pid)"
        return
    fi
    if [ -n "$inner_pid" ]; then
        say "HAProxy runs in a container that is not named $container and reads $1: name it with --haproxy-container"
        return 1
    fi
    say "HAProxy is not running: no container named $container${docker:+ (asked $docker)}, no process that reads $1; it takes it when it starts"
    if [ -n "$stranger" ]; then
        say "a HAProxy runs here (process $stranger), but it reads ${stranger_files%%"$newline"*}: is that the file to name with --config?"
    fi
    return 4
}

main() {
    newline='
'
    case ${1:-}:$# in
    check:2 | reload:2) ;;
    *)
        say "usage: $self check STAGED | reload CONFIG"
        exit 2
        ;;
    esac
    if [ ! -r "$2" ]; then
        say "cannot read $2"
        exit 2
    fi
    # Where cron does not look, and haproxy mostly is.
    PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
    config=${COSMONAUT_CONFIG:-$2}
    container=${COSMONAUT_HAPROXY_CONTAINER:-haproxy}
    master=${COSMONAUT_HAPROXY_MASTER:-}
    fingerprint=${COSMONAUT_FINGERPRINT:-}
    [ -n "$fingerprint" ] || fingerprint=$(sed -n 's/^[[:space:]]*description[[:space:]]\{1,\}cosmonaut:\([0-9a-f]*\).*/\1/p' "$2" | tail -n 1)
    have socat || master=
    timeout_command=
    if have timeout; then timeout_command=timeout; fi
    arguments_of=
    random=0
    { read -r random </proc/sys/kernel/randomize_va_space; } 2>/dev/null
    note=${COSMONAUT_STATE_DIR:+$COSMONAUT_STATE_DIR/.haproxy-master}
    docker=
    if have docker; then docker=docker; elif have podman; then docker=podman; fi
    case $1 in
    check) check "$2" ;;
    reload)
        config=$2
        reload "$2"
        ;;
    esac
}

main "$@"
