//! What scaling needs to know of each row, found on a device.

use wavemill_options::Normalize;

use crate::device::{Address, Device, DeviceMemory, Launch, RowTable, plain};
use crate::error::KernelError;

/// One block takes a whole row.
const THREADS: u32 = 512;

/// Bytes of `Range` and `Spread`.
const RANGE_BYTES: usize = 2 * size_of::<u32>();
const SPREAD_BYTES: usize = 2 * size_of::<f64>();

plain! {
    /// `RowSpread` in normalize.cu.
    struct RowSpread {
        values: Address,
        rows: Address,
        ranges: Address,
        spreads: Address,
        n_bands: i32,
        unused: i32,
    }
}

/// Where scaling finds what it needs to know of each row.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scale {
    /// Values as they are.
    None,
    /// To [0, 1] by a table of `Range`s of the stored frames.
    MinMax {
        /// Before the logarithm, where it is taken in the same pass.
        ranges: Address,
    },
    /// By mean and deviation.
    MeanVar {
        /// As above: they tell what is constant.
        ranges: Address,
        /// `Spread`s in normalize.cu.
        spreads: Address,
    },
}

/// Ranges and moments of a batch's rows.
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

    /// Finds them in the stored frames of `values`, `[row][n_bands][frame]`; packing scales by them.
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

        // The kernel raises the keys of each range from 0.
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
            // Room for the sum of each warp.
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
