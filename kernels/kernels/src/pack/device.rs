//! Packing of values on a device: the last step of a feature. Applies the logarithm and the scaling if necessary.

use wavemill_options::{DimOrder, Packing};

use super::cpu::Bounds;
use crate::db::LogParams;
use crate::device::{
    Address, Device, DeviceMemory, HostMemory, Launch, RowTable, RowWords, blocks, plain,
};
use crate::error::KernelError;
use crate::normalize::Scale;

const THREADS: u32 = 256;
/// Constants of pack.cu: frames per block, and bytes of the tile, padded by a column.
const TILE: usize = 32;
const SHARED_BYTES: u32 = (TILE * (TILE + 1) * size_of::<f32>()) as u32;

plain! {
    /// `Pack` in pack.cu: parameters of the kernel that packs values.
    struct PackParams {
        values: Address,
        rows: Address,
        kept: Address,
        log_ranges: Address,
        scale_ranges: Address,
        spreads: Address,
        bytes: Address,
        faults: Address,
        log: LogParams,
        n_bands: i32,
        is_frame_first: i32,
        scale: i32,
        dtype: i32,
        below: f32,
        above: f32,
        low: f32,
        per_unit: f32,
    }
}

plain! {
    /// `PackedValue` in pack.cu: parameters of the kernel that returns one scaled value.
    struct PackedValue {
        value: Address,
        pack: PackParams,
        row: i32,
        place: u32,
    }
}

/// The values to pack, and how to scale them.
#[derive(Clone, Copy)]
pub(crate) struct PackInput {
    /// Address of the values, `[row][band][frame]`.
    pub(crate) values: Address,
    /// Address of one i64 per row: the number of stored frames of all rows before it in the batch.
    pub(crate) kept: Address,
    /// The logarithm to apply; linear if it has been computed before.
    pub(crate) log: LogParams,
    /// Address of one `Range` per row, over all frames before the logarithm. Not read without a logarithm.
    pub(crate) log_ranges: Address,
    /// Scaling after the logarithm. Its ranges are those of values before the logarithm.
    pub(crate) scale: Scale,
    /// Address of the packed bytes. Each row starts after the stored values of all previous rows.
    pub(crate) bytes: Address,
}

/// Packs the values of one feature on a device.
pub(crate) struct PackDevice<D: Device> {
    n_bands: usize,
    order: DimOrder,
    packing: Packing,
    faults: RowWords<D>,
    /// Parameters of the last run, for [`PackDevice::error`].
    params: Option<PackParams>,
    value: DeviceMemory<D>,
    host: HostMemory<D>,
}

impl<D: Device> PackDevice<D> {
    /// Creates the packing of a feature. `n_bands` includes deltas.
    pub(crate) fn new(n_bands: usize, order: DimOrder, packing: Packing) -> Self {
        Self {
            n_bands,
            order,
            packing,
            faults: RowWords::default(),
            params: None,
            value: DeviceMemory::default(),
            host: HostMemory::default(),
        }
    }

    /// Packs the values of a batch. After waiting for the device, check [`PackDevice::faults`].
    pub(crate) fn run(
        &mut self,
        device: &D,
        rows: &RowTable,
        input: &PackInput,
    ) -> Result<(), KernelError> {
        let faults = self.faults.start(device, rows.n_rows)?;
        let params = self.params(rows, input, faults);
        self.params = Some(params);

        let launch = Launch {
            grid: [rows.n_rows as u32, blocks(rows.n_frames_max, TILE)],
            threads: THREADS,
            shared_bytes: SHARED_BYTES,
        };
        device.launch("pack", launch, &params)?;
        self.faults.fetch(device)
    }

    fn params(&self, rows: &RowTable, input: &PackInput, faults: Address) -> PackParams {
        let bounds = Bounds::from_packing(self.packing);
        let (low, per_unit) = match self.packing {
            // There are 255 steps from `low` to `high`.
            Packing::U8 { low, high } => (low, 255.0 / (high - low)),
            Packing::F16 | Packing::F32 => (0.0, 0.0),
        };
        let (scale, scale_ranges, spreads) = match input.scale {
            Scale::None => (0, 0, 0),
            Scale::MinMax { ranges } => (1, ranges, 0),
            Scale::MeanVar { ranges, spreads } => (2, ranges, spreads),
        };

        PackParams {
            values: input.values,
            rows: rows.address,
            kept: input.kept,
            log_ranges: input.log_ranges,
            scale_ranges,
            spreads,
            bytes: input.bytes,
            faults,
            log: input.log,
            n_bands: self.n_bands as i32,
            is_frame_first: i32::from(self.order == DimOrder::FrameBand),
            scale,
            dtype: match self.packing {
                Packing::F16 => 0,
                Packing::F32 => 1,
                Packing::U8 { .. } => 2,
            },
            below: bounds.below,
            above: bounds.above,
            low,
            per_unit,
        }
    }

    /// Returns for each row of the last run the index, in the row, of its first value that the type cannot represent.
    pub(crate) fn faults(&self) -> impl Iterator<Item = Option<usize>> {
        self.faults
            .words()
            // The kernel takes the maximum of inverted indices, which is the first index. A word of 0 means no fault.
            .map(|word| (word != 0).then_some(!word as usize))
    }

    /// Returns the error for value `index` of a row. Waits for the device, which must still have the last run's input.
    pub(crate) fn error(
        &mut self,
        device: &D,
        row: usize,
        index: usize,
    ) -> Result<KernelError, KernelError> {
        // The values on the device are not scaled yet, so a kernel computes again the value that should have been
        // stored.
        let mut value = f32::NAN;
        if let Some(pack) = self.params {
            let buffer = self.value.ensure(device, size_of::<f32>())?;
            let params = PackedValue {
                value: device.address(buffer),
                pack,
                row: row as i32,
                place: index as u32,
            };
            let launch = Launch {
                grid: [1, 1],
                threads: 32,
                shared_bytes: 0,
            };
            device.launch("packed_value_at", launch, &params)?;

            let host = self.host.ensure(device, size_of::<f32>())?;
            device.download(buffer, size_of::<f32>(), host)?;
            device.synchronize()?;
            if let Some(bytes) = host.as_ref().first_chunk() {
                value = f32::from_ne_bytes(*bytes);
            }
        }

        Ok(KernelError::Pack {
            index,
            value,
            dtype: self.packing.dtype(),
        })
    }
}
