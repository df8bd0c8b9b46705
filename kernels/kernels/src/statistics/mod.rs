//! Statistics of each band over its frames, as in FMA's `features.csv`.
//!
//! Shape: `[bands, n_frames]` → `[7, bands]`, in the order of `wavemill_options::STATISTICS`. Mean, median, extremes
//! and population standard deviation are those of numpy. Skew and kurtosis are the defaults of `scipy.stats`: of the
//! population, with a kurtosis of 0 for the normal distribution. numpy and scipy return NaN for the skew and kurtosis
//! of a constant band; here they are 0, because NaN is never stored.
//!
//! There is no device code, because a few numbers per clip do not justify a kernel: device backends reject statistics.

mod cpu;
#[cfg(test)]
pub(crate) mod reference;

pub use cpu::StatisticsPlan;
pub(crate) use cpu::median;
