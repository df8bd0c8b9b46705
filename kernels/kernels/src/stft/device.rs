//! Host side of the spectrum on a device: selects one of two methods, and contains its tables and launches.
//!
//! Fused: one kernel from samples to mel bands, for lengths of 2^8 to 2^12 in single precision. FFT library: frames are
//! written to memory, transformed by the device's FFT library in chunks of one fixed size, and read again to compute
//! bands; for any length and precision.

use wavemill_options::{FeatureArgs, Framing, PadMode, StftArgs};

use super::fused::{FusedShape, FusedSpectrum};
use super::window::values;
use crate::device::{
    Address, Device, DeviceMemory, Launch, RowTable, Table, plain, sample_numbers, spectrum_step,
};
use crate::error::KernelError;
use crate::mel::BandTables;

/// Number of threads per block.
const THREADS: u32 = 256;
/// CUDA's maximum number of blocks along y.
pub(super) const GRID_Y_MAX: usize = 65_535;

plain! {
    /// `Framing` in frames.cu: parameters of the kernel that writes frames.
    struct FramingParams {
        n_fft: i32,
        hop_length: i32,
        win_length: i32,
        start: i32,
        pad_mode: i32,
        remove_dc: i32,
        scale: f32,
        preemphasis: f32,
    }
}

impl FramingParams {
    pub(super) fn new(args: &StftArgs) -> Self {
        let pad_mode = match args.framing {
            Framing::Center(PadMode::Reflect) => 1,
            Framing::Center(PadMode::Edge) => 2,
            Framing::Center(PadMode::Constant) | Framing::Inside | Framing::SnipEdges => 0,
        };
        Self {
            n_fft: args.n_fft as i32,
            hop_length: args.hop_length as i32,
            win_length: args.win_length as i32,
            start: args.window_start(0) as i32,
            pad_mode,
            remove_dc: i32::from(args.remove_dc),
            scale: args.scale as f32,
            preemphasis: args.preemphasis as f32,
        }
    }
}

plain! {
    struct Frames {
        pcm: Address,
        rows: Address,
        window: Address,
        frames: Address,
        first: i64,
        count: i32,
        n_frames: i32,
        n_rows: i32,
        sample_numbers: i32,
        framing: FramingParams,
    }
}

plain! {
    struct Bands {
        spectrum: Address,
        rows: Address,
        bands: Address,
        weights: Address,
        out: Address,
        ranges: Address,
        kept: Address,
        first: i64,
        count: i32,
        n_rows: i32,
        spectrum_step: i32,
        n_bands: i32,
        exponent: f32,
        weight_step: i32,
    }
}

/// Addresses of input and output for computing a batch's spectra.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    /// Address of the mono samples of all clips.
    pub pcm: Address,
    /// Table with the positions of the rows in `pcm`.
    pub rows: RowTable,
    /// Number of frames of all rows.
    pub n_frames: usize,
    /// Address of the output, `[row][band][frame]` in f32.
    pub out: Address,
}

/// Addresses of the value ranges of each row; the memory must be zeroed before.
#[derive(Clone, Copy)]
pub(crate) struct Ranges {
    /// Address of the ranges over all frames of each row.
    pub all: Address,
    /// Address of the ranges over the stored frames of each row.
    pub kept: Address,
}

/// Tables and buffers of one feature's spectrum.
pub(crate) enum SpectrumDevice<D: Device> {
    /// One kernel computes bands from samples.
    Fused(FusedSpectrum<D>),
    /// The FFT library computes transforms.
    Fft(FftSpectrum<D>),
}

impl<D: Device> SpectrumDevice<D> {
    /// Selects the fused method if it supports the feature, otherwise the FFT library, and creates tables and buffers.
    pub(crate) fn new(device: &D, args: &FeatureArgs) -> Result<Self, KernelError> {
        match (FusedShape::new(args), BandTables::new(device, args)?) {
            (Some(shape), Some(bands)) => {
                Ok(Self::Fused(FusedSpectrum::new(device, args, shape, bands)?))
            }
            (_, bands) => Ok(Self::Fft(FftSpectrum::new(device, args, bands)?)),
        }
    }

    /// Computes bands (or bins) of every row, and their ranges.
    pub(crate) fn run(
        &mut self,
        device: &D,
        batch: &Batch,
        ranges: Ranges,
    ) -> Result<(), KernelError> {
        match self {
            Self::Fused(fused) => fused.run(device, batch, ranges),
            Self::Fft(fft) => fft.run(device, batch, ranges),
        }
    }
}

/// Tables and buffers of the method that uses the FFT library.
pub(crate) struct FftSpectrum<D: Device> {
    framing: FramingParams,
    n_bands: usize,
    exponent: f32,
    wide: bool,
    /// Number of frames per transform call.
    chunk: usize,
    fft: D::Fft,
    window: Table<D>,
    bands: Option<BandTables<D>>,
    frames: DeviceMemory<D>,
    spectrum: DeviceMemory<D>,
}

impl<D: Device> FftSpectrum<D> {
    fn new(
        device: &D,
        args: &FeatureArgs,
        bands: Option<BandTables<D>>,
    ) -> Result<Self, KernelError> {
        let n_fft = args.stft.n_fft;
        let wide = args.is_wide();
        // All calls have the same size. Otherwise the library's bits could depend on the batch.
        let chunk = (D::FFT_SAMPLES / n_fft).max(1);
        let window = if wide {
            window(device, &args.stft, |x| x)?
        } else {
            window(device, &args.stft, |x| x as f32)?
        };

        let n_bins = args.stft.n_bins();
        let n_bands = bands.as_ref().map_or(n_bins, |bands| bands.n_mels);
        Ok(Self {
            framing: FramingParams::new(&args.stft),
            n_bands,
            exponent: args.power as f32,
            wide,
            chunk,
            fft: device.plan_fft(n_fft, chunk, wide)?,
            window,
            bands,
            frames: DeviceMemory::default(),
            spectrum: DeviceMemory::default(),
        })
    }

    /// Computes bands (or bins) of every row, and their ranges.
    fn run(&mut self, device: &D, batch: &Batch, ranges: Ranges) -> Result<(), KernelError> {
        let real_bytes = if self.wide { 8 } else { 4 };
        let n_fft = self.framing.n_fft as usize;
        let frames = self.frames.address(
            device,
            self.chunk * n_fft * sample_numbers(n_fft) * real_bytes,
        )?;
        let spectrum = self
            .spectrum
            .address(device, self.chunk * spectrum_step(n_fft) * 2 * real_bytes)?;

        for first in (0..batch.n_frames).step_by(self.chunk) {
            self.write_frames(device, batch, first, frames)?;
            // Both buffers exist, because their addresses were taken above.
            if let (Some(frames), Some(spectrum)) = (self.frames.get(), self.spectrum.get()) {
                device.run_fft(&self.fft, frames, spectrum)?;
            }
            self.write_bands(device, batch, ranges, first, spectrum)?;
        }
        Ok(())
    }

    fn write_frames(
        &mut self,
        device: &D,
        batch: &Batch,
        first: usize,
        frames: Address,
    ) -> Result<(), KernelError> {
        let params = Frames {
            pcm: batch.pcm,
            rows: batch.rows.address,
            window: self.window.address(device)?,
            frames,
            first: first as i64,
            count: self.chunk as i32,
            // The kernel writes zeros for frames after the last one, because a transform call takes a whole chunk.
            n_frames: batch.n_frames as i32,
            n_rows: batch.rows.n_rows as i32,
            sample_numbers: sample_numbers(self.framing.n_fft as usize) as i32,
            framing: self.framing,
        };

        let threads = (self.framing.n_fft as u32)
            .next_multiple_of(32)
            .min(THREADS);
        // Shared memory for one double per warp.
        let launch = Launch {
            grid: [self.chunk as u32, 1],
            threads,
            shared_bytes: threads / 32 * 8,
        };
        let kernel = if self.wide {
            "frames_f64"
        } else {
            "frames_f32"
        };
        device.launch(kernel, launch, &params)
    }

    fn write_bands(
        &mut self,
        device: &D,
        batch: &Batch,
        ranges: Ranges,
        first: usize,
        spectrum: Address,
    ) -> Result<(), KernelError> {
        // The last chunk is transformed as a whole, but only part of it contains frames.
        let count = self.chunk.min(batch.n_frames - first);
        let (bands, weights, weight_step) = match &mut self.bands {
            Some(tables) => (
                tables.bands.address(device)?,
                tables.weights.address(device)?,
                tables.weight_step,
            ),
            None => (0, 0, 0),
        };

        let params = Bands {
            spectrum,
            rows: batch.rows.address,
            bands,
            weights,
            out: batch.out,
            ranges: ranges.all,
            kept: ranges.kept,
            first: first as i64,
            count: count as i32,
            n_rows: batch.rows.n_rows as i32,
            spectrum_step: spectrum_step(self.framing.n_fft as usize) as i32,
            n_bands: self.n_bands as i32,
            exponent: self.exponent,
            weight_step: weight_step as i32,
        };

        // A block computes eight frames. Each of its threads computes one band of one frame at a time.
        let bands_a_block = THREADS as usize / 8;
        let launch = Launch {
            grid: [
                count.div_ceil(8) as u32,
                self.n_bands.div_ceil(bands_a_block).min(GRID_Y_MAX) as u32,
            ],
            threads: THREADS,
            shared_bytes: 0,
        };
        let kernel = if self.wide { "bands_f64" } else { "bands_f32" };
        device.launch(kernel, launch, &params)
    }
}

/// Creates the window in the transform's precision. A zero follows a window of odd length, because kernels read pairs.
pub(super) fn window<D: Device, T: crate::device::Plain>(
    device: &D,
    args: &StftArgs,
    narrow: impl Fn(f64) -> T,
) -> Result<Table<D>, KernelError> {
    let mut values = values(args.window, args.win_length);
    values.resize(values.len().next_multiple_of(2), 0.0);
    let values: Vec<T> = values.into_iter().map(narrow).collect();
    Table::new(device, &values)
}
