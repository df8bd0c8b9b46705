//! Validation of values beyond TOML's types: finds all mistakes of a recipe's author before a run starts.

use std::collections::HashSet;

use wavemill_options::{Fault, Faults, MAX_TO_HZ, MIN_HZ, STRETCH_MAX, STRETCH_MIN, STRETCHES_MAX};

use super::limits::{CLIP_S_MAX, FILE_BYTES_MAX, LENGTH_S_MIN, ROWS_MAX, SEGMENTS_MAX};
use super::{
    AudioSpec, CatalogSpec, CleanStep, CsvSpec, DECODED_PIXELS_MAX, Dataset, GroupDuplicates,
    Recipe, ShardSpec, SplitRule, SplitSpec, TargetSpec,
};
use crate::columns::{row_columns, shape_column};

/// Name of the partition folder `split=…`, which readers show as a column.
const SPLIT_COLUMN: &str = "split";

/// Names of the cleaning steps that implement `catalog.subset` and `catalog.require_audio`.
const OWN_STEPS: [&str; 2] = ["subset", "audio"];
/// Names of a store's metadata tables, in addition to `raw_…`.
const TABLES: [&str; 14] = [
    "tracks",
    "tracks_all",
    "albums",
    "artists",
    "genres",
    "rejects",
    "sides",
    "inputs",
    "classes",
    "audio_files",
    "fma_features",
    "echonest",
    "fingerprints",
    "near_copies",
];

/// Tolerance for the sum of `split.fractions`: a few rounding errors of decimal fractions.
const FRACTION_SUM_ERROR_MAX: f64 = 1e-9;

/// Returns all faults of `recipe`, in no particular order.
pub(super) fn faults(recipe: &Recipe) -> Vec<Fault> {
    let mut faults = Faults::default();
    faults.unless(!recipe.name.trim().is_empty(), "name", "is empty");
    catalog(&recipe.catalog, &mut faults);
    columns(recipe, &mut faults);
    targets(&recipe.targets, &mut faults);
    split(recipe.catalog.dataset, &recipe.split, &mut faults);
    audio(&recipe.audio, &mut faults);
    if recipe.catalog.dataset == Dataset::Images {
        images(recipe, &mut faults);
    } else {
        let problem = "only dataset = \"images\" has pictures: remove this section";
        faults.unless(recipe.image.is_default(), "image", problem);
    }

    by_segment(recipe, &mut faults);

    for (index, feature) in recipe.features.iter().enumerate() {
        super::feature_rules::check(feature, &format!("features.{index}"), recipe, &mut faults);
    }
    shards(&recipe.shards, &mut faults);
    faults.into_vec()
}

/// Checks the split rules that assign segments of one clip to several splits.
fn by_segment(recipe: &Recipe, faults: &mut Faults) {
    let audio = &recipe.audio;
    let rule = recipe.split.rule;
    let is_stretched = !audio.stretch.is_empty();

    // Each segment is assigned to a split, so the number of segments must be known before any clip is decoded.
    let bounded =
        audio.segment_s.is_some() && (audio.segments_max.is_some() || audio.duration_s.is_some());
    let problem = format!(
        "`{}` requires audio.segment_s, and audio.segments_max or audio.duration_s",
        rule.name()
    );
    faults.unless(bounded || !rule.is_by_segment(), "split.rule", problem);

    // These rules assign rows instead of clips, so the rule must also determine the split of stretched copies.
    let problem = "`segment` does not assign stretched copies to a split: `segment_stretched` assigns them to all splits \
                   (leaky), the other rules to training";
    faults.unless(
        rule != SplitRule::Segment || !is_stretched,
        "split.rule",
        problem,
    );
    let problem = "`segment_stretched` requires audio.stretch; without it, use `segment`";
    faults.unless(
        rule != SplitRule::SegmentStretched || is_stretched,
        "split.rule",
        problem,
    );
}

fn catalog(spec: &CatalogSpec, faults: &mut Faults) {
    // Subsets only exist in FMA, where a column of tracks.csv contains them.
    let subset_has_meaning = spec.subset.is_none() || spec.dataset == Dataset::Fma;
    faults.unless(
        subset_has_meaning,
        "catalog.subset",
        "only dataset = \"fma\" has subsets",
    );
    let problem = "the files of dataset = \"fma\" have a known form: remove this section";
    let csv_has_meaning = spec.csv == CsvSpec::default() || spec.dataset != Dataset::Fma;
    faults.unless(csv_has_meaning, "catalog.csv", problem);

    // Dropped rows are counted by step name, so names must be unique.
    let mut seen = HashSet::new();
    for (index, step) in spec.clean.iter().enumerate() {
        let key = format!("catalog.clean.{index}");
        let name_key = format!("{key}.step");
        faults.unless(!step.step.trim().is_empty(), &name_key, "is empty");
        faults.unless(
            seen.insert(&step.step),
            &name_key,
            format!("`{}` is the name of an earlier step", step.step),
        );
        let own = OWN_STEPS.contains(&step.step.as_str());
        faults.unless(
            !own,
            &name_key,
            format!("`{}` is the name of a built-in step", step.step),
        );

        clean_step(step, &key, faults);
    }
}

/// Checks a recipe for pictures, which have no audio and no segments.
fn images(recipe: &Recipe, faults: &mut Faults) {
    let without = recipe.audio == AudioSpec::default();
    let problem = "dataset = \"images\" has no audio: remove this section";
    faults.unless(without, "audio", problem);

    file_bytes(recipe.image.max_file_bytes, "image.max_file_bytes", faults);
    let pixels = recipe.image.max_pixels.map(|pixels| pixels as f64);
    faults.within(pixels, 1.0..=DECODED_PIXELS_MAX as f64, "image.max_pixels");

    let problem = "only audio is hashed, and dataset = \"images\" has none";
    faults.unless(
        recipe.split.group_duplicates == GroupDuplicates::None,
        "split.group_duplicates",
        problem,
    );
    let rule = recipe.split.rule;
    let problem = format!(
        "`{}` is for audio; allowed: stratified, artist, column",
        rule.name()
    );
    faults.unless(!rule.is_by_segment(), "split.rule", problem);
}

/// Checks that a step selects rows either by a predicate or by a query.
fn clean_step(step: &CleanStep, key: &str, faults: &mut Faults) {
    match (&step.predicate, &step.sql) {
        (Some(_), None) | (None, Some(_)) => {}
        (None, None) => faults.unless(
            false,
            key,
            "needs `where` (a predicate) or `sql` (a query over `input`)",
        ),
        (Some(_), Some(_)) => faults.unless(
            false,
            &format!("{key}.sql"),
            "cannot be combined with `where`; allowed: one of them",
        ),
    }

    for (name, text) in [("where", &step.predicate), ("sql", &step.sql)] {
        let empty = text.as_ref().is_some_and(|text| text.trim().is_empty());
        faults.unless(!empty, &format!("{key}.{name}"), "is empty");
    }
}

/// Checks the names of targets and features: they become columns of one table, so they must be unique, and valid in
/// Parquet and SQL without quotes.
fn columns(recipe: &Recipe, faults: &mut Faults) {
    faults.unless(
        !recipe.features.is_empty(),
        "features",
        "is empty; at least one feature is required",
    );

    // Names of columns with their keys, targets first: of two equal names, the second is reported.
    let mut names: Vec<(String, &str)> = Vec::new();
    for (i, target) in recipe.targets.iter().enumerate() {
        names.push((format!("targets.{i}.name"), &target.name));
    }
    for (i, feature) in recipe.features.iter().enumerate() {
        names.push((format!("features.{i}.name"), &feature.name));
    }

    // A feature whose shape varies has a second column for the shape.
    let shapes: HashSet<String> = recipe
        .features
        .iter()
        .map(|feature| shape_column(&feature.name))
        .collect();

    let mut seen = HashSet::new();
    for (key, name) in names {
        faults.unless(
            is_plain_name(name),
            &key,
            format!("`{name}` is not a column name; allowed: a to z, then a to z, 0 to 9 and _"),
        );
        let is_of_rows = row_columns().any(|column| column.name == name);
        let free = !is_of_rows && name != SPLIT_COLUMN && !shapes.contains(name);
        faults.unless(
            free,
            &key,
            format!("`{name}` is the name of a column that feature rows already have"),
        );
        // In manifests and in SQL, features share a namespace with the metadata tables.
        let is_table = TABLES.contains(&name) || name.starts_with("raw_");
        faults.unless(
            !is_table || key.starts_with("targets"),
            &key,
            format!("`{name}` is the name of a table"),
        );
        faults.unless(
            seen.insert(name),
            &key,
            format!("`{name}` is used twice; names of targets and features must be unique"),
        );
    }
}

/// Reports whether a name is a to z, followed by a to z, 0 to 9 and _. Capitals would have to be quoted in SQL.
pub fn is_plain_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

fn targets(targets: &[TargetSpec], faults: &mut Faults) {
    for (index, target) in targets.iter().enumerate() {
        let key = format!("targets.{index}");
        faults.unless(
            !target.column.trim().is_empty(),
            &format!("{key}.column"),
            "is empty",
        );

        // The id of a class is its index in the list of classes, so class names must be unique.
        if let Some(classes) = &target.classes {
            let distinct = classes.iter().collect::<HashSet<_>>().len() == classes.len();
            let problem = "allowed: at least one class name, without duplicates";
            faults.unless(
                distinct && !classes.is_empty(),
                &format!("{key}.classes"),
                problem,
            );
        }
    }
}

fn split(dataset: Dataset, spec: &SplitSpec, faults: &mut Faults) {
    let sum: f64 = spec.fractions.iter().sum();
    let in_range = spec
        .fractions
        .iter()
        .all(|fraction| (0.0..=1.0).contains(fraction));
    let [training, validation, test] = spec.fractions;
    let problem = format!(
        "[{training}, {validation}, {test}] is invalid; allowed: three numbers from 0 to 1 that add up to 1"
    );
    faults.unless(
        in_range && (sum - 1.0).abs() <= FRACTION_SUM_ERROR_MAX,
        "split.fractions",
        problem,
    );

    let by_segment = if dataset == Dataset::Images {
        ""
    } else {
        ", segment, segment_stretched"
    };
    let problem =
        format!("folders have no official split; allowed: stratified, artist, column{by_segment}");
    faults.unless(
        spec.rule != SplitRule::Official || !dataset.is_of_folders(),
        "split.rule",
        problem,
    );

    match (&spec.column, spec.rule == SplitRule::Column) {
        (None, true) => faults.unless(
            false,
            "split.rule",
            "`column` requires split.column, the column that contains each row's split",
        ),
        (Some(_), false) => {
            faults.unless(false, "split.column", "is only used by rule = \"column\"")
        }
        _ => {}
    }

    // The other split rules determine the split of every clip, including duplicates.
    let drawn = matches!(spec.rule, SplitRule::Stratified | SplitRule::Artist);
    let problem = "only the rules stratified and artist can put duplicates into one split";
    faults.unless(
        drawn || spec.group_duplicates == GroupDuplicates::None,
        "split.group_duplicates",
        problem,
    );
}

fn audio(spec: &AudioSpec, faults: &mut Faults) {
    faults.within(
        Some(f64::from(spec.sample_rate_hz)),
        f64::from(MIN_HZ)..=f64::from(MAX_TO_HZ),
        "audio.sample_rate_hz",
    );

    let lengths = LENGTH_S_MIN..=CLIP_S_MAX;
    faults.within(spec.duration_s, lengths.clone(), "audio.duration_s");
    faults.within(
        Some(spec.max_duration_s),
        lengths.clone(),
        "audio.max_duration_s",
    );
    file_bytes(spec.max_file_bytes, "audio.max_file_bytes", faults);
    faults.within(spec.segment_s, lengths.clone(), "audio.segment_s");
    faults.within(spec.segment_hop_s, lengths, "audio.segment_hop_s");

    // A minimum length has no lower limit except 0. A value that is not above 0 is reported once, by `positive`, and
    // not by `within` as well.
    for (seconds, key) in [
        (Some(spec.min_duration_s), "audio.min_duration_s"),
        (spec.segment_min_s, "audio.segment_min_s"),
    ] {
        faults.positive(seconds, key);
        faults.within(
            seconds.filter(|s| *s > 0.0 && s.is_finite()),
            0.0..=CLIP_S_MAX,
            key,
        );
    }

    faults.unless(
        spec.segments_max != Some(0),
        "audio.segments_max",
        "0 is invalid; allowed: a whole number, 1 or more",
    );
    clip_lengths(spec, faults);
    segments(spec, faults);
    stretch(&spec.stretch, faults);
}

fn file_bytes(bytes: Option<u64>, key: &str, faults: &mut Faults) {
    let bytes = bytes.map(|bytes| bytes as f64);
    faults.within(bytes, 1.0..=FILE_BYTES_MAX as f64, key);
}

/// Checks the time stretch factors, which are stored as f32 in the `variant` of a row.
fn stretch(factors: &[f64], faults: &mut Faults) {
    let key = "audio.stretch";
    let problem = format!(
        "{} factors are too many; allowed: at most {STRETCHES_MAX}",
        factors.len()
    );
    faults.unless(factors.len() <= STRETCHES_MAX, key, problem);

    for &factor in factors {
        faults.within(Some(factor), STRETCH_MIN..=STRETCH_MAX, key);
        let problem =
            "1 is the recorded tempo, whose rows are always stored; allowed: other factors";
        faults.unless(factor as f32 != 1.0, key, problem);
    }

    let is_twice = factors
        .windows(2)
        .any(|pair| pair[0] as f32 == pair[1] as f32);
    faults.unless(!is_twice, key, "contains a factor twice");
}

/// Finds durations that are valid individually, but reject every clip in combination.
fn clip_lengths(spec: &AudioSpec, faults: &mut Faults) {
    if let Some(duration_s) = spec.duration_s.filter(|duration_s| *duration_s > 0.0) {
        let min = spec.min_duration_s;
        let problem = format!(
            "{duration_s} is shorter than audio.min_duration_s = {min}: every clip would be rejected"
        );
        faults.unless(min <= duration_s, "audio.duration_s", problem);

        let segment_s = spec.segment_s.unwrap_or(0.0);
        let problem = format!(
            "{segment_s} is longer than audio.duration_s = {duration_s}: no clip would have a segment"
        );
        faults.unless(segment_s <= duration_s, "audio.segment_s", problem);
    }

    let min = spec.min_duration_s;
    let problem = format!(
        "{} is not above audio.min_duration_s = {min}: every clip would be rejected",
        spec.max_duration_s
    );
    faults.unless(
        spec.max_duration_s > min || min >= CLIP_S_MAX,
        "audio.max_duration_s",
        problem,
    );
}

/// Checks that segment keys are only used together with the segment length, and limits the number of segments.
fn segments(spec: &AudioSpec, faults: &mut Faults) {
    match spec.segment_s {
        None => {
            for (given, key) in [
                (spec.segment_hop_s.is_some(), "audio.segment_hop_s"),
                (spec.segments_max.is_some(), "audio.segments_max"),
                (spec.segment_min_s.is_some(), "audio.segment_min_s"),
            ] {
                faults.unless(!given, key, "requires audio.segment_s");
            }
        }
        Some(segment_s) => {
            let fits = spec.segment_min_s.is_none_or(|min| min <= segment_s);
            let problem = format!("is longer than audio.segment_s = {segment_s}");
            faults.unless(fits, "audio.segment_min_s", problem);
            too_many_segments(spec, segment_s, faults);
        }
    }
}

/// Limits the number of segments of the longest allowed clip, because each segment is a row.
fn too_many_segments(spec: &AudioSpec, segment_s: f64, faults: &mut Faults) {
    // Report the key that determines the distance between segments.
    let (key, hop_s) = match spec.segment_hop_s {
        Some(hop_s) => ("audio.segment_hop_s", hop_s),
        None => ("audio.segment_s", segment_s),
    };

    // A stretched copy may have more segments than the clip.
    let stretch = spec.longest_stretch();
    let longest_s = spec.longest_s() * stretch;
    let segments = (longest_s / hop_s).min(spec.segments_max.map_or(f64::INFINITY, f64::from));
    // A length or factor out of range is reported as a fault of its own.
    let lengths = LENGTH_S_MIN..=CLIP_S_MAX;
    let is_sound = [hop_s, segment_s, spec.longest_s()]
        .iter()
        .all(|seconds| lengths.contains(seconds))
        && stretch <= 1.0 / STRETCH_MIN;

    let problem = format!(
        "{hop_s} cuts a clip of {longest_s} s into {segments:.0} segments, at most {SEGMENTS_MAX} are allowed; allowed: \
         {:.4} or more, or a smaller audio.segments_max, audio.duration_s or audio.max_duration_s",
        longest_s / SEGMENTS_MAX
    );
    faults.unless(!is_sound || segments <= SEGMENTS_MAX, key, problem);
}

fn shards(spec: &ShardSpec, faults: &mut Faults) {
    for (count, key) in [
        (spec.clips, "shards.clips"),
        (spec.row_group_rows, "shards.row_group_rows"),
    ] {
        faults.within(Some(count as f64), 1.0..=ROWS_MAX as f64, key);
    }
}
