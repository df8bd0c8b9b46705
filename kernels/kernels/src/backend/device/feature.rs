//! Computes a feature of a batch on a device: spectrum, bands, logarithm, cosine transform, deltas, scaling, packing.

use wavemill_options::{FeatureArgs, Normalize};

use super::Span;
use crate::db::LogParams;
use crate::delta::{self, WIDTH};
use crate::device::{Address, Device, DeviceMemory, HostMemory, RowEntry, RowTable, Table};
use crate::error::KernelError;
use crate::mfcc::MfccDevice;
use crate::normalize::{NormalizeDevice, Scale};
use crate::pack::{PackDevice, PackInput};
use crate::stft::{Batch, Ranges, Signal, SpectrumDevice};

/// Size of a `Range` in device.cuh.
const RANGE_BYTES: usize = 2 * size_of::<u32>();

/// Tables and buffers of one feature on a device.
pub(super) struct FeatureDevice<D: Device> {
    args: FeatureArgs,
    spectrum: SpectrumDevice<D>,
    log: LogParams,
    mfcc: Option<MfccDevice<D>>,
    normalize: NormalizeDevice<D>,
    pack: PackDevice<D>,
    rows: Table<D>,
    /// For each row, the number of stored frames of all rows before it.
    kept: Table<D>,
    /// Number of computed frames of all rows of the batch.
    n_frames: usize,
    /// Offset of each row's packed bytes in the host buffer, followed by the end of the last row.
    packed_at: Vec<usize>,
    packed: DeviceMemory<D>,
    host: HostMemory<D>,
    /// For each row of the last batch, the error of a value that the stored type cannot represent, if any.
    faults: Vec<Option<KernelError>>,
    /// Value ranges of all rows over all frames, followed by those over the stored frames.
    ranges: DeviceMemory<D>,
    bands: DeviceMemory<D>,
    coefficients: DeviceMemory<D>,
    derived: DeviceMemory<D>,
}

/// Values of all rows, with the logarithm and the scaling that are applied during packing.
struct FeatureValues {
    values: Address,
    log: LogParams,
    /// Value ranges before the logarithm; not read if `log` is linear.
    log_ranges: Address,
    scale: Scale,
}

impl<D: Device> FeatureDevice<D> {
    pub(super) fn new(device: &D, args: &FeatureArgs) -> Result<Self, KernelError> {
        let n_mels = args.mel.as_ref().map_or(0, |mel| mel.n_mels);
        let mfcc = args
            .mfcc
            .as_ref()
            .map(|mfcc| MfccDevice::new(device, mfcc, n_mels))
            .transpose()?;

        Ok(Self {
            spectrum: SpectrumDevice::new(device, args)?,
            log: LogParams::new(args.log, args.power),
            mfcc,
            normalize: NormalizeDevice::new(args.normalize),
            pack: PackDevice::new(args.n_bands(), args.dim_order, args.packing()?),
            rows: Table::default(),
            kept: Table::default(),
            n_frames: 0,
            packed_at: Vec::new(),
            packed: DeviceMemory::default(),
            host: HostMemory::default(),
            faults: Vec::new(),
            ranges: DeviceMemory::default(),
            bands: DeviceMemory::default(),
            coefficients: DeviceMemory::default(),
            derived: DeviceMemory::default(),
            args: args.clone(),
        })
    }

    /// Returns the number of frames of a row of `len` samples if there are too few frames for deltas, otherwise `None`.
    pub(super) fn too_few_frames(&self, len: usize) -> Option<usize> {
        let n_signal = Signal::len_of(len, &self.args.stft, self.args.frames);
        let n_frames = self.args.stft.n_frames(n_signal);
        (self.args.delta > 0 && (1..WIDTH).contains(&n_frames)).then_some(n_frames)
    }

    /// Queues all work from the samples to the copy of the packed rows to the host.
    pub(super) fn run(
        &mut self,
        device: &D,
        pcm: Address,
        spans: &[Span],
    ) -> Result<(), KernelError> {
        let rows = self.send_rows(device, spans)?;

        let n_spectrum = self.args.n_spectrum_bands();
        let bands_bytes = self.bytes_of_bands(n_spectrum);
        let bands = self.bands.address(device, bands_bytes)?;
        let ranges = self.zero_ranges(device, rows.n_rows)?;
        let batch = Batch {
            pcm,
            rows,
            n_frames: self.n_frames,
            out: bands,
        };
        self.spectrum.run(device, &batch, ranges)?;

        if self.is_plain() {
            // The logarithm is monotone, so its range follows from that of the bands, and packing can apply it.
            let scale = if self.args.normalize == Normalize::MinMax {
                Scale::MinMax {
                    ranges: ranges.kept,
                }
            } else {
                Scale::None
            };
            let feature = FeatureValues {
                values: bands,
                log: self.log,
                log_ranges: ranges.all,
                scale,
            };
            return self.finish(device, &rows, feature);
        }

        // Cosine transform and deltas need the logarithms themselves, so logarithms are computed in a separate pass.
        self.log.run(device, &rows, n_spectrum, bands, ranges.all)?;
        // From here on, each step writes a new buffer, and `values` is the address of the latest one.
        let mut values = bands;

        let n_base = self.args.n_base_bands();
        let base_bytes = self.bytes_of_bands(n_base);
        if let Some(mfcc) = &mut self.mfcc {
            values = self.coefficients.address(device, base_bytes)?;
            mfcc.run(device, &rows, bands, values)?;
        }

        let n_bands = self.args.n_bands();
        let all_bytes = self.bytes_of_bands(n_bands);
        if self.args.delta > 0 {
            let derived = self.derived.address(device, all_bytes)?;
            let derivatives = delta::device::Bands {
                n_base,
                orders: self.args.delta,
            };
            delta::device::run(device, &rows, derivatives, values, derived)?;
            values = derived;
        }

        let scale = self.normalize.run(device, &rows, n_bands, values)?;
        let feature = FeatureValues {
            values,
            log: LogParams::LINEAR,
            log_ranges: 0,
            scale,
        };
        self.finish(device, &rows, feature)
    }

    /// Packs the values and copies the bytes to the host.
    fn finish(
        &mut self,
        device: &D,
        rows: &RowTable,
        feature: FeatureValues,
    ) -> Result<(), KernelError> {
        let n_bytes = self.packed_at.last().copied().unwrap_or(0);
        let bytes = self.packed.address(device, n_bytes)?;
        let kept = self.kept.address(device)?;
        let input = PackInput {
            values: feature.values,
            kept,
            log: feature.log,
            log_ranges: feature.log_ranges,
            scale: feature.scale,
            bytes,
        };
        self.pack.run(device, rows, &input)?;

        // The copy runs after the kernel, because both are on the same stream.
        let host = self.host.ensure(device, n_bytes)?;
        device.download(self.packed.ensure(device, n_bytes)?, n_bytes, host)
    }

    /// Determines which rows have values that their type cannot represent. Call after the device has been synchronized.
    pub(super) fn find_faults(&mut self, device: &D) -> Result<(), KernelError> {
        let places: Vec<Option<usize>> = self.pack.faults().collect();
        self.faults.clear();
        // Getting the value of a fault takes a launch and a wait, which is acceptable because faults are rare.
        for (row, place) in places.into_iter().enumerate() {
            let fault = place
                .map(|index| self.pack.error(device, row, index))
                .transpose()?;
            self.faults.push(fault);
        }
        Ok(())
    }

    /// Removes and returns the fault of a row that [`Self::find_faults`] has found.
    pub(super) fn take_fault(&mut self, row: usize) -> Option<KernelError> {
        self.faults.get_mut(row).and_then(Option::take)
    }

    /// Returns a row's packed bytes. Call after the device has been synchronized.
    pub(super) fn tensor(&self, row: usize) -> &[u8] {
        &self.host.bytes()[self.packed_at[row]..self.packed_at[row + 1]]
    }

    /// Returns the size in bytes of `n_bands` f32 bands of all frames.
    fn bytes_of_bands(&self, n_bands: usize) -> usize {
        n_bands * self.n_frames * size_of::<f32>()
    }

    /// Reports whether only a logarithm and a monotone scaling are applied between the bands and packing.
    fn is_plain(&self) -> bool {
        self.mfcc.is_none() && self.args.delta == 0 && self.args.normalize != Normalize::MeanVar
    }

    /// Assigns frames and packed bytes to every row and sends the row tables to the device.
    fn send_rows(&mut self, device: &D, spans: &[Span]) -> Result<RowTable, KernelError> {
        let frame_bytes = self.args.n_bands() * self.args.dtype.bytes();
        let mut entries = Vec::with_capacity(spans.len());
        let mut kept_before = Vec::with_capacity(spans.len());
        let mut frame = 0;
        let mut n_kept = 0;
        let mut n_frames_max = 0;
        self.packed_at.clear();
        self.packed_at.push(0);

        // The frames of all rows are contiguous, and so are their packed bytes.
        for span in spans {
            let entry = self.entry(*span, frame)?;
            frame += entry.n_frames as usize;
            n_frames_max = n_frames_max.max(entry.n_frames as usize);

            kept_before.push(n_kept);
            n_kept += i64::from(entry.n_kept);
            self.packed_at.push(n_kept as usize * frame_bytes);
            entries.push(entry);
        }
        count("frames of a batch", frame)?;
        self.n_frames = frame;

        let n_pcm_max = spans.iter().map(|span| span.n_pcm).max().unwrap_or(0);
        self.kept.send(device, &kept_before)?;
        let address = self.rows.send(device, &entries)?;
        Ok(RowTable {
            address,
            n_rows: spans.len(),
            n_pcm_max,
            n_frames_max,
        })
    }

    /// Creates the table entry of a row; all rows before it have `frame` frames.
    fn entry(&self, span: Span, frame: usize) -> Result<RowEntry, KernelError> {
        let n_signal = Signal::len_of(span.len, &self.args.stft, self.args.frames);
        // A row with an error gets 0 frames, so that kernels skip it.
        let n_frames = match self.too_few_frames(span.len) {
            Some(_) => 0,
            None => self.args.stft.n_frames(n_signal),
        };
        let n_kept = self.args.frames.unwrap_or(n_frames).min(n_frames);

        Ok(RowEntry {
            pcm: span.pcm as i64,
            frame: frame as i64,
            // Samples that are cut off before framing are never read, because `n_signal` ends before them.
            n_pcm: count("samples of a row", span.n_pcm.min(n_signal))?,
            n_signal: count("samples of a row", n_signal)?,
            n_frames: count("frames of a row", n_frames)?,
            n_kept: count("frames of a row", n_kept)?,
        })
    }

    /// Frees the memory whose size depends on the clips.
    pub(super) fn forget_scratch(&mut self) {
        self.packed = DeviceMemory::default();
        self.host = HostMemory::default();
        self.bands = DeviceMemory::default();
        self.coefficients = DeviceMemory::default();
        self.derived = DeviceMemory::default();
    }

    fn zero_ranges(&mut self, device: &D, n_rows: usize) -> Result<Ranges, KernelError> {
        let bytes = 2 * n_rows * RANGE_BYTES;
        // Kernels raise the integer keys of a range's limits. Keys start at 0, which is below the key of every float.
        let buffer = self.ranges.ensure(device, bytes)?;
        device.zero(buffer, bytes)?;

        let all = device.address(buffer);
        Ok(Ranges {
            all,
            kept: all + (n_rows * RANGE_BYTES) as Address,
        })
    }
}

/// Converts a count to 32 bits, as kernels require. Errors: [`KernelError::TooLarge`].
pub(super) fn count(what: &'static str, n: usize) -> Result<i32, KernelError> {
    i32::try_from(n).map_err(|_| KernelError::TooLarge(format!("{n} {what}: at most {}", i32::MAX)))
}
