# shellcheck shell=bash
# Shared by the scripts here: sourced, never run.

# step NAME COMMAND…: runs it, says how long it took, and on failure which step it was in one line.
step() {
    local name=$1 start=$SECONDS
    shift
    printf '== %s\n' "$name"
    if ! "$@"; then
        printf 'FAILED: %s (%s)\n' "$name" "$*" >&2
        exit 1
    fi
    printf '== %s: %d s\n' "$name" $((SECONDS - start))
}

# usage FILE: prints the comment block under FILE's first line.
usage() {
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"
}

# need COMMAND HOW: stops where COMMAND is absent and says how to get it.
need() {
    if ! command -v "$1" >/dev/null 2>&1; then
        printf '%s is needed: %s\n' "$1" "$2" >&2
        exit 1
    fi
}

# need_toolchain: cargo and a C compiler with make (zstd, LAME).
need_toolchain() {
    need cargo 'install Rust from https://rustup.rs (1.90 or later)'
    need cc 'install a C compiler: apt-get install build-essential, dnf install gcc make, or xcode-select --install'
    need make 'apt-get install build-essential, or dnf install make'
}

# build_programs [PACKAGES…]: the programs, for the demo as for the gate. The tests are built along, because cargo takes
# other features of shared dependencies without them and would build DataFusion twice.
build_programs() {
    cargo build --locked "${@:---workspace}" --bins --tests
}
