//! Rows of a wavemill store in training order: manifest → row groups → rows → batches in host memory.
//!
//! Neither ranks nor threads change the order, and nothing is left out that is not counted. [`Dataset`] is everything
//! that is known before the first row's tensor is read, [`Loader`] is one epoch of it, and [`InputSpec`] is what a model
//! needs to be fed from elsewhere. Here a tensor is bytes as the store has them: who makes tensors of a library out of
//! them lends the memory ([`HostMemory`]). Augmentation, mixing and models are not here.

mod arrow_column;
mod batch;
mod contrast;
mod dataset;
mod error;
mod form;
mod joined;
mod labels;
mod loader;
mod memory;
mod order;
mod page;
mod pages;
mod rows;
mod shard;
mod spec;
mod splits;
mod store;
mod tags;
mod warnings;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use arrow_column::bytes_of as value_bytes;
pub use batch::Batch;
pub use dataset::{Dataset, LostFile, ModelSignature, Needs};
pub use error::DatasetError;
pub use form::{Form, RowKind};
pub use labels::{GENRES_ALL, Target};
pub use loader::{Loader, LoaderPlan};
pub use memory::HostMemory;
pub use order::n_batches;
pub use rows::{RowGroup, Rows};
pub use spec::{InputSpec, MetadataColumn};
pub use splits::Side;
pub use store::Store;
