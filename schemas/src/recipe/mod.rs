//! Recipes: everything that decides a store's content, as TOML.
//!
//! The types here are the file's sections; an absent key becomes its default, so that equal recipes have equal
//! canonical JSON ([`crate::canonical`]). [`Recipe::load`] is strict: an unknown key, a wrong type or an impossible
//! value is an error that names key, line and allowed values. What a feature's options are, and what presets say of
//! them, the crate `wavemill-options` knows.

mod edit;
mod feature;
mod feature_rules;
mod limits;
pub(crate) mod parse;
pub(crate) mod place;
mod shipped;
mod validate;
mod warnings;
pub(crate) mod wording;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Deserializer, Serialize};

pub use feature::{DbRef, DbSpec, FeatureOp, FeatureSpec};
pub use limits::FILE_BYTES_MAX;
pub use parse::{RecipeError, Source};
pub use place::Place;
pub use shipped::SHIPPED;
pub use wavemill_options::{
    CropBox, DECODED_PIXELS_MAX, DECODED_SIDE_MAX, Dtype, Fault, ImageArgs, ImageFilter, Normalize,
    Preset,
};

use crate::exact;

/// A whole recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name, as shown by `recipe list`.
    pub name: String,
    /// One line on what it is for.
    #[serde(default)]
    pub description: String,
    /// Which rows.
    pub catalog: CatalogSpec,
    /// What is to be learned.
    #[serde(default)]
    pub targets: Vec<TargetSpec>,
    /// Who trains, who tests.
    #[serde(default)]
    pub split: SplitSpec,
    /// From file to PCM.
    #[serde(default)]
    pub audio: AudioSpec,
    /// Which picture files are decoded.
    #[serde(default, skip_serializing_if = "ImageSpec::is_default")]
    pub image: ImageSpec,
    /// From PCM to stored tensors.
    pub features: Vec<FeatureSpec>,
    /// How they lie in files.
    #[serde(default)]
    pub shards: ShardSpec,
}

impl Recipe {
    /// The most bytes of a file: that of `[image]` for a data set of pictures, and else that of `[audio]`.
    pub fn file_bytes_max(&self) -> u64 {
        let given = if self.catalog.dataset.is_of_pictures() {
            self.image.max_file_bytes
        } else {
            self.audio.max_file_bytes
        };
        given.unwrap_or(FILE_BYTES_MAX)
    }
}

/// Where rows come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dataset {
    /// FMA's `tracks.csv` with its three header lines.
    Fma,
    /// One folder a genre.
    Folders,
    /// Pictures (PNG, JPEG), one folder a genre.
    Images,
    /// Any CSV or Parquet file with a `clip_key` column (a step's SQL may make it).
    Table,
}

impl Dataset {
    /// Files in a folder a genre: all that is known of them, unless a list is given.
    pub const fn is_of_folders(self) -> bool {
        matches!(self, Self::Folders | Self::Images)
    }

    /// Clips are pictures, and nothing of audio is known of them.
    pub const fn is_of_pictures(self) -> bool {
        matches!(self, Self::Images)
    }
}

/// FMA's nested subsets: small ⊂ medium ⊂ large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subset {
    /// 8,000 clips, 8 balanced genres.
    Small,
    /// 25,000 clips, 16 genres.
    Medium,
    /// 106,574 clips.
    Large,
}

/// `[catalog]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CatalogSpec {
    /// Kind of the data set.
    pub dataset: Dataset,
    /// FMA only: keep rows of this subset and those within it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<Subset>,
    /// Default true: rows without a file are dropped as the last counted step; false: they are `missing_file` rejects.
    #[serde(default = "yes")]
    pub require_audio: bool,
    /// Cleaning steps in order, each counted.
    #[serde(default)]
    pub clean: Vec<CleanStep>,
}

/// `[[catalog.clean]]`: exactly one of `where` and `sql`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CleanStep {
    /// Name, shown with its count.
    pub step: String,
    /// A predicate; rows for which it is true stay.
    #[serde(rename = "where", default, skip_serializing_if = "Option::is_none")]
    pub predicate: Option<String>,
    /// A whole query over `input`, and the other tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
}

/// `[[targets]]`: a column to be learned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// Column name in the feature rows.
    pub name: String,
    /// Column of the cleaned rows that holds the label as text.
    pub column: String,
    /// Class names in id order; absent: the sorted names found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<Vec<String>>,
}

/// Which rule decides the split that is the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SplitRule {
    /// The data set's own.
    Official,
    /// Per class by hash order: tracks of one artist fall on several sides (leaky, says so).
    Stratified,
    /// No artist on two sides.
    #[default]
    Artist,
    /// A column's values.
    Column,
    /// Segments of one track on several sides (leaky, says so).
    Segment,
    /// The same, and stretched copies of a segment on other sides than itself (leaky, says so).
    SegmentStretched,
}

impl SplitRule {
    /// As in a recipe: `official`, `stratified`, `artist`, `column`, `segment`, `segment_stretched`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Official => "official",
            Self::Stratified => "stratified",
            Self::Artist => "artist",
            Self::Column => "column",
            Self::Segment => "segment",
            Self::SegmentStretched => "segment_stretched",
        }
    }

    /// Each row draws its side by itself, so that a clip has rows on several sides.
    pub const fn is_by_segment(self) -> bool {
        matches!(self, Self::Segment | Self::SegmentStretched)
    }

    /// What the rule lets a model see of its test before the test; `None` for rules that leak nothing by themselves.
    pub const fn leak(self) -> Option<&'static str> {
        match self {
            Self::Stratified => Some("tracks of one artist or album fall on several sides"),
            Self::Segment => Some("segments of one track fall on several sides"),
            Self::SegmentStretched => {
                Some("segments of one track and their stretched copies fall on several sides")
            }
            Self::Official | Self::Artist | Self::Column => None,
        }
    }
}

/// `[split]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitSpec {
    /// The rule.
    #[serde(default)]
    pub rule: SplitRule,
    /// Training, validation, test; they add up to 1.
    #[serde(
        default = "SplitSpec::default_fractions",
        deserialize_with = "exact::array"
    )]
    pub fractions: [f64; 3],
    /// Seed of every hash order.
    #[serde(default = "SplitSpec::default_seed")]
    pub seed: u64,
    /// Rule `column` only: the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<String>,
    /// True: tracks with equal `audio_blake3` share a side, found by a counted hashing pass.
    #[serde(default)]
    pub group_duplicates: bool,
}

impl SplitSpec {
    const fn default_fractions() -> [f64; 3] {
        [0.8, 0.1, 0.1]
    }

    const fn default_seed() -> u64 {
        42
    }
}

impl Default for SplitSpec {
    fn default() -> Self {
        Self {
            rule: SplitRule::default(),
            fractions: Self::default_fractions(),
            seed: Self::default_seed(),
            column: None,
            group_duplicates: false,
        }
    }
}

/// `[audio]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AudioSpec {
    /// Rate after resampling, Hz.
    #[serde(default = "AudioSpec::default_rate")]
    pub sample_rate_hz: u32,
    /// Pad with zeros or cut to this; absent: as long as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration_s: Option<f64>,
    /// Less than this decoded: reject.
    #[serde(default = "AudioSpec::default_min_duration")]
    pub min_duration_s: f64,
    /// More than this decoded, where `duration_s` does not ask for less: reject. Default: three hours, which is also the
    /// most. The default is left out of what is stored, so that identities are those of recipes without the key.
    #[serde(
        default = "AudioSpec::default_max_duration",
        skip_serializing_if = "AudioSpec::is_default_max_duration"
    )]
    pub max_duration_s: f64,
    /// A file of more bytes is a reject; absent: [`FILE_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_file_bytes: Option<u64>,
    /// Length of a segment; absent: the clip is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_s: Option<f64>,
    /// Distance of segments; absent: `segment_s`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_hop_s: Option<f64>,
    /// At most this many segments a clip.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segments_max: Option<u32>,
    /// A last part this long is padded to a segment; absent: it is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_min_s: Option<f64>,
    /// Factors of time stretch, ascending: each makes further rows of training clips. They decide no value of the plain
    /// rows, and so are no part of a `feature_id`.
    #[serde(
        default,
        deserialize_with = "ascending",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub stretch: Vec<f64>,
    /// The decode path.
    #[serde(default)]
    pub decode: DecodeSpec,
}

/// `[image]`, of data sets of pictures. What is absent is left out of what is stored, so that identities are those of
/// recipes without the section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSpec {
    /// A file of more bytes is a reject; absent: [`FILE_BYTES_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_file_bytes: Option<u64>,
    /// A picture of more pixels is a reject; absent: [`DECODED_PIXELS_MAX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_pixels: Option<u64>,
}

impl ImageSpec {
    /// Reports whether no option is set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// The most pixels of a picture.
    pub fn pixels_max(&self) -> u64 {
        self.max_pixels.unwrap_or(DECODED_PIXELS_MAX)
    }
}

/// `[audio.decode]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecodeSpec {
    /// Which decode path.
    #[serde(default)]
    pub path: DecodePath,
}

/// How bytes become PCM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodePath {
    /// Full decode at source rate, then downmix, then resample.
    #[default]
    Exact,
    /// The same, but of MP3 at twice the wanted rate or more only what reaches the wanted one is computed, and up to 0.9 of
    /// its Nyquist frequency that is equal but for rounding.
    Band,
}

impl AudioSpec {
    const fn default_rate() -> u32 {
        22_050
    }

    const fn default_min_duration() -> f64 {
        1.0
    }

    const fn default_max_duration() -> f64 {
        limits::CLIP_S_MAX
    }

    #[expect(
        clippy::trivially_copy_pass_by_ref,
        reason = "serde hands a reference over"
    )]
    fn is_default_max_duration(seconds: &f64) -> bool {
        *seconds == Self::default_max_duration()
    }

    /// The most seconds of a clip that become rows: `duration_s`, or `max_duration_s` where that is less.
    pub fn longest_s(&self) -> f64 {
        self.duration_s
            .unwrap_or(f64::INFINITY)
            .min(self.max_duration_s)
    }

    /// How many times as long as the clip its longest stretched copy is; 1 without one that is longer.
    pub fn longest_stretch(&self) -> f64 {
        let slowest = self.stretch.iter().copied().fold(1.0, f64::min);
        1.0 / slowest
    }
}

impl Default for AudioSpec {
    fn default() -> Self {
        Self {
            sample_rate_hz: Self::default_rate(),
            duration_s: None,
            min_duration_s: Self::default_min_duration(),
            max_duration_s: Self::default_max_duration(),
            max_file_bytes: None,
            segment_s: None,
            segment_hop_s: None,
            segments_max: None,
            segment_min_s: None,
            stretch: Vec::new(),
            decode: DecodeSpec::default(),
        }
    }
}

/// `[shards]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardSpec {
    /// Mean clips a shard, at most.
    #[serde(default = "ShardSpec::default_clips")]
    pub clips: usize,
    /// Rows a row group, at most.
    #[serde(default = "ShardSpec::default_row_group_rows")]
    pub row_group_rows: usize,
    /// Of the Parquet pages.
    #[serde(default)]
    pub compression: Compression,
    /// How a tensor lies in its column.
    #[serde(default)]
    pub layout: Layout,
}

impl ShardSpec {
    const fn default_clips() -> usize {
        512
    }

    const fn default_row_group_rows() -> usize {
        64
    }
}

impl Default for ShardSpec {
    fn default() -> Self {
        Self {
            clips: Self::default_clips(),
            row_group_rows: Self::default_row_group_rows(),
            compression: Compression::default(),
            layout: Layout::default(),
        }
    }
}

/// Page compression.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)]
pub enum Compression {
    #[default]
    Zstd,
    Lz4,
    None,
}

/// How a tensor lies in its column.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// One binary value a row: what every tool reads fastest.
    #[default]
    Binary,
    /// Parquet lists: 6–70 times slower to read.
    List,
}

const fn yes() -> bool {
    true
}

/// A list of numbers in ascending order, whatever order the recipe has them in.
fn ascending<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f64>, D::Error> {
    let mut numbers = Vec::<f64>::deserialize(deserializer)?;
    numbers.sort_by(f64::total_cmp);
    Ok(numbers)
}
