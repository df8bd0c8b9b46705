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

/// Creates the error for SQL that cannot be parsed. Errors of DataFusion's own syntax are diagnostics around an error of
/// the parser.
fn refused(error: &DataFusionError) -> CatalogError {
    match error.find_root() {
        DataFusionError::SQL(error, _) => error.as_ref().clone().into(),
        other => CatalogError::Unusable(
            ParserError::ParserError(other.message().into_owned()).to_string(),
        ),
    }
}
