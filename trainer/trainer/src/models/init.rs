//! Loads initial weights from a file that uses the variable names of torchvision and timm (or of wavemill's models).
//!
//! Except for the heads, the file must contain every variable of the model with the right shape, and no others:
//! otherwise weights of a deeper network of the same family, which has all names of the model, would be accepted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::nn::VarStore;
use tch::{TchError, Tensor};
use wavemill_schemas::exit::PlainError;

use super::{ModelError, is_head};

/// Origin of a model's initial weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// All weights were drawn at random.
    #[default]
    Scratch,
    /// Weights were read from a file, except for the heads, which were drawn at random.
    Pretrained {
        file: PathBuf,
        /// Number of tensors copied from the file.
        tensors: usize,
    },
}

/// Shows the weight file's name without its folder, because results contain this text and must not contain paths.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scratch => f.write_str("from scratch"),
            Self::Pretrained { file, tensors } => {
                let name = file.file_name().unwrap_or(file.as_os_str());
                write!(f, "from {} ({tensors} tensors)", name.to_string_lossy())
            }
        }
    }
}

/// Maximum number of differing tensors listed in an error message.
const LISTED_MAX: usize = 5;

/// File name extensions under which PyTorch weights are published as pickles.
const PICKLED: [&str; 5] = ["pth", "pt", "ckpt", "bin", "pkl"];

/// Checks by the first bytes of `file` whether it may be a safetensors file. PyTorch pickles get a separate error.
///
/// # Errors
/// [`ModelError::Unfit`] if the file cannot be read, or is a pickle.
pub(crate) fn check_form(file: &Path) -> Result<(), ModelError> {
    let mut first = Vec::new();
    let read = File::open(file).and_then(|opened| opened.take(9).read_to_end(&mut first));
    read.map_err(|error| unreadable(file, error.into()))?;

    // A safetensors file starts with the header's length in eight bytes, followed by the header's opening brace.
    let is_safetensors = first.get(8) == Some(&b'{');
    let is_pickle =
        first.starts_with(b"PK\x03\x04") || matches!(first.first_chunk::<2>(), Some([0x80, 2..=5]));
    let is_named_so = file
        .extension()
        .is_some_and(|suffix| PICKLED.iter().any(|known| suffix == *known));

    // A pickle is never loaded, because that can execute code; the error names the command that converts it.
    // Safetensors files with a pickle's extension are accepted.
    if !is_safetensors && (is_pickle || is_named_so) {
        return Err(ModelError::unfit(format!(
            "model.init = {}: a PyTorch pickle, which is not supported because loading it can execute code: convert it \
             to safetensors with scripts/convert_weights.py {0} {}",
            file.display(),
            file.with_extension("safetensors").display()
        )));
    }
    Ok(())
}

/// Copies the weights in the safetensors file `file` into `store`, except for those of the heads. A leading `module.`
/// is removed from keys; `num_batches_tracked` and the file's own head (`fc.…`) are ignored. Values are converted to
/// the kind and device of the store.
///
/// # Errors
/// The errors of [`check_form`]; [`ModelError::Unfit`] if tensors do not match, before any copy; [`ModelError::Torch`].
pub(crate) fn load(file: &Path, store: &VarStore) -> Result<Origin, ModelError> {
    check_form(file)?;
    let read = Tensor::read_safetensors(file).map_err(|error| unreadable(file, error))?;

    // Published files contain the prefix of PyTorch's wrapper for several devices, counters of batches that are not
    // used here, and a head for other classes.
    let mut given: BTreeMap<String, Tensor> = BTreeMap::new();
    for (key, tensor) in read {
        let key = key.strip_prefix("module.").unwrap_or(&key);
        if !is_head(key) && !key.ends_with("num_batches_tracked") {
            given.insert(key.to_owned(), tensor);
        }
    }
    let wanted: BTreeMap<String, Tensor> = store
        .variables()
        .into_iter()
        .filter(|(key, _)| !is_head(key))
        .collect();

    // All keys of file and model are compared before any copy, so a file that does not fit changes no weights.
    let keys: BTreeSet<&String> = wanted.keys().chain(given.keys()).collect();
    let faults: Vec<String> = keys
        .into_iter()
        .filter_map(|key| fault(key, given.get(key), wanted.get(key)))
        .collect();
    if !faults.is_empty() {
        let listed = faults[..faults.len().min(LISTED_MAX)].join(", ");
        return Err(ModelError::unfit(format!(
            "model.init = {} does not match the model in {} tensors: {listed}",
            file.display(),
            faults.len()
        )));
    }

    tch::no_grad(|| {
        wanted
            .iter()
            .try_for_each(|(key, tensor)| tensor.shallow_clone().f_copy_(&given[key]))
    })?;

    Ok(Origin::Pretrained {
        file: file.to_owned(),
        tensors: wanted.len(),
    })
}

/// Creates the error for a file of initial weights that cannot be read.
fn unreadable(file: &Path, error: TchError) -> PlainError {
    let file = file.display();
    PlainError::usage(format!(
        "model.init = {file}: cannot be read as safetensors"
    ))
    .caused_by(error)
}

fn fault(key: &str, given: Option<&Tensor>, wanted: Option<&Tensor>) -> Option<String> {
    match (given.map(Tensor::size), wanted.map(Tensor::size)) {
        (Some(given), Some(wanted)) if given != wanted => {
            Some(format!("{key} is {given:?} instead of {wanted:?}"))
        }
        (None, Some(_)) => Some(format!("{key} is missing")),
        (Some(_), None) => Some(format!("{key} does not belong to this model")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};
    use wavemill_schemas::config;

    use super::*;
    use crate::models::{Dims, Inputs, Net};

    fn dims(classes: i64) -> Dims {
        let heads = vec![("genre".to_owned(), classes)];
        Dims {
            bands: 32,
            frames: 48,
            channels: None,
            metadata: 0,
            vocabulary: [0; 2],
            heads,
        }
    }

    fn built(model: &config::Model, classes: i64) -> (VarStore, Net) {
        let store = VarStore::new(Device::Cpu);
        let net = Net::build(model, &dims(classes), &store.root(), None).unwrap();
        (store, net)
    }

    fn model(name: &str, init: &Path) -> config::Model {
        config::Model {
            name: name.to_owned(),
            init: Some(init.to_owned()),
            ..config::Model::default()
        }
    }

    /// Writes a weight file like the published ones: with 1000 classes, the prefix of PyTorch's wrapper, and counters.
    fn published(
        name: &str,
        folder: &Path,
        change: impl Fn(&mut BTreeMap<String, Tensor>),
    ) -> PathBuf {
        let file = folder.join(format!("{name}.safetensors"));
        let (store, _) = built(&model(name, &file), 1000);

        let mut tensors: BTreeMap<String, Tensor> = store
            .variables()
            .into_iter()
            .map(|(key, tensor)| (format!("module.{key}"), tensor))
            .collect();
        tensors.insert(
            "module.bn1.num_batches_tracked".to_owned(),
            Tensor::from(7_i64),
        );
        change(&mut tensors);

        Tensor::write_safetensors(&tensors.iter().collect::<Vec<_>>(), &file).unwrap();
        file
    }

    fn fails(file: &Path, name: &str) -> String {
        let (store, _net) = built(&model(name, file), 10);
        load(file, &store).expect_err("does not match").to_string()
    }

    #[test]
    fn published_weights_fill_all_but_the_head() {
        let folder = tempfile::tempdir().unwrap();
        for (name, tensors) in [("resnet50", 53 * 5), ("xception", 74 + 40 * 4)] {
            let file = published(name, folder.path(), |_| {});
            let (store, net) = built(&model(name, &file), 10);
            let head = store.variables()["fc.weight"].copy();

            assert_eq!(
                load(&file, &store).unwrap(),
                Origin::Pretrained {
                    file: file.clone(),
                    tensors
                }
            );

            let given: BTreeMap<String, Tensor> = Tensor::read_safetensors(&file)
                .unwrap()
                .into_iter()
                .collect();
            for (key, tensor) in store.variables().iter().filter(|(key, _)| !is_head(key)) {
                assert!(tensor.equal(&given[&format!("module.{key}")]), "{key}");
            }
            assert!(store.variables()["fc.weight"].equal(&head));

            let spectrogram = Tensor::rand([2, 32, 48], (Kind::Float, Device::Cpu));
            let inputs = Inputs {
                spectrogram,
                metadata: None,
                ids: None,
            };
            assert_eq!(net.forward(&inputs, false).unwrap()[0].size(), [2, 10]);
        }
    }

    #[test]
    fn mismatched_weights_are_listed_without_copying() {
        let folder = tempfile::tempdir().unwrap();
        let file = published("resnet50", folder.path(), |tensors| {
            tensors.remove("module.layer2.0.bn2.bias");
            tensors.insert(
                "module.conv1.weight".to_owned(),
                Tensor::zeros([64, 1, 7, 7], (Kind::Float, Device::Cpu)),
            );
            tensors.insert("module.layer3.6.conv1.weight".to_owned(), Tensor::from(0.0));
        });

        let error = fails(&file, "resnet50");
        let want = "does not match the model in 3 tensors: conv1.weight is [64, 1, 7, 7] instead of [64, 3, 7, 7], \
                    layer2.0.bn2.bias is missing, layer3.6.conv1.weight does not belong to this model";
        assert!(error.ends_with(want), "{error}");

        let (store, _net) = built(&model("resnet50", &file), 10);
        let before = store.variables()["bn1.running_mean"].copy();
        assert!(
            load(&file, &store).is_err() && store.variables()["bn1.running_mean"].equal(&before)
        );

        assert_eq!(
            fails(&file, "xception").matches(", ").count(),
            4,
            "five of many are listed"
        );

        let none = folder.path().join("none.safetensors");
        assert!(fails(&none, "resnet50").contains("cannot be read as safetensors"));
    }

    #[test]
    fn pytorch_file_error_contains_the_conversion_command() {
        let folder = tempfile::tempdir().unwrap();
        let pickles: [(&str, &[u8]); 3] = [
            ("resnet50.pth", b"PK\x03\x04archive/data.pkl"),
            ("old", b"\x80\x02\x8a\nl\xfc\x9c"),
            ("cut.pt", b""),
        ];

        for (name, bytes) in pickles {
            let file = folder.path().join(name);
            std::fs::write(&file, bytes).unwrap();
            let to = file.with_extension("safetensors");
            let command = format!(
                "scripts/convert_weights.py {} {}",
                file.display(),
                to.display()
            );

            let error = fails(&file, "resnet50");
            assert!(
                error.contains(&command) && error.contains("can execute code"),
                "{error}"
            );
        }

        let notes = folder.path().join("notes.txt");
        std::fs::write(&notes, "some other text").unwrap();
        let other = fails(&notes, "resnet50");
        assert!(other.contains("cannot be read as safetensors"), "{other}");

        let named_so = published("xception", folder.path(), |_| {}).with_extension("pth");
        std::fs::rename(named_so.with_extension("safetensors"), &named_so).unwrap();
        check_form(&named_so).expect("safetensors by its bytes");
    }

    #[test]
    fn a_frozen_backbone_trains_its_head_alone_and_keeps_its_statistics() {
        let frozen = config::Model {
            freeze: true,
            ..model("resnet50", Path::new("given"))
        };
        let (store, net) = built(&frozen, 10);

        let trained: i64 = store
            .trainable_variables()
            .iter()
            .map(|x| x.numel() as i64)
            .sum();
        assert_eq!(trained, 2048 * 10 + 10);

        let spectrogram = Tensor::rand([2, 32, 48], (Kind::Float, Device::Cpu));
        let inputs = Inputs {
            spectrogram,
            metadata: None,
            ids: None,
        };
        net.forward(&inputs, true).unwrap()[0]
            .sum(Kind::Float)
            .backward();

        for (key, tensor) in store.variables() {
            assert_eq!(tensor.grad().defined(), is_head(&key), "{key}");
        }
        assert_eq!(
            store.variables()["bn1.running_mean"]
                .abs()
                .max()
                .double_value(&[]),
            0.0
        );
    }
}
