//! Converts picture files to packed tensors.

use serde::Serialize;
use wavemill_decode::pictures;
use wavemill_schemas::recipe::{ImageArgs, ImageSpec, TensorArgs};
use wavemill_schemas::reject::Reject;
use wavemill_schemas::{NUMERICS_REVISION, canonical};
use wavemill_store::tensors::Tensor;

use super::FeaturePlan;
use crate::error::ExtractError;

impl FeaturePlan {
    /// Reports whether clips are pictures instead of audio.
    pub(crate) fn is_of_images(&self) -> bool {
        self.images().next().is_some()
    }

    /// Returns the arguments of all features of picture files, in the recipe's order. If a recipe has any, it has no
    /// other features.
    pub(super) fn images(&self) -> impl Iterator<Item = &ImageArgs> {
        self.args.iter().filter_map(|args| match args {
            TensorArgs::Image(image) => Some(image),
            TensorArgs::Spectral(_) | TensorArgs::Sound(_) | TensorArgs::Onnx(_) => None,
        })
    }

    /// Computes the tensors of a picture, in the recipe's order.
    ///
    /// # Errors
    /// A [`Reject`] with empty clip fields.
    pub(crate) fn picture_tensors(&self, file: &[u8]) -> Result<Vec<Tensor>, Reject> {
        let picture = pictures::decode(file, self.image.pixels_max())?;
        let mut tensors = Vec::with_capacity(self.args.len());
        for args in self.images() {
            tensors.push(Tensor {
                bytes: pictures::tensor(&picture, args)?,
                shape: args.shape().to_vec(),
            });
        }
        Ok(tensors)
    }
}

/// Returns the hash of everything that determines the values of an image feature. This includes limits that determine
/// which pictures are rejected, because rows and rejects are copied by this id.
///
/// # Errors
/// None in practice: internal JSON can always be serialized.
pub(super) fn feature_id(args: &ImageArgs, limits: ImageSpec) -> Result<String, ExtractError> {
    #[derive(Serialize)]
    struct Identity<'a> {
        decoder: &'a str,
        numerics: u32,
        image: &'a ImageArgs,
        #[serde(skip_serializing_if = "ImageSpec::is_default")]
        limits: ImageSpec,
    }
    Ok(canonical::id(&Identity {
        decoder: pictures::NAME,
        numerics: NUMERICS_REVISION,
        image: args,
        limits,
    })?)
}
