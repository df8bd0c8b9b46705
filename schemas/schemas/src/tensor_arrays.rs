//! The values of tensors in Arrow arrays: as bytes and as numbers.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float16Type, Float32Type, Int16Type, UInt8Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, PrimitiveArray};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_schema::DataType;

use crate::recipe::Dtype;

/// Returns the bytes of a row's tensor, little-endian and row-major, from a column in either layout. Does not copy them.
/// Returns `None` if the column does not contain tensors.
pub fn tensor_bytes(column: &dyn Array, row: usize) -> Option<Buffer> {
    match column.data_type() {
        DataType::FixedSizeBinary(_) => {
            let column = column.as_fixed_size_binary_opt()?;
            let bytes = column.value_size();
            Some(column.values().slice_with_length(row * bytes, bytes))
        }
        DataType::Binary => {
            let column = column.as_binary_opt::<i32>()?;
            let start = column.value_offsets()[row] as usize;
            let bytes = column.value_length(row) as usize;
            Some(column.values().slice_with_length(start, bytes))
        }
        DataType::List(_) => {
            let values = column.as_list_opt::<i32>()?.value(row);
            let numbers = match values.data_type() {
                _ if values.null_count() > 0 => return None,
                DataType::Float16 => values.as_primitive::<Float16Type>().values().inner(),
                DataType::Float32 => values.as_primitive::<Float32Type>().values().inner(),
                DataType::UInt8 => values.as_primitive::<UInt8Type>().values().inner(),
                DataType::Int16 => values.as_primitive::<Int16Type>().values().inner(),
                _ => return None,
            };
            Some(numbers.clone())
        }
        _ => None,
    }
}

/// Returns the values of tensors as numbers. Copies `bytes` only if they are not aligned for the type.
pub fn numbers(bytes: Buffer, dtype: Dtype) -> ArrayRef {
    match dtype {
        Dtype::F16 => primitive::<Float16Type>(bytes),
        Dtype::F32 => primitive::<Float32Type>(bytes),
        Dtype::U8 => primitive::<UInt8Type>(bytes),
        Dtype::S16 => primitive::<Int16Type>(bytes),
    }
}

fn primitive<T: ArrowPrimitiveType>(bytes: Buffer) -> ArrayRef {
    let is_aligned = bytes.as_ptr().align_offset(align_of::<T::Native>()) == 0;
    let bytes = match is_aligned {
        true => bytes,
        false => Buffer::from_slice_ref(bytes.as_slice()),
    };
    Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(bytes), None))
}
