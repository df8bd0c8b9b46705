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

# beside NAME COMMAND…: starts a step that leaves a core to others; what it prints waits for `join_steps`.
beside() {
    local output
    output=$(mktemp)
    # A process group of its own, so that it can be ended with all that it started.
    set -m
    step "$@" >"$output" 2>&1 &
    set +m
    steps_beside+=("$! $output")
}
steps_beside=()

# join_steps: waits for the steps beside and shows what they printed. If any of them failed, the script ends.
join_steps() {
    local one failed=false
    for one in "${steps_beside[@]}"; do
        wait "${one%% *}" || failed=true
        cat "${one#* }"
        rm -f "${one#* }"
    done
    steps_beside=()
    if $failed; then exit 1; fi
}

# end_steps: for a script that ends early; shows what steps beside have printed, and ends them.
end_steps() {
    local one
    for one in "${steps_beside[@]}"; do
        kill -- "-${one%% *}" 2>/dev/null || true
        cat "${one#* }"
        rm -f "${one#* }"
    done
    steps_beside=()
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
    need cargo 'install Rust from https://rustup.rs (1.94 or later)'
    need cc 'install a C compiler: apt-get install build-essential, dnf install gcc make, or xcode-select --install'
    need make 'apt-get install build-essential, or dnf install make'
}

# build_programs [PACKAGES…]: the programs, for the demo as for the gate. The tests are built along, because cargo takes
# other features of shared dependencies without them and would build DataFusion twice.
build_programs() {
    cargo build --locked "${@:---workspace}" --bins --tests
}

# check_docs PACKAGES…: a broken link is an error, and examples have to run. Behind a build of all tests it compiles nothing
# but them.
check_docs() {
    RUSTDOC=$PWD/scripts/rustdoc.sh cargo test --locked "$@" --doc
}

# build_with_clippy: from here on, clippy compiles our own crates, and a warning is an error. What it has looked at is
# what the tests run; `cargo clippy` would read every dependency once for itself before the tests build them again.
build_with_clippy() {
    need clippy-driver 'rustup component add clippy'
    export RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings
}

# fetch_wheels FOLDER NAME==VERSION…: these wheels of PyPI alone, not what they depend on. The libraries in them are the
# same for every Python; one is named so that any Python here can fetch them.
fetch_wheels() {
    local folder=$1 python=python3 glibc platforms=()
    shift
    mkdir -p "$folder"
    if ! python3 -m pip --version >/dev/null 2>&1; then
        python3 -m venv "$folder/venv" || { echo 'no venv module: apt-get install python3-venv' >&2; exit 1; }
        python=$folder/venv/bin/python
    fi
    for glibc in 2_28 2_27 2_26 2_25 2_24 2_17 2_12; do platforms+=(--platform "manylinux_${glibc}_$(uname -m)"); done
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
        "${platforms[@]}" --platform "manylinux2014_$(uname -m)" --dest "$folder" "$@"
}
