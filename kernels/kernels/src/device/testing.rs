//! Shared helpers for tests of single operations: devices, copies in both directions, and batches of rows of different
//! lengths.

use super::{
    Address, CudaDevice, Device, EmulatedDevice, Order, Plain, RowEntry, RowTable, bytes_of,
};
use crate::backend::Cuda;

/// Returns the emulated device in every order of its threads.
pub(crate) fn devices() -> Vec<EmulatedDevice> {
    let orders = [Order::Ascending, Order::Descending, Order::Random(1)];
    orders
        .map(|order| EmulatedDevice::new(order).expect("the machine has a C++ compiler"))
        .into()
}

/// Returns a stream of the first GPU. Panics with the error if the GPU cannot be used.
pub(crate) fn cuda() -> CudaDevice {
    let opened = Cuda::open(&[]).and_then(|cuda| cuda.lane(0));
    opened.unwrap_or_else(|error| panic!("a GPU is required: {error}"))
}

/// Defines two tests for each check of one device: `here` runs it on the devices selected by the environment (usually
/// the emulated one); `cuda` is ignored unless it is selected, and then fails if no GPU can be used.
macro_rules! on_devices {
    ($($check:ident),* $(,)?) => {
        $(mod $check {
            #[test]
            fn here() {
                let checked = $crate::checks::CheckedDevices::from_environment().unwrap();
                if checked.emulated {
                    $crate::device::testing::devices().iter().for_each(super::$check);
                }
                if checked.cuda_required {
                    super::$check(&$crate::device::testing::cuda());
                }
            }

            #[test]
            #[ignore = "needs a GPU"]
            fn cuda() {
                super::$check(&$crate::device::testing::cuda());
            }
        })*
    };
}
pub(crate) use on_devices;

/// Copies `values` to new memory on a device.
pub(crate) fn sent<D: Device, T: Plain>(device: &D, values: &[T]) -> D::Buffer {
    let bytes = bytes_of(values);
    let mut host = device.alloc_host(bytes.len()).unwrap();
    host.as_mut().copy_from_slice(bytes);
    let mut buffer = device.alloc(bytes.len()).unwrap();
    device.upload(&host, bytes.len(), &mut buffer).unwrap();
    device.synchronize().unwrap();
    buffer
}

/// Copies the first `n` bytes of a device buffer to the host.
pub(crate) fn fetched<D: Device>(device: &D, buffer: &D::Buffer, n: usize) -> Vec<u8> {
    let mut host = device.alloc_host(n).unwrap();
    device.download(buffer, n, &mut host).unwrap();
    device.synchronize().unwrap();
    host.as_ref()[..n].to_vec()
}

/// Copies the first `n` numbers of a device buffer to the host.
pub(crate) fn fetched_f32<D: Device>(device: &D, buffer: &D::Buffer, n: usize) -> Vec<f32> {
    let bytes = fetched(device, buffer, 4 * n);
    bytes
        .chunks_exact(4)
        .map(|word| f32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        .collect()
}

/// A batch of rows on a device, for tests.
pub(crate) struct Rows<D: Device> {
    pub(crate) entries: Vec<RowEntry>,
    pub(crate) table: RowTable,
    /// Address of a table with the number of stored frames before each row, as i64.
    pub(crate) kept: Address,
    _buffers: [D::Buffer; 2],
}

impl<D: Device> Rows<D> {
    /// Creates rows from their numbers of computed and stored frames.
    pub(crate) fn new(device: &D, lengths: &[(usize, usize)]) -> Self {
        let (mut frame, mut kept) = (0, 0);
        let (mut entries, mut kepts) = (Vec::new(), Vec::new());

        for &(n_frames, n_kept) in lengths {
            let [n_frames, n_kept] = [n_frames, n_kept].map(|n| n as i32);
            entries.push(RowEntry {
                pcm: 0,
                frame,
                n_pcm: 0,
                n_signal: 0,
                n_frames,
                n_kept,
            });

            kepts.push(kept);
            frame += i64::from(n_frames);
            kept += i64::from(n_kept);
        }

        let buffers = [sent(device, &entries), sent(device, &kepts)];
        let n_frames_max = lengths
            .iter()
            .map(|(n_frames, _)| *n_frames)
            .max()
            .unwrap_or(0);
        let address = device.address(&buffers[0]);
        let table = RowTable {
            address,
            n_rows: lengths.len(),
            n_pcm_max: 0,
            n_frames_max,
        };

        Self {
            entries,
            table,
            kept: device.address(&buffers[1]),
            _buffers: buffers,
        }
    }

    /// Returns the number of frames of all rows.
    pub(crate) fn n_frames(&self) -> usize {
        self.entries.iter().map(|row| row.n_frames as usize).sum()
    }

    /// Returns each row's entry and its part of `values`, which have `n_bands` bands.
    pub(crate) fn split<'a>(
        &'a self,
        values: &'a [f32],
        n_bands: usize,
    ) -> impl Iterator<Item = (&'a RowEntry, &'a [f32])> {
        self.entries.iter().map(move |row| {
            let first = n_bands * row.frame as usize;
            (row, &values[first..first + n_bands * row.n_frames as usize])
        })
    }
}

/// Computed and stored frames of test rows: none, one, a few, more than a block can process, and some cropped rows.
pub(crate) const RAGGED: [(usize, usize); 7] = [
    (0, 0),
    (1, 1),
    (9, 9),
    (33, 20),
    (130, 130),
    (65, 1),
    (300, 257),
];

/// Returns pseudo-random numbers in [-1, 1).
pub(crate) fn noise(n: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut values = Vec::with_capacity(n);
    for _ in 0..n {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        values.push((state >> 8) as f32 / 8_388_608.0 - 1.0);
    }
    values
}

/// Returns the integer keys of the smallest and largest value, as kernels compute them: `Range` in device.cuh.
pub(crate) fn range_keys(values: impl IntoIterator<Item = f32>) -> [u32; 2] {
    let (mut max, mut min) = (0, 0);
    for x in values {
        let flipped = if x.is_sign_negative() {
            u32::MAX
        } else {
            0x8000_0000
        };
        let key = x.to_bits() ^ flipped;
        max = max.max(key);
        min = min.max(!key);
    }
    [max, min]
}
