//! Whose defaults a feature starts from, and how named values override them.
//!
//! A preset is nothing but defaults: what comes out of [`FeatureArgs::resolve`] holds numbers alone.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::args::{DimOrder, FeatureArgs, Op};
use crate::db::{DbArgs, LogArgs};
use crate::error::KernelError;
use crate::mel::{MelArgs, Norm, Ramp};
use crate::mfcc::MfccArgs;
use crate::normalize::Normalize;
use crate::pack::Dtype;
use crate::stft::{Framing, PadMode, StftArgs, Window};

/// Whose defaults a feature starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Preset {
    /// librosa 0.11: `stft`, `feature.melspectrogram`, `feature.mfcc`.
    #[default]
    Librosa,
    /// torchaudio 2.11: `Spectrogram`, `MelSpectrogram`, `MFCC`.
    Torchaudio,
    /// Kaldi's `compute-fbank-feats` and `compute-mfcc-feats`, dither 0, no energy.
    Kaldi,
    /// OpenAI Whisper's `log_mel_spectrogram` after `pad_or_trim`; 16 kHz only.
    Whisper,
}

impl FromStr for Preset {
    type Err = KernelError;

    fn from_str(name: &str) -> Result<Self, KernelError> {
        match name {
            "librosa" => Ok(Self::Librosa),
            "torchaudio" => Ok(Self::Torchaudio),
            "kaldi" => Ok(Self::Kaldi),
            "whisper" => Ok(Self::Whisper),
            _ => Err(KernelError::argument(
                "preset",
                name,
                "librosa, torchaudio, kaldi or whisper",
            )),
        }
    }
}

/// Values that replace a preset's; an absent one keeps it. Names, units and meanings are those of [`FeatureArgs`].
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(missing_docs)] // each is documented where it ends up
pub struct Overrides {
    pub n_fft: Option<usize>,
    pub hop_length: Option<usize>,
    pub win_length: Option<usize>,
    pub window: Option<Window>,
    pub center: Option<bool>,
    pub pad_mode: Option<PadMode>,
    pub power: Option<f64>,
    pub n_mels: Option<usize>,
    pub fmin: Option<f64>,
    pub fmax: Option<f64>,
    pub htk: Option<bool>,
    pub norm: Option<Norm>,
    pub n_mfcc: Option<usize>,
    pub dct_type: Option<u8>,
    pub lifter: Option<f64>,
    pub delta: Option<u8>,
    pub db: Option<DbArgs>,
    pub normalize: Normalize,
    pub dtype: Option<Dtype>,
    pub dim_order: DimOrder,
    pub frames: Option<usize>,
}

/// Whisper's rate, and its 30 s at that rate.
const WHISPER_RATE_HZ: u32 = 16_000;
const WHISPER_SAMPLES: usize = 480_000;

impl FeatureArgs {
    /// The feature `op` as `preset` has it, for PCM of `sample_rate_hz`, with `overrides` in place.
    ///
    /// What follows from another value follows from the overridden one: `win_length` from `n_fft`, `fmax` from the
    /// rate. Errors: [`KernelError::Argument`] that names the key and what is allowed; also for a key that the op does
    /// not have.
    pub fn resolve(
        op: Op,
        preset: Preset,
        sample_rate_hz: u32,
        overrides: &Overrides,
    ) -> Result<Self, KernelError> {
        check_keys(op, preset, sample_rate_hz, overrides)?;
        let linear_power = if op == Op::Stft && preset == Preset::Librosa {
            1.0
        } else {
            2.0
        };
        let mel = (op != Op::Stft).then(|| mel_of(preset, op, sample_rate_hz, overrides));
        let log = log_of(op, preset, overrides);
        let dtype = overrides
            .dtype
            .unwrap_or(match (op, log, overrides.normalize) {
                (Op::Stft | Op::Mel, LogArgs::Db(_) | LogArgs::Whisper, _) => Dtype::F16,
                (Op::Stft | Op::Mel, _, Normalize::MinMax | Normalize::MeanVar) => Dtype::F16,
                _ => Dtype::F32,
            });
        let args = Self {
            op,
            sample_rate_hz,
            stft: stft_of(op, preset, sample_rate_hz, overrides),
            power: overrides.power.unwrap_or(linear_power),
            mel,
            log,
            mfcc: (op == Op::Mfcc).then(|| mfcc_of(preset, overrides)),
            delta: overrides.delta.unwrap_or(0),
            frames: overrides.frames,
            normalize: overrides.normalize,
            dim_order: overrides.dim_order,
            dtype,
        };
        args.validate().map(|()| args)
    }
}

/// A key that would be ignored is a mistake of the caller's.
fn check_keys(
    op: Op,
    preset: Preset,
    sample_rate_hz: u32,
    o: &Overrides,
) -> Result<(), KernelError> {
    let mel_keys = [
        ("n_mels", o.n_mels.is_some()),
        ("fmin", o.fmin.is_some()),
        ("fmax", o.fmax.is_some()),
        ("htk", o.htk.is_some()),
        ("norm", o.norm.is_some()),
    ];
    let mfcc_keys = [
        ("n_mfcc", o.n_mfcc.is_some()),
        ("dct_type", o.dct_type.is_some()),
        ("lifter", o.lifter.is_some()),
    ];
    let mel_less = mel_keys
        .iter()
        .filter(|_| op == Op::Stft)
        .map(|key| (key, "absent: op = \"stft\" has no mel bands"));
    let mfcc_less = mfcc_keys
        .iter()
        .filter(|_| op != Op::Mfcc)
        .map(|key| (key, "absent: it belongs to op = \"mfcc\""));
    for ((key, given), allowed) in mel_less.chain(mfcc_less) {
        if *given {
            return Err(KernelError::argument(key, "(given)", allowed));
        }
    }
    if preset == Preset::Whisper && sample_rate_hz != WHISPER_RATE_HZ {
        let allowed = format!("{WHISPER_RATE_HZ} Hz for preset = \"whisper\"");
        return Err(KernelError::argument(
            "sample_rate_hz",
            sample_rate_hz,
            allowed,
        ));
    }
    if preset == Preset::Whisper && op == Op::Mfcc {
        return Err(KernelError::argument(
            "op",
            "mfcc",
            "stft or mel for preset = \"whisper\"",
        ));
    }
    Ok(())
}

fn stft_of(op: Op, preset: Preset, sample_rate_hz: u32, o: &Overrides) -> StftArgs {
    // Kaldi counts in whole samples of 25 ms and 10 ms, rounded down.
    let win_25ms = sample_rate_hz as usize * 25 / 1000;
    let n_fft = o.n_fft.unwrap_or_else(|| match preset {
        Preset::Librosa => 2048,
        Preset::Torchaudio | Preset::Whisper => 400,
        // What overflows is refused as any n_fft that is too long.
        Preset::Kaldi => o
            .win_length
            .unwrap_or(win_25ms)
            .checked_next_power_of_two()
            .unwrap_or(usize::MAX),
    });
    let win_default = if preset == Preset::Kaldi {
        win_25ms.min(n_fft)
    } else {
        n_fft
    };
    let win_length = o.win_length.unwrap_or(win_default);
    let hop_length = o.hop_length.unwrap_or(match (preset, op) {
        (Preset::Librosa, Op::Stft) => win_length / 4,
        (Preset::Librosa, _) => 512,
        (Preset::Torchaudio, _) => win_length / 2,
        (Preset::Kaldi, _) => sample_rate_hz as usize / 100,
        (Preset::Whisper, _) => 160,
    });
    let pad_mode = o.pad_mode.unwrap_or(if preset == Preset::Librosa {
        PadMode::Constant
    } else {
        PadMode::Reflect
    });
    let kaldi = preset == Preset::Kaldi;
    let whisper = preset == Preset::Whisper;
    StftArgs {
        n_fft,
        hop_length,
        win_length,
        window: o
            .window
            .unwrap_or(if kaldi { Window::Povey } else { Window::Hann }),
        framing: match o.center {
            None | Some(false) if kaldi => Framing::SnipEdges,
            None | Some(true) => Framing::Center(pad_mode),
            Some(false) => Framing::Inside,
        },
        scale: if kaldi { 32_768 } else { 1 },
        remove_dc: kaldi,
        preemphasis: if kaldi { 0.97 } else { 0.0 },
        n_samples: whisper.then_some(WHISPER_SAMPLES),
        drop_last_frame: whisper,
    }
}

fn mel_of(preset: Preset, op: Op, sample_rate_hz: u32, o: &Overrides) -> MelArgs {
    let slaney = matches!(preset, Preset::Librosa | Preset::Whisper);
    let kaldi = preset == Preset::Kaldi;
    let n_mels = match (preset, op) {
        (Preset::Librosa | Preset::Torchaudio, _) => 128,
        (Preset::Kaldi, _) => 23,
        (Preset::Whisper, _) => 80,
    };
    MelArgs {
        n_mels: o.n_mels.unwrap_or(n_mels),
        fmin: o.fmin.unwrap_or(if kaldi { 20.0 } else { 0.0 }),
        fmax: o.fmax.unwrap_or(f64::from(sample_rate_hz) / 2.0),
        htk: o.htk.unwrap_or(!slaney),
        norm: o
            .norm
            .unwrap_or(if slaney { Norm::Slaney } else { Norm::None }),
        ramp: if kaldi { Ramp::Mel } else { Ramp::Hz },
    }
}

fn log_of(op: Op, preset: Preset, o: &Overrides) -> LogArgs {
    match (o.db, preset, op) {
        (Some(db), ..) => LogArgs::Db(db),
        (None, _, Op::Stft) | (None, Preset::Librosa | Preset::Torchaudio, Op::Mel) => {
            LogArgs::Linear
        }
        (None, Preset::Librosa | Preset::Torchaudio, Op::Mfcc) => LogArgs::Db(DbArgs::default()),
        (None, Preset::Kaldi, _) => LogArgs::Ln {
            floor: f64::from(f32::EPSILON),
        },
        (None, Preset::Whisper, _) => LogArgs::Whisper,
    }
}

fn mfcc_of(preset: Preset, o: &Overrides) -> MfccArgs {
    let (n_mfcc, lifter, lifter_from) = match preset {
        Preset::Librosa | Preset::Whisper => (20, 0.0, 1),
        Preset::Torchaudio => (40, 0.0, 1),
        Preset::Kaldi => (13, 22.0, 0),
    };
    let lifter = o.lifter.unwrap_or(lifter);
    MfccArgs {
        n_mfcc: o.n_mfcc.unwrap_or(n_mfcc),
        dct_type: o.dct_type.unwrap_or(2),
        lifter,
        // Without a lifter its count decides nothing, and so must not tell features apart.
        lifter_from: if lifter == 0.0 { 1 } else { lifter_from },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::DbRef;
    use crate::pack::Packing;

    fn resolve(op: Op, preset: Preset, overrides: &Overrides) -> Result<FeatureArgs, KernelError> {
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
    fn what_cannot_be_names_its_key() {
        let none = Overrides::default();
        let db = |reference, amin| {
            Some(DbArgs {
                reference,
                amin,
                top_db: Some(80.0),
            })
        };
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
            assert!(error.starts_with(&format!("{key} = ")), "{error}");
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
            ([1292, 128], ["frame", "mel"])
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
            ([80, 3000], [80, 3000], Dtype::F16)
        );
        assert!(DimOrder::parse("frame,bin", Op::Mel).is_err());
    }
}
