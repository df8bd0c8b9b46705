//! SQL over one version of a store.
//!
//! The tables consist of exactly the Parquet files that the version's manifest lists. Tensors are stored as bytes, with
//! functions to read them. Queries stream, respect a memory limit and, unless permitted otherwise, only read. Common
//! queries are explained with examples in `docs/sql.md`. Writing the store is not part of this module.

mod average;
mod catalog;
mod console;
mod damage;
mod error;
mod functions;
mod headings;
pub(crate) mod output;
mod own_tables;
mod partial;
mod parts;
#[cfg(test)]
mod people_tests;
mod prompt;
mod running;
mod script;
mod session;
mod table;
pub(crate) mod tensor;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use console::Console;
pub(crate) use error::SqlError;
pub(crate) use output::{Format, Sink};
pub(crate) use prompt::Prompt;
pub(crate) use running::Interrupt;
pub(crate) use session::{Limits, Session, open};
