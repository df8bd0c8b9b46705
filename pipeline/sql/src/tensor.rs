//! Decodes the bytes of stored tensors with the type, scale and shape from the metadata of their column.
//!
//! A tensor is one binary value per row, little-endian and row-major. Its type is not part of the value but stored in
//! the field's `wavemill.tensor` metadata, which every reader in this module uses.

use std::borrow::Cow;
use std::fmt;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, FixedSizeBinaryArray, ListArray};
use arrow::datatypes::{DataType, Field, Float16Type, Float32Type, Int16Type, UInt8Type};
use half::f16;
use half::slice::HalfFloatSliceExt;
use serde::Deserialize;
use serde_json::json;
use wavemill_schemas::manifest::Scale;
use wavemill_schemas::recipe::Dtype;
use wavemill_schemas::tables::TENSOR_KEY;
use wavemill_schemas::tensor_arrays::tensor_bytes;

/// Number of values that are converted at a time, so that the f16 conversion runs on a slice and not value by value.
const BLOCK: usize = 256;

/// Assumed row size of tensors with varying lengths: about a minute of the usual log-mel.
const RAGGED_ROW_BYTES: usize = 660 << 10;

/// Assumed size of an audio file in bytes: about a minute of MP3.
const FILE_BYTES: usize = 2 << 20;

/// Number of samples in a minute at the usual rate.
const SAMPLES_A_MINUTE: usize = 60 * 22_050;

/// The type of a tensor column, as stored in its metadata.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct TensorType {
    /// Number type in which the values are stored.
    pub dtype: Dtype,
    /// Conversion of stored integers to values. Absent for floats.
    #[serde(default)]
    pub scale: Option<Scale>,
    /// Row-major shape. `None` if a dimension varies between rows.
    pub shape: Vec<Option<usize>>,
    /// Names of the dimensions, such as `["mel", "frame"]`.
    #[serde(default)]
    pub dim_names: Vec<String>,
}

impl TensorType {
    /// Returns the tensor type of a column, or `None` if the column does not contain tensors.
    pub fn from_field(field: &Field) -> Option<Self> {
        let stored = matches!(
            field.data_type(),
            DataType::FixedSizeBinary(_) | DataType::Binary | DataType::List(_)
        );
        let json = field.metadata().get(TENSOR_KEY).filter(|_| stored)?;
        // With unreadable metadata the column is plain bytes, and every tensor function refuses it during planning.
        serde_json::from_str(json).ok()
    }

    /// Returns the Arrow field of a column of such tensors that is computed by an expression. It has no feature id,
    /// because the column is not a feature of a recipe.
    pub fn field(&self, name: &str) -> Field {
        let data_type = match self.row_bytes().and_then(|bytes| i32::try_from(bytes).ok()) {
            Some(bytes) => DataType::FixedSizeBinary(bytes),
            None => DataType::Binary,
        };

        let mut json =
            json!({ "dtype": self.dtype.name(), "shape": self.shape, "dim_names": self.dim_names });
        if let Some(scale) = &self.scale {
            json["scale"] = json!(scale);
        }

        let metadata = [(TENSOR_KEY.to_owned(), json.to_string())];
        Field::new(name, data_type, true).with_metadata(metadata.into())
    }

    /// Returns the number of bytes per row, or `None` if it varies.
    pub fn row_bytes(&self) -> Option<usize> {
        self.shape
            .iter()
            .try_fold(self.dtype.bytes(), |bytes, dim| dim.map(|n| bytes * n))
    }

    /// Returns the number of bytes per row; that of about a minute of audio if it varies.
    pub fn usual_row_bytes(&self) -> usize {
        let ragged = match self.dim_names.first().map(String::as_str) {
            Some("sample") => SAMPLES_A_MINUTE * self.dtype.bytes(),
            Some("byte") => FILE_BYTES,
            _ => RAGGED_ROW_BYTES,
        };
        self.row_bytes().unwrap_or(ragged)
    }

    /// Returns the shape of a row of `values` values. One unknown dimension is computed from the rest. Returns `None`
    /// if more dimensions are unknown or `values` does not fit.
    pub(crate) fn shape_of(&self, values: usize) -> Option<Vec<usize>> {
        let known: usize = self.shape.iter().flatten().product();
        let unknown = self.shape.iter().filter(|dim| dim.is_none()).count();
        // With a known dimension of 0, any length of the unknown one would fit, so the shape is undefined.
        let rest = values.checked_div(known)?;
        let fits = rest * known == values && (unknown == 1 || unknown == 0 && rest == 1);
        fits.then(|| self.shape.iter().map(|dim| dim.unwrap_or(rest)).collect())
    }

    /// Returns a label such as `f16[128,1292]` for a row of `values` values.
    pub fn label(&self, values: usize) -> String {
        let shape = self.shape_of(values).unwrap_or_else(|| vec![values]);
        let dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
        format!("{}[{}]", self.dtype.name(), dims.join(","))
    }

    /// Appends the dequantized values of one row to `out`.
    pub fn decode(&self, bytes: &[u8], out: &mut Vec<f32>) {
        // `out` may contain the values of earlier rows, which are already scaled.
        let start = out.len();
        match self.dtype {
            Dtype::F16 => decode_f16(bytes, out),
            Dtype::F32 => {
                out.extend(
                    bytes
                        .chunks_exact(4)
                        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
                );
            }
            Dtype::U8 => out.extend(bytes.iter().map(|&b| f32::from(b))),
            Dtype::S16 => out.extend(
                bytes
                    .chunks_exact(2)
                    .map(|b| f32::from(i16::from_le_bytes([b[0], b[1]]))),
            ),
        }
        self.apply_scale(&mut out[start..]);
    }

    fn apply_scale(&self, values: &mut [f32]) {
        if let Some(Scale { factor, offset }) = self.scale {
            for value in values {
                *value = (f64::from(*value) * factor + offset) as f32;
            }
        }
    }
}

fn decode_f16(bytes: &[u8], out: &mut Vec<f32>) {
    let mut halves = [f16::ZERO; BLOCK];
    for block in bytes.chunks(BLOCK * 2) {
        let n = block.len() / 2;
        // The bytes of a row may be unaligned, so they cannot be reinterpreted as a slice of f16.
        for (half, b) in halves.iter_mut().zip(block.chunks_exact(2)) {
            *half = f16::from_le_bytes([b[0], b[1]]);
        }

        let start = out.len();
        out.resize(start + n, 0.0);
        halves[..n].convert_to_f32_slice(&mut out[start..]);
    }
}

/// Formats the declared type: `f16[128,1292]`, or `f16[128,?]` if a dimension varies between rows.
impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dims: Vec<String> = self
            .shape
            .iter()
            .map(|dim| dim.map_or("?".to_owned(), |n| n.to_string()))
            .collect();
        write!(f, "{}[{}]", self.dtype.name(), dims.join(","))
    }
}

/// A column of tensors in one of the layouts in which tensors are stored.
pub enum TensorColumn<'a> {
    /// Layout for tensors of the same length in all rows.
    Fixed(&'a FixedSizeBinaryArray),
    /// Layout for tensors of different lengths.
    Binary(&'a BinaryArray),
    /// The list layout of shards written with `layout = "list"`.
    List(&'a ListArray),
}

impl<'a> TensorColumn<'a> {
    /// Creates a view of `array`, or returns `None` if its type cannot contain tensors.
    pub fn new(array: &'a ArrayRef) -> Option<Self> {
        match array.data_type() {
            DataType::FixedSizeBinary(_) => array.as_fixed_size_binary_opt().map(Self::Fixed),
            DataType::Binary => array.as_binary_opt().map(Self::Binary),
            DataType::List(_) => array.as_list_opt().map(Self::List),
            _ => None,
        }
    }

    /// Reports whether the row is null.
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Fixed(array) => array.is_null(row),
            Self::Binary(array) => array.is_null(row),
            Self::List(array) => array.is_null(row),
        }
    }

    /// Returns the number of values in a row.
    pub fn n_values(&self, row: usize, tensor: &TensorType) -> usize {
        match self {
            Self::Fixed(array) => array.value_length() as usize / tensor.dtype.bytes(),
            Self::Binary(array) => array.value_length(row) as usize / tensor.dtype.bytes(),
            Self::List(array) => array.value_length(row) as usize,
        }
    }

    /// Returns the bytes of a row as stored by the layout `binary`.
    pub fn bytes(&self, row: usize) -> Cow<'_, [u8]> {
        match self {
            Self::Fixed(array) => Cow::Borrowed(array.value(row)),
            Self::Binary(array) => Cow::Borrowed(array.value(row)),
            // `layout = "list"` does not write lists that are no tensors.
            Self::List(array) => {
                Cow::Owned(tensor_bytes(*array, row).map_or_else(Vec::new, |bytes| bytes.to_vec()))
            }
        }
    }

    /// Appends the values of a row to `out`.
    pub fn read(&self, row: usize, tensor: &TensorType, out: &mut Vec<f32>) {
        match self {
            Self::Fixed(array) => tensor.decode(array.value(row), out),
            Self::Binary(array) => tensor.decode(array.value(row), out),
            Self::List(array) => read_list(array, row, tensor, out),
        }
    }
}

fn read_list(array: &ListArray, row: usize, tensor: &TensorType, out: &mut Vec<f32>) {
    // Offsets are absolute positions in `values`, even if the list array is a slice of a longer one.
    let range = array.value_offsets()[row] as usize..array.value_offsets()[row + 1] as usize;
    let values = array.values();
    let start = out.len();

    if let Some(floats) = values.as_primitive_opt::<Float32Type>() {
        out.extend_from_slice(&floats.values()[range]);
    } else if let Some(halves) = values.as_primitive_opt::<Float16Type>() {
        out.extend(halves.values()[range].iter().map(|half| half.to_f32()));
    } else if let Some(bytes) = values.as_primitive_opt::<UInt8Type>() {
        out.extend(bytes.values()[range].iter().map(|&b| f32::from(b)));
    } else if let Some(samples) = values.as_primitive_opt::<Int16Type>() {
        out.extend(samples.values()[range].iter().map(|&s| f32::from(s)));
    }

    tensor.apply_scale(&mut out[start..]);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn tensor(dtype: Dtype, shape: &[Option<usize>]) -> TensorType {
        TensorType {
            dtype,
            scale: None,
            shape: shape.to_vec(),
            dim_names: Vec::new(),
        }
    }

    #[test]
    fn f16_decodes_across_block_borders() {
        let values: Vec<f16> = (0..BLOCK as u16 + 3)
            .map(|i| f16::from_f32(f32::from(i) / 8.0))
            .collect();
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();

        let mut out = vec![-1.0];
        tensor(Dtype::F16, &[Some(BLOCK + 3)]).decode(&bytes, &mut out);

        let want: Vec<f32> = std::iter::once(-1.0)
            .chain(values.iter().map(|v| v.to_f32()))
            .collect();
        assert_eq!(out, want);
    }

    #[test]
    fn u8_is_dequantised() {
        let mut quantised = tensor(Dtype::U8, &[Some(3)]);
        quantised.scale = Some(Scale {
            factor: 80.0 / 255.0,
            offset: -80.0,
        });
        let mut out = Vec::new();
        quantised.decode(&[0, 51, 255], &mut out);
        assert_eq!(out, [-80.0, -64.0, 0.0]);
    }

    #[test]
    fn samples_are_scaled_to_full_scale_in_both_layouts() {
        let mut samples = tensor(Dtype::S16, &[None]);
        samples.scale = Some(Scale {
            factor: 1.0 / 32_768.0,
            offset: 0.0,
        });
        let stored = [i16::MIN, -1, 16_384];
        let wanted = [-1.0, -1.0 / 32_768.0, 0.5];

        let bytes = stored.map(i16::to_le_bytes).concat();
        let mut out = Vec::new();
        samples.decode(&bytes, &mut out);
        assert_eq!(out, wanted);

        let list = ListArray::from_iter_primitive::<Int16Type, _, _>([Some(stored.map(Some))]);
        let list: ArrayRef = Arc::new(list);
        let column = TensorColumn::new(&list).unwrap();
        out.clear();
        column.read(0, &samples, &mut out);
        assert_eq!(out, wanted);
        assert_eq!(*column.bytes(0), bytes);
        assert_eq!(samples.label(3), "s16[3]");
    }

    #[test]
    fn one_unknown_dimension_follows_from_the_length() {
        let ragged = tensor(Dtype::F32, &[Some(4), None]);
        assert_eq!(ragged.shape_of(12), Some(vec![4, 3]));
        assert_eq!(ragged.shape_of(0), Some(vec![4, 0]));
        assert_eq!(ragged.shape_of(13), None);
        assert_eq!(ragged.row_bytes(), None);

        assert_eq!(
            tensor(Dtype::F16, &[Some(2), Some(3)]).row_bytes(),
            Some(12)
        );
        assert_eq!(tensor(Dtype::F16, &[None, None]).shape_of(12), None);
        assert_eq!(tensor(Dtype::F16, &[Some(2), Some(3)]).shape_of(12), None);

        assert_eq!(tensor(Dtype::F16, &[None, None]).label(12), "f16[12]");
        assert_eq!(ragged.label(12), "f32[4,3]");
        assert_eq!(ragged.to_string(), "f32[4,?]");
    }
}
