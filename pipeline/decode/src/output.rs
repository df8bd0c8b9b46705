//! Output stage of all decoders. Each packet is mixed down, trimmed, resampled and cut at the requested duration.

use std::ops::Range;

use wavemill_schemas::reject::{Reason, Reject};
use wavemill_schemas::samples::samples_in;
use wavemill_signal::Level;
use wavemill_signal::resample::{
    MAX_DEVICE_HZ, MAX_FROM_HZ, MIN_HZ, ResampleArgs, ResampleError, Resampler, Resamplers,
};

use super::channels::mix;
use super::{Channels, DecodeArgs, OUTPUT_S_MAX, Pcm, reject};

/// Largest valid sample value: 24 dB over full scale. Louder samples, NaN and infinity are treated as damage; clipped
/// music reaches 18 dB.
const SAMPLE_ABS_MAX: f32 = 16.0;
/// Maximum number of samples per channel in a packet of any format: the longest FLAC block.
pub(super) const PACKET_SAMPLES_MAX: usize = 1 << 16;
/// Maximum number of times that a clip may change its sample rate, because planning a resampler takes a millisecond.
pub(super) const STRETCHES_MAX: u32 = 1_000;
/// A sample rate that occurs in every archive. Planning a resampler for it detects invalid arguments early.
const USUAL_RATE_HZ: u32 = 44_100;

/// Output stage of one decoder: resampler plans and the downmix buffer, which are kept from clip to clip.
pub(super) struct Output {
    sample_rate_hz: u32,
    keep_rate: bool,
    /// Number of samples after which a clip's output is cut.
    n_samples_max: usize,
    /// The requested duration in seconds.
    duration_s: Option<f64>,
    /// Clips with more samples are rejected; `None` if the requested duration is within the limit.
    n_samples_allowed: Option<usize>,
    most_s: f64,
    /// Upper bound on the duration of the next clip, in seconds.
    expected_s: f64,
    /// True if samples are counted and not kept.
    pub is_measuring: bool,
    resamplers: Resamplers,
    mono: Vec<f32>,
    /// If `Some`, the channels of one clip are stored here as well.
    pub channels: Option<Channels>,
}

impl Output {
    /// Creates an output stage and checks the arguments by planning a resampler for the usual rate.
    ///
    /// # Errors
    /// [`ResampleError`] if the output rate is out of range or the machine does not support `level`.
    pub(super) fn new(args: &DecodeArgs, level: Level) -> Result<Self, ResampleError> {
        let sample_rate_hz = args.sample_rate_hz;
        let mut resamplers = Resamplers::new(sample_rate_hz, level);
        resamplers.select(USUAL_RATE_HZ)?;

        let mut output = Self {
            sample_rate_hz,
            keep_rate: args.keep_rate,
            n_samples_max: 0,
            duration_s: args.duration_s,
            n_samples_allowed: None,
            most_s: 0.0,
            expected_s: f64::INFINITY,
            is_measuring: false,
            resamplers,
            mono: Vec::new(),
            channels: None,
        };
        output.set_most(args, OUTPUT_S_MAX);
        Ok(output)
    }

    /// Sets the maximum duration of a clip in seconds. It does not apply if `args` cut all clips at or before `most_s`.
    pub(super) fn set_most(&mut self, args: &DecodeArgs, most_s: f64) {
        let n_most = samples_in(most_s, self.sample_rate_hz);
        // A clip that is cut within the limit cannot be too long, because no audio after the cut is decoded.
        match args.duration_s.filter(|cut_s| *cut_s <= most_s) {
            Some(cut_s) => {
                self.n_samples_allowed = None;
                self.n_samples_max = samples_in(cut_s, self.sample_rate_hz);
            }
            None => {
                self.n_samples_allowed = Some(n_most);
                // Decode one sample more than allowed, to detect that a clip is longer.
                self.n_samples_max = n_most + 1;
            }
        }
        self.most_s = most_s;
    }

    /// Returns the maximum duration of a clip, in seconds.
    pub(super) const fn most_s(&self) -> f64 {
        self.most_s
    }

    /// Reports whether a clip with `n_samples` samples at the requested rate exceeds the maximum duration.
    pub(super) fn is_too_long(&self, n_samples: usize) -> bool {
        self.n_samples_allowed
            .is_some_and(|allowed| n_samples > allowed)
    }

    /// Sets an upper bound on the duration of the next clip, in seconds.
    pub(super) const fn expect(&mut self, longest_s: f64) {
        self.expected_s = longest_s;
    }

    /// Reports whether `n_samples` samples at the requested rate are within the expected duration, plus the length of
    /// one block.
    pub(super) fn is_as_expected(&self, n_samples: usize) -> bool {
        let n_expected = samples_in(self.expected_s, self.sample_rate_hz);
        n_samples <= n_expected.saturating_add(PACKET_SAMPLES_MAX)
    }

    /// Prepares the output stage for a clip with sample rate `from_hz` and clears `out`.
    ///
    /// # Errors
    /// A [`Reject`] if the sample rate is out of range.
    pub(super) fn open<'a>(
        &'a mut self,
        from_hz: u32,
        out: &'a mut Pcm,
    ) -> Result<Sink<'a>, Reject> {
        self.open_with(false, from_hz, 1, out)
    }

    /// Like [`Self::open`], for callers that push only every `step`-th sample of the clip, starting at [`Sink::phase`],
    /// and for clips that have several rates, see [`Sink::begin_stretch`].
    ///
    /// # Errors
    /// Same as [`Self::open`].
    pub(super) fn open_with<'a>(
        &'a mut self,
        has_several_rates: bool,
        from_hz: u32,
        step: usize,
        out: &'a mut Pcm,
    ) -> Result<Sink<'a>, Reject> {
        if !(MIN_HZ..=MAX_FROM_HZ).contains(&from_hz) {
            let reason = if from_hz > MAX_FROM_HZ {
                Reason::TooLarge
            } else {
                Reason::UnsupportedCodec
            };
            let detail =
                format!("sample rate {from_hz} Hz is outside {MIN_HZ} to {MAX_FROM_HZ} Hz");
            return Err(reject(reason, detail));
        }

        let clip_rates = ResampleArgs {
            from_hz,
            to_hz: self.sample_rate_hz,
        };
        // The rate of the pushed samples is at least the requested rate: a band-limited decoder never decimates below
        // it.
        let from_hz = from_hz / step as u32;
        let rates = ResampleArgs {
            from_hz,
            ..clip_rates
        };

        let n_samples_max = self.n_samples_max;
        // A buffer of samples has only one rate.
        let keep_rate = self.keep_rate && !has_several_rates && from_hz <= MAX_DEVICE_HZ;
        let (rate_hz, n_kept_max) = match keep_rate {
            false => (self.sample_rate_hz, n_samples_max),
            // If the file's rate is kept, decoding thereby ends at the same packet as with a resampler.
            true => (from_hz, rates.input_len(n_samples_max as u64) as usize),
        };

        // Reserve exactly the needed memory: a buffer that grows by doubling takes up to twice as much, and three times
        // while it is copied.
        out.samples.clear_for(self.room(rates, rate_hz, n_kept_max));
        out.rate_hz = rate_hz;

        if !keep_rate {
            self.resamplers
                .select(from_hz)
                .expect("`new` and this function checked the rates and level");
        }
        if let Some(channels) = &mut self.channels {
            channels.rate_hz = from_hz;
            channels.begin_stretch(from_hz);
        }

        Ok(Sink {
            clip_rates,
            rates,
            step,
            ended_s: 0.0,
            n_ended: 0,
            duration_s: self.duration_s,
            resamplers: (!keep_rate).then_some(&mut self.resamplers),
            mono: &mut self.mono,
            channels: self.channels.as_mut(),
            out,
            n_samples_max,
            n_kept_max,
            n_wanted_max: n_wanted_max(self.duration_s, clip_rates.from_hz),
            is_cut_by_most: self.n_samples_allowed.is_some(),
            n_counted: if self.is_measuring { Some(0) } else { None },
            drop_samples: 0,
            keep_samples: u64::MAX,
            n_taken: 0,
        })
    }

    /// Returns the maximum number of buffered samples, including those of the resampler's last block after the end.
    fn room(&self, rates: ResampleArgs, rate_hz: u32, n_kept_max: usize) -> usize {
        if self.is_measuring {
            return 0;
        }
        let n_expected = samples_in(self.expected_s, rate_hz).min(n_kept_max);

        let block = if rate_hz == rates.from_hz {
            PACKET_SAMPLES_MAX
        } else {
            rates.step_len().max(PACKET_SAMPLES_MAX)
        };
        n_expected + block
    }
}

/// Returns the number of samples in the requested duration; `u64::MAX` without one.
fn n_wanted_max(duration_s: Option<f64>, rate_hz: u32) -> u64 {
    duration_s.map_or(u64::MAX, |duration_s| {
        samples_in(duration_s, rate_hz) as u64
    })
}

/// Receives the audio of one clip at the clip's rate, or every `step`-th sample of it. If the rate changes, the clip's rate
/// is that of the current stretch, and so are rates and numbers of samples at the clip's rate.
pub(super) struct Sink<'a> {
    /// Rates of converting from the clip's sample rate to the output's.
    clip_rates: ResampleArgs,
    /// Rates of converting from the rate of the pushed samples to the output's.
    rates: ResampleArgs,
    step: usize,
    /// Duration of the earlier stretches in seconds, and number of output samples made from them.
    ended_s: f64,
    n_ended: usize,
    /// The requested duration in seconds.
    duration_s: Option<f64>,
    /// The current one is that of the stretch. `None` if the samples keep the file's rate.
    resamplers: Option<&'a mut Resamplers>,
    mono: &'a mut Vec<f32>,
    channels: Option<&'a mut Channels>,
    out: &'a mut Pcm,
    /// Maximum number of output samples of a clip, at the requested rate.
    n_samples_max: usize,
    /// Maximum number of output samples at the rate of the kept samples. If the file's rate is kept, it includes the
    /// input that the resampling filter needs after the end.
    n_kept_max: usize,
    /// Number of samples from the end of the start trim, or the start of a later stretch, to the end of the requested
    /// duration; `u64::MAX` without one.
    n_wanted_max: u64,
    /// True if the output ends at the maximum duration of a clip instead of at a requested duration.
    is_cut_by_most: bool,
    /// Number of output samples that were counted and discarded; `None` if the output is kept.
    n_counted: Option<usize>,
    /// Number of samples that are still to be trimmed at the start, at the clip's rate.
    drop_samples: u64,
    keep_samples: u64,
    /// Number of samples accepted so far after trimming, at the clip's rate.
    n_taken: u64,
}

impl Sink<'_> {
    /// Trims the audio that is pushed from now on: drops the first `start` samples and everything from sample `end`.
    pub(super) fn trim(&mut self, start: u64, end: Option<u64>) {
        self.drop_samples = start;
        self.keep_samples = end.map_or(u64::MAX, |end| end.saturating_sub(start));
    }

    /// Begins a stretch of the clip with sample rate `from_hz`, of which every `step`-th sample is pushed; the stretch before
    /// it ends like a clip. Has no effect if the rate does not change.
    ///
    /// The clip must have been opened as one with several rates, each of which can be opened.
    pub(super) fn begin_stretch(&mut self, from_hz: u32, step: usize) {
        if from_hz == self.clip_rates.from_hz {
            return;
        }
        self.end_stretch();

        self.step = step;
        self.clip_rates.from_hz = from_hz;
        self.rates.from_hz = from_hz / step as u32;
        self.n_taken = 0;
        let left_s = self.duration_s.map(|duration_s| duration_s - self.ended_s);
        self.n_wanted_max = n_wanted_max(left_s, from_hz);

        let resamplers = self.resamplers.as_mut();
        resamplers
            .and_then(|resamplers| resamplers.select(self.rates.from_hz).ok())
            .expect("the clip has several rates, all of which the caller checked");
        if let Some(channels) = &mut self.channels {
            channels.begin_stretch(from_hz);
        }
    }

    /// Outputs the rest of the current stretch.
    fn end_stretch(&mut self) {
        if let Some(resampler) = current(&mut self.resamplers) {
            resampler.finish(&mut self.out.samples);
        }
        self.ended_s += self.n_taken as f64 / f64::from(self.clip_rates.from_hz);

        // The output of each stretch is rounded up, but thousands of them must not add up to a delay.
        let n_surplus = self
            .n_out()
            .saturating_sub(samples_in(self.ended_s, self.clip_rates.to_hz));
        let n_kept = self.out.samples.len().saturating_sub(n_surplus);
        self.out.samples.truncate(n_kept);
        self.count();
        self.n_ended = self.n_out();
    }

    /// Returns the index of the sample in the next packet that must be pushed first; less than `step`. The distance of
    /// every pushed sample from the first sample after the trim, where the output begins, is a multiple of `step`.
    pub(super) fn phase(&self) -> usize {
        let step = self.step as u64;
        let phase = if self.drop_samples > 0 {
            self.drop_samples % step
        } else {
            (step - self.n_taken % step) % step
        };
        phase as usize
    }

    /// Returns the sample rate of the current stretch in Hz.
    pub(super) fn rate_hz(&self) -> u32 {
        self.clip_rates.from_hz
    }

    /// Returns the requested duration in seconds, in whole samples.
    pub(super) fn requested_s(&self) -> f64 {
        self.ended_s + self.n_wanted_max as f64 / f64::from(self.clip_rates.from_hz)
    }

    /// Returns how many of the next `n_samples` samples of the clip precede the end of the requested duration,
    /// including those that trimming drops. More samples than that are pushed, because the resampler's filter and
    /// blocks extend further. The number is the same for every output rate.
    pub(super) fn n_wanted(&self, n_samples: u64) -> u64 {
        let n_left = self.n_wanted_max.saturating_sub(self.n_taken);
        n_samples.min(self.drop_samples.saturating_add(n_left))
    }

    /// Mixes the samples `range` of one packet down to the mean of its channels and outputs them. `planes` are the
    /// channels, at least one. Returns false and outputs silence if the samples are not valid audio.
    pub(super) fn push<P: AsRef<[f32]>>(&mut self, planes: &[P], range: Range<usize>) -> bool {
        let (start, end) = self.take(range.len() * self.step);
        let range = range.start + start..range.start + end;
        mix(planes, range.clone(), self.mono);

        // Check the mean of the channels, since only the mean is used; infinities of opposite signs make it NaN.
        let is_audio = self.mono.iter().fold(true, |is_audio, sample| {
            is_audio & (sample.abs() <= SAMPLE_ABS_MAX)
        });
        if !is_audio {
            self.mono.fill(0.0);
        }

        if let Some(channels) = &mut self.channels {
            channels.widen(planes.len());
            if self.n_counted.is_none() {
                let planes = if is_audio { planes } else { &[] };
                channels.push(planes, range, self.mono);
            }
        }
        self.keep();
        is_audio
    }

    /// Pushes silence of `n_samples` samples at the clip's rate, until the output is full.
    pub(super) fn push_silence(&mut self, n_samples: usize) {
        let (start, end) = self.take(n_samples);
        let mut left = end - start;
        // Push the zeros of a gap block by block, because a gap can be hours long.
        while left > 0 && !self.is_full() {
            let piece = left.min(PACKET_SAMPLES_MAX);
            left -= piece;
            self.mono.clear();
            self.mono.resize(piece, 0.0);
            if let Some(channels) = &mut self.channels
                && self.n_counted.is_none()
            {
                channels.widen(1);
                channels.push::<&[f32]>(&[], 0..0, self.mono);
            }
            self.keep();
        }
    }

    fn keep(&mut self) {
        match current(&mut self.resamplers) {
            Some(resampler) => resampler.push(self.mono, &mut self.out.samples),
            None => self.out.samples.extend_from_slice(self.mono),
        }
        self.count();
    }

    /// If samples are not kept, counts the new output samples and discards them.
    fn count(&mut self) {
        if let Some(n_counted) = &mut self.n_counted {
            // Discard the samples after every push, so that measuring hours of audio takes only the memory of one push.
            *n_counted += self.out.samples.len();
            self.out.samples.clear();
        }
    }

    /// Returns the number of samples output so far.
    fn n_out(&self) -> usize {
        self.n_counted.unwrap_or(0) + self.out.samples.len()
    }

    /// Reports whether the output of the clip is complete.
    pub(super) fn is_full(&self) -> bool {
        // If only every `step`-th sample is pushed, the last output sample is before the end of the requested duration.
        // Damage between the two must count, as it does if all samples are pushed.
        let is_at_end = self.n_taken >= self.n_wanted_max || self.is_cut_by_most;
        self.n_out() >= self.n_kept_max && is_at_end
    }

    /// Finishes the output of the clip.
    pub(super) fn finish(mut self) {
        let is_full = self.is_full();
        let n_made = match current(&mut self.resamplers) {
            Some(resampler) => {
                // If the output is full, the samples that are still in the resampler come after the end.
                if !is_full {
                    resampler.finish(&mut self.out.samples);
                }
                self.n_out()
            }
            // The kept samples are resampled later: compute the number of samples after resampling.
            None if is_full => self.n_samples_max,
            None => self.rates.output_len(self.n_out() as u64) as usize,
        };

        // The last step may reach past the end of the clip, which could make the output one sample too long.
        let n_of_clip = self.n_ended + self.clip_rates.output_len(self.n_taken) as usize;
        self.out.n_samples = n_made.min(self.n_samples_max).min(n_of_clip);
        // A resampler outputs whole blocks, so remove samples after the requested number.
        self.out.samples.truncate(match self.resamplers {
            Some(_) => self.out.n_samples,
            None => self.n_kept_max,
        });
    }

    /// Applies the trim to the next `n_samples` samples of the clip. Returns the range of the pushed samples that
    /// remain.
    fn take(&mut self, n_samples: usize) -> (usize, usize) {
        let phase = self.phase();
        let start = self.drop_samples.min(n_samples as u64);
        self.drop_samples -= start;
        let kept = self.keep_samples.min(n_samples as u64 - start);
        self.keep_samples -= kept;
        self.n_taken += kept;

        // Pushed sample `i` corresponds to sample `phase + i * step` of the clip.
        let before = |end: u64| (end as usize).saturating_sub(phase).div_ceil(self.step);
        (before(start), before(start + kept))
    }
}

/// Returns the resampler of the current stretch, if the clip is resampled.
fn current<'a>(resamplers: &'a mut Option<&mut Resamplers>) -> Option<&'a mut Resampler> {
    resamplers
        .as_mut()
        .and_then(|resamplers| resamplers.current())
}
