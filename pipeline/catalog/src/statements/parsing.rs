//! Parses texts within limits of time, of the stack, and of levels of brackets.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::thread;

use datafusion::sql::parser::{DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::dialect::Dialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::dialect::{BoundedDialect, GivenUp};
use super::limits::{DEPTH_MAX, check, require_shallow_part};
use super::{refused, unparsed};
use crate::error::CatalogError;

/// Maximum depth of brackets of all kinds. The parser limits expressions in parentheses to about 45, but not types such
/// as `ARRAY<ARRAY<…`, and takes up to 30 KB of stack for each level of them.
const BRACKETS_MAX: usize = 100;

/// Stack for parsing a text, in total and for each byte that can add a level: dropping a level takes up to a kilobyte.
/// Memory is taken only when the stack grows.
const STACK_BYTES: usize = 16 << 20;
const STACK_BYTES_PER_LEVEL: usize = 2048;
/// Bytes that add no level: long lists of numbers consist of them.
const FLAT: &[u8] = b"0123456789,. '\"\n\r\t_";

/// Parses the statements of a text.
///
/// # Errors
/// [`CatalogError::Unusable`] if the text has a syntax error, or a statement that is beyond a limit.
pub fn parse(sql: &str) -> Result<VecDeque<Statement>, CatalogError> {
    // A statement that is refused is dropped with the same stack.
    with_stack(sql, || parsed(sql))
}

const NOT_ONE_QUERY: &str = "only one query is permitted here: give a single SELECT";

/// Parses the single query of a text.
///
/// # Errors
/// [`CatalogError::Unusable`], also if there are several statements, or another one than a query.
pub fn parse_query(sql: &str) -> Result<Statement, CatalogError> {
    let mut statements = parse(sql)?;
    let Some(statement) = statements.pop_front() else {
        return Err(CatalogError::Unusable("the query is empty".to_owned()));
    };
    let is_query = matches!(
        &statement,
        Statement::Statement(statement) if matches!(**statement, ast::Statement::Query(_))
    );
    if is_query && statements.is_empty() {
        Ok(statement)
    } else {
        Err(CatalogError::Unusable(NOT_ONE_QUERY.to_owned()))
    }
}

/// Requires that a text is a single expression, such as the condition of a WHERE, so that it stays one in brackets.
///
/// # Errors
/// [`CatalogError::Unusable`] if the text has a syntax error or is beyond a limit.
pub fn require_expression(sql: &str) -> Result<(), CatalogError> {
    with_stack(sql, || {
        let dialect = BoundedDialect::new(sql);
        require_shallow_brackets(&dialect, sql)?;
        let expression = parsed_expression(&dialect, sql).map_err(|error| unparsed(&error, sql))?;
        require_shallow_part(&expression)
    })
}

fn parsed_expression(dialect: &dyn Dialect, sql: &str) -> Result<ast::Expr, ParserError> {
    let mut parser = Parser::new(dialect).try_with_sql(sql)?;
    let expression = parser.parse_expr()?;

    let next = parser.next_token();
    if next.token != Token::EOF {
        return parser.expected("end of the condition", next);
    }
    Ok(expression)
}

/// Calls `read` with the stack that parsing `sql` takes.
fn with_stack<T: Send>(
    sql: &str,
    read: impl FnOnce() -> Result<T, CatalogError> + Send,
) -> Result<T, CatalogError> {
    let n_levels = sql.bytes().filter(|byte| !FLAT.contains(byte)).count();
    let stack_bytes = STACK_BYTES + STACK_BYTES_PER_LEVEL.saturating_mul(n_levels);
    let parser = thread::Builder::new().stack_size(stack_bytes);

    thread::scope(|scope| {
        let parsing = parser.spawn_scoped(scope, read);
        match parsing.map(|parsing| parsing.join()) {
            Ok(Ok(parsed)) => parsed,
            Ok(Err(panic)) if panic.is::<GivenUp>() => Err(too_ambiguous()),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(error) => Err(CatalogError::Unusable(format!(
                "SQL of {} bytes cannot be parsed at once ({error}): divide it",
                sql.len()
            ))),
        }
    })
}

fn parsed(sql: &str) -> Result<VecDeque<Statement>, CatalogError> {
    let dialect = BoundedDialect::new(sql);
    require_shallow_brackets(&dialect, sql)?;
    let statements = DFParserBuilder::new(sql)
        .with_dialect(&dialect)
        .build()
        .and_then(|mut parser| parser.parse_statements())
        .map_err(|error| refused(&error, sql))?;
    statements.iter().try_for_each(check)?;
    Ok(statements)
}

/// Refuses brackets that are nested too deeply, and types such as `int[][][]…` with too many levels. The parser does not
/// limit them, and visitors do not see types.
fn require_shallow_brackets(dialect: &dyn Dialect, sql: &str) -> Result<(), CatalogError> {
    // The parser finds the errors of tokens, too.
    let tokens = Tokenizer::new(dialect, sql).tokenize().unwrap_or_default();

    let (mut brackets, mut angles, mut subscripts) = (0_usize, 0_usize, 0_usize);
    let mut is_type = false;
    for token in &tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => brackets += 1,
            Token::RParen | Token::RBracket | Token::RBrace => {
                brackets = brackets.saturating_sub(1);
            }
            Token::Lt if is_type => angles += 1,
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
        is_type = matches!(token, Token::Word(word) if matches!(word.keyword, Keyword::ARRAY | Keyword::STRUCT));
    }
    Ok(())
}

fn too_ambiguous() -> CatalogError {
    let problem = "the statement is nested too deeply or can be read in too many ways, most likely because of an error in \
                   brackets or in keywords that are used as names: check them, or divide the statement";
    CatalogError::Unusable(problem.to_owned())
}

fn too_many_brackets() -> CatalogError {
    CatalogError::Unusable(format!(
        "the statement has more than {BRACKETS_MAX} levels of brackets, or {DEPTH_MAX} subscripts after each other: \
             divide it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntax_errors_are_those_of_the_parser() {
        let long = format!("SELECT {} FROM a\nWHERE", "b, ".repeat(40));
        for (sql, want) in [
            (
                "SELECT 1 SELECT 2",
                "SQL, line 1, column 10: expected end of statement, found SELECT",
            ),
            (
                "SELECT 1\nFROM a)",
                "SQL, line 2, column 7: expected end of statement, found )",
            ),
            (
                "SELECT 'a",
                "SQL, line 1, column 8: Unterminated string literal",
            ),
            (
                "SELECT 1 FROM",
                "the SQL is incomplete, after `SELECT 1 FROM`: expected identifier",
            ),
            (
                &long,
                "the SQL is incomplete, after `… b, b, b, b, b, b, b, b, b, FROM a WHERE`: expected an expression",
            ),
        ] {
            let error = parse(sql).expect_err(sql).to_string();
            assert_eq!(error, want);
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
            let error = parse_query(sql).expect_err(sql);
            assert_eq!(error.to_string(), NOT_ONE_QUERY, "{sql}");
        }
        let empty = parse_query("-- a").expect_err("no query");
        assert_eq!(empty.to_string(), "the query is empty");
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
            assert!(error.contains("expected "), "{refused}: {error}");
        }
        let deep = "a OR ".repeat(600) + "a";
        let refused = require_expression(&deep).expect_err("too deep").to_string();
        assert!(refused.contains("nested expressions"), "{refused}");
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
        assert!(parse(&pattern).is_err());
    }

    #[test]
    fn errors_in_statements_that_can_be_read_in_many_ways_are_found_at_once() {
        for chain in [
            "case -",
            "position(",
            "{fn a(",
            "MAP(",
            "ARRAY<",
            "TABLE(a ",
        ] {
            let sql = format!("SELECT {}", chain.repeat(40));
            assert!(parse(&sql).is_err(), "{chain}");
            let cast = format!("SELECT CAST(1 AS {}", chain.repeat(5000));
            assert!(parse(&cast).is_err(), "{chain}");
        }

        let from = "SELECT * FROM ((".repeat(14) + "FROM a" + &",a".repeat(3000) + " ]";
        assert!(parse(&from).is_err());

        let types = "case -".repeat(24) + "STRUCT<" + &"a int,".repeat(4000);
        assert!(parse(&format!("SELECT {types} / ?9 9")).is_err());
        let intervals = "SELECT ".to_owned() + &"INTERVAL ".repeat(2000) + "1";
        let subscripts = "SELECT ".to_owned() + &"a.b.c.d[".repeat(8) + "/ ?9 9";
        for sql in [intervals, subscripts] {
            let refused = parse(&sql).expect_err("nested names");
            assert!(refused.to_string().contains("too many ways"), "{refused}");
        }
        let nested = "lower(".repeat(8) + "a.b.c['d']['e']" + &")".repeat(8);
        let select = format!("SELECT {nested} FROM a WHERE NOT {nested} = 'x'");
        assert!(parse(&select).is_ok());
    }
}
