//! SQL over one version of a store.
//!
//! The tables are the version's Parquet files, exactly those that its manifest lists; tensors are bytes with functions
//! over them. Queries stream, keep to a memory limit and, unless allowed, only read. What is asked most, with examples,
//! is in `docs/sql.md`. Writing the store is not here.

mod catalog;
mod damage;
mod error;
mod functions;
pub mod output;
mod partial;
mod prompt;
mod running;
mod session;
mod table;
pub mod tensor;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use error::SqlError;
pub use output::{Format, Sink};
pub use prompt::Prompt;
pub use running::Interrupt;
pub use session::{Limits, Session, open};
