//! Converts a feature of a recipe to complete arguments: given options, and the preset's defaults for the others.

use crate::args::{FeatureArgs, Normalize};
use crate::constant_q::{C1_HZ, ChromaCqArgs, ChromaKind, ConstantQArgs};
use crate::db::LogArgs;
use crate::fault::{Fault, Faults};
use crate::mel::MelArgs;
use crate::mfcc::MfccArgs;
use crate::op::{FrameValues, Op, SpectralOp};
use crate::pack::Dtype;
use crate::preset::{Defaults, HopLength, TransformLength, WindowLength};
use crate::rhythm::{Aggregate, BeatArgs, OnsetArgs, TempoArgs, TempogramArgs};
use crate::shape::{ChromaArgs, ContrastArgs, ShapeArgs};
use crate::spec::{FeatureSpec, value};
use crate::stft::{Framing, N_FFT_MAX, PadMode, StftArgs, Window};

impl FeatureSpec {
    /// Resolves a spectral feature without checks. The result may be invalid and should only be used for checking.
    pub fn unchecked(&self, sample_rate_hz: u32) -> FeatureArgs {
        let mut args = self.with_all_parts(sample_rate_hz, &mut Faults::default());
        args.mel = args.mel.filter(|_| self.op.has_mel_bands());
        args.mfcc = args.mfcc.filter(|_| self.op.has_cepstra());
        args
    }

    /// Resolves the feature like [`FeatureSpec::unchecked`], but always with mel bands and cosine transform. An unknown
    /// word is a fault and is replaced by the preset's value, on which no rule depends.
    pub(crate) fn with_all_parts(&self, sample_rate_hz: u32, faults: &mut Faults) -> FeatureArgs {
        let defaults = self.preset.defaults();
        let op = self.op.spectral();
        let stft = match op.frame {
            // The window of a tempogram consists of frames.
            FrameValues::Spectrum if self.op == Op::Tempogram => {
                let transform = Self {
                    win_length: None,
                    ..self.clone()
                };
                stft_of(&transform, &op, &defaults, sample_rate_hz, faults)
            }
            FrameValues::Spectrum => stft_of(self, &op, &defaults, sample_rate_hz, faults),
            FrameValues::MeanSquare | FrameValues::ZeroCrossings => {
                frames_of(self, op.frame, faults)
            }
            FrameValues::ConstantQ => frames_of_filters(self),
        };
        let mel = mel_of(self, &defaults, sample_rate_hz, faults);
        let given_db = self.db.as_ref().map(|db| db.args(faults));
        let shape = shape_of(self, faults);
        let log = match &shape {
            Some(ShapeArgs::Contrast(contrast)) if contrast.linear => LogArgs::Linear,
            _ => given_db.map_or((op.log)(&defaults), LogArgs::Db),
        };
        let default_dtype = default_dtype(&op, log, self.normalize);

        FeatureArgs {
            op: self.op,
            sample_rate_hz,
            stft,
            power: self.power.unwrap_or((op.power)(&defaults)),
            // The operations on shapes have options of the same names with other rules.
            mel: (!self.op.is_shape()).then_some(mel),
            log,
            mfcc: Some(mfcc_of(self, &defaults)),
            shape,
            delta: self.delta.unwrap_or(0),
            frames: self.frames,
            normalize: self.normalize,
            dim_order: self.dim_order(faults),
            dtype: self.dtype.unwrap_or(default_dtype),
            derived: None,
        }
    }
}

fn stft_of(
    spec: &FeatureSpec,
    op: &SpectralOp,
    defaults: &Defaults,
    sample_rate_hz: u32,
    faults: &mut Faults,
) -> StftArgs {
    // Some presets derive the window's length from the transform's, others the transform's from the window's.
    let own_window = match defaults.win_length {
        WindowLength::Milliseconds(milliseconds) => Some(samples_in(milliseconds, sample_rate_hz)),
        WindowLength::Transform => None,
    };
    let n_fft = spec.n_fft.unwrap_or(match defaults.n_fft {
        TransformLength::Samples(samples) => samples,
        TransformLength::PowerOfTwo => {
            let window = spec.win_length.or(own_window).unwrap_or(N_FFT_MAX);
            // A window longer than the longest transform is reported as a fault elsewhere.
            window.min(N_FFT_MAX).next_power_of_two()
        }
    });
    let win_length = spec
        .win_length
        .unwrap_or(own_window.unwrap_or(n_fft).min(n_fft));

    let hop_length = spec.hop_length.unwrap_or(match (op.hop_length)(defaults) {
        HopLength::Samples(samples) => samples,
        HopLength::WindowOver(divisor) => win_length / divisor,
        HopLength::Milliseconds(milliseconds) => samples_in(milliseconds, sample_rate_hz),
    });

    // Parse all words, even of unused options, so that every unknown word is reported.
    let window = value(&spec.window, defaults.window, faults);
    let pad_mode = value(&spec.pad_mode, defaults.pad_mode, faults);
    let framing = if spec.center.unwrap_or(defaults.center) {
        Framing::Center(pad_mode)
    } else {
        defaults.uncentred
    };
    StftArgs {
        n_fft,
        hop_length,
        win_length,
        window,
        framing,
        scale: defaults.scale,
        remove_dc: defaults.remove_dc,
        preemphasis: defaults.preemphasis,
        n_samples: defaults.n_samples,
        drop_last_frame: defaults.drop_last_frame,
    }
}

/// Returns the framing of an operation on samples, with librosa's defaults.
fn frames_of(spec: &FeatureSpec, values: FrameValues, faults: &mut Faults) -> StftArgs {
    let length = spec.frame_length.unwrap_or(2048);
    // Zeros around a signal would add crossings, so librosa repeats its ends instead.
    let pad_mode = match values {
        FrameValues::ZeroCrossings => PadMode::Edge,
        FrameValues::MeanSquare | FrameValues::Spectrum | FrameValues::ConstantQ => {
            value(&spec.pad_mode, PadMode::Constant, faults)
        }
    };
    StftArgs {
        window: value(&spec.window, Window::Boxcar, faults),
        framing: match spec.center {
            Some(false) => Framing::Inside,
            _ => Framing::Center(pad_mode),
        },
        ..frames_without_window(spec, length)
    }
}

/// Returns the framing of a constant-Q transform. Its filters have lengths of their own, so only the hop length counts.
fn frames_of_filters(spec: &FeatureSpec) -> StftArgs {
    frames_without_window(spec, 2)
}

/// Returns centred frames of `length` samples, with librosa's default hop length.
fn frames_without_window(spec: &FeatureSpec, length: usize) -> StftArgs {
    StftArgs {
        n_fft: length,
        hop_length: spec.hop_length.unwrap_or(512),
        win_length: length,
        window: Window::Boxcar,
        framing: Framing::Center(PadMode::Constant),
        scale: 1,
        remove_dc: false,
        preemphasis: 0.0,
        n_samples: None,
        drop_last_frame: false,
    }
}

/// Returns the options of a constant-Q transform, with librosa's defaults.
fn constant_q_of(spec: &FeatureSpec) -> ConstantQArgs {
    ConstantQArgs {
        fmin: spec.fmin.unwrap_or(C1_HZ),
        n_bins: spec.n_bins.unwrap_or(84),
        bins_per_octave: spec.bins_per_octave.unwrap_or(12),
        tuning: Some(spec.tuning.unwrap_or(0.0)),
        filter_scale: spec.filter_scale.unwrap_or(1.0),
        gamma: Some(0.0),
    }
}

/// Returns the options of chroma from a constant-Q transform, with librosa's defaults.
fn chroma_cq_of(spec: &FeatureSpec, kind: ChromaKind) -> ChromaCqArgs {
    let bins_per_octave = spec.bins_per_octave.unwrap_or(36);
    let n_octaves = spec.n_octaves.unwrap_or(7);
    ChromaCqArgs {
        constant_q: ConstantQArgs {
            n_bins: n_octaves.saturating_mul(bins_per_octave),
            bins_per_octave,
            tuning: spec.tuning,
            ..constant_q_of(spec)
        },
        n_chroma: spec.n_chroma.unwrap_or(12),
        win_len_smooth: match kind {
            ChromaKind::Cqt => None,
            ChromaKind::Cens => Some(spec.win_len_smooth.unwrap_or(41)),
        },
    }
}

/// Returns the options of the onset strength, with librosa's defaults.
fn onset_of(spec: &FeatureSpec, aggregate: Aggregate, faults: &mut Faults) -> OnsetArgs {
    OnsetArgs {
        lag: spec.lag.unwrap_or(1),
        aggregate: value(&spec.aggregate, aggregate, faults),
    }
}

/// Returns the options of an operation on the shape of a spectrum, with librosa's defaults.
fn shape_of(spec: &FeatureSpec, faults: &mut Faults) -> Option<ShapeArgs> {
    Some(match spec.op {
        Op::SpectralBandwidth => ShapeArgs::Bandwidth {
            p: spec.p.unwrap_or(2.0),
        },
        Op::SpectralContrast => ShapeArgs::Contrast(ContrastArgs {
            fmin: spec.fmin.unwrap_or(200.0),
            n_bands: spec.n_bands.unwrap_or(6),
            quantile: spec.quantile.unwrap_or(0.02),
            linear: spec.linear.unwrap_or(false),
        }),
        Op::SpectralFlatness => ShapeArgs::Flatness {
            amin: spec.amin.unwrap_or(1e-10),
        },
        Op::SpectralRolloff => ShapeArgs::Rolloff {
            roll_percent: spec.roll_percent.unwrap_or(0.85),
        },

        Op::ChromaStft => ShapeArgs::Chroma(ChromaArgs {
            n_chroma: spec.n_chroma.unwrap_or(12),
            tuning: spec.tuning,
        }),
        Op::OnsetStrength => ShapeArgs::Onset(onset_of(spec, Aggregate::Mean, faults)),
        Op::Tempogram => ShapeArgs::Tempogram(TempogramArgs {
            onset: onset_of(spec, Aggregate::Mean, faults),
            win_length: spec.win_length.unwrap_or(384),
        }),
        Op::BeatTrack => ShapeArgs::Beats(BeatArgs {
            onset: onset_of(spec, Aggregate::Median, faults),
            start_bpm: spec.start_bpm.unwrap_or(TempoArgs::LIBROSA.start_bpm),
            tightness: spec.tightness.unwrap_or(100.0),
            trim: spec.trim.unwrap_or(true),
        }),

        Op::Cqt => ShapeArgs::Cqt(constant_q_of(spec)),
        Op::Vqt => ShapeArgs::Vqt(ConstantQArgs {
            gamma: spec.gamma,
            ..constant_q_of(spec)
        }),
        Op::ChromaCqt => ShapeArgs::ChromaCqt(chroma_cq_of(spec, ChromaKind::Cqt)),
        Op::ChromaCens => ShapeArgs::ChromaCens(chroma_cq_of(spec, ChromaKind::Cens)),
        Op::Tonnetz => {
            let kind = value(&spec.chroma, ChromaKind::Cqt, faults);
            if kind == ChromaKind::Cqt && spec.win_len_smooth.is_some() {
                let problem = "only chroma = \"cens\" is smoothed; allowed: no such key, or chroma = \"cens\"";
                faults.push(Fault::new("win_len_smooth", problem));
            }
            ShapeArgs::Tonnetz(chroma_cq_of(spec, kind))
        }
        _ => return None,
    })
}

/// Converts a duration to whole samples, rounded down.
fn samples_in(milliseconds: usize, sample_rate_hz: u32) -> usize {
    sample_rate_hz as usize * milliseconds / 1000
}

fn mel_of(
    spec: &FeatureSpec,
    defaults: &Defaults,
    sample_rate_hz: u32,
    faults: &mut Faults,
) -> MelArgs {
    MelArgs {
        n_mels: spec.n_mels.unwrap_or(defaults.n_mels),
        fmin: spec.fmin.unwrap_or(defaults.fmin),
        fmax: spec.fmax.unwrap_or(f64::from(sample_rate_hz) / 2.0),
        htk: spec.htk.unwrap_or(defaults.htk),
        norm: value(&spec.norm, defaults.norm, faults),
        ramp: defaults.ramp,
    }
}

fn mfcc_of(spec: &FeatureSpec, defaults: &Defaults) -> MfccArgs {
    let lifter = spec.lifter.unwrap_or(defaults.lifter);
    // Without a lifter, `lifter_from` has no effect, so features that differ only in it must have equal arguments.
    let lifter_from = if lifter == 0.0 {
        1
    } else {
        defaults.lifter_from
    };
    MfccArgs {
        n_mfcc: spec.n_mfcc.unwrap_or(defaults.n_mfcc),
        dct_type: spec.dct_type.unwrap_or(defaults.dct_type),
        lifter,
        lifter_from,
    }
}

/// Returns the default stored type: f16 for decibels and normalized values, otherwise f32. Linear values overflow f16,
/// and f16 is too imprecise for cepstra and Kaldi's logarithm.
fn default_dtype(op: &SpectralOp, log: LogArgs, normalize: Normalize) -> Dtype {
    let is_scaled = matches!(normalize, Normalize::MinMax | Normalize::MeanVar);
    let is_decibels = matches!(log, LogArgs::Db(_) | LogArgs::Whisper);
    if op.f16_rounds.is_none() && (is_decibels || is_scaled) {
        Dtype::F16
    } else {
        Dtype::F32
    }
}

#[cfg(test)]
mod tests {
    use wavemill_tests::options;

    use super::*;
    use crate::{DbArgs, DbRef, DbSpec, DimOrder, Fault, Op, Packing, Preset};

    fn resolve(op: Op, preset: Preset, overrides: &FeatureSpec) -> Result<FeatureArgs, Fault> {
        let spec = options!(op, preset; overrides.clone());
        spec.resolve(&[], 16_000)
    }

    #[test]
    fn an_explicit_default_equals_an_implied_one() {
        let none = FeatureSpec::default();
        let mel = options!(n_fft: 2048, win_length: 2048, fmax: 8000.0);

        let implied = resolve(Op::Mel, Preset::Librosa, &none).unwrap();
        let explicit = resolve(Op::Mel, Preset::Librosa, &mel).unwrap();
        assert_eq!(
            serde_json::to_string(&explicit).unwrap(),
            serde_json::to_string(&implied).unwrap()
        );

        let mfcc = options!(db: DbSpec::from(DbArgs::default()), lifter: 0.0);
        let explicit = resolve(Op::Mfcc, Preset::Librosa, &mfcc).unwrap();
        assert_eq!(explicit, resolve(Op::Mfcc, Preset::Librosa, &none).unwrap());
    }

    #[test]
    fn invalid_options_name_their_key() {
        fn db(reference: DbRef, amin: f64) -> Option<DbSpec> {
            let args = DbArgs {
                reference,
                amin,
                top_db: Some(80.0),
            };
            Some(args.into())
        }

        for (op, key, overrides) in [
            (Op::Mel, "n_fft", options!(n_fft: 1)),
            (Op::Mel, "hop_length", options!(hop_length: 0)),
            (Op::Mel, "win_length", options!(win_length: 4096)),
            (Op::Mel, "fmax", options!(fmax: 8000.1)),
            (Op::Mel, "fmax", options!(fmin: 500.0, fmax: 500.0)),
            (Op::Mel, "fmin", options!(fmin: f64::NAN)),
            (Op::Mel, "power", options!(power: 0.0)),
            (Op::Mel, "n_mels", options!(n_mels: 0)),
            (Op::Mel, "db.amin", options!(db: db(DbRef::Max, 0.0))),
            (
                Op::Mel,
                "db.ref",
                options!(db: db(DbRef::Power(-1.0), 1e-10)),
            ),
            (Op::Mel, "dtype", options!(dtype: Dtype::F16)),
            (Op::Mfcc, "dtype", options!(dtype: Dtype::U8)),
            (Op::Mfcc, "n_mfcc", options!(n_mfcc: 129)),
            (Op::Mfcc, "dct_type", options!(dct_type: 4)),
            (Op::Mfcc, "delta", options!(delta: 3)),
            (Op::Mfcc, "frames", options!(delta: 1, frames: 8)),
            (
                Op::Mel,
                "frames",
                options!(frames: 1 << 20, hop_length: 1 << 12),
            ),
            (Op::Stft, "n_mels", options!(n_mels: 40)),
            (Op::Mel, "lifter", options!(lifter: 22.0)),
        ] {
            let error = resolve(op, Preset::Librosa, &overrides)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(&format!("{key}: ")), "{error}");
        }

        let at_another_rate = options!(preset: Preset::Whisper);
        assert!(at_another_rate.resolve(&[], 22_050).is_err());
    }

    #[test]
    fn shapes_and_types_follow() {
        let db = DbArgs {
            reference: DbRef::Max,
            ..DbArgs::default()
        };
        let spec = options!(
            db: DbSpec::from(db), dim_order: "frame,mel".to_owned(), dtype: Dtype::U8
        );
        let args = spec.resolve(&[], 22_050).unwrap();

        assert_eq!(
            (args.shape(661_500), args.dim_names()),
            (vec![1292, 128], vec!["frame", "mel"])
        );
        assert_eq!(
            args.packing().unwrap(),
            Packing::U8 {
                low: -80.0,
                high: 0.0
            }
        );

        let whisper = resolve(Op::Mel, Preset::Whisper, &FeatureSpec::default()).unwrap();
        assert_eq!(
            (whisper.shape(9), whisper.shape(1 << 20), whisper.dtype),
            (vec![80, 3000], vec![80, 3000], Dtype::F16)
        );

        assert!(DimOrder::parse("frame,bin", Op::Mel).is_err());
    }
}
