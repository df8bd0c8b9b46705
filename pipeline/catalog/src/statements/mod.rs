//! Parses SQL, and limits how deeply statements are nested and how large their plans are.
//!
//! Statements and plans are copied, compared and dropped recursively. The parser builds `a OR b OR …` in a loop, so the
//! depth of a statement is only limited by its length: a long one takes more stack than any thread of a query has.
//! Planning cannot be ended, and a short statement can have a large plan.

mod limits;
mod parsing;
mod type_limits;

use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;

pub use limits::QUERY_STACK_BYTES;
pub use parsing::{parse, parse_query, require_expression};
pub use type_limits::require_shallow_columns;

/// The reason why a text is refused, with the remedy: a syntax error, no statement or several, or a limit.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StatementError(String);

impl From<ParserError> for StatementError {
    fn from(error: ParserError) -> Self {
        Self(match error {
            ParserError::RecursionLimitExceeded => {
                "the statement is nested too deeply: parentheses and calls may have about 45 levels, and subqueries \
                 12 to 20: move inner ones to queries of WITH"
                    .to_owned()
            }
            syntax => syntax.to_string(),
        })
    }
}

impl From<DataFusionError> for StatementError {
    fn from(error: DataFusionError) -> Self {
        // Errors of DataFusion's own syntax are diagnostics around an error of the parser.
        match error.find_root() {
            DataFusionError::SQL(error, _) => error.as_ref().clone(),
            other => ParserError::ParserError(other.message().into_owned()),
        }
        .into()
    }
}
