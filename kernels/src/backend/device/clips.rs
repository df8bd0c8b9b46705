//! Clips on their way to a device: staged in one piece, sent once, converted there to mono at the features' rate.

use super::Span;
use super::feature::count;
use crate::backend::{Clip, Samples, downmix};
use crate::device::{Address, Device, Grown, RowEntry, RowTable, Table, bytes_of};
use crate::error::KernelError;
use crate::level::Level;
use crate::resample::{ClipBuffers, LevelsDevice, ResampleDevice, Resamplers, SourceClip};
use crate::stft::SAMPLE_MAX;

/// Clips begin at multiples of this in the staged bytes: whatever their type, kernels read them aligned.
const CLIP_ALIGN: usize = 16;

/// Staging memory, and what is known of the clips at hand.
pub(super) struct ClipLoader<D: Device> {
    sample_rate_hz: u32,
    staged: Table<D>,
    sources: Vec<SourceClip>,
    resample: ResampleDevice<D>,
    mono: Grown<D>,
    rows: Table<D>,
    levels: LevelsDevice<D>,
    spans: Vec<Span>,
    /// The clip of each row.
    owners: Vec<usize>,
    /// Rates that were asked for, and whether the device converts them.
    rates: Vec<(u32, bool)>,
    host: HostConversion,
}

/// The CPU's conversion, for rates whose tables would be too large for a device.
struct HostConversion {
    /// Of the level that every machine has, so that bits do not depend on the CPU.
    resamplers: Resamplers,
    mono: Vec<f32>,
    /// Clips of the batch, one a place of `sources`; the others are empty.
    converted: Vec<Vec<f32>>,
}

impl<D: Device> ClipLoader<D> {
    pub(super) fn new(sample_rate_hz: u32) -> Self {
        Self {
            sample_rate_hz,
            staged: Table::default(),
            sources: Vec::new(),
            resample: ResampleDevice::new(sample_rate_hz),
            mono: Grown::default(),
            rows: Table::default(),
            levels: LevelsDevice::default(),
            spans: Vec::new(),
            owners: Vec::new(),
            rates: Vec::new(),
            host: HostConversion {
                resamplers: Resamplers::new(sample_rate_hz, Level::Scalar),
                mono: Vec::new(),
                converted: Vec::new(),
            },
        }
    }

    /// Rows of all clips, in order.
    pub(super) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Queues the upload, the conversion and a look at every row; returns where the mono samples will be.
    pub(super) fn load(&mut self, device: &D, clips: &[Clip<'_>]) -> Result<Address, KernelError> {
        let (staged_bytes, n_mono) = self.place(clips)?;
        let staged = self.staged.host(device, staged_bytes)?;
        for ((clip, source), converted) in clips.iter().zip(&self.sources).zip(&self.host.converted) {
            let bytes = match clip.samples {
                _ if !converted.is_empty() => bytes_of(converted),
                Samples::F32(samples) => bytes_of(samples),
                Samples::S16(samples) => bytes_of(samples),
            };
            // A last sample without its partner is none.
            let bytes = &bytes[..source.bytes()];
            staged[source.source..source.source + bytes.len()].copy_from_slice(bytes);
        }
        let upload = self.staged.upload(device, staged_bytes)?;
        let mono = self.mono.address(device, n_mono * size_of::<f32>())?;
        self.resample.run(device, &self.sources, ClipBuffers { upload, mono })?;
        self.look(device, mono)?;
        Ok(mono)
    }

    /// Gives every clip and row its place: bytes to stage, and samples at the features' rate.
    fn place(&mut self, clips: &[Clip<'_>]) -> Result<(usize, usize), KernelError> {
        self.sources.clear();
        self.spans.clear();
        self.owners.clear();
        self.host.converted.resize_with(clips.len(), Vec::new);
        let (mut source, mut out) = (0, 0);
        for (at, clip) in clips.iter().enumerate() {
            self.host.converted[at].clear();
            let placed = if self.converts(clip.sample_rate_hz) {
                SourceClip::new(clip, source, out)
            } else {
                let pcm = self.host.convert(at, clip)?;
                let sample_rate_hz = self.sample_rate_hz;
                SourceClip { source, out, n_source: pcm.len(), is_s16: false, channels: 1, sample_rate_hz }
            };
            count("samples of a clip", placed.n_source)?;
            let n_out = placed.n_out(self.sample_rate_hz);
            count("samples of a clip", n_out)?;
            for row in clip.rows {
                let n_pcm = n_out.min(row.end).saturating_sub(row.start);
                self.spans.push(Span { pcm: out + row.start.min(n_out), n_pcm, len: row.len() });
                self.owners.push(at);
            }
            source += placed.bytes().next_multiple_of(CLIP_ALIGN);
            out += n_out;
            self.sources.push(placed);
        }
        Ok((source, out))
    }

    fn converts(&mut self, from_hz: u32) -> bool {
        if let Some((_, converts)) = self.rates.iter().find(|(rate_hz, _)| *rate_hz == from_hz) {
            return *converts;
        }
        let converts = ResampleDevice::<D>::supports(from_hz, self.sample_rate_hz);
        self.rates.push((from_hz, converts));
        converts
    }

    /// Queues the search for the loudest sample of every row.
    fn look(&mut self, device: &D, mono: Address) -> Result<(), KernelError> {
        let entry = |span: &Span| {
            let (n_pcm, n_signal) = (count("samples of a row", span.n_pcm)?, count("samples of a row", span.len)?);
            Ok(RowEntry { pcm: span.pcm as i64, frame: 0, n_pcm, n_signal, n_frames: 0, n_kept: 0 })
        };
        let entries = self.spans.iter().map(entry).collect::<Result<Vec<_>, KernelError>>()?;
        let n_pcm_max = self.spans.iter().map(|span| span.n_pcm).max().unwrap_or(0);
        let address = self.rows.send(device, &entries)?;
        let rows = RowTable { address, n_rows: entries.len(), n_pcm_max, n_frames_max: 0 };
        self.levels.run(device, &rows, mono)
    }

    /// Largest magnitude of every row, once the device was waited for; NaN if there is one.
    pub(super) fn largest(&self) -> Vec<f32> {
        self.levels.largest().collect()
    }

    /// The error of a row in which something is no sample, by its place in the clip as it came.
    pub(super) fn unsound(&self, clips: &[Clip<'_>], row: usize, largest: f32) -> KernelError {
        let bad =
            |(index, &value): (usize, &f32)| (value.is_nan() || value.abs() > SAMPLE_MAX).then_some((index, value));
        let found = match clips[self.owners[row]].samples {
            Samples::F32(samples) => samples.iter().enumerate().find_map(bad),
            Samples::S16(_) => None,
        };
        // Every sample is sound alone, and the filter overshoots the bound.
        let (index, value) = found.unwrap_or((0, largest));
        KernelError::Sample { index, value }
    }
}

impl HostConversion {
    /// Mono at the features' rate.
    fn convert(&mut self, at: usize, clip: &Clip<'_>) -> Result<&[f32], KernelError> {
        downmix(clip, &mut self.mono);
        let resampler = self.resamplers.get(clip.sample_rate_hz)?;
        let out = &mut self.converted[at];
        resampler.push(&self.mono, out);
        resampler.finish(out);
        Ok(out)
    }
}
