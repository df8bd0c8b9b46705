//! What tests of single operations share: devices, tables there and back, and batches of ragged rows.

use super::{
    Address, CudaDevice, Device, EmulatedDevice, Order, Plain, RowEntry, RowTable, bytes_of,
};
use crate::backend::Cuda;

/// The emulated device in every order of its threads.
pub(crate) fn devices() -> Vec<EmulatedDevice> {
    let orders = [Order::Ascending, Order::Descending, Order::Random(1)];
    orders
        .map(|order| EmulatedDevice::new(order).expect("the machine has a C++ compiler"))
        .into()
}

/// A lane of the first GPU. Panics with what was answered where it cannot be used.
pub(crate) fn cuda() -> CudaDevice {
    let opened = Cuda::open(&[]).and_then(|cuda| cuda.lane(0));
    opened.unwrap_or_else(|error| panic!("a GPU is required: {error}"))
}

/// Makes of each check of one device two tests: `here`, on the devices that the environment names (usually the emulated
/// one), and `cuda`, which shows as ignored unless it is asked for and then fails where no GPU can be used.
macro_rules! on_devices {
    ($($check:ident),* $(,)?) => {
        $(mod $check {
            #[test]
            fn here() {
                let checked = $crate::checks::CheckedDevices::of_environment().unwrap();
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

/// `values` on a device.
pub(crate) fn sent<D: Device, T: Plain>(device: &D, values: &[T]) -> D::Buffer {
    let bytes = bytes_of(values);
    let mut host = device.alloc_host(bytes.len()).unwrap();
    host.as_mut().copy_from_slice(bytes);
    let mut buffer = device.alloc(bytes.len()).unwrap();
    device.upload(&host, bytes.len(), &mut buffer).unwrap();
    device.synchronize().unwrap();
    buffer
}

/// The first `n` bytes of what is on a device.
pub(crate) fn fetched<D: Device>(device: &D, buffer: &D::Buffer, n: usize) -> Vec<u8> {
    let mut host = device.alloc_host(n).unwrap();
    device.download(buffer, n, &mut host).unwrap();
    device.synchronize().unwrap();
    host.as_ref()[..n].to_vec()
}

/// The same as numbers.
pub(crate) fn fetched_f32<D: Device>(device: &D, buffer: &D::Buffer, n: usize) -> Vec<f32> {
    let bytes = fetched(device, buffer, 4 * n);
    bytes
        .chunks_exact(4)
        .map(|word| f32::from_ne_bytes([word[0], word[1], word[2], word[3]]))
        .collect()
}

/// A batch of rows on a device.
pub(crate) struct Rows<D: Device> {
    pub(crate) entries: Vec<RowEntry>,
    pub(crate) table: RowTable,
    /// Stored frames before each row, i64.
    pub(crate) kept: Address,
    _buffers: [D::Buffer; 2],
}

impl<D: Device> Rows<D> {
    /// Rows of so many computed and stored frames.
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

    /// Frames of all rows.
    pub(crate) fn n_frames(&self) -> usize {
        self.entries.iter().map(|row| row.n_frames as usize).sum()
    }

    /// Each row's part of `values` of `n_bands` bands, with its entry.
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

/// Rows of no frame, of one, of a few, of more than any block takes, and some that are cropped.
pub(crate) const RAGGED: [(usize, usize); 7] = [
    (0, 0),
    (1, 1),
    (9, 9),
    (33, 20),
    (130, 130),
    (65, 1),
    (300, 257),
];

/// Numbers in [-1, 1) that look random.
pub(crate) fn noise(n: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 8_388_608.0 - 1.0
    };
    (0..n).map(|_| next()).collect()
}

/// Keys of smallest and largest value as kernels find them: `Range` in device.cuh.
pub(crate) fn range_keys(values: impl IntoIterator<Item = f32>) -> [u32; 2] {
    let key = |x: f32| {
        x.to_bits()
            ^ if x.is_sign_negative() {
                u32::MAX
            } else {
                0x8000_0000
            }
    };
    values
        .into_iter()
        .map(key)
        .fold([0, 0], |[max, min], key| [max.max(key), min.max(!key)])
}
