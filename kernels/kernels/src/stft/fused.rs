//! Host side of the fused kernels: supported lengths, block sizes and tables.

use std::f64::consts::PI;

use wavemill_options::{FeatureArgs, StftArgs};

use super::device::{Batch, FramingParams, GRID_Y_MAX, Ranges, window};
use crate::device::{Address, Device, Launch, Table, plain};
use crate::error::KernelError;
use crate::mel::BandTables;

/// Number of frames per tile, if shared memory permits: each band's row of the tile is then one 32-byte sector.
const TILE_FRAMES: usize = 8;
/// Minimum number of threads of a block: a block computes several short transforms in parallel.
const THREADS_MIN: usize = 256;
/// Shared memory in bytes that a kernel may use on every architecture without setting a larger limit.
const SHARED_BYTES: usize = 48 * 1024;
/// Number of twiddle factors in a cache line; rows of factors are padded to a multiple of it.
const LINE_TWIDDLES: usize = 16;

plain! {
    /// `FusedMel` in fused.cu: parameters of the kernels.
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
        weight_step: i32,
        tile_shift: i32,
        exponent: f32,
        reserved: i32,
        framing: FramingParams,
    }
}

/// Kernel, tile size and block size for a feature.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct FusedShape {
    kernel: &'static str,
    /// Number of frames per tile, a power of two.
    tile_frames: usize,
    threads: usize,
    shared_bytes: usize,
}

impl FusedShape {
    /// Returns the shape for a feature, or `None` if the FFT library must be used: for other lengths, double precision,
    /// no mel bands, or too many of them.
    pub(super) fn new(args: &FeatureArgs) -> Option<Self> {
        let n_mels = args.mel.as_ref()?.n_mels;
        if args.is_wide() {
            return None;
        }
        let kernel = kernel(args.stft.n_fft, args.power)?;

        // Each group of threads in a block transforms one frame at a time.
        let group_threads = args.stft.n_fft / 8;
        let groups = (THREADS_MIN / group_threads).max(1);

        // Neighbouring frames share most of their samples, so the largest tile that fits into shared memory is best.
        for frames in [TILE_FRAMES, TILE_FRAMES / 2, TILE_FRAMES / 4, 1] {
            let tile_frames = frames.max(groups);
            let n_floats = shared_floats(&args.stft, groups, n_mels, tile_frames);
            let shared_bytes = size_of::<f32>() * n_floats;
            if shared_bytes <= SHARED_BYTES {
                return Some(Self {
                    kernel,
                    tile_frames,
                    threads: groups * group_threads,
                    shared_bytes,
                });
            }
        }
        None
    }
}

/// Returns the name of the kernel for a transform length, if there is one.
fn kernel(n_fft: usize, power: f64) -> Option<&'static str> {
    // Other exponents need `pow`, which uses twice as many registers, so they have separate kernels.
    let is_root = power == 1.0 || power == 2.0;
    match (n_fft, is_root) {
        (256, true) => Some("fused_mel_256"),
        (512, true) => Some("fused_mel_512"),
        (1024, true) => Some("fused_mel_1024"),
        (2048, true) => Some("fused_mel_2048"),
        (4096, true) => Some("fused_mel_4096"),
        (256, false) => Some("fused_mel_256_pow"),
        (512, false) => Some("fused_mel_512_pow"),
        (1024, false) => Some("fused_mel_1024_pow"),
        (2048, false) => Some("fused_mel_2048_pow"),
        (4096, false) => Some("fused_mel_4096_pow"),
        _ => None,
    }
}

/// Returns the size of the shared memory that `fused_shared` in fused.cu divides, for `groups` frames at once.
fn shared_floats(stft: &StftArgs, groups: usize, n_mels: usize, tile_frames: usize) -> usize {
    let work = groups * stft.n_fft;
    // One more sample if the number is odd, because samples are read in pairs.
    let samples = ((tile_frames - 1) * stft.hop_length + stft.win_length + 1).next_multiple_of(2);
    let power = groups * (stft.n_fft / 2 + 1);
    let tile = n_mels * (tile_frames | 1);
    work + samples + power + tile
}

/// Tables for the fused kernels on a device.
pub(crate) struct FusedSpectrum<D: Device> {
    shape: FusedShape,
    framing: FramingParams,
    exponent: f32,
    window: Table<D>,
    twiddles: Table<D>,
    bands: BandTables<D>,
}

impl<D: Device> FusedSpectrum<D> {
    pub(super) fn new(
        device: &D,
        args: &FeatureArgs,
        shape: FusedShape,
        bands: BandTables<D>,
    ) -> Result<Self, KernelError> {
        let n_fft = args.stft.n_fft;
        let twiddles: Vec<f32> = twiddle_steps(n_fft)
            .into_iter()
            .flat_map(|step| twiddle(step, n_fft))
            .collect();

        Ok(Self {
            shape,
            framing: FramingParams::new(&args.stft),
            exponent: args.power as f32,
            window: window::<D, f32>(device, &args.stft, |x| x as f32)?,
            twiddles: Table::new(device, &twiddles)?,
            bands,
        })
    }

    /// Computes mel bands of every row, and their value ranges.
    pub(super) fn run(
        &mut self,
        device: &D,
        batch: &Batch,
        ranges: Ranges,
    ) -> Result<(), KernelError> {
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
            weight_step: self.bands.weight_step as i32,
            tile_shift: self.shape.tile_frames.ilog2() as i32,
            exponent: self.exponent,
            reserved: 0,
            framing: self.framing,
        };

        let tiles = batch.rows.n_frames_max.div_ceil(self.shape.tile_frames);
        let launch = Launch {
            // Blocks along x compute the tiles of a row. Blocks along y compute rows, several each if there are more
            // rows than blocks.
            grid: [tiles as u32, batch.rows.n_rows.min(GRID_Y_MAX) as u32],
            threads: self.shape.threads as u32,
            shared_bytes: self.shape.shared_bytes as u32,
        };
        device.launch(self.shape.kernel, launch, &params)
    }
}

/// Returns `exp(-2πi step / n_fft)`.
fn twiddle(step: usize, n_fft: usize) -> [f32; 2] {
    let angle = 2.0 * PI * step as f64 / n_fft as f64;
    [libm::cos(angle) as f32, -libm::sin(angle) as f32]
}

/// Returns the steps of the twiddle factors in the order in which the kernel reads them: see `first_twiddle` in
/// fused.cu.
fn twiddle_steps(n_fft: usize) -> Vec<usize> {
    let m = n_fft / 2;
    let mut steps = Vec::new();

    // Twiddle factors for the stages of radix 4, starting with the second stage.
    let mut done = 4;
    while done * 4 <= m {
        for r in 1..4 {
            let row = (0..done).map(|k| r * 2 * k * (m / (done * 4)));
            steps.extend(row);
            // Every row of twiddle factors begins with a new cache line.
            steps.resize(steps.len().next_multiple_of(LINE_TWIDDLES), 0);
        }
        done *= 4;
    }

    // Twiddle factors for a stage of radix 2, if the length requires one.
    if done < m {
        steps.extend((0..done).map(|k| 2 * k));
    }

    // Twiddle factors that separate the spectra of even and odd samples.
    steps.extend(0..=m / 2);
    steps
}
