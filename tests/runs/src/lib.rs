//! Helpers shared by tests of several crates: the location of the real test data, tests that are ignored if it is
//! missing, the options of features, and the examples of the help.

use std::fs;
use std::path::{Path, PathBuf};

pub use libtest_mimic::{Arguments, Failed, Trial, run};

/// Returns the folder of real test data: `WAVEMILL_DATA`, by default `../shared/data` next to the checkout. Returns
/// `None` if the folder does not exist.
pub fn data_dir() -> Option<PathBuf> {
    let folder = match std::env::var_os("WAVEMILL_DATA") {
        Some(folder) => PathBuf::from(folder),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data"),
    };
    folder.canonicalize().ok()
}

/// Creates a test that needs the real test data. If the data is missing, the test is ignored, or fails under
/// `WAVEMILL_REQUIRE_DATA=1`.
pub fn real(name: &str, body: impl FnOnce(&Path) -> Result<(), Failed> + Send + 'static) -> Trial {
    let data = data_dir();
    let required = std::env::var("WAVEMILL_REQUIRE_DATA").is_ok_and(|value| value == "1");

    // If the data is required, the test runs and fails, because an ignored test would look like success.
    let ignored = data.is_none() && !required;
    let trial = Trial::test(name, move || match data {
        Some(folder) => body(&folder),
        None => Err("the real test data is absent: set WAVEMILL_DATA to its folder".into()),
    });
    trial.with_ignored_flag(ignored)
}

/// Returns the `FeatureSpec` with these options as a recipe gives them, and without others: `options!(n_fft: 512)`. After
/// a semicolon follows the `FeatureSpec` with the others: `options!(lag: 3; small())`. As in a struct, `lag` is short for
/// `lag: lag`.
#[macro_export]
macro_rules! options {
    ($($key:ident $(: $value:expr)?),+) => {
        $crate::options!($($key $(: $value)?),+; FeatureSpec::default())
    };
    ($($key:ident $(: $value:expr)?),+; $others:expr) => {
        FeatureSpec {
            $($key: $crate::options!(@ $key $($value)?),)+
            ..$others
        }
    };
    // An option may be absent, so the value or an `Option` of it is accepted.
    (@ $key:ident) => {
        From::from($key)
    };
    (@ $key:ident $value:expr) => {
        From::from($value)
    };
}

/// Returns the command lines of `program` in the examples of the reviewed help pages, each with the name of its page.
/// `program` may be several words, such as `wavemill train`; a command line begins with them as one word.
pub fn help_examples(program: &str) -> Vec<(String, Vec<String>)> {
    let pages = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots");
    let mut found = Vec::new();
    for entry in fs::read_dir(pages).expect("the snapshots") {
        let path = entry.expect("a snapshot").path();
        let page = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        if !page.contains("help") {
            continue;
        }

        let text = fs::read_to_string(&path).expect("UTF-8");
        let text = text.replace("\\\n", " ").replace("{}/16", "1/16");
        let lines = text.lines().skip_while(|line| !line.starts_with("Example"));
        let commands = lines
            .filter(|line| line.starts_with("  "))
            .flat_map(shell_commands);
        found.extend(commands.filter_map(|words| Some((page.clone(), started(program, words)?))));
    }
    assert!(found.len() > 10, "{program}: {} examples", found.len());
    found
}

/// Returns the command line of `program` in `words`, which may have another program before it that starts it.
fn started(program: &str, words: Vec<String>) -> Option<Vec<String>> {
    let names: Vec<&str> = program.split(' ').collect();
    let start = words
        .windows(names.len())
        .position(|words| words == names)?;
    let mut line = vec![program.to_owned()];
    line.extend_from_slice(&words[start + names.len()..]);
    Some(line)
}

/// Splits a line for a shell into the words of its commands. The words that follow `<` and `>` are commands as well.
fn shell_commands(line: &str) -> Vec<Vec<String>> {
    let mut commands = vec![vec![String::new()]];
    let mut quote = None;
    for letter in line.replace("$SLURM_ARRAY_TASK_ID", "1").chars() {
        let command = commands.last_mut().expect("a command");
        let word = command.last_mut().expect("a word");
        match (letter, quote) {
            (_, Some(open)) if letter == open => quote = None,
            (_, Some(_)) => word.push(letter),
            ('\'' | '"', None) => quote = Some(letter),
            ('#', None) if word.is_empty() => break,
            ('|' | ';' | '<' | '>' | '(' | ')', None) => commands.push(vec![String::new()]),
            (' ', None) if word.is_empty() => {}
            (' ', None) => command.push(String::new()),
            (_, None) => word.push(letter),
        }
    }
    for command in &mut commands {
        command.retain(|word| !word.is_empty());
    }
    commands
}
