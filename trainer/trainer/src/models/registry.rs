//! The table of architectures: description, origin, required inputs and constructor of each architecture.
//!
//! Each entry states which properties come from the document's text, which from its authors' repository, and which were
//! chosen in wavemill. A test compares the texts with the variables of the model, so that, for example, a convolution
//! without bias is always mentioned.

use wavemill_loader::Needs;
use wavemill_schemas::config;
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::text::did_you_mean;

use super::layers::VarScope;
use super::picture::AsPicture;
use super::sequence::{RowShape, Sequence, Sequential, StageArgs, least_1d, least_2d, widths};
use super::{
    BuiltBackbone, COLUMNS, Dims, ModelError, cnn, fusion, mlp, own, parallel, recurrent, resnet,
    xception,
};

/// Creates the backbone of an architecture in a scope of the variable store.
pub(crate) type BuildBackbone =
    dyn Fn(&Architecture, &VarScope<'_>, &Dims, &config::Model) -> BuiltBackbone + Sync;

pub(crate) struct Architecture {
    /// Name of the architecture, as in `model.name`.
    pub name: &'static str,
    /// One-line description of the architecture.
    pub about: &'static str,
    /// The document that describes the architecture, and the work that the document followed.
    pub origin: &'static str,
    /// Properties of the architecture that the document's text gives.
    pub text: &'static str,
    /// Properties taken from code that was published by the document's authors or by those whose work they followed.
    pub repository: &'static str,
    /// Properties that neither document nor code gives, or that differ from them.
    pub our_choice: &'static str,
    pub needs: Needs,
    /// Values of `model.channels` that the architecture supports.
    pub channels: &'static [i64],
    /// Numbers of bands, frames and classes used in the document.
    pub document: [i64; 3],
    /// The stages over a row, or over the spectrogram if there are other inputs; empty for published networks, whose
    /// layers are fixed.
    pub stages: &'static [StageArgs],
    /// Stages in parallel with `stages`, or after them and the other inputs.
    pub other_stages: &'static [StageArgs],
    /// Returns the minimum number of bands and frames of a row that passes through `stages`.
    pub least: fn(&[StageArgs]) -> [i64; 2],
    pub build: &'static BuildBackbone,
}

/// Creates the backbone of an architecture that is one sequence of stages.
fn sequence(
    of: &Architecture,
    scope: &VarScope<'_>,
    dims: &Dims,
    model: &config::Model,
) -> BuiltBackbone {
    // The number of channels of a picture overrides `model.channels`.
    let channels = dims.channels.unwrap_or(model.channels);
    let reads_metadata = of.needs == Needs::Metadata;
    let mut shape = match reads_metadata {
        true => RowShape::vector(dims.metadata),
        false if of.takes_pictures() => RowShape::picture(dims, channels),
        false => RowShape::spectrogram(dims),
    };
    let stages = Sequence::new(scope, &mut shape, of.stages)?;
    let width = shape.values();
    if !of.takes_pictures() {
        return Ok((Sequential::of_rows(reads_metadata, stages), width));
    }
    let scale = None;
    let picture = AsPicture { channels, scale };
    Ok((Sequential::of_pictures(picture, stages), width))
}

impl Architecture {
    /// Returns the inputs that the architecture reads from a store if `feature` is selected. A feature of statistics is
    /// used as metadata itself, instead of the columns in `data.metadata`.
    pub(crate) fn reads(&self, feature: &FeatureEntry) -> Needs {
        if self.needs == Needs::Metadata && feature.is_vector() {
            Needs::Spectrogram
        } else {
            self.needs
        }
    }

    /// Returns the minimum number of bands and frames of a row.
    pub(crate) fn least(&self) -> [i64; 2] {
        (self.least)(self.stages)
    }

    /// Returns the numbers of filters of the convolutions, and the sizes of the hidden layers, in the order of the
    /// layers.
    pub(crate) fn widths(&self) -> [Vec<i64>; 2] {
        widths(self.stages.iter().chain(self.other_stages))
    }

    /// Checks that `model.filters` and `model.hidden` have a number for each layer, if they are not empty.
    fn check_widths(&self, model: &config::Model) -> Result<(), ModelError> {
        let [filters, hidden] = self.widths();
        for (key, found, own, layer) in [
            ("model.filters", &model.filters, filters, "convolution"),
            ("model.hidden", &model.hidden, hidden, "hidden layer"),
        ] {
            if found.is_empty() || found.len() == own.len() {
                continue;
            }
            let wanted = match own.len() {
                0 => format!("has no {layer} whose size can be set; leave {key} out"),
                n => format!("takes one number per {layer}, {n} in all; the default is {own:?}"),
            };
            let message = format!("{key} = {found:?}: {} {wanted}", self.name);
            return Err(ModelError::unfit(message));
        }
        Ok(())
    }

    /// Reports whether the architecture accepts pictures. Only networks designed for pictures accept three channels.
    fn takes_pictures(&self) -> bool {
        self.channels.contains(&3)
    }

    /// Checks whether rows with the dimensions `dims` and the configuration `model` fit the architecture.
    ///
    /// # Errors
    /// [`ModelError::TooSmall`] if rows have too few bands or frames; otherwise [`ModelError::Unfit`].
    pub(crate) fn check(&self, model: &config::Model, dims: &Dims) -> Result<(), ModelError> {
        if dims.heads.is_empty() || dims.heads.iter().any(|&(_, classes)| classes < 1) {
            return Err(ModelError::unfit(format!(
                "data.targets = {:?}: at least one target, each with at least one class",
                dims.heads
            )));
        }

        if !self.channels.contains(&model.channels) {
            let allowed: Vec<String> = self.channels.iter().map(i64::to_string).collect();
            return Err(ModelError::unfit(format!(
                "model.channels = {}: must be a whole number; {} takes {}",
                model.channels,
                self.name,
                allowed.join(" or ")
            )));
        }

        self.check_widths(model)?;

        // Dropout divides the kept values by 1 − rate, so a rate of 1 is undefined.
        if let Some(share) = model.dropout.filter(|share| !(0.0..1.0).contains(share)) {
            return Err(ModelError::unfit(format!(
                "model.dropout = {share}: must be from 0 to below 1, or absent"
            )));
        }

        // A frozen backbone with random weights would never be trained.
        if model.freeze && model.init.is_none() {
            return Err(ModelError::unfit(
                "model.freeze = true: only with model.init, because random weights must be trained",
            ));
        }

        if self.needs.metadata() && dims.metadata < 1 {
            return Err(self.needs_input(COLUMNS));
        }

        // The minimum numbers of bands and frames do not apply to models without a spectrogram.
        if !self.needs.spectrogram() {
            return Ok(());
        }

        if dims.bands == 0 && dims.frames == 0 {
            return Err(self.needs_input(
                "a spectrogram, but the feature contains statistics or samples: set data.feature to another feature",
            ));
        }
        if dims.channels.is_some() && !self.takes_pictures() {
            return Err(self.needs_input(
                "a spectrogram, but the feature is a picture: set data.feature to another feature",
            ));
        }

        let [bands, frames] = self.least();
        for (axis, found, least) in [
            ("bands", dims.bands, bands),
            ("frames", dims.frames, frames),
        ] {
            if found < least {
                return Err(ModelError::TooSmall {
                    model: self.name,
                    axis,
                    found,
                    least,
                });
            }
        }
        Ok(())
    }

    fn needs_input(&self, what: &str) -> ModelError {
        ModelError::unfit(format!("{} needs {what}", self.name))
    }
}

/// Returns the architecture with the given name.
///
/// # Errors
/// [`ModelError::Unfit`] if the name is unknown; the message names a similar one, or else all.
pub(crate) fn find(name: &str) -> Result<&'static Architecture, ModelError> {
    let found = own::all().find(|architecture| architecture.name == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = own::all().map(|architecture| architecture.name).collect();
        let remedy = did_you_mean(name, &known, "available models");
        ModelError::unfit(format!("model.name = {name}: unknown{remedy}"))
    })
}

/// One of the architectures of `fma-large`; the others have its values in common.
const CNN1D_GRU: Architecture = Architecture {
    name: "cnn1d-gru",
    about: "three 1-D convolutions, two bidirectional GRU layers, mean over time, a dense layer",
    origin: "Music Genre Classification (UAB, 2025), fma-large",
    text: "convolutions in one or two dimensions, GRU and LSTM; no sizes",
    repository: "models/CNNGRU1d.py: layers, windows, batch norm, summary, torch's default \
        initialisation; width 128 and dropout 0.4 are its defaults",
    our_choice: "convolutions without bias, because the batch norm after each one removes any bias",
    document: [128, 1292, 12],
    stages: recurrent::CNN1D_GRU,
    ..CRNN_SIMPLE
};

/// The simplest architecture of `fma-small` for spectrograms; most others have some of its values in common.
const CRNN_SIMPLE: Architecture = Architecture {
    name: "crnn-simple",
    about: "two 1-D convolutions, one LSTM layer",
    origin: "SimpleClassifier of Music Genre Recognition (UAB, 2023), fma-small",
    text: "a simpler version of crnn",
    repository: "nothing is taken from it",
    our_choice: "two convolutions of 64 and 128 with windows of 3 and padding, without bias, each with \
        batch norm, ReLU, pooling by 4 and dropout 0.2; one layer of LSTM 64, its last state, no \
        dense layer",
    needs: Needs::Spectrogram,
    channels: &[1],
    document: [128, 640, 8],
    stages: recurrent::CRNN_SIMPLE,
    other_stages: &[],
    least: least_1d,
    build: &sequence,
};

/// The simplest architecture for metadata; the others have its values in common.
const MLP_1: Architecture = Architecture {
    name: "mlp-1",
    about: "one hidden layer with ReLU, on metadata",
    origin: "Music Genre Recognition (UAB, 2023), fma-small",
    text: "one hidden layer with ReLU, on the MFCC columns of the metadata",
    our_choice: "width 128; columns standardised to mean 0 and standard deviation 1",
    needs: Needs::Metadata,
    document: [1, 1, 8],
    stages: mlp::ONE,
    least: |_| [0, 0],
    ..CRNN_SIMPLE
};

/// A published network; the other one has its values in common.
const RESNET50: Architecture = Architecture {
    name: "resnet50",
    about: "He et al. 2016, with the stride in the 3x3 convolution; weights of torchvision fit",
    origin: "Music Genre Classification in Pytorch, gtzan-images; He et al. 2016, as torchvision has it",
    text: "ResNet-50; nothing of its layers",
    repository: "colour pictures of 224 x 224; torchvision's network: stride in the 3x3 convolution, \
        convolutions without bias, batch norm, its names and initialisation",
    our_choice: "the single channel repeated three times, in any size; with model.init scaled as \
        ImageNet's pictures; no dropout unless model.dropout is set (then before the head)",
    channels: &[1, 3],
    document: [288, 432, 10],
    stages: &[],
    least: |_| [1, 1],
    build: &|_, scope, _, model| resnet::resnet50(scope, model.init.is_some()),
    ..CRNN_SIMPLE
};

/// The architectures of wavemill, in the order of the documents that describe them.
pub(crate) const TABLE: &[Architecture] = &[
    Architecture {
        name: "cnn2d",
        about: "three 2-D convolutions, two dense layers",
        repository: "models/CNN.py: layers, widths, windows, poolings, batch norm, dropout, torch's \
            default initialisation",
        our_choice: "convolutions without bias, because the batch norm after each one removes any bias; \
            bands before frames when values are flattened; rows of other shapes than 128 x 1292",
        stages: cnn::CNN2D,
        least: least_2d,
        ..CNN1D_GRU
    },
    CNN1D_GRU,
    Architecture {
        name: "cnn1d-lstm",
        about: "three 1-D convolutions, two bidirectional LSTM layers, mean and maximum over time, a dense layer",
        repository: "models/CNNLSTM1d.py: layers, windows, batch norm, summary, torch's default \
            initialisation; width 128, dropout 0.4 and 0.3 are its defaults",
        stages: recurrent::CNN1D_LSTM,
        ..CNN1D_GRU
    },
    Architecture {
        name: "cnn2d-gru",
        about: "three 2-D convolutions, two bidirectional GRU layers, mean over time, a dense layer",
        repository: "models/CNNGRU2d.py: layers, windows, batch norm, summary, torch's default \
            initialisation; width 128 and dropout 0.4 are its defaults (its last main.py runs it with 64 \
            and 0.3)",
        stages: recurrent::CNN2D_GRU,
        least: least_2d,
        ..CNN1D_GRU
    },
    Architecture {
        name: "cnn2d-lstm",
        about: "three 2-D convolutions, two bidirectional LSTM layers, mean and maximum over time, a dense layer",
        repository: "models/CNNLSTM2d.py: layers, windows, batch norm, summary, torch's default \
            initialisation; width 64, LSTM 128, dropout 0.4 and 0.3 are its defaults",
        stages: recurrent::CNN2D_LSTM,
        least: least_2d,
        ..CNN1D_GRU
    },
    Architecture {
        name: "genregenie-cnn",
        about: "three 2-D convolutions (he_normal, 32-64-128), a dense layer",
        origin: "GenreGenie, gtzan-segments",
        text: "three blocks of convolution (he_normal), max pooling by half, batch norm and dropout in \
            this order, from 32 to 128 filters, on a colour picture 128 x 130; dense layers",
        our_choice: "64 filters in the middle; 3x3 windows with padding; ReLU after batch norm, hence \
            convolutions without bias; dropout 0.25 and 0.5; one dense layer of 128; model.channels=3 \
            repeats the single channel of a spectrogram three times, without colours",
        channels: &[1, 3],
        document: [128, 130, 10],
        stages: cnn::GENREGENIE,
        least: least_2d,
        ..CRNN_SIMPLE
    },
    Architecture {
        name: "crnn",
        about: "three 1-D convolutions, two LSTM layers, two linear layers",
        origin: "GenreClassifier of Music Genre Recognition (UAB, 2023), fma-small; after ksanjeevan/crnn-audio-classification",
        text: "1-D convolutions, LSTM and linear layers, inspired by that repository",
        repository: "of the second: 3x3 windows without padding, poolings by 3, 4, 4, ELU, batch norm, \
            dropout 0.1 and 0.3, LSTM 64 in two layers. That one has two dimensions, widths 32-64-64 and \
            both directions",
        our_choice: "one dimension with widths 64-128-128; one direction; a dense layer of 64 with ReLU and \
            dropout 0.3; convolutions without bias",
        stages: recurrent::CRNN,
        ..CRNN_SIMPLE
    },
    CRNN_SIMPLE,
    Architecture {
        name: "lstm",
        about: "two LSTM layers over frames, two linear layers",
        origin: "SimpleClassifier_RNN of Music Genre Recognition (UAB, 2023), fma-small",
        text: "LSTM followed by linear layers",
        our_choice: "two layers of LSTM 128 with dropout 0.3 between them; the last state; one dense layer of \
            64 with ReLU and dropout 0.3",
        stages: recurrent::LSTM,
        ..CRNN_SIMPLE
    },
    Architecture {
        name: "cnn1d",
        about: "three 1-D convolutions, mean and maximum over time, two linear layers",
        origin: "SimpleClassifier_CNN of Music Genre Recognition (UAB, 2023), fma-small",
        text: "1-D convolutions followed by linear layers; van den Oord et al. 2013 is among its \
            references",
        our_choice: "widths 128-128-256, windows of 5 with padding, without bias, batch norm, ReLU, pooling \
            by 4, dropout 0.2; mean and maximum over time as in that reference; dense 128 with \
            dropout 0.3",
        stages: cnn::CNN1D,
        ..CRNN_SIMPLE
    },
    Architecture {
        name: "mlp-4",
        about: "four hidden layers with batch norm, ReLU and dropout, on metadata",
        text: "four hidden layers, batch norm, dropout and ReLU, on the MFCC columns of the metadata",
        our_choice: "widths 512-256-128-64; batch norm before ReLU, hence dense layers without bias; \
            dropout 0.3; columns standardised to mean 0 and standard deviation 1",
        stages: mlp::FOUR,
        ..MLP_1
    },
    MLP_1,
    Architecture {
        name: "linear-probe",
        about: "a linear layer on vectors: logistic regression of embeddings",
        origin: "linear probing, as in MARBLE (Yuan et al., 2023)",
        text: "a linear classifier on the vectors of a network that is not trained",
        our_choice: "columns standardised to mean 0 and standard deviation 1",
        document: [1, 1, 10],
        stages: mlp::LINEAR_PROBE,
        ..MLP_1
    },
    Architecture {
        name: "mlp-probe",
        about: "one hidden layer of 512 with ReLU and dropout, on vectors",
        origin: "MARBLE (Yuan et al., 2023)",
        text: "a multi-layer perceptron with one hidden layer on the vectors of a network that is not trained",
        repository: "benchmark/tasks/GTZAN/GTZAN_base_config.yaml of MARBLE-Benchmark: width 512, dropout \
            0.2; benchmark/models/probers.py: ReLU before dropout",
        our_choice: "columns standardised to mean 0 and standard deviation 1",
        document: [1, 1, 10],
        stages: mlp::MLP_PROBE,
        ..MLP_1
    },
    Architecture {
        name: "fusion",
        about: "1-D convolutions and an LSTM, concatenated with metadata and embedded artist and album; a dense layer \
                on top",
        origin: "Music Genre Recognition (UAB, 2023), fma-small: its further work, which was not finished there",
        text: "LSTM, or CNN and LSTM, on the spectrogram, side by side with the metadata before the \
            linear layers; artist and album label-encoded and embedded",
        our_choice: "the branch is crnn-simple (batch norm, convolutions without bias); embeddings of 16, 0 \
            for the unknown; one dense layer of 128 with ReLU and dropout 0.3",
        needs: Needs::All,
        other_stages: fusion::TOP,
        build: &|_, scope, dims, _| fusion::Fusion::build(scope, dims),
        ..CRNN_SIMPLE
    },
    Architecture {
        name: "crnn-lstm64",
        about: "three 1-D convolutions, LSTM 64, a dense layer, dropout everywhere",
        origin: "Clasificación de género musical con Deep Learning, fma-windows",
        text: "1-D convolutions with LSTM 64; dropout and regularisation in all layers",
        our_choice: "three convolutions of 64 with windows of 5 and padding, without bias, batch norm, ReLU, \
            pooling by 2; the last state; dense 64; dropout 0.4 everywhere; regularisation is \
            optimizer.weight_decay",
        document: [128, 646, 8],
        stages: recurrent::CRNN_LSTM64,
        ..CRNN_SIMPLE
    },
    Architecture {
        name: "parallel-cnn-bigru",
        about: "2-D convolutions and a bidirectional GRU 32 in parallel, concatenated for the head",
        origin: "Clasificación de género musical con Deep Learning, fma-windows; after Feng, Liu and Yao, arXiv:1712.08370",
        text: "2-D convolutions in parallel with a bidirectional GRU of 32",
        repository: "nothing is taken from it; five convolutions in parallel with the GRU are the paper's",
        our_choice: "widths 16-32-64-64-64, 3x3 windows with padding, without bias, batch norm, ReLU; \
            poolings by 2, the last one by 2 x 4; the GRU reads the maximum over 2 bands x 4 frames and \
            passes on its last states; dropout 0.2 before the head",
        document: [128, 646, 8],
        stages: parallel::STAGES,
        other_stages: parallel::RECURRENT,
        least: least_2d,
        build: &|_, scope, dims, _| parallel::Parallel::build(scope, dims),
        ..CRNN_SIMPLE
    },
    RESNET50,
    Architecture {
        name: "xception",
        about: "Chollet 2017; weights of timm's legacy_xception fit",
        origin: "Music Genre Classification in Pytorch, gtzan-images; Chollet 2017, as timm's legacy_xception has it",
        text: "Xception; nothing of its layers",
        repository: "colour pictures of 224 x 224; timm's network: convolutions without bias, batch \
            norm, its names and initialisation",
        our_choice: "the single channel repeated three times, in any size from 7 x 7; with model.init \
            scaled as timm's pictures; no dropout unless model.dropout is set (then before the head)",
        least: |_| xception::least(),
        build: &|_, scope, _, model| xception::xception(scope, model.init.is_some()),
        ..RESNET50
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_name_error_lists_architectures() {
        let error = find("vgg")
            .map(|found| found.name)
            .expect_err("no such model")
            .to_string();
        assert!(
            error.contains("vgg")
                && error.contains("cnn2d, cnn1d-gru")
                && error.contains("xception"),
            "{error}"
        );
    }
}
