//! Options of features that describe the shape of a spectrum by one number per frame, or by one per octave.

use serde::{Deserialize, Serialize};

use crate::constant_q::{ChromaCqArgs, ConstantQArgs};
use crate::fault::{Faults, shown};
use crate::op::Op;
use crate::rhythm::{BeatArgs, OnsetArgs, TempogramArgs};
use crate::stft::{N_FFT_MAX, StftArgs};

/// Maximum number of octaves of the spectral contrast: 20 of them cover every range below 2^20 Hz.
pub(crate) const N_BANDS_MAX: usize = 20;
/// Maximum number of pitch classes: ten per semitone.
pub(crate) const N_CHROMA_MAX: usize = 120;
/// Smallest `amin` of the flatness, far above the smallest normal number of f32, 1.2e-38.
const AMIN_MIN: f64 = 1e-30;
/// Largest `p` of the bandwidth: frequencies of 24 kHz to this power fit in f64.
const P_MAX: f64 = 32.0;

/// Options of an operation on the shape of a spectrum. Names and defaults are librosa's; operations without options of
/// their own have none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShapeArgs {
    /// Options of [`Op::SpectralBandwidth`](crate::Op::SpectralBandwidth).
    Bandwidth {
        /// Power to which distances from the centroid are raised. Default 2.
        p: f64,
    },
    /// Options of [`Op::SpectralContrast`](crate::Op::SpectralContrast).
    Contrast(ContrastArgs),
    /// Options of [`Op::SpectralFlatness`](crate::Op::SpectralFlatness).
    Flatness {
        /// Smallest power; smaller ones are raised to it. Default 1e-10.
        amin: f64,
    },
    /// Options of [`Op::SpectralRolloff`](crate::Op::SpectralRolloff).
    Rolloff {
        /// Part of the sum of the magnitudes up to the roll-off frequency. Default 0.85.
        roll_percent: f64,
    },
    /// Options of [`Op::ChromaStft`](crate::Op::ChromaStft).
    Chroma(ChromaArgs),
    /// Options of [`Op::OnsetStrength`](crate::Op::OnsetStrength).
    Onset(OnsetArgs),
    /// Options of [`Op::Tempogram`](crate::Op::Tempogram).
    Tempogram(TempogramArgs),
    /// Options of [`Op::BeatTrack`](crate::Op::BeatTrack).
    Beats(BeatArgs),
    /// Options of [`Op::Cqt`](crate::Op::Cqt).
    Cqt(ConstantQArgs),
    /// Options of [`Op::Vqt`](crate::Op::Vqt).
    Vqt(ConstantQArgs),
    /// Options of [`Op::ChromaCqt`](crate::Op::ChromaCqt).
    ChromaCqt(ChromaCqArgs),
    /// Options of [`Op::ChromaCens`](crate::Op::ChromaCens).
    ChromaCens(ChromaCqArgs),
    /// Options of [`Op::Tonnetz`](crate::Op::Tonnetz).
    Tonnetz(ChromaCqArgs),
}

/// Options of chroma: the energy of each pitch class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChromaArgs {
    /// Number of pitch classes in an octave. Default 12.
    pub n_chroma: usize,
    /// Deviation from A4 = 440 Hz in pitch classes. Default: estimated for each row.
    pub tuning: Option<f64>,
}

/// Options of the spectral contrast: the difference between the largest and the smallest magnitudes of each octave.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContrastArgs {
    /// Upper end of the first band, and lower end of the first octave, in Hz. Default 200.
    pub fmin: f64,
    /// Number of octaves above `fmin`. Default 6; the tensor has one band more.
    pub n_bands: usize,
    /// Part of a band's bins that its peak and its valley are the means of. Default 0.02.
    pub quantile: f64,
    /// True for the difference of magnitudes; false for the difference of their decibels. Default false.
    pub linear: bool,
}

/// Bins of a band of the spectral contrast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContrastBand {
    /// First bin of the band.
    pub first_bin: usize,
    /// Number of bins.
    pub n_bins: usize,
    /// Number of bins that the peak and the valley are the means of.
    pub n_extremes: usize,
}

impl ContrastArgs {
    /// Returns the bands for spectra of `n_fft` samples at `sample_rate_hz`, as in `librosa.feature.spectral_contrast`:
    /// a band begins with the last bin below its lower end and ends before its last bin; only the last band ends at half
    /// the sample rate. A band may have no bins, which recipes refuse.
    pub fn bands(&self, sample_rate_hz: u32, n_fft: usize) -> Vec<ContrastBand> {
        let n_bins = n_fft / 2 + 1;
        // The same roundings as in numpy's rfftfreq, because bins are compared with the ends of octaves.
        let step_hz = 1.0 / (n_fft as f64 * (1.0 / f64::from(sample_rate_hz)));
        let hz = |bin: usize| bin as f64 * step_hz;
        let first_at = |from_hz: f64| (0..n_bins).find(|&bin| hz(bin) >= from_hz);

        let mut bands = Vec::with_capacity(self.n_bands + 1);
        for band in 0..=self.n_bands {
            let is_last = band == self.n_bands;
            let low_hz = match band {
                0 => 0.0,
                _ => self.fmin * 2f64.powi(band as i32 - 1),
            };
            let high_hz = self.fmin * 2f64.powi(band as i32);
            let first = first_at(low_hz).unwrap_or(n_bins);
            let is_inside = |bin: &usize| is_last || hz(*bin) <= high_hz;
            let end = (first..n_bins).take_while(is_inside).last();
            let end = end.map_or(first, |last| last + 1);

            // The bin below the lower end is included, and counts for the quantile, as does the last one.
            let first_bin = first.saturating_sub(usize::from(band > 0));
            let counted = end.saturating_sub(first_bin);
            let n_bins = counted.saturating_sub(usize::from(!is_last));
            let n_extremes = (self.quantile * counted as f64).round_ties_even() as usize;
            bands.push(ContrastBand {
                first_bin,
                n_bins: if end > first { n_bins } else { 0 },
                n_extremes: n_extremes.clamp(1, n_bins.max(1)),
            });
        }
        bands
    }
}

impl ShapeArgs {
    /// Returns the operation that has these options.
    pub(crate) const fn op(&self) -> Op {
        match self {
            Self::Bandwidth { .. } => Op::SpectralBandwidth,
            Self::Contrast(_) => Op::SpectralContrast,
            Self::Flatness { .. } => Op::SpectralFlatness,
            Self::Rolloff { .. } => Op::SpectralRolloff,
            Self::Chroma(_) => Op::ChromaStft,
            Self::Onset(_) => Op::OnsetStrength,
            Self::Tempogram(_) => Op::Tempogram,
            Self::Beats(_) => Op::BeatTrack,
            Self::Cqt(_) => Op::Cqt,
            Self::Vqt(_) => Op::Vqt,
            Self::ChromaCqt(_) => Op::ChromaCqt,
            Self::ChromaCens(_) => Op::ChromaCens,
            Self::Tonnetz(_) => Op::Tonnetz,
        }
    }

    /// Adds a fault for each invalid option of an operation on frames at `sample_rate_hz`.
    pub(crate) fn check(&self, sample_rate_hz: u32, stft: &StftArgs, faults: &mut Faults) {
        let hop_length = stft.hop_length;
        match self {
            Self::Bandwidth { p } => faults.within(Some(*p), 1e-3..=P_MAX, "p"),
            Self::Flatness { amin } => faults.within(Some(*amin), AMIN_MIN..=1.0, "amin"),
            Self::Rolloff { roll_percent } => {
                let is_part = *roll_percent > 0.0 && *roll_percent < 1.0;
                let problem = format!(
                    "{} is out of range; allowed: above 0, below 1",
                    shown(*roll_percent)
                );
                faults.unless(is_part, "roll_percent", problem);
            }

            Self::Chroma(args) => {
                faults.count_within(args.n_chroma, 1..=N_CHROMA_MAX, "n_chroma");
                faults.within(args.tuning, -0.5..=0.5, "tuning");
            }
            Self::Onset(args) => args.check(faults),
            Self::Tempogram(args) => args.check(faults),
            Self::Beats(args) => args.check(sample_rate_hz, hop_length, faults),
            Self::Contrast(args) => args.check(sample_rate_hz, stft.n_fft, faults),
            Self::Cqt(args) | Self::Vqt(args) => {
                args.check(sample_rate_hz, hop_length, ("n_bins", 1), faults);
            }
            Self::ChromaCqt(args) | Self::ChromaCens(args) | Self::Tonnetz(args) => {
                args.check(sample_rate_hz, hop_length, faults);
            }
        }
    }
}

impl ContrastArgs {
    fn check(&self, sample_rate_hz: u32, n_fft: usize, faults: &mut Faults) {
        let Self {
            fmin,
            n_bands,
            quantile,
            ..
        } = *self;
        faults.count_within(n_bands, 1..=N_BANDS_MAX, "n_bands");
        let is_part = quantile > 0.0 && quantile < 1.0;
        let problem = format!(
            "{} is out of range; allowed: above 0, below 1",
            shown(quantile)
        );
        faults.unless(is_part, "quantile", problem);

        let half_hz = f64::from(sample_rate_hz) / 2.0;
        let octaves = n_bands.clamp(1, N_BANDS_MAX) as i32 - 1;
        let below_hz = half_hz / 2f64.powi(octaves);
        let problem = format!(
            "{} Hz with n_bands = {n_bands} is out of range; allowed: above 0, below {below_hz} Hz, so that the last \
             octave begins below half the sample rate, or fewer n_bands",
            shown(fmin)
        );
        let fits = fmin > 0.0 && fmin < below_hz;
        faults.unless(fits, "fmin", problem);
        // A longer frame is refused as such. Its bins would take years.
        if !fits || !is_part || n_bands > N_BANDS_MAX || n_fft > N_FFT_MAX {
            return;
        }

        let mut bands = self.bands(sample_rate_hz, n_fft).into_iter();
        let problem = format!(
            "{fmin} Hz: a band has no bins at n_fft = {n_fft}; allowed: a higher fmin, or a longer n_fft"
        );
        faults.unless(bands.all(|band| band.n_bins > 0), "fmin", problem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contrast(fmin: f64, n_bands: usize) -> ContrastArgs {
        ContrastArgs {
            fmin,
            n_bands,
            quantile: 0.02,
            linear: false,
        }
    }

    #[test]
    fn bands_are_those_of_librosa() {
        // Printed by librosa 0.11's loop over the bands, for 22,050 Hz and n_fft = 2048.
        let bands = contrast(200.0, 6).bands(22_050, 2048);
        let shown: Vec<[usize; 3]> = bands
            .iter()
            .map(|band| [band.first_bin, band.n_bins, band.n_extremes])
            .collect();
        assert_eq!(
            shown,
            [
                [0, 18, 1],
                [18, 19, 1],
                [37, 37, 1],
                [74, 74, 2],
                [148, 149, 3],
                [297, 297, 6],
                [594, 431, 9]
            ]
        );
    }

    #[test]
    fn bands_without_bins_are_refused() {
        let problems = |args: ContrastArgs, n_fft: usize| {
            let mut faults = Faults::default();
            args.check(22_050, n_fft, &mut faults);
            faults.into_result().map_err(|fault| fault.to_string())
        };
        assert_eq!(problems(contrast(200.0, 6), 2048), Ok(()));
        assert!(
            problems(contrast(20.0, 6), 512)
                .unwrap_err()
                .contains("n_fft")
        );
        assert!(
            problems(contrast(200.0, 7), 2048)
                .unwrap_err()
                .contains("half")
        );
        assert!(problems(contrast(f64::NAN, 6), 2048).is_err());
        assert!(problems(contrast(200.0, 0), 2048).is_err());
        assert!(problems(contrast(200.0, usize::MAX), 2048).is_err());
    }

    #[test]
    fn bins_of_a_frame_that_is_too_long_are_not_counted() {
        let mut faults = Faults::default();
        contrast(200.0, 6).check(22_050, 1 << 60, &mut faults);
        assert!(
            faults.into_result().is_ok(),
            "the frame is refused elsewhere"
        );
    }
}
