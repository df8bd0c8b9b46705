//! A safetensors file with metadata, which tch's own writer cannot give it: length of the header, header in JSON, values.
//!
//! Source: github.com/huggingface/safetensors, "Format". Values are in little-endian order as they lie in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde_json::json;
use tch::{Device, Kind, Tensor};

/// The header is filled with spaces to a multiple of this, so that values are aligned.
const ALIGNMENT: usize = 8;

/// Writes `tensors` one after another in their order.
///
/// # Errors
/// The disk's; a tensor of a type that a model does not have.
pub fn write(path: &Path, tensors: &[(String, Tensor)], metadata: &[(&str, String)]) -> io::Result<()> {
    let metadata: BTreeMap<&str, &String> = metadata.iter().map(|(key, value)| (*key, value)).collect();
    let mut header = serde_json::Map::from_iter([("__metadata__".to_owned(), json!(metadata))]);
    let mut end = 0;
    for (name, tensor) in tensors {
        let begin = end;
        end += byte_len(tensor);
        let entry = json!({"dtype": dtype(tensor.kind())?, "shape": tensor.size(), "data_offsets": [begin, end]});
        header.insert(name.clone(), entry);
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(ALIGNMENT), b' ');
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (_, tensor) in tensors {
        let tensor = tensor.detach().to_device(Device::Cpu).contiguous();
        let mut bytes = vec![0; byte_len(&tensor)];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel()).map_err(io::Error::other)?;
        file.write_all(&bytes)?;
    }
    file.flush()
}

fn byte_len(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

fn dtype(kind: Kind) -> io::Result<&'static str> {
    match kind {
        Kind::Float => Ok("F32"),
        Kind::Double => Ok("F64"),
        Kind::Int64 => Ok("I64"),
        other => Err(io::Error::other(format!("no model has a variable of {other:?}"))),
    }
}
