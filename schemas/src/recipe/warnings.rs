//! What a recipe may well mean, but a person should know.

use super::{Dtype, FeatureOp, FeatureSpec, Normalize, Recipe};

impl Recipe {
    /// One sentence each: leaky splits, rounding that loses something, axes that differ from what they seem. Whether
    /// artists are known is told by the rows alone.
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
    // What is to be said of a derived feature is said of its source.
    if feature.op.of_audio().is_none() {
        return;
    }
    let audio = &recipe.audio;
    let name = &feature.name;

    // Between 512 and 1,024, where the first coefficient often lies, neighbours of f16 are 0.5 apart.
    if feature.dtype == Some(Dtype::F16)
        && feature.op == FeatureOp::Mfcc
        && feature.normalize == Normalize::None
    {
        warnings.push(format!(
            "features.{name}.dtype: f16 rounds MFCC by up to 0.25: f32 is the default"
        ));
    }

    // Where no FFT bin lies under a filter, its band is constant.
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
