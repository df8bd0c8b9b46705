//! Joins predictions with the rows of a store, scores them, and builds pages about them.
//!
//! [`push`] adds the labels of rows to a model's predictions, and [`leaks`] compares a split with the training split.
//! The trainer uses them for its own models. [`evaluate`] takes predictions of a model that was trained elsewhere as a
//! matrix or table. [`report`] builds pages about both. This crate computes no predictions and needs no libtorch.

mod answers;
mod error;
mod evaluate;
pub mod report;
mod rows;
mod training_list;

#[cfg(test)]
#[path = "../../loader/src/fixture.rs"]
mod fixture;
#[cfg(test)]
mod tests;

pub use answers::{Answers, Values};
pub use error::EvaluationError;
pub use evaluate::{Evaluated, EvaluationSettings, evaluate};
pub use rows::{leaks, members, push};
pub use training_list::TrainingList;
