//! Reads rows of a wavemill store in training order: manifest → row groups → rows → batches in host memory.
//!
//! The order depends neither on ranks nor on threads, and omitted rows are counted. A [`Dataset`] contains everything
//! but the tensors, a [`Loader`] iterates over one epoch, and an [`InputSpec`] describes the inputs of a model. Tensors
//! are bytes as stored, in memory of type [`HostMemory`], which another library may provide. Augmentation, mixing and
//! models are out of scope.

mod arrow_column;
mod batch;
mod contrast;
mod dataset;
mod error;
mod file;
mod folds;
mod form;
mod frames;
mod joined;
mod labels;
mod loader;
mod memory;
mod order;
mod page;
mod pages;
mod plan;
mod rows;
mod shard;
mod spec;
mod splits;
mod store;
mod warnings;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use batch::Batch;
pub use dataset::{Dataset, LostFile, ModelSignature, Needs};
pub use error::DatasetError;
pub use form::{Form, RowKind};
pub use frames::RowFrames;
pub use labels::{GENRES_ALL, Target};
pub use loader::Loader;
pub use memory::{BatchMemory, HostMemory};
pub use order::n_batches;
pub use plan::LoaderPlan;
pub use rows::{RowGroup, Rows};
pub use spec::{InputSpec, MetadataColumn};
pub use store::Store;
pub use wavemill_reader::{StorePlace, Traffic, traffic};
pub use wavemill_schemas::split::Split;
