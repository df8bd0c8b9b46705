//! What is typed or given as one text: statements of SQL, and commands that start with a backslash.
//!
//! As in psql, a command stands on a line of its own, or is all there is. Everything between two commands is SQL, which
//! may hold several statements.

/// A piece of a text, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Such as `\d tracks`, without a closing `;`.
    Command(&'a str),
    /// Statements, separated by `;`.
    Sql(&'a str),
}

/// Cuts a text into its pieces. A backslash within a statement is left to SQL.
#[must_use]
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut start = 0; // of the SQL that no piece holds yet
    let mut at = 0; // of the line

    for line in text.split_inclusive('\n') {
        let is_between = !is_open(&text[start..at]);
        if is_between && line.trim_start().starts_with('\\') {
            push_sql(&mut pieces, &text[start..at]);
            pieces.push(Piece::Command(line.trim().trim_end_matches(';').trim_end()));
            start = at + line.len();
        }
        at += line.len();
    }

    push_sql(&mut pieces, &text[start..]);
    pieces
}

fn push_sql<'a>(pieces: &mut Vec<Piece<'a>>, sql: &'a str) {
    if !sql.trim().is_empty() {
        pieces.push(Piece::Sql(sql));
    }
}

/// Whether a statement has begun that no `;` has ended. Comments are passed over; text in quotes may hold a `;`, which
/// only makes the next line with a backslash a command, and no such line is SQL.
fn is_open(sql: &str) -> bool {
    let mut code = sql
        .lines()
        .map(|line| line.split("--").next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty());
    // The last line with code decides. Looked for from the end, it is soon found, however long the statement is.
    code.next_back().is_some_and(|line| !line.ends_with(';'))
}

#[cfg(test)]
mod tests {
    use super::Piece::{Command, Sql};
    use super::*;

    #[test]
    fn commands_stand_on_lines_of_their_own() {
        assert_eq!(pieces("\\d"), [Command("\\d")]);
        assert_eq!(pieces(" \\d tracks;\n"), [Command("\\d tracks")]);
        assert_eq!(pieces("SELECT 1; SELECT 2"), [Sql("SELECT 1; SELECT 2")]);
        assert_eq!(
            pieces("SELECT 1;\n\\x\nSELECT 2;\nSELECT 3\n"),
            [
                Sql("SELECT 1;\n"),
                Command("\\x"),
                Sql("SELECT 2;\nSELECT 3\n")
            ]
        );
        assert_eq!(
            pieces("-- which\n\\d\n"),
            [Sql("-- which\n"), Command("\\d")]
        );
        assert_eq!(pieces("\n \n"), []);
    }

    #[test]
    fn a_backslash_within_a_statement_is_sqls() {
        let sql = "SELECT '\n\\d\n'";
        assert_eq!(pieces(sql), [Sql(sql)]);
        assert_eq!(pieces("SELECT x\n\\d"), [Sql("SELECT x\n\\d")]);
    }
}
