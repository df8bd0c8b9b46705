//! Which parameters a feature may have, and in which ranges. The kernels check again what they are given; here the
//! author's line is still known.

use super::limits::{
    CLIP_S_MAX, FRAMES_MAX, HOP_LENGTH_MAX, LENGTH_S_MIN, N_FFT_MAX, N_MELS_MAX, N_MFCC_MAX,
    ROW_BYTES_MAX,
};
use super::validate::Faults;
use super::{AudioSpec, DbRef, DbSpec, Dtype, FeatureSpec, Normalize, Op, Preset};
use crate::samples::samples_in;

/// Frames that one delta is fitted over.
const DELTA_WIDTH: f64 = 9.0;
const LIFTER_MAX: f64 = 1e6;
const WHISPER_RATE_HZ: u32 = 16_000;
/// Powers between which f32's logarithm is sound.
const POWERS: std::ops::RangeInclusive<f64> = 1e-37..=1e30;
/// As scipy calls them; `ones` is `boxcar`, `povey` Kaldi's own.
const WINDOWS: [&str; 9] = [
    "hann",
    "hamming",
    "blackman",
    "blackmanharris",
    "nuttall",
    "bartlett",
    "boxcar",
    "ones",
    "povey",
];
const PAD_MODES: [&str; 3] = ["constant", "reflect", "edge"];
const NORMS: [&str; 2] = ["slaney", "none"];

/// Where a feature stands in the recipe: `features.1`.
#[derive(Clone, Copy)]
struct FeatureKey<'a> {
    key: &'a str,
}

impl FeatureKey<'_> {
    /// The key of one of its parameters: `features.1.n_mels`.
    fn name(self, parameter: &str) -> String {
        format!("{}.{parameter}", self.key)
    }
}

/// Everything impossible in `spec`, which stands at `key`.
pub(super) fn check(spec: &FeatureSpec, key: &str, audio: &AudioSpec, faults: &mut Faults) {
    let at = FeatureKey { key };
    let sample_rate_hz = audio.sample_rate_hz;
    unused(spec, at, faults);
    whisper(spec, sample_rate_hz, at, faults);
    framing(spec, sample_rate_hz, at, faults);
    mel(spec, sample_rate_hz, at, faults);
    if let Some(db) = &spec.db {
        decibels(db, at, faults);
    }
    storage(spec, at, faults);
    row_bytes(spec, audio, at, faults);
}

/// A row of the longest clip must be something that a machine can hold and Arrow can store.
fn row_bytes(spec: &FeatureSpec, audio: &AudioSpec, at: FeatureKey<'_>, faults: &mut Faults) {
    let row_s = audio
        .segment_s
        .unwrap_or(audio.longest_s().max(audio.duration_s.unwrap_or(0.0)));
    let hop_length = spec.hop_or_preset(audio.sample_rate_hz).max(1);
    let n_samples = samples_in(row_s, audio.sample_rate_hz);
    // Centred frames stand at the hops, at both ends too: one more than there are hops.
    let n_frames =
        (n_samples as f64 / hop_length as f64 + 1.0).max(spec.frames.unwrap_or(0) as f64);

    // Cepstra are made of mel bands, which are held at the same time and may be more.
    let n_orders = 1.0 + f64::from(spec.delta.unwrap_or(0));
    let n_bands = match spec.op {
        Op::Stft => (spec.n_fft_or_preset(audio.sample_rate_hz) / 2 + 1) as f64 * n_orders,
        Op::Mel => spec.n_mels_or_preset() as f64 * n_orders,
        Op::Mfcc => (spec.n_mfcc_or_preset() as f64 * n_orders).max(spec.n_mels_or_preset() as f64),
    };
    let bytes = n_bands * n_frames * size_of::<f32>() as f64;

    // Numbers out of range have their own fault.
    let is_sound = (LENGTH_S_MIN..=CLIP_S_MAX).contains(&row_s)
        && spec.n_mels_or_preset() <= N_MELS_MAX
        && spec.n_mfcc_or_preset() <= N_MFCC_MAX;

    // The key that made the row so long: `frames` where it pads the clip beyond its own length.
    let (key, remedy) = if spec.frames.is_some_and(|frames| frames as f64 >= n_frames) {
        ("frames", "fewer frames")
    } else {
        (
            "hop_length",
            "a longer hop_length, or a smaller audio.max_duration_s, audio.duration_s or audio.segment_s",
        )
    };
    let problem = format!(
        "a row of {row_s} s would have {n_bands} x {n_frames:.0} values, {:.1} GB, at most 2.1 fit; allowed: {remedy}",
        bytes / 1e9
    );
    faults.unless(!is_sound || bytes <= ROW_BYTES_MAX, &at.name(key), problem);
}

fn unused(spec: &FeatureSpec, at: FeatureKey<'_>, faults: &mut Faults) {
    let mel = spec.op != Op::Stft;
    let mfcc = spec.op == Op::Mfcc;
    let given = [
        ("n_mels", spec.n_mels.is_some(), mel),
        ("fmin", spec.fmin.is_some(), mel),
        ("fmax", spec.fmax.is_some(), mel),
        ("htk", spec.htk.is_some(), mel),
        ("norm", spec.norm.is_some(), mel),
        ("n_mfcc", spec.n_mfcc.is_some(), mfcc),
        ("dct_type", spec.dct_type.is_some(), mfcc),
        ("lifter", spec.lifter.is_some(), mfcc),
    ];

    // A key without effect is refused, since its author believes that it has one.
    for (name, given, used) in given {
        faults.unless(
            !given || used,
            &at.name(name),
            format!("op = \"{}\" does not use it", spec.op.name()),
        );
    }
}

fn whisper(spec: &FeatureSpec, sample_rate_hz: u32, at: FeatureKey<'_>, faults: &mut Faults) {
    if spec.preset == Preset::Whisper {
        faults.unless(
            spec.op != Op::Mfcc,
            &at.name("preset"),
            "`whisper` has no op = \"mfcc\"",
        );

        // Whisper's own filters are a table made for this rate.
        let problem = format!("`whisper` wants audio.sample_rate_hz = {WHISPER_RATE_HZ}");
        faults.unless(
            sample_rate_hz == WHISPER_RATE_HZ,
            &at.name("preset"),
            problem,
        );
    }
}

fn framing(spec: &FeatureSpec, sample_rate_hz: u32, at: FeatureKey<'_>, faults: &mut Faults) {
    faults.within(
        as_number(spec.n_fft),
        2.0..=N_FFT_MAX as f64,
        &at.name("n_fft"),
    );
    faults.within(
        as_number(spec.hop_length),
        1.0..=HOP_LENGTH_MAX as f64,
        &at.name("hop_length"),
    );
    faults.within(
        as_number(spec.win_length),
        1.0..=N_FFT_MAX as f64,
        &at.name("win_length"),
    );
    // A shorter window is padded with zeros to n_fft. A longer one would have to be cut.
    if let Some(win_length) = spec.win_length {
        let n_fft = spec.n_fft_or_preset(sample_rate_hz);
        let problem = format!("{win_length} is longer than n_fft = {n_fft}");
        faults.unless(win_length <= n_fft, &at.name("win_length"), problem);
    }

    faults.one_of(spec.window.as_deref(), &WINDOWS, &at.name("window"));
    faults.one_of(spec.pad_mode.as_deref(), &PAD_MODES, &at.name("pad_mode"));

    let power = spec.power.is_none_or(|power| power > 0.0 && power <= 2.0);
    faults.unless(
        power,
        &at.name("power"),
        "allowed: above 0, at most 2; 1 is magnitude, 2 power",
    );
    // Decibels are 10 log10 of a power or 20 log10 of a magnitude, and of nothing between.
    let decibels = spec.db.is_some() || spec.op == Op::Mfcc;
    let sound = !decibels || spec.power.is_none_or(|power| power == 1.0 || power == 2.0);
    faults.unless(sound, &at.name("power"), "allowed before decibels: 1 or 2");

    // A delta needs all the frames that it is fitted over.
    let least = if spec.delta.unwrap_or(0) > 0 {
        DELTA_WIDTH
    } else {
        1.0
    };
    faults.within(
        as_number(spec.frames),
        least..=FRAMES_MAX as f64,
        &at.name("frames"),
    );
}

/// A count as what ranges are made of; counts in reach are far below 2^53, where f64 begins to skip.
fn as_number(count: Option<usize>) -> Option<f64> {
    count.map(|n| n as f64)
}

fn mel(spec: &FeatureSpec, sample_rate_hz: u32, at: FeatureKey<'_>, faults: &mut Faults) {
    let nyquist = f64::from(sample_rate_hz) / 2.0;
    faults.within(
        as_number(spec.n_mels),
        1.0..=N_MELS_MAX as f64,
        &at.name("n_mels"),
    );

    if let Some(fmin) = spec.fmin {
        let problem = format!(
            "{fmin} is impossible; allowed: from 0 to below {nyquist} (half the sample rate)"
        );
        faults.unless((0.0..nyquist).contains(&fmin), &at.name("fmin"), problem);
    }
    if let Some(fmax) = spec.fmax {
        let fmin = spec.fmin.unwrap_or(0.0);
        let problem = format!(
            "{fmax} is impossible; allowed: above fmin = {fmin}, at most {nyquist} (half the sample rate)"
        );
        faults.unless(fmax > fmin && fmax <= nyquist, &at.name("fmax"), problem);
    }
    faults.one_of(spec.norm.as_deref(), &NORMS, &at.name("norm"));

    // A cosine transform of n bands has n coefficients.
    if let Some(n_mfcc) = spec.n_mfcc {
        let n_mels = spec.n_mels_or_preset();
        let problem = format!("{n_mfcc} is out of range; allowed: 1 to n_mels = {n_mels}");
        faults.unless((1..=n_mels).contains(&n_mfcc), &at.name("n_mfcc"), problem);
        faults.within(
            Some(n_mfcc as f64),
            0.0..=N_MFCC_MAX as f64,
            &at.name("n_mfcc"),
        );
    }

    faults.within(
        spec.dct_type.map(f64::from),
        1.0..=3.0,
        &at.name("dct_type"),
    );
    faults.within(spec.delta.map(f64::from), 0.0..=2.0, &at.name("delta"));
    faults.within(spec.lifter, 0.0..=LIFTER_MAX, &at.name("lifter"));
}

fn decibels(db: &DbSpec, at: FeatureKey<'_>, faults: &mut Faults) {
    match &db.reference {
        DbRef::Name(name) => faults.unless(
            name == "max",
            &at.name("db.ref"),
            "allowed: \"max\" or a number above 0",
        ),
        DbRef::Value(power) => faults.within(Some(*power), POWERS, &at.name("db.ref")),
    }
    faults.within(Some(db.amin), POWERS, &at.name("db.amin"));
    faults.positive(db.top_db, &at.name("db.top_db"));
}

fn storage(spec: &FeatureSpec, at: FeatureKey<'_>, faults: &mut Faults) {
    let axis = spec.op.axis();
    let orders = [format!("{axis},frame"), format!("frame,{axis}")];
    let known = spec
        .dim_order
        .as_ref()
        .is_none_or(|order| orders.contains(order));
    faults.unless(
        known,
        &at.name("dim_order"),
        format!("allowed: \"{}\" or \"{}\"", orders[0], orders[1]),
    );

    match spec.dtype {
        Some(Dtype::F16) => {
            let problem = "linear power overflows f16; allowed: f32, or give `db` or normalize";
            faults.unless(!spec.is_linear(), &at.name("dtype"), problem);
        }
        Some(Dtype::U8) => {
            let problem = "the range is unknown; allowed: f16, f32, or u8 with normalize = \"minmax\" or db with ref = \"max\" and top_db";
            faults.unless(spec.has_known_range(), &at.name("dtype"), problem);
        }
        Some(Dtype::F32) | None => {}
    }
}

impl FeatureSpec {
    /// `n_fft`, or the preset's; Kaldi's is the power of two that holds 25 ms.
    pub(super) fn n_fft_or_preset(&self, sample_rate_hz: u32) -> usize {
        self.n_fft.unwrap_or(match self.preset {
            Preset::Librosa => 2048,
            Preset::Torchaudio | Preset::Whisper => 400,
            Preset::Kaldi => self
                .win_length
                .unwrap_or(sample_rate_hz as usize / 40)
                .min(N_FFT_MAX)
                .next_power_of_two(),
        })
    }

    /// `hop_length`, or the preset's.
    fn hop_or_preset(&self, sample_rate_hz: u32) -> usize {
        let win_length = self
            .win_length
            .unwrap_or(self.n_fft_or_preset(sample_rate_hz));
        self.hop_length.unwrap_or(match (self.preset, self.op) {
            // librosa.stft goes by the window, its mel and mfcc do not.
            (Preset::Librosa, Op::Stft) => win_length / 4,
            (Preset::Librosa, _) => 512,
            (Preset::Torchaudio, _) => win_length / 2,
            // 10 ms.
            (Preset::Kaldi, _) => sample_rate_hz as usize / 100,
            (Preset::Whisper, _) => 160,
        })
    }

    /// `n_mfcc`, or the preset's.
    fn n_mfcc_or_preset(&self) -> usize {
        self.n_mfcc.unwrap_or(match self.preset {
            Preset::Librosa | Preset::Whisper => 20,
            Preset::Torchaudio => 40,
            Preset::Kaldi => 13,
        })
    }

    /// `n_mels`, or the preset's.
    pub(super) fn n_mels_or_preset(&self) -> usize {
        self.n_mels.unwrap_or(match self.preset {
            Preset::Librosa | Preset::Torchaudio => 128,
            Preset::Kaldi => 23,
            Preset::Whisper => 80,
        })
    }

    /// Powers as they are: neither a logarithm nor a scaling follows.
    fn is_linear(&self) -> bool {
        // These two end in a logarithm of their own; a bare spectrum has none.
        let own_log = matches!(self.preset, Preset::Kaldi | Preset::Whisper) && self.op != Op::Stft;
        self.op != Op::Mfcc && self.db.is_none() && !own_log && self.normalize == Normalize::None
    }

    /// Smallest and largest value are known before the clip is.
    fn has_known_range(&self) -> bool {
        // From -top_db to 0. Cepstra and deltas are sums of such values, of any size.
        let decibels = self
            .db
            .as_ref()
            .is_some_and(|db| db.reference == DbRef::Name("max".into()) && db.top_db.is_some());
        match self.normalize {
            Normalize::Minmax => true,
            Normalize::None => decibels && self.op != Op::Mfcc && self.delta.unwrap_or(0) == 0,
            Normalize::Meanvar => false,
        }
    }
}
