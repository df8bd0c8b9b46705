//! Computes the tensors of all features of audio: those of spectra by the kernels of a backend, samples and models on
//! the host.

use std::ops::Range;

use wavemill_kernels::resample::Resamplers;
use wavemill_kernels::{
    Backend, Clip, FeatureArgs, KernelError, Packing, Plan, Row, SampleBuffer, Samples, pack_into,
    pack_s16,
};
use wavemill_schemas::recipe::{Dtype, SoundArgs, TensorArgs};

use super::FeaturePlan;
use super::loudness::LoudnessMeter;
use crate::onnx::{ModelPlan, TensorError};

/// Mono samples of a clip or of a stretched copy, and the ranges of its rows.
pub(super) struct Decoded<'a> {
    /// The samples; zeros or further input of the resampling filter may follow after the clip's end.
    pub samples: &'a [f32],
    /// Sample rate of `samples`: the recipe's, or that of the file for a device.
    pub sample_rate_hz: u32,
    /// Number of samples of the clip at the recipe's rate. Rows that extend further end with zeros.
    pub n_samples: usize,
    /// Ranges of the rows in samples at the recipe's rate.
    pub rows: &'a [Range<usize>],
}

/// Reason why a row has no tensors.
#[derive(Debug)]
pub(crate) enum RowError {
    /// An error that concerns no particular feature.
    Row(KernelError),
    /// An error of one feature.
    Feature {
        /// Index of the feature in the recipe.
        place: usize,
        /// The error of this feature.
        source: TensorError,
    },
}

/// Kernels and buffers for the features of a plan.
pub(super) struct AudioPlan {
    /// Kernels of the features that are computed from spectra; `None` if there are none.
    kernels: Option<Box<dyn Plan>>,
    /// Origin of each feature's tensors, in the recipe's order.
    origins: Vec<Origin>,
    sample_rate_hz: u32,
    /// Conversions to the recipe's rate, for clips that a device converts for its own features.
    resamplers: Resamplers,
    meter: LoudnessMeter,
    /// Models, in the order of their features.
    models: Vec<ModelPlan>,
    /// Number of features whose tensors the kernels compute. Behind them, the kernels compute the sources of models.
    n_of_kernels: usize,
    /// Values of a model's source.
    values: Vec<f32>,
}

/// Origin of the tensors of a feature.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Origin {
    /// The kernels compute them.
    Kernels,
    /// They are the samples of a row, in this type.
    Samples(Dtype),
    /// They are numbers of the row's loudness.
    Loudness,
    /// They are the clip's file, which the caller has.
    File,
    /// A model computes them: from samples, or from a tensor of the kernels.
    Model { has_source: bool },
}

impl Origin {
    fn from_args(args: &TensorArgs) -> Self {
        match args {
            TensorArgs::Spectral(_) => Self::Kernels,
            TensorArgs::Sound(SoundArgs::Pcm { dtype }) => Self::Samples(*dtype),
            TensorArgs::Sound(SoundArgs::Loudness) => Self::Loudness,
            TensorArgs::Sound(SoundArgs::Original) | TensorArgs::Image(_) => Self::File,
            TensorArgs::Onnx(args) => Self::Model {
                has_source: args.source.is_some(),
            },
        }
    }
}

impl AudioPlan {
    /// Creates the kernels and buffers for one worker, or for one lane of `backend`.
    pub(super) fn new(
        plan: &FeaturePlan,
        backend: &dyn Backend,
        lane: usize,
    ) -> Result<Self, KernelError> {
        let spectral = plan.args.iter().filter_map(TensorArgs::spectral);
        let mut spectral: Vec<FeatureArgs> = spectral.cloned().collect();
        let n_of_kernels = spectral.len();
        spectral.extend(plan.model_sources().cloned());
        let mut kernels = match spectral.is_empty() {
            true => None,
            false => Some(backend.plan(lane, &spectral)?),
        };
        if let Some(kernels) = &mut kernels {
            kernels.reuse(plan.spare_tensors());
        }

        let sample_rate_hz = plan.audio.sample_rate_hz;
        Ok(Self {
            kernels,
            origins: plan.args.iter().map(Origin::from_args).collect(),
            sample_rate_hz,
            resamplers: Resamplers::new(sample_rate_hz, plan.level),
            meter: LoudnessMeter::new(sample_rate_hz),
            models: plan.model_plans(),
            n_of_kernels,
            values: Vec::new(),
        })
    }

    /// Frees buffers that grew with the size of the last clip.
    pub(super) fn forget_scratch(&mut self) {
        if let Some(kernels) = &mut self.kernels {
            kernels.forget_scratch();
        }
        for model in &mut self.models {
            model.forget_scratch();
        }
        self.values = Vec::new();
    }

    /// Computes every row of every clip, in order, like [`Plan::run`]. The tensors of features that contain files are
    /// empty.
    ///
    /// # Errors
    /// Errors of the device, and of sample rates that cannot be converted.
    pub(super) fn run(
        &mut self,
        clips: &[Decoded<'_>],
    ) -> Result<Vec<Result<Row, RowError>>, KernelError> {
        let computed = match &mut self.kernels {
            Some(kernels) => {
                let clips: Vec<Clip<'_>> = clips.iter().map(as_clip).collect();
                kernels.run(&clips)?
            }
            None => Vec::new(),
        };
        if self.origins.iter().all(|origin| *origin == Origin::Kernels) {
            let computed = computed.into_iter();
            return Ok(computed
                .map(|row| row.map_err(|error| self.with_own_place(error)))
                .collect());
        }

        let mut computed = computed.into_iter();
        let mut rows = Vec::new();
        for clip in clips {
            let converted = self.converted(clip)?;
            let samples = converted.as_deref().unwrap_or(clip.samples);
            let samples = &samples[..clip.n_samples.min(samples.len())];

            for range in clip.rows {
                let end = range.end.min(samples.len());
                let of_row = &samples[range.start.min(end)..end];
                // Without kernels, all tensors come from this function.
                let row = computed.next().unwrap_or_else(|| {
                    Ok(Row {
                        silent: of_row.iter().all(|sample| *sample == 0.0),
                        tensors: Vec::new(),
                    })
                });
                rows.push(self.completed(row, of_row, range.len()));
            }
        }
        Ok(rows)
    }

    /// Converts the samples of a clip to the recipe's rate; `None` if they have this rate, or if no feature needs them.
    fn converted(&mut self, clip: &Decoded<'_>) -> Result<Option<SampleBuffer>, KernelError> {
        let are_needed = self
            .origins
            .iter()
            .any(|origin| !matches!(origin, Origin::Kernels | Origin::File));
        if clip.sample_rate_hz == self.sample_rate_hz || !are_needed {
            return Ok(None);
        }

        let resampler = self.resamplers.select(clip.sample_rate_hz)?;
        let args = resampler.args();
        let n_out = args.output_len(clip.samples.len() as u64) as usize;
        // Reserve exactly the required capacity: a buffer that grows by doubling takes up to twice as much.
        let mut out = SampleBuffer::default();
        out.clear_for(n_out + args.step_len());
        resampler.push(clip.samples, &mut out);
        resampler.finish(&mut out);
        Ok(Some(out))
    }

    /// Adds the tensors of samples and files to a row of the kernels. `samples` are those of the row's `n_samples` that
    /// precede the end of the clip.
    fn completed(
        &mut self,
        row: Result<Row, KernelError>,
        samples: &[f32],
        n_samples: usize,
    ) -> Result<Row, RowError> {
        let mut row = row.map_err(|error| self.with_own_place(error))?;
        let n_of_kernels = self.n_of_kernels.min(row.tensors.len());
        let mut sources = row.tensors.split_off(n_of_kernels).into_iter();
        let mut of_kernels = row.tensors.into_iter();
        let mut models = self.models.iter_mut();

        let mut tensors = Vec::with_capacity(self.origins.len());
        for (place, origin) in self.origins.iter().enumerate() {
            let computed = match origin {
                Origin::Kernels => Ok(of_kernels.next().unwrap_or_default()),
                Origin::Samples(dtype) => {
                    packed(samples, n_samples, *dtype).map_err(TensorError::from)
                }
                Origin::Loudness => Ok(self.meter.measure(samples)),
                Origin::File => Ok(Vec::new()),
                Origin::Model { has_source } => {
                    let model = models.next().expect("a model per feature of that origin");
                    if *has_source {
                        let source = sources.next().unwrap_or_default();
                        let (numbers, _) = source.as_chunks();
                        self.values.clear();
                        let numbers = numbers.iter().map(|&bytes| f32::from_le_bytes(bytes));
                        self.values.extend(numbers);
                        model.run(&self.values)
                    } else {
                        model.run(samples)
                    }
                }
            };
            tensors.push(computed.map_err(|error| at_place(place, error))?);
        }
        Ok(Row { tensors, ..row })
    }

    /// Replaces the index of a feature among those of the kernels by its index in the recipe.
    fn with_own_place(&self, error: KernelError) -> RowError {
        let KernelError::Feature { place, source } = error else {
            return RowError::Row(error);
        };
        let (wanted, number) = match place.checked_sub(self.n_of_kernels) {
            None => (Origin::Kernels, place),
            Some(number) => (Origin::Model { has_source: true }, number),
        };
        let origins = self.origins.iter().enumerate();
        let mut alike = origins.filter(|(_, origin)| **origin == wanted);
        let place = alike.nth(number).map_or(place, |(place, _)| place);
        let source = TensorError::Kernel(*source);
        RowError::Feature { place, source }
    }
}

/// Adds the index of the feature in the recipe to an error, unless it concerns the clip.
fn at_place(place: usize, error: TensorError) -> RowError {
    match error {
        TensorError::Kernel(error @ KernelError::TooFewFrames { .. }) => RowError::Row(error),
        source => RowError::Feature { place, source },
    }
}

fn as_clip<'a>(decoded: &Decoded<'a>) -> Clip<'a> {
    Clip {
        samples: Samples::F32(decoded.samples),
        channels: 1,
        sample_rate_hz: decoded.sample_rate_hz,
        rows: decoded.rows,
    }
}

/// Returns the tensor of a row of `n_samples`, which begins with `samples` and ends with zeros.
fn packed(samples: &[f32], n_samples: usize, dtype: Dtype) -> Result<Vec<u8>, KernelError> {
    let mut bytes = Vec::with_capacity(n_samples * dtype.bytes());
    if dtype == Dtype::S16 {
        pack_s16(samples, &mut bytes);
    } else {
        pack_into(samples, Packing::F32, &mut bytes)?;
    }

    // In both types, the bytes of the number 0 are zeros.
    bytes.resize(n_samples * dtype.bytes(), 0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use wavemill_decode::{Decode, DecodeArgs, FileDecoder, Pcm};
    use wavemill_kernels::Level;
    use wavemill_schemas::recipe::Recipe;
    use wavemill_store::plan::segments::{Segment, end_of, segments};

    use super::super::Extractor;
    use super::*;
    use crate::settings::Settings;

    const FROM_HZ: u32 = 44_100;

    /// Returns a plan of samples in both types. `audio` are lines of the section `audio`.
    fn plan(audio: &str) -> FeaturePlan {
        let text = format!(
            "name = 't'\n[catalog]\ndataset = 'folders'\n[audio]\nsample_rate_hz = 22050\n{audio}\n\
             [[features]]\nname = 'wave'\nop = 'pcm'\n[[features]]\nname = 'short'\nop = 'pcm'\ndtype = 's16'\n"
        );
        let recipe = Recipe::parse(&text, "test.toml", &[]).unwrap();
        FeaturePlan::new(&recipe, &Settings::default()).unwrap()
    }

    /// Returns a mono WAVE file of 16 bits with a second of a tone that exceeds full scale after resampling.
    fn file() -> Vec<u8> {
        let samples = (0..FROM_HZ).map(|i| {
            let tone = (f64::from(i) * TAU * 4_000.0 / f64::from(FROM_HZ)).sin();
            // A clipped tone overshoots when its harmonics are removed.
            (1.6 * tone).clamp(-1.0, 1.0) * 32_767.0
        });
        let samples: Vec<u8> = samples.flat_map(|x| (x as i16).to_le_bytes()).collect();
        let n_bytes = samples.len() as u32;

        let mut file = b"RIFF".to_vec();
        file.extend((36 + n_bytes).to_le_bytes());
        file.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        file.extend(FROM_HZ.to_le_bytes());
        file.extend((2 * FROM_HZ).to_le_bytes());
        file.extend(b"\x02\0\x10\0data");
        file.extend(n_bytes.to_le_bytes());
        file.extend(samples);
        file
    }

    fn decoded(plan: &FeaturePlan, keep_rate: bool) -> Pcm {
        let args = DecodeArgs {
            sample_rate_hz: plan.audio.sample_rate_hz,
            duration_s: plan.audio.duration_s,
            min_duration_s: plan.audio.min_duration_s,
            keep_rate,
        };
        let mut pcm = Pcm::default();
        let mut decoder = FileDecoder::new(args, Level::detect()).unwrap();
        decoder.decode("wav", &file(), &mut pcm).unwrap();
        pcm
    }

    fn rows(extractor: &mut Extractor, pcm: &Pcm, segments: &[Segment]) -> Vec<Row> {
        let computed = extractor.run(&[(pcm, segments)]).unwrap().remove(0);
        computed.into_iter().map(Result::unwrap).collect()
    }

    /// Rows contain the decoder's samples in f32, and the nearest of 16 bits; zeros follow the end of the clip.
    #[test]
    fn rows_contain_the_decoded_samples() {
        let plan = plan("min_duration_s = 0.1\nsegment_s = 0.4\nsegment_min_s = 0.1");
        let mut pcm = decoded(&plan, false);
        let n_samples = pcm.n_samples;
        let segments = segments(&plan.audio, n_samples);
        assert_eq!(segments.len(), 3);
        assert!(end_of(&segments) > n_samples, "the last row ends behind it");

        let mut extractor = plan.extractor(0).unwrap();
        let rows = rows(&mut extractor, &pcm, &segments);
        pcm.samples.pad_to(end_of(&segments), 0.0);
        let mut loudest = 0.0_f32;
        for (segment, row) in segments.iter().zip(&rows) {
            let wanted = &pcm.samples[segment.start..][..segment.len];
            let floats: Vec<u8> = wanted.iter().flat_map(|x| x.to_le_bytes()).collect();
            assert!(row.tensors[0] == floats, "{segment:?}");
            assert!(!row.silent);

            for (stored, wanted) in row.tensors[1].chunks_exact(2).zip(wanted) {
                let stored = i16::from_le_bytes([stored[0], stored[1]]);
                let steps = (wanted * 32_768.0).clamp(-32_768.0, 32_767.0);
                assert!(
                    (f32::from(stored) - steps).abs() <= 0.5,
                    "{stored}, {steps}"
                );
                loudest = loudest.max(wanted.abs());
            }
        }
        assert!(loudest > 1.0, "{loudest}");
    }

    /// A device converts the sample rate itself, so the host converts it for the features that contain samples.
    #[test]
    fn samples_at_the_file_s_rate_give_the_same_rows() {
        for audio in [
            "",
            "duration_s = 1.0",
            "duration_s = 0.7\nmin_duration_s = 0.1",
        ] {
            let plan = plan(&format!("{audio}\n"));
            let converted = decoded(&plan, false);
            let kept = decoded(&plan, true);
            assert_eq!(
                (kept.rate_hz, kept.n_samples),
                (FROM_HZ, converted.n_samples)
            );

            let segments = segments(&plan.audio, kept.n_samples);
            let mut extractor = plan.extractor(0).unwrap();
            let wanted = rows(&mut extractor, &converted, &segments);
            assert!(rows(&mut extractor, &kept, &segments) == wanted, "{audio}");
        }
    }

    #[test]
    fn errors_of_kernels_name_the_feature_of_the_recipe() {
        let origins = [Origin::File, Origin::Kernels, Origin::File, Origin::Kernels];
        let plan = AudioPlan {
            kernels: None,
            origins: origins.to_vec(),
            sample_rate_hz: 8_000,
            resamplers: Resamplers::new(8_000, Level::Scalar),
            meter: LoudnessMeter::new(8_000),
            models: Vec::new(),
            n_of_kernels: 2,
            values: Vec::new(),
        };
        for (place, own) in [(0, 1), (1, 3)] {
            let source = KernelError::TooFewFrames {
                frames: 1,
                needed: 9,
            };
            let error = KernelError::Feature {
                place,
                source: Box::new(source),
            };
            match plan.with_own_place(error) {
                RowError::Feature { place, .. } => assert_eq!(place, own),
                RowError::Row(other) => panic!("{other}"),
            }
        }
    }
}
