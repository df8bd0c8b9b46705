//! `xception` of document 004, with the layout and names of timm's `legacy_xception`, whose weights can be loaded.

use tch::Tensor;

use super::layers::{Conv, ConvNorm, Dropout, VarScope, max_pool, mean_over, pool_operation};
use super::norm::BatchNorm;
use super::picture::{Scale, as_colour_picture, copied_channel};
use super::walk::{Operation, OperationKind, Walk};
use super::window::{Window, least_before};
use super::{Backbone, Inputs, ModelError};

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

/// A separable convolution: a 3 × 3 filter per channel, then a 1 × 1 convolution over all channels, then batch norm.
#[derive(Debug)]
struct Separable {
    channels: Conv,
    across: Conv,
    norm: BatchNorm,
}

impl Separable {
    fn new(
        scope: &VarScope<'_>,
        norm: &VarScope<'_>,
        from: i64,
        to: i64,
    ) -> Result<Self, ModelError> {
        Ok(Self {
            channels: Conv::over_picture(&scope.at("conv1"), from, from, Window::same(3), from)?,
            across: Conv::over_picture(&scope.at("pointwise"), from, to, Window::valid(1), 1)?,
            norm: BatchNorm::new(norm, to)?,
        })
    }

    /// Describes the separable convolution and the batch norm as operations of a stage.
    fn operations(&self) -> [Operation; 2] {
        let parts = [self.channels.operation(), self.across.operation()];
        let convolution = Operation {
            kind: OperationKind::Convolution,
            name: "separable convolution",
            settings: format!("3 × 3, {} channels", self.across.channels()),
            parameters: parts.iter().map(|part| part.parameters).sum(),
        };
        [convolution, self.norm.operation()]
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        self.norm
            .forward(&self.across.forward(&self.channels.forward(x)?)?, train)
    }
}

/// Properties in which the twelve blocks of Xception differ.
#[derive(Clone, Copy, Debug)]
struct Shape {
    from: i64,
    to: i64,
    /// Number of separable convolutions in the block.
    convs: usize,
    halve: bool,
    /// True if ReLU also precedes the block's first convolution.
    relu_first: bool,
    /// Index of the convolution in which the number of channels changes from `from` to `to`.
    grows_at: usize,
}

/// Returns a block that halves bands and frames. Used for blocks 1 to 3 and for the last block, in the exit flow.
const fn entry_flow(from: i64, to: i64) -> Shape {
    Shape {
        from,
        to,
        convs: 2,
        halve: true,
        relu_first: true,
        grows_at: 0,
    }
}

/// Returns the shapes of timm's twelve blocks, `block1` to `block12`.
fn shapes() -> Vec<Shape> {
    // Blocks of the middle flow preserve the shape of their input.
    let middle = Shape {
        from: 728,
        to: 728,
        convs: 3,
        halve: false,
        relu_first: true,
        grows_at: 0,
    };

    // Blocks 1 to 3, the eight of the middle flow, and that of the exit flow, whose second convolution adds channels.
    let mut shapes = vec![
        Shape {
            relu_first: false,
            ..entry_flow(64, 128)
        },
        entry_flow(128, 256),
        entry_flow(256, 728),
    ];
    shapes.extend([middle; 8]);
    shapes.push(Shape {
        grows_at: 1,
        ..entry_flow(728, 1024)
    });
    shapes
}

/// A block of separable convolutions with a shortcut.
#[derive(Debug)]
struct Block {
    convs: Vec<Separable>,
    shortcut: Option<ConvNorm>,
    shape: Shape,
}

impl Block {
    fn new(scope: &VarScope<'_>, shape: Shape) -> Result<Self, ModelError> {
        let rep = scope.at("rep");
        let mut convs = Vec::new();

        for i in 0..shape.convs {
            // Index in timm's list of layers, where a ReLU precedes each convolution, except for the first one of a
            // block without `relu_first`.
            let place = 3 * i + usize::from(shape.relu_first);

            let from = if i <= shape.grows_at {
                shape.from
            } else {
                shape.to
            };
            let to = if i < shape.grows_at {
                shape.from
            } else {
                shape.to
            };
            convs.push(Separable::new(
                &rep.at(place),
                &rep.at(place + 1),
                from,
                to,
            )?);
        }

        let shortcut = if shape.halve {
            let halving = Window::stepping(1, 2);
            let scopes = [&scope.at("skip"), &scope.at("skipbn")];
            Some(ConvNorm::over_picture(
                scopes, shape.from, shape.to, halving,
            )?)
        } else {
            None
        };

        Ok(Self {
            convs,
            shortcut,
            shape,
        })
    }

    /// Describes the layers of the block as operations of a stage.
    fn operations(&self) -> Vec<Operation> {
        let mut operations = Vec::new();
        for (i, conv) in self.convs.iter().enumerate() {
            if i > 0 || self.shape.relu_first {
                operations.push(Operation::fixed("ReLU", ""));
            }
            operations.extend(conv.operations());
        }
        if self.shape.halve {
            operations.extend(pool_operation(&[HALVE; 2]));
        }

        operations.push(match &self.shortcut {
            Some(shortcut) => Operation {
                kind: OperationKind::Convolution,
                name: "plus a shortcut",
                settings: format!("1 × 1, stride {}", shortcut.conv.stride()),
                parameters: shortcut.operations().iter().map(|x| x.parameters).sum(),
            },
            None => Operation::fixed("plus the input", ""),
        });
        operations
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        let mut y = x.shallow_clone();
        for (i, conv) in self.convs.iter().enumerate() {
            if i > 0 || self.shape.relu_first {
                // ReLU is not applied in place: `y` begins as a handle to `x`, which the shortcut still needs.
                y = y.f_relu()?;
            }
            y = conv.forward(&y, train)?;
        }

        if self.shape.halve {
            y = max_pool(&y, &[HALVE; 2])?;
        }

        let beside = match &self.shortcut {
            Some(shortcut) => shortcut.forward(x, train)?,
            None => x.shallow_clone(),
        };
        Ok(y.f_add(&beside)?)
    }
}

/// Xception. Source: Chollet, "Xception: deep learning with depthwise separable convolutions" (2017); timm 1.0's
/// `legacy_xception`.
///
/// `[n, 3, bands, frames]` → 32 with stride 2, 64 → 128, 256, 728 channels, halved each time → 8 blocks of 728 → 1024,
/// halved → 1536, 2048 → mean over bands and frames, 2048.
#[derive(Debug)]
pub(crate) struct Xception {
    first: [ConvNorm; 2],
    blocks: Vec<Block>,
    last: [Separable; 2],
    scale: Option<Scale>,
    dropout: f64,
}

impl Xception {
    /// With `pretrained`, rows (values in 0..1) are scaled like the pictures that the weights were trained on.
    pub(crate) fn new(scope: &VarScope<'_>, pretrained: bool) -> Result<Self, ModelError> {
        let first = [
            ConvNorm::over_picture([&scope.at("conv1"), &scope.at("bn1")], 3, 32, FIRST)?,
            ConvNorm::over_picture([&scope.at("conv2"), &scope.at("bn2")], 32, 64, SECOND)?,
        ];
        let blocks = shapes()
            .into_iter()
            .enumerate()
            .map(|(i, shape)| Block::new(&scope.at(format!("block{}", i + 1)), shape))
            .collect::<Result<_, _>>()?;
        let last = [
            Separable::new(&scope.at("conv3"), &scope.at("bn3"), 1024, 1536)?,
            Separable::new(&scope.at("conv4"), &scope.at("bn4"), 1536, WIDTH)?,
        ];

        Ok(Self {
            first,
            blocks,
            last,
            scale: pretrained.then_some(SCALE),
            // Dropout rate 0, unless the configuration sets a rate.
            dropout: scope.dropout(0.0),
        })
    }
}

impl Backbone for Xception {
    fn embed(&self, inputs: &Inputs, train: bool, walk: &mut Walk) -> Result<Tensor, ModelError> {
        let mut x = as_colour_picture(&inputs.spectrogram, self.scale.as_ref())?;

        for (i, layer) in self.first.iter().enumerate() {
            x = layer.forward(&x, train)?.f_relu()?;
            walk.stage(format_args!("conv{}", i + 1), &x, || {
                let mut operations = Vec::new();
                if i == 0 {
                    operations.extend(copied_channel(&inputs.spectrogram));
                }
                operations.extend(layer.operations());
                operations.push(Operation::fixed("ReLU", ""));
                operations
            });
        }

        for (i, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, train)?;
            walk.stage(format_args!("block{}", i + 1), &x, || block.operations());
        }

        for (i, conv) in self.last.iter().enumerate() {
            x = conv.forward(&x, train)?.f_relu()?;
            walk.stage(format_args!("conv{}", i + 3), &x, || {
                let mut operations = conv.operations().to_vec();
                operations.push(Operation::fixed("ReLU", ""));
                operations
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
