//! Signal to features; knows no files and no Arrow.

pub mod level;
pub mod resample;
