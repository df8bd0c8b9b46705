//! Options of features that describe rhythm: onsets, tempograms, tempo and beats. Names and defaults are librosa's.

use serde::{Deserialize, Serialize};

use crate::fault::Faults;
use crate::words::Named;

/// Maximum number of frames between the two that an onset compares.
const LAG_MAX: usize = 1 << 10;
/// Maximum number of lags of a tempogram.
pub(crate) const WIN_LENGTH_MAX: usize = 1 << 13;
/// Duration of the frames from whose autocorrelation the tempo of beats is estimated, in seconds: librosa's `ac_size`.
const BEAT_WINDOW_S: usize = 8;
/// Range of tempos in beats per minute.
const BPM: std::ops::RangeInclusive<f64> = 1.0..=10_000.0;

/// Options of the onset strength.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnsetArgs {
    /// Number of frames between the two that are compared. Default 1.
    pub lag: usize,
    /// Combines the increases of all bands. Omitted from the serialized form if it is the mean, so that identities of
    /// features from before this option do not change.
    #[serde(default, skip_serializing_if = "Aggregate::is_mean")]
    pub aggregate: Aggregate,
}

/// Combines the increases of all bands to the strength of an onset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Aggregate {
    /// The mean of all bands.
    #[default]
    Mean,
    /// The median of all bands, which an onset in few bands does not change.
    Median,
}

impl Aggregate {
    // serde passes a reference.
    #[allow(clippy::trivially_copy_pass_by_ref)]
    fn is_mean(&self) -> bool {
        *self == Self::Mean
    }
}

impl Named for Aggregate {
    const KEY: &'static str = "aggregate";
    const NAMES: &'static [(&'static str, Self)] =
        &[("mean", Self::Mean), ("median", Self::Median)];
}

/// Options of a tempogram: the autocorrelation of the onset strength around each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TempogramArgs {
    /// Options of the onset strength.
    pub onset: OnsetArgs,
    /// Number of frames that are correlated, and number of lags. Default 384.
    pub win_length: usize,
}

/// Options of the tempo: the lag of a tempogram that is strongest, weighted by how common its tempo is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct TempoArgs {
    /// Tempo with the largest weight, in beats per minute. Default 120.
    pub start_bpm: f64,
    /// Standard deviation of the weights, in octaves. Default 1.
    pub std_bpm: f64,
    /// Faster tempos have no weight, in beats per minute. Default 320.
    pub max_tempo: f64,
}

impl TempoArgs {
    /// librosa's defaults.
    pub const LIBROSA: Self = Self {
        start_bpm: 120.0,
        std_bpm: 1.0,
        max_tempo: 320.0,
    };
}

/// Options of beats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BeatArgs {
    /// Options of the onset strength. Its default aggregate is the median.
    pub onset: OnsetArgs,
    /// Tempo with the largest weight, in beats per minute. Default 120.
    pub start_bpm: f64,
    /// Cost of an interval that differs from the tempo's. Default 100.
    pub tightness: f64,
    /// True if beats without an onset are removed from the start and the end. Default true.
    pub trim: bool,
}

impl BeatArgs {
    /// Returns the number of frames from whose autocorrelation the tempo is estimated.
    pub const fn win_length(sample_rate_hz: u32, hop_length: usize) -> usize {
        BEAT_WINDOW_S * sample_rate_hz as usize / hop_length
    }
}

impl OnsetArgs {
    pub(crate) fn check(&self, faults: &mut Faults) {
        faults.count_within(self.lag, 1..=LAG_MAX, "lag");
    }
}

impl TempogramArgs {
    pub(crate) fn check(&self, faults: &mut Faults) {
        self.onset.check(faults);
        faults.count_within(self.win_length, 2..=WIN_LENGTH_MAX, "win_length");
    }
}

impl TempoArgs {
    pub(crate) fn check(&self, faults: &mut Faults) {
        faults.within(Some(self.start_bpm), BPM, "start_bpm");
        faults.within(Some(self.std_bpm), 1e-3..=100.0, "std_bpm");
        faults.within(Some(self.max_tempo), BPM, "max_tempo");
    }
}

impl BeatArgs {
    pub(crate) fn check(&self, sample_rate_hz: u32, hop_length: usize, faults: &mut Faults) {
        self.onset.check(faults);
        faults.within(Some(self.start_bpm), BPM, "start_bpm");
        faults.within(Some(self.tightness), 1e-3..=1e6, "tightness");

        // The tempo is estimated from 2 to `WIN_LENGTH_MAX` frames.
        let n_samples = Self::win_length(sample_rate_hz, 1);
        let (least, most) = (n_samples / (WIN_LENGTH_MAX + 1) + 1, n_samples / 2);
        let problem = format!(
            "{hop_length} is out of range; allowed for beats at {sample_rate_hz} Hz: {least} to {most}"
        );
        // A hop length of 0 is a fault of its own.
        let fits = hop_length == 0 || (least..=most).contains(&hop_length);
        faults.unless(fits, "hop_length", problem);
    }
}

#[cfg(test)]
mod tests {
    use wavemill_tests::options;

    use super::*;
    use crate::{Dtype, FeatureSpec, Op, Packing};

    #[test]
    fn hop_lengths_of_beats_give_two_frames_or_more() {
        let resolve = |hop_length: usize| {
            let spec = options!(op: Op::BeatTrack, hop_length);
            spec.resolve(&[], 22_050).map_err(|fault| fault.to_string())
        };
        for hop_length in [22, 512, 88_200] {
            let n = BeatArgs::win_length(22_050, hop_length);
            assert!((2..=WIN_LENGTH_MAX).contains(&n));
            assert!(resolve(hop_length).is_ok());
        }
        for hop_length in [21, 88_201] {
            let n = BeatArgs::win_length(22_050, hop_length);
            assert!(!(2..=WIN_LENGTH_MAX).contains(&n));
            let error = resolve(hop_length).unwrap_err();
            assert!(error.ends_with("22 to 88200"), "{error}");
        }
    }

    #[test]
    fn beats_fit_into_bytes() {
        let spec = options!(op: Op::BeatTrack, dtype: Dtype::U8);
        let packing = spec.resolve(&[], 22_050).unwrap().packing();
        assert_eq!(
            packing,
            Ok(Packing::U8 {
                low: 0.0,
                high: 1.0
            })
        );
    }
}
