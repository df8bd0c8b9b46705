//! Splits a text into SQL statements and backslash commands.
//!
//! As in psql, a command has its own line or is the whole text. The text between two commands is SQL and may contain
//! several statements.

use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

/// One part of a script: a backslash command or SQL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// A backslash command such as `\d tracks`, without a closing `;`.
    Command(&'a str),
    /// SQL statements, separated by `;`.
    Sql(&'a str),
}

/// Splits a script into SQL and backslash commands. A backslash within a statement is part of the SQL.
pub(super) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut start = 0; // start of the SQL that is not part of a piece yet
    let mut at = 0; // start of the line

    for line in text.split_inclusive('\n') {
        if line.trim_start().starts_with('\\') && !is_open(&text[start..at]) {
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

/// Reports whether a statement has begun that no `;` has ended. Tokenizes quotes and comments like DataFusion's parser.
fn is_open(sql: &str) -> bool {
    let Ok(tokens) = Tokenizer::new(&GenericDialect, sql).tokenize() else {
        // A quote or a comment is unterminated, so the next line belongs to it.
        return true;
    };

    // Ignore white space and comments. The statement has ended if the last other token is a `;`.
    let last = tokens
        .iter()
        .rfind(|token| !matches!(token, Token::Whitespace(_)));
    last.is_some_and(|token| *token != Token::SemiColon)
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
    fn backslash_inside_a_statement_is_part_of_it() {
        let sql = "SELECT '\n\\d\n'";
        assert_eq!(pieces(sql), [Sql(sql)]);
        assert_eq!(pieces("SELECT x\n\\d"), [Sql("SELECT x\n\\d")]);
        for sql in ["SELECT 'a;\n\\d\n'", "/* a;\n\\d\n*/ SELECT 1"] {
            assert_eq!(pieces(sql), [Sql(sql)]);
        }
    }

    #[test]
    fn quotes_and_comments_do_not_hide_the_end_of_a_statement() {
        for sql in [
            "SELECT '--' AS a;\n",
            "SELECT 1 AS \"--\";\n",
            "SELECT 1; /* c */\n",
            "SELECT 1; /* a\nb */ -- c\n",
            "/* c */\n",
        ] {
            let text = format!("{sql}\\x\n");
            assert_eq!(pieces(&text), [Sql(sql), Command("\\x")], "{sql}");
        }
    }
}
