//! One feature's values of one row: packed in memory, stored in a column, and summed up as statistics.

pub(crate) mod stats;
mod stored;

pub(crate) use stored::{columns, read};

/// One feature's packed values.
#[derive(Debug)]
pub(crate) struct Tensor {
    /// Little-endian, row-major.
    pub bytes: Vec<u8>,
    /// Rows and columns; channels before them, for a picture.
    pub shape: Vec<usize>,
}
