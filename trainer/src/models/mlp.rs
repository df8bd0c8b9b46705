//! Dense layers over a track's metadata: `mlp-4` and `mlp-1` of document 002, which gives no widths; and the probes of
//! embeddings.
//!
//! In the document, the columns are the 140 MFCC statistics of the published `features.csv`. Here they can also be a
//! feature of vectors in a store: statistics or embeddings.

use tch::Tensor;

use super::layers::{Dropout, Initializer, VarScope, dense_operation, drop};
use super::norm::BatchNorm;
use super::walk::{Operation, Walk};
use super::{Backbone, Dims, Inputs, ModelError, metadata};

#[derive(Debug)]
pub(crate) struct MlpArgs {
    pub widths: &'static [i64],
    /// True if batch norm is applied between a dense layer and its ReLU.
    pub norm: bool,
    /// Dropout rate after each ReLU.
    pub dropout: Dropout,
}

/// Arguments of `mlp-4`: `[n, columns]` → 512 → 256 → 128 → 64, each with batch norm, ReLU and dropout.
pub(crate) const FOUR: MlpArgs = MlpArgs {
    widths: &[512, 256, 128, 64],
    norm: true,
    dropout: Dropout::Values(0.3),
};

/// Arguments of `mlp-1`: `[n, columns]` → 128, ReLU.
pub(crate) const ONE: MlpArgs = MlpArgs {
    widths: &[128],
    norm: false,
    dropout: Dropout::None,
};

/// Arguments of `mlp-probe`: `[n, columns]` → 512, ReLU, dropout.
pub(crate) const MLP_PROBE: MlpArgs = MlpArgs {
    widths: &[512],
    norm: false,
    dropout: Dropout::Values(0.2),
};

/// Arguments of `linear-probe`: nothing before the heads.
pub(crate) const LINEAR_PROBE: MlpArgs = MlpArgs {
    widths: &[],
    norm: false,
    dropout: Dropout::None,
};

#[derive(Debug)]
struct Layer {
    weight: Tensor,
    bias: Option<Tensor>,
    norm: Option<BatchNorm>,
    dropout: Dropout,
}

impl Layer {
    /// Describes a dense layer, with its batch norm, ReLU and dropout, as operations of a stage.
    fn operations(&self) -> Vec<Operation> {
        let mut operations = vec![dense_operation(&self.weight, self.bias.as_ref())];
        operations.extend(self.norm.as_ref().map(BatchNorm::operation));
        operations.push(Operation::fixed("ReLU", ""));
        operations.extend(self.dropout.operation());
        operations
    }
}

/// Dense layers built from [`MlpArgs`]. Variables of layer I (from 1): `denseI.*` and `normI.*`.
#[derive(Debug)]
pub(crate) struct Mlp {
    layers: Vec<Layer>,
    width: i64,
}

impl Mlp {
    pub(crate) fn new(
        scope: &VarScope<'_>,
        dims: &Dims,
        args: &MlpArgs,
    ) -> Result<Self, ModelError> {
        let mut layers = Vec::new();
        let mut from = dims.metadata;
        for (i, &width) in args.widths.iter().enumerate() {
            let at = scope.at(format!("dense{}", i + 1));
            let weight = at.variable("weight", &[width, from], Initializer::Torch)?;

            // Batch norm would cancel a bias, so a dense layer has either a bias or batch norm.
            let mut bias = None;
            let mut norm = None;
            if args.norm {
                norm = Some(BatchNorm::new(&scope.at(format!("norm{}", i + 1)), width)?);
            } else {
                let start = Initializer::Uniform((from as f64).powf(-0.5));
                bias = Some(at.variable("bias", &[width], start)?);
            }

            layers.push(Layer {
                weight,
                bias,
                norm,
                dropout: args.dropout.at(scope),
            });
            from = width;
        }

        Ok(Self {
            layers,
            width: from,
        })
    }
}

impl Backbone for Mlp {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let mut x = metadata(inputs, "an mlp")?.shallow_clone();
        for (i, layer) in self.layers.iter().enumerate() {
            x = x.f_linear(&layer.weight, layer.bias.as_ref())?;
            if let Some(norm) = &layer.norm {
                x = norm.forward(&x, train)?;
            }

            x = drop(&x.f_relu()?, layer.dropout, train)?;

            walk.stage(format_args!("dense{}", i + 1), &x, || layer.operations());
        }
        Ok(x)
    }

    fn width(&self) -> i64 {
        self.width
    }
}
