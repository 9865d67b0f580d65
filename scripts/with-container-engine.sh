#!/usr/bin/env bash
# with-container-engine.sh COMMAND...: runs the command with DOCKER_HOST naming a container engine that has an image
# python:3.12-slim and docker-compose. Exit status: the command's; 77 when no engine can be had here, saying why.
#
# An engine that answers is used as it is. Otherwise (Debian, root) docker.io, docker-compose and debootstrap are
# installed and a daemon of our own is started, and stopped at the end. Where no image can be pulled, one is made from
# Debian's packages and an installed CPython 3.12. Its data stay in .cache/containers, so that the next run is quick.
# For tests only: the Dockerfiles know nothing of this.
set -euo pipefail

image=python:3.12-slim
here=$(cd "$(dirname "$0")/.." && pwd)
cache=$here/.cache/containers
docker=docker
[ -x /usr/bin/docker ] && docker=/usr/bin/docker # Debian's, where two are on the PATH
run=
dockerd=

say() { printf 'containers: %s\n' "$*"; }

skip() {
    printf 'containers: SKIPPED: %s\n' "$*" >&2
    # For .ci/run: make turns every status into 2.
    mkdir -p "$cache" && printf '%s\n' "$*" >"$cache/skipped" || true
    exit 77
}

install_packages() {
    local missing=()
    for package in "$@"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
    done
    [ ${#missing[@]} -eq 0 ] && return
    say "installing ${missing[*]} …"
    export DEBIAN_FRONTEND=noninteractive
    local log
    log=$(mktemp)
    { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 || {
        tail -n 20 "$log" >&2
        rm -f "$log"
        skip "apt-get could not install ${missing[*]}"
    }
    rm -f "$log"
}

# shellcheck disable=SC2329 # the trap calls it
cleanup() {
    if [ -n "$dockerd" ]; then
        kill "$dockerd" 2>/dev/null || true
        wait "$dockerd" 2>/dev/null || true
    fi
    if [ -n "$run" ]; then
        # dockerd leaves the name of its network namespace mounted.
        awk -v "run=$run/" 'index($2, run) == 1 {print $2}' /proc/mounts | xargs -r umount || true
        rm -rf "$run"
    fi
}

start_engine() {
    [ "$(id -u)" = 0 ] || skip "no container engine answers, and only root can start one"
    command -v apt-get >/dev/null || skip "no container engine answers, and there is no apt-get to install one with"
    install_packages docker.io docker-compose debootstrap
    docker=/usr/bin/docker
    run=$(mktemp -d /tmp/aiocop-engine.XXXXXX) # a short path: a Unix socket's may have 107 bytes
    mkdir -p "$cache"
    say "starting dockerd (its log: $cache/dockerd.log) …"
    # No bridge and no firewall rules of its own: compose makes the networks it needs, and the host stays as it is.
    dockerd --storage-driver overlay2 --iptables=false --ip6tables=false --bridge=none \
        --data-root "$cache/data" --exec-root "$run/exec" --pidfile "$run/pid" -H "unix://$run/docker.sock" \
        >"$cache/dockerd.log" 2>&1 &
    dockerd=$!
    export DOCKER_HOST=unix://$run/docker.sock
    for _ in $(seq 120); do
        "$docker" info >/dev/null 2>&1 && return
        kill -0 "$dockerd" 2>/dev/null || break
        sleep 0.5
    done
    tail -n 20 "$cache/dockerd.log" >&2
    skip "dockerd does not start on this machine"
}

# debootstrap's smallest Debian, an installed CPython 3.12 in its /usr/local, and how this host reaches the registries.
make_image() {
    [ "$(id -u)" = 0 ] || skip "$image cannot be pulled, and only root can make a stand-in"
    command -v apt-get >/dev/null || skip "$image cannot be pulled, and there is no apt-get to make a stand-in with"
    install_packages debootstrap
    local python prefix root
    python=$("$here/scripts/find-pythons.sh" | sed -n 's/^3\.12 //p')
    [ -n "$python" ] || skip "$image cannot be pulled, and no CPython 3.12 is installed to make a stand-in with"
    prefix=$("$python" -I -c 'import sys; print(sys.base_prefix)')
    [ "$prefix" != /usr ] || skip "$image cannot be pulled, and the only CPython 3.12 belongs to the system"
    root=$cache/rootfs
    rm -rf "$root"
    say "making a stand-in for $image, once; this takes about a minute …"
    debootstrap --variant=minbase \
        --include=ca-certificates,libbz2-1.0,libffi8,liblzma5,libncursesw6,libreadline8,libsqlite3-0,libssl3,libuuid1,netbase,zlib1g \
        bookworm "$root" >"$cache/debootstrap.log" 2>&1 || {
        tail -n 20 "$cache/debootstrap.log" >&2
        skip "debootstrap failed"
    }
    tar -C "$prefix" --exclude=__pycache__ --exclude='lib/python3.12/test' --exclude='lib/python3.12/site-packages' \
        -c bin include lib | tar -C "$root/usr/local" -x --no-same-owner
    cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
    for file in /etc/pip.conf /etc/xdg/pip; do
        [ ! -e "$file" ] || { mkdir -p "$root$(dirname "$file")" && cp -r "$file" "$root$file"; }
    done
    chroot "$root" /bin/sh -e -c '
        ldconfig
        export PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
        python3.12 -m ensurepip >/dev/null 2>&1
        ln -sf python3.12 /usr/local/bin/python3
        ln -sf python3.12 /usr/local/bin/python
        ln -sf pip3.12 /usr/local/bin/pip
        python -c "import bz2, ctypes, lzma, sqlite3, ssl, zlib"
    '
    tar -C "$root" -c . | "$docker" import \
        -c 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin' - "$image" >/dev/null
    rm -rf "$root"
}

rm -f "$cache/skipped"
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if ! { command -v "$docker" >/dev/null && "$docker" info >/dev/null 2>&1; }; then
    start_engine
fi
command -v docker-compose >/dev/null || "$docker" compose version >/dev/null 2>&1 ||
    { command -v apt-get >/dev/null && install_packages docker-compose; } ||
    skip "neither docker-compose nor docker's compose plug-in is installed"
if ! "$docker" image inspect "$image" >/dev/null 2>&1; then
    if [ -n "$dockerd" ] || ! "$docker" pull "$image" >/dev/null 2>&1; then
        make_image
    fi
fi
say "engine $("$docker" version --format '{{.Server.Version}}'), $("$docker" run --rm --network none "$image" python -V)"
# Not exec: the daemon is stopped afterwards.
status=0
DOCKER=$docker "$@" || status=$?
exit "$status"
