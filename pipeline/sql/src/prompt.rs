//! The interactive prompt: history, completion, statements on several lines up to `;`, and a few backslash commands.
//!
//! Results go to standard output. All other messages of the prompt go to its caller.

use std::path::PathBuf;
use std::time::Instant;

use rustyline::completion::{Completer, extract_word};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::{DefaultHistory, History};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};
use wavemill_schemas::text::shown;

use super::{Console, Session, SqlError};

const HELP: &str = "\
SQL ends with ; and may span several lines. Tab completes names of tables, columns and functions, and keywords.
\\d        tables
\\d TABLE  columns of a table
\\x        toggle expanded output, with one line per value, for wide rows
\\?        this help
\\q        quit (or Ctrl-D); Ctrl-C discards the line or stops the query";

const KEYWORDS: &[&str] = &[
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CAST",
    "CROSS JOIN",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPLAIN",
    "FILTER",
    "FROM",
    "FULL JOIN",
    "GROUP BY",
    "HAVING",
    "ILIKE",
    "IN",
    "INNER JOIN",
    "INTERSECT",
    "IS NOT NULL",
    "IS NULL",
    "JOIN",
    "LEFT JOIN",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULLS FIRST",
    "NULLS LAST",
    "OFFSET",
    "ON",
    "OR",
    "ORDER BY",
    "OVER",
    "PARTITION BY",
    "SELECT",
    "SHOW TABLES",
    "THEN",
    "UNION ALL",
    "UNNEST",
    "USING",
    "WHEN",
    "WHERE",
    "WITH",
];

/// An interactive prompt on a terminal.
pub struct Prompt {
    editor: Editor<Completions, DefaultHistory>,
    history: Option<PathBuf>,
    say: fn(&str),
}

impl Prompt {
    /// Opens the terminal. The line editor installs a SIGINT handler, so a caller must install its own handlers after
    /// this. `say` prints a message to standard error.
    ///
    /// # Errors
    /// [`SqlError::Prompt`] if there is no terminal.
    pub fn open(session: &Session, say: fn(&str)) -> Result<Self, SqlError> {
        let mut editor = Editor::with_config(config()).map_err(prompt_error)?;
        editor.set_helper(Some(Completions::from_session(session)));

        let history = history_file();
        if let Some(path) = &history {
            // There is no history file before the first session.
            let _ = editor.load_history(path);
        }
        Ok(Self {
            editor,
            history,
            say,
        })
    }

    /// Reads and executes input until the user leaves.
    ///
    /// # Errors
    /// [`SqlError::Prompt`] if the terminal is closed. A query's own errors are shown, and the prompt continues.
    pub fn run(mut self, session: &Session, mut console: Console) -> Result<(), SqlError> {
        (self.say)("\\? for help, \\q to quit");
        loop {
            match self.editor.readline("wavemill> ") {
                Ok(text) if text.trim().is_empty() => {}
                Ok(text) => {
                    remember(self.editor.history_mut(), &text);
                    if matches!(text.trim().trim_end_matches(';'), "\\q" | "quit" | "exit") {
                        break;
                    }
                    answer(session, &mut console, &text, self.say)?;
                }
                // Ctrl-C discards the line. A Ctrl-C that stopped a query is reported here as well.
                Err(ReadlineError::Interrupted | ReadlineError::Signal(_)) => {}
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(prompt_error(error)),
            }
        }

        self.save_history();
        Ok(())
    }

    fn save_history(&mut self) {
        let Some(path) = &self.history else { return };
        let folder = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        let saved = folder.and_then(|()| {
            self.editor
                .save_history(path)
                .map_err(std::io::Error::other)
        });

        if let Err(error) = saved {
            let path = path.display();
            (self.say)(&format!("cannot save the history in {path}: {error}"));
        }
    }
}

fn config() -> Config {
    Config::builder()
        .completion_type(CompletionType::List)
        .history_ignore_space(true)
        .build()
}

/// Adds input to the history unless it begins with a space, as in a shell.
fn remember(history: &mut DefaultHistory, text: &str) {
    // A line that cannot be added to the history is still executed.
    let _ = history.add(text.trim_end());
}

/// Returns `$XDG_STATE_HOME/wavemill/history`, by default below `~/.local/state`; `None` without a home folder.
fn history_file() -> Option<PathBuf> {
    let state = folder_variable("XDG_STATE_HOME")
        .or_else(|| Some(folder_variable("HOME")?.join(".local/state")))?;
    Some(state.join("wavemill/history"))
}

fn folder_variable(name: &str) -> Option<PathBuf> {
    let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
    Some(PathBuf::from(value))
}

fn answer(
    session: &Session,
    console: &mut Console,
    text: &str,
    say: fn(&str),
) -> Result<(), SqlError> {
    if matches!(text.trim().trim_end_matches(';'), "\\?" | "\\h" | "help") {
        say(HELP);
        return Ok(());
    }

    let start = Instant::now();
    let was_expanded = console.expanded;
    match console.show(session, text) {
        Ok(()) if console.expanded != was_expanded => {
            say(if console.expanded {
                "one line per value"
            } else {
                "one line per row"
            });
        }
        Ok(()) => say(&format!("{:.3} s", start.elapsed().as_secs_f64())),
        // Standard output is closed, so every further result would fail as well. End the prompt.
        Err(error) if error.is_broken_pipe() => return Err(error),
        Err(error) => say(&shown(&error.to_string())),
    }
    Ok(())
}

fn prompt_error(error: ReadlineError) -> SqlError {
    SqlError::Prompt(error.to_string())
}

/// All names that can be completed.
struct Completions {
    names: Vec<String>,
}

impl Completions {
    fn from_session(session: &Session) -> Self {
        let tables = session.tables();
        let mut names = session.functions();
        // Skip damaged tables, which have no columns to offer. A query over such a table reports the damage.
        for schema in tables
            .iter()
            .filter_map(|table| session.columns(table).ok())
        {
            names.extend(schema.fields().iter().map(|field| field.name().clone()));
        }
        names.extend(tables);

        // The line editor prints names as they are, and control characters would reach the terminal.
        names.retain(|name| !name.contains(char::is_control));
        names.sort_unstable();
        names.dedup();
        Self { names }
    }

    /// Returns names that start with `word`, then keywords in the letter case in which the user is typing.
    fn candidates(&self, word: &str) -> Vec<String> {
        let names = self.names.iter().filter(|name| name.starts_with(word));
        let mut candidates: Vec<String> = names.cloned().collect();

        let upper = word.to_uppercase();
        for keyword in KEYWORDS
            .iter()
            .filter(|keyword| keyword.starts_with(&upper))
        {
            candidates.push(if word == upper {
                (*keyword).to_owned()
            } else {
                keyword.to_lowercase()
            });
        }
        candidates
    }
}

impl Completer for Completions {
    type Candidate = String;

    fn complete(
        &self,
        line: &str,
        pos: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<String>)> {
        let (start, word) = extract_word(line, pos, None, |c| {
            c.is_whitespace() || "(),;=<>+-*/'".contains(c)
        });
        if word.is_empty() {
            return Ok((start, Vec::new()));
        }

        let candidates = self.candidates(word);
        // In `t.tra`, ignore the alias before the dot and complete the column after it.
        match word.rsplit_once('.') {
            Some((alias, column)) if candidates.is_empty() => {
                Ok((start + alias.len() + 1, self.candidates(column)))
            }
            _ => Ok((start, candidates)),
        }
    }
}

impl Validator for Completions {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        let text = context.input().trim();
        // A statement continues over several lines until its semicolon.
        let complete = text.is_empty()
            || text.ends_with(';')
            || text.starts_with('\\')
            || is_word_command(text);

        Ok(if complete {
            ValidationResult::Valid(None)
        } else {
            ValidationResult::Incomplete
        })
    }
}

fn is_word_command(text: &str) -> bool {
    matches!(text, "help" | "quit" | "exit")
}

impl Hinter for Completions {
    type Hint = String;
}
impl Highlighter for Completions {}
impl Helper for Completions {}

#[cfg(test)]
mod tests {
    use super::*;

    fn complete(line: &str) -> (usize, Vec<String>) {
        let names = ["artist_id", "artist_name", "raw.tracks", "tracks"]
            .map(str::to_owned)
            .to_vec();
        let history = DefaultHistory::new();
        Completions { names }
            .complete(line, line.len(), &Context::new(&history))
            .expect("completion does not fail")
    }

    #[test]
    fn lines_starting_with_a_space_are_not_stored_in_history() {
        let mut history = DefaultHistory::with_config(&config());
        for line in ["SELECT 1;", " SELECT 'secret';", "SELECT 2; "] {
            remember(&mut history, line);
        }
        let kept: Vec<&String> = history.iter().collect();
        assert_eq!(kept, ["SELECT 1;", "SELECT 2;"]);
    }

    #[test]
    fn completes_names_keywords_and_columns_behind_an_alias() {
        assert_eq!(
            complete("SELECT arti"),
            (7, vec!["artist_id".to_owned(), "artist_name".to_owned()])
        );
        assert_eq!(
            complete("SELECT count(t.artist_n"),
            (15, vec!["artist_name".to_owned()])
        );
        assert_eq!(
            complete("select * from raw.t"),
            (14, vec!["raw.tracks".to_owned()])
        );

        assert_eq!(complete("sel"), (0, vec!["select".to_owned()]));
        assert_eq!(complete("SELECT x ORD"), (9, vec!["ORDER BY".to_owned()]));
        assert_eq!(complete("SELECT "), (7, Vec::new()));
    }
}
