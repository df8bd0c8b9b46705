//! `xception` of `gtzan-images`, with the layout and names of timm's `legacy_xception`, whose weights can be loaded.

use super::layers::{
    Conv, Described, Fixed, Layer, Layers, MaxPool, Residual, VarScope, conv_norm, mean_and_dropout,
};
use super::norm::BatchNorm;
use super::picture::{AsPicture, Scale};
use super::sequence::{Sequence, Sequential};
use super::walk::{Operation, OperationKind, parameters_of};
use super::window::{Window, least_before};
use super::{BuiltBackbone, ModelError};

const WIDTH: i64 = 2048;
const HALVE: Window = Window::stepping(3, 2);
const FIRST: Window = Window {
    kernel: 3,
    stride: 2,
    padding: 0,
};
const SECOND: Window = Window::valid(3);
/// Scaling of the pictures on which timm's weights were trained: maps values in 0..1 to −1..1.
const SCALE: Scale = Scale {
    mean: [0.5; 3],
    deviation: [0.5; 3],
};

/// Returns the minimum number of bands and frames of a row: 7 of each.
pub(crate) fn least() -> [i64; 2] {
    [least_before(&[FIRST, SECOND, HALVE, HALVE, HALVE, HALVE]); 2]
}

/// Creates a separable convolution: a 3 × 3 filter per channel, then a 1 × 1 convolution over all channels, then batch
/// norm.
fn separable(
    [scope, norm]: [&VarScope<'_>; 2],
    from: i64,
    to: i64,
) -> Result<Described, ModelError> {
    let channels = Conv::over_picture(&scope.at("conv1"), from, from, Window::same(3), from)?;
    let across = Conv::over_picture(&scope.at("pointwise"), from, to, Window::valid(1), 1)?;
    let norm = BatchNorm::new(norm, to)?;

    let parts = [channels.operations(), across.operations()].concat();
    let mut operations = vec![Operation {
        kind: OperationKind::Convolution,
        name: "separable convolution",
        settings: format!("3 × 3, {to} channels"),
        parameters: parameters_of(&parts),
    }];
    operations.extend(norm.operations());
    Ok(Described {
        layers: vec![Box::new(channels), Box::new(across), Box::new(norm)],
        operations,
    })
}

/// Output channels of the separable convolutions of a block. Blocks with two of them halve bands and frames; those of
/// the middle flow, with three, preserve the shape of their input.
type Widths = &'static [i64];
const ENTRY_FLOW: [Widths; 3] = [&[128, 128], &[256, 256], &[728, 728]];
const MIDDLE_FLOW: [Widths; 8] = [&[728, 728, 728]; 8];
const EXIT_FLOW: [Widths; 1] = [&[728, 1024]];

/// Creates a block of separable convolutions with a shortcut. The first convolution of the network's first block has no
/// ReLU before it.
fn block(
    scope: &VarScope<'_>,
    from: i64,
    widths: Widths,
    relu_first: bool,
) -> Result<Described, ModelError> {
    let rep = scope.at("rep");
    let mut body = Layers::new();
    let mut width = from;
    for (i, &to) in widths.iter().enumerate() {
        if i > 0 || relu_first {
            body.push(Box::new(Fixed::Relu));
        }
        // Index in timm's list of layers, in which a ReLU has a place of its own.
        let place = 3 * i + usize::from(relu_first);
        let scopes = [&rep.at(place), &rep.at(place + 1)];
        body.push(Box::new(separable(scopes, width, to)?));
        width = to;
    }

    let halves = widths.len() == 2;
    let mut shortcut = Layers::new();
    if halves {
        body.push(Box::new(MaxPool(vec![HALVE; 2])));
        let window = Window::stepping(1, 2);
        shortcut = conv_norm(scope, ["skip", "skipbn"], [from, width], window)?;
    }

    let mut operations = body.operations();
    operations.push(if halves {
        Operation {
            kind: OperationKind::Convolution,
            name: "plus a shortcut",
            settings: "1 × 1, stride 2".to_owned(),
            parameters: parameters_of(&shortcut.operations()),
        }
    } else {
        Operation::fixed("plus the input", "")
    });
    Ok(Described {
        layers: vec![Box::new(Residual { body, shortcut })],
        operations,
    })
}

/// Creates Xception. Source: Chollet, "Xception: deep learning with depthwise separable convolutions" (2017); timm
/// 1.0's `legacy_xception`.
///
/// `[n, 3, bands, frames]` → 32 with stride 2, 64 → 128, 256, 728 channels, halved each time → 8 blocks of 728 → 1024,
/// halved → 1536, 2048 → mean over bands and frames, 2048.
///
/// With `pretrained`, rows (values in 0..1) are scaled like the pictures that the weights were trained on.
pub(crate) fn xception(scope: &VarScope<'_>, pretrained: bool) -> BuiltBackbone {
    let mut stages = Sequence::default();
    for (names, channels, window) in [
        (["conv1", "bn1"], [3, 32], FIRST),
        (["conv2", "bn2"], [32, 64], SECOND),
    ] {
        let mut layers = conv_norm(scope, names, channels, window)?;
        layers.push(Box::new(Fixed::Relu));
        stages.push(names[0], layers);
    }

    let mut from = 64;
    let blocks = [&ENTRY_FLOW[..], &MIDDLE_FLOW, &EXIT_FLOW].concat();
    for (i, widths) in blocks.into_iter().enumerate() {
        let name = format!("block{}", i + 1);
        let layer = block(&scope.at(&name), from, widths, i > 0)?;
        from = widths[widths.len() - 1];
        stages.push(name, vec![Box::new(layer)]);
    }

    for (names, from, to) in [
        (["conv3", "bn3"], 1024, 1536),
        (["conv4", "bn4"], 1536, WIDTH),
    ] {
        let [conv, norm] = names.map(|name| scope.at(name));
        let layer = separable([&conv, &norm], from, to)?;
        stages.push(names[0], vec![Box::new(layer), Box::new(Fixed::Relu)]);
    }

    stages.push("mean", mean_and_dropout(scope));
    let picture = AsPicture {
        channels: 3,
        scale: pretrained.then_some(SCALE),
    };
    Ok((Sequential::of_pictures(picture, stages), WIDTH))
}
