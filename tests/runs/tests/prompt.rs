//! The prompt of `wavemill sql` on a pseudo-terminal (`terminal.py`): wide rows, and Ctrl-C.

use std::path::Path;
use std::time::{Duration, Instant};

use wavemill_tests::Failed;

use crate::support::{contains, has_python, lacks, scratch, sql, wavemill, whole};
use crate::terminal::{TERMINAL_TIMEOUT, Terminal};

/// Time after which the query is executing its joins.
const RUN_TIME_MIN: Duration = Duration::from_secs(2);
/// The documentation states one second. Without a reaction to Ctrl-C, this query takes hours.
const STOP_S_MAX: Duration = Duration::from_secs(10);
const PROMPT: &str = "wavemill> ";
/// End of the status line below each answer, which contains the elapsed time.
const TIME: &str = " s\n";
/// Escape sequence that disables bracketed paste mode. The line editor sends it when it releases the terminal.
const LINE_ENDS: &str = "\u{1b}[?2004l";
/// Byte that a keyboard sends for Ctrl-C.
const CTRL_C: &str = "\u{3}";

/// A `wavemill sql` process that shows its prompt.
struct Prompt(Terminal);

impl Prompt {
    /// Starts the program with a history file in `folder`.
    fn open(folder: &Path) -> Result<Self, Failed> {
        let mut command = wavemill(["sql", "--store"]);
        command.arg(whole()).env("XDG_STATE_HOME", folder);
        let mut prompt = Self(Terminal::start(&command)?);
        prompt.0.wait_for(PROMPT, TERMINAL_TIMEOUT)?;
        Ok(prompt)
    }

    /// Types a line and waits until the output contains `end` and then the next prompt.
    fn ask(&mut self, line: &str, end: &str) -> Result<String, Failed> {
        self.0.press(line)?;
        self.0.press("\r")?;
        self.ready_after(end, TERMINAL_TIMEOUT)
    }

    /// Waits until the output contains `end` and then a prompt. Input that is typed before the prompt may be lost.
    fn ready_after(&mut self, end: &str, limit: Duration) -> Result<String, Failed> {
        let mut answer = self.0.wait_for(end, limit)?;
        let rest = answer.rsplit(end).next().unwrap_or_default();
        if !rest.contains(PROMPT) {
            answer += &self.0.wait_for(PROMPT, TERMINAL_TIMEOUT)?;
        }
        Ok(answer)
    }

    /// Leaves the prompt and checks the exit code.
    fn leave(mut self) -> Result<(), Failed> {
        self.0.press("\\q\r")?;
        self.0.ends(0)
    }
}

#[apply(trial)]
#[needs(has_python)]
fn wide_rows_are_printed_one_column_per_line() -> Result<(), Failed> {
    let folder = scratch("wide");
    let mut prompt = Prompt::open(&folder)?;
    let question =
        "SELECT clip_key AS key, 6 * 7 AS answer, 'x' AS third FROM tracks ORDER BY 1 LIMIT 2;";

    let keys = sql(whole(), "SELECT clip_key FROM tracks ORDER BY 1 LIMIT 2")?;
    let keys: Vec<&str> = keys
        .iter()
        .filter_map(|row| row["clip_key"].as_str())
        .collect();
    let [first, second] = keys[..] else {
        return Err(format!("not two keys: {keys:?}").into());
    };

    let wide = format!(
        "-- row 1 ------\n key    | {first}\n answer | 42\n third  | x\n-- row 2 ------\n key    | {second}\n answer | 42\n third  | x\n"
    );
    let narrow = format!(" {first} |     42 | x\n {second} |     42 | x\n");

    let shown = prompt.ask(question, TIME)?;
    contains(&shown, &narrow)?;
    lacks(&shown, "-- row")?;

    prompt.ask("\\x", "one line per value\n")?;
    let shown = prompt.ask(question, TIME)?;
    contains(&shown, &wide)?;
    lacks(&shown, &narrow)?;

    prompt.ask("\\x", "one line per row\n")?;
    let shown = prompt.ask(question, TIME)?;
    contains(&shown, &narrow)?;
    prompt.leave()
}

/// The query is a join that finds no row for hours.
#[apply(trial)]
#[needs(has_python)]
fn ctrl_c_stops_only_the_query() -> Result<(), Failed> {
    let folder = scratch("ctrl-c");
    let mut prompt = Prompt::open(&folder)?;

    let tables = ["a", "b", "c", "d", "e", "f"]
        .map(|name| format!("tracks {name}"))
        .join(", ");
    prompt.0.press(&format!(
        "SELECT count(*) FROM {tables} WHERE a.clip_key || b.clip_key = f.clip_key || c.clip_key;\r"
    ))?;
    std::thread::sleep(RUN_TIME_MIN);
    let running = prompt.0.news();
    lacks(&running, TIME)?;

    prompt.0.press(CTRL_C)?;
    let start = Instant::now();
    prompt.ready_after("interrupted\n", STOP_S_MAX)?;
    println!("stopped after {:.2} s", start.elapsed().as_secs_f64());

    let answer = prompt.ask("SELECT 6 * 7 AS answer;", TIME)?;
    contains(&answer, "     42\n")?;

    // Without a running query, Ctrl-C discards the line.
    prompt.0.press("SELECT nothing")?;
    prompt.0.press(CTRL_C)?;
    prompt.ready_after(LINE_ENDS, TERMINAL_TIMEOUT)?;
    let answer = prompt.ask("SELECT 6 * 8 AS answer;", TIME)?;
    contains(&answer, "     48\n")?;
    prompt.leave()
}
