//! Computes the range and moments of each row on a device, which normalization needs.

use wavemill_options::Normalize;

use crate::device::{Address, Device, DeviceMemory, Launch, RowTable, plain};
use crate::error::KernelError;

/// Each row is processed by one block.
const THREADS: u32 = 512;

/// Sizes in bytes of `Range` and `Spread`.
const RANGE_BYTES: usize = 2 * size_of::<u32>();
const SPREAD_BYTES: usize = 2 * size_of::<f64>();

plain! {
    /// `RowSpread` in normalize.cu: parameters of the kernel that computes moments.
    struct RowSpread {
        values: Address,
        rows: Address,
        ranges: Address,
        spreads: Address,
        n_bands: i32,
        unused: i32,
    }
}

/// The kind of normalization, with the addresses of its parameters for each row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scale {
    /// No normalization: values are unchanged.
    None,
    /// Scales values to [0, 1], with a table of one `Range` per row over the stored frames.
    MinMax {
        /// Address of the ranges. If the logarithm is applied in the same pass, they are those before the logarithm.
        ranges: Address,
    },
    /// Subtracts the mean and divides by the standard deviation of each row.
    MeanVar {
        /// Address of the ranges as for `MinMax`, by which constant rows are recognised.
        ranges: Address,
        /// Address of one `Spread` per row, see normalize.cu.
        spreads: Address,
    },
}

/// Buffers for ranges and moments of a batch's rows.
pub(crate) struct NormalizeDevice<D: Device> {
    how: Normalize,
    ranges: DeviceMemory<D>,
    spreads: DeviceMemory<D>,
}

impl<D: Device> NormalizeDevice<D> {
    pub(crate) fn new(how: Normalize) -> Self {
        Self {
            how,
            ranges: DeviceMemory::default(),
            spreads: DeviceMemory::default(),
        }
    }

    /// Computes ranges and moments of the stored frames of `values`, `[row][n_bands][frame]`. Packing scales by them.
    pub(crate) fn run(
        &mut self,
        device: &D,
        rows: &RowTable,
        n_bands: usize,
        values: Address,
    ) -> Result<Scale, KernelError> {
        if self.how == Normalize::None {
            return Ok(Scale::None);
        }

        // Ranges start at 0, because the kernel raises their integer keys.
        let range_bytes = rows.n_rows * RANGE_BYTES;
        let buffer = self.ranges.ensure(device, range_bytes)?;
        device.zero(buffer, range_bytes)?;
        let ranges = device.address(buffer);
        let spreads = match self.how {
            Normalize::MeanVar => self.spreads.address(device, rows.n_rows * SPREAD_BYTES)?,
            _ => 0,
        };

        let launch = Launch {
            grid: [rows.n_rows as u32, 1],
            threads: THREADS,
            // Shared memory for one partial sum per warp.
            shared_bytes: THREADS / 32 * size_of::<f64>() as u32,
        };
        let params = RowSpread {
            values,
            rows: rows.address,
            ranges,
            spreads,
            n_bands: n_bands as i32,
            unused: 0,
        };
        device.launch("row_spread", launch, &params)?;

        Ok(match self.how {
            Normalize::MeanVar => Scale::MeanVar { ranges, spreads },
            _ => Scale::MinMax { ranges },
        })
    }
}
