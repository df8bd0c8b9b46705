//! `resnet50` of `gtzan-images`, with torchvision's layout and names, so that torchvision's weights can be loaded.

use super::layers::{
    Described, Fixed, Layer, Layers, MaxPool, Residual, VarScope, conv_norm, mean_and_dropout,
};
use super::picture::{AsPicture, Scale};
use super::sequence::{Sequence, Sequential};
use super::walk::{Operation, OperationKind, parameters_of, repeated};
use super::window::Window;
use super::{BuiltBackbone, ModelError};

/// Number of bottlenecks of each layer, and their inner width. A bottleneck's output has four times as many channels.
const LAYERS: [(i64, i64); 4] = [(3, 64), (4, 128), (6, 256), (3, 512)];
const WIDTH: i64 = 2048;
/// Mean and deviation per channel of the pictures on which torchvision's weights were trained, for values in 0..1.
const IMAGENET: Scale = Scale {
    mean: [0.485, 0.456, 0.406],
    deviation: [0.229, 0.224, 0.225],
};

/// Creates 1 × 1, 3 × 3 and 1 × 1 convolutions with a shortcut. The 3 × 3 convolution has the stride ("v1.5"), whereas
/// in He et al. the first convolution has it. All bottlenecks consist of the same layers, so they are described as one
/// operation.
fn bottleneck(
    scope: &VarScope<'_>,
    from: i64,
    inner: i64,
    stride: i64,
) -> Result<Described, ModelError> {
    let to = 4 * inner;
    let mut body = Layers::new();
    for (i, channels, window) in [
        (1, [from, inner], Window::stepping(1, 1)),
        (2, [inner, inner], Window::stepping(3, stride)),
        (3, [inner, to], Window::stepping(1, 1)),
    ] {
        if i > 1 {
            body.push(Box::new(Fixed::Relu));
        }
        let names = [&*format!("conv{i}"), &*format!("bn{i}")];
        body.extend(conv_norm(scope, names, channels, window)?);
    }

    let mut settings = format!("1 × 1, 3 × 3, 1 × 1, {inner} to {to} channels");
    if stride > 1 {
        settings += &format!(", stride {stride}");
    }

    let mut shortcut = Layers::new();
    if from != to || stride > 1 {
        settings += ", 1 × 1 in the shortcut";
        let at = scope.at("downsample");
        shortcut = conv_norm(&at, ["0", "1"], [from, to], Window::stepping(1, stride))?;
    }

    let sum = Residual { body, shortcut };
    let parameters = parameters_of(&sum.operations());
    Ok(Described {
        layers: vec![Box::new(sum), Box::new(Fixed::Relu)],
        operations: vec![Operation {
            kind: OperationKind::Convolution,
            name: "bottleneck",
            settings,
            parameters,
        }],
    })
}

/// Creates ResNet-50. Source: He et al., "Deep residual learning for image recognition" (2016); torchvision 0.26.
///
/// `[n, 3, bands, frames]` → 7 × 7 convolution with stride 2, pooling by 2 → 256, 512, 1024, 2048 channels, halved from
/// the second layer on → mean over bands and frames, 2048. Accepts any size.
///
/// With `pretrained`, rows (values in 0..1) are scaled like the pictures that the weights were trained on.
pub(crate) fn resnet50(scope: &VarScope<'_>, pretrained: bool) -> BuiltBackbone {
    let mut first = conv_norm(scope, ["conv1", "bn1"], [3, 64], Window::stepping(7, 2))?;
    first.push(Box::new(Fixed::Relu));
    first.push(Box::new(MaxPool(vec![Window::stepping(3, 2); 2])));
    let mut stages = Sequence::default();
    stages.push("conv1", first);

    let mut from = 64;
    for (i, (blocks, inner)) in LAYERS.into_iter().enumerate() {
        let at = scope.at(format!("layer{}", i + 1));
        let mut layers = Layers::new();
        for block in 0..blocks {
            // The first layer has no stride, since pooling has already halved its input.
            let stride = if i > 0 && block == 0 { 2 } else { 1 };
            layers.push(Box::new(bottleneck(&at.at(block), from, inner, stride)?));
            from = 4 * inner;
        }
        let operations = repeated(layers.operations());
        let layer = Described { layers, operations };
        stages.push(format_args!("layer{}", i + 1), vec![Box::new(layer)]);
    }

    stages.push("mean", mean_and_dropout(scope));
    let picture = AsPicture {
        channels: 3,
        scale: pretrained.then_some(IMAGENET),
    };
    Ok((Sequential::of_pictures(picture, stages), WIDTH))
}
