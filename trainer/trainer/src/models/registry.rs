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
use super::sequence::{RowShape, Sequential, least_1d, least_2d};
use super::{
    Backbone, COLUMNS, Dims, ModelError, cnn, fusion, mlp, own, parallel, recurrent, resnet,
    xception,
};

/// Creates the backbone of an architecture in a scope of the variable store.
pub(crate) type BuildBackbone =
    dyn Fn(&VarScope<'_>, &Dims, &config::Model) -> Result<Box<dyn Backbone>, ModelError> + Sync;

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
    /// Returns the minimum number of bands and frames of a row.
    pub least: fn() -> [i64; 2],
    pub build: &'static BuildBackbone,
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

        let [bands, frames] = (self.least)();
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

/// One of the architectures of document 000; the others have its values in common.
const CNN1D_GRU: Architecture = Architecture {
    name: "cnn1d-gru",
    about: "three 1-D convolutions, two bidirectional GRU layers, mean over time, a dense layer",
    origin: "document 000 (fma-large)",
    text: "convolutions in one or two dimensions, GRU and LSTM; no sizes",
    repository: "models/CNNGRU1d.py: layers, windows, batch norm, summary, torch's default \
        initialisation; width 128 and dropout 0.4 are its defaults",
    our_choice: "convolutions without bias, because the batch norm after each one removes any bias",
    needs: Needs::Spectrogram,
    channels: &[1],
    document: [128, 1292, 12],
    least: || least_1d(recurrent::CNN1D_GRU.stages),
    build: &|scope, dims, _| recurrent::boxed(scope, dims, &recurrent::CNN1D_GRU),
};

/// The simplest architecture of document 002 for spectrograms; the others have its values in common.
const CRNN_SIMPLE: Architecture = Architecture {
    name: "crnn-simple",
    about: "two 1-D convolutions, one LSTM layer",
    origin: "document 002 (fma-small)",
    text: "a simpler version of crnn",
    repository: "nothing is taken from it",
    our_choice: "two convolutions of 64 and 128 with windows of 3 and padding, without bias, each with \
        batch norm, ReLU, pooling by 4 and dropout 0.2; one layer of LSTM 64, its last state, no \
        dense layer",
    needs: Needs::Spectrogram,
    channels: &[1],
    document: [128, 640, 8],
    least: || least_1d(recurrent::CRNN_SIMPLE.stages),
    build: &|scope, dims, _| recurrent::boxed(scope, dims, &recurrent::CRNN_SIMPLE),
};

/// The simplest architecture for metadata; the others have its values in common.
const MLP_1: Architecture = Architecture {
    name: "mlp-1",
    about: "one hidden layer with ReLU, on metadata",
    origin: "document 002 (fma-small)",
    text: "one hidden layer with ReLU, on the MFCC columns of the metadata",
    repository: "nothing is taken from it",
    our_choice: "width 128; columns standardised to mean 0 and standard deviation 1",
    needs: Needs::Metadata,
    channels: &[1],
    document: [1, 1, 8],
    least: || [0, 0],
    build: &|scope, dims, _| Sequential::of_rows(scope, RowShape::vector(dims.metadata), mlp::ONE),
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
        least: || least_2d(cnn::CNN2D),
        build: &|scope, dims, _| {
            Sequential::of_rows(scope, RowShape::spectrogram(dims), cnn::CNN2D)
        },
        ..CNN1D_GRU
    },
    CNN1D_GRU,
    Architecture {
        name: "cnn1d-lstm",
        about: "three 1-D convolutions, two bidirectional LSTM layers, mean and maximum over time, a dense layer",
        repository: "models/CNNLSTM1d.py: layers, windows, batch norm, summary, torch's default \
            initialisation; width 128, dropout 0.4 and 0.3 are its defaults",
        least: || least_1d(recurrent::CNN1D_LSTM.stages),
        build: &|scope, dims, _| recurrent::boxed(scope, dims, &recurrent::CNN1D_LSTM),
        ..CNN1D_GRU
    },
    Architecture {
        name: "cnn2d-gru",
        about: "three 2-D convolutions, two bidirectional GRU layers, mean over time, a dense layer",
        repository: "models/CNNGRU2d.py: layers, windows, batch norm, summary, torch's default \
            initialisation; width 128 and dropout 0.4 are its defaults (its last main.py runs it with 64 \
            and 0.3)",
        least: || least_2d(recurrent::CNN2D_GRU.stages),
        build: &|scope, dims, _| recurrent::boxed(scope, dims, &recurrent::CNN2D_GRU),
        ..CNN1D_GRU
    },
    Architecture {
        name: "cnn2d-lstm",
        about: "three 2-D convolutions, two bidirectional LSTM layers, mean and maximum over time, a dense layer",
        repository: "models/CNNLSTM2d.py: layers, windows, batch norm, summary, torch's default \
            initialisation; width 64, LSTM 128, dropout 0.4 and 0.3 are its defaults",
        least: || least_2d(recurrent::CNN2D_LSTM.stages),
        build: &|scope, dims, _| recurrent::boxed(scope, dims, &recurrent::CNN2D_LSTM),
        ..CNN1D_GRU
    },
    Architecture {
        name: "genregenie-cnn",
        about: "three 2-D convolutions (he_normal, 32-64-128), a dense layer",
        origin: "document 001 (gtzan-segments)",
        text: "three blocks of convolution (he_normal), max pooling by half, batch norm and dropout in \
            this order, from 32 to 128 filters, on a colour picture 128 x 130; dense layers",
        repository: "nothing is taken from it",
        our_choice: "64 filters in the middle; 3x3 windows with padding; ReLU after batch norm, hence \
            convolutions without bias; dropout 0.25 and 0.5; one dense layer of 128; model.channels=3 \
            repeats the single channel of a spectrogram three times, without colours",
        needs: Needs::Spectrogram,
        channels: &[1, 3],
        document: [128, 130, 10],
        least: || least_2d(cnn::GENREGENIE),
        build: &|scope, dims, model| {
            // The number of channels of a picture overrides `model.channels`.
            cnn::genregenie(scope, dims, dims.channels.unwrap_or(model.channels))
        },
    },
    Architecture {
        name: "crnn",
        about: "three 1-D convolutions, two LSTM layers, two linear layers",
        origin: "document 002 (fma-small), after ksanjeevan/crnn-audio-classification",
        text: "1-D convolutions, LSTM and linear layers, inspired by that repository",
        repository: "of the second: 3x3 windows without padding, poolings by 3, 4, 4, ELU, batch norm, \
            dropout 0.1 and 0.3, LSTM 64 in two layers. That one has two dimensions, widths 32-64-64 and \
            both directions",
        our_choice: "one dimension with widths 64-128-128; one direction; a dense layer of 64 with ReLU and \
            dropout 0.3; convolutions without bias",
        least: || least_1d(recurrent::CRNN.stages),
        build: &|scope, dims, _| recurrent::boxed(scope, dims, &recurrent::CRNN),
        ..CRNN_SIMPLE
    },
    CRNN_SIMPLE,
    Architecture {
        name: "lstm",
        about: "two LSTM layers over frames, two linear layers",
        text: "LSTM followed by linear layers",
        our_choice: "two layers of LSTM 128 with dropout 0.3 between them; the last state; one dense layer of \
            64 with ReLU and dropout 0.3",
        least: || least_1d(recurrent::LSTM.stages),
        build: &|scope, dims, _| recurrent::boxed(scope, dims, &recurrent::LSTM),
        ..CRNN_SIMPLE
    },
    Architecture {
        name: "cnn1d",
        about: "three 1-D convolutions, mean and maximum over time, two linear layers",
        text: "1-D convolutions followed by linear layers; van den Oord et al. 2013 is among its \
            references",
        our_choice: "widths 128-128-256, windows of 5 with padding, without bias, batch norm, ReLU, pooling \
            by 4, dropout 0.2; mean and maximum over time as in that reference; dense 128 with \
            dropout 0.3",
        least: || least_1d(cnn::CNN1D),
        build: &|scope, dims, _| {
            Sequential::of_rows(scope, RowShape::spectrogram(dims), cnn::CNN1D)
        },
        ..CRNN_SIMPLE
    },
    Architecture {
        name: "mlp-4",
        about: "four hidden layers with batch norm, ReLU and dropout, on metadata",
        text: "four hidden layers, batch norm, dropout and ReLU, on the MFCC columns of the metadata",
        our_choice: "widths 512-256-128-64; batch norm before ReLU, hence dense layers without bias; \
            dropout 0.3; columns standardised to mean 0 and standard deviation 1",
        build: &|scope, dims, _| {
            Sequential::of_rows(scope, RowShape::vector(dims.metadata), mlp::FOUR)
        },
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
        build: &|scope, dims, _| {
            Sequential::of_rows(scope, RowShape::vector(dims.metadata), mlp::LINEAR_PROBE)
        },
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
        build: &|scope, dims, _| {
            Sequential::of_rows(scope, RowShape::vector(dims.metadata), mlp::MLP_PROBE)
        },
        ..MLP_1
    },
    Architecture {
        name: "fusion",
        about: "1-D convolutions and an LSTM, concatenated with metadata and embedded artist and album; a dense layer \
                on top",
        origin: "document 002 (fma-small), its further work, which was not finished there",
        text: "LSTM, or CNN and LSTM, on the spectrogram, side by side with the metadata before the \
            linear layers; artist and album label-encoded and embedded",
        our_choice: "the branch is crnn-simple (batch norm, convolutions without bias); embeddings of 16, 0 \
            for the unknown; one dense layer of 128 with ReLU and dropout 0.3",
        needs: Needs::All,
        least: || least_1d(recurrent::CRNN_SIMPLE.stages),
        build: &|scope, dims, _| Ok(Box::new(fusion::Fusion::new(scope, dims)?)),
        ..CRNN_SIMPLE
    },
    Architecture {
        name: "crnn-lstm64",
        about: "three 1-D convolutions, LSTM 64, a dense layer, dropout everywhere",
        origin: "document 003 (fma-windows)",
        text: "1-D convolutions with LSTM 64; dropout and regularisation in all layers",
        repository: "nothing is taken from it",
        our_choice: "three convolutions of 64 with windows of 5 and padding, without bias, batch norm, ReLU, \
            pooling by 2; the last state; dense 64; dropout 0.4 everywhere; regularisation is \
            optimizer.weight_decay",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 646, 8],
        least: || least_1d(recurrent::CRNN_LSTM64.stages),
        build: &|scope, dims, _| recurrent::boxed(scope, dims, &recurrent::CRNN_LSTM64),
    },
    Architecture {
        name: "parallel-cnn-bigru",
        about: "2-D convolutions and a bidirectional GRU 32 in parallel, concatenated for the head",
        origin: "document 003 (fma-windows), after Feng, Liu and Yao, arXiv:1712.08370",
        text: "2-D convolutions in parallel with a bidirectional GRU of 32",
        repository: "nothing is taken from it; five convolutions in parallel with the GRU are the paper's",
        our_choice: "widths 16-32-64-64-64, 3x3 windows with padding, without bias, batch norm, ReLU; \
            poolings by 2, the last one by 2 x 4; the GRU reads the maximum over 2 bands x 4 frames and \
            passes on its last states; dropout 0.2 before the head",
        needs: Needs::Spectrogram,
        channels: &[1],
        document: [128, 646, 8],
        least: || least_2d(parallel::STAGES),
        build: &|scope, dims, _| Ok(Box::new(parallel::Parallel::new(scope, dims)?)),
    },
    Architecture {
        name: "resnet50",
        about: "He et al. 2016, with the stride in the 3x3 convolution; weights of torchvision fit",
        origin: "document 004 (gtzan-images); He et al. 2016, as torchvision has it",
        text: "ResNet-50; nothing of its layers",
        repository: "colour pictures of 224 x 224; torchvision's network: stride in the 3x3 convolution, \
            convolutions without bias, batch norm, its names and initialisation",
        our_choice: "the single channel repeated three times, in any size; with model.init scaled as \
            ImageNet's pictures; no dropout unless model.dropout is set (then before the head)",
        needs: Needs::Spectrogram,
        channels: &[1, 3],
        document: [288, 432, 10],
        least: || [1, 1],
        build: &|scope, _, model| resnet::resnet50(scope, model.init.is_some()),
    },
    Architecture {
        name: "xception",
        about: "Chollet 2017; weights of timm's legacy_xception fit",
        origin: "document 004 (gtzan-images); Chollet 2017, as timm's legacy_xception has it",
        text: "Xception; nothing of its layers",
        repository: "colour pictures of 224 x 224; timm's network: convolutions without bias, batch \
            norm, its names and initialisation",
        our_choice: "the single channel repeated three times, in any size from 7 x 7; with model.init \
            scaled as timm's pictures; no dropout unless model.dropout is set (then before the head)",
        needs: Needs::Spectrogram,
        channels: &[1, 3],
        document: [288, 432, 10],
        least: xception::least,
        build: &|scope, _, model| xception::xception(scope, model.init.is_some()),
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
