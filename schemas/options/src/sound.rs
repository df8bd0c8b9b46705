//! Arguments of features that contain the sound of a clip itself instead of values computed from it.

use serde::Serialize;

use crate::fault::Fault;
use crate::pack::Dtype;

/// Number of steps of [`Dtype::S16`] from 0 to full scale.
pub const S16_FULL_SCALE: f64 = 32_768.0;

/// All arguments of a feature that contains the sound of a clip. The serialized form identifies the stored values,
/// together with the options for decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "op")]
pub enum SoundArgs {
    /// The samples of the row, mono at the recipe's rate: `[n_samples]`. In f32 they are those from which spectra are
    /// computed. In s16 they are rounded to the nearest step, and samples beyond full scale get the largest or the
    /// smallest number, as in any 16-bit file: loud music exceeds full scale by a little in most formats.
    Pcm {
        /// Type in which samples are stored: f32 or s16.
        dtype: Dtype,
    },
    /// Numbers of EBU R128 for the row's samples, in f32: `[3, 1]`, in the order of [`LOUDNESS`].
    Loudness,
    /// The bytes of the clip's file: `[n_bytes]`.
    Original,
}

/// Names of the numbers of [`SoundArgs::Loudness`]: integrated loudness in LUFS, loudness range in LU, and true peak in
/// dB relative to full scale.
pub const LOUDNESS: [&str; 3] = ["integrated", "range", "true_peak"];

impl SoundArgs {
    /// Creates the arguments of `op = "pcm"`. Default type: f32.
    ///
    /// # Errors
    /// A [`Fault`] of `dtype` if samples cannot have this type.
    pub(crate) fn pcm(dtype: Option<Dtype>) -> Result<Self, Fault> {
        match dtype.unwrap_or(Dtype::F32) {
            dtype @ (Dtype::F32 | Dtype::S16) => Ok(Self::Pcm { dtype }),
            Dtype::F16 | Dtype::U8 => Err(Fault::new("dtype", "allowed for pcm: f32, s16")),
        }
    }

    /// Creates the arguments of `op = "loudness"`.
    ///
    /// # Errors
    /// A [`Fault`] of `dtype` if another type than f32 is given.
    pub(crate) fn loudness(dtype: Option<Dtype>) -> Result<Self, Fault> {
        match dtype.unwrap_or(Dtype::F32) {
            Dtype::F32 => Ok(Self::Loudness),
            Dtype::F16 | Dtype::U8 | Dtype::S16 => {
                Err(Fault::new("dtype", "allowed for loudness: f32"))
            }
        }
    }

    /// Returns the names of the numbers of a feature called `name`: `loudness_integrated` …; `None` for samples and
    /// files.
    pub fn columns(self, name: &str) -> Option<Vec<String>> {
        match self {
            Self::Loudness => Some(LOUDNESS.map(|number| format!("{name}_{number}")).to_vec()),
            Self::Pcm { .. } | Self::Original => None,
        }
    }

    /// Creates the arguments of `op = "original"`.
    ///
    /// # Errors
    /// A [`Fault`] of `dtype` if another type than that of bytes is given.
    pub(crate) fn original(dtype: Option<Dtype>) -> Result<Self, Fault> {
        match dtype.unwrap_or(Dtype::U8) {
            Dtype::U8 => Ok(Self::Original),
            Dtype::F16 | Dtype::F32 | Dtype::S16 => {
                let problem = "allowed for original: u8, the bytes of the file";
                Err(Fault::new("dtype", problem))
            }
        }
    }

    /// Returns the type of the stored values.
    pub const fn dtype(self) -> Dtype {
        match self {
            Self::Pcm { dtype } => dtype,
            Self::Loudness => Dtype::F32,
            Self::Original => Dtype::U8,
        }
    }

    /// Returns the names of the tensor's axes.
    pub fn dim_names(self) -> Vec<&'static str> {
        match self {
            Self::Pcm { .. } => vec!["sample"],
            // The axes of statistics, because each number is a column of its own.
            Self::Loudness => vec!["statistic", "value"],
            Self::Original => vec!["byte"],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_and_files_have_few_types() {
        assert_eq!(SoundArgs::pcm(None).unwrap().dtype(), Dtype::F32);
        let s16 = SoundArgs::pcm(Some(Dtype::S16)).unwrap();
        assert_eq!(
            serde_json::to_string(&s16).unwrap(),
            r#"{"op":"pcm","dtype":"s16"}"#
        );
        assert_eq!(
            serde_json::to_string(&SoundArgs::original(Some(Dtype::U8)).unwrap()).unwrap(),
            r#"{"op":"original"}"#
        );

        for dtype in [Dtype::F16, Dtype::U8] {
            let fault = SoundArgs::pcm(Some(dtype)).unwrap_err();
            assert_eq!(fault.to_string(), "dtype: allowed for pcm: f32, s16");
        }
        let fault = SoundArgs::original(Some(Dtype::F32)).unwrap_err();
        assert_eq!(
            fault.to_string(),
            "dtype: allowed for original: u8, the bytes of the file"
        );
    }
}
