//! The values of one feature in one row: packed in memory, stored in a column, and summed up as statistics.

pub mod stats;
mod stored;

pub use stored::{columns, read};

/// The values of one feature in one row, packed as bytes.
#[derive(Debug)]
pub struct Tensor {
    /// The values, little-endian and row-major.
    pub bytes: Vec<u8>,
    /// Dimensions: number of rows and columns, preceded by the number of channels for a picture; or only the number of
    /// samples or bytes.
    pub shape: Vec<usize>,
}
