//! Resolves a preset and overrides to the arguments of a feature.

use crate::args::{FeatureArgs, Normalize, Op};
use crate::db::LogArgs;
use crate::fault::{Fault, Faults};
use crate::mel::MelArgs;
use crate::mfcc::MfccArgs;
use crate::overrides::Overrides;
use crate::pack::Dtype;
use crate::preset::{Defaults, HopLength, Preset, TransformLength, WindowLength};
use crate::stft::{Framing, N_FFT_MAX, StftArgs};

impl Overrides {
    /// Returns all faults of the given options.
    ///
    /// Values that follow from the options may be impossible too, which [`FeatureArgs::validate`] reports. Call it
    /// only if this function returns an empty list, because one invalid option can make other values invalid.
    pub fn faults(&self, op: Op, preset: Preset, sample_rate_hz: u32) -> Vec<Fault> {
        let keys = self.keys();
        let mut faults = Faults::default();

        // Reject an option without effect: its author expects one.
        for key in &keys {
            let has_effect = !key.is_given || key.ops.contains(&op);
            let problem = format!("op = \"{}\" does not use it", op.name());
            faults.unless(has_effect, key.name, problem);
        }
        preset.check(op, sample_rate_hz, &mut faults);

        // Report an impossible value even if the operation does not support the option: create all parts.
        let mut args = FeatureArgs::unchecked(op, preset, sample_rate_hz, self);
        let defaults = preset.defaults();
        args.mel = Some(mel_of(&defaults, sample_rate_hz, self));
        args.mfcc = Some(mfcc_of(&defaults, self));

        let mut of_args = Faults::default();
        args.check(&mut of_args);
        for fault in of_args.into_vec() {
            // `db.top_db` is given if `db` is.
            let name = fault.key.split('.').next().unwrap_or_default();
            if keys.iter().any(|key| key.is_given && key.name == name) {
                faults.push(fault);
            }
        }
        faults.into_vec()
    }
}

impl FeatureArgs {
    /// Resolves the feature `op` with the defaults of `preset`, replaced by `overrides`, for PCM of `sample_rate_hz`.
    ///
    /// Defaults that depend on another option use its overridden value: `win_length` depends on `n_fft`, and `fmax` on
    /// the sample rate.
    ///
    /// # Errors
    /// A [`Fault`] with the option and its allowed values, also for options that the operation does not support.
    pub fn resolve(
        op: Op,
        preset: Preset,
        sample_rate_hz: u32,
        overrides: &Overrides,
    ) -> Result<Self, Fault> {
        let faults = overrides.faults(op, preset, sample_rate_hz);
        if let Some(fault) = faults.into_iter().next() {
            return Err(fault);
        }

        let args = Self::unchecked(op, preset, sample_rate_hz, overrides);
        args.validate().map(|()| args)
    }

    /// Resolves a feature like [`FeatureArgs::resolve`], but without checks. The result may be invalid and should only
    /// be used for checking.
    pub fn unchecked(op: Op, preset: Preset, sample_rate_hz: u32, overrides: &Overrides) -> Self {
        let defaults = preset.defaults();
        let has_bands = op.has_mel_bands();
        let log = log_of(op, &defaults, overrides);

        let default_power = match op {
            Op::Stft => defaults.stft_power,
            Op::Mel | Op::Mfcc => defaults.power,
        };
        let dtype = overrides
            .dtype
            .unwrap_or(default_dtype(op, log, overrides.normalize));

        Self {
            op,
            sample_rate_hz,
            stft: stft_of(op, &defaults, sample_rate_hz, overrides),
            power: overrides.power.unwrap_or(default_power),
            mel: has_bands.then(|| mel_of(&defaults, sample_rate_hz, overrides)),
            log,
            mfcc: op.has_cepstra().then(|| mfcc_of(&defaults, overrides)),
            delta: overrides.delta.unwrap_or(0),
            frames: overrides.frames,
            normalize: overrides.normalize,
            dim_order: overrides.dim_order,
            dtype,
            derived: None,
        }
    }
}

fn stft_of(op: Op, defaults: &Defaults, sample_rate_hz: u32, o: &Overrides) -> StftArgs {
    // Depending on the preset, the window's length follows from the transform's, or the other way round.
    let own_window = match defaults.win_length {
        WindowLength::Milliseconds(milliseconds) => Some(samples_in(milliseconds, sample_rate_hz)),
        WindowLength::Transform => None,
    };
    let n_fft = o.n_fft.unwrap_or(match defaults.n_fft {
        TransformLength::Samples(samples) => samples,
        TransformLength::PowerOfTwo => {
            let window = o.win_length.or(own_window).unwrap_or(N_FFT_MAX);
            // A window longer than any transform has a fault of its own.
            window.min(N_FFT_MAX).next_power_of_two()
        }
    });
    let win_length = o
        .win_length
        .unwrap_or(own_window.unwrap_or(n_fft).min(n_fft));

    let default_hop = match op {
        Op::Stft => &defaults.stft_hop_length,
        Op::Mel | Op::Mfcc => &defaults.hop_length,
    };
    let hop_length = o.hop_length.unwrap_or(match default_hop {
        HopLength::Samples(samples) => *samples,
        HopLength::WindowOver(divisor) => win_length / divisor,
        HopLength::Milliseconds(milliseconds) => samples_in(*milliseconds, sample_rate_hz),
    });

    let framing = if o.center.unwrap_or(defaults.center) {
        Framing::Center(o.pad_mode.unwrap_or(defaults.pad_mode))
    } else {
        defaults.uncentred
    };
    StftArgs {
        n_fft,
        hop_length,
        win_length,
        window: o.window.unwrap_or(defaults.window),
        framing,
        scale: defaults.scale,
        remove_dc: defaults.remove_dc,
        preemphasis: defaults.preemphasis,
        n_samples: defaults.n_samples,
        drop_last_frame: defaults.drop_last_frame,
    }
}

/// Converts a duration to whole samples, rounded down.
fn samples_in(milliseconds: usize, sample_rate_hz: u32) -> usize {
    sample_rate_hz as usize * milliseconds / 1000
}

fn mel_of(defaults: &Defaults, sample_rate_hz: u32, o: &Overrides) -> MelArgs {
    MelArgs {
        n_mels: o.n_mels.unwrap_or(defaults.n_mels),
        fmin: o.fmin.unwrap_or(defaults.fmin),
        fmax: o.fmax.unwrap_or(f64::from(sample_rate_hz) / 2.0),
        htk: o.htk.unwrap_or(defaults.htk),
        norm: o.norm.unwrap_or(defaults.norm),
        ramp: defaults.ramp,
    }
}

fn log_of(op: Op, defaults: &Defaults, o: &Overrides) -> LogArgs {
    if let Some(db) = o.db {
        return LogArgs::Db(db);
    }
    match op {
        Op::Stft => LogArgs::Linear,
        Op::Mel => defaults.mel_log,
        Op::Mfcc => defaults.mfcc_log,
    }
}

fn mfcc_of(defaults: &Defaults, o: &Overrides) -> MfccArgs {
    let lifter = o.lifter.unwrap_or(defaults.lifter);
    // Without a lifter, `lifter_from` has no effect, so it must not distinguish features.
    let lifter_from = if lifter == 0.0 {
        1
    } else {
        defaults.lifter_from
    };
    MfccArgs {
        n_mfcc: o.n_mfcc.unwrap_or(defaults.n_mfcc),
        dct_type: o.dct_type.unwrap_or(defaults.dct_type),
        lifter,
        lifter_from,
    }
}

/// Returns f16 for decibels and normalized values. Linear values overflow f16, and its precision is too low for cepstra
/// and Kaldi's logarithm.
fn default_dtype(op: Op, log: LogArgs, normalize: Normalize) -> Dtype {
    let is_scaled = matches!(normalize, Normalize::MinMax | Normalize::MeanVar);
    let is_decibels = matches!(log, LogArgs::Db(_) | LogArgs::Whisper);
    match op {
        Op::Stft | Op::Mel if is_decibels || is_scaled => Dtype::F16,
        Op::Stft | Op::Mel | Op::Mfcc => Dtype::F32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DbArgs, DbRef, DimOrder, Packing};

    fn resolve(op: Op, preset: Preset, overrides: &Overrides) -> Result<FeatureArgs, Fault> {
        FeatureArgs::resolve(op, preset, 16_000, overrides)
    }

    #[test]
    fn an_explicit_default_equals_an_implied_one() {
        let none = Overrides::default();
        let mel = Overrides {
            n_fft: Some(2048),
            win_length: Some(2048),
            fmax: Some(8000.0),
            ..none.clone()
        };

        let implied = resolve(Op::Mel, Preset::Librosa, &none).unwrap();
        let explicit = resolve(Op::Mel, Preset::Librosa, &mel).unwrap();
        assert_eq!(
            serde_json::to_string(&explicit).unwrap(),
            serde_json::to_string(&implied).unwrap()
        );

        let mfcc = Overrides {
            db: Some(DbArgs::default()),
            lifter: Some(0.0),
            ..none.clone()
        };
        let explicit = resolve(Op::Mfcc, Preset::Librosa, &mfcc).unwrap();
        assert_eq!(explicit, resolve(Op::Mfcc, Preset::Librosa, &none).unwrap());
    }

    #[test]
    fn invalid_options_name_their_key() {
        fn db(reference: DbRef, amin: f64) -> Option<DbArgs> {
            Some(DbArgs {
                reference,
                amin,
                top_db: Some(80.0),
            })
        }

        let none = Overrides::default();
        for (op, key, overrides) in [
            (
                Op::Mel,
                "n_fft",
                Overrides {
                    n_fft: Some(1),
                    ..none.clone()
                },
            ),
            (
                Op::Mel,
                "hop_length",
                Overrides {
                    hop_length: Some(0),
                    ..none.clone()
                },
            ),
            (
                Op::Mel,
                "win_length",
                Overrides {
                    win_length: Some(4096),
                    ..none.clone()
                },
            ),
            (
                Op::Mel,
                "fmax",
                Overrides {
                    fmax: Some(8000.1),
                    ..none.clone()
                },
            ),
            (
                Op::Mel,
                "fmax",
                Overrides {
                    fmin: Some(500.0),
                    fmax: Some(500.0),
                    ..none.clone()
                },
            ),
            (
                Op::Mel,
                "fmin",
                Overrides {
                    fmin: Some(f64::NAN),
                    ..none.clone()
                },
            ),
            (
                Op::Mel,
                "power",
                Overrides {
                    power: Some(0.0),
                    ..none.clone()
                },
            ),
            (
                Op::Mel,
                "n_mels",
                Overrides {
                    n_mels: Some(0),
                    ..none.clone()
                },
            ),
            (
                Op::Mel,
                "db.amin",
                Overrides {
                    db: db(DbRef::Max, 0.0),
                    ..none.clone()
                },
            ),
            (
                Op::Mel,
                "db.ref",
                Overrides {
                    db: db(DbRef::Power(-1.0), 1e-10),
                    ..none.clone()
                },
            ),
            (
                Op::Mel,
                "dtype",
                Overrides {
                    dtype: Some(Dtype::F16),
                    ..none.clone()
                },
            ),
            (
                Op::Mfcc,
                "dtype",
                Overrides {
                    dtype: Some(Dtype::U8),
                    ..none.clone()
                },
            ),
            (
                Op::Mfcc,
                "n_mfcc",
                Overrides {
                    n_mfcc: Some(129),
                    ..none.clone()
                },
            ),
            (
                Op::Mfcc,
                "dct_type",
                Overrides {
                    dct_type: Some(4),
                    ..none.clone()
                },
            ),
            (
                Op::Mfcc,
                "delta",
                Overrides {
                    delta: Some(3),
                    ..none.clone()
                },
            ),
            (
                Op::Mfcc,
                "frames",
                Overrides {
                    delta: Some(1),
                    frames: Some(8),
                    ..none.clone()
                },
            ),
            (
                Op::Stft,
                "n_mels",
                Overrides {
                    n_mels: Some(40),
                    ..none.clone()
                },
            ),
            (
                Op::Mel,
                "lifter",
                Overrides {
                    lifter: Some(22.0),
                    ..none.clone()
                },
            ),
        ] {
            let error = resolve(op, Preset::Librosa, &overrides)
                .unwrap_err()
                .to_string();
            assert!(error.starts_with(&format!("{key}: ")), "{error}");
        }

        assert!(FeatureArgs::resolve(Op::Mel, Preset::Whisper, 22_050, &none).is_err());
    }

    #[test]
    fn shapes_and_types_follow() {
        let db = Some(DbArgs {
            reference: DbRef::Max,
            ..DbArgs::default()
        });
        let frame_mel = DimOrder::parse("frame,mel", Op::Mel).unwrap();
        let overrides = Overrides {
            db,
            dim_order: frame_mel,
            dtype: Some(Dtype::U8),
            ..Overrides::default()
        };
        let args = FeatureArgs::resolve(Op::Mel, Preset::Librosa, 22_050, &overrides).unwrap();

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

        let whisper = resolve(Op::Mel, Preset::Whisper, &Overrides::default()).unwrap();
        assert_eq!(
            (whisper.shape(9), whisper.shape(1 << 20), whisper.dtype),
            (vec![80, 3000], vec![80, 3000], Dtype::F16)
        );

        assert!(DimOrder::parse("frame,bin", Op::Mel).is_err());
    }
}
