//! Keeps the channels of a clip at the file's sample rate. Feature extraction does not use this: it needs only the mean of
//! the channels, which is decoded faster.

use std::ops::Range;

use wavemill_signal::resample::{MAX_TO_HZ, Resamplers};
use wavemill_signal::{Level, SampleBuffer};

/// The channels of a clip as they enter the downmix: trimmed, and with silence in place of lost audio.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Channels {
    /// Sample rate in Hz: the file's. A file with several rates is converted to one of them, or to 48 kHz.
    pub rate_hz: u32,
    /// Samples of each channel, full scale ±1; all channels have equal lengths. A part of the clip that has fewer
    /// channels than another one has its mean in each.
    pub planes: Vec<Vec<f32>>,
    /// Seconds of audio lost to damage.
    pub lost_s: f32,
    /// The first sample and the rate of each stretch of equal rate.
    stretches: Vec<(usize, u32)>,
}

/// Properties of a clip that are known after decoding it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipFacts {
    /// Sample rate of the file, Hz.
    pub rate_hz: u32,
    /// Number of channels: the largest of any part of the clip.
    pub n_channels: usize,
    /// Decoded duration, in seconds.
    pub duration_s: f64,
    /// Seconds of audio lost to damage, which are part of the duration.
    pub lost_s: f32,
}

impl Channels {
    /// Begins the clip, or a stretch of it with another sample rate.
    pub(super) fn begin_stretch(&mut self, rate_hz: u32) {
        let start = self.planes.first().map_or(0, Vec::len);
        self.stretches.push((start, rate_hz));
    }

    /// Converts all stretches to the clip's sample rate.
    pub(super) fn unify(&mut self) {
        let stretches = std::mem::take(&mut self.stretches);
        if stretches.iter().all(|(_, rate)| *rate == self.rate_hz) {
            return;
        }

        self.rate_hz = self.rate_hz.min(MAX_TO_HZ);
        let mut resamplers = Resamplers::new(self.rate_hz, Level::detect());
        for plane in &mut self.planes {
            let mut converted = Vec::new();
            for (at, &(start, from_hz)) in stretches.iter().enumerate() {
                let end = stretches.get(at + 1).map_or(plane.len(), |next| next.0);
                let resampler = resamplers
                    .select(from_hz)
                    .expect("decoding has checked the rates of all stretches");

                let mut stretch = SampleBuffer::default();
                resampler.push(&plane[start..end], &mut stretch);
                resampler.finish(&mut stretch);
                converted.extend_from_slice(&stretch);
            }
            *plane = converted;
        }
    }

    /// Makes room for a packet of `n_channels` channels.
    pub(super) fn widen(&mut self, n_channels: usize) {
        if n_channels > self.planes.len() {
            let mut mean = Vec::new();
            let n_samples = self.planes.first().map_or(0, Vec::len);
            mix(&self.planes, 0..n_samples, &mut mean);
            self.planes = vec![mean; n_channels];
        }
    }

    /// Adds the samples `range` of one packet, whose channels have the mean `mean`, or only the mean.
    pub(super) fn push<P: AsRef<[f32]>>(
        &mut self,
        planes: &[P],
        range: Range<usize>,
        mean: &[f32],
    ) {
        let has_all = planes.len() == self.planes.len();
        for (at, channel) in self.planes.iter_mut().enumerate() {
            channel.extend_from_slice(match planes.get(at) {
                Some(plane) if has_all => &plane.as_ref()[range.clone()],
                _ => mean,
            });
        }
    }
}

/// Computes the mean of channels, `range` of their samples. Sums in the order of the channels and then divides, like
/// `numpy.mean`, by which librosa mixes channels.
pub(super) fn mix<P: AsRef<[f32]>>(planes: &[P], range: Range<usize>, mean: &mut Vec<f32>) {
    mean.clear();
    let Some((first, others)) = planes.split_first() else {
        return;
    };
    mean.extend_from_slice(&first.as_ref()[range.clone()]);
    if others.is_empty() {
        return;
    }

    for plane in others {
        for (sum, sample) in mean.iter_mut().zip(&plane.as_ref()[range.clone()]) {
            *sum += sample;
        }
    }
    let n_channels = planes.len() as f32;
    for sum in mean {
        *sum /= n_channels;
    }
}
