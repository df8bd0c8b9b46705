//! This program and the programs beside it, for commands that start them.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::quote::shell;

/// The words that start this program, if it is not the executable of this process.
static WORDS: OnceLock<Vec<OsString>> = OnceLock::new();

/// Sets the words that start this program: an executable and its first arguments, such as `python -m wavemill`. Without
/// this call, the executable of this process is started. Only the first call has an effect.
pub fn starts_with(arguments: Vec<OsString>) {
    let _ = WORDS.set(arguments);
}

/// Returns the command that starts this program.
pub(super) fn this_program() -> Command {
    let mut command = Command::new(executable());
    command.args(WORDS.get().into_iter().flatten().skip(1));
    command
}

/// Returns the words with which the user can start this program again in a shell: as it was started, or its name alone
/// if a shell finds it by that.
pub(super) fn shown_program() -> String {
    let started: Vec<OsString> = std::env::args_os().take(1).collect();
    let words = WORDS.get().unwrap_or(&started);
    let path = Path::new(words.first().map_or(OsStr::new("wavemill"), |word| word));

    let name = path.file_name().unwrap_or_default();
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders)
        .map(|folder| folder.join(name))
        .find(|found| found.is_file());
    let first = if found.as_deref() == Some(path) {
        shell(name)
    } else {
        shell(path)
    };

    let others = words.iter().skip(1).map(shell);
    [first]
        .into_iter()
        .chain(others)
        .collect::<Vec<_>>()
        .join(" ")
}

/// Returns the path of this program's executable, or an empty path if it is unknown.
pub(super) fn executable() -> PathBuf {
    match WORDS.get().and_then(|arguments| arguments.first()) {
        Some(program) => PathBuf::from(program),
        None => std::env::current_exe().unwrap_or_default(),
    }
}

/// Returns the path of another wavemill program: next to this one if it exists there, otherwise the bare name, which is
/// looked up in PATH.
pub(super) fn beside(name: &str) -> PathBuf {
    let beside = executable().with_file_name(name);
    if beside.exists() {
        beside
    } else {
        PathBuf::from(name)
    }
}

/// Returns the error message for a program that [`beside`] did not find: the places searched, and the command that
/// builds it.
pub(super) fn not_there(name: &str, build: &str) -> String {
    let executable = executable();
    let folder = executable.parent().unwrap_or(Path::new(".")).display();
    format!(
        "cannot start {name}: it is neither in {folder} nor on PATH; build it in a checkout of wavemill with {build}, and \
         copy it there"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_program_error_names_searched_paths() {
        let folder = std::env::current_exe()
            .expect("this test")
            .parent()
            .expect("a folder")
            .display()
            .to_string();

        let message = not_there("demo-audio", "`x`");
        assert!(
            message.contains(&format!("neither in {folder} nor on PATH")),
            "{message}"
        );

        assert_eq!(beside("no-such-program"), Path::new("no-such-program"));
    }
}
