//! `scripts/break/run.py`, which tests the programs with thousands of damaged files, detects the failures that it
//! looks for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use wavemill_tests::Failed;

use crate::support::{
    Ran, contains, files_below, has_python, program, run, same, scratch, starts_with,
};

/// CPU seconds that one file may use in these tests, and CPU seconds that the slow file uses.
const FILE_CPU_S: &str = "1";
const SLOW_CPU_S: &str = "1.5";

/// Creates a `wavemill` wrapper that uses more CPU time for each file whose name begins with one of `names`.
fn slow_programs(folder: &Path, names: &[&str], cpu_s: &str) -> Result<PathBuf, Failed> {
    let programs = folder.join("programs");
    fs::create_dir(&programs)?;
    symlink(program("demo-audio"), programs.join("demo-audio"))?;

    let patterns: Vec<String> = names
        .iter()
        .map(|name| format!("\"$audio\"/g/{name}-*"))
        .collect();

    let script = format!(
        "#!/bin/sh\n\
         for word; do\n    [ \"$before\" = --audio ] && audio=$word\n    before=$word\ndone\n\
         if [ \"$1\" = extract ]; then\n\
         \x20   for file in {}; do\n\
         \x20       [ ! -e \"$file\" ] || python3 -c 'while __import__(\"time\").process_time() < {cpu_s}: pass'\n\
         \x20   done\n\
         fi\n\
         exec '{}' \"$@\"\n",
        patterns.join(" "),
        program("wavemill").display(),
    );

    let path = programs.join("wavemill");
    fs::write(&path, script)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(programs)
}

/// Runs the script like CI, but with few files.
fn break_files(folder: &Path, programs: &Path) -> Ran {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/break/run.py");
    let mut command = Command::new("python3");
    command
        .arg(script)
        .args(["--files", "12", "--file-cpu-s", FILE_CPU_S]);
    run(command
        .arg("--programs")
        .arg(programs)
        .arg("--keep")
        .arg(folder.join("kept")))
}

/// A total limit would not detect the slow file: twelve files together are allowed 27 seconds.
#[apply(trial)]
#[needs(has_python)]
fn one_slow_file_among_many_is_named() -> Result<(), Failed> {
    let folder = scratch("slow-file");
    let programs = slow_programs(&folder, &["00007"], SLOW_CPU_S)?;
    let ran = break_files(&folder, &programs).exits(1)?;

    for part in [
        "batch 0 of seed 1: 1.",
        " CPU seconds for 00007-",
        ", at most 1\n",
    ] {
        contains(&ran.err, part)?;
    }

    let kept = files_below(&folder.join("kept"));
    same("files that are kept", kept.len(), 1)?;
    starts_with(&kept[0], "00007-")
}

#[apply(trial)]
#[needs(has_python)]
fn small_delays_do_not_add_up_to_a_slow_file() -> Result<(), Failed> {
    let folder = scratch("slow-together");
    let programs = slow_programs(&folder, &["00001", "00005", "00009"], "0.5")?;
    let ran = break_files(&folder, &programs).exits(0)?;
    contains(&ran.out, "12 broken files of ")?;
    same(
        "files that are kept",
        files_below(&folder.join("kept")),
        Vec::new(),
    )
}

/// The limit for the program's own memory is stated in the Python script and in the Rust test, and the two figures
/// are equal.
#[apply(trial)]
fn program_memory_is_equal_in_both_scripts() -> Result<(), Failed> {
    let script = include_str!("../../../scripts/break/run.py");
    let wanted = format!(
        "\nPROGRAM_BYTES = {} << 20\n",
        super::memory::PROGRAM_BYTES >> 20
    );
    contains(script, &wanted)
}
