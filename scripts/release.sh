#!/usr/bin/env bash
# The steps of a release, which .github/workflows/release.yml runs for a tag.
#
# usage: scripts/release.sh version TAG       fails unless TAG is the version of the workspace, and CHANGELOG.md has it
#        scripts/release.sh programs OUT      archive of the programs, and their bill of materials
#        scripts/release.sh image OUT         archive of the image of Dockerfile, after the image's demo (needs docker)
#        scripts/release.sh licences OUT      licences of wavemill and of LAME, which demo-audio contains
#        scripts/release.sh checksums OUT     SHA256SUMS of the files in OUT
#        scripts/release.sh check             runs what needs neither docker nor an optimised build, and checks that files,
#                                             scripts and packages in Dockerfile and workflows exist
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
if [[ ${1:---help} == --help ]]; then usage "${BASH_SOURCE[0]}"; exit 0; fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)

fail() {
    echo "$1" >&2
    exit 1
}

# pack FOLDER OUT: archive of the programs in FOLDER with their licences, and a copy of their bill of materials.
pack() {
    local name=wavemill-$version-linux-x86_64-v3 staged
    staged=$(mktemp -d)
    mkdir -p "$staged/$name" "$2"
    cp "$1"/{wavemill,wavemill-train,demo-audio} README.md "$staged/$name"
    licences "$staged/$name/licences"
    tar --create --gzip --file "$2/$name.tar.gz" --directory "$staged" --owner 0 --group 0 "$name"
    cp "$1/wavemill.cdx.json" "$2/$name.cdx.json"
    rm -rf "$staged"
}

licences() {
    mkdir -p "$1"
    cp LICENSE-* "$1"
    lame_licences "$1"
}

checksums() {
    (cd "$1" && rm -f SHA256SUMS && sha256sum -- * >SHA256SUMS)
}

# named PATTERN: prints what PATTERN finds in Dockerfile and workflows, each once.
named() {
    grep -ohE -- "$1" Dockerfile .github/workflows/*.yml | sort -u
}

check() {
    local folder name IFS=$'\n'
    folder=$(mktemp -d)
    for name in wavemill wavemill-train demo-audio; do printf '' >"$folder/$name"; done
    scripts/sbom.py -p wavemill -p demo-audio -p wavemill-trainer >"$folder/wavemill.cdx.json"
    pack "$folder" "$folder/out"
    checksums "$folder/out"
    (cd "$folder/out" && sha256sum --quiet --check SHA256SUMS && tar --list --file ./*.tar.gz) | grep licences/LGPL-3.0.txt >/dev/null
    rm -rf "$folder"

    for name in $(named 'scripts/[a-z_]+\.sh\b'); do [[ -x $name ]] || fail "$name: no such script"; done
    for name in $(named 'release\.sh [a-z]+'); do
        grep -q "^#.*release.sh ${name#* } " scripts/release.sh || fail "$name: scripts/release.sh has no such step"
    done
    for name in $(named '-p [a-z-]+'); do cargo pkgid --offline --locked "${name#-p }" >/dev/null; done
    for name in $(sed -n 's/^COPY \([^-].*\) [^ ]*$/\1/p' Dockerfile | tr ' ' '\n'); do [[ -e $name ]] || fail "Dockerfile copies $name"; done
    for name in $(named 'dist/[a-z-]+' | cut -d / -f 2); do
        grep -qE "(programs=|programs\+=).*\b$name\b|>$name" scripts/build.sh || fail "scripts/build.sh makes no $name"
    done
    grep -q "^FROM rust:$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)-" Dockerfile || fail 'Dockerfile: another Rust than Cargo.toml'
    [[ $(grep '^USER' Dockerfile | tail -n 1) == 'USER wavemill' ]] || fail 'Dockerfile: the image must not run as root'
    ! named 'uses: .*' | grep -vE 'actions/[a-z]+@v[0-9]+$' || fail 'a workflow uses an action of others, or without a version'
    if python3 -c 'import yaml' 2>/dev/null; then
        python3 -c 'import sys, yaml; [yaml.safe_load(open(name)) for name in sys.argv[1:]]' .github/workflows/*.yml
    fi
}

case $1 in
    version)
        [[ ${2-} == "v$version" ]] || fail "the tag is ${2-}, and the version of Cargo.toml $version"
        grep -qE "^## $version( |$)" CHANGELOG.md || fail "CHANGELOG.md has no section $version"
        ! grep -q "^## $version (unreleased)" CHANGELOG.md || fail "CHANGELOG.md calls $version unreleased"
        ;;
    programs)
        step 'libtorch (.libtorch)' scripts/libtorch.sh
        step 'programs' scripts/build.sh -p demo-audio -p wavemill-trainer
        pack "${CARGO_TARGET_DIR:-target}/v3/dist" "$2"
        ;;
    image)
        need docker 'https://docs.docker.com/engine/install'
        step 'image' docker build --tag "wavemill:$version" .
        step 'demo of the image' docker run --rm "wavemill:$version"
        docker save "wavemill:$version" | gzip >"$2/wavemill-$version-image.tar.gz"
        ;;
    licences) licences "$2" ;;
    checksums) checksums "$2" ;;
    check) check ;;
    *) fail "unknown step $1; see --help" ;;
esac
