#!/bin/sh
# Runs a command in a container as if it ran right here: dual exec and the shims both end in this.
#
#   run.sh CONTAINER USER WORKDIR TIMEOUT TTY COMMAND [DOCKER EXEC OPTION]... CONTAINER COMMAND...
#
# USER, WORKDIR and TIMEOUT (seconds) may be empty, TTY is "no" for none. What follows them goes to
# docker exec as it is. DUAL_RETRY in the environment is a command that takes this one's place where
# there is no such container, or it doesn't run: one that can tell why.
#
# A plain docker exec that is ended leaves the command running in the container, and there is no
# call of the engine that would end it. So every process of it bears a mark in its environment,
# by which a second docker exec finds it. That is done
#   - here, at a signal, which is passed on, and at a timeout;
#   - by a watcher, which reads from a pipe that this process holds: when it is killed.
set -u
container=$1 user=$2 workdir=$3 timeout=$4 tty=$5 command=$6
shift 6

retry() {
    [ -z "${DUAL_RETRY:-}" ] || eval "exec $DUAL_RETRY"
}

command -v docker >/dev/null 2>&1 || { retry; echo "docker: not found" >&2; exit 69; }

{ read -r id </proc/sys/kernel/random/uuid; } 2>/dev/null || id=$$-$(date +%s)

# ── in the container ──

# Sends a signal to all processes with the mark, and to theirs. The command itself, whose parent is
# outside, has some seconds to end; what it leaves behind is ended at once then, and killed if need
# be. With "left", all that only if the command still runs.
end_all='
mark=DUAL_EXEC=$1 signal=$2 grace=$3 when=$4
marked() {
    if command -v grep >/dev/null 2>&1; then
        grep -lsF "$mark" /proc/[0-9]*/environ
    else
        for file in /proc/[0-9]*/environ; do
            while IFS= read -r text || [ -n "$text" ]; do
                case $text in *"$mark"*) echo "$file"; break ;; esac
            done <"$file"
        done
    fi 2>/dev/null
}
is() { # PID KEY VALUE: of its status
    while read -r key value _; do
        [ "$key" != "$2:" ] || { [ "$value" = "$3" ]; return; }
    done 2>/dev/null <"/proc/$1/status"
    return 1
}
add() { # to those known, with all below: whose parent ends is still known
    for pid; do
        case " $known " in *" $pid "*) ;; *) known="$known $pid" ;; esac
        for file in /proc/"$pid"/task/*/children; do
            { read -r children || [ -n "$children" ]; } 2>/dev/null <"$file" && add $children
        done
    done
}
look() { # for all that are there: the command itself first, or it might outlive a child and go on
    for file in $(marked); do
        pid=${file#/proc/}
        add "${pid%/environ}"
    done
    add $known
    there= below=
    for pid in $known; do
        if [ ! -e "/proc/$pid" ] || is "$pid" State Z; then continue; fi
        if is "$pid" PPid 0; then there="$there $pid"; else below="$below $pid"; fi
    done
    there=$there$below
    [ -n "$there" ]
}
command_runs() {
    for pid in $there; do
        if is "$pid" PPid 0; then return 0; fi
    done
    return 1
}
nap() { sleep 0.1 2>/dev/null || sleep 1 2>/dev/null; }
end() { # SIGNAL NAPS
    kill -s "$1" $there 2>/dev/null
    naps=$2
    while look && [ "$naps" -gt 0 ] && nap; do
        naps=$((naps - 1))
        [ "$1" = TERM ] || command_runs || return
    done
}

known= there= tries=0
until look || [ "$when" = left ] || [ "$tries" -eq 10 ]; do # it may be about to begin
    nap || break
    tries=$((tries + 1))
done
[ "$when" = all ] || command_runs || exit 0
[ -z "$there" ] || end "$signal" $((grace * 10))
[ -z "$there" ] || [ "$grace" -eq 0 ] || end TERM 20
[ -z "$there" ] || kill -s KILL $there 2>/dev/null
exit 0
'

# ── out here ──

# What a signal of the terminal must not reach has a session of its own, where there is a way.
if command -v setsid >/dev/null 2>&1; then apart=setsid; else apart=; fi

end_it() { # SIGNAL GRACE WHEN
    $apart docker exec ${user:+-u "$user"} "$container" \
        sh -c "$end_all" sh "$id" "$1" "$2" "$3" >/dev/null 2>&1 9>&-
    case $? in
    126 | 127)
        echo "dual: there is no sh in $container: what was started in it may still run" >&2
        return 1
        ;;
    esac
}

lasts() { # PID TENTHS: whether it is still there after that many tenths of a second
    tenths=$2
    while kill -s 0 "$1" 2>/dev/null; do
        [ "$tenths" -gt 0 ] || return 0
        sleep 0.1
        tenths=$((tenths - 1))
    done
    return 1
}

enders=
pass_on() {
    ended_by=$1
    grace=10
    [ -z "$enders" ] || grace=0 # who asks twice means at once
    (
        # Under load, an engine may forget to tell its client.
        end_it "$1" "$grace" all && lasts "$client" 50 && kill -s KILL "$client"
    ) &
    enders="$enders $!"
}

{ command exec 3<&0; } 2>/dev/null || exec 3</dev/null # a background job would lose it

pipe=${TMPDIR:-/tmp}/dual-exec-$id
mkfifo -m 600 "$pipe" || exit 1
# It gets what it needs by its own name: the mark must not stand in a docker exec's command line.
export DUAL_EXEC_END="$end_all"
$apart sh -c '
    trap "" INT HUP TERM
    exec 8<"$1"
    rm -f "$1"
    read -r word <&8
    [ "$word" = done ] && exit
    exec docker exec ${3:+-u "$3"} "$2" sh -c "$DUAL_EXEC_END" sh "$4" TERM 10 all
' sh "$pipe" "$container" "$user" "$id" </dev/null >/dev/null 2>&1 3<&- &
exec 9>"$pipe"
unset DUAL_EXEC_END

ended_by=
trap 'pass_on INT' INT
trap 'pass_on TERM' TERM
trap 'pass_on HUP' HUP
trap 'pass_on TERM; ended_by=timeout' ALRM

if [ "$tty" != no ] && [ -t 0 ] && [ -t 1 ]; then
    # It stays in front, to be told of the window's size; keys are no signals to it.
    docker exec -it -e DUAL_EXEC="$id" "$@" <&3 3<&- 9>&- &
else
    $apart docker exec -i -e DUAL_EXEC="$id" "$@" <&3 3<&- 9>&- &
fi
client=$!

timer=
if [ -n "$timeout" ]; then
    (
        trap 'kill "$nap" 2>/dev/null; exit' TERM
        sleep "$timeout" &
        nap=$!
        wait "$nap" && kill -s ALRM $$
    ) </dev/null >/dev/null 2>&1 3<&- 9>&- &
    timer=$!
fi

while :; do
    wait "$client" # until it ends, or a signal is passed on
    code=$?
    kill -s 0 "$client" 2>/dev/null || break
done
[ -z "$timer" ] || kill "$timer" 2>/dev/null
if [ -n "$ended_by" ]; then
    for each in $enders; do lasts "$each" 150; done
elif [ "$code" -gt 128 ]; then
    end_it TERM 10 left # perhaps it is only the client that was ended, by a closed pipe say
fi
echo "done" >&9

if [ "$ended_by" = timeout ]; then
    code=124
elif [ "$code" -eq 126 ]; then
    # Older engines say 126 for a command that isn't there, where a shell says 127.
    docker exec ${user:+-u "$user"} ${workdir:+-w "$workdir"} "$container" \
        sh -c 'command -v -- "$0" || [ -e "$0" ]' "$command" >/dev/null 2>&1
    case $? in 1 | 127) code=127 ;; esac
elif [ "$code" -eq 1 ]; then
    state=$(docker inspect --format '{{.State.Status}}' "$container" 2>/dev/null)
    [ "$state" = running ] || retry
fi
exit "$code"
