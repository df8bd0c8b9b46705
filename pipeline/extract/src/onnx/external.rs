//! Finds references to other files in the bytes of a model.
//!
//! ONNX Runtime opens such files itself, relative to the current directory. Their bytes would be in no hash, so a model
//! with other weights would have the same `feature_id`. Only the fields of `onnx.proto` (ONNX 1.20) that lead to tensors
//! are read.

/// The messages of `onnx.proto` that contain tensors.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Graph,
    Function,
    Training,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

/// Number of `TensorProto.data_location`, and its value `EXTERNAL`.
const EXTERNAL: (u32, u32) = (14, 1);

impl Message {
    /// Returns the message in the field `number` of this one; `None` for a field that leads to no tensor.
    const fn field(self, number: u32) -> Option<Self> {
        Some(match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) | (Self::Training, 1 | 2) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::SparseTensor,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::SparseTensor, 1 | 2) => {
                Self::Tensor
            }
            _ => return None,
        })
    }
}

/// Reports whether a tensor of the model `file` is in another file. `None` if the bytes are not a message of protocol
/// buffers.
pub(super) fn has_external_data(file: &[u8]) -> Option<bool> {
    // Not recursive, because a file decides how deeply its graphs are nested.
    let mut messages = vec![(Message::Model, file)];
    while let Some((message, mut bytes)) = messages.pop() {
        while !bytes.is_empty() {
            // ONNX Runtime reads the lower 32 bits of a key, and of an enum.
            let key = varint(&mut bytes)? as u32;
            let number = key >> 3;
            match key & 7 {
                0 => {
                    let value = varint(&mut bytes)? as u32;
                    if matches!(message, Message::Tensor) && (number, value) == EXTERNAL {
                        return Some(true);
                    }
                }
                2 => {
                    let n_bytes = usize::try_from(varint(&mut bytes)?).ok()?;
                    let inner = bytes.split_off(..n_bytes)?;
                    messages.extend(message.field(number).map(|message| (message, inner)));
                }
                1 => bytes.split_off(..8).map(drop)?,
                5 => bytes.split_off(..4).map(drop)?,
                // The start and the end of a group. `onnx.proto` has none, so the fields in one are unknown ones, and are
                // skipped like other fields.
                3 | 4 => {}
                _ => return None,
            }
        }
    }
    Some(false)
}

/// Takes a number of up to 10 bytes from the front of a message.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let byte = *bytes.split_off_first()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a field that contains `bytes`.
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let key = u32::from(number) << 3 | 2;
        let mut field = vec![key as u8 | 0x80, (key >> 7) as u8];
        field.extend([bytes.len() as u8 | 0x80, (bytes.len() >> 7) as u8]);
        field.extend_from_slice(bytes);
        field
    }

    /// Returns a model with `tensor` in the innermost of the fields `path`.
    fn model(path: &[u8], tensor: &[u8]) -> Vec<u8> {
        let message = path.iter().rev();
        message.fold(tensor.to_vec(), |inner, number| field(*number, &inner))
    }

    #[test]
    fn weights_in_another_file_are_found_wherever_a_tensor_may_be() {
        // The numbers are those of onnx.proto: initializers, constants, bodies of If and Loop, sparse tensors,
        // functions, and graphs for training.
        let paths: [&[u8]; 15] = [
            &[7, 5],
            &[7, 1, 5, 5],
            &[7, 1, 5, 10],
            &[7, 1, 5, 6, 5],
            &[7, 1, 5, 11, 5],
            &[7, 1, 5, 6, 1, 5, 11, 1, 5, 10],
            &[7, 15, 1],
            &[7, 15, 2],
            &[7, 1, 5, 22, 1],
            &[7, 1, 5, 23, 2],
            &[25, 7, 5, 5],
            &[25, 11, 5],
            &[25, 7, 5, 6, 15, 1],
            &[20, 1, 5],
            &[20, 2, 1, 5, 5],
        ];
        let name = field(8, b"weights");
        let location = [0x70, 1];
        let wide_location = [0x70, 0x81, 0x80, 0x80, 0x80, 0x10];
        for path in paths {
            for external in [&location[..], &wide_location] {
                let tensor = [&name, external].concat();
                assert_eq!(
                    has_external_data(&model(path, &tensor)),
                    Some(true),
                    "{path:?}"
                );
            }
            // `raw_data` that looks like a location.
            let inside = [&name[..], &[0x70, 0], &field(9, &location)].concat();
            assert_eq!(
                has_external_data(&model(path, &inside)),
                Some(false),
                "{path:?}"
            );
        }

        // The same numbers elsewhere, such as in the text of a model's documentation, are no location.
        assert_eq!(has_external_data(&model(&[6], &location)), Some(false));
        assert_eq!(has_external_data(b""), Some(false));
    }

    #[test]
    fn bytes_that_are_no_message_are_not_called_harmless() {
        let cut = model(&[7, 5], &[0x70, 0]);
        for broken in [
            &cut[..cut.len() - 1],
            &[0xff; 11],
            &[0x0f],
            &[0x09, 1],
            b"not a model",
        ] {
            assert_eq!(has_external_data(broken), None, "{broken:?}");
        }
        // Graphs that are nested deeply take no stack.
        let deep = model(&[[1, 5, 6].repeat(300), vec![5]].concat(), &[0x70, 0]);
        assert!(has_external_data(&model(&[7], &deep)).is_some());
    }
}
