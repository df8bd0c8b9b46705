//! Dense layers over a track's metadata: `mlp-4` and `mlp-1` of document 002, which gives no widths.
//!
//! There the columns are the 140 MFCC statistics of the published `features.csv`.

use tch::Tensor;

use super::layers::{Dropout, Site, Start, drop};
use super::norm::BatchNorm;
use super::{Backbone, Dims, Inputs, ModelError, Seen, metadata};

/// Hidden layers.
#[derive(Debug)]
pub struct Plan {
    /// Their widths.
    pub widths: &'static [i64],
    /// Whether batch norm stands between a layer and its ReLU.
    pub norm: bool,
    /// Behind each ReLU.
    pub dropout: Dropout,
}

/// `[n, columns]` → 512 → 256 → 128 → 64, with batch norm, ReLU and dropout each.
pub const FOUR: Plan = Plan { widths: &[512, 256, 128, 64], norm: true, dropout: Dropout::Values(0.3) };

/// `[n, columns]` → 128, ReLU.
pub const ONE: Plan = Plan { widths: &[128], norm: false, dropout: Dropout::None };

#[derive(Debug)]
struct Layer {
    weight: Tensor,
    /// Where no batch norm follows, which would take it out again.
    bias: Option<Tensor>,
    norm: Option<BatchNorm>,
    dropout: Dropout,
}

/// Dense layers as a [`Plan`] has them: variables `denseI.*` and `normI.*`, I from 1.
#[derive(Debug)]
pub struct Mlp {
    layers: Vec<Layer>,
    width: i64,
}

impl Mlp {
    /// # Errors
    /// [`ModelError::Torch`]: no memory.
    pub fn new(site: &Site<'_>, dims: &Dims, plan: &Plan) -> Result<Self, ModelError> {
        let (mut layers, mut from) = (Vec::new(), dims.metadata);
        for (i, &width) in plan.widths.iter().enumerate() {
            let at = site.at(format!("dense{}", i + 1));
            let weight = at.variable("weight", &[width, from], Start::Torch)?;
            let (bias, norm) = if plan.norm {
                (None, Some(BatchNorm::new(&site.at(format!("norm{}", i + 1)), width)?))
            } else {
                (Some(at.variable("bias", &[width], Start::Uniform((from as f64).powf(-0.5)))?), None)
            };
            layers.push(Layer { weight, bias, norm, dropout: plan.dropout.at(site) });
            from = width;
        }
        Ok(Self { layers, width: from })
    }
}

impl Backbone for Mlp {
    fn embed(&self, inputs: &Inputs, train: bool, seen: Seen<'_>) -> Result<Tensor, ModelError> {
        let mut x = metadata(inputs, "an mlp")?.shallow_clone();
        for (i, layer) in self.layers.iter().enumerate() {
            x = x.f_linear(&layer.weight, layer.bias.as_ref())?;
            if let Some(norm) = &layer.norm {
                x = norm.forward(&x, train)?;
            }
            x = drop(&x.f_relu()?, layer.dropout, train)?;
            seen(&format!("dense{}", i + 1), &x);
        }
        Ok(x)
    }

    fn width(&self) -> i64 {
        self.width
    }
}
