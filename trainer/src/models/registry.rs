//! The table of architectures: what each is, where it comes from, what it needs, and how it is made.
//!
//! "Repository" is that of the document's authors; whatever neither it nor the document gives is told as our choice.

use super::layers::{Block, Site, least_for};
use super::{Backbone, Dims, ModelError, cnn, fusion, genregenie, mlp, parallel, recurrent, resnet, xception};
use crate::config;

/// What a model sees of a row; nothing else is read for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Needs {
    /// `[n, bands, frames]`.
    #[default]
    Spectrogram,
    /// `[n, columns]`.
    Metadata,
    /// Both, and ids of artist and album where there are any.
    All,
}

/// Makes a backbone at a place of the variable store.
pub type Build = fn(&Site<'_>, &Dims, &config::Model) -> Result<Box<dyn Backbone>, ModelError>;

/// An architecture.
#[derive(Debug)]
pub struct Entry {
    /// As in `model.name`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// Document, repository, paper.
    pub origin: &'static str,
    /// What none of these gives.
    pub our_choice: &'static str,
    /// Its inputs.
    pub needs: Needs,
    /// Values of `model.channels` that it takes.
    pub channels: &'static [i64],
    /// Bands, frames and classes of its document.
    pub document: [i64; 3],
    /// The fewest bands and frames.
    pub least: fn() -> [i64; 2],
    /// Its constructor.
    pub build: Build,
}

impl Needs {
    /// Whether the spectrogram is among it.
    #[must_use]
    pub fn spectrogram(self) -> bool {
        self != Self::Metadata
    }

    /// Whether columns of `fma_features` are, those that `data.metadata` names.
    #[must_use]
    pub fn metadata(self) -> bool {
        self != Self::Spectrogram
    }

    /// Whether artist and album are.
    #[must_use]
    pub fn ids(self) -> bool {
        self == Self::All
    }
}

impl Entry {
    /// Whether rows and configuration suit it.
    ///
    /// # Errors
    /// [`ModelError::TooSmall`], [`ModelError::Needs`], [`ModelError::Value`].
    pub fn check(&self, model: &config::Model, dims: &Dims) -> Result<(), ModelError> {
        let fault = |key, found: String, allowed: &str| ModelError::Value { key, found, allowed: allowed.to_owned() };
        if dims.heads.is_empty() || dims.heads.iter().any(|&(_, classes)| classes < 1) {
            let found = format!("{:?}", dims.heads);
            return Err(fault("data.targets", found, "at least one target, each with at least one class"));
        }
        if !self.channels.contains(&model.channels) {
            return Err(fault("model.channels", model.channels.to_string(), &format!("one of {:?}", self.channels)));
        }
        if let Some(share) = model.dropout.filter(|share| !(0.0..1.0).contains(share)) {
            return Err(fault("model.dropout", share.to_string(), "from 0 to below 1, or absent"));
        }
        if model.freeze && model.init.is_none() {
            return Err(fault(
                "model.freeze",
                "true".to_owned(),
                "only with model.init: nothing else is worth keeping",
            ));
        }
        if self.needs.metadata() && dims.metadata < 1 {
            return Err(ModelError::Needs { model: self.name, what: "metadata columns: data.metadata" });
        }
        if !self.needs.spectrogram() {
            return Ok(());
        }
        let [bands, frames] = (self.least)();
        for (axis, found, least) in [("bands", dims.bands, bands), ("frames", dims.frames, frames)] {
            if found < least {
                return Err(ModelError::TooSmall { model: self.name, axis, found, least });
            }
        }
        Ok(())
    }
}

/// The entry of `name`.
///
/// # Errors
/// [`ModelError::Unknown`], which lists all.
pub fn find(name: &str) -> Result<&'static Entry, ModelError> {
    TABLE.iter().find(|entry| entry.name == name).ok_or_else(|| ModelError::Unknown {
        name: name.to_owned(),
        known: TABLE.iter().map(|entry| entry.name).collect::<Vec<_>>().join(", "),
    })
}

fn least_1d(blocks: &[Block]) -> [i64; 2] {
    [1, least_for(blocks)[1]]
}

const XNAP: &str = "document 000 (fma-large); widths: repository";
const DLNN: &str = "document 002 (fma-small)";

/// All architectures, in the order of their documents.
pub const TABLE: &[Entry] = &[
    Entry {
        name: "cnn2d",
        about: "three 2-D convolutions, two dense layers",
        origin: XNAP,
        our_choice: "nothing",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 1292, 12],
        least: cnn::least_2d,
        build: |site, dims, _| Ok(Box::new(cnn::Cnn2d::new(site, dims)?)),
    },
    Entry {
        name: "cnn1d-gru",
        about: "three 1-D convolutions, two bidirectional GRU layers, mean over time, a dense layer",
        origin: XNAP,
        our_choice: "nothing",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 1292, 12],
        least: || least_1d(recurrent::CNN1D_GRU.blocks),
        build: |site, dims, _| recurrent::boxed(site, dims, &recurrent::CNN1D_GRU),
    },
    Entry {
        name: "cnn1d-lstm",
        about: "three 1-D convolutions, two bidirectional LSTM layers, mean and maximum over time, a dense layer",
        origin: XNAP,
        our_choice: "nothing",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 1292, 12],
        least: || least_1d(recurrent::CNN1D_LSTM.blocks),
        build: |site, dims, _| recurrent::boxed(site, dims, &recurrent::CNN1D_LSTM),
    },
    Entry {
        name: "cnn2d-gru",
        about: "three 2-D convolutions, two bidirectional GRU layers, mean over time, a dense layer",
        origin: XNAP,
        our_choice: "nothing",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 1292, 12],
        least: || least_for(recurrent::CNN2D_GRU.blocks),
        build: |site, dims, _| recurrent::boxed(site, dims, &recurrent::CNN2D_GRU),
    },
    Entry {
        name: "cnn2d-lstm",
        about: "three 2-D convolutions, two bidirectional LSTM layers, mean and maximum over time, a dense layer",
        origin: XNAP,
        our_choice: "nothing",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 1292, 12],
        least: || least_for(recurrent::CNN2D_LSTM.blocks),
        build: |site, dims, _| recurrent::boxed(site, dims, &recurrent::CNN2D_LSTM),
    },
    Entry {
        name: "genregenie-cnn",
        about: "three 2-D convolutions (he_normal, 32-64-128), a dense layer",
        origin: "document 001 (gtzan-segments)",
        our_choice: "3x3 windows with padding, ReLU behind batch norm, dense 128, dropout",
        needs: Needs::Spectrogram,
        channels: &[1, 3],
        document: [128, 130, 10],
        least: genregenie::least,
        build: |site, dims, model| Ok(Box::new(genregenie::GenreGenie::new(site, dims, model.channels)?)),
    },
    Entry {
        name: "crnn",
        about: "three 1-D convolutions, two LSTM layers, two linear layers",
        origin: "document 002 (fma-small), after ksanjeevan/crnn-audio-classification",
        our_choice: "widths 64-128-128 and dense 64; windows, ELU, LSTM 64 and dropout are those of the second",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 640, 8],
        least: || least_1d(recurrent::CRNN.blocks),
        build: |site, dims, _| recurrent::boxed(site, dims, &recurrent::CRNN),
    },
    Entry {
        name: "crnn-simple",
        about: "two 1-D convolutions, one LSTM layer",
        origin: DLNN,
        our_choice: "all widths (64-128, LSTM 64), windows, dropout",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 640, 8],
        least: || least_1d(recurrent::CRNN_SIMPLE.blocks),
        build: |site, dims, _| recurrent::boxed(site, dims, &recurrent::CRNN_SIMPLE),
    },
    Entry {
        name: "lstm",
        about: "two LSTM layers over frames, two linear layers",
        origin: DLNN,
        our_choice: "widths (LSTM 128, dense 64), two layers, dropout",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 640, 8],
        least: || least_1d(recurrent::LSTM.blocks),
        build: |site, dims, _| recurrent::boxed(site, dims, &recurrent::LSTM),
    },
    Entry {
        name: "cnn1d",
        about: "three 1-D convolutions, mean and maximum over time, two linear layers",
        origin: "document 002 (fma-small); pooling over time: its reference van den Oord et al. 2013",
        our_choice: "widths (128-128-256, dense 128), windows, dropout",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 640, 8],
        least: cnn::least_1d,
        build: |site, dims, _| Ok(Box::new(cnn::Cnn1d::new(site, dims)?)),
    },
    Entry {
        name: "mlp-4",
        about: "four hidden layers with batch norm, ReLU and dropout, on metadata",
        origin: DLNN,
        our_choice: "widths 512-256-128-64, dropout",
        needs: Needs::Metadata,
        channels: &[1],
        document: [1, 1, 8],
        least: || [0, 0],
        build: |site, dims, _| Ok(Box::new(mlp::Mlp::new(site, dims, &mlp::FOUR)?)),
    },
    Entry {
        name: "mlp-1",
        about: "one hidden layer with ReLU, on metadata",
        origin: DLNN,
        our_choice: "width 128",
        needs: Needs::Metadata,
        channels: &[1],
        document: [1, 1, 8],
        least: || [0, 0],
        build: |site, dims, _| Ok(Box::new(mlp::Mlp::new(site, dims, &mlp::ONE)?)),
    },
    Entry {
        name: "fusion",
        about: "1-D convolutions and an LSTM, beside metadata and embedded artist and album; a dense layer over all",
        origin: "document 002 (fma-small), its further work",
        our_choice: "branch as crnn-simple, embeddings of 16 (unknown: 0), dense 128, dropout",
        needs: Needs::All,
        channels: &[1],
        document: [128, 640, 8],
        least: || least_1d(recurrent::CRNN_SIMPLE.blocks),
        build: |site, dims, _| Ok(Box::new(fusion::Fusion::new(site, dims)?)),
    },
    Entry {
        name: "crnn-lstm64",
        about: "three 1-D convolutions, LSTM 64, a dense layer, dropout everywhere",
        origin: "document 003 (fma-windows)",
        our_choice: "widths (64-64-64, dense 64), windows, dropout; regularisation is optimizer.weight_decay",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 646, 8],
        least: || least_1d(recurrent::CRNN_LSTM64.blocks),
        build: |site, dims, _| recurrent::boxed(site, dims, &recurrent::CRNN_LSTM64),
    },
    Entry {
        name: "parallel-cnn-bigru",
        about: "2-D convolutions beside a bidirectional GRU 32, side by side into the head",
        origin: "document 003 (fma-windows), after Feng, Liu and Yao, arXiv:1712.08370",
        our_choice: "widths 16-32-64-64-64, batch norm, poolings, dropout",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 646, 8],
        least: parallel::least,
        build: |site, dims, _| Ok(Box::new(parallel::Parallel::new(site, dims)?)),
    },
    Entry {
        name: "resnet50",
        about: "He et al. 2016, with the stride in the 3x3 convolution; weights of torchvision fit",
        origin: "document 004 (gtzan-images)",
        our_choice: "the one channel three times over; with model.init scaled as ImageNet's pictures",
        needs: Needs::Spectrogram,
        channels: &[1, 3],
        document: [288, 432, 10],
        least: || [1, 1],
        build: |site, _, model| Ok(Box::new(resnet::ResNet50::new(site, model.init.is_some())?)),
    },
    Entry {
        name: "xception",
        about: "Chollet 2017; weights of timm's legacy_xception fit",
        origin: "document 004 (gtzan-images)",
        our_choice: "the one channel three times over; with model.init scaled as timm's pictures",
        needs: Needs::Spectrogram,
        channels: &[1, 3],
        document: [288, 432, 10],
        least: xception::least,
        build: |site, _, model| Ok(Box::new(xception::Xception::new(site, model.init.is_some())?)),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_is_answered_with_those_that_are_known() {
        let error = find("vgg").expect_err("no such model").to_string();
        assert!(error.contains("vgg") && error.contains("cnn2d, cnn1d-gru") && error.contains("xception"), "{error}");
    }
}
