//! Values that TOML's types allow and that mean nothing: everything an author can do wrong, found before any work.

use std::collections::HashSet;

use super::limits::{CLIP_S_MAX, LENGTH_S_MIN, ROWS_MAX, SEGMENTS_MAX};
use super::parse::Fault;
use super::wording::did_you_mean;
use super::{AudioSpec, CatalogSpec, Dataset, Recipe, ShardSpec, SplitRule, SplitSpec};
use crate::tables::ROW_COLUMNS;

/// The folder `split=…`, which readers show as a column.
const SPLIT_COLUMN: &str = "split";

/// Steps that `catalog.subset` and `catalog.require_audio` make.
const OWN_STEPS: [&str; 2] = ["subset", "audio"];
/// Tables of a store, besides `raw_…`.
const TABLES: [&str; 8] =
    ["tracks", "tracks_all", "albums", "artists", "genres", "rejects", "fma_features", "echonest"];

/// How far the sum of `split.fractions` may be from 1: a few roundings of decimal fractions.
const FRACTION_SUM_ERROR_MAX: f64 = 1e-9;

/// Everything impossible in `recipe`, in no order.
pub(super) fn faults(recipe: &Recipe) -> Vec<Fault> {
    let mut faults = Faults::default();
    faults.unless(!recipe.name.trim().is_empty(), "name", "is empty");
    catalog(&recipe.catalog, &mut faults);
    columns(recipe, &mut faults);
    split(recipe.catalog.dataset, &recipe.split, &mut faults);
    audio(&recipe.audio, &mut faults);
    if recipe.split.rule == SplitRule::Segment {
        let audio = &recipe.audio;
        let bounded = audio.segment_s.is_some() && (audio.segments_max.is_some() || audio.duration_s.is_some());
        let problem = "`segment` wants audio.segment_s, and audio.segments_max or audio.duration_s";
        faults.unless(bounded, "split.rule", problem);
    }
    for (index, feature) in recipe.features.iter().enumerate() {
        super::feature_rules::check(feature, &format!("features.{index}"), &recipe.audio, &mut faults);
    }
    shards(&recipe.shards, &mut faults);
    faults.0
}

/// Faults found so far.
#[derive(Default)]
pub(super) struct Faults(Vec<Fault>);

impl Faults {
    /// A fault of `key` unless `ok`.
    pub fn unless(&mut self, ok: bool, key: &str, problem: impl Into<String>) {
        if !ok {
            self.0.push(Fault { key: key.to_owned(), problem: problem.into() });
        }
    }

    /// `value`, when given, must lie in `range`.
    pub fn within(&mut self, value: Option<f64>, range: std::ops::RangeInclusive<f64>, key: &str) {
        if let Some(value) = value {
            let (from, to) = (range.start(), range.end());
            let problem = format!("{} is out of range; allowed: {from} to {to}", shown(value));
            self.unless(range.contains(&value), key, problem);
        }
    }

    /// `value`, when given, must be finite and above 0.
    pub fn positive(&mut self, value: Option<f64>, key: &str) {
        if let Some(value) = value {
            let ok = value.is_finite() && value > 0.0;
            self.unless(ok, key, format!("{} is impossible; allowed: a number above 0", shown(value)));
        }
    }

    /// `word`, when given, must be one of `allowed`.
    pub fn one_of(&mut self, word: Option<&str>, allowed: &[&str], key: &str) {
        if let Some(word) = word {
            let hint = did_you_mean(word, allowed);
            let problem = format!("`{word}` is unknown{hint}; allowed: {}", allowed.join(", "));
            self.unless(allowed.contains(&word), key, problem);
        }
    }
}

/// A number as people write it: very large and very small ones with an exponent.
fn shown(value: f64) -> String {
    let is_plain = value == 0.0 || !value.is_finite() || (1e-4..1e10).contains(&value.abs());
    if is_plain { value.to_string() } else { format!("{value:e}") }
}

fn catalog(spec: &CatalogSpec, faults: &mut Faults) {
    let subset_has_meaning = spec.subset.is_none() || spec.dataset == Dataset::Fma;
    faults.unless(subset_has_meaning, "catalog.subset", "only dataset = \"fma\" has subsets");
    let mut seen = HashSet::new();
    for (index, step) in spec.clean.iter().enumerate() {
        let key = format!("catalog.clean.{index}");
        let name_key = format!("{key}.step");
        faults.unless(!step.step.trim().is_empty(), &name_key, "is empty");
        faults.unless(seen.insert(&step.step), &name_key, format!("`{}` is the name of an earlier step", step.step));
        let own = OWN_STEPS.contains(&step.step.as_str());
        faults.unless(!own, &name_key, format!("`{}` is the name of one of wavemill's own steps", step.step));
        match (&step.predicate, &step.sql) {
            (Some(_), None) | (None, Some(_)) => {}
            (None, None) => faults.unless(false, &key, "needs `where` (a predicate) or `sql` (a query over `input`)"),
            (Some(_), Some(_)) => {
                faults.unless(false, &format!("{key}.sql"), "`where` is there too; allowed: one of them")
            }
        }
        for (name, text) in [("where", &step.predicate), ("sql", &step.sql)] {
            let empty = text.as_ref().is_some_and(|text| text.trim().is_empty());
            faults.unless(!empty, &format!("{key}.{name}"), "is empty");
        }
    }
}

/// Targets and features are columns of one row: names that Parquet and SQL take unquoted, each once.
fn columns(recipe: &Recipe, faults: &mut Faults) {
    faults.unless(!recipe.features.is_empty(), "features", "is empty; at least one feature is wanted");
    let targets = recipe.targets.iter().enumerate().map(|(i, target)| (format!("targets.{i}.name"), &target.name));
    let features = recipe.features.iter().enumerate().map(|(i, feature)| (format!("features.{i}.name"), &feature.name));
    let shapes: HashSet<String> = recipe.features.iter().map(|feature| format!("{}_shape", feature.name)).collect();
    let mut seen = HashSet::new();
    for (key, name) in targets.chain(features) {
        let mut bytes = name.bytes();
        let starts = bytes.next().is_some_and(|byte| byte.is_ascii_lowercase());
        let plain = starts && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        faults.unless(
            plain,
            &key,
            format!("`{name}` is not a column name; allowed: a to z, then a to z, 0 to 9 and _"),
        );
        let free = !ROW_COLUMNS.contains(&name.as_str()) && name != SPLIT_COLUMN && !shapes.contains(name);
        faults.unless(free, &key, format!("`{name}` is the name of a column that feature rows have already"));
        // In a manifest and in SQL a feature stands beside the metadata's tables.
        let is_table = TABLES.contains(&name.as_str()) || name.starts_with("raw_");
        faults.unless(!is_table || key.starts_with("targets"), &key, format!("`{name}` is the name of a table"));
        faults.unless(
            seen.insert(name),
            &key,
            format!("`{name}` is used twice; targets and features share their names"),
        );
    }
    for (index, target) in recipe.targets.iter().enumerate() {
        let key = format!("targets.{index}");
        faults.unless(!target.column.trim().is_empty(), &format!("{key}.column"), "is empty");
        if let Some(classes) = &target.classes {
            let distinct = classes.iter().collect::<HashSet<_>>().len() == classes.len();
            let problem = "allowed: at least one class name, each once";
            faults.unless(distinct && !classes.is_empty(), &format!("{key}.classes"), problem);
        }
    }
}

fn split(dataset: Dataset, spec: &SplitSpec, faults: &mut Faults) {
    let sum: f64 = spec.fractions.iter().sum();
    let in_range = spec.fractions.iter().all(|fraction| (0.0..=1.0).contains(fraction));
    let [training, validation, test] = spec.fractions;
    let problem = format!(
        "[{training}, {validation}, {test}] is impossible; allowed: three numbers from 0 to 1 that add up to 1"
    );
    faults.unless(in_range && (sum - 1.0).abs() <= FRACTION_SUM_ERROR_MAX, "split.fractions", problem);
    let official = spec.rule != SplitRule::Official || dataset != Dataset::Folders;
    faults.unless(
        official,
        "split.rule",
        "folders have no official split; allowed: stratified, artist, column, segment",
    );
    match (&spec.column, spec.rule == SplitRule::Column) {
        (None, true) => {
            faults.unless(false, "split.rule", "`column` wants split.column, the column that holds each row's split")
        }
        (Some(_), false) => faults.unless(false, "split.column", "is used by rule = \"column\" alone"),
        _ => {}
    }
    let drawn = matches!(spec.rule, SplitRule::Stratified | SplitRule::Artist);
    let problem = "only the rules stratified and artist can put duplicates on one side";
    faults.unless(drawn || !spec.group_duplicates, "split.group_duplicates", problem);
}

fn audio(spec: &AudioSpec, faults: &mut Faults) {
    faults.within(Some(f64::from(spec.sample_rate_hz)), 8_000.0..=48_000.0, "audio.sample_rate_hz");
    let lengths = LENGTH_S_MIN..=CLIP_S_MAX;
    faults.within(spec.duration_s, lengths.clone(), "audio.duration_s");
    faults.within(Some(spec.max_duration_s), lengths.clone(), "audio.max_duration_s");
    faults.within(spec.segment_s, lengths.clone(), "audio.segment_s");
    faults.within(spec.segment_hop_s, lengths, "audio.segment_hop_s");
    for (seconds, key) in
        [(Some(spec.min_duration_s), "audio.min_duration_s"), (spec.segment_min_s, "audio.segment_min_s")]
    {
        faults.positive(seconds, key);
        faults.within(seconds.filter(|s| *s > 0.0 && s.is_finite()), 0.0..=CLIP_S_MAX, key);
    }
    faults.unless(
        spec.segments_max != Some(0),
        "audio.segments_max",
        "0 is impossible; allowed: a whole number, 1 or more",
    );
    if let Some(duration_s) = spec.duration_s.filter(|duration_s| *duration_s > 0.0) {
        let min = spec.min_duration_s;
        let problem =
            format!("{duration_s} is shorter than audio.min_duration_s = {min}: every clip would be a reject");
        faults.unless(min <= duration_s, "audio.duration_s", problem);
        let segment_s = spec.segment_s.unwrap_or(0.0);
        let problem =
            format!("{segment_s} is longer than audio.duration_s = {duration_s}: no clip would have a segment");
        faults.unless(segment_s <= duration_s, "audio.segment_s", problem);
    }
    let min = spec.min_duration_s;
    let problem =
        format!("{} is not above audio.min_duration_s = {min}: every clip would be a reject", spec.max_duration_s);
    faults.unless(spec.max_duration_s > min || min >= CLIP_S_MAX, "audio.max_duration_s", problem);
    segments(spec, faults);
}

/// Keys of segments have no meaning without their length, and a clip may not give too many.
fn segments(spec: &AudioSpec, faults: &mut Faults) {
    match spec.segment_s {
        None => {
            let alone = |given: bool, name: &str, faults: &mut Faults| {
                faults.unless(!given, &format!("audio.{name}"), "has no meaning without audio.segment_s");
            };
            alone(spec.segment_hop_s.is_some(), "segment_hop_s", faults);
            alone(spec.segments_max.is_some(), "segments_max", faults);
            alone(spec.segment_min_s.is_some(), "segment_min_s", faults);
        }
        Some(segment_s) => {
            let fits = spec.segment_min_s.is_none_or(|min| min <= segment_s);
            let problem = format!("is longer than audio.segment_s = {segment_s}");
            faults.unless(fits, "audio.segment_min_s", problem);
            too_many_segments(spec, segment_s, faults);
        }
    }
}

/// Every segment is a row: their number is bounded for the longest clip that the recipe lets in.
fn too_many_segments(spec: &AudioSpec, segment_s: f64, faults: &mut Faults) {
    let (key, hop_s) = match spec.segment_hop_s {
        Some(hop_s) => ("audio.segment_hop_s", hop_s),
        None => ("audio.segment_s", segment_s),
    };
    let longest_s = spec.longest_s();
    let segments = (longest_s / hop_s).min(spec.segments_max.map_or(f64::INFINITY, f64::from));
    // A length out of range has its own fault.
    let lengths = LENGTH_S_MIN..=CLIP_S_MAX;
    let is_sound = [hop_s, segment_s, longest_s].iter().all(|seconds| lengths.contains(seconds));
    let problem = format!(
        "{hop_s} cuts a clip of {longest_s} s into {segments:.0} segments, at most {SEGMENTS_MAX} are allowed; allowed: \
         {:.4} or more, or a smaller audio.segments_max, audio.duration_s or audio.max_duration_s",
        longest_s / SEGMENTS_MAX
    );
    faults.unless(!is_sound || segments <= SEGMENTS_MAX, key, problem);
}

fn shards(spec: &ShardSpec, faults: &mut Faults) {
    for (count, key) in [(spec.clips, "shards.clips"), (spec.row_group_rows, "shards.row_group_rows")] {
        faults.within(Some(count as f64), 1.0..=ROWS_MAX as f64, key);
    }
}
