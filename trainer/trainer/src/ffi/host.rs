//! Host memory as slices: buffers that reader threads fill and tensors then borrow, and the values of a tensor.
#![allow(unsafe_code)]

use std::ffi::c_int;

use tch::kind::Element;
use tch::{Device, Kind, TchError, Tensor};
use wavemill_loader::{DatasetError, HostMemory};
use wavemill_schemas::exit::PlainError;

use super::{checked, wavemill_pinned, wavemill_send};

/// Memory that belongs to a libtorch tensor, page-locked if it is to be copied to a GPU.
#[derive(Debug)]
pub struct HostBuffer {
    storage: Tensor,
    bytes: usize,
    /// A page-locked buffer must not be written to after [`send`] has queued a copy from it: drop the buffer and create
    /// a new one. libtorch reuses the memory after the copy has finished.
    pinned: bool,
}

impl HostBuffer {
    /// Creates a buffer of `bytes` zeros, in page-locked memory if `pinned`.
    ///
    /// # Errors
    /// The error of libtorch if the memory cannot be allocated, for example because CUDA is missing.
    pub(crate) fn new(bytes: usize, pinned: bool) -> Result<Self, TchError> {
        let storage = if pinned {
            page_locked(bytes)?
        } else {
            Tensor::f_empty([bytes as i64], (Kind::Uint8, Device::Cpu))?
        };

        if bytes > 0 {
            // The memory is exposed as a slice, so it must not contain uninitialised bytes. libtorch would clear it in
            // several threads, and OpenMP keeps threads for each thread that has used it. With more of them than cores,
            // those that train would no longer wait in a loop for each other: the step of an lstm took twice as long.
            // SAFETY: the tensor is contiguous, on the CPU, and has `bytes` u8, which nothing else refers to.
            unsafe { std::ptr::write_bytes(storage.data_ptr().cast::<u8>(), 0, bytes) };
        }
        Ok(Self {
            storage,
            bytes,
            pinned,
        })
    }

    /// Returns the first bytes of the buffer as a tensor of `kind` and `shape`, which shares memory with the buffer.
    ///
    /// # Panics
    /// If the tensor needs more bytes than the buffer has. The shapes of stored rows are checked when the store is
    /// opened.
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

impl HostMemory for HostBuffer {
    fn zeroed(bytes: usize, pinned: bool) -> Result<Self, DatasetError> {
        let refused = |error| PlainError::failed("libtorch").caused_by(error).into();
        Self::new(bytes, pinned).map_err(refused)
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        if self.bytes == 0 {
            return &mut [];
        }
        // SAFETY: the tensor is contiguous, on the CPU, has `bytes` u8, and lives as long as `self`; `&mut self`
        // excludes other slices.
        unsafe { std::slice::from_raw_parts_mut(self.storage.data_ptr().cast(), self.bytes) }
    }

    fn size(&self) -> usize {
        self.bytes
    }

    fn is_reusable(&self) -> bool {
        // A copy from page-locked memory may still be running; only libtorch's memory pool knows when the copy is done.
        !self.pinned
    }
}

// Tensors are handles with an atomic reference count, and no views of a buffer remain when it moves to another thread.
// SAFETY: see above; `tch::Tensor` is itself `Send`.
unsafe impl Sync for HostBuffer {}

/// Allocates page-locked memory, filled with zeros, from libtorch's pool.
fn page_locked(bytes: usize) -> Result<Tensor, TchError> {
    let mut out = std::ptr::null_mut();
    // SAFETY: the shim writes `out` only on success.
    let taken = checked(|message, size| unsafe {
        wavemill_pinned(bytes as i64, &raw mut out, message, size)
    });

    taken.map_err(|error| TchError::Torch(error.to_string()))?;
    // SAFETY: the shim allocated this tensor for the caller with `new`, like the tensors that tch owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Copies a tensor to `device`, or returns it if it is already there. `clippy.toml` disallows tch's own method, which
/// waits for every copy to complete.
///
/// A copy from the CPU to a GPU goes through page-locked memory, and the function returns immediately: later work on
/// the GPU waits for the copy. The tensor may be dropped in the meantime; it must not be written to if it is
/// page-locked. A copy from a GPU is complete when the function returns.
///
/// # Errors
/// Errors of libtorch, for example if memory is exhausted or the device does not exist.
#[allow(clippy::disallowed_methods)]
pub(crate) fn send(tensor: &Tensor, device: Device) -> Result<Tensor, TchError> {
    let (Device::Cpu, Device::Cuda(gpu)) = (tensor.device(), device) else {
        return tensor.f_to_device(device);
    };
    let mut out = std::ptr::null_mut();
    let sent = checked(|message, size| {
        // SAFETY: tch's tensors are `at::Tensor`; the shim writes `out` only on success.
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
    // SAFETY: the shim allocated this tensor for the caller with `new`, like the tensors that tch owns.
    Ok(unsafe { Tensor::from_ptr(out.cast()) })
}

/// Copies a tensor like [`send`], for callers that return no `Result`.
///
/// # Panics
/// If the copy fails, for example because the device is out of memory.
pub(crate) fn on(tensor: &Tensor, device: Device) -> Tensor {
    send(tensor, device).unwrap_or_else(|error| panic!("{error}"))
}

/// Returns the values of a contiguous CPU tensor of `T`'s kind, row-major; `None` for any other tensor.
///
/// Writes change every tensor that shares the memory. None of these tensors may be used while the slice exists.
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
        // SAFETY: a contiguous CPU tensor has `values` values of type T at `data_ptr`, and lives as long as the borrow.
        values => Some(unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), values) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_buffer_uses_no_other_threads() {
        // The threads of OpenMP have the name of the thread that started them.
        let count = || {
            let _buffer = HostBuffer::new(8 << 20, false).expect("memory");
            let tasks = std::fs::read_dir("/proc/self/task").expect("Linux's list of threads");
            let names = tasks
                .map(|task| std::fs::read_to_string(task.expect("a thread").path().join("comm")));
            names
                .filter(|name| name.as_deref().is_ok_and(|name| name == "buffer\n"))
                .count()
        };
        let thread = std::thread::Builder::new().name("buffer".to_owned());
        let threads = thread.spawn(count).expect("a thread").join();
        assert_eq!(threads.expect("no panic"), 1);
    }

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

    /// Without CUDA, page-locked memory is an error: there is neither a panic nor a fallback to other memory.
    #[test]
    fn page_locked_memory_requires_cuda() {
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

    /// Page-locked memory that is freed during a copy to the GPU is not reused before the copy has finished.
    #[test]
    #[ignore = "needs a GPU"]
    fn page_locked_memory_is_not_reused_during_copies() {
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
