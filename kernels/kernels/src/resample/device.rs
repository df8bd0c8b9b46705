//! Downmix and conversion to the features' rate on a device, and the peak level of each row.
//!
//! Every output sample is a sum over the filter at its own time (polyphase), with one table of taps per source rate.
//! Unlike the overlap-save method of the CPU, this needs no transform, and no sample depends on the position of its
//! clip in a batch.

use wavemill_signal::resample::Ratio;

use super::{Filter, MAX_DEVICE_HZ, ResampleArgs};
use crate::clip::{Clip, Samples};
use crate::device::{Address, Device, Launch, RowTable, RowWords, Table, blocks, bytes_of, plain};
use crate::error::KernelError;

/// Threads per block of the kernels that read each sample only once.
const THREADS: usize = 256;
/// Samples per thread of the kernels that read each sample only once, if there are enough samples.
const SAMPLES_PER_THREAD: usize = 8;
/// Output samples per thread of the resampling kernels; equal to the constant in resample.cu.
const OUTPUTS: usize = 8;
/// Shared memory, in floats, that a kernel may use on every architecture without setting a larger limit.
const SHARED_FLOATS: usize = 48 * 1024 / size_of::<f32>();
/// Size limit of a table of taps in bytes: it should fit into a level-2 cache together with the other data. Common
/// rates need less than 2 MiB; a rate that shares no large factor with the features' rate (44,101 Hz) would need 31
/// MiB.
const TABLE_BYTES_MAX: usize = 8 << 20;
/// Number of tables of taps that are kept from batch to batch: archives have two or three sample rates.
const BANKS_MAX: usize = 8;

plain! {
    /// `SourceClip` in resample.cu: table entry of a clip.
    struct SourceEntry {
        source: i64,
        out: i64,
        n_source: i32,
        n_out: i32,
        level: i32,
        reserved: i32,
    }
}

plain! {
    /// `CopyClips` in resample.cu: parameters of the kernel for equal rates.
    struct CopyClips {
        upload: Address,
        mono: Address,
        clips: Address,
        levels: Address,
    }
}

plain! {
    /// `Decimate` in resample.cu: parameters of the kernel for whole ratios.
    struct Decimate {
        upload: Address,
        mono: Address,
        clips: Address,
        taps: Address,
        down: i32,
        n_steps: i32,
        half: i32,
        stride: i32,
        levels: Address,
    }
}

plain! {
    /// `Polyphase` in resample.cu: parameters of the kernel for other ratios.
    struct Polyphase {
        upload: Address,
        mono: Address,
        clips: Address,
        taps: Address,
        up: i32,
        down: i32,
        n_taps: i32,
        half: i32,
        n_columns: i32,
        unused: i32,
        levels: Address,
    }
}

plain! {
    /// `Levels` in resample.cu: parameters of the kernel that computes peak levels of rows.
    struct Levels {
        mono: Address,
        rows: Address,
        levels: Address,
    }
}

/// Reports whether a device can convert between two sample rates. The CPU converts between others.
pub(crate) fn is_for_device(from_hz: u32, to_hz: u32) -> bool {
    from_hz == to_hz || Shape::new(ResampleArgs { from_hz, to_hz }).is_some()
}

/// A clip in the upload buffer, and its position in the mono buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceClip {
    /// Index of the clip's first byte in the upload buffer; a multiple of 8.
    pub(crate) source: usize,
    /// Index of the clip's first sample in the mono buffer, at the features' rate.
    pub(crate) out: usize,
    /// Number of samples per channel.
    pub(crate) n_source: usize,
    /// Whether samples are signed 16-bit integers instead of f32.
    pub(crate) is_s16: bool,
    /// Number of channels, 1 or 2; two channels are interleaved.
    pub(crate) channels: usize,
    /// Sample rate of the clip in Hz.
    pub(crate) sample_rate_hz: u32,
    /// Index of the row that is the whole clip, if there is one: the conversion also computes this row's peak level.
    pub(crate) level: Option<usize>,
}

impl SourceClip {
    /// Describes `clip`, which is copied to byte `source`; its conversion computes no row's peak level.
    pub(crate) fn new(clip: &Clip<'_>, source: usize, out: usize) -> Self {
        Self {
            source,
            out,
            n_source: clip.n_frames(),
            is_s16: matches!(clip.samples, Samples::S16(_)),
            channels: clip.channels,
            sample_rate_hz: clip.sample_rate_hz,
            level: None,
        }
    }

    /// Returns the sample format, which selects and orders the kernel instances.
    fn format(&self) -> Format {
        match (self.is_s16, self.channels) {
            (false, 1) => Format::F32,
            (false, _) => Format::F32Stereo,
            (true, 1) => Format::S16,
            (true, _) => Format::S16Stereo,
        }
    }

    /// Returns a sort key: one kernel launch converts all clips of equal sample rate and format with one table.
    fn conversion(&self) -> (u32, Format) {
        (self.sample_rate_hz, self.format())
    }

    /// Returns the clip's size in the upload buffer, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        let sample_bytes = if self.is_s16 {
            size_of::<i16>()
        } else {
            size_of::<f32>()
        };
        self.n_source * self.channels * sample_bytes
    }

    /// Returns the number of samples per channel after conversion to `to_hz`.
    pub(crate) fn n_out(&self, to_hz: u32) -> usize {
        ResampleArgs {
            from_hz: self.sample_rate_hz,
            to_hz,
        }
        .output_len(self.n_source as u64) as usize
    }
}

/// Sample format in the upload buffer. Every kernel that reads samples has an instance for each format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Format {
    F32,
    F32Stereo,
    S16,
    S16Stereo,
}

impl Format {
    fn copy_clips(self) -> &'static str {
        match self {
            Self::F32 => "copy_clips_f32",
            Self::F32Stereo => "copy_clips_f32_stereo",
            Self::S16 => "copy_clips_s16",
            Self::S16Stereo => "copy_clips_s16_stereo",
        }
    }

    fn decimate(self) -> &'static str {
        match self {
            Self::F32 => "decimate_f32",
            Self::F32Stereo => "decimate_f32_stereo",
            Self::S16 => "decimate_s16",
            Self::S16Stereo => "decimate_s16_stereo",
        }
    }

    fn polyphase(self) -> &'static str {
        match self {
            Self::F32 => "polyphase_f32",
            Self::F32Stereo => "polyphase_f32_stereo",
            Self::S16 => "polyphase_s16",
            Self::S16Stereo => "polyphase_s16_stereo",
        }
    }
}

/// Division of a conversion into tiles, whose taps and samples are in shared memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// The source rate is a whole multiple of the output rate.
    Decimate {
        down: usize,
        half: usize,
        n_steps: usize,
        stride: usize,
        threads: usize,
    },
    /// Any other ratio of the sample rates.
    Polyphase {
        up: usize,
        down: usize,
        half: usize,
        n_columns: usize,
        threads: usize,
    },
}

impl Shape {
    /// Returns the shape for two sample rates, or `None` if the source rate, shared memory or the table would be too
    /// large.
    fn new(args: ResampleArgs) -> Option<Self> {
        args.validate().ok()?;
        if args.from_hz > MAX_DEVICE_HZ {
            return None;
        }
        let half = Filter::new(args).half_len();
        let Ratio { down, up } = args.ratio();

        let shape = match up {
            // A whole ratio has a single phase. Use the largest block size whose tile fits.
            1 => [128, 64, 32]
                .into_iter()
                .map(|threads| Self::decimate(down, half, threads))
                .find(Self::fits),
            _ => Some(Self::polyphase(up, down, half)).filter(Self::fits),
        };
        shape.filter(|shape| shape.n_table() * size_of::<f32>() <= TABLE_BYTES_MAX)
    }

    fn decimate(down: usize, half: usize, threads: usize) -> Self {
        // The kernel processes a stream in steps of eight samples.
        let n_steps = (2 * half + 1).div_ceil(down).next_multiple_of(8);
        let n_each = threads * OUTPUTS + n_steps;

        // Streams begin in different banks, because neighbouring threads write to neighbouring streams.
        let bank = (32 / down).next_multiple_of(4) % 32;
        let stride = n_each.next_multiple_of(32) + bank;

        Self::Decimate {
            down,
            half,
            n_steps,
            stride,
            threads,
        }
    }

    /// Creates a shape with about 512 outputs per row of the tile, or one period of the phases if that is longer.
    fn polyphase(up: usize, down: usize, half: usize) -> Self {
        let mut periods = (512 / up).max(1);
        // Even a single period may need too much shared memory; `of` checks this.
        while periods > 1 && !Self::polyphase_of(up, down, half, periods).fits() {
            periods -= 1;
        }
        Self::polyphase_of(up, down, half, periods)
    }

    fn polyphase_of(up: usize, down: usize, half: usize, periods: usize) -> Self {
        let n_columns = periods * up;
        // If a row is longer than a block, each thread computes several columns, all about the same number.
        let rounds = n_columns.div_ceil(512);
        let threads = n_columns.div_ceil(rounds).next_multiple_of(32);
        Self::Polyphase {
            up,
            down,
            half,
            n_columns,
            threads,
        }
    }

    fn fits(&self) -> bool {
        self.shared_floats() <= SHARED_FLOATS
    }

    fn n_taps(half: usize) -> usize {
        // There are taps on both sides. The number is even, because the kernel processes two taps at a time.
        2 * half + 2
    }

    fn shared_floats(&self) -> usize {
        match *self {
            Self::Decimate {
                down,
                n_steps,
                stride,
                ..
            } => down * (n_steps + stride),
            Self::Polyphase {
                up,
                down,
                half,
                n_columns,
                ..
            } => OUTPUTS * (n_columns / up * down) + Self::n_taps(half),
        }
    }

    fn n_table(&self) -> usize {
        match *self {
            Self::Decimate { down, n_steps, .. } => down * n_steps,
            Self::Polyphase { up, half, .. } => up * Self::n_taps(half),
        }
    }

    /// Returns the filter's taps in the order in which the kernel reads them.
    fn table(&self, filter: &Filter) -> Vec<f32> {
        let mut taps = Vec::with_capacity(self.n_table());

        match *self {
            Self::Decimate {
                down,
                half,
                n_steps,
                ..
            } => {
                // The kernel processes one stream after another. A stream contains every `down`-th tap.
                for stream in 0..down {
                    for step in 0..n_steps {
                        let time = (down * step + stream) as f64 - half as f64;
                        taps.push(filter.at(time) as f32);
                    }
                }
            }
            Self::Polyphase { up, down, half, .. } => {
                // Neighbouring threads compute neighbouring outputs, so the taps of neighbouring outputs are adjacent.
                for tap in 0..Self::n_taps(half) {
                    for output in 0..up {
                        let phase = (output * down % up) as f64 / up as f64;
                        let time = phase + half as f64 - tap as f64;
                        taps.push(filter.at(time) as f32);
                    }
                }
            }
        }
        taps
    }
}

/// Shape and table of taps for one source rate.
struct Bank<D: Device> {
    from_hz: u32,
    shape: Shape,
    taps: Table<D>,
}

/// Converts clips of any supported sample rates to one rate.
pub(crate) struct ResampleDevice<D: Device> {
    to_hz: u32,
    banks: Vec<Bank<D>>,
    clips: Table<D>,
}

/// Device addresses of input and output of a conversion.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClipBuffers {
    /// Clips as decoded, one after another.
    pub(crate) upload: Address,
    /// Mono f32 samples at the features' rate.
    pub(crate) mono: Address,
    /// Peak levels: one word per row, indexed by [`SourceClip::level`].
    pub(crate) levels: Address,
}

/// Consecutive clips of equal sample rate and format, which one launch converts.
#[derive(Clone, Copy)]
struct Group {
    from_hz: u32,
    format: Format,
    clips: Address,
    n_clips: usize,
    n_out_max: usize,
}

impl Group {
    fn launch(self, outputs_per_block: usize, threads: usize, shared_floats: usize) -> Launch {
        Launch {
            grid: [
                self.n_clips as u32,
                blocks(self.n_out_max, outputs_per_block),
            ],
            threads: threads as u32,
            shared_bytes: (shared_floats * size_of::<f32>()) as u32,
        }
    }
}

impl<D: Device> ResampleDevice<D> {
    /// Creates a converter to `to_hz`. Tables are created when a rate is first used.
    pub(crate) fn new(to_hz: u32) -> Self {
        Self {
            to_hz,
            banks: Vec::new(),
            clips: Table::default(),
        }
    }

    /// Converts all clips. Errors: an unsupported rate, and the device's errors.
    pub(crate) fn run(
        &mut self,
        device: &D,
        clips: &[SourceClip],
        buffers: ClipBuffers,
    ) -> Result<(), KernelError> {
        // Remove the least recently used tables first. No queued work reads them yet.
        let n_old = self.banks.len().saturating_sub(BANKS_MAX);
        self.banks.drain(..n_old);

        // One kernel launch converts all clips of equal sample rate and format.
        let mut clips = clips.to_vec();
        clips.sort_by_key(SourceClip::conversion);
        let entries: Vec<SourceEntry> = clips.iter().map(|clip| self.entry(clip)).collect();
        let mut at = self.clips.send(device, &entries)?;

        for group in clips.chunk_by(|a, b| a.conversion() == b.conversion()) {
            let n_out_max = group
                .iter()
                .map(|clip| clip.n_out(self.to_hz))
                .max()
                .unwrap_or(0);
            let Some(first) = group.first() else { continue };
            let alike = Group {
                from_hz: first.sample_rate_hz,
                format: first.format(),
                clips: at,
                n_clips: group.len(),
                n_out_max,
            };
            self.convert(device, alike, buffers)?;
            // The entries of the next group follow those of this group.
            at += bytes_of(&entries[..group.len()]).len() as Address;
        }
        Ok(())
    }

    fn entry(&self, clip: &SourceClip) -> SourceEntry {
        SourceEntry {
            source: clip.source as i64,
            out: clip.out as i64,
            n_source: clip.n_source as i32,
            n_out: clip.n_out(self.to_hz) as i32,
            level: clip.level.map_or(-1, |row| row as i32),
            reserved: 0,
        }
    }

    fn convert(
        &mut self,
        device: &D,
        group: Group,
        buffers: ClipBuffers,
    ) -> Result<(), KernelError> {
        // At equal rates no filter is needed: the clip is mixed to mono f32, and its peak level is computed.
        if group.from_hz == self.to_hz {
            let launch = group.launch(THREADS * SAMPLES_PER_THREAD, THREADS, 0);
            let params = CopyClips {
                upload: buffers.upload,
                mono: buffers.mono,
                clips: group.clips,
                levels: buffers.levels,
            };
            return device.launch(group.format.copy_clips(), launch, &params);
        }

        let bank = self.bank(device, group.from_hz)?;
        let taps = bank.taps.address(device)?;
        let shared_floats = bank.shape.shared_floats();
        match bank.shape {
            Shape::Decimate {
                down,
                half,
                n_steps,
                stride,
                threads,
            } => {
                let params = Decimate {
                    upload: buffers.upload,
                    mono: buffers.mono,
                    clips: group.clips,
                    taps,
                    down: down as i32,
                    n_steps: n_steps as i32,
                    half: half as i32,
                    stride: stride as i32,
                    levels: buffers.levels,
                };
                let launch = group.launch(OUTPUTS * threads, threads, shared_floats);
                device.launch(group.format.decimate(), launch, &params)
            }
            Shape::Polyphase {
                up,
                down,
                half,
                n_columns,
                threads,
            } => {
                let params = Polyphase {
                    upload: buffers.upload,
                    mono: buffers.mono,
                    clips: group.clips,
                    taps,
                    up: up as i32,
                    down: down as i32,
                    n_taps: Shape::n_taps(half) as i32,
                    half: half as i32,
                    n_columns: n_columns as i32,
                    unused: 0,
                    levels: buffers.levels,
                };
                let launch = group.launch(OUTPUTS * n_columns, threads, shared_floats);
                device.launch(group.format.polyphase(), launch, &params)
            }
        }
    }

    fn bank(&mut self, device: &D, from_hz: u32) -> Result<&mut Bank<D>, KernelError> {
        match self.banks.iter().position(|bank| bank.from_hz == from_hz) {
            // Tables of taps are in order of use; the most recently used one is last.
            Some(at) => self.banks[at..].rotate_left(1),
            None => {
                let args = ResampleArgs {
                    from_hz,
                    to_hz: self.to_hz,
                };
                args.validate()?;

                let shape = Shape::new(args).ok_or_else(|| {
                    KernelError::argument(
                        "sample_rate_hz",
                        from_hz,
                        "a rate whose taps fit a device's table",
                    )
                })?;

                let taps = Table::new(device, &shape.table(&Filter::new(args)))?;
                self.banks.push(Bank {
                    from_hz,
                    shape,
                    taps,
                });
            }
        }

        let last = self.banks.len() - 1;
        Ok(&mut self.banks[last])
    }
}

/// Computes the peak levels of the rows of a batch.
pub(crate) struct LevelsDevice<D: Device> {
    answers: RowWords<D>,
}

impl<D: Device> Default for LevelsDevice<D> {
    fn default() -> Self {
        Self {
            answers: RowWords::default(),
        }
    }
}

impl<D: Device> LevelsDevice<D> {
    /// Allocates one word per row for the peak levels, all 0. Kernels raise them.
    pub(crate) fn start(&mut self, device: &D, n_rows: usize) -> Result<Address, KernelError> {
        self.answers.start(device, n_rows)
    }

    /// Computes the peak level of every row; `levels` is the address returned by [`Self::start`].
    pub(crate) fn run(
        device: &D,
        rows: &RowTable,
        mono: Address,
        levels: Address,
    ) -> Result<(), KernelError> {
        let blocks_a_row = blocks(rows.n_pcm_max, THREADS * SAMPLES_PER_THREAD);
        let launch = Launch {
            grid: [rows.n_rows as u32, blocks_a_row],
            threads: THREADS as u32,
            shared_bytes: 0,
        };
        let params = Levels {
            mono,
            rows: rows.address,
            levels,
        };
        device.launch("levels", launch, &params)
    }

    /// Queues the copy of the peak levels to the host.
    pub(crate) fn fetch(&mut self, device: &D) -> Result<(), KernelError> {
        self.answers.fetch(device)
    }

    /// Returns each row's peak level, its largest magnitude: NaN if a sample is NaN, 0 for a row without samples. Call
    /// after the device has been synchronized.
    pub(crate) fn largest(&self) -> impl Iterator<Item = f32> {
        self.answers.words().map(f32::from_bits)
    }
}
