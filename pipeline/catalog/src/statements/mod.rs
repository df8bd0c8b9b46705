//! Parses SQL, and limits how deeply statements are nested and how large their plans are.
//!
//! Statements and plans are copied, compared and dropped recursively. The parser builds `a OR b OR …` in a loop, so the
//! depth of a statement is only limited by its length: a long one takes more stack than any thread of a query has.
//! Planning cannot be ended, and a short statement can have a large plan.

mod dialect;
mod limits;
mod parsing;
mod type_limits;

use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

use crate::error::CatalogError;

pub use limits::QUERY_STACK_BYTES;
pub use parsing::{parse, parse_query, require_expression};
pub use type_limits::require_shallow_columns;

/// Maximum number of characters of an incomplete text that an error shows.
const TAIL_CHARS_MAX: usize = 40;

/// Creates the error for the text `sql`, which cannot be parsed. Errors of DataFusion's own syntax are diagnostics around
/// an error of the parser.
fn refused(error: &DataFusionError, sql: &str) -> CatalogError {
    match error.find_root() {
        DataFusionError::SQL(error, _) => unparsed(error, sql),
        other => CatalogError::Unusable(located(&other.message(), sql)),
    }
}

/// Creates the error for the text `sql` from an error of the parser.
fn unparsed(error: &ParserError, sql: &str) -> CatalogError {
    CatalogError::Unusable(match error {
        ParserError::RecursionLimitExceeded => {
            "the statement is nested too deeply: parentheses and calls may have about 45 levels, and subqueries 12 to \
             20: move inner ones to queries of WITH"
                .to_owned()
        }
        ParserError::ParserError(problem) | ParserError::TokenizerError(problem) => {
            located(problem, sql)
        }
    })
}

/// Returns a problem of the text `sql` with its place first: a line and a column, or the end.
fn located(problem: &str, sql: &str) -> String {
    let shown = |problem: &str| {
        problem
            .replace("Expected: ", "expected ")
            .replace(", found: ", ", found ")
    };
    if let Some(expected) = problem.strip_suffix(", found: EOF") {
        let text: Vec<&str> = sql.split_whitespace().collect();
        let text = text.join(" ");
        let n_before = text.chars().count().saturating_sub(TAIL_CHARS_MAX);
        let cut = if n_before > 0 { "…" } else { "" };
        let tail: String = text.chars().skip(n_before).collect();
        return format!(
            "the SQL is incomplete, after `{cut}{tail}`: {}",
            shown(expected)
        );
    }
    match problem.rsplit_once(" at Line: ") {
        Some((problem, place)) => {
            let place = place.replace("Column: ", "column ");
            format!("SQL, line {place}: {}", shown(problem))
        }
        None => format!("SQL: {}", shown(problem)),
    }
}
