//! The cosine transform on a device.

use wavemill_options::MfccArgs;

use super::matrix::matrix;
use crate::device::{Address, Device, Launch, RowTable, Table, blocks, plain};
use crate::error::KernelError;

/// Constants of mfcc.cu: frames per block, threads per block, and bytes of the two tiles in shared memory.
const FRAMES: usize = 64;
const THREADS: u32 = 4 * FRAMES as u32;
const SHARED_BYTES: u32 = 4 * 32 * (FRAMES as u32 + 32);

plain! {
    /// `Mfcc` in mfcc.cu: parameters of the kernel.
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
    /// Matrix of the transform and lifter, `[n_mels][n_mfcc]`.
    matrix: Table<D>,
}

impl<D: Device> MfccDevice<D> {
    pub(crate) fn new(device: &D, args: &MfccArgs, n_mels: usize) -> Result<Self, KernelError> {
        let rows = matrix(args, n_mels);
        // The kernel reads one band's weights for several coefficients at a time, so these weights are adjacent.
        let columns = (0..n_mels).flat_map(|n| rows.iter().skip(n).step_by(n_mels));
        let matrix: Vec<f32> = columns.map(|x| *x as f32).collect();
        Ok(Self {
            n_mels,
            n_mfcc: args.n_mfcc,
            matrix: Table::new(device, &matrix)?,
        })
    }

    /// Computes the coefficients of all rows, `[row][n_mels][frame]` → `[row][n_mfcc][frame]`.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{RAGGED, Rows, fetched_f32, noise, on_devices, sent};
    use crate::mfcc::reference;

    /// A sum of up to 150 products of numbers up to 80 and weights of norm 1: rounding grows with the square root of
    /// the count.
    const ERROR_MAX: f64 = 80.0 * 6e-8 * 12.0 * 4.0;

    fn matches_reference<D: Device>(device: &D) {
        let rows = Rows::new(device, &RAGGED);

        for (n_mels, n_mfcc, dct_type, lifter) in [
            (40, 13, 2, 0.0),
            (23, 23, 3, 22.0),
            (150, 70, 1, 0.0),
            (1, 1, 2, 0.0),
        ] {
            let args = MfccArgs {
                n_mfcc,
                dct_type,
                lifter,
                lifter_from: 1,
            };
            let values: Vec<f32> = noise(n_mels * rows.n_frames())
                .iter()
                .map(|x| 40.0 * x - 40.0)
                .collect();

            let bands = sent(device, &values);
            let out = device.alloc(4 * n_mfcc * rows.n_frames()).unwrap();
            let mut plan = MfccDevice::new(device, &args, n_mels).unwrap();
            plan.run(
                device,
                &rows.table,
                device.address(&bands),
                device.address(&out),
            )
            .unwrap();

            let got = fetched_f32(device, &out, n_mfcc * rows.n_frames());
            for ((row, got), (_, values)) in
                rows.split(&got, n_mfcc).zip(rows.split(&values, n_mels))
            {
                if row.n_frames == 0 {
                    continue;
                }

                let bands: Vec<Vec<f64>> = values
                    .chunks_exact(row.n_frames as usize)
                    .map(|band| band.iter().map(|x| f64::from(*x)).collect())
                    .collect();
                let want = reference::mfcc(&args, &bands).concat();

                for (at, (got, want)) in got.iter().zip(&want).enumerate() {
                    let error = (f64::from(*got) - want).abs();
                    let allowed = ERROR_MAX * (1.0 + lifter / 2.0);
                    assert!(
                        error <= allowed,
                        "{args:?} {row:?} value {at}: {got} instead of {want}"
                    );
                }
            }
        }
    }

    on_devices!(matches_reference);
}
