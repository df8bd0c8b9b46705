//! Converts picture files to packed tensors.

use serde::Serialize;
use wavemill_decode::pictures;
use wavemill_schemas::manifest::{FeatureEntry, Scale};
use wavemill_schemas::recipe::{Dtype, FeatureSpec, ImageArgs, ImageSpec};
use wavemill_schemas::reject::Reject;
use wavemill_schemas::{NUMERICS_REVISION, canonical};
use wavemill_store::tensors::Tensor;

use super::{FeatureError, FeaturePlan};

impl FeaturePlan {
    /// Reports whether clips are pictures instead of audio.
    pub(crate) fn is_of_images(&self) -> bool {
        !self.images.is_empty()
    }

    /// Computes the tensors of a picture, in the recipe's order.
    ///
    /// # Errors
    /// A [`Reject`] with empty clip fields.
    pub(crate) fn picture_tensors(&self, file: &[u8]) -> Result<Vec<Tensor>, Reject> {
        let picture = pictures::decode(file, self.image.pixels_max())?;
        let mut tensors = Vec::with_capacity(self.images.len());
        for args in &self.images {
            tensors.push(Tensor {
                bytes: pictures::tensor(&picture, args)?,
                shape: args.shape().to_vec(),
            });
        }
        Ok(tensors)
    }
}

/// Creates the manifest entry of an image feature.
///
/// # Errors
/// [`FeatureError::Json`] if internal JSON cannot be serialized, which cannot happen.
pub(super) fn entry(
    spec: &FeatureSpec,
    args: &ImageArgs,
    limits: ImageSpec,
) -> Result<FeatureEntry, FeatureError> {
    // Everything that affects a value of the feature, and therefore its id. This includes limits that determine which
    // pictures are rejected, because rows and rejects are copied by this id.
    #[derive(Serialize)]
    struct Identity<'a> {
        decoder: &'a str,
        numerics: u32,
        image: &'a ImageArgs,
        #[serde(skip_serializing_if = "ImageSpec::is_default")]
        limits: ImageSpec,
    }
    let identity = Identity {
        decoder: pictures::NAME,
        numerics: NUMERICS_REVISION,
        image: args,
        limits,
    };

    Ok(FeatureEntry {
        name: spec.name.clone(),
        feature_id: canonical::id(&identity)?,
        dtype: args.dtype.name().to_owned(),
        scale: (args.dtype == Dtype::U8).then_some(Scale {
            factor: 1.0 / 255.0,
            offset: 0.0,
        }),
        shape: args.shape().map(Some).to_vec(),
        dim_names: ImageArgs::dim_names().map(str::to_owned).to_vec(),
        sample_rate_hz: None,
        hop_length: None,
        preset: spec.preset.name().to_owned(),
        columns: None,
    })
}
