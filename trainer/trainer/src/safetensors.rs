//! Safetensors files as written by checkpoints and exports: length of the header, header in JSON, values of the
//! tensors.
//!
//! tch's own writer does not support metadata and hides file system errors. This module writes tensors; they are read
//! with tch. Source: github.com/huggingface/safetensors, "Format". Values are stored as in memory, which is
//! little-endian.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::ffi;

/// Maximum length in bytes of a header that is read. The header of a model with ten thousand tensors has about a
/// megabyte.
const HEADER_BYTES_MAX: u64 = 100 << 20;

/// The length of the header is padded to a multiple of this number of bytes. With the widest values first, all values
/// are then aligned.
const ALIGNMENT: usize = 8;

/// Returns the value of `key` in a file's metadata, or `None` if the key does not exist or the file cannot be read.
pub(crate) fn metadata(path: &Path, key: &str) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > HEADER_BYTES_MAX {
        return None;
    }

    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).ok()?;
    let header: Value = serde_json::from_slice(&header).ok()?;
    header["__metadata__"][key].as_str().map(str::to_owned)
}

/// Writes `tensors`, in any order and on any device, to a file with `metadata`, and syncs the file. Returns its blake3
/// hash in hex.
///
/// # Errors
/// Errors of the file system, or of a tensor whose kind no model uses.
pub(crate) fn write(
    path: &Path,
    tensors: &[(String, Tensor)],
    metadata: &[(&str, String)],
) -> io::Result<String> {
    // Write the widest values first, so that all are aligned, and sort by name, so that equal tensors give equal files.
    let mut ordered: Vec<&(String, Tensor)> = tensors.iter().collect();
    ordered
        .sort_by_key(|(name, tensor)| (Reverse(tensor.kind().elt_size_in_bytes()), name.clone()));

    let mut header = serde_json::Map::new();
    if !metadata.is_empty() {
        let metadata: BTreeMap<&str, &String> =
            metadata.iter().map(|(key, value)| (*key, value)).collect();
        header.insert("__metadata__".to_owned(), json!(metadata));
    }
    // Offsets of tensors are relative to the end of the header, whose length is not known yet.
    let mut end = 0;
    for (name, tensor) in &ordered {
        let begin = end;
        end += byte_len(tensor);
        let entry = json!({"dtype": dtype(tensor.kind())?, "shape": tensor.size(), "data_offsets": [begin, end]});
        header.insert(name.clone(), entry);
    }

    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');

    let mut file = HashedFile {
        file: File::create(path)?,
        hasher: blake3::Hasher::new(),
    };
    file.write(&[&(header.len() as u64).to_le_bytes(), header.as_slice()].concat())?;
    for (_, tensor) in ordered {
        file.write(&bytes_of(tensor)?)?;
    }
    file.file.sync_all()?;
    Ok(file.hasher.finalize().to_hex().to_string())
}

/// A file that is being written, and the hash of the bytes written so far.
struct HashedFile {
    file: File,
    hasher: blake3::Hasher,
}

impl HashedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.file.write_all(bytes)
    }
}

/// Returns the values of a tensor on any device, as a file stores them.
///
/// # Errors
/// libtorch cannot copy the values to host memory.
pub(crate) fn bytes_of(tensor: &Tensor) -> io::Result<Vec<u8>> {
    let tensor = ffi::send(&tensor.detach(), Device::Cpu)
        .map_err(io::Error::other)?
        .contiguous();
    let mut bytes = vec![0; byte_len(&tensor)];
    tensor
        .f_copy_data_u8(&mut bytes, tensor.numel())
        .map_err(io::Error::other)?;
    Ok(bytes)
}

fn byte_len(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

fn dtype(kind: Kind) -> io::Result<&'static str> {
    match kind {
        Kind::Float => Ok("F32"),
        Kind::Double => Ok("F64"),
        Kind::Int64 => Ok("I64"),
        other => Err(io::Error::other(format!(
            "no model has a variable of {other:?}"
        ))),
    }
}
