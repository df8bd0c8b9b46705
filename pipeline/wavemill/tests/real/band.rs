//! Compares the band path of the MP3 decoder with the exact path, on real clips.

use std::fs;
use std::path::{Path, PathBuf};

use wavemill_decode::{Decode, DecodeArgs, FileDecoder, Pcm};
use wavemill_kernels::Level;
use wavemill_schemas::reject::Reject;
use wavemill_tests::{Failed, Trial, real};

use crate::decode::mp3s;

/// Sample rates: half and a quarter of 44.1 kHz, two with other ratios, and one for which the band path is not used.
const RATES_HZ: [u32; 5] = [22_050, 11_025, 16_000, 8_000, 24_000];
/// Maximum power of the difference, relative to the signal's power: -90 dB.
const DIFFERENCE_MAX: f64 = 1e-9;
/// Number of samples at each end of a clip within the reach of the resampler's filter.
const END_SAMPLES: usize = 400;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        real("band::sound_clips_are_those_of_the_exact_path", sound_clips),
        real(
            "band::the_rate_of_a_device_has_the_same_lengths",
            kept_rates,
        ),
        real("band::damaged_clips_give_rows_or_rejects", damaged_clips),
    ]
}

/// One decoder for the exact path and one for the band path.
struct Paths {
    exact: FileDecoder,
    band: FileDecoder,
}

impl Paths {
    fn new(sample_rate_hz: u32, duration_s: Option<f64>, keep_rate: bool) -> Self {
        let args = DecodeArgs {
            sample_rate_hz,
            duration_s,
            min_duration_s: 0.0,
            keep_rate,
        };
        let level = Level::detect();
        Self {
            exact: FileDecoder::new(args.clone(), level).unwrap(),
            band: FileDecoder::new(args, level).unwrap().by_band(),
        }
    }

    fn decode(&mut self, bytes: &[u8]) -> [Result<Pcm, Reject>; 2] {
        [&mut self.exact, &mut self.band].map(|decoder| {
            let mut out = Pcm::default();
            decoder.decode("mp3", bytes, &mut out).map(|()| out)
        })
    }
}

fn clips(data: &Path) -> Vec<PathBuf> {
    let mut clips = mp3s(&data.join("audio/fma_real"));
    clips.extend(mp3s(&data.join("fma_like")));
    assert!(clips.len() >= 20, "{} clips", clips.len());
    clips
}

/// Returns the power of the samples at any frequency, without those at both ends of a clip: the exact path resamples the
/// abrupt start and end of the trimmed audio, and the band path trims resampled audio.
fn inner_power(samples: impl ExactSizeIterator<Item = f32>) -> f64 {
    let n_inner = samples.len().saturating_sub(2 * END_SAMPLES);
    let inner = samples.skip(END_SAMPLES).take(n_inner);
    inner.map(|sample| f64::from(sample).powi(2)).sum()
}

fn sound_clips(data: &Path) -> Result<(), Failed> {
    let whole = RATES_HZ.map(|rate_hz| (rate_hz, None));
    for (rate_hz, duration_s) in whole.into_iter().chain([(22_050, Some(5.0))]) {
        let mut paths = Paths::new(rate_hz, duration_s, false);
        for clip in clips(data) {
            let place = format!("{} at {rate_hz} Hz, {duration_s:?}", clip.display());
            let [exact, band] = paths.decode(&fs::read(&clip)?).map(Result::unwrap);
            assert_eq!(exact.samples.len(), band.samples.len(), "{place}");
            assert_eq!(exact.lost_s, band.lost_s, "{place}");
            assert_eq!(exact.audio_blake3, band.audio_blake3, "{place}");

            let differences = exact.samples.iter().zip(band.samples.iter());
            let difference = inner_power(differences.map(|(a, b)| a - b));
            let power = inner_power(exact.samples.iter().copied());
            let part = difference / power.max(f64::MIN_POSITIVE);
            assert!(part <= DIFFERENCE_MAX, "{place}: {part:e}");
        }
    }
    Ok(())
}

/// With `keep_rate`, the device converts the rate, and the decoder reports the number of samples after the conversion.
fn kept_rates(data: &Path) -> Result<(), Failed> {
    for rate_hz in [22_050, 16_000] {
        let mut paths = Paths::new(rate_hz, None, true);
        for clip in clips(data) {
            let place = format!("{} at {rate_hz} Hz", clip.display());
            let [exact, band] = paths.decode(&fs::read(&clip)?).map(Result::unwrap);

            assert_eq!(exact.n_samples, band.n_samples, "{place}");
            assert!(band.samples.len() <= exact.samples.len(), "{place}");
            assert!(band.samples.iter().all(|s| s.is_finite()), "{place}");
        }
    }
    Ok(())
}

/// Checks that both paths reject the same damaged files, although the band path does not read the highest frequencies.
fn damaged_clips(data: &Path) -> Result<(), Failed> {
    let mut n_rows = 0;
    for folder in ["fma_like_bad", "rate_variants", "mp3_odd"] {
        for rate_hz in RATES_HZ {
            let mut paths = Paths::new(rate_hz, None, false);
            for clip in mp3s(&data.join(folder)) {
                let place = format!("{} at {rate_hz} Hz", clip.display());
                match paths.decode(&fs::read(&clip)?) {
                    [Ok(exact), Ok(band)] => {
                        assert_eq!(exact.samples.len(), band.samples.len(), "{place}");
                        assert!(band.lost_s <= exact.lost_s, "{place}");
                        assert!(band.samples.iter().all(|s| s.is_finite()), "{place}");
                        n_rows += 1;
                    }
                    [Err(exact), Err(band)] => assert_eq!(exact.reason, band.reason, "{place}"),
                    [exact, band] => panic!("{place}: {:?}, {:?}", exact.err(), band.err()),
                }
            }
        }
    }

    assert!(n_rows > 0);
    Ok(())
}
