//! Options of the constant-Q transform: filters whose length is a number of periods of their frequency.

use serde::{Deserialize, Serialize};

use crate::fault::{Faults, shown};
use crate::shape::N_CHROMA_MAX;
use crate::stft::N_FFT_MAX;

/// The note C1 in Hz: `librosa.note_to_hz("C1")`.
pub const C1_HZ: f64 = 32.703_195_662_574_83;
/// Maximum number of bins.
pub(crate) const N_BINS_MAX: usize = 1024;
/// Maximum number of octaves: from 1 Hz to half of 131 kHz.
const N_OCTAVES_MAX: usize = 16;
/// Equivalent noise bandwidth of the Hann window in bins: librosa's `WINDOW_BANDWIDTHS["hann"]`.
const HANN_BANDWIDTH: f64 = 1.500_183_105_468_75;
/// Bandwidths of hearing grow by this many Hz and by this part of the frequency: Glasberg and Moore (1990), as in librosa.
const HEARING_HZ: f64 = 24.7;
const HEARING_PART: f64 = 0.108;

/// Options of a constant-Q transform. Names and defaults are those of `librosa.cqt` and `librosa.vqt`, version 0.11.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConstantQArgs {
    /// Frequency of the first bin in Hz, at tuning 0. Default: [`C1_HZ`].
    pub fmin: f64,
    /// Number of bins. Default 84.
    pub n_bins: usize,
    /// Number of bins in an octave. Default 12.
    pub bins_per_octave: usize,
    /// Deviation from A4 = 440 Hz in bins; estimated for each row if absent. Default 0 for the transforms themselves.
    pub tuning: Option<f64>,
    /// Factor of the filters' lengths. Default 1.
    pub filter_scale: f64,
    /// Number of Hz by which bandwidths are larger than a constant part of the frequency: 0 for constant Q. Absent for
    /// bandwidths proportional to those of hearing.
    pub gamma: Option<f64>,
}

/// An octave of bins. Its filters are applied to the signal after a number of halvings of the sample rate.
#[derive(Clone, Debug, PartialEq)]
pub struct Octave {
    /// Index of the first bin.
    pub first_bin: usize,
    /// Number of halvings of the sample rate.
    pub n_halvings: u32,
    /// Number of samples between frames at the halved rate.
    pub hop_length: usize,
    /// Number of samples of the frames at the halved rate: a power of two.
    pub n_fft: usize,
    /// Center frequency of each filter in Hz.
    pub hz: Vec<f64>,
    /// Length of each filter in samples at the halved rate, with a fraction.
    pub lengths: Vec<f64>,
}

impl ConstantQArgs {
    /// Returns the relative bandwidth of the bins at equal temperament: `librosa.filters._relative_bandwidth`.
    fn relative_bandwidth(&self) -> f64 {
        let two_bins = libm::exp2(2.0 / self.bins_per_octave as f64);
        (two_bins - 1.0) / (two_bins + 1.0)
    }

    /// Returns [`ConstantQArgs::gamma`], or its value for the bandwidths of hearing.
    fn gamma_hz(&self) -> f64 {
        let of_hearing = self.relative_bandwidth() * HEARING_HZ / HEARING_PART;
        self.gamma.unwrap_or(of_hearing)
    }

    /// Returns the frequency of a bin in Hz.
    fn hz(&self, bin: usize, tuning: f64) -> f64 {
        let octaves = (bin as f64 + tuning) / self.bins_per_octave as f64;
        self.fmin * libm::exp2(octaves)
    }

    /// Returns the frequency in Hz at which the response of the highest filter has decayed: librosa's `filter_cutoff`.
    fn cutoff_hz(&self, tuning: f64) -> f64 {
        let top_hz = self.hz(self.n_bins.saturating_sub(1), tuning);
        let bandwidth = self.relative_bandwidth() / self.filter_scale;
        top_hz * (1.0 + 0.5 * HANN_BANDWIDTH * bandwidth) + 0.5 * self.gamma_hz()
    }

    /// Returns the octaves from the highest to the lowest for frames that are `hop_length` samples apart.
    ///
    /// As in librosa, the rate is halved as long as the hop length is even. It is halved before the highest octave, too,
    /// if this octave and the distance of the frames in the lowest octave allow it.
    pub fn octaves(&self, sample_rate_hz: u32, hop_length: usize, tuning: f64) -> Vec<Octave> {
        let n_octaves = self.n_bins.div_ceil(self.bins_per_octave);
        let above = f64::from(sample_rate_hz) / 2.0 / self.cutoff_hz(tuning);
        let n_free = (libm::log2(above).ceil() as i64 - 2).max(0) as u32;
        let n_even = hop_length.trailing_zeros();
        let mut n_halvings = n_free.min((n_even + 1).saturating_sub(n_octaves as u32));

        let alpha = self.relative_bandwidth();
        let (q, gamma) = (self.filter_scale / alpha, self.gamma_hz());
        let mut octaves = Vec::with_capacity(n_octaves);
        let mut end = self.n_bins;
        while end > 0 {
            let first_bin = end.saturating_sub(self.bins_per_octave);
            let rate_hz = f64::from(sample_rate_hz) / f64::from(1 << n_halvings);
            let hz: Vec<f64> = (first_bin..end).map(|bin| self.hz(bin, tuning)).collect();
            let length = |hz: &f64| q * rate_hz / (hz + gamma / alpha);
            let lengths: Vec<f64> = hz.iter().map(length).collect();
            let longest = lengths.iter().copied().fold(2.0, f64::max).ceil() as usize;

            octaves.push(Octave {
                first_bin,
                n_halvings,
                hop_length: hop_length >> n_halvings,
                n_fft: longest.next_power_of_two(),
                hz,
                lengths,
            });
            end = first_bin;
            n_halvings += u32::from(n_halvings < n_even);
        }
        octaves
    }

    /// Returns the tunings at the ends of the range that the estimate may have, or the given one.
    fn extreme_tunings(&self) -> [f64; 2] {
        self.tuning.map_or([-0.5, 0.5], |tuning| [tuning, tuning])
    }

    /// Adds a fault for each invalid option. `key` is the name of the option for the number of bins, which counts in units
    /// of `unit` bins.
    pub(crate) fn check(
        &self,
        sample_rate_hz: u32,
        hop_length: usize,
        (key, unit): (&'static str, usize),
        faults: &mut Faults,
    ) {
        let mut own = Faults::default();
        own.count_within(self.bins_per_octave, 1..=N_CHROMA_MAX, "bins_per_octave");
        own.count_within(self.n_bins / unit, 1..=N_BINS_MAX / unit, key);
        own.within(self.tuning, -0.5..=0.5, "tuning");
        own.within(Some(self.filter_scale), 0.01..=100.0, "filter_scale");
        own.within(self.gamma, 0.0..=1e4, "gamma");
        own.within(Some(self.fmin), 1.0..=1e6, "fmin");

        // A hop length of 0 is a fault of its own.
        if own.is_empty() && hop_length > 0 {
            self.check_filters(sample_rate_hz, hop_length, key, &mut own);
        }
        own.into_vec()
            .into_iter()
            .for_each(|fault| faults.push(fault));
    }

    /// Adds a fault if a filter reaches beyond half the sample rate, or is too long.
    fn check_filters(
        &self,
        sample_rate_hz: u32,
        hop_length: usize,
        key: &'static str,
        faults: &mut Faults,
    ) {
        let n_octaves = self.n_bins.div_ceil(self.bins_per_octave);
        let problem = format!("{n_octaves} octaves are too many; allowed: {N_OCTAVES_MAX}");
        faults.unless(n_octaves <= N_OCTAVES_MAX, key, problem);

        let [lowest, highest] = self.extreme_tunings();
        let (cutoff_hz, half_hz) = (self.cutoff_hz(highest), f64::from(sample_rate_hz) / 2.0);
        let problem = format!(
            "the highest filter reaches {} Hz, beyond half the sample rate of {sample_rate_hz} Hz; allowed: fewer bins or a \
             lower fmin",
            shown(cutoff_hz.round())
        );
        faults.unless(cutoff_hz <= half_hz, key, problem);
        if !faults.is_empty() {
            return;
        }

        let octaves = self.octaves(sample_rate_hz, hop_length, lowest);
        let longest = octaves.iter().map(|octave| octave.n_fft).max();
        let longest = longest.unwrap_or(0);
        let problem = format!(
            "{} Hz needs filters of {longest} samples; allowed: {N_FFT_MAX}, by a higher fmin, fewer bins_per_octave, or a \
             hop_length that is divisible by a larger power of two",
            shown(self.fmin)
        );
        faults.unless(longest <= N_FFT_MAX, "fmin", problem);

        // An octave's longest filter is that of its first bin.
        let octaves = self.octaves(sample_rate_hz, hop_length, highest);
        let mut firsts = octaves.iter().filter_map(|octave| octave.lengths.first());
        let key = match self.gamma {
            Some(0.0) => "filter_scale",
            _ => "gamma",
        };
        let problem = "the filters of an octave have one sample at most; allowed: a smaller gamma, a larger filter_scale, or an odd \
                       hop_length, with which the rate is not halved";
        faults.unless(firsts.all(|length| *length > 1.0), key, problem);
    }
}

/// Options of chroma from a constant-Q transform. Names and defaults are those of `librosa.feature.chroma_cqt` and
/// `librosa.feature.chroma_cens`, version 0.11.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChromaCqArgs {
    /// The transform. Default: 7 octaves of 36 bins from C1 with an estimated tuning.
    pub constant_q: ConstantQArgs,
    /// Number of pitch classes in an octave, of which `bins_per_octave` is a multiple. Default 12.
    pub n_chroma: usize,
    /// Number of frames over which energies are smoothed after they were quantized (CENS, default 41); neither is done if
    /// absent.
    pub win_len_smooth: Option<usize>,
}

/// Maximum number of frames over which CENS are smoothed.
const WIN_LEN_SMOOTH_MAX: usize = 1 << 12;

impl ChromaCqArgs {
    /// Adds a fault for each invalid option.
    pub(crate) fn check(&self, sample_rate_hz: u32, hop_length: usize, faults: &mut Faults) {
        let Self {
            constant_q,
            n_chroma,
            win_len_smooth,
        } = self;
        let unit = constant_q.bins_per_octave.max(1);
        constant_q.check(sample_rate_hz, hop_length, ("n_octaves", unit), faults);
        faults.count_within(*n_chroma, 1..=N_CHROMA_MAX, "n_chroma");
        let problem = format!(
            "{n_chroma} does not divide bins_per_octave = {}; allowed: a divisor of it",
            constant_q.bins_per_octave
        );
        let divides = *n_chroma == 0 || constant_q.bins_per_octave.is_multiple_of(*n_chroma);
        faults.unless(divides, "n_chroma", problem);
        if let Some(length) = win_len_smooth {
            faults.count_within(*length, 1..=WIN_LEN_SMOOTH_MAX, "win_len_smooth");
        }
    }
}

/// The chroma from which a tonnetz is computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChromaKind {
    /// Those of the operation `chroma_cqt`.
    #[default]
    Cqt,
    /// Those of the operation `chroma_cens`.
    Cens,
}

impl crate::words::Named for ChromaKind {
    const KEY: &'static str = "chroma";
    const NAMES: &'static [(&'static str, Self)] = &[("cqt", Self::Cqt), ("cens", Self::Cens)];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(bins_per_octave: usize, gamma: Option<f64>) -> ConstantQArgs {
        ConstantQArgs {
            fmin: C1_HZ,
            n_bins: 7 * bins_per_octave,
            bins_per_octave,
            tuning: Some(0.0),
            filter_scale: 1.0,
            gamma,
        }
    }

    #[test]
    fn octaves_are_those_of_librosa() {
        // Printed by librosa 0.11's `vqt` for each octave: length of its transform, and samples between frames.
        let lengths = |args: &ConstantQArgs, rate_hz: u32, hop_length: usize| {
            let octaves = args.octaves(rate_hz, hop_length, 0.0);
            let each = octaves
                .iter()
                .map(|o| (o.n_halvings, o.n_fft, o.hop_length));
            each.collect::<Vec<_>>()
        };
        assert_eq!(
            lengths(&args(12, Some(0.0)), 44_100, 512)[..2],
            [(1, 256, 256), (2, 256, 128)]
        );
        let of_hearing = lengths(&args(12, None), 22_050, 512);
        let n_ffts: Vec<usize> = of_hearing.iter().map(|octave| octave.1).collect();
        assert_eq!(n_ffts[4..], [128, 64, 32]);
        // 12 = 4 · 3 is divisible by two twice.
        let halved = lengths(&args(12, Some(0.0)), 22_050, 12);
        assert_eq!(halved[2..4], [(2, 256, 3), (2, 512, 3)]);
    }

    #[test]
    fn a_transform_is_as_long_as_its_longest_filter() {
        // This length is 512 and the smallest fraction of a sample, whose logarithm is rounded to 9.
        let args = ConstantQArgs {
            fmin: 373.204_654_358_628_9,
            n_bins: 12,
            ..args(12, Some(0.0))
        };
        let octaves = args.octaves(22_050, 511, 0.0);
        for octave in octaves {
            let longest = octave.lengths[0];
            assert!(longest.ceil() as usize <= octave.n_fft, "{longest}");
        }
    }

    #[test]
    fn impossible_filters_are_refused() {
        let problem = |args: &ConstantQArgs, hop_length: usize| {
            let mut faults = Faults::default();
            args.check(22_050, hop_length, ("n_bins", 1), &mut faults);
            faults.into_result().map_err(|fault| fault.to_string())
        };
        let usual = args(12, Some(0.0));
        assert_eq!(problem(&usual, 512), Ok(()));

        let too_high = ConstantQArgs {
            n_bins: 102,
            ..usual.clone()
        };
        assert!(problem(&too_high, 512).unwrap_err().contains("half the"));
        let too_long = ConstantQArgs {
            fmin: 1.0,
            bins_per_octave: 120,
            ..usual.clone()
        };
        assert!(
            problem(&too_long, 441)
                .unwrap_err()
                .contains("power of two")
        );
        // At a 64th of the rate, the lowest of these bandwidths would be the whole band.
        let too_short = args(12, Some(5_000.0));
        assert!(problem(&too_short, 512).unwrap_err().contains("one sample"));
        assert_eq!(problem(&too_short, 511), Ok(()));
        for fmin in [f64::NAN, 0.0, -1.0] {
            let fmin = ConstantQArgs {
                fmin,
                ..usual.clone()
            };
            assert!(problem(&fmin, 512).is_err());
        }
    }
}
