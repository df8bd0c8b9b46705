# shellcheck shell=bash
# Functions shared by the scripts in this folder. The file is sourced, never run.

# step NAME COMMAND…: runs a command and prints its duration, or on failure one line with the name of the step.
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

# beside NAME COMMAND…: starts a step in the background, which should leave a core to other steps. Its output is
# kept for `join_steps`.
beside() {
    local output
    output=$(mktemp)
    # Uses a separate process group, so that the step can be ended together with its child processes.
    set -m
    step "$@" >"$output" 2>&1 &
    set +m
    steps_beside+=("$! $output")
}
steps_beside=()

# join_steps: waits for the background steps and prints their output. Ends the script if any of them failed.
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

# end_steps: for a script that ends early. Prints the output of the background steps so far, and ends them.
end_steps() {
    local one
    for one in "${steps_beside[@]}"; do
        kill -- "-${one%% *}" 2>/dev/null || true
        cat "${one#* }"
        rm -f "${one#* }"
    done
    steps_beside=()
}

# usage FILE: prints the comment block after FILE's first line.
usage() {
    sed -n '2,/^[^#]/{s/^# \{0,1\}//p}' "$1"
}

# need COMMAND HOW: ends the script if COMMAND is not installed, and prints how to install it.
need() {
    if ! command -v "$1" >/dev/null 2>&1; then
        printf '%s is needed: %s\n' "$1" "$2" >&2
        exit 1
    fi
}

# need_toolchain: requires cargo and a C compiler with make (for zstd and LAME).
need_toolchain() {
    need cargo 'install Rust from https://rustup.rs (1.94 or later)'
    need cc 'install a C compiler: apt-get install build-essential, dnf install gcc make, or xcode-select --install'
    need make 'apt-get install build-essential, or dnf install make'
}

# check_docs PACKAGES…: fails on a broken link, and runs the examples. After a build of all tests, only the examples
# are compiled.
check_docs() {
    RUSTDOC=$PWD/scripts/rustdoc.sh cargo test --locked "$@" --doc
}

# build_with_clippy: makes clippy compile the crates of this repository in all later builds, and treats warnings as
# errors. The tests then run the code that clippy checked. `cargo clippy` would check every dependency separately
# before the tests build it again.
build_with_clippy() {
    need clippy-driver 'rustup component add clippy'
    export RUSTC_WORKSPACE_WRAPPER=clippy-driver CLIPPY_ARGS=-Dwarnings
}

# fetch_wheels FOLDER NAME==VERSION…: downloads these wheels from PyPI without their dependencies. Their libraries
# do not depend on the Python version; a fixed version is requested, so that any Python can download them. Fails unless
# each wheel is the one in scripts/wheels.sha256.
fetch_wheels() {
    local folder=$1 python=python3 glibc wheel platforms=()
    shift
    mkdir -p "$folder"
    if ! python3 -m pip --version >/dev/null 2>&1; then
        python3 -m venv "$folder/venv" || { echo 'no venv module: apt-get install python3-venv' >&2; exit 1; }
        python=$folder/venv/bin/python
    fi
    for glibc in 2_28 2_27 2_26 2_25 2_24 2_17 2_12; do platforms+=(--platform "manylinux_${glibc}_$(uname -m)"); done
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 \
        "${platforms[@]}" --platform "manylinux2014_$(uname -m)" --dest "$folder" "$@" || return

    for wheel in "$folder"/*.whl; do
        if ! grep -qxF "$(sha256sum <"$wheel" | cut -c 1-64)  ${wheel##*/}" scripts/wheels.sha256; then
            echo "${wheel##*/}: not the wheel of scripts/wheels.sha256: PyPI or a proxy has sent other bytes" >&2
            return 1
        fi
    done
}

# python_module PROFILE: puts the module of the last build with this profile into the Python package in python/.
python_module() {
    local module=python/wavemill/_wavemill.abi3.so
    # Python maps the module into memory, so a running process must keep the old file.
    cp "${CARGO_TARGET_DIR:-target}/$1/lib_wavemill.so" $module.part
    mv $module.part $module
}

# python_programs FOLDER: puts the programs of the last build in this folder of the target into the Python package, with
# the licences of LAME and the version of torch that the trainer needs.
python_programs() {
    local bin=python/wavemill/bin programs=${CARGO_TARGET_DIR:-target}/$1 name
    rm -rf $bin
    mkdir -p $bin
    for name in demo-audio wavemill-train; do
        # A link takes no time and no space.
        [[ ! -e $programs/$name ]] || ln "$programs/$name" $bin/ 2>/dev/null || cp "$programs/$name" $bin/
    done
    lame_licences $bin
    sed -n 's/^torch=//p' scripts/libtorch.sh >$bin/torch-version
}

# lame_licences FOLDER: copies the licences of LAME and of its Rust interface, which demo-audio contains.
lame_licences() {
    local crates
    crates=$(cargo metadata --locked --format-version 1 | python3 -c 'import json, os, sys
for package in sorted(json.load(sys.stdin)["packages"], key=lambda package: package["name"]):
    if package["name"].startswith("mp3lame-"): print(os.path.dirname(package["manifest_path"]))')
    cp tests/demo-audio/licences/* "${crates#*$'\n'}"/lame-*/COPYING "${crates%%$'\n'*}/LICENSE" "$1"
    mv "$1/COPYING" "$1/LAME-COPYING.txt"
    mv "$1/LICENSE" "$1/LGPL-3.0.txt"
}
