//! One feature of a batch: spectrum, bands, logarithm, cosine transform, deltas, scaling, packing.

use super::Span;
use crate::args::FeatureArgs;
use crate::db::LogParams;
use crate::delta::{self, WIDTH};
use crate::device::{Address, Device, Grown, GrownHost, RowEntry, RowTable, Table};
use crate::error::KernelError;
use crate::mfcc::MfccDevice;
use crate::normalize::{Normalize, NormalizeDevice, Scale};
use crate::pack::{PackDevice, PackInput};
use crate::stft::{Batch, Ranges, Signal, SpectrumDevice};

/// Bytes of a `Range` in device.cuh.
const RANGE_BYTES: usize = 2 * size_of::<u32>();

/// Tables and buffers of one feature.
pub(super) struct FeatureDevice<D: Device> {
    args: FeatureArgs,
    spectrum: SpectrumDevice<D>,
    log: LogParams,
    mfcc: Option<MfccDevice<D>>,
    normalize: NormalizeDevice<D>,
    pack: PackDevice<D>,
    rows: Table<D>,
    /// Stored frames before each row.
    kept: Table<D>,
    /// Frames of all rows of the batch.
    n_frames: usize,
    /// Where each row's packed bytes begin, and where the last ones end.
    packed_at: Vec<usize>,
    packed: Grown<D>,
    host: GrownHost<D>,
    /// One a row, of the last batch.
    faults: Vec<Option<KernelError>>,
    /// Of all frames and of those that are stored, one behind the other.
    ranges: Grown<D>,
    bands: Grown<D>,
    coefficients: Grown<D>,
    derived: Grown<D>,
}

impl<D: Device> FeatureDevice<D> {
    pub(super) fn new(device: &D, args: &FeatureArgs) -> Result<Self, KernelError> {
        let n_mels = args.mel.as_ref().map_or(0, |mel| mel.n_mels);
        let mfcc = args.mfcc.as_ref().map(|mfcc| MfccDevice::new(device, mfcc, n_mels)).transpose()?;
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
            packed: Grown::default(),
            host: GrownHost::default(),
            faults: Vec::new(),
            ranges: Grown::default(),
            bands: Grown::default(),
            coefficients: Grown::default(),
            derived: Grown::default(),
            args: args.clone(),
        })
    }

    /// The frames of a row of `len` samples, if deltas need more.
    pub(super) fn too_few_frames(&self, len: usize) -> Option<usize> {
        let n_frames = self.args.stft.n_frames(Signal::len_of(len, &self.args.stft, self.args.frames));
        (self.args.delta > 0 && (1..WIDTH).contains(&n_frames)).then_some(n_frames)
    }

    /// Queues everything up to the copy of the packed rows to the host.
    pub(super) fn run(&mut self, device: &D, pcm: Address, spans: &[Span]) -> Result<(), KernelError> {
        let rows = self.send_rows(device, spans)?;
        let n_values = |bands: usize| bands * self.n_frames * size_of::<f32>();
        let (n_bands, n_base) = (self.n_spectrum_bands(), self.args.n_base_bands());
        let (bands_bytes, base_bytes, all_bytes) = (n_values(n_bands), n_values(n_base), n_values(self.args.n_bands()));
        let bands = self.bands.address(device, bands_bytes)?;
        let ranges = self.zero_ranges(device, rows.n_rows)?;
        let batch = Batch { pcm, rows, n_frames: self.n_frames, out: bands };
        self.spectrum.run(device, &batch, ranges)?;
        if self.is_plain() {
            // The logarithm is monotone: its range follows from the bands', and packing takes it on the way.
            let min_max = Scale::MinMax { ranges: ranges.kept };
            let scale = if self.args.normalize == Normalize::MinMax { min_max } else { Scale::None };
            return self.finish(device, &rows, (bands, self.log, ranges.all), scale);
        }
        self.log.run(device, &rows, n_bands, bands, ranges.all)?;
        let mut values = bands;
        if let Some(mfcc) = &mut self.mfcc {
            values = self.coefficients.address(device, base_bytes)?;
            mfcc.run(device, &rows, bands, values)?;
        }
        if self.args.delta > 0 {
            let derived = self.derived.address(device, all_bytes)?;
            let bands = delta::device::Bands { n_base, orders: self.args.delta };
            delta::device::run(device, &rows, bands, values, derived)?;
            values = derived;
        }
        let scale = self.normalize.run(device, &rows, self.args.n_bands(), values)?;
        self.finish(device, &rows, (values, LogParams::LINEAR, 0), scale)
    }

    /// Packs, and brings the bytes back.
    fn finish(
        &mut self,
        device: &D,
        rows: &RowTable,
        (values, log, log_ranges): (Address, LogParams, Address),
        scale: Scale,
    ) -> Result<(), KernelError> {
        let n_bytes = self.packed_at.last().copied().unwrap_or(0);
        let bytes = self.packed.address(device, n_bytes)?;
        let kept = self.kept.address(device)?;
        self.pack.run(device, rows, &PackInput { values, kept, log, log_ranges, scale, bytes })?;
        let host = self.host.ensure(device, n_bytes)?;
        device.download(self.packed.ensure(device, n_bytes)?, n_bytes, host)
    }

    /// Asks, once the device was waited for, which rows have values that their type cannot hold.
    pub(super) fn find_faults(&mut self, device: &D) -> Result<(), KernelError> {
        let places: Vec<Option<usize>> = self.pack.faults().collect();
        self.faults.clear();
        for (row, place) in places.into_iter().enumerate() {
            let fault = place.map(|index| self.pack.error(device, row, index)).transpose()?;
            self.faults.push(fault);
        }
        Ok(())
    }

    /// Takes such a fault of a row.
    pub(super) fn take_fault(&mut self, row: usize) -> Option<KernelError> {
        self.faults.get_mut(row).and_then(Option::take)
    }

    /// A row's packed bytes, once the device was waited for.
    pub(super) fn tensor(&self, row: usize) -> &[u8] {
        &self.host.bytes()[self.packed_at[row]..self.packed_at[row + 1]]
    }

    /// Bands (or bins) that the spectrum is turned into first.
    fn n_spectrum_bands(&self) -> usize {
        self.args.mel.as_ref().map_or(self.args.stft.n_bins(), |mel| mel.n_mels)
    }

    /// Nothing between the bands and packing but a logarithm and a scaling that keep the order of values.
    fn is_plain(&self) -> bool {
        self.mfcc.is_none() && self.args.delta == 0 && self.args.normalize != Normalize::MeanVar
    }

    fn send_rows(&mut self, device: &D, spans: &[Span]) -> Result<RowTable, KernelError> {
        let (mut entries, mut kept) = (Vec::with_capacity(spans.len()), Vec::with_capacity(spans.len()));
        let (mut frame, mut n_frames_max, mut n_kept) = (0, 0, 0);
        self.packed_at.clear();
        self.packed_at.push(0);
        for span in spans {
            let entry = self.entry(*span, frame)?;
            kept.push(n_kept);
            n_kept += i64::from(entry.n_kept);
            self.packed_at.push(n_kept as usize * self.args.n_bands() * self.args.dtype.bytes());
            n_frames_max = n_frames_max.max(entry.n_frames as usize);
            frame += entry.n_frames as usize;
            entries.push(entry);
        }
        count("frames of a batch", frame)?;
        self.n_frames = frame;
        let n_pcm_max = spans.iter().map(|span| span.n_pcm).max().unwrap_or(0);
        self.kept.send(device, &kept)?;
        let address = self.rows.send(device, &entries)?;
        Ok(RowTable { address, n_rows: spans.len(), n_pcm_max, n_frames_max })
    }

    /// A row with `frame` frames before it.
    fn entry(&self, span: Span, frame: usize) -> Result<RowEntry, KernelError> {
        let n_signal = Signal::len_of(span.len, &self.args.stft, self.args.frames);
        let too_few = self.too_few_frames(span.len).is_some();
        let n_frames = if too_few { 0 } else { self.args.stft.n_frames(n_signal) };
        Ok(RowEntry {
            pcm: span.pcm as i64,
            frame: frame as i64,
            // What lies behind a cut is not seen, since `n_signal` ends there.
            n_pcm: count("samples of a row", span.n_pcm.min(n_signal))?,
            n_signal: count("samples of a row", n_signal)?,
            n_frames: count("frames of a row", n_frames)?,
            n_kept: count("frames of a row", self.args.frames.unwrap_or(n_frames).min(n_frames))?,
        })
    }

    fn zero_ranges(&mut self, device: &D, n_rows: usize) -> Result<Ranges, KernelError> {
        let bytes = 2 * n_rows * RANGE_BYTES;
        let buffer = self.ranges.ensure(device, bytes)?;
        device.zero(buffer, bytes)?;
        let all = device.address(buffer);
        Ok(Ranges { all, kept: all + (n_rows * RANGE_BYTES) as Address })
    }
}

/// Kernels count in 32 bits.
pub(super) fn count(key: &'static str, n: usize) -> Result<i32, KernelError> {
    i32::try_from(n).map_err(|_| KernelError::argument(key, n, format!("at most {}", i32::MAX)))
}
