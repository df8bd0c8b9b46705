//! Where decoded audio goes, packet by packet: downmix → trim → resample → at most the wanted seconds.

use wavemill_kernels::Level;
use wavemill_kernels::resample::{MAX_FROM_HZ, MIN_HZ, ResampleArgs, ResampleError, Resampler};
use wavemill_schemas::reject::{Reason, Reject};

use super::{Channels, DecodeArgs, OUTPUT_S_MAX, Pcm, reject};

/// Louder than 24 dB over full scale is no audio but damage, as are NaN and infinity; clipped music reaches 18 dB.
const SAMPLE_ABS_MAX: f32 = 16.0;
/// Any rate that every archive has: planning it early finds arguments that cannot work.
const USUAL_RATE_HZ: u32 = 44_100;

/// The resampler plans, one a source rate, and the downmix buffer; kept from clip to clip.
pub struct Output {
    sample_rate_hz: u32,
    level: Level,
    keep_rate: bool,
    n_samples_max: usize,
    plans: Vec<(u32, Resampler)>,
    mono: Vec<f32>,
    /// `Some`: the channels of one clip are kept there too.
    pub channels: Option<Channels>,
}

impl Output {
    /// Checks the arguments by planning the usual rate.
    ///
    /// # Errors
    /// [`ResampleError`] for an output rate out of range, or a level that the machine lacks.
    pub fn new(args: &DecodeArgs, level: Level) -> Result<Self, ResampleError> {
        let sample_rate_hz = args.sample_rate_hz;
        let seconds = args.duration_s.unwrap_or(OUTPUT_S_MAX).min(OUTPUT_S_MAX);
        let n_samples_max = (seconds * f64::from(sample_rate_hz)).round() as usize;
        let usual = ResampleArgs { from_hz: USUAL_RATE_HZ, to_hz: sample_rate_hz }.plan(level)?;
        let plans = vec![(USUAL_RATE_HZ, usual)];
        let (keep_rate, mono) = (args.keep_rate, Vec::new());
        Ok(Self { sample_rate_hz, level, keep_rate, n_samples_max, plans, mono, channels: None })
    }

    /// Opens the way for one clip of `from_hz`; `out` is emptied.
    ///
    /// # Errors
    /// A [`Reject`] for a rate out of range.
    pub fn open<'a>(&'a mut self, from_hz: u32, out: &'a mut Pcm) -> Result<Sink<'a>, Reject> {
        if !(MIN_HZ..=MAX_FROM_HZ).contains(&from_hz) {
            let reason = if from_hz > MAX_FROM_HZ { Reason::TooLarge } else { Reason::UnsupportedCodec };
            let detail = format!("sample rate {from_hz} Hz is outside {MIN_HZ} to {MAX_FROM_HZ} Hz");
            return Err(reject(reason, detail));
        }
        let rates = ResampleArgs { from_hz, to_hz: self.sample_rate_hz };
        let n_samples_max = self.n_samples_max;
        let (rate_hz, n_kept_max) = match self.keep_rate {
            false => (self.sample_rate_hz, n_samples_max),
            // Decoding ends at the same packet as with a resampler, and so with the same loss.
            true => (from_hz, rates.input_len(n_samples_max as u64) as usize),
        };
        out.samples.clear();
        out.rate_hz = rate_hz;
        let resampler = if self.keep_rate { None } else { Some(resampler(&mut self.plans, rates, self.level)) };
        if let Some(channels) = &mut self.channels {
            channels.rate_hz = from_hz;
        }
        let (mono, channels) = (&mut self.mono, self.channels.as_mut());
        let (drop_samples, keep_samples) = (0, u64::MAX);
        Ok(Sink { rates, resampler, mono, channels, out, n_samples_max, n_kept_max, drop_samples, keep_samples })
    }
}

/// The plan for these rates, ready for a new clip.
fn resampler(plans: &mut Vec<(u32, Resampler)>, rates: ResampleArgs, level: Level) -> &mut Resampler {
    let at = plans.iter().position(|(from_hz, _)| *from_hz == rates.from_hz).unwrap_or_else(|| {
        let plan = rates.plan(level).expect("`new` checked output rate and level, `open` the input rate");
        plans.push((rates.from_hz, plan));
        plans.len() - 1
    });
    let resampler = &mut plans[at].1;
    resampler.reset();
    resampler
}

/// Takes one clip's audio at its own rate.
pub struct Sink<'a> {
    rates: ResampleArgs,
    /// `None`: the rate is kept.
    resampler: Option<&'a mut Resampler>,
    mono: &'a mut Vec<f32>,
    channels: Option<&'a mut Channels>,
    out: &'a mut Pcm,
    /// At the wanted rate.
    n_samples_max: usize,
    /// The same at the rate of what is kept, with the filter's reach.
    n_kept_max: usize,
    drop_samples: u64,
    keep_samples: u64,
}

impl Sink<'_> {
    /// Of what is pushed from now on, drops the first `start` samples and ends before sample `end`.
    pub fn trim(&mut self, start: u64, end: Option<u64>) {
        self.drop_samples = start;
        self.keep_samples = end.map_or(u64::MAX, |end| end.saturating_sub(start));
    }

    /// Pushes one packet: the mean of its channels, `left` and `right` of equal length. What cannot be audio becomes
    /// silence; then this is false.
    #[must_use]
    pub fn push(&mut self, left: &[f32], right: Option<&[f32]>) -> bool {
        let (start, end) = self.take(left.len());
        let left = &left[start..end];
        self.mono.clear();
        match right {
            Some(right) => {
                let pairs = left.iter().zip(&right[start..end]);
                self.mono.extend(pairs.map(|(left, right)| (left + right) * 0.5));
            }
            None => self.mono.extend_from_slice(left),
        }
        // No early exit, and so vectorised; NaN compares false.
        let is_audio = self.mono.iter().fold(true, |is_audio, sample| is_audio & (sample.abs() <= SAMPLE_ABS_MAX));
        if !is_audio {
            self.mono.fill(0.0);
        }
        if let Some(channels) = &mut self.channels {
            channels.push(left, right.map(|right| &right[start..end]), is_audio);
        }
        self.keep();
        is_audio
    }

    /// Pushes zeros.
    pub fn push_silence(&mut self, n_samples: usize) {
        let (start, end) = self.take(n_samples);
        self.mono.clear();
        self.mono.resize(end - start, 0.0);
        if let Some(channels) = &mut self.channels {
            channels.push(self.mono, None, false);
        }
        self.keep();
    }

    fn keep(&mut self) {
        match &mut self.resampler {
            Some(resampler) => resampler.push(self.mono, &mut self.out.samples),
            None => self.out.samples.extend_from_slice(self.mono),
        }
    }

    /// All that is wanted has come out.
    pub fn is_full(&self) -> bool {
        self.out.samples.len() >= self.n_kept_max
    }

    /// Ends the clip.
    pub fn finish(self) {
        let is_full = self.is_full();
        let n_made = match self.resampler {
            Some(resampler) => {
                if !is_full {
                    resampler.finish(&mut self.out.samples);
                }
                self.out.samples.len()
            }
            None if is_full => self.n_samples_max,
            None => self.rates.output_len(self.out.samples.len() as u64) as usize,
        };
        self.out.n_samples = n_made.min(self.n_samples_max);
        self.out.samples.truncate(self.n_kept_max);
    }

    /// The part of the next `n_samples` that trimming leaves.
    fn take(&mut self, n_samples: usize) -> (usize, usize) {
        let start = self.drop_samples.min(n_samples as u64);
        self.drop_samples -= start;
        let kept = self.keep_samples.min(n_samples as u64 - start);
        self.keep_samples -= kept;
        (start as usize, (start + kept) as usize)
    }
}
