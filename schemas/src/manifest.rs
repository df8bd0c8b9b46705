//! A version of a store: one small JSON, committed last and never overwritten. And the receipts that lead to it.
//!
//! Nothing in a manifest varies from run to run: no time, host or absolute path. Receipts hold what one machine saw of
//! its inputs (modification times), so they stay beside the manifest and out of it.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{FORMAT_VERSION, canonical, recipe::Recipe, reject::Reject};

/// Key of a manifest's checksum: blake3 of its canonical JSON without this key, lower-case hex.
pub const CHECKSUM_KEY: &str = "manifest_blake3";

/// Returns `json`, which is one line, and below it a line with its blake3 as a JSON string. [`from_sealed`] reads it.
pub fn sealed(json: &str) -> String {
    format!("{json}\n\"{}\"\n", blake3::hash(json.as_bytes()).to_hex())
}

/// Reads JSON that [`sealed`] returned. A single line without a checksum, as earlier versions wrote it, is read too.
///
/// # Errors
/// [`ManifestError::Encoding`], [`ManifestError::Checksum`] and [`ManifestError::Json`].
pub fn from_sealed<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ManifestError> {
    let text = utf8(bytes)?;
    let json = match text.split_once('\n') {
        Some((json, _)) if sealed(json) == text => json,
        Some(_) => {
            return Err(ManifestError::Checksum {
                problem: "the checksum in its second line differs",
            });
        }
        None => text,
    };
    Ok(serde_json::from_str(json)?)
}

/// Why a manifest or receipt cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Bytes that are no text.
    #[error("not UTF-8 from byte {at} on")]
    Encoding {
        /// From 0.
        at: usize,
    },
    /// Not the JSON it should be.
    #[error("not the JSON of a wavemill store")]
    Json(#[from] serde_json::Error),
    /// Written by an earlier or a later wavemill: no damage.
    #[error("format version {found}; this wavemill reads {FORMAT_VERSION}")]
    OtherFormat {
        /// What the file says.
        found: u64,
    },
    /// The content is not what was committed.
    #[error("{problem}: its content is not what was committed")]
    Checksum {
        /// What is wrong with the checksum.
        problem: &'static str,
    },
    /// A part of it is not the one whose hash its identity contains.
    #[error("its {part} and its identity do not fit together")]
    Identity {
        /// The part that was changed, or whose hash was.
        part: &'static str,
    },
    /// A name that could lead out of the store, or cannot be a name in it.
    #[error("it names {name:?}, which {problem}")]
    Name {
        /// As written.
        name: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Returns what a store needs whose format is `found`, for the error [`ManifestError::OtherFormat`].
pub fn remedy_of_format(found: u64) -> &'static str {
    if found > u64::from(FORMAT_VERSION) {
        "needs a newer wavemill"
    } else {
        "has to be rebuilt in a new folder by `wavemill extract`"
    }
}

/// One complete state of a store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`] of its writer.
    pub format_version: u32,
    /// 16 hex digits; names the folder of its data.
    pub plan_id: String,
    /// What `plan_id` was made of, part by part, so that a later run can say which part changed.
    pub identity: Identity,
    /// What computed the values.
    pub engine: Engine,
    /// With every `--set` applied.
    pub recipe: Recipe,
    /// In the recipe's order.
    pub targets: Vec<TargetEntry>,
    /// In the recipe's order.
    pub features: Vec<FeatureEntry>,
    /// In loader order.
    pub files: Vec<FileEntry>,
    /// By split: into how many shards its clips were dealt, those without a clip counted too. A later version goes on
    /// with these numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub shards: BTreeMap<String, u64>,
    /// Every input accounted for.
    pub counts: Counts,
    /// Per feature name; absent where there are no training rows.
    pub stats: BTreeMap<String, Stats>,
}

impl Manifest {
    /// Reads the bytes of a manifest and checks all that they tell by themselves: format version, checksum, paths.
    ///
    /// # Errors
    /// [`ManifestError::OtherFormat`] for another format, whatever else the bytes hold; every other [`ManifestError`]
    /// is damage.
    pub fn from_json(bytes: impl AsRef<[u8]>) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Head {
            format_version: u64,
        }

        let mut value: Value = serde_json::from_str(utf8(bytes.as_ref())?)?;

        // First of all: another format may have other keys and another checksum.
        let found = Head::deserialize(&value)?.format_version;
        if found != u64::from(FORMAT_VERSION) {
            return Err(ManifestError::OtherFormat { found });
        }

        // Before anything is understood: a key that this version does not know counts too.
        take_checksum(&mut value)?;
        check_identity(&value)?;

        let manifest = Self::deserialize(value)?;
        // The id names the folder of the data, so it must be the name of one.
        check_name(&manifest.plan_id)?;
        manifest.files.iter().try_for_each(FileEntry::check)?;
        Ok(manifest)
    }

    /// Its canonical JSON with its checksum, ended by a newline.
    ///
    /// # Errors
    /// None in practice: every map has text keys.
    pub fn to_json(&self) -> Result<String, ManifestError> {
        let mut value = serde_json::to_value(self)?;
        // Of the value without the key, which comes in afterwards.
        let checksum = canonical::id(&value)?;
        value[CHECKSUM_KEY] = Value::String(checksum);
        Ok(canonical::to_json(&value)? + "\n")
    }

    /// The files of one table or feature, in order.
    pub fn files_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a FileEntry> {
        self.files.iter().filter(move |f| f.name() == name)
    }
}

/// Takes the checksum out of a manifest and compares it with the rest.
fn take_checksum(manifest: &mut Value) -> Result<(), ManifestError> {
    let claimed = manifest
        .as_object_mut()
        .and_then(|keys| keys.remove(CHECKSUM_KEY));
    let problem = match claimed {
        Some(claimed) if claimed == canonical::id(manifest)? => return Ok(()),
        Some(_) => "its manifest_blake3 differs",
        None => "it has no manifest_blake3",
    };
    Err(ManifestError::Checksum { problem })
}

/// Compares recipe and engine with the hashes of them in the identity, and the plan id with the identity's.
///
/// Compares the JSON as it was read: recipes have keys today that those of earlier versions do not have.
fn check_identity(manifest: &Value) -> Result<(), ManifestError> {
    let identity = &manifest["identity"];
    for part in ["recipe", "engine"] {
        if identity[part] != canonical::id(&manifest[part])? {
            return Err(ManifestError::Identity { part });
        }
    }

    // The id covers all parts, also those whose hashes nothing here can prove.
    let plan_id = canonical::id(identity)?;
    if manifest["plan_id"] != plan_id[..PLAN_ID_DIGITS] {
        return Err(ManifestError::Identity { part: "plan_id" });
    }
    Ok(())
}

/// Hex digits of a `plan_id`.
const PLAN_ID_DIGITS: usize = 16;

/// The parts of a `plan_id`: blake3, lower-case hex.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Canonical recipe, `--set` applied.
    pub recipe: String,
    /// All columns of the cleaned rows.
    pub rows: String,
    /// (`clip_key`, bytes) of each planned input.
    pub inputs: String,
    /// Canonical engine.
    pub engine: String,
    /// `--limit`.
    pub limit: Option<u64>,
    /// The content of `--sides`. Without it the field is absent, so that plans made before there was such an option keep
    /// their ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sides: Option<String>,
    /// The parent version's manifest, where there is one.
    pub parent: Option<String>,
}

impl Identity {
    /// The plan id: 16 hex digits of the whole.
    ///
    /// # Errors
    /// None in practice.
    pub fn plan_id(&self) -> Result<String, serde_json::Error> {
        let mut id = canonical::id(self)?;
        id.truncate(PLAN_ID_DIGITS);
        Ok(id)
    }
}

/// What computed the values. Bytes are promised equal for equal engines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Engine {
    /// [`crate::NUMERICS_REVISION`].
    pub numerics: u32,
    /// `cpu` or `cuda`.
    pub backend: String,
    /// `x86-64-v3` or `scalar`; for CUDA its architecture and libraries.
    pub level: String,
    /// Name and version.
    pub decoder: String,
    /// Processor and system, such as `x86_64-linux`.
    pub target: String,
    /// C library and its version (the decoder's tables call its mathematics).
    pub libc: String,
    /// What encodes the files: the Parquet writer and the compressor, with their versions.
    pub writer: String,
}

/// A target and its classes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetEntry {
    /// Column name in the feature rows.
    pub name: String,
    /// Names in id order.
    pub classes: Vec<String>,
    /// Written clips per class, by split.
    pub counts: BTreeMap<String, Vec<u64>>,
}

/// A feature as it is stored.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FeatureEntry {
    /// Column name, and the folder's.
    pub name: String,
    /// blake3 of everything from file bytes to stored value.
    pub feature_id: String,
    /// `f16`, `f32`, `u8`.
    pub dtype: String,
    /// How stored integers become values; `None` for floats.
    pub scale: Option<Scale>,
    /// Row-major; `None` where a dimension differs from row to row.
    pub shape: Vec<Option<usize>>,
    /// Such as `["mel", "frame"]`.
    pub dim_names: Vec<String>,
    /// Rate of the audio it was computed from; `None` of a picture file, which has none.
    pub sample_rate_hz: Option<u32>,
    /// Samples from frame to frame; `None` of a picture file.
    pub hop_length: Option<usize>,
    /// Whose conventions.
    pub preset: String,
    /// Names of the values, row-major, where each has one: of statistics, as FMA's `features.csv` names them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
}

impl FeatureEntry {
    /// Its rows are statistics of bands: a vector of numbers with names of their own.
    pub fn is_statistics(&self) -> bool {
        self.dim_names
            .first()
            .is_some_and(|name| name == "statistic")
    }

    /// It was computed of audio, and not of picture files.
    pub const fn is_of_audio(&self) -> bool {
        self.sample_rate_hz.is_some()
    }

    /// Its rows are pictures: channels of rows of pixels.
    pub fn is_picture(&self) -> bool {
        self.dim_names == ["channel", "row", "column"]
    }

    /// Type and shape as people write them: `f16[128,1292]`, with `?` for a dimension that varies.
    pub fn tensor_type(&self) -> String {
        let dims: Vec<String> = self
            .shape
            .iter()
            .map(|d| d.map_or("?".to_owned(), |n| n.to_string()))
            .collect();
        format!("{}[{}]", self.dtype, dims.join(","))
    }
}

/// value = stored · `factor` + `offset`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scale {
    /// Step of one.
    pub factor: f64,
    /// Value of stored zero.
    pub offset: f64,
}

/// A Parquet file of the version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileEntry {
    /// The metadata table, or …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// … the feature that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub feature: Option<String>,
    /// Of a feature's file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Below the store, `/`-separated.
    pub path: String,
    /// Rows in it.
    pub rows: u64,
    /// Size.
    pub bytes: u64,
    /// Of the whole file, lower-case hex.
    pub blake3: String,
    /// Rows of each row group.
    pub row_groups: Vec<u64>,
    /// What follows the pages; `None` in stores of earlier programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<FooterEntry>,
}

/// The page index and the footer of a Parquet file: what no checksum of a page covers. Readers that read only some pages
/// check them by this hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FooterEntry {
    /// Where they begin: behind the last page.
    pub offset: u64,
    /// Of all bytes from there to the end of the file, lower-case hex.
    pub blake3: String,
}

impl FileEntry {
    /// The table or feature that it belongs to.
    pub fn name(&self) -> &str {
        self.table
            .as_deref()
            .or(self.feature.as_deref())
            .unwrap_or_default()
    }

    /// Whether it names one table or feature, and a file below the store. Where links lead is for those to see who
    /// open it.
    fn check(&self) -> Result<(), ManifestError> {
        if self.table.is_some() == self.feature.is_some() {
            let name = self.path.clone();
            return Err(ManifestError::Name {
                name,
                problem: "is not the file of one table or feature",
            });
        }

        // Paths of later plans are made of this name.
        check_name(self.name())?;
        if self.path.starts_with('/') {
            return Err(ManifestError::Name {
                name: self.path.clone(),
                problem: "is an absolute path",
            });
        }

        // The fault is one part's; the whole path is what a person can look for.
        match self.path.split('/').try_for_each(check_name) {
            Err(ManifestError::Name { problem, .. }) => Err(ManifestError::Name {
                name: self.path.clone(),
                problem,
            }),
            other => other,
        }
    }
}

/// Whether `name` can be one part of a path, and leads nowhere else.
fn check_name(name: &str) -> Result<(), ManifestError> {
    let problem = match name {
        ".." => "leads out of its folder",
        // `a//b` and `a/./b` would be second names of one file.
        "" | "." => "has a part without a name",
        _ if name.contains(['/', '\0']) => "is no name of a file or folder",
        _ => return Ok(()),
    };
    Err(ManifestError::Name {
        name: name.to_owned(),
        problem,
    })
}

/// Every input accounted for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Records of the metadata = kept + dropped + rejected.
    pub rows_read: u64,
    /// Left after the last cleaning step.
    pub rows_kept: u64,
    /// Per cleaning step, in order.
    pub rows_dropped: Vec<Dropped>,
    /// `bad_row` and `bad_encoding`.
    pub rows_rejected: u64,
    /// Kept rows within `--limit` = written + rejected.
    pub clips_planned: u64,
    /// Clips with rows in the shards.
    pub clips_written: u64,
    /// Clips that became no row.
    pub clips_rejected: u64,
    /// Rows in each feature's shards (segments).
    pub feature_rows: u64,
    /// Rejects of both kinds by reason.
    pub rejects: BTreeMap<String, u64>,
}

/// Rows dropped by one step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// Its name in the recipe.
    pub step: String,
    /// How many.
    pub rows: u64,
}

/// Mean and standard deviation per band over the stored values of the training split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stats {
    /// Per band.
    pub mean: Vec<f64>,
    /// Per band, population.
    pub std: Vec<f64>,
    /// Values a band.
    pub values: u64,
}

/// Sums over one row group, per band; added up in file order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Partial {
    /// Σ x.
    pub sum: Vec<f64>,
    /// Σ x².
    pub sum_squares: Vec<f64>,
    /// Values a band.
    pub values: u64,
}

/// Proof that a feature's file of one shard is complete; written after the file, read on resume and by later versions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// blake3 of everything that decides the file's bytes, but for `rejects` of the stage `features`.
    pub key: String,
    /// The file.
    pub file: FileEntry,
    /// Members that became no row, in any feature of the plan.
    pub rejects: Vec<Reject>,
    /// blake3 of all features of the plan: rejects of the stage `features` hold for just these.
    pub features: String,
    /// Every row was computed for this plan, and none taken over or linked from another one.
    pub is_computed: bool,
    /// Clips with rows.
    pub clips_written: u64,
    /// One per row group (training split only).
    pub partials: Vec<Partial>,
    /// Per target, written clips by class.
    pub class_counts: Vec<Vec<u64>>,
}

impl Receipt {
    /// Reads the bytes of a receipt, which are [`sealed`], and checks its path and its sums.
    ///
    /// # Errors
    /// Those of [`from_sealed`], and [`ManifestError::Name`].
    pub fn from_json(bytes: &[u8]) -> Result<Self, ManifestError> {
        let receipt: Self = from_sealed(bytes)?;
        receipt.file.check()?;

        let has_all_sums = |partial: &Partial| partial.sum.len() == partial.sum_squares.len();
        if !receipt.partials.iter().all(has_all_sums) {
            return Err(ManifestError::Checksum {
                problem: "it has not as many sums of squares as sums",
            });
        }
        Ok(receipt)
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, ManifestError> {
    std::str::from_utf8(bytes).map_err(|error| ManifestError::Encoding {
        at: error.valid_up_to(),
    })
}

#[cfg(test)]
mod tests;
