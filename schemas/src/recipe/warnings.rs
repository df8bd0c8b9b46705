//! What a recipe may well mean, but a person should know.

use super::{Dataset, Dtype, FeatureSpec, Normalize, Op, Preset, Recipe, SplitRule};

impl Recipe {
    /// One sentence each: leaky splits, rounding that loses something, axes that differ from what they seem.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(leak) = self.split.rule.leak() {
            warnings.push(format!("split.rule: leaky: {leak}"));
        }

        // Artist is the default rule: the author may not have chosen it.
        if self.catalog.dataset == Dataset::Folders && self.split.rule == SplitRule::Artist {
            warnings.push(
                "split.rule: folders know no artists: each clip stands for itself".to_owned(),
            );
        }

        for feature in &self.features {
            feature_warnings(self, feature, &mut warnings);
        }
        warnings
    }
}

fn feature_warnings(recipe: &Recipe, feature: &FeatureSpec, warnings: &mut Vec<String>) {
    let audio = &recipe.audio;
    let name = &feature.name;

    // Between 512 and 1,024, where the first coefficient often lies, neighbours of f16 are 0.5 apart.
    if feature.dtype == Some(Dtype::F16)
        && feature.op == Op::Mfcc
        && feature.normalize == Normalize::None
    {
        warnings.push(format!(
            "features.{name}.dtype: f16 rounds MFCC by up to 0.25: f32 is the default"
        ));
    }

    let empty = empty_mel_filters(feature, audio.sample_rate_hz);
    if empty > 0 {
        let n_mels = feature.n_mels_or_preset();
        warnings.push(format!(
            "features.{name}.n_mels: {empty} of {n_mels} mel filters are empty: lower n_mels, or raise n_fft or fmin"
        ));
    }

    if feature.frames.is_some() && audio.duration_s.is_none() && audio.segment_s.is_none() {
        warnings.push(format!(
            "features.{name}.frames: clips of every length are cut or padded to it: audio.duration_s is absent"
        ));
    }
}

/// Mel filters between whose edges no FFT bin lies: their band is constant.
fn empty_mel_filters(feature: &FeatureSpec, sample_rate_hz: u32) -> usize {
    if feature.op == Op::Stft {
        return 0;
    }

    let n_fft = feature.n_fft_or_preset(sample_rate_hz);
    let n_mels = feature.n_mels_or_preset();
    // The presets' own scales and lowest edges.
    let htk = feature
        .htk
        .unwrap_or(matches!(feature.preset, Preset::Torchaudio | Preset::Kaldi));
    let fmax = feature.fmax.unwrap_or(f64::from(sample_rate_hz) / 2.0);
    let fmin = feature.fmin.unwrap_or(if feature.preset == Preset::Kaldi {
        20.0
    } else {
        0.0
    });

    // Edges in bins of the FFT, evenly spaced in mel; a filter reaches from one to the next but one.
    let low = mel_of(fmin, htk);
    let high = mel_of(fmax, htk);
    let mut edges = Vec::with_capacity(n_mels + 2);
    for edge in 0..n_mels + 2 {
        let mel = low + (high - low) * edge as f64 / (n_mels + 1) as f64;
        edges.push(hz_of(mel, htk) * n_fft as f64 / f64::from(sample_rate_hz));
    }

    // Strictly between the edges: on them the triangle is 0.
    (0..n_mels)
        .filter(|band| edges[*band].floor() + 1.0 >= edges[band + 2])
        .count()
}

/// Slaney's scale: linear up to 1000 Hz (15 mel), then 27 mel for each factor of 6.4. HTK's: 2595 log10(1 + f / 700).
fn mel_of(hz: f64, htk: bool) -> f64 {
    match htk {
        true => 2595.0 * (1.0 + hz / 700.0).log10(),
        false if hz < 1000.0 => hz * 3.0 / 200.0,
        false => 15.0 + 27.0 * (hz / 1000.0).ln() / 6.4_f64.ln(),
    }
}

/// The inverse of [`mel_of`].
fn hz_of(mel: f64, htk: bool) -> f64 {
    match htk {
        true => 700.0 * (10.0_f64.powf(mel / 2595.0) - 1.0),
        false if mel < 15.0 => mel * 200.0 / 3.0,
        false => 1000.0 * 6.4_f64.powf((mel - 15.0) / 27.0),
    }
}
