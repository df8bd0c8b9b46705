//! The cosine transform on a device.

use super::MfccArgs;
use crate::device::{Address, Device, Launch, RowTable, Table, blocks, plain};
use crate::error::KernelError;

/// As in mfcc.cu: frames of a block, threads of a frame, and the two tiles in shared memory.
const FRAMES: usize = 64;
const THREADS: u32 = 4 * FRAMES as u32;
const SHARED_BYTES: u32 = 4 * 32 * (FRAMES as u32 + 32);

plain! {
    /// `Mfcc` in mfcc.cu.
    struct MfccParams {
        bands: Address,
        coefficients: Address,
        matrix: Address,
        rows: Address,
        n_mels: i32,
        n_mfcc: i32,
    }
}

/// The matrix of one cosine transform, on a device.
pub(crate) struct MfccDevice<D: Device> {
    n_mels: usize,
    n_mfcc: usize,
    /// `[n_mels][n_mfcc]`
    matrix: Table<D>,
}

impl<D: Device> MfccDevice<D> {
    pub(crate) fn new(device: &D, args: &MfccArgs, n_mels: usize) -> Result<Self, KernelError> {
        let rows = args.matrix(n_mels);
        let columns = (0..n_mels).flat_map(|n| rows.iter().skip(n).step_by(n_mels));
        let matrix: Vec<f32> = columns.map(|x| *x as f32).collect();
        Ok(Self { n_mels, n_mfcc: args.n_mfcc, matrix: Table::new(device, &matrix)? })
    }

    /// `[row][n_mels][frame]` → `[row][n_mfcc][frame]`.
    pub(crate) fn run(
        &mut self,
        device: &D,
        rows: &RowTable,
        bands: Address,
        coefficients: Address,
    ) -> Result<(), KernelError> {
        let launch = Launch {
            grid: [rows.n_rows as u32, blocks(rows.n_frames_max, FRAMES)],
            threads: THREADS,
            shared_bytes: SHARED_BYTES,
        };
        let params = MfccParams {
            bands,
            coefficients,
            matrix: self.matrix.address(device)?,
            rows: rows.address,
            n_mels: self.n_mels as i32,
            n_mfcc: self.n_mfcc as i32,
        };
        device.launch("mfcc", launch, &params)
    }
}
