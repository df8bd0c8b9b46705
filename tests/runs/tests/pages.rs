//! Runs the commands on the pages for users: README.md and docs/*.md.
//!
//! The word after the fence of a block says how it is run: `sh` as a script, `console` as commands after `$ ` whose
//! output is compared (`…` is any text, and a line of its own any lines), and `sql` as statements on the demo's store.
//! `ignore: REASON` after the word excludes a block. All blocks of a page run in order, in a copy of the demo's folder.
//! The blocks of Python are run by `python/tests/test_pages.py`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use wavemill_tests::{Failed, Trial};

use crate::support::{Ran, has_trainer, on, program, run, same, scratch, wavemill};
use crate::trial::{Trials, with_needs};

inventory::submit!(Trials(trials));

/// Creates a test for each page.
fn trials() -> Vec<Trial> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut pages = vec![root.join("README.md")];
    for entry in fs::read_dir(root.join("docs")).unwrap() {
        pages.push(entry.unwrap().path());
    }
    pages.retain(|page| page.extension().is_some_and(|extension| extension == "md"));

    let trial = |page: PathBuf| {
        let name = page.strip_prefix(&root).unwrap().display().to_string();
        let trial = Trial::test(format!("pages::{name}"), move || run_page(&page));
        with_needs(trial, &[has_trainer])
    };
    pages.into_iter().map(trial).collect()
}

/// Runs the blocks of a page, and reports all that fail.
fn run_page(page: &Path) -> Result<(), Failed> {
    let blocks = blocks(&fs::read_to_string(page)?)?;
    if blocks.is_empty() {
        return Ok(());
    }
    let name = page.file_stem().unwrap().to_string_lossy();
    let folder = scratch(&format!("page-{name}"));
    copy(demo()?, &folder)?;

    let mut failures = Vec::new();
    for block in blocks {
        if let Err(failure) = run_block(&block, &folder) {
            let message = failure.message().unwrap_or_default();
            failures.push(format!("{}:{}: {message}", page.display(), block.line));
        }
    }
    fs::remove_dir_all(&folder)?;
    match failures.is_empty() {
        true => Ok(()),
        false => Err(failures.join("\n\n").into()),
    }
}

/// Language of a block that is run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Language {
    Sh,
    Console,
    Sql,
}

/// A block between fences that is run.
#[derive(Debug, PartialEq)]
struct Block {
    /// Number of the line with the first fence.
    line: usize,
    language: Language,
    text: String,
}

/// Returns the blocks of a page that are run. Commands outside of fences are an error.
fn blocks(page: &str) -> Result<Vec<Block>, Failed> {
    let mut blocks = Vec::new();
    let mut lines = (1..).zip(page.lines());
    while let Some((line, text)) = lines.next() {
        let unindented = text.trim_start();
        let indentation = text.len() - unindented.len();
        let Some(info) = unindented.strip_prefix("```") else {
            let is_command = ["wavemill ", "$ ", "scripts/"]
                .iter()
                .any(|start| unindented.starts_with(start));
            if indentation >= 4 && is_command {
                return Err(format!("line {line}: put commands between fences").into());
            }
            continue;
        };

        let mut block = String::new();
        for (_, text) in lines.by_ref() {
            if text.trim_start().starts_with("```") {
                break;
            }
            block.push_str(text.get(indentation..).unwrap_or_default());
            block.push('\n');
        }
        if let Some(language) =
            language_of(info).map_err(|reason| format!("line {line}: {reason}"))?
        {
            blocks.push(Block {
                line,
                language,
                text: block,
            });
        }
    }
    Ok(blocks)
}

/// Returns the language of a block with this text after its fence, or `None` if the block is not run.
fn language_of(info: &str) -> Result<Option<Language>, String> {
    let (word, rest) = info.split_once(' ').unwrap_or((info, ""));
    let language = match word {
        "sh" => Language::Sh,
        "console" => Language::Console,
        "sql" => Language::Sql,
        _ => return Ok(None),
    };
    match rest.strip_prefix("ignore: ") {
        Some(reason) if !reason.trim().is_empty() => Ok(None),
        None if rest.is_empty() => Ok(Some(language)),
        _ => Err(format!("`{rest}` is not `ignore: REASON`")),
    }
}

fn run_block(block: &Block, folder: &Path) -> Result<(), Failed> {
    match block.language {
        Language::Sh => bash(folder, &block.text).exits(0).map(drop),
        Language::Sql => {
            let query = wavemill_command(["sql", "--store", "store", block.text.as_str()], folder);
            query.exits(0).map(drop)
        }
        Language::Console => {
            for (command, expected) in commands(&block.text)? {
                let ran = bash(folder, &command).exits(0)?;
                let printed: Vec<&str> = ran.out.lines().map(str::trim_end).collect();
                let expected: Vec<&str> = expected.iter().map(|line| line.trim_end()).collect();
                if !lines_match(&expected, &printed) {
                    let (expected, printed) = (expected.join("\n"), printed.join("\n"));
                    let failure =
                        format!("{command}\n--- on the page:\n{expected}\n--- printed:\n{printed}");
                    return Err(failure.into());
                }
            }
            Ok(())
        }
    }
}

/// Splits a console's text into commands and the lines that they print.
fn commands(text: &str) -> Result<Vec<(String, Vec<&str>)>, Failed> {
    let mut commands: Vec<(String, Vec<&str>)> = Vec::new();
    for line in text.lines() {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command.to_owned(), Vec::new())),
            (None, Some((command, _))) if is_open(command) => {
                command.push('\n');
                command.push_str(line);
            }
            (None, Some((_, printed))) => printed.push(line),
            (None, None) => return Err("a console starts with a command after `$ `".into()),
        }
    }
    Ok(commands)
}

/// Reports whether the next line continues a command: after a backslash, and between quotes.
fn is_open(command: &str) -> bool {
    let quotes = |quote: char| command.matches(quote).count();
    // Apostrophes between double quotes are part of a text.
    let is_quoted = match quotes('"') {
        0 => quotes('\'') % 2 == 1,
        count => count % 2 == 1,
    };
    is_quoted || command.ends_with('\\')
}

fn lines_match(expected: &[&str], printed: &[&str]) -> bool {
    match expected {
        [] => printed.is_empty(),
        ["…", rest @ ..] => {
            (0..=printed.len()).any(|skipped| lines_match(rest, &printed[skipped..]))
        }
        [line, rest @ ..] => match printed {
            [first, others @ ..] => line_matches(line, first) && lines_match(rest, others),
            [] => false,
        },
    }
}

fn line_matches(expected: &str, printed: &str) -> bool {
    let Some((start, rest)) = expected.split_once('…') else {
        return expected == printed;
    };
    let Some(after) = printed.strip_prefix(start) else {
        return false;
    };
    let mut ends = after
        .char_indices()
        .map(|(index, _)| index)
        .chain([after.len()]);
    ends.any(|index| line_matches(rest, &after[index..]))
}

#[apply(trial)]
fn output_of_consoles_is_compared() -> Result<(), Failed> {
    let text = "$ a \"b\n    c\"\n  1 x\n…\nend\n$ d\n";
    let expected = [
        ("a \"b\n    c\"".to_owned(), vec!["  1 x", "…", "end"]),
        ("d".to_owned(), vec![]),
    ];
    same("commands", &commands(text)?[..], &expected[..])?;

    let page = ["  1 x", "…", "took … s", "end"];
    for (printed, is_equal) in [
        (vec!["  1 x", "took 3 s", "end"], true),
        (vec!["  1 x", "2", "3", "took 0.1 s", "end"], true),
        (vec!["  1 x", "took 3 minutes", "end"], false),
        (vec!["  1 x", "took 3 s", "end", "more"], false),
        (vec!["  2 x", "took 3 s", "end"], false),
    ] {
        same(
            &format!("{printed:?}"),
            lines_match(&page, &printed),
            is_equal,
        )?;
    }
    Ok(())
}

/// Runs a script with the built programs. Its output contains what goes to standard error.
fn bash(folder: &Path, script: &str) -> Ran {
    let script = format!("set -euo pipefail; exec 2>&1\n{script}");
    in_folder(Command::new("bash").args(["-c", &script]), folder)
}

fn wavemill_command<const N: usize>(arguments: [&str; N], folder: &Path) -> Ran {
    in_folder(&mut wavemill(arguments), folder)
}

fn in_folder(command: &mut Command, folder: &Path) -> Ran {
    let programs = program("wavemill").parent().unwrap().to_owned();
    let mut path = programs.into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    run(command
        .current_dir(folder)
        .env("PATH", path)
        .stdin(Stdio::null()))
}

/// Returns the folder that `scripts/demo.sh` leaves, with a folder `music` of songs by genre beside it.
fn demo() -> Result<&'static Path, Failed> {
    static DEMO: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = DEMO.get_or_init(|| {
        make_demo().map_err(|failure| failure.message().unwrap_or_default().to_owned())
    });
    made.as_deref().map_err(|message| message.clone().into())
}

fn make_demo() -> Result<PathBuf, Failed> {
    let folder = scratch("pages");
    run(wavemill(["demo", "--train"]).arg(&folder)).exits(0)?;
    let store = folder.join("store");

    let songs = "SELECT clip_key, genre FROM (SELECT clip_key, track_genre_top AS genre,
        row_number() OVER (PARTITION BY track_genre_top ORDER BY clip_key) AS number FROM tracks)
        WHERE number <= 5 AND genre NOT LIKE '%/%'";
    let listed = on(&store, &["sql", "--format", "csv", songs]).exits(0)?;
    for line in listed.out.lines().skip(1) {
        let (key, genre) = line.split_once(',').ok_or("a key and a genre")?;
        let song = Path::new(key);
        let copy = folder
            .join("music")
            .join(genre)
            .join(song.file_name().ok_or("a file")?);
        fs::create_dir_all(copy.parent().ok_or("a folder")?)?;
        fs::copy(folder.join("data/fma_demo").join(song), &copy)?;
        fs::copy(copy, folder.join("song.mp3"))?;
    }
    Ok(folder)
}

/// Copies a folder.
fn copy(from: &Path, to: &Path) -> Result<(), Failed> {
    run(Command::new("cp")
        .args(["-a", "--no-target-directory"])
        .arg(from)
        .arg(to))
    .exits(0)?;
    Ok(())
}
