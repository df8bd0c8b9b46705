//! Host memory as slices: buffers that reader threads fill and a tensor then borrows, and a tensor's own values.
#![allow(unsafe_code)]

use std::ffi::c_int;

use tch::kind::Element;
use tch::{Device, Kind, TchError, Tensor};

use super::{checked, wavemill_pinned, wavemill_send};

/// Bytes in a tensor's own storage, page-locked where they are to be sent to CUDA.
#[derive(Debug)]
pub struct HostBuffer {
    storage: Tensor,
    bytes: usize,
    pinned: bool,
}

impl HostBuffer {
    /// `bytes` zeros, in page-locked memory if `pinned`.
    ///
    /// # Errors
    /// libtorch's: no such memory is to be had, for want of CUDA say.
    pub(crate) fn new(bytes: usize, pinned: bool) -> Result<Self, TchError> {
        let storage = if pinned {
            page_locked(bytes)?
        } else {
            Tensor::f_zeros([bytes as i64], (Kind::Uint8, Device::Cpu))?
        };
        Ok(Self {
            storage,
            bytes,
            pinned,
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.bytes
    }

    /// Whether it is page-locked. Then nothing may be written once a copy from it was queued ([`send`]): drop it, and
    /// take another, which libtorch makes of the same memory as soon as the copy is done.
    pub(crate) fn is_pinned(&self) -> bool {
        self.pinned
    }

    /// The bytes, to be filled. Tensors of [`Self::view`] see the change.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
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
    pub(crate) fn view(&self, kind: Kind, shape: &[i64]) -> Tensor {
        let wanted = shape.iter().product::<i64>() * kind.elt_size_in_bytes() as i64;
        assert!(
            wanted as usize <= self.bytes,
            "a view of {wanted} bytes in a buffer of {}",
            self.bytes
        );
        self.storage
            .narrow(0, 0, wanted)
            .view_dtype(kind)
            .view(shape)
    }
}

// Tensors are handles with an atomic count; a buffer crosses threads whole, with no view left behind.
// SAFETY: see above; `tch::Tensor` is itself `Send`.
unsafe impl Sync for HostBuffer {}

/// Page-locked zeros, of libtorch's pool of such memory.
fn page_locked(bytes: usize) -> Result<Tensor, TchError> {
    let mut out = std::ptr::null_mut();
    // SAFETY: `out` is written on success only.
    let taken = checked(|message, size| unsafe {
        wavemill_pinned(bytes as i64, &raw mut out, message, size)
    });

    taken.map_err(|error| TchError::Torch(error.to_string()))?;
    // SAFETY: a tensor that the shim allocated for us with `new`, which is how tch owns its own.
    let mut storage = unsafe { Tensor::from_ptr(out.cast()) };
    // Slices of it are handed out, and may show no memory that nobody wrote.
    storage.f_zero_()
}

/// A tensor on `device`; itself, if it is there. `clippy.toml` refuses tch's own call, which waits for every copy.
///
/// From the CPU to a GPU it is copied by way of page-locked memory, and this comes back at once: what is computed there
/// next waits for the copy. The tensor may be dropped meanwhile, and only if it is page-locked must it not be written to.
/// From a GPU this comes back when the values are here.
///
/// # Errors
/// libtorch's: no memory, no such device.
#[allow(clippy::disallowed_methods)]
pub(crate) fn send(tensor: &Tensor, device: Device) -> Result<Tensor, TchError> {
    let (Device::Cpu, Device::Cuda(gpu)) = (tensor.device(), device) else {
        return tensor.f_to_device(device);
    };
    let mut out = std::ptr::null_mut();
    let sent = checked(|message, size| {
        // SAFETY: tch's tensors are `at::Tensor`; `out` is written on success only.
        unsafe {
            wavemill_send(
                tensor.as_ptr().cast(),
                gpu as c_int,
                &raw mut out,
                message,
                size,
            )
        }
    });

    sent.map_err(|error| TchError::Torch(error.to_string()))?;
    // SAFETY: as in `page_locked`.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// As [`send`], for code whose other calls of tch have no result either.
///
/// # Panics
/// Where those would: no memory.
pub(crate) fn on(tensor: &Tensor, device: Device) -> Tensor {
    send(tensor, device).unwrap_or_else(|error| panic!("{error}"))
}

/// The values of a contiguous CPU tensor of `T`'s kind, row-major; `None` for any other.
///
/// Other handles to the same storage see what is written; none may be used while the slice is.
pub(crate) fn slice_mut<T: Element>(tensor: &mut Tensor) -> Option<&mut [T]> {
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
        assert!(
            slice_mut::<f32>(&mut Tensor::zeros([0], (Kind::Float, Device::Cpu)))
                .expect("empty")
                .is_empty()
        );
    }

    #[test]
    fn what_is_written_is_seen_in_the_view() {
        let mut buffer = HostBuffer::new(12, false).expect("memory");
        buffer.bytes_mut()[..8].copy_from_slice(&[0, 0, 128, 63, 0, 0, 0, 64]);
        let view = buffer.view(Kind::Float, &[2, 1]);
        assert_eq!(
            Vec::<f32>::try_from(&view.view(-1)).expect("f32"),
            [1.0, 2.0]
        );
    }

    /// Without CUDA it is an error, and neither a panic nor memory of another kind.
    #[test]
    fn page_locked_memory_is_had_with_cuda_alone() {
        let pinned = HostBuffer::new(12, true);
        assert_eq!(
            pinned.is_ok(),
            crate::ffi::load_cuda().is_ok(),
            "{pinned:?}"
        );
        assert!(
            send(&Tensor::from_slice(&[1.0_f32]), Device::Cuda(0)).is_ok()
                == crate::ffi::load_cuda().is_ok()
        );
        let here = send(&Tensor::from_slice(&[1.0_f32, 2.0]), Device::Cpu).expect("it is there");
        assert_eq!(Vec::<f32>::try_from(&here).expect("f32"), [1.0, 2.0]);
    }

    /// What is freed while its copy is under way is not handed out before that is done.
    #[test]
    #[ignore = "needs a GPU"]
    fn page_locked_memory_of_copies_under_way_is_not_used_again() {
        assert!(crate::ffi::load_cuda().is_ok(), "libtorch sees no GPU");
        const BYTES: usize = 64 << 20;
        let mut sent = Vec::new();
        for round in 1..=8_u8 {
            let mut buffer = HostBuffer::new(BYTES, true).expect("memory");
            buffer.bytes_mut().fill(round);
            sent.push(
                send(&buffer.view(Kind::Uint8, &[BYTES as i64]), Device::Cuda(0)).expect("sent"),
            );
        }
        for (round, tensor) in (1..=8_i64).zip(sent) {
            assert_eq!(
                tensor.sum(Kind::Int64).int64_value(&[]),
                round * BYTES as i64,
                "round {round}"
            );
        }
    }
}
