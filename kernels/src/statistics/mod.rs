//! Statistics of each band over its frames, as FMA's `features.csv` has them.
//!
//! Shape: `[bands, n_frames]` → `[7, bands]`, in the order of `wavemill_options::STATISTICS`. Mean, median, extremes and
//! the population's deviation as numpy's; skew and kurtosis as `scipy.stats` by default: of the population, and 0 for the
//! kurtosis of a normal distribution. numpy and scipy give NaN for the skew and kurtosis of a band that never varies;
//! here they are 0, because NaN is never stored.
//!
//! There is no device code: a few numbers a clip are not worth a kernel, and the backends of devices refuse them.

mod cpu;
#[cfg(test)]
pub(crate) mod reference;

pub(crate) use cpu::StatisticsPlan;
