//! Host memory as slices: buffers that reader threads fill and a tensor then borrows, and a tensor's own values.
#![allow(unsafe_code)]

use tch::kind::Element;
use tch::{Device, Kind, Tensor};

/// Bytes in a tensor's own storage, page-locked where they are to be sent to CUDA.
#[derive(Debug)]
pub struct HostBuffer {
    storage: Tensor,
    bytes: usize,
    pinned: bool,
}

impl HostBuffer {
    /// `bytes` zeros; page-locked (which CUDA must allow) if `pinned`.
    #[must_use]
    pub fn new(bytes: usize, pinned: bool) -> Self {
        let storage = Tensor::zeros([bytes as i64], (Kind::Uint8, Device::Cpu));
        let storage = if pinned { storage.pin_memory(Device::Cuda(0)) } else { storage };
        Self { storage, bytes, pinned }
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it is page-locked.
    #[must_use]
    pub fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// The bytes, to be filled. Tensors of [`Self::view`] see the change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if self.bytes == 0 {
            return &mut [];
        }
        // SAFETY: a contiguous CPU tensor of `bytes` u8, alive as long as `self`; `&mut self` keeps other slices away.
        unsafe { std::slice::from_raw_parts_mut(self.storage.data_ptr().cast(), self.bytes) }
    }

    /// The first bytes as a tensor of `kind` and `shape`, sharing memory with this buffer.
    ///
    /// # Panics
    /// If they need more bytes than there are: shapes are checked where the store is opened.
    pub fn view(&self, kind: Kind, shape: &[i64]) -> Tensor {
        let wanted = shape.iter().product::<i64>() * kind.elt_size_in_bytes() as i64;
        assert!(wanted as usize <= self.bytes, "a view of {wanted} bytes in a buffer of {}", self.bytes);
        self.storage.narrow(0, 0, wanted).view_dtype(kind).view(shape)
    }
}

// Tensors are handles with an atomic count; a buffer crosses threads whole, with no view left behind.
// SAFETY: see above; `tch::Tensor` is itself `Send`.
unsafe impl Sync for HostBuffer {}

/// The values of a contiguous CPU tensor of `T`'s kind, row-major; `None` for any other.
///
/// Other handles to the same storage see what is written; none may be used while the slice is.
pub fn slice_mut<T: Element>(tensor: &mut Tensor) -> Option<&mut [T]> {
    let fits = tensor.defined()
        && tensor.device() == Device::Cpu
        && tensor.kind() == T::KIND
        && tensor.is_contiguous()
        && !tensor.is_sparse();
    if !fits {
        return None;
    }
    match tensor.numel() {
        0 => Some(&mut []),
        // SAFETY: a contiguous CPU tensor holds `values` of T from `data_ptr` on, and lives as long as the borrow.
        values => Some(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), values) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_given_only_of_a_plain_tensor_of_its_kind() {
        let mut matrix = Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0]).view([2, 2]);
        slice_mut::<f32>(&mut matrix).expect("plain")[3] = 9.0;
        assert_eq!(matrix.double_value(&[1, 1]), 9.0);
        assert!(slice_mut::<f64>(&mut matrix).is_none());
        assert!(slice_mut::<f32>(&mut matrix.tr()).is_none());
        assert!(slice_mut::<f32>(&mut Tensor::new()).is_none());
        assert!(slice_mut::<f32>(&mut Tensor::zeros([0], (Kind::Float, Device::Cpu))).expect("empty").is_empty());
    }

    #[test]
    fn what_is_written_is_seen_in_the_view() {
        let mut buffer = HostBuffer::new(12, false);
        buffer.bytes_mut()[..8].copy_from_slice(&[0, 0, 128, 63, 0, 0, 0, 64]);
        let view = buffer.view(Kind::Float, &[2, 1]);
        assert_eq!(Vec::<f32>::try_from(&view.view(-1)).expect("f32"), [1.0, 2.0]);
    }
}
