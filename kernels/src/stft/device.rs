//! Host side of the spectrum on a device: which of two ways a feature takes, its tables and launches.
//!
//! Fused: one kernel from samples to mel bands, for lengths of 2^8 to 2^12 in single precision. Transformed: frames are
//! written out, transformed by the device's FFT library in chunks of one fixed size, and read again as bands; any length,
//! any precision.

use std::f64::consts::PI;

use super::{Framing, PadMode, StftArgs};
use crate::args::FeatureArgs;
use crate::device::{Address, Device, Grown, Launch, RowTable, Table, plain};
use crate::error::KernelError;
use crate::mel::BandTables;

/// Frames of a fused tile where they fit: a band's row of the tile is then one 32-byte sector.
const TILE_FRAMES: usize = 8;
/// Threads of a fused block at least; shorter transforms go side by side.
const FUSED_THREADS: usize = 256;
/// Shared memory that every architecture grants without asking.
const SHARED_BYTES: usize = 48 * 1024;
/// Most blocks along y.
const GRID_Y_MAX: usize = 65_535;

plain! {
    /// `Framing` in frames.cu.
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
    fn new(args: &StftArgs) -> Self {
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
    struct FusedMel {
        pcm: Address,
        rows: Address,
        window: Address,
        twiddles: Address,
        bands: Address,
        weights: Address,
        out: Address,
        ranges: Address,
        kept: Address,
        n_rows: i32,
        n_mels: i32,
        tile_frames: i32,
        group_threads: i32,
        exponent: f32,
        reserved: i32,
        framing: FramingParams,
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
        reserved: i32,
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
        n_bins: i32,
        n_bands: i32,
        exponent: f32,
        reserved: i32,
    }
}

/// What a batch's spectra are made of, and where they go.
#[derive(Clone, Copy)]
pub(crate) struct Batch {
    /// Mono samples of all clips.
    pub pcm: Address,
    /// Where the rows lie in them.
    pub rows: RowTable,
    /// Frames of all rows.
    pub n_frames: usize,
    /// `[row][band][frame]` f32.
    pub out: Address,
}

/// The ranges of each row: over all frames, and over those that are stored; both zeroed before.
#[derive(Clone, Copy)]
pub(crate) struct Ranges {
    /// Over all frames.
    pub all: Address,
    /// Over those that are stored.
    pub kept: Address,
}

/// Tables and buffers of one feature's spectrum.
pub(crate) enum SpectrumDevice<D: Device> {
    /// From samples to bands in one kernel.
    Fused(Fused<D>),
    /// Through the FFT library.
    Transformed(Transformed<D>),
}

impl<D: Device> SpectrumDevice<D> {
    /// The way that fits.
    pub(crate) fn new(device: &D, args: &FeatureArgs) -> Result<Self, KernelError> {
        match (FusedShape::of(args), BandTables::new(device, args)?) {
            (Some(shape), Some(bands)) => Ok(Self::Fused(Fused::new(device, args, shape, bands)?)),
            (_, bands) => Ok(Self::Transformed(Transformed::new(device, args, bands)?)),
        }
    }

    /// Bands (or bins) of every row, and their ranges.
    pub(crate) fn run(&mut self, device: &D, batch: &Batch, ranges: Ranges) -> Result<(), KernelError> {
        match self {
            Self::Fused(fused) => fused.run(device, batch, ranges),
            Self::Transformed(transformed) => transformed.run(device, batch, ranges),
        }
    }
}

/// How a fused block is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
struct FusedShape {
    tile_frames: usize,
    group_threads: usize,
    threads: usize,
    shared_bytes: usize,
}

impl FusedShape {
    /// `None` where the other way must be taken: other lengths, double precision, no bands, or too many of them.
    fn of(args: &FeatureArgs) -> Option<Self> {
        let StftArgs { n_fft, hop_length, win_length, .. } = args.stft;
        let n_mels = args.mel.as_ref()?.n_mels;
        if args.is_wide() || !n_fft.is_power_of_two() || !(256..=4096).contains(&n_fft) {
            return None;
        }
        let group_threads = n_fft / 8;
        let groups = (FUSED_THREADS / group_threads).max(1);
        let shape = |tile_frames: usize| {
            let span = (tile_frames - 1) * hop_length + win_length;
            let floats = groups * (n_fft + n_fft / 2 + 1) + n_mels * tile_frames + span;
            Self { tile_frames, group_threads, threads: groups * group_threads, shared_bytes: 4 * floats }
        };
        let tiles = [TILE_FRAMES, TILE_FRAMES / 2, TILE_FRAMES / 4, 1].map(|frames| frames.max(groups));
        tiles.into_iter().map(shape).find(|shape| shape.shared_bytes <= SHARED_BYTES)
    }
}

/// Tables of the fused kernel.
pub(crate) struct Fused<D: Device> {
    shape: FusedShape,
    framing: FramingParams,
    exponent: f32,
    window: Table<D>,
    twiddles: Table<D>,
    bands: BandTables<D>,
}

impl<D: Device> Fused<D> {
    fn new(device: &D, args: &FeatureArgs, shape: FusedShape, bands: BandTables<D>) -> Result<Self, KernelError> {
        let n = args.stft.n_fft;
        let twiddle = |t: usize| {
            let angle = 2.0 * PI * t as f64 / n as f64;
            [libm::cos(angle) as f32, -libm::sin(angle) as f32]
        };
        let twiddles: Vec<f32> = (0..n).flat_map(twiddle).collect();
        Ok(Self {
            shape,
            framing: FramingParams::new(&args.stft),
            exponent: args.power as f32,
            window: window::<D, f32>(device, &args.stft, |x| x as f32)?,
            twiddles: Table::new(device, &twiddles)?,
            bands,
        })
    }

    /// Bands of every row, and their ranges.
    fn run(&mut self, device: &D, batch: &Batch, ranges: Ranges) -> Result<(), KernelError> {
        let params = FusedMel {
            pcm: batch.pcm,
            rows: batch.rows.address,
            window: self.window.address(device)?,
            twiddles: self.twiddles.address(device)?,
            bands: self.bands.bands.address(device)?,
            weights: self.bands.weights.address(device)?,
            out: batch.out,
            ranges: ranges.all,
            kept: ranges.kept,
            n_rows: batch.rows.n_rows as i32,
            n_mels: self.bands.n_mels as i32,
            tile_frames: self.shape.tile_frames as i32,
            group_threads: self.shape.group_threads as i32,
            exponent: self.exponent,
            reserved: 0,
            framing: self.framing,
        };
        let tiles = batch.rows.n_frames_max.div_ceil(self.shape.tile_frames);
        let launch = Launch {
            grid: [tiles as u32, batch.rows.n_rows.min(GRID_Y_MAX) as u32],
            threads: self.shape.threads as u32,
            shared_bytes: self.shape.shared_bytes as u32,
        };
        device.launch("fused_mel", launch, &params)
    }
}

/// Tables and buffers of the way through the FFT library.
pub(crate) struct Transformed<D: Device> {
    framing: FramingParams,
    n_bins: usize,
    n_bands: usize,
    exponent: f32,
    wide: bool,
    /// Frames of one transform call.
    chunk: usize,
    fft: D::Fft,
    window: Table<D>,
    bands: Option<BandTables<D>>,
    frames: Grown<D>,
    spectrum: Grown<D>,
}

impl<D: Device> Transformed<D> {
    fn new(device: &D, args: &FeatureArgs, bands: Option<BandTables<D>>) -> Result<Self, KernelError> {
        let (n_fft, wide) = (args.stft.n_fft, args.is_wide());
        let chunk = (D::FFT_SAMPLES / n_fft).max(1);
        let window = if wide { window(device, &args.stft, |x| x)? } else { window(device, &args.stft, |x| x as f32)? };
        Ok(Self {
            framing: FramingParams::new(&args.stft),
            n_bins: args.stft.n_bins(),
            n_bands: bands.as_ref().map_or(args.stft.n_bins(), |bands| bands.n_mels),
            exponent: args.power as f32,
            wide,
            chunk,
            fft: device.plan_fft(n_fft, chunk, wide)?,
            window,
            bands,
            frames: Grown::default(),
            spectrum: Grown::default(),
        })
    }

    /// Bands (or bins) of every row, and their ranges.
    fn run(&mut self, device: &D, batch: &Batch, ranges: Ranges) -> Result<(), KernelError> {
        let real_bytes = if self.wide { 8 } else { 4 };
        let n_fft = self.framing.n_fft as usize;
        let frames = self.frames.address(device, self.chunk * n_fft * real_bytes)?;
        let spectrum = self.spectrum.address(device, self.chunk * self.n_bins * 2 * real_bytes)?;
        for first in (0..batch.n_frames).step_by(self.chunk) {
            self.write_frames(device, batch, first, frames)?;
            if let (Some(frames), Some(spectrum)) = (self.frames.get(), self.spectrum.get()) {
                device.run_fft(&self.fft, frames, spectrum)?;
            }
            self.write_bands(device, batch, ranges, first, spectrum)?;
        }
        Ok(())
    }

    fn write_frames(&mut self, device: &D, batch: &Batch, first: usize, frames: Address) -> Result<(), KernelError> {
        let params = Frames {
            pcm: batch.pcm,
            rows: batch.rows.address,
            window: self.window.address(device)?,
            frames,
            first: first as i64,
            count: self.chunk as i32,
            n_frames: batch.n_frames as i32,
            n_rows: batch.rows.n_rows as i32,
            reserved: 0,
            framing: self.framing,
        };
        let threads = (self.framing.n_fft as u32).next_multiple_of(32).min(FUSED_THREADS as u32);
        // Scratch: a double a warp.
        let launch = Launch { grid: [self.chunk as u32, 1], threads, shared_bytes: threads / 32 * 8 };
        device.launch(if self.wide { "frames_f64" } else { "frames_f32" }, launch, &params)
    }

    fn write_bands(
        &mut self,
        device: &D,
        batch: &Batch,
        ranges: Ranges,
        first: usize,
        spectrum: Address,
    ) -> Result<(), KernelError> {
        let count = self.chunk.min(batch.n_frames - first);
        let (bands, weights) = match &mut self.bands {
            Some(tables) => (tables.bands.address(device)?, tables.weights.address(device)?),
            None => (0, 0),
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
            n_bins: self.n_bins as i32,
            n_bands: self.n_bands as i32,
            exponent: self.exponent,
            reserved: 0,
        };
        let threads = FUSED_THREADS as u32;
        let bands_a_block = threads as usize / 8;
        let grid = [count.div_ceil(8) as u32, self.n_bands.div_ceil(bands_a_block).min(GRID_Y_MAX) as u32];
        device.launch(
            if self.wide { "bands_f64" } else { "bands_f32" },
            Launch { grid, threads, shared_bytes: 0 },
            &params,
        )
    }
}

/// The window in the transform's precision.
fn window<D: Device, T: crate::device::Plain>(
    device: &D,
    args: &StftArgs,
    narrow: impl Fn(f64) -> T,
) -> Result<Table<D>, KernelError> {
    let values: Vec<T> = args.window.values(args.win_length).into_iter().map(narrow).collect();
    Table::new(device, &values)
}
