# shellcheck shell=bash
# Sourced by the scripts beside it: what they share.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
# shellcheck disable=SC2034
venv=$root/.venv
PATH=$PATH:/usr/sbin:/sbin # where dockerd and iptables are; a plain `su` leaves them out

say() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
}

die() { # STATUS MESSAGE...
    local status=$1
    shift
    say "$@"
    exit "$status"
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# Runs a command and shows what it said only if it failed. A file catches the
# output, not a pipe: a daemon that the command leaves behind would hold a pipe open.
quietly() {
    local output status=0
    output=$(mktemp)
    "$@" >"$output" 2>&1 </dev/null || status=$?
    if ((status != 0)); then
        tail -n 20 "$output" | sed 's/^/    /' >&2
    fi
    rm -f "$output"
    return "$status"
}

can_apt() {
    [[ $(id -u) -eq 0 ]] && has apt-get
}

# The package lists are fetched when they turn out to be missing or outdated.
apt_install() { # PACKAGE...
    local install=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends)
    say "installing $* (apt)"
    "${install[@]}" "$@" >/dev/null 2>&1 </dev/null && return
    quietly apt-get update -q && quietly "${install[@]}" "$@"
}
