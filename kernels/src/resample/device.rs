//! Downmix and conversion to the features' rate on a device, and how loud each row is.
//!
//! Every output sample is a sum over the filter at its own time: polyphase, with a table of taps a source rate. Unlike
//! the CPU's overlap-save this needs no transform, and no sample depends on where a clip lies.

use super::ResampleArgs;
use super::cpu::Filter;
use crate::backend::{Clip, Samples};
use crate::device::{Address, Answers, Device, Launch, RowTable, Table, blocks, bytes_of, plain};
use crate::error::KernelError;

/// Threads of kernels that go over samples once.
const THREADS: usize = 256;
/// Samples of such a thread, where there are enough.
const SAMPLES_PER_THREAD: usize = 8;
/// Outputs of a thread; as in resample.cu.
const OUTPUTS: usize = 8;
/// Shared memory that every architecture grants without asking, in floats.
const SHARED_FLOATS: usize = 48 * 1024 / size_of::<f32>();
/// Largest table: what a level-2 cache holds besides everything else. Common rates need below 2 MiB; a rate that shares
/// no large factor with the features' (44,101 Hz) would need 31 MiB.
const TABLE_BYTES_MAX: usize = 8 << 20;
/// Tables that are kept from batch to batch: archives have two or three rates.
const BANKS_MAX: usize = 8;

plain! {
    /// `SourceClip` in resample.cu.
    struct SourceEntry {
        source: i64,
        out: i64,
        n_source: i32,
        n_out: i32,
        is_s16: i32,
        channels: i32,
    }
}

plain! {
    /// `CopyClips` in resample.cu.
    struct CopyClips {
        upload: Address,
        mono: Address,
        clips: Address,
    }
}

plain! {
    /// `Decimate` in resample.cu.
    struct Decimate {
        upload: Address,
        mono: Address,
        clips: Address,
        taps: Address,
        down: i32,
        n_steps: i32,
        half: i32,
        stride: i32,
    }
}

plain! {
    /// `Polyphase` in resample.cu.
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
    }
}

plain! {
    /// `Levels` in resample.cu.
    struct Levels {
        mono: Address,
        rows: Address,
        levels: Address,
    }
}

/// A clip in the upload buffer, and its place in the mono buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SourceClip {
    /// Its first byte; a multiple of 8.
    pub(crate) source: usize,
    /// Its first sample at the features' rate.
    pub(crate) out: usize,
    /// Samples a channel.
    pub(crate) n_source: usize,
    /// Signed 16-bit integers; else f32.
    pub(crate) is_s16: bool,
    /// 1 or 2, interleaved.
    pub(crate) channels: usize,
    /// Rate of the samples, Hz.
    pub(crate) sample_rate_hz: u32,
}

impl SourceClip {
    /// `clip` as it is, copied to byte `source`.
    pub(crate) fn new(clip: &Clip<'_>, source: usize, out: usize) -> Self {
        let (n_samples, is_s16) = match clip.samples {
            Samples::F32(samples) => (samples.len(), false),
            Samples::S16(samples) => (samples.len(), true),
        };
        let Clip { channels, sample_rate_hz, .. } = *clip;
        Self { source, out, n_source: n_samples / channels, is_s16, channels, sample_rate_hz }
    }

    /// Bytes that it takes in the upload buffer.
    pub(crate) fn bytes(&self) -> usize {
        let sample_bytes = if self.is_s16 { size_of::<i16>() } else { size_of::<f32>() };
        self.n_source * self.channels * sample_bytes
    }

    /// Samples that it becomes.
    pub(crate) fn n_out(&self, to_hz: u32) -> usize {
        ResampleArgs { from_hz: self.sample_rate_hz, to_hz }.output_len(self.n_source as u64) as usize
    }
}

/// How a conversion is cut into tiles; taps and samples of a tile lie in shared memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// A whole number of source samples an output.
    Decimate { down: usize, half: usize, n_steps: usize, stride: usize, threads: usize },
    /// Anything else.
    Polyphase { up: usize, down: usize, half: usize, n_columns: usize, threads: usize },
}

impl Shape {
    /// `None` where shared memory or the table would be too large.
    fn of(args: ResampleArgs) -> Option<Self> {
        args.validate().ok()?;
        let half = Filter::new(args).half_len();
        let (down, up) = args.ratio();
        let shape = match up {
            1 => [128, 64, 32].into_iter().map(|threads| Self::decimate(down, half, threads)).find(Self::fits),
            _ => Some(Self::polyphase(up, down, half)).filter(Self::fits),
        };
        shape.filter(|shape| shape.n_table() * size_of::<f32>() <= TABLE_BYTES_MAX)
    }

    fn decimate(down: usize, half: usize, threads: usize) -> Self {
        let n_steps = (2 * half + 1).div_ceil(down).next_multiple_of(8);
        let n_each = threads * OUTPUTS + n_steps;
        // Streams begin in different banks, as neighbouring threads fill them side by side.
        let (least, bank) = (n_each + n_each / 32 * 4, (32 / down).next_multiple_of(4) % 32);
        let stride = least.next_multiple_of(32) + bank;
        Self::Decimate { down, half, n_steps, stride, threads }
    }

    /// Rows of the tile have about 512 outputs, or one period of the phases.
    fn polyphase(up: usize, down: usize, half: usize) -> Self {
        let periods = (1..=(512 / up).max(1)).rev();
        let shape = |periods: usize| {
            let n_columns = periods * up;
            let rounds = n_columns.div_ceil(512);
            let threads = n_columns.div_ceil(rounds).next_multiple_of(32);
            Self::Polyphase { up, down, half, n_columns, threads }
        };
        periods.map(shape).find(Self::fits).unwrap_or(shape(1))
    }

    fn fits(&self) -> bool {
        self.shared_floats() <= SHARED_FLOATS
    }

    fn n_taps(half: usize) -> usize {
        2 * half + 2
    }

    fn shared_floats(&self) -> usize {
        match *self {
            Self::Decimate { down, n_steps, stride, .. } => down * (n_steps + stride),
            Self::Polyphase { up, down, half, n_columns, .. } => OUTPUTS * (n_columns / up * down) + Self::n_taps(half),
        }
    }

    fn n_table(&self) -> usize {
        match *self {
            Self::Decimate { down, n_steps, .. } => down * n_steps,
            Self::Polyphase { up, half, .. } => up * Self::n_taps(half),
        }
    }

    /// Taps in the order in which the kernel reads them.
    fn table(&self, filter: &Filter) -> Vec<f32> {
        let tap = |time: f64| filter.at(time) as f32;
        match *self {
            Self::Decimate { down, half, n_steps, .. } => {
                let stream = |q: usize| (0..n_steps).map(move |i| (down * i + q) as f64 - half as f64);
                (0..down).flat_map(stream).map(tap).collect()
            }
            Self::Polyphase { up, down, half, .. } => {
                let phase = |m: usize| (m * down % up) as f64 / up as f64;
                let row = |k: usize| (0..up).map(move |m| phase(m) + half as f64 - k as f64);
                (0..Self::n_taps(half)).flat_map(row).map(tap).collect()
            }
        }
    }
}

/// One source rate's way.
struct Bank<D: Device> {
    from_hz: u32,
    shape: Shape,
    taps: Table<D>,
}

/// Conversion of clips of any supported rates to one.
pub(crate) struct ResampleDevice<D: Device> {
    to_hz: u32,
    banks: Vec<Bank<D>>,
    clips: Table<D>,
}

/// Where clips come from and go to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClipBuffers {
    /// As they were decoded.
    pub(crate) upload: Address,
    /// f32 at the features' rate.
    pub(crate) mono: Address,
}

/// A run of clips of one rate.
#[derive(Clone, Copy)]
struct Group {
    clips: Address,
    n_clips: usize,
    n_out_max: usize,
}

impl Group {
    fn launch(self, outputs_per_block: usize, threads: usize, shared_floats: usize) -> Launch {
        Launch {
            grid: [self.n_clips as u32, blocks(self.n_out_max, outputs_per_block)],
            threads: threads as u32,
            shared_bytes: (shared_floats * size_of::<f32>()) as u32,
        }
    }
}

impl<D: Device> ResampleDevice<D> {
    /// To `to_hz`; tables are made as rates turn up.
    pub(crate) fn new(to_hz: u32) -> Self {
        Self { to_hz, banks: Vec::new(), clips: Table::default() }
    }

    /// Whether a device converts between two rates. The CPU does what it does not.
    pub(crate) fn supports(from_hz: u32, to_hz: u32) -> bool {
        from_hz == to_hz || Shape::of(ResampleArgs { from_hz, to_hz }).is_some()
    }

    /// Converts every clip. Errors: a rate that is not supported, besides the device's.
    pub(crate) fn run(&mut self, device: &D, clips: &[SourceClip], buffers: ClipBuffers) -> Result<(), KernelError> {
        // Nothing is queued yet that reads them.
        let n_old = self.banks.len().saturating_sub(BANKS_MAX);
        self.banks.drain(..n_old);
        let mut clips = clips.to_vec();
        clips.sort_by_key(|clip| clip.sample_rate_hz);
        let entries: Vec<SourceEntry> = clips.iter().map(|clip| self.entry(clip)).collect();
        let mut at = self.clips.send(device, &entries)?;
        for group in clips.chunk_by(|a, b| a.sample_rate_hz == b.sample_rate_hz) {
            let n_out_max = group.iter().map(|clip| clip.n_out(self.to_hz)).max().unwrap_or(0);
            let from_hz = group.first().map_or(self.to_hz, |clip| clip.sample_rate_hz);
            self.convert(device, from_hz, Group { clips: at, n_clips: group.len(), n_out_max }, buffers)?;
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
            is_s16: i32::from(clip.is_s16),
            channels: clip.channels as i32,
        }
    }

    fn convert(&mut self, device: &D, from_hz: u32, group: Group, buffers: ClipBuffers) -> Result<(), KernelError> {
        let (upload, mono, clips) = (buffers.upload, buffers.mono, group.clips);
        if from_hz == self.to_hz {
            let launch = group.launch(THREADS * SAMPLES_PER_THREAD, THREADS, 0);
            return device.launch("copy_clips", launch, &CopyClips { upload, mono, clips });
        }
        let bank = self.bank(device, from_hz)?;
        let (taps, shared_floats) = (bank.taps.address(device)?, bank.shape.shared_floats());
        match bank.shape {
            Shape::Decimate { down, half, n_steps, stride, threads } => {
                let [down, n_steps, half, stride] = [down, n_steps, half, stride].map(|n| n as i32);
                let params = Decimate { upload, mono, clips, taps, down, n_steps, half, stride };
                device.launch("decimate", group.launch(OUTPUTS * threads, threads, shared_floats), &params)
            }
            Shape::Polyphase { up, down, half, n_columns, threads } => {
                let launch = group.launch(OUTPUTS * n_columns, threads, shared_floats);
                let [up, down, n_taps, half, n_columns] =
                    [up, down, Shape::n_taps(half), half, n_columns].map(|n| n as i32);
                let params = Polyphase { upload, mono, clips, taps, up, down, n_taps, half, n_columns, unused: 0 };
                device.launch("polyphase", launch, &params)
            }
        }
    }

    fn bank(&mut self, device: &D, from_hz: u32) -> Result<&mut Bank<D>, KernelError> {
        match self.banks.iter().position(|bank| bank.from_hz == from_hz) {
            // The one used last comes last.
            Some(at) => self.banks[at..].rotate_left(1),
            None => {
                let args = ResampleArgs { from_hz, to_hz: self.to_hz };
                args.validate()?;
                let shape = Shape::of(args).ok_or_else(|| {
                    KernelError::argument("sample_rate_hz", from_hz, "a rate whose taps fit a device's table")
                })?;
                let taps = Table::new(device, &shape.table(&Filter::new(args)))?;
                self.banks.push(Bank { from_hz, shape, taps });
            }
        }
        let last = self.banks.len() - 1;
        Ok(&mut self.banks[last])
    }
}

/// How loud the rows of a batch are.
pub(crate) struct LevelsDevice<D: Device> {
    answers: Answers<D>,
}

impl<D: Device> Default for LevelsDevice<D> {
    fn default() -> Self {
        Self { answers: Answers::default() }
    }
}

impl<D: Device> LevelsDevice<D> {
    /// Looks at the samples of every row.
    pub(crate) fn run(&mut self, device: &D, rows: &RowTable, mono: Address) -> Result<(), KernelError> {
        let levels = self.answers.start(device, rows.n_rows)?;
        let grid = [rows.n_rows as u32, blocks(rows.n_pcm_max, THREADS * SAMPLES_PER_THREAD)];
        let launch = Launch { grid, threads: THREADS as u32, shared_bytes: 0 };
        device.launch("levels", launch, &Levels { mono, rows: rows.address, levels })?;
        self.answers.fetch(device)
    }

    /// Each row's largest magnitude, NaN if there is one; 0 of no samples. To be read once the device was waited for.
    pub(crate) fn largest(&self) -> impl Iterator<Item = f32> {
        self.answers.words().map(f32::from_bits)
    }
}
