//! Parses texts within limits of time, of the stack, and of levels of brackets.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::StatementError;
use super::limits::{DEPTH_MAX, check, require_shallow_part};

/// Maximum depth of brackets of all kinds. The parser limits expressions in parentheses to about 45, but not types such
/// as `ARRAY<ARRAY<…`, and takes up to 30 KB of stack for each level of them.
const BRACKETS_MAX: usize = 100;

/// Time that the parser may take for any text, and for each of its bytes. It takes less than a microsecond for each byte
/// of a text that it reads once. It tries a word as a keyword first and then as a name, and parses the rest again each
/// time: if the rest has an error, a text of a hundred bytes takes hours. sqlparser 0.63 remembers the places that failed.
const PARSING: Duration = Duration::from_secs(2);
const PARSING_PER_BYTE: Duration = Duration::from_micros(1);

/// Stack for parsing a text, in total and for each byte that can add a level: dropping a level takes up to a kilobyte.
/// Memory is taken only when the stack grows.
const STACK_BYTES: usize = 16 << 20;
const STACK_BYTES_PER_LEVEL: usize = 2048;
/// Bytes that add no level: long lists of numbers consist of them.
const FLAT: &[u8] = b"0123456789,. '\"\n\r\t_";

/// Parses the statements of a text, of which there is at least one.
///
/// # Errors
/// [`StatementError`] if the text has a syntax error, no statement, or one that is beyond a limit.
pub fn parse(sql: &str) -> Result<VecDeque<Statement>, StatementError> {
    // A statement that is refused is dropped with the same stack.
    limited(sql, parsed)
}

/// Parses the single query of a text.
///
/// # Errors
/// [`StatementError`], also if there are several statements, or another one than a query.
pub fn parse_query(sql: &str) -> Result<Statement, StatementError> {
    let mut statements = parse(sql)?;
    let is_query = |statement: &Statement| match statement {
        Statement::Statement(statement) => matches!(**statement, ast::Statement::Query(_)),
        _ => false,
    };
    match (statements.pop_front(), statements.pop_front()) {
        (Some(query), None) if is_query(&query) => Ok(query),
        _ => {
            let problem = "only one query is permitted here: give a single SELECT";
            Err(StatementError(problem.to_owned()))
        }
    }
}

/// Requires that a text is a single expression, such as the condition of a WHERE, so that it stays one in brackets.
///
/// # Errors
/// [`StatementError`] if the text has a syntax error or is beyond a limit.
pub fn require_expression(sql: &str) -> Result<(), StatementError> {
    limited(sql, |sql| {
        require_shallow_brackets(sql)?;
        let mut parser = Parser::new(&GenericDialect).try_with_sql(sql)?;
        let expression = parser.parse_expr()?;

        let next = parser.next_token();
        if next.token != Token::EOF {
            return Ok(parser.expected("end of the condition", next)?);
        }
        require_shallow_part(&expression)
    })
}

/// Calls `read` with the stack and within the time that parsing `sql` may take. The thread of a parser that takes longer
/// is abandoned, because nothing can end it: it ends with the process at the latest.
fn limited<T: Send + 'static>(
    sql: &str,
    read: fn(&str) -> Result<T, StatementError>,
) -> Result<T, StatementError> {
    let n_levels = sql.bytes().filter(|byte| !FLAT.contains(byte)).count();
    let stack_bytes = STACK_BYTES + STACK_BYTES_PER_LEVEL.saturating_mul(n_levels);
    let n_bytes = u32::try_from(sql.len()).unwrap_or(u32::MAX);

    let text = sql.to_owned();
    let (sender, parsed) = channel();
    let parser = thread::Builder::new().stack_size(stack_bytes);
    let parser = parser.spawn(move || {
        // Nobody receives what takes too long.
        let _ = sender.send(read(&text));
    });
    let parser = parser.map_err(|error| {
        StatementError(format!(
            "SQL of {n_bytes} bytes cannot be parsed at once ({error}): divide it"
        ))
    })?;

    match parsed.recv_timeout(PARSING + PARSING_PER_BYTE * n_bytes) {
        Ok(parsed) => parsed,
        Err(RecvTimeoutError::Timeout) => Err(too_ambiguous()),
        Err(RecvTimeoutError::Disconnected) => match parser.join() {
            Err(panic) => resume_unwind(panic),
            Ok(()) => Err(too_ambiguous()),
        },
    }
}

fn parsed(sql: &str) -> Result<VecDeque<Statement>, StatementError> {
    require_shallow_brackets(sql)?;
    let statements = DFParserBuilder::new(sql)
        .with_dialect(&GenericDialect)
        .build()
        .and_then(|mut parser| parser.parse_statements())?;
    if statements.is_empty() {
        return Err(StatementError("the query is empty".to_owned()));
    }
    statements.iter().try_for_each(check)?;
    Ok(statements)
}

/// Refuses brackets that are nested too deeply, types such as `int[][][]…` with too many levels, `INTERVAL INTERVAL …` and
/// the patterns of `MATCH_RECOGNIZE`, which DataFusion does not have. The parser does not limit them, and visitors do not
/// see types.
fn require_shallow_brackets(sql: &str) -> Result<(), StatementError> {
    // The parser finds the errors of tokens, too.
    let tokens = Tokenizer::new(&GenericDialect, sql).tokenize();
    let tokens = tokens.unwrap_or_default();

    let (mut brackets, mut angles, mut subscripts) = (0_usize, 0_usize, 0_usize);
    let mut last = Keyword::NoKeyword;
    for token in &tokens {
        let keyword = match token {
            Token::Word(word) => word.keyword,
            _ => Keyword::NoKeyword,
        };
        match token {
            Token::LParen if last == Keyword::MATCH_RECOGNIZE => return Err(unlimited()),
            Token::Word(_) if keyword == Keyword::INTERVAL && last == keyword => {
                return Err(unlimited());
            }
            Token::LParen | Token::LBracket | Token::LBrace => brackets += 1,
            Token::RParen | Token::RBracket | Token::RBrace => {
                brackets = brackets.saturating_sub(1);
            }
            Token::Lt if matches!(last, Keyword::ARRAY | Keyword::STRUCT) => angles += 1,
            Token::Gt => angles = angles.saturating_sub(1),
            Token::ShiftRight => angles = angles.saturating_sub(2),
            Token::Whitespace(_) => continue,
            _ => {}
        }

        subscripts = match token {
            Token::LBracket => subscripts + 1,
            // Between the subscripts of an element, or of an enclosing type.
            Token::RBracket | Token::RParen | Token::Gt | Token::ShiftRight => subscripts,
            Token::Number(..) => subscripts,
            _ => 0,
        };
        if brackets + angles > BRACKETS_MAX || subscripts > DEPTH_MAX {
            return Err(too_many_brackets());
        }
        last = keyword;
    }
    Ok(())
}

fn too_ambiguous() -> StatementError {
    let problem = "the statement can be read in too many ways, most likely because of an error in brackets or in keywords \
                   that are used as names: check them, or divide the statement";
    StatementError(problem.to_owned())
}

fn unlimited() -> StatementError {
    let problem = "INTERVAL after INTERVAL and MATCH_RECOGNIZE (…) are not permitted: their depth has no limit";
    StatementError(problem.to_owned())
}

fn too_many_brackets() -> StatementError {
    StatementError(format!(
        "the statement has more than {BRACKETS_MAX} levels of brackets, or {DEPTH_MAX} subscripts after each other: \
         divide it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_errors_are_those_of_the_parser() {
        for sql in ["SELECT 1 SELECT 2", "SELECT 1)", "SELECT 1 FROM"] {
            let error = parse(sql).expect_err(sql).to_string();
            assert!(error.starts_with("sql parser error: Expected: "), "{error}");
        }
    }

    #[test]
    fn only_a_single_query_is_a_query() {
        for sql in [
            "SELECT 1;",
            "VALUES (1)",
            "WITH a AS (SELECT 1) SELECT * FROM a -- b",
        ] {
            assert!(parse_query(sql).is_ok(), "{sql}");
        }
        for sql in [
            "SELECT 1; SELECT 2",
            "SET a = 1",
            "DROP TABLE a",
            "COPY a TO 'b.csv'",
            "EXPLAIN SELECT 1",
        ] {
            let error = parse_query(sql).expect_err(sql).to_string();
            assert!(error.contains("give a single SELECT"), "{sql}: {error}");
        }
        let empty = parse_query("-- a").expect_err("no query").to_string();
        assert_eq!(empty, "the query is empty");
    }

    #[test]
    fn an_expression_has_nothing_after_it() {
        for permitted in ["a", "a = 1 -- b", "(a) OR (b)", "a IN (SELECT b FROM c)"] {
            assert!(require_expression(permitted).is_ok(), "{permitted}");
        }
        for refused in [
            "",
            "a)",
            "a;",
            "a AS b",
            "a, b",
            "true) OR (true",
            "true) LIMIT (5",
            "a = 1 ORDER BY a",
        ] {
            let error = require_expression(refused).expect_err(refused).to_string();
            assert!(error.contains("Expected: "), "{refused}: {error}");
        }
        let deep = "a OR ".repeat(600) + "a";
        let refused = require_expression(&deep).expect_err("deep").to_string();
        assert!(refused.contains("500 nested expressions"), "{refused}");
    }

    #[test]
    fn levels_that_the_parser_refuses_are_reported_with_a_remedy() {
        let nested = |open: &str, n: usize| format!("SELECT {}1{}", open.repeat(n), ")".repeat(n));
        for (open, permitted) in [
            ("(", 45),
            ("abs(", 45),
            ("(SELECT * FROM a WHERE b OR ", 12),
        ] {
            assert!(parse(&nested(open, permitted)).is_ok(), "{open}");
            let refused = parse(&nested(open, 60)).expect_err(open).to_string();
            assert!(refused.contains("WITH"), "{refused}");
        }

        // The quantifiers of a pattern could be nested without limit.
        let pattern = format!(
            "SELECT * FROM a MATCH_RECOGNIZE (PATTERN (A{}) DEFINE A AS true)",
            "+".repeat(300_000)
        );
        let intervals = "SELECT ".to_owned() + &"INTERVAL ".repeat(2000) + "1";
        for sql in [pattern, intervals] {
            let refused = parse(&sql).expect_err("no limit").to_string();
            assert!(refused.contains("no limit"), "{refused}");
        }
    }

    #[test]
    fn deep_brackets_are_refused_whatever_their_kind() {
        for chain in ["position(", "{fn a(", "MAP(", "ARRAY<", "TABLE(a "] {
            for start in ["SELECT ", "SELECT CAST(1 AS "] {
                let sql = start.to_owned() + &chain.repeat(5000);
                let refused = parse(&sql).expect_err(chain).to_string();
                assert!(refused.contains("100 levels of brackets"), "{refused}");
            }
        }
    }

    #[test]
    fn errors_in_statements_that_can_be_read_in_many_ways_are_found_at_once() {
        let sql = "SELECT ".to_owned() + &"a.b.c.d[".repeat(8) + "/ ?9 9";
        let refused = parse(&sql).expect_err("nested names");
        assert!(refused.to_string().contains("too many ways"), "{refused}");

        let nested = "lower(".repeat(8) + "a.b.c['d']['e']" + &")".repeat(8);
        let select = format!("SELECT {nested} FROM a WHERE NOT {nested} = 'x'");
        assert!(parse(&select).is_ok());
    }
}
