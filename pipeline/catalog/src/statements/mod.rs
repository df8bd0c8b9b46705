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

pub use limits::QUERY_STACK_BYTES;
pub use parsing::{parse, parse_query, require_expression};
pub use type_limits::require_shallow_columns;

/// The reason why a text is refused.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The text is not valid SQL.
    #[error(transparent)]
    Syntax(ParserError),
    /// The text has no statement.
    #[error("the query is empty")]
    Empty,
    /// The text is not one query.
    #[error("only one query is permitted here: give a single SELECT")]
    NotOneQuery,
    /// A statement or a type is beyond a limit.
    #[error("{detail}")]
    TooComplex {
        /// Description of what is too deep or too large, with the limit and the remedy.
        detail: String,
    },
}

impl From<ParserError> for StatementError {
    fn from(error: ParserError) -> Self {
        match error {
            ParserError::RecursionLimitExceeded => Self::TooComplex {
                detail: "the statement is nested too deeply: parentheses and calls may have about 45 levels, and subqueries \
                         12 to 20: move inner ones to queries of WITH"
                    .to_owned(),
            },
            syntax => Self::Syntax(syntax),
        }
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
