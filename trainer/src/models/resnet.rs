//! `resnet50` of document 004, with torchvision's layout and names, so that torchvision's weights can be loaded.

use tch::Tensor;

use super::layers::{ConvNorm, Dropout, VarScope, max_pool, mean_over, pool_operation};
use super::picture::{Scale, as_colour_picture, copied_channel};
use super::walk::{Operation, OperationKind, Walk, repeated};
use super::window::Window;
use super::{Backbone, Inputs, ModelError};

/// Number of bottlenecks of each layer, and their inner width. A bottleneck's output has four times as many channels.
const LAYERS: [(i64, i64); 4] = [(3, 64), (4, 128), (6, 256), (3, 512)];
const WIDTH: i64 = 2048;
/// Mean and deviation per channel of the pictures on which torchvision's weights were trained, for values in 0..1.
const IMAGENET: Scale = Scale {
    mean: [0.485, 0.456, 0.406],
    deviation: [0.229, 0.224, 0.225],
};

/// Creates the convolution `convI` and its batch norm `bnI` in a scope, where I is `i`.
fn conv_norm(
    scope: &VarScope<'_>,
    i: i64,
    from: i64,
    to: i64,
    window: Window,
) -> Result<ConvNorm, ModelError> {
    let scopes = [format!("conv{i}"), format!("bn{i}")].map(|name| scope.at(name));
    ConvNorm::over_picture(scopes.each_ref(), from, to, window)
}

/// 1 × 1, 3 × 3 and 1 × 1 convolutions with a shortcut. The 3 × 3 convolution has the stride ("v1.5"), whereas in He et
/// al. the first convolution has it.
#[derive(Debug)]
struct Bottleneck {
    layers: [ConvNorm; 3],
    shortcut: Option<ConvNorm>,
}

impl Bottleneck {
    fn new(scope: &VarScope<'_>, from: i64, inner: i64, stride: i64) -> Result<Self, ModelError> {
        let to = 4 * inner;
        let layers = [
            conv_norm(scope, 1, from, inner, Window::stepping(1, 1))?,
            conv_norm(scope, 2, inner, inner, Window::stepping(3, stride))?,
            conv_norm(scope, 3, inner, to, Window::stepping(1, 1))?,
        ];

        // Without a shortcut convolution, the block's input is added unchanged, since its shape equals the output's.
        let shortcut = if from == to && stride == 1 {
            None
        } else {
            let at = scope.at("downsample");
            let scopes = [&at.at(0), &at.at(1)];
            Some(ConvNorm::over_picture(
                scopes,
                from,
                to,
                Window::stepping(1, stride),
            )?)
        };

        Ok(Self { layers, shortcut })
    }

    /// Describes the bottleneck as one operation, since all bottlenecks consist of the same layers.
    fn operation(&self) -> Operation {
        let [first, second, third] = &self.layers;
        let stride = second.conv.stride();
        let mut settings = format!(
            "1 × 1, 3 × 3, 1 × 1, {} to {} channels",
            first.conv.channels(),
            third.conv.channels()
        );
        if stride > 1 {
            settings += &format!(", stride {stride}");
        }

        let mut parts: Vec<Operation> = self.layers.iter().flat_map(ConvNorm::operations).collect();
        if let Some(shortcut) = &self.shortcut {
            settings += ", 1 × 1 in the shortcut";
            parts.extend(shortcut.operations());
        }
        Operation {
            kind: OperationKind::Convolution,
            name: "bottleneck",
            settings,
            parameters: parts.iter().map(|part| part.parameters).sum(),
        }
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        let [first, second, third] = &self.layers;
        let y = first.forward(x, train)?.f_relu()?;
        let y = second.forward(&y, train)?.f_relu()?;
        let y = third.forward(&y, train)?;

        let beside = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x, train)?,
            None => x.shallow_clone(),
        };
        Ok(y.f_add(&beside)?.f_relu()?)
    }
}

/// ResNet-50. Source: He et al., "Deep residual learning for image recognition" (2016); torchvision 0.26.
///
/// `[n, 3, bands, frames]` → 7 × 7 convolution with stride 2, pooling by 2 → 256, 512, 1024, 2048 channels, halved from
/// the second layer on → mean over bands and frames, 2048. Accepts any size.
#[derive(Debug)]
pub(crate) struct ResNet50 {
    first: ConvNorm,
    layers: Vec<Vec<Bottleneck>>,
    scale: Option<Scale>,
    dropout: f64,
}

impl ResNet50 {
    /// With `pretrained`, rows (values in 0..1) are scaled like the pictures that the weights were trained on.
    pub(crate) fn new(scope: &VarScope<'_>, pretrained: bool) -> Result<Self, ModelError> {
        let first = conv_norm(scope, 1, 3, 64, Window::stepping(7, 2))?;

        let mut layers = Vec::new();
        let mut from = 64;
        for (i, (blocks, inner)) in LAYERS.into_iter().enumerate() {
            let at = scope.at(format!("layer{}", i + 1));
            let mut layer = Vec::new();
            for block in 0..blocks {
                // The first layer has no stride, since pooling has already halved its input.
                let stride = if i > 0 && block == 0 { 2 } else { 1 };
                layer.push(Bottleneck::new(&at.at(block), from, inner, stride)?);
                from = 4 * inner;
            }
            layers.push(layer);
        }

        Ok(Self {
            first,
            layers,
            scale: pretrained.then_some(IMAGENET),
            // Dropout rate 0, unless the configuration sets a rate.
            dropout: scope.dropout(0.0),
        })
    }
}

impl Backbone for ResNet50 {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let mut x = as_colour_picture(&inputs.spectrogram, self.scale.as_ref())?;

        x = self.first.forward(&x, train)?.f_relu()?;
        x = max_pool(&x, &[Window::stepping(3, 2); 2])?;
        walk.stage("conv1", &x, || {
            let mut operations = copied_channel(&inputs.spectrogram);
            operations.extend(self.first.operations());
            operations.push(Operation::fixed("ReLU", ""));
            operations.extend(pool_operation(&[Window::stepping(3, 2); 2]));
            operations
        });

        for (i, layer) in self.layers.iter().enumerate() {
            for block in layer {
                x = block.forward(&x, train)?;
            }
            walk.stage(format_args!("layer{}", i + 1), &x, || {
                repeated(layer.iter().map(Bottleneck::operation).collect())
            });
        }

        x = mean_over(&x, &[2, 3])?;
        walk.stage("mean", &x, || {
            let mut operations = vec![Operation::fixed("mean", "over bands and frames")];
            operations.extend(Dropout::Values(self.dropout).operation());
            operations
        });
        Ok(x.f_dropout(self.dropout, train)?)
    }

    fn width(&self) -> i64 {
        WIDTH
    }
}
