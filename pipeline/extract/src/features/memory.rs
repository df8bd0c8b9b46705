//! Computes how much memory a clip holds at once: the bytes for which its permit is taken. This includes all buffers
//! whose size depends on the clip; other buffers belong to a worker ([`FeaturePlan::worker_bytes`]).

use wavemill_decode as decode;
use wavemill_decode::pictures;
use wavemill_kernels::resample::{MAX_DEVICE_HZ, PLANS_MAX};
use wavemill_kernels::stretch::StretchPlan;
use wavemill_kernels::{Cpu, FeatureArgs};
use wavemill_schemas::recipe::{SoundArgs, TensorArgs};
use wavemill_schemas::samples::samples_in;
use wavemill_store::plan::segments::{
    PLAIN, Segment, end_of, plain, segments_at_most, variant_len,
};
use wavemill_store::shards::{TAKEN_BATCH_ROWS, TakenClip};

use super::FeaturePlan;
use super::loudness::LoudnessMeter;

/// Memory of a feature row in bytes, without its tensors: the struct, its list of tensors, and malloc's overhead.
const ROW_BYTES: u64 = 192;
/// Memory of a row's tensor in bytes, without its values.
const TENSOR_BYTES: u64 = 64;
/// Samples that a PCM buffer may hold beyond a clip's length: a packet, and a block of resampler output.
const EXTRA_SAMPLES: usize = 131_072;
/// Copies of a tensor while Parquet encodes its page: plain values while their buffer grows, the page, and the
/// compressed page.
const ENCODE_COPIES: u64 = 4;
/// Copies of a tensor while it is copied from the parent: its compressed page, the page, and the array.
const TAKEN_COPIES: u64 = 3;
/// Upper bound on the bytes of one planned conversion between sample rates.
const RESAMPLER_BYTES: u64 = 1 << 20;

/// Returns the bytes that encoding needs in addition to rows whose largest tensor has `tensor_bytes`: pages of one
/// tensor are created one at a time.
pub(crate) const fn encode_bytes(tensor_bytes: u64) -> u64 {
    tensor_bytes * ENCODE_COPIES
}

/// Returns the size of the file of a clip whose rows are copied.
fn file_bytes(taken: &TakenClip) -> u64 {
    taken.seen.id.map_or(0, |id| id.bytes)
}

impl FeaturePlan {
    /// Reports whether the recipe limits the length of every clip by `duration_s`, so that the memory for a clip is
    /// known before its file is read.
    pub fn is_closed(&self) -> bool {
        let bounded = self
            .audio
            .duration_s
            .is_some_and(|seconds| seconds <= self.audio.max_duration_s);
        // The size of a picture is only known from its file.
        bounded && !self.is_of_images()
    }

    /// Returns the maximum duration of a clip in seconds under the recipe's limits. Its file has at most `longest_s`.
    pub fn clip_s(&self, longest_s: f64) -> f64 {
        longest_s.min(self.audio.longest_s())
    }

    /// Returns the bytes of memory for the longest clip that the recipe allows, if its file takes `read_bytes`.
    pub(crate) fn closed_memory_bytes(&self, read_bytes: u64) -> u64 {
        self.memory_bytes(read_bytes, self.audio.longest_s())
    }

    /// Returns the bytes of memory that a clip of at most `seconds` holds, if its file has `file_bytes`. This is the
    /// maximum of three phases: the file and samples during decoding; samples, rows and the kernels' buffers after
    /// that; rows and the buffers for encoding them at the end.
    pub(crate) fn memory_bytes(&self, file_bytes: u64, seconds: f64) -> u64 {
        // Samples are sent to a device at the file's own rate, if the device converts it.
        let rate_hz = if self.keeps_rate() {
            MAX_DEVICE_HZ
        } else {
            self.audio.sample_rate_hz
        };

        let n_out = self.samples_at_most(seconds);
        // A last segment may extend past the clip's end, and a row is padded to `duration_s`. The padding consists of
        // samples too.
        let padded_s = self
            .audio
            .duration_s
            .unwrap_or(0.0)
            .max(self.audio.segment_s.unwrap_or(0.0));
        let pcm_s = (seconds + self.audio.segment_s.unwrap_or(0.0)).max(padded_s);
        let pcm_bytes = self.pcm_bytes(
            samples_in(pcm_s, rate_hz) + EXTRA_SAMPLES,
            self.samples_at_most(pcm_s) + EXTRA_SAMPLES,
        );

        let (n_rows, row_samples) = self.rows_at_most(n_out);
        let rows_bytes = n_rows * self.row_held_bytes(row_samples);
        let originals_bytes = self.originals_bytes(file_bytes);
        let computing = pcm_bytes
            + self.rows_computed_bytes(rows_bytes)
            + originals_bytes
            + self.scratch_bytes(row_samples)
            + self.stretched_at_most(n_out, row_samples);
        let encoding = rows_bytes + originals_bytes + self.encode_excess(row_samples, file_bytes);
        // The phases never overlap: the file is released before features are computed, and the samples before rows are
        // encoded.
        (file_bytes + pcm_bytes).max(computing).max(encoding)
    }

    /// Returns the bytes of memory that the picture in `file` holds: the file and its pixels during decoding, its row,
    /// and the buffers for encoding it.
    pub(crate) fn picture_memory_bytes(&self, file: &[u8]) -> u64 {
        let heights = self.images().map(|image| image.height);
        let held_bytes = pictures::held_bytes(file, self.image.pixels_max(), heights);
        let decoding = file.len() as u64 + held_bytes;
        decoding + self.row_bytes(0) + self.picture_row_bytes()
    }

    /// Returns the bytes of memory that the row of a picture holds until it is on disk.
    pub(crate) fn picture_row_bytes(&self) -> u64 {
        self.row_held_bytes(0) + self.encode_excess(0, 0)
    }

    /// Returns the bytes of memory that a decoded clip holds while its rows are computed. Its buffer has room for
    /// `n_pcm` samples, which become `n_out` samples at the recipe's rate. `file_bytes` is as for [`Self::rows_bytes`].
    pub(crate) fn computing_bytes(
        &self,
        n_pcm: usize,
        n_out: usize,
        rows: &[Segment],
        file_bytes: u64,
    ) -> u64 {
        let stretched_bytes = self.stretched_bytes(n_out, rows);
        let n_out = n_out + EXTRA_SAMPLES;
        let longest = rows.iter().map(|row| row.len).max().unwrap_or(0);
        let held: u64 = rows.iter().map(|row| self.row_held_bytes(row.len)).sum();
        (self.pcm_bytes(n_pcm, n_out)
            + self.rows_computed_bytes(held)
            + self.originals_bytes(file_bytes)
            + self.scratch_bytes(longest)
            + stretched_bytes)
            .max(self.rows_bytes(rows, file_bytes))
    }

    /// Returns the bytes of memory that a clip's rows hold until they are on disk. `file_bytes` is the size of its file,
    /// which only matters if a feature contains it.
    pub(crate) fn rows_bytes(&self, rows: &[Segment], file_bytes: u64) -> u64 {
        let longest = rows.iter().map(|row| row.len).max().unwrap_or(0);
        let held: u64 = rows.iter().map(|row| self.row_held_bytes(row.len)).sum();
        held + self.originals_bytes(file_bytes) + self.encode_excess(longest, file_bytes)
    }

    /// Returns the bytes of memory that a clip's copied rows hold until they are on disk, and the number of samples of
    /// the longest row.
    pub(crate) fn taken_bytes(&self, taken: &TakenClip) -> (u64, usize) {
        let (n_rows, row_samples) = self.taken_rows_at_most(taken);
        let held = n_rows * self.row_held_bytes(row_samples);
        let file_bytes = file_bytes(taken);
        let excess = self.encode_excess(row_samples, file_bytes);
        let bytes = held + self.originals_bytes(file_bytes) + excess;
        (bytes, row_samples)
    }

    /// Returns the bytes of memory that a clip's copied rows hold while they are read: one feature at a time, with
    /// Parquet's pages and arrays in addition to the rows.
    pub(crate) fn taken_memory_bytes(&self, taken: &TakenClip) -> u64 {
        let (n_rows, row_samples) = self.taken_rows_at_most(taken);
        let largest = self.largest_tensor_bytes(row_samples, file_bytes(taken));
        let at_a_time = n_rows.min(TAKEN_BATCH_ROWS as u64);

        // Statistics may be computed from stored rows of their source: one row at a time, as numbers and sorted.
        let sources_bytes: u64 = self.sources_bytes(row_samples).sum();
        let largest_source = self.sources_bytes(row_samples).max().unwrap_or(0);
        let deriving = n_rows * sources_bytes + 2 * largest_source;
        let reading = TAKEN_COPIES * at_a_time * largest.max(largest_source);
        self.taken_bytes(taken).0 + reading + deriving
    }

    fn taken_rows_at_most(&self, taken: &TakenClip) -> (u64, usize) {
        let clip_s = self.clip_s(f64::from(taken.duration_s));
        self.rows_at_most(self.samples_at_most(clip_s))
    }

    /// Returns the bytes of `n_pcm` samples. A device reads them from the decoder's buffer. There are rates that a
    /// device does not convert; then the host converts them, and the resulting `n_out` samples are held in addition
    /// until the batch is done.
    fn pcm_bytes(&self, n_pcm: usize, n_out: usize) -> u64 {
        let n_converted = if self.keeps_rate() { n_out } else { 0 };
        ((n_pcm + n_converted) * size_of::<f32>()) as u64
    }

    /// Returns the bytes that rows of `rows_bytes` take while they are computed. A device stores them in memory that
    /// the next batch needs, so each row is copied into a buffer of its own.
    fn rows_computed_bytes(&self, rows_bytes: u64) -> u64 {
        rows_bytes * if self.is_batched() { 2 } else { 1 }
    }

    /// Returns the bytes of memory for a row group and for the clip that completes it.
    pub fn least_bytes(&self, row_group_rows: usize) -> u64 {
        // Without a limit on clip lengths there is no longest clip: each clip is checked separately when it is read.
        if !self.is_closed() {
            return 0;
        }
        let (_, row_samples) = self.rows_at_most(self.samples_at_most(self.audio.longest_s()));
        let group_bytes = (row_group_rows as u64).saturating_mul(self.row_held_bytes(row_samples));
        group_bytes.saturating_add(self.closed_memory_bytes(0))
    }

    /// Returns the bytes of one worker's tables and of its buffers whose size does not depend on clips.
    pub(crate) fn worker_bytes(&self) -> u64 {
        let kernels: usize = self.kernels_args().map(Cpu::plan_bytes).sum();
        let stretch = if self.audio.stretch.is_empty() {
            0
        } else {
            StretchPlan::BYTES
        };
        let meter = if self.args.contains(&TensorArgs::Sound(SoundArgs::Loudness)) {
            LoudnessMeter::BYTES
        } else {
            0
        };
        let models: usize = self
            .of_models()
            .map(|(_, model)| model.buffer_bytes())
            .sum();
        (kernels + stretch + models) as u64 + meter + PLANS_MAX as u64 * RESAMPLER_BYTES
    }

    /// Returns the bytes of the models, which all workers share.
    pub(crate) fn models_bytes(&self) -> u64 {
        self.of_models().map(|(_, model)| model.bytes()).sum()
    }

    /// Returns the arguments of the features that the kernels compute, including the sources of models.
    fn kernels_args(&self) -> impl Iterator<Item = &FeatureArgs> {
        let spectral = self.args.iter().filter_map(TensorArgs::spectral);
        spectral.chain(self.model_sources())
    }

    /// Returns the bytes of the longest stretched copy of a clip of `n_out` samples, including the zeros that are
    /// appended. Only one copy is held at a time, and at most two columns of its spectra.
    pub(crate) fn stretched_bytes(&self, n_out: usize, rows: &[Segment]) -> u64 {
        let copies = rows[plain(rows).len()..].chunk_by(|a, b| a.variant == b.variant);
        let lengths = copies.map(|copy| variant_len(n_out, copy[0].variant).max(end_of(copy)));
        (lengths.max().unwrap_or(0) * size_of::<f32>()) as u64
    }

    /// Like [`Self::stretched_bytes`], but before the clip's segments are known.
    fn stretched_at_most(&self, n_out: usize, row_samples: usize) -> u64 {
        let lengths = self.audio.stretch.iter();
        let lengths = lengths.map(|&factor| variant_len(n_out, factor) + row_samples);
        (lengths.max().unwrap_or(0) * size_of::<f32>()) as u64
    }

    /// Returns the bytes of the kernels' buffers for a row of `n_samples` samples.
    pub(crate) fn scratch_bytes(&self, n_samples: usize) -> u64 {
        let kernels = self.kernels_args();
        let kernels = kernels.map(|args| Cpu::scratch_bytes(args, n_samples));
        // A model's source is held as packed bytes and as values.
        let sources = self.model_sources();
        let sources = sources.map(|args| 2 * args.row_bytes(n_samples));
        kernels.chain(sources).sum::<usize>() as u64
    }

    /// Returns the bytes of the largest tensor of a row of `n_samples` samples, of a clip whose file has `file_bytes`.
    fn largest_tensor_bytes(&self, n_samples: usize, file_bytes: u64) -> u64 {
        let largest = self.tensor_bytes(n_samples).max().unwrap_or(0) as u64;
        match self.n_originals() {
            0 => largest,
            _ => largest.max(file_bytes),
        }
    }

    /// Returns the part of [`encode_bytes`] that exceeds the memory reserved for encoding.
    fn encode_excess(&self, n_samples: usize, file_bytes: u64) -> u64 {
        encode_bytes(self.largest_tensor_bytes(n_samples, file_bytes))
            .saturating_sub(self.encode_limit_bytes)
    }

    fn row_held_bytes(&self, n_samples: usize) -> u64 {
        self.row_bytes(n_samples) + ROW_BYTES + TENSOR_BYTES * self.entries.len() as u64
    }

    /// Returns the maximum number of rows of a clip of `n_out` samples in any split, and the number of samples of the
    /// longest row.
    fn rows_at_most(&self, n_out: usize) -> (u64, usize) {
        let mut n_rows = 0;
        let mut longest = 0;
        for variant in std::iter::once(&PLAIN).chain(&self.audio.stretch) {
            let (rows, row_samples) =
                self.variant_rows_at_most(variant_len(n_out, *variant), *variant);
            n_rows += rows;
            longest = longest.max(row_samples);
        }
        (n_rows, longest)
    }

    /// Like [`Self::rows_at_most`] for one variant, which has `n_out` samples.
    fn variant_rows_at_most(&self, n_out: usize, variant: f64) -> (u64, usize) {
        let Some(segment_s) = self.audio.segment_s else {
            // The whole clip is one row, padded to `duration_s` if the recipe sets it.
            let row_samples = match self.audio.duration_s {
                Some(seconds) => self.samples(seconds),
                None => n_out,
            };
            return (1, row_samples);
        };

        let segment = self.samples(segment_s).max(1);
        let hop = self.samples(self.audio.segment_hop_s.unwrap_or(segment_s));
        // The first segment and a padded last one are added to the number of hops.
        let rows = segments_at_most(&self.audio, variant).min(n_out / hop.max(1) + 2);
        (rows as u64, segment)
    }

    fn samples(&self, seconds: f64) -> usize {
        samples_in(seconds, self.audio.sample_rate_hz)
    }

    /// Returns the maximum number of samples in a clip of `seconds`. Resampling rounds up, so this is one more than the
    /// nearest number.
    fn samples_at_most(&self, seconds: f64) -> usize {
        self.samples(seconds) + 1
    }

    /// Returns the maximum length of a file in seconds within the recipe's limits, without decoding it.
    pub fn longest_s(&self, file: &[u8]) -> f64 {
        self.clip_s(decode::longest_s(file))
    }
}

#[cfg(test)]
mod tests {
    use wavemill_schemas::recipe::Recipe;

    use super::*;
    use crate::settings::Settings;

    fn plan(features: &[&str]) -> FeaturePlan {
        let mut text = "name = 't'\n[catalog]\ndataset = 'folders'\n".to_owned();
        for op in features {
            text += &format!("[[features]]\nname = 'f{}'\nop = '{op}'\n", text.len());
        }
        let recipe = Recipe::parse(&text, "test.toml", &[]).unwrap();
        FeaturePlan::new(&recipe, &Settings::default()).unwrap()
    }

    /// A stored file holds memory from decoding until its row is on disk, and samples hold as much as in the decoder.
    #[test]
    fn stored_files_and_samples_are_counted() {
        const FILE_BYTES: u64 = 1 << 30;
        let rows = [Segment {
            variant: PLAIN,
            number: 0,
            start: 0,
            len: 22_050,
        }];

        let mel = plan(&["mel"]);
        let with_files = plan(&["mel", "original", "original"]);
        let [without, with] = [&mel, &with_files].map(|plan| plan.rows_bytes(&rows, FILE_BYTES));
        // While a file is encoded, its page takes more than what is reserved for encoding.
        let encoding = encode_bytes(FILE_BYTES).saturating_sub(mel.encode_limit_bytes);
        assert!(with >= without + 2 * FILE_BYTES + encoding, "{with}");
        assert!(with_files.memory_bytes(FILE_BYTES, 1.0) >= with);
        assert!(with_files.memory_bytes(0, 1.0) < FILE_BYTES);
        assert!(with_files.computing_bytes(44_100, 22_050, &rows, FILE_BYTES) >= with);

        let [without, with] = [mel, plan(&["mel", "pcm"])].map(|plan| plan.rows_bytes(&rows, 0));
        let samples = 4 * 22_050;
        assert!((samples..2 * samples).contains(&(with - without)));
    }
}
