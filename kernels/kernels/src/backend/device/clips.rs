//! Uploads clips from their decoders' buffers and converts them on the device to mono at the features' rate.

use wavemill_signal::{Level, SampleBuffer};

use super::Span;
use super::feature::count;
use crate::backend::{Clip, Samples, downmix};
use crate::device::{Address, Device, DeviceMemory, Loans, RowEntry, RowTable, Table, bytes_of};
use crate::error::KernelError;
use crate::resample::{
    ClipBuffers, LevelsDevice, ResampleDevice, Resamplers, SourceClip, is_for_device,
};
use crate::stft::SAMPLE_MAX;

/// Alignment of clips in device memory, which is sufficient for samples of any type.
const CLIP_ALIGN: usize = 16;

/// The CPU converts a clip in pieces of this many frames, so that the mono mix is never stored as a whole.
const PIECE_FRAMES: usize = 1 << 16;

/// Device memory for the clips of a batch, and tables that describe them.
pub(super) struct ClipLoader<D: Device> {
    sample_rate_hz: u32,
    /// The clips as passed by the caller.
    upload: DeviceMemory<D>,
    sources: Vec<SourceClip>,
    resample: ResampleDevice<D>,
    mono: DeviceMemory<D>,
    rows: Table<D>,
    levels: LevelsDevice<D>,
    spans: Vec<Span>,
    /// Clip index of each row.
    owners: Vec<usize>,
    /// For each row: whether its peak level is computed during the conversion of its clip.
    found_along: Vec<bool>,
}

/// Memory that the clips of a batch need on the device.
struct Room {
    /// Bytes of the uploaded clips.
    upload_bytes: usize,
    /// Number of samples of all clips after conversion to the features' rate.
    n_mono: usize,
}

/// Conversion of clips on the CPU, for sample rates whose filter tables would be too large for a device.
pub(super) struct HostConversion {
    sample_rate_hz: u32,
    /// Resamplers of the scalar level, which every machine supports, so that results do not depend on the CPU's level.
    resamplers: Resamplers,
    mono: Vec<f32>,
    /// Converted clips, one entry per clip of the batch; `None` if the device converts the clip.
    converted: Vec<Option<SampleBuffer>>,
    /// Sample rates used so far, and whether the device converts clips of that rate.
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

    /// Frees the memory whose size depends on the clips.
    pub(super) fn forget_scratch(&mut self) {
        self.upload = DeviceMemory::default();
        self.mono = DeviceMemory::default();
    }

    /// Returns the rows of all clips, in order.
    pub(super) fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Queues the copies of the clips, their conversion and the computation of every row's level; returns the address
    /// of the mono samples.
    pub(super) fn load<'env>(
        &mut self,
        device: &D,
        loans: &Loans<'_, 'env, D>,
        clips: &'env [Clip<'env>],
        host: &'env HostConversion,
    ) -> Result<Address, KernelError> {
        let room = self.place(clips, host)?;

        // Each clip is copied from its decoder's buffer directly to its position on the device.
        let upload = self.upload.ensure(device, room.upload_bytes)?;
        for (at, source) in self.sources.iter().enumerate() {
            let bytes = match (host.converted(at), clips[at].samples) {
                (Some(converted), _) => bytes_of(converted),
                (None, Samples::F32(samples)) => bytes_of(samples),
                (None, Samples::S16(samples)) => bytes_of(samples),
            };
            // Ignore a last sample that has no partner in the other channel.
            loans.upload(&bytes[..source.bytes()], upload, source.source)?;
        }
        let upload = device.address(upload);

        let mono = self.mono.address(device, room.n_mono * size_of::<f32>())?;
        // Peak levels start as zeros. The conversion of clips computes some of them, a search in the rows the others.
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

    /// Assigns positions in device memory to all clips and rows.
    fn place(&mut self, clips: &[Clip<'_>], host: &HostConversion) -> Result<Room, KernelError> {
        self.sources.clear();
        self.spans.clear();
        self.owners.clear();
        self.found_along.clear();

        let mut source = 0;
        let mut out = 0;
        for (at, clip) in clips.iter().enumerate() {
            // A clip that the host has converted is already mono at the features' rate.
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
                // If a row is the whole clip, its peak level is computed by the conversion of the clip.
                let is_whole = n_pcm == n_out && placed.level.is_none();
                if is_whole {
                    placed.level = Some(self.spans.len());
                }

                self.found_along.push(is_whole);
                self.spans.push(Span {
                    // A row that begins after the end of its clip has no samples.
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

    /// Queues the search for the largest magnitude of every row whose level is not computed by the conversion.
    fn find_other_levels(
        &mut self,
        device: &D,
        mono: Address,
        levels: Address,
    ) -> Result<(), KernelError> {
        if self.found_along.iter().all(|found| *found) {
            return Ok(());
        }

        // The table contains all rows, because levels are stored by row. Rows whose level is already computed get a
        // length of 0 here.
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

    /// Returns the largest magnitude of every row, or NaN if a sample is NaN. Call after the device has been
    /// synchronized.
    pub(super) fn largest(&self) -> Vec<f32> {
        self.levels.largest().collect()
    }

    /// Returns the error of a row with an invalid sample; the index is that of the sample in the clip as passed by the
    /// caller.
    pub(super) fn unsound(&self, clips: &[Clip<'_>], row: usize, largest: f32) -> KernelError {
        if let Samples::F32(samples) = clips[self.owners[row]].samples {
            for (index, &value) in samples.iter().enumerate() {
                if value.is_nan() || value.abs() > SAMPLE_MAX {
                    return KernelError::Sample { index, value };
                }
            }
        }

        // All input samples are valid, but the resampling filter overshoots the limit.
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

    /// Converts the clips that the device cannot convert.
    pub(super) fn convert(&mut self, clips: &[Clip<'_>]) -> Result<(), KernelError> {
        self.converted.clear();
        for clip in clips {
            if self.is_left_to_device(clip.sample_rate_hz) {
                self.converted.push(None);
                continue;
            }

            // Each clip has its own buffer, because the device reads all of them until the batch is done. Allocate
            // exactly the required capacity: growth by doubling uses up to twice as much.
            let mut out = SampleBuffer::default();
            let resampler = self.resamplers.select(clip.sample_rate_hz)?;
            let n_frames = clip.n_frames();
            let n_out = resampler.args().output_len(n_frames as u64) as usize;
            out.clear_for(n_out + resampler.args().step_len());

            // The size of the pieces has no influence on the result.
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

    /// Frees the memory of the clips after the device has copied them.
    pub(super) fn forget(&mut self) {
        self.converted.clear();
    }

    /// Returns clip `at`, mono at the features' rate, if it was converted on the CPU.
    fn converted(&self, at: usize) -> Option<&[f32]> {
        self.converted[at].as_deref()
    }

    fn is_left_to_device(&mut self, from_hz: u32) -> bool {
        if let Some((_, converts)) = self.rates.iter().find(|(rate_hz, _)| *rate_hz == from_hz) {
            return *converts;
        }

        // The check designs a resampling filter, so its result is stored for each sample rate.
        let converts = is_for_device(from_hz, self.sample_rate_hz);
        self.rates.push((from_hz, converts));
        converts
    }
}
