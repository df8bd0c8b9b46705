//! From samples to the energies of notes, and from these to items.

use std::ops::Range;

use wavemill_options::{Framing, StftArgs, Window};
use wavemill_signal::{LANES, Lane, Lanes, Level};

use super::filters::{FILTERS, N_NOTES};
use super::{FINGERPRINT_RATE_HZ, ITEM_SAMPLES};
use crate::error::KernelError;
use crate::stft::{RealFft, Transform, check_samples};

/// Length of a frame in samples.
const N_FFT: usize = 4096;
/// Lowest and highest frequency of the notes, in Hz.
const NOTES_HZ: [f64; 2] = [28.0, 3520.0];
/// The note A0, in Hz, with which octaves begin.
const OCTAVE_HZ: f64 = 27.5;
/// Weights of consecutive frames in a smoothed frame.
const SMOOTHING: [f64; 5] = [0.25, 0.75, 1.0, 0.75, 0.25];
/// Frames whose energies have a smaller Euclidean norm are silent.
const NORM_MIN: f64 = 0.01;
/// Number of smoothed frames that an item describes.
const ITEM_FRAMES: usize = 16;

/// Energies of the 12 notes of a frame, from A to G sharp.
type Notes = [f64; N_NOTES];

/// Makes fingerprints. The buffers are kept from clip to clip.
pub struct Fingerprinter {
    lanes: Lanes,
    fft: RealFft<f32>,
    /// Powers of the bins of a frame.
    powers: Vec<f32>,
    /// Consecutive bins of one note, with this note.
    bins: Vec<(Range<usize>, usize)>,
    frames: Vec<Notes>,
    /// Sums of the smoothed energies of all earlier frames and lower notes, with a row and a column of zeros.
    sums: Vec<[f64; N_NOTES + 1]>,
    items: Vec<u32>,
}

impl Fingerprinter {
    /// Plans the transform for a level.
    ///
    /// # Errors
    /// [`KernelError::Level`] if this machine does not support the level.
    pub fn new(level: Level) -> Result<Self, KernelError> {
        let lanes = Lanes::new(level).ok_or(KernelError::Level { level })?;
        let args = StftArgs {
            n_fft: N_FFT,
            hop_length: ITEM_SAMPLES,
            win_length: N_FFT,
            window: Window::Hamming,
            framing: Framing::Inside,
            scale: 1,
            remove_dc: false,
            preemphasis: 0.0,
            n_samples: None,
            drop_last_frame: false,
        };

        Ok(Self {
            lanes,
            fft: RealFft::new(&args, lanes),
            powers: vec![0.0; args.n_bins()],
            bins: bins_of_notes(),
            frames: Vec::new(),
            sums: Vec::new(),
            items: Vec::new(),
        })
    }

    /// Returns the items of mono samples at [`FINGERPRINT_RATE_HZ`]; none for less than 2.73 s.
    ///
    /// # Errors
    /// [`KernelError::Sample`] for a sample that is not audio.
    pub fn run(&mut self, samples: &[f32]) -> Result<&[u32], KernelError> {
        check_samples(samples, self.lanes)?;
        self.measure_notes(samples);
        self.sum_smoothed();

        self.items.clear();
        // A row of zeros precedes the sums.
        for rows in self.sums.windows(ITEM_FRAMES + 1) {
            let item = FILTERS.iter().fold(0, |item, filter| {
                let quarter = filter.quarter(rows);
                // Gray code: neighbouring quarters differ in one bit.
                item << 2 | (quarter ^ quarter >> 1)
            });
            self.items.push(item);
        }
        Ok(&self.items)
    }

    /// Adds up the energies of each note in each frame.
    fn measure_notes(&mut self, samples: &[f32]) {
        let Self {
            fft, powers, bins, ..
        } = self;
        self.frames.clear();
        for frame in samples.windows(N_FFT).step_by(ITEM_SAMPLES) {
            fft.powers(frame, powers);
            self.frames.push(self.lanes.run(
                #[inline(always)]
                || notes_of(powers, bins),
            ));
        }
    }

    /// Smooths the frames over time, scales each to the Euclidean norm 1, and adds them up.
    fn sum_smoothed(&mut self) {
        self.sums.clear();
        self.sums.push([0.0; N_NOTES + 1]);
        let mut above = [0.0; N_NOTES + 1];
        for frames in self.frames.windows(SMOOTHING.len()) {
            let mut smoothed = [0.0; N_NOTES];
            for (frame, weight) in frames.iter().zip(SMOOTHING) {
                for (sum, energy) in smoothed.iter_mut().zip(frame) {
                    *sum += energy * weight;
                }
            }

            let norm = smoothed.iter().map(|energy| energy * energy).sum::<f64>();
            let norm = norm.sqrt();
            let mut of_row = 0.0;
            for (note, energy) in smoothed.iter().enumerate() {
                if norm >= NORM_MIN {
                    of_row += energy / norm;
                }
                above[note + 1] += of_row;
            }
            self.sums.push(above);
        }
    }
}

/// Returns the bins of the notes, from the lowest.
fn bins_of_notes() -> Vec<(Range<usize>, usize)> {
    let hz_per_bin = f64::from(FINGERPRINT_RATE_HZ) / N_FFT as f64;
    let [first, end] = NOTES_HZ.map(|hz| libm::round(hz / hz_per_bin) as usize);
    let mut bins: Vec<(Range<usize>, usize)> = Vec::new();
    for bin in first..end {
        let octaves = libm::log2(bin as f64 * hz_per_bin / OCTAVE_HZ);
        let note = (N_NOTES as f64 * (octaves - octaves.floor())) as usize;
        match bins.last_mut() {
            Some((bins, last)) if *last == note => bins.end = bin + 1,
            _ => bins.push((bin..bin + 1, note)),
        }
    }
    bins
}

/// Adds up the energies of each note.
#[inline(always)]
fn notes_of(powers: &[f32], bins: &[(Range<usize>, usize)]) -> Notes {
    let mut sums: [Lane; N_NOTES] = [[0.0; LANES]; N_NOTES];
    for (bins, note) in bins {
        let sums = &mut sums[*note];
        let (blocks, rest) = powers[bins.clone()].as_chunks::<LANES>();
        for block in blocks {
            sums.iter_mut().zip(block).for_each(|(sum, x)| *sum += x);
        }
        sums.iter_mut().zip(rest).for_each(|(sum, x)| *sum += x);
    }
    sums.map(|lanes| lanes.iter().map(|sum| f64::from(*sum)).sum())
}

#[cfg(test)]
mod tests {
    use std::f64::consts::TAU;

    use rusty_chromaprint::{Configuration, Fingerprinter as Reference};

    use super::*;

    /// Returns `seconds` of chords with noise, as 16-bit samples.
    fn chords(seconds: usize) -> Vec<i16> {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 24)
        };

        let rate_hz = f64::from(FINGERPRINT_RATE_HZ);
        let mut samples = Vec::new();
        for _ in 0..4 * seconds {
            let notes_hz = [0; 3].map(|_| 110.0 * libm::exp2(4.0 * next()));
            for i in 0..FINGERPRINT_RATE_HZ / 4 {
                let turns = f64::from(i) / rate_hz * TAU;
                let tones = notes_hz.iter().map(|hz| libm::sin(hz * turns)).sum::<f64>();
                samples.push((8_000.0 * (tones + 0.3 * (next() - 0.5))) as i16);
            }
        }
        samples
    }

    fn floats(samples: &[i16], gain: f32) -> Vec<f32> {
        let samples = samples.iter();
        samples.map(|x| f32::from(*x) * gain / 32_767.0).collect()
    }

    fn share_of_equal_bits(one: &[u32], other: &[u32]) -> f64 {
        assert_eq!(one.len(), other.len());
        let differing: u32 = one
            .iter()
            .zip(other)
            .map(|(a, b)| (a ^ b).count_ones())
            .sum();
        1.0 - f64::from(differing) / (32 * one.len()) as f64
    }

    #[test]
    fn items_are_those_of_rusty_chromaprint() {
        let samples = chords(30);
        let mut reference = Reference::new(&Configuration::preset_test2());
        reference.start(FINGERPRINT_RATE_HZ, 1).unwrap();
        reference.consume(&samples);
        reference.finish();

        for level in [Level::Scalar, Level::detect()] {
            let mut fingerprinter = Fingerprinter::new(level).unwrap();
            let items = fingerprinter.run(&floats(&samples, 1.0)).unwrap();
            assert_eq!(items.len(), 221);
            // The reference computes in f64, with a symmetric window.
            let share = share_of_equal_bits(items, reference.fingerprint());
            assert!(share > 0.999, "{level}: {share}");
        }
    }

    #[test]
    fn loudness_changes_few_items() {
        let samples = chords(10);
        let mut fingerprinter = Fingerprinter::new(Level::detect()).unwrap();
        let loud = fingerprinter.run(&floats(&samples, 1.0)).unwrap().to_vec();
        let quiet = fingerprinter.run(&floats(&samples, 0.02)).unwrap();
        assert!(share_of_equal_bits(&loud, quiet) > 0.999);
    }

    #[test]
    fn silence_and_short_clips_have_fingerprints_too() {
        let mut fingerprinter = Fingerprinter::new(Level::detect()).unwrap();
        let items_min = N_FFT + (ITEM_FRAMES + SMOOTHING.len() - 2) * ITEM_SAMPLES;
        for (n_samples, n_items) in [(0, 0), (100, 0), (items_min - 1, 0), (items_min, 1)] {
            let items = fingerprinter.run(&vec![0.0; n_samples]).unwrap();
            assert_eq!(items.len(), n_items);
        }

        let silence = fingerprinter.run(&[0.0; 200_000]).unwrap();
        assert!(silence.iter().all(|item| *item == silence[0]));
        assert!(fingerprinter.run(&[f32::NAN; 50_000]).is_err());
    }
}
