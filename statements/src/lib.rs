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

pub use limits::require_shallow;
pub use parsing::{n_postgres_statements, parse};
pub use type_limits::require_shallow_columns;

/// The reason why a text is refused.
#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    /// The text is not valid SQL.
    #[error(transparent)]
    Syntax(ParserError),
    /// The text has no statement.
    #[error("the query is empty: give SQL, such as \"SELECT count(*) FROM tracks\"")]
    Empty,
    /// A statement or a type is beyond a limit.
    #[error("{detail}")]
    TooComplex {
        /// Description of what is too deep or too large, with the limit and the remedy.
        detail: String,
    },
}

impl From<StatementError> for DataFusionError {
    fn from(error: StatementError) -> Self {
        let error = match error {
            StatementError::Syntax(error) => error,
            other => ParserError::ParserError(other.to_string()),
        };
        Self::SQL(Box::new(error), None)
    }
}

impl From<DataFusionError> for StatementError {
    fn from(error: DataFusionError) -> Self {
        Self::Syntax(match error {
            DataFusionError::SQL(error, _) => *error,
            other => ParserError::ParserError(other.message().into_owned()),
        })
    }
}
