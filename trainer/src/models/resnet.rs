//! `resnet50` of document 004: torchvision's layout and names, so that its published weights can be read.

use tch::Tensor;

use super::layers::{Conv, ConvArgs, Site, Start, max_pool, mean_over};
use super::norm::BatchNorm;
use super::picture::{Scale, as_picture};
use super::window::Window;
use super::{Backbone, Inputs, ModelError, Seen};

/// Bottlenecks of each layer, and their inner width; four times that comes out.
const LAYERS: [(i64, i64); 4] = [(3, 64), (4, 128), (6, 256), (3, 512)];
const WIDTH: i64 = 2048;
/// Of the pictures that torchvision's weights were trained on, per channel, values in 0..1.
const IMAGENET: Scale = Scale { mean: [0.485, 0.456, 0.406], deviation: [0.229, 0.224, 0.225] };

fn conv(site: &Site<'_>, from: i64, to: i64, window: Window) -> Result<Conv, ModelError> {
    Conv::new(site, ConvArgs { from, to, windows: &[window; 2], groups: 1, start: Start::FanOut })
}

const fn stepping(kernel: i64, stride: i64) -> Window {
    Window { kernel, stride, padding: kernel / 2 }
}

/// 1 × 1, 3 × 3 and 1 × 1 convolutions beside a shortcut; the 3 × 3 one halves ("v1.5"), where He et al. had the first.
#[derive(Debug)]
struct Bottleneck {
    layers: [(Conv, BatchNorm); 3],
    shortcut: Option<(Conv, BatchNorm)>,
}

impl Bottleneck {
    fn new(site: &Site<'_>, from: i64, inner: i64, stride: i64) -> Result<Self, ModelError> {
        let to = 4 * inner;
        let layer = |i: i64, from, to, window| -> Result<_, ModelError> {
            let conv = conv(&site.at(format!("conv{i}")), from, to, window)?;
            Ok((conv, BatchNorm::new(&site.at(format!("bn{i}")), to)?))
        };
        let layers = [
            layer(1, from, inner, stepping(1, 1))?,
            layer(2, inner, inner, stepping(3, stride))?,
            layer(3, inner, to, stepping(1, 1))?,
        ];
        let shortcut = if from == to && stride == 1 {
            None
        } else {
            let at = site.at("downsample");
            Some((conv(&at.at(0), from, to, stepping(1, stride))?, BatchNorm::new(&at.at(1), to)?))
        };
        Ok(Self { layers, shortcut })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        let [first, second, third] = &self.layers;
        let apply = |(conv, norm): &(Conv, BatchNorm), x: &Tensor| norm.forward(&conv.forward(x)?, train);
        let y = apply(second, &apply(first, x)?.f_relu()?)?.f_relu()?;
        let y = apply(third, &y)?;
        let beside = match &self.shortcut {
            Some(shortcut) => apply(shortcut, x)?,
            None => x.shallow_clone(),
        };
        Ok(y.f_add(&beside)?.f_relu()?)
    }
}

/// ResNet-50. Source: He et al., "Deep residual learning for image recognition" (2016); torchvision 0.26.
///
/// `[n, 3, bands, frames]` → 7 × 7 convolution by 2, pooling by 2 → 256, 512, 1024, 2048 channels, halved from the
/// second on → mean over bands and frames, 2048. Any size will do.
#[derive(Debug)]
pub struct ResNet50 {
    first: (Conv, BatchNorm),
    layers: Vec<Vec<Bottleneck>>,
    scale: Option<Scale>,
    share: f64,
}

impl ResNet50 {
    /// `pretrained`: rows (values in 0..1) are scaled as the pictures that published weights were trained on.
    ///
    /// # Errors
    /// [`ModelError::Torch`]: no memory.
    pub fn new(site: &Site<'_>, pretrained: bool) -> Result<Self, ModelError> {
        let first = (conv(&site.at("conv1"), 3, 64, stepping(7, 2))?, BatchNorm::new(&site.at("bn1"), 64)?);
        let (mut layers, mut from) = (Vec::new(), 64);
        for (i, (blocks, inner)) in LAYERS.into_iter().enumerate() {
            let at = site.at(format!("layer{}", i + 1));
            let mut layer = Vec::new();
            for block in 0..blocks {
                let stride = if i > 0 && block == 0 { 2 } else { 1 };
                layer.push(Bottleneck::new(&at.at(block), from, inner, stride)?);
                from = 4 * inner;
            }
            layers.push(layer);
        }
        Ok(Self { first, layers, scale: pretrained.then_some(IMAGENET), share: site.dropout(0.0) })
    }
}

impl Backbone for ResNet50 {
    fn embed(&self, inputs: &Inputs, train: bool, seen: Seen<'_>) -> Result<Tensor, ModelError> {
        let mut x = as_picture(&inputs.spectrogram, 3)?;
        if let Some(scale) = &self.scale {
            x = scale.apply(&x)?;
        }
        x = self.first.1.forward(&self.first.0.forward(&x)?, train)?.f_relu()?;
        x = max_pool(&x, &[stepping(3, 2); 2])?;
        seen("conv1", &x);
        for (i, layer) in self.layers.iter().enumerate() {
            for block in layer {
                x = block.forward(&x, train)?;
            }
            seen(&format!("layer{}", i + 1), &x);
        }
        x = mean_over(&x, &[2, 3])?;
        seen("mean", &x);
        Ok(x.f_dropout(self.share, train)?)
    }

    fn width(&self) -> i64 {
        WIDTH
    }
}
