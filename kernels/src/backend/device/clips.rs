//! Clips on their way to a device: sent from where they lie, converted there to mono at the features' rate.

use super::Span;
use super::feature::count;
use crate::backend::{Clip, Samples, downmix};
use crate::device::{Address, Device, DeviceMemory, Loans, RowEntry, RowTable, Table, bytes_of};
use crate::error::KernelError;
use crate::level::Level;
use crate::resample::{
    ClipBuffers, LevelsDevice, ResampleDevice, Resamplers, SourceClip, is_for_device,
};
use crate::samples::SampleBuffer;
use crate::stft::SAMPLE_MAX;

/// Clips begin at multiples of this on the device: whatever their type, kernels read them aligned.
const CLIP_ALIGN: usize = 16;

/// The CPU converts a clip in pieces of so many frames, so that its mix to mono is never held whole.
const PIECE_FRAMES: usize = 1 << 16;

/// Memory for the clips of a batch, and what is known of them.
pub(super) struct ClipLoader<D: Device> {
    sample_rate_hz: u32,
    /// The clips as they came.
    upload: DeviceMemory<D>,
    sources: Vec<SourceClip>,
    resample: ResampleDevice<D>,
    mono: DeviceMemory<D>,
    rows: Table<D>,
    levels: LevelsDevice<D>,
    spans: Vec<Span>,
    /// The clip of each row.
    owners: Vec<usize>,
    /// Whether a row's level is found while its clip is converted.
    found_along: Vec<bool>,
}

/// What the clips of a batch take on the device.
struct Room {
    /// Bytes of the clips as they came.
    upload_bytes: usize,
    /// Samples at the features' rate.
    n_mono: usize,
}

/// The CPU's conversion, for rates whose tables would be too large for a device.
pub(super) struct HostConversion {
    sample_rate_hz: u32,
    /// Of the level that every machine has, so that bits do not depend on the CPU.
    resamplers: Resamplers,
    mono: Vec<f32>,
    /// The clips of the batch in their order; `None` where the device converts.
    converted: Vec<Option<SampleBuffer>>,
    /// Rates that were asked for, and whether the device converts them.
    rates: Vec<(u32, bool)>,
}

impl<D: Device> ClipLoader<D> {
    pub(super) fn new(sample_rate_hz: u32) -> Self {
        Self {
            sample_rate_hz,
            upload: DeviceMemory::default(),
            sources: Vec::new(),
            resample: ResampleDevice::new(sample_rate_hz),
            mono: DeviceMemory::default(),
            rows: Table::default(),
            levels: LevelsDevice::default(),
            spans: Vec::new(),
            owners: Vec::new(),
            found_along: Vec::new(),
        }
    }

    /// Rows of all clips, in order.
    pub(super) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Queues the copies of the clips, their conversion and a look at every row; returns where the mono samples will be.
    pub(super) fn load<'env>(
        &mut self,
        device: &D,
        loans: &Loans<'_, 'env, D>,
        clips: &'env [Clip<'env>],
        host: &'env HostConversion,
    ) -> Result<Address, KernelError> {
        let room = self.place(clips, host)?;

        // Each clip goes from where its decoder wrote it to its place on the device.
        let upload = self.upload.ensure(device, room.upload_bytes)?;
        for (at, source) in self.sources.iter().enumerate() {
            let bytes = match (host.converted(at), clips[at].samples) {
                (Some(converted), _) => bytes_of(converted),
                (None, Samples::F32(samples)) => bytes_of(samples),
                (None, Samples::S16(samples)) => bytes_of(samples),
            };
            // A last sample without its partner is none.
            loans.upload(&bytes[..source.bytes()], upload, source.source)?;
        }
        let upload = device.address(upload);

        let mono = self.mono.address(device, room.n_mono * size_of::<f32>())?;
        // Levels start as zeros. The conversion raises some of them, and the search after it the others.
        let levels = self.levels.start(device, self.spans.len())?;
        let buffers = ClipBuffers {
            upload,
            mono,
            levels,
        };
        self.resample.run(device, &self.sources, buffers)?;

        self.find_other_levels(device, mono, levels)?;
        self.levels.fetch(device)?;
        Ok(mono)
    }

    /// Gives every clip and row its place.
    fn place(&mut self, clips: &[Clip<'_>], host: &HostConversion) -> Result<Room, KernelError> {
        self.sources.clear();
        self.spans.clear();
        self.owners.clear();
        self.found_along.clear();

        let mut source = 0;
        let mut out = 0;
        for (at, clip) in clips.iter().enumerate() {
            // A clip that the host has converted is mono already, at the features' rate.
            let mut placed = match host.converted(at) {
                None => SourceClip::new(clip, source, out),
                Some(converted) => SourceClip {
                    source,
                    out,
                    n_source: converted.len(),
                    is_s16: false,
                    channels: 1,
                    sample_rate_hz: self.sample_rate_hz,
                    level: None,
                },
            };
            count("samples of a clip", placed.n_source)?;
            let n_out = placed.n_out(self.sample_rate_hz);
            count("samples of a clip", n_out)?;

            for row in clip.rows {
                let n_pcm = n_out.min(row.end).saturating_sub(row.start);
                // A row that is the whole clip: whoever writes the clip finds its level.
                let is_whole = n_pcm == n_out && placed.level.is_none();
                if is_whole {
                    placed.level = Some(self.spans.len());
                }

                self.found_along.push(is_whole);
                self.spans.push(Span {
                    // A row may begin behind the end of its clip; it has no samples then.
                    pcm: out + row.start.min(n_out),
                    n_pcm,
                    len: row.len(),
                });
                self.owners.push(at);
            }

            source += placed.bytes().next_multiple_of(CLIP_ALIGN);
            out += n_out;
            self.sources.push(placed);
        }

        Ok(Room {
            upload_bytes: source,
            n_mono: out,
        })
    }

    /// Queues the search for the loudest sample of every row whose level is not found along.
    fn find_other_levels(
        &mut self,
        device: &D,
        mono: Address,
        levels: Address,
    ) -> Result<(), KernelError> {
        if self.found_along.iter().all(|found| *found) {
            return Ok(());
        }

        // Levels are stored by row, so the table has all rows. A row whose level is found elsewhere has no samples here.
        let mut entries = Vec::with_capacity(self.spans.len());
        let mut n_pcm_max = 0;
        for (span, found) in self.spans.iter().zip(&self.found_along) {
            let n_pcm = if *found { 0 } else { span.n_pcm };
            n_pcm_max = n_pcm_max.max(n_pcm);
            let n_signal = count("samples of a row", span.len)?;
            let n_pcm = count("samples of a row", n_pcm)?;
            entries.push(RowEntry {
                pcm: span.pcm as i64,
                frame: 0,
                n_pcm,
                n_signal,
                n_frames: 0,
                n_kept: 0,
            });
        }

        let address = self.rows.send(device, &entries)?;
        let rows = RowTable {
            address,
            n_rows: entries.len(),
            n_pcm_max,
            n_frames_max: 0,
        };
        LevelsDevice::run(device, &rows, mono, levels)
    }

    /// Largest magnitude of every row, once the device was waited for; NaN if there is one.
    pub(super) fn largest(&self) -> Vec<f32> {
        self.levels.largest().collect()
    }

    /// The error of a row in which something is no sample, by its place in the clip as it came.
    pub(super) fn unsound(&self, clips: &[Clip<'_>], row: usize, largest: f32) -> KernelError {
        if let Samples::F32(samples) = clips[self.owners[row]].samples {
            for (index, &value) in samples.iter().enumerate() {
                if value.is_nan() || value.abs() > SAMPLE_MAX {
                    return KernelError::Sample { index, value };
                }
            }
        }

        // Every sample is sound alone, and the filter overshoots the bound.
        KernelError::Sample {
            index: 0,
            value: largest,
        }
    }
}

impl HostConversion {
    pub(super) fn new(sample_rate_hz: u32) -> Self {
        Self {
            sample_rate_hz,
            resamplers: Resamplers::new(sample_rate_hz, Level::Scalar),
            mono: Vec::new(),
            converted: Vec::new(),
            rates: Vec::new(),
        }
    }

    /// Converts what the device does not.
    pub(super) fn convert(&mut self, clips: &[Clip<'_>]) -> Result<(), KernelError> {
        self.converted.clear();
        for clip in clips {
            if self.is_left_to_device(clip.sample_rate_hz) {
                self.converted.push(None);
                continue;
            }

            // Each clip has a buffer of its own, because the device reads all of them until the batch is done. Just the
            // room that it needs: what grows by doubling takes up to twice that.
            let mut out = SampleBuffer::default();
            let resampler = self.resamplers.get(clip.sample_rate_hz)?;
            let n_frames = clip.n_frames();
            let n_out = resampler.args().output_len(n_frames as u64) as usize;
            out.clear_for(n_out + resampler.args().step_len());

            // How the clip is cut changes no bit.
            for start in (0..n_frames).step_by(PIECE_FRAMES) {
                let end = n_frames.min(start + PIECE_FRAMES);
                downmix(&clip.part(start..end), &mut self.mono);
                resampler.push(&self.mono, &mut out);
            }
            resampler.finish(&mut out);
            self.converted.push(Some(out));
        }
        Ok(())
    }

    /// Gives the memory of the clips back. The device has copied them.
    pub(super) fn forget(&mut self) {
        self.converted.clear();
    }

    /// The clip at `at`, mono at the features' rate, if it was converted here.
    fn converted(&self, at: usize) -> Option<&[f32]> {
        self.converted[at].as_deref()
    }

    fn is_left_to_device(&mut self, from_hz: u32) -> bool {
        if let Some((_, converts)) = self.rates.iter().find(|(rate_hz, _)| *rate_hz == from_hz) {
            return *converts;
        }

        // The answer costs the design of a filter, so it is kept for each rate.
        let converts = is_for_device(from_hz, self.sample_rate_hz);
        self.rates.push((from_hz, converts));
        converts
    }
}
