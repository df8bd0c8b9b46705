//! Warnings about valid recipes.

use super::{Dtype, FeatureSpec, Normalize, Recipe};

impl Recipe {
    /// Returns one sentence per warning: leaky splits, lossy rounding, empty mel filters and clips of different lengths
    /// that are cut or padded to a fixed number of frames.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(leak) = self.split.rule.leak() {
            warnings.push(format!("split.rule: leaky: {leak}"));
        }

        for feature in &self.features {
            feature_warnings(self, feature, &mut warnings);
        }
        warnings
    }
}

fn feature_warnings(recipe: &Recipe, feature: &FeatureSpec, warnings: &mut Vec<String>) {
    // Derived features have no warnings of their own: they are reported for the source feature. Samples, files and
    // pictures have no options to warn of.
    if !feature.op.is_spectral() {
        return;
    }
    let audio = &recipe.audio;
    let name = &feature.name;

    // Between 512 and 1,024, where the first coefficient often lies, adjacent f16 values differ by 0.5.
    if let Some(rounded) = feature.op.f16_rounds()
        && feature.dtype == Some(Dtype::F16)
        && feature.normalize == Normalize::None
    {
        warnings.push(format!(
            "features.{name}.dtype: f16 rounds {rounded}: f32 is the default"
        ));
    }

    // A mel filter without any FFT bin produces a constant band.
    let args = feature.resolve(&recipe.features, audio.sample_rate_hz);
    let args = args.ok();
    if let Some((mel, n_fft)) = args.and_then(|args| Some((args.mel?, args.stft.n_fft))) {
        let n_mels = mel.n_mels;
        let empty = mel.empty_bands(audio.sample_rate_hz, n_fft);
        if empty > 0 {
            warnings.push(format!(
                "features.{name}.n_mels: {empty} of {n_mels} mel filters are empty: lower n_mels, or raise n_fft or fmin"
            ));
        }
    }

    if feature.frames.is_some() && audio.duration_s.is_none() && audio.segment_s.is_none() {
        warnings.push(format!(
            "features.{name}.frames: clips of every length are cut or padded to it: audio.duration_s is absent"
        ));
    }
}
