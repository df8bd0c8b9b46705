//! Where decoded audio goes, packet by packet: downmix → trim → resample → at most the wanted seconds.

use wavemill_kernels::Level;
use wavemill_kernels::resample::{
    MAX_FROM_HZ, MIN_HZ, ResampleArgs, ResampleError, Resampler, Resamplers,
};
use wavemill_schemas::reject::{Reason, Reject};
use wavemill_schemas::samples::samples_in;

use super::{Channels, DecodeArgs, OUTPUT_S_MAX, Pcm, reject};

/// Louder than 24 dB over full scale is no audio but damage, as are NaN and infinity; clipped music reaches 18 dB.
const SAMPLE_ABS_MAX: f32 = 16.0;
/// Most samples of a packet of any format: the longest block of FLAC.
pub(super) const PACKET_SAMPLES_MAX: usize = 1 << 16;
/// Any rate that every archive has: planning it early finds arguments that cannot work.
const USUAL_RATE_HZ: u32 = 44_100;

/// The resampler plans and the downmix buffer; kept from clip to clip.
pub(super) struct Output {
    sample_rate_hz: u32,
    keep_rate: bool,
    /// Output is cut here.
    n_samples_max: usize,
    /// The duration that is asked for.
    duration_s: Option<f64>,
    /// More than this is a reject; none where a duration is asked for that is not longer.
    n_samples_allowed: Option<usize>,
    most_s: f64,
    /// What the next clip can have at most.
    expected_s: f64,
    /// Samples are counted and not kept.
    pub is_measuring: bool,
    resamplers: Resamplers,
    mono: Vec<f32>,
    /// `Some`: the channels of one clip are kept there too.
    pub channels: Option<Channels>,
}

impl Output {
    /// Checks the arguments by planning the usual rate.
    ///
    /// # Errors
    /// [`ResampleError`] for an output rate out of range, or a level that the machine lacks.
    pub(super) fn new(args: &DecodeArgs, level: Level) -> Result<Self, ResampleError> {
        let sample_rate_hz = args.sample_rate_hz;
        let mut resamplers = Resamplers::new(sample_rate_hz, level);
        resamplers.get(USUAL_RATE_HZ)?;

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

    /// Clips longer than `most_s` are too long, unless `args` cut them before.
    pub(super) fn set_most(&mut self, args: &DecodeArgs, most_s: f64) {
        let n_most = samples_in(most_s, self.sample_rate_hz);
        // A clip that is cut within the limit cannot be too long: nothing behind the cut is decoded.
        match args.duration_s.filter(|cut_s| *cut_s <= most_s) {
            Some(cut_s) => {
                self.n_samples_allowed = None;
                self.n_samples_max = samples_in(cut_s, self.sample_rate_hz);
            }
            None => {
                self.n_samples_allowed = Some(n_most);
                // One sample more tells that a clip is longer.
                self.n_samples_max = n_most + 1;
            }
        }
        self.most_s = most_s;
    }

    /// Seconds that are not yet too long.
    pub(super) const fn most_s(&self) -> f64 {
        self.most_s
    }

    /// So many samples at the wanted rate are a reject.
    pub(super) fn is_too_long(&self, n_samples: usize) -> bool {
        self.n_samples_allowed
            .is_some_and(|allowed| n_samples > allowed)
    }

    /// The next clip has at most so many seconds.
    pub(super) const fn expect(&mut self, longest_s: f64) {
        self.expected_s = longest_s;
    }

    /// So many samples at the wanted rate are no more than was expected, but for what a block puts out at once.
    pub(super) fn is_as_expected(&self, n_samples: usize) -> bool {
        let n_expected = samples_in(self.expected_s, self.sample_rate_hz);
        n_samples <= n_expected.saturating_add(PACKET_SAMPLES_MAX)
    }

    /// Opens the way for one clip of `from_hz`; `out` is emptied.
    ///
    /// # Errors
    /// A [`Reject`] for a rate out of range.
    pub(super) fn open<'a>(
        &'a mut self,
        from_hz: u32,
        out: &'a mut Pcm,
    ) -> Result<Sink<'a>, Reject> {
        self.open_part(from_hz, 1, out)
    }

    /// The same where only every `step`-th sample of the clip is pushed, from [`Sink::phase`] on.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub(super) fn open_part<'a>(
        &'a mut self,
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
        // What is pushed is not above the band's rate, and that is not below the wanted one.
        let from_hz = from_hz / step as u32;
        let rates = ResampleArgs {
            from_hz,
            ..clip_rates
        };

        let n_samples_max = self.n_samples_max;
        let (rate_hz, n_kept_max) = match self.keep_rate {
            false => (self.sample_rate_hz, n_samples_max),
            // Decoding ends at the same packet as with a resampler.
            true => (from_hz, rates.input_len(n_samples_max as u64) as usize),
        };

        let n_wanted_max = self.duration_s.map_or(u64::MAX, |duration_s| {
            samples_in(duration_s, clip_rates.from_hz) as u64
        });

        // Just the room that it needs: what grows by doubling takes up to twice that, and three times while it is copied.
        out.samples.clear_for(self.room(rates, rate_hz, n_kept_max));
        out.rate_hz = rate_hz;

        let resampler = match self.keep_rate {
            true => None,
            false => Some(
                self.resamplers
                    .get(from_hz)
                    .expect("`new` checked output rate and level, this the input rate"),
            ),
        };
        if let Some(channels) = &mut self.channels {
            channels.rate_hz = from_hz;
        }

        Ok(Sink {
            clip_rates,
            rates,
            step,
            resampler,
            mono: &mut self.mono,
            channels: self.channels.as_mut(),
            out,
            n_samples_max,
            n_kept_max,
            n_wanted_max,
            is_cut_by_most: self.n_samples_allowed.is_some(),
            n_counted: if self.is_measuring { Some(0) } else { None },
            drop_samples: 0,
            keep_samples: u64::MAX,
            n_taken: 0,
        })
    }

    /// Samples that can come at most, with those that a block puts out beyond the end.
    fn room(&self, rates: ResampleArgs, rate_hz: u32, n_kept_max: usize) -> usize {
        if self.is_measuring {
            return 0;
        }
        let n_expected = samples_in(self.expected_s, rate_hz).min(n_kept_max);

        let block = if self.keep_rate {
            PACKET_SAMPLES_MAX
        } else {
            rates.step_len().max(PACKET_SAMPLES_MAX)
        };
        n_expected + block
    }
}

/// Takes one clip's audio at its own rate, or every `step`-th sample of it.
pub(super) struct Sink<'a> {
    /// From the clip's own rate.
    clip_rates: ResampleArgs,
    /// From the rate of what is pushed.
    rates: ResampleArgs,
    step: usize,
    /// `None`: the rate is kept.
    resampler: Option<&'a mut Resampler>,
    mono: &'a mut Vec<f32>,
    channels: Option<&'a mut Channels>,
    out: &'a mut Pcm,
    /// At the wanted rate.
    n_samples_max: usize,
    /// The same at the rate of what is kept, with the filter's reach.
    n_kept_max: usize,
    /// Samples of the clip, behind the trim, before the end of the wanted duration. Without one there is no limit.
    n_wanted_max: u64,
    /// The output ends where a clip becomes too long, and not at a wanted duration.
    is_cut_by_most: bool,
    /// `Some`: so many samples came out, and are not kept.
    n_counted: Option<usize>,
    /// The trim, in samples of the clip's rate.
    drop_samples: u64,
    keep_samples: u64,
    /// Samples of the clip's rate that the trim has left so far.
    n_taken: u64,
}

impl Sink<'_> {
    /// Of what is pushed from now on, drops the first `start` samples and ends before sample `end`.
    pub(super) fn trim(&mut self, start: u64, end: Option<u64>) {
        self.drop_samples = start;
        self.keep_samples = end.map_or(u64::MAX, |end| end.saturating_sub(start));
    }

    /// Which sample of the next packet is the first to be pushed, below `step`. Those that are pushed lie whole steps behind
    /// the first one that the trim leaves, which is where the output begins.
    pub(super) fn phase(&self) -> usize {
        let step = self.step as u64;
        let phase = if self.drop_samples > 0 {
            self.drop_samples % step
        } else {
            (step - self.n_taken % step) % step
        };
        phase as usize
    }

    /// The wanted duration, in samples of the clip.
    pub(super) fn n_wanted_max(&self) -> u64 {
        self.n_wanted_max
    }

    /// How many of the next `n_samples` of the clip lie before the end of the wanted duration, those that trimming drops
    /// included. More than these are pushed, because the filter of the resampler and its blocks reach farther. It is the
    /// same number at every output rate.
    pub(super) fn n_wanted(&self, n_samples: u64) -> u64 {
        let n_left = self.n_wanted_max.saturating_sub(self.n_taken);
        n_samples.min(self.drop_samples.saturating_add(n_left))
    }

    /// Pushes one packet: the mean of its channels, `left` and `right` of equal length. What cannot be audio becomes
    /// silence; then this is false.
    pub(super) fn push(&mut self, left: &[f32], right: Option<&[f32]>) -> bool {
        let (start, end) = self.take(left.len() * self.step);
        let left = &left[start..end];
        self.mono.clear();

        match right {
            Some(right) => {
                let pairs = left.iter().zip(&right[start..end]);
                self.mono
                    .extend(pairs.map(|(left, right)| (left + right) * 0.5));
            }
            None => self.mono.extend_from_slice(left),
        }

        // The mean is checked, because only that goes on; infinities of opposite signs make it NaN.
        // No early exit, and so vectorised; NaN compares false.
        let is_audio = self.mono.iter().fold(true, |is_audio, sample| {
            is_audio & (sample.abs() <= SAMPLE_ABS_MAX)
        });
        if !is_audio {
            self.mono.fill(0.0);
        }

        if let Some(channels) = &mut self.channels {
            channels.push(left, right.map(|right| &right[start..end]), is_audio);
        }
        self.keep();
        is_audio
    }

    /// Pushes zeros for so many samples of the clip, as far as they are wanted.
    pub(super) fn push_silence(&mut self, n_samples: usize) {
        let (start, end) = self.take(n_samples);
        let mut left = end - start;
        // A hole can be hours long: its zeros are not all held at once.
        while left > 0 && !self.is_full() {
            let piece = left.min(PACKET_SAMPLES_MAX);
            left -= piece;
            self.mono.clear();
            self.mono.resize(piece, 0.0);
            if let Some(channels) = &mut self.channels {
                channels.push(self.mono, None, false);
            }
            self.keep();
        }
    }

    fn keep(&mut self) {
        match &mut self.resampler {
            Some(resampler) => resampler.push(self.mono, &mut self.out.samples),
            None => self.out.samples.extend_from_slice(self.mono),
        }
        self.count();
    }

    /// Where nothing is kept, what came out is counted.
    fn count(&mut self) {
        if let Some(n_counted) = &mut self.n_counted {
            // After every push, so that measuring hours of audio takes no more memory than one push gives.
            *n_counted += self.out.samples.len();
            self.out.samples.clear();
        }
    }

    /// Samples that came out.
    fn n_out(&self) -> usize {
        self.n_counted.unwrap_or(0) + self.out.samples.len()
    }

    /// All that is wanted has come out.
    pub(super) fn is_full(&self) -> bool {
        // Where only every `step`-th sample is pushed, the last one that comes out lies before the wanted end. Damage
        // between them counts, as it does where all samples are pushed.
        let is_at_end = self.n_taken >= self.n_wanted_max || self.is_cut_by_most;
        self.n_out() >= self.n_kept_max && is_at_end
    }

    /// Ends the clip.
    pub(super) fn finish(mut self) {
        let is_full = self.is_full();
        let n_made = match &mut self.resampler {
            Some(resampler) => {
                // What the filter still holds then lies behind the end.
                if !is_full {
                    resampler.finish(&mut self.out.samples);
                }
                self.n_out()
            }
            // A rate that is kept is converted later: how many samples that gives is computed here.
            None if is_full => self.n_samples_max,
            None => self.rates.output_len(self.n_out() as u64) as usize,
        };

        // The last step may reach behind the clip's end, and then it could end a sample later.
        let n_of_clip = self.clip_rates.output_len(self.n_taken) as usize;
        self.out.n_samples = n_made.min(self.n_samples_max).min(n_of_clip);
        // A resampler puts out whole blocks, and so more than is wanted.
        self.out.samples.truncate(match self.resampler {
            Some(_) => self.out.n_samples,
            None => self.n_kept_max,
        });
    }

    /// Which of the samples that are pushed for the next `n_samples` of the clip trimming leaves.
    fn take(&mut self, n_samples: usize) -> (usize, usize) {
        let phase = self.phase();
        let start = self.drop_samples.min(n_samples as u64);
        self.drop_samples -= start;
        let kept = self.keep_samples.min(n_samples as u64 - start);
        self.keep_samples -= kept;
        self.n_taken += kept;

        // Number `i` lies at sample `phase + i * step` of the clip's.
        let before = |end: u64| (end as usize).saturating_sub(phase).div_ceil(self.step);
        (before(start), before(start + kept))
    }
}
