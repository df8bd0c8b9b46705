//! SQL over one version of a store.
//!
//! The tables consist of exactly the Parquet files that the version's manifest lists. Tensors are stored as bytes, with
//! functions to read them. Queries stream, respect a memory limit and, unless permitted otherwise, only read. Common
//! queries are explained with examples in `docs/sql.md`. Writing the store is not part of this module.

mod average;
mod bounded;
mod catalog;
mod classes;
mod console;
mod copying;
mod damage;
mod error;
mod functions;
mod headings;
mod mistakes;
pub mod output;
mod own_tables;
mod partial;
mod parts;
#[cfg(test)]
mod people_tests;
mod prompt;
mod provider;
mod rows;
mod running;
mod script;
mod session;
mod similarity;
mod subqueries;
mod table;
pub mod tensor;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
#[cfg(test)]
mod tests;
mod windows;

pub use console::Console;
pub use error::SqlError;
pub use output::tensors::TensorStream;
pub use output::{Format, Sink};
pub use prompt::Prompt;
pub use provider::table_provider;
pub use rows::Rows;
pub use running::Interrupt;
pub use session::{Limits, Session, open};
