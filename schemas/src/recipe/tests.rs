//! Tests of error messages, sets and the shipped recipes.

use super::{DbRefSpec, DbSpec, Dtype, Recipe, RecipeError, SHIPPED, Source};
use crate::canonical;

/// A recipe of eight lines; text appended by a test case starts at line 9.
const SMALLEST: &str = r#"
name = "mine"
[catalog]
dataset = "fma"
[[features]]
name = "log_mel"
op = "mel"
db = {}
"#;

fn parse(text: &str, sets: &[&str]) -> Result<Recipe, RecipeError> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Recipe::parse(text, "my.toml", &sets)
}

fn error(text: &str, sets: &[&str]) -> String {
    parse(text, sets).expect_err("a faulty recipe").to_string()
}

/// Returns the error after appending `text` to the smallest recipe.
fn added(text: &str) -> String {
    error(&format!("{SMALLEST}{text}\n"), &[])
}

fn with_set(set: &str) -> String {
    error(SMALLEST, &[set])
}

#[test]
fn unknown_key_error_states_line_and_nearest_keys() {
    assert_eq!(
        added("[audio]\nsample_rate = 8000"),
        "my.toml:10: audio.sample_rate: unknown key (did you mean `sample_rate_hz`?); allowed: sample_rate_hz, \
         duration_s, min_duration_s, max_duration_s, max_file_bytes, segment_s, segment_hop_s, segments_max, \
         segment_min_s, stretch, decode"
    );
    assert!(
        added("n_mel = 96").starts_with(
            "my.toml:9: features.log_mel.n_mel: unknown key (did you mean `n_mels`?); "
        )
    );

    assert_eq!(
        added("[split]\nxyz = 1"),
        "my.toml:10: split.xyz: unknown key; allowed: rule, fractions, seed, column, group_duplicates"
    );
    assert!(
        added("[audio.decode]\nroute = 1")
            .starts_with("my.toml:10: audio.decode.route: unknown key; allowed: path")
    );
}

#[test]
fn wrong_type_errors_list_allowed_values() {
    for (text, message) in [
        (
            "n_mels = \"96\"",
            "9: features.log_mel.n_mels: invalid type: string \"96\", expected a whole number, 0 or more",
        ),
        (
            "n_mels = -3",
            "9: features.log_mel.n_mels: invalid value: integer `-3`, expected a whole number, 0 or more",
        ),
        (
            "center = 1",
            "9: features.log_mel.center: invalid type: integer `1`, expected true or false",
        ),
        (
            "preset = \"librossa\"",
            "9: features.log_mel.preset: `librossa` is unknown (did you mean `librosa`?); allowed: librosa, torchaudio, kaldi, whisper",
        ),
        (
            "[audio]\nduration_s = \"30\"",
            "10: audio.duration_s: invalid type: string \"30\", expected a number",
        ),
        (
            "[split]\nfractions = [0.9, 0.1]",
            "10: split.fractions: invalid length 2, expected three numbers",
        ),
        (
            "[split]\nfractions = [0.8, 0.1, 0.1, 0.5]",
            "10: split.fractions: invalid length 4, expected three numbers",
        ),
        (
            "[shards]\ncompression = 3",
            "10: shards.compression: expected a string in quotes",
        ),
        ("[[features]]\nname = \"b\"", "9: features.b.op: is missing"),
        (
            "[[targets]]\nname = \"b\"",
            "9: targets.b.column: is missing",
        ),
        ("= 3", "9: unquoted keys cannot be empty"),
    ] {
        let found = added(text);
        assert!(
            found.starts_with(&format!("my.toml:{message}")),
            "{text}: {found}"
        );
    }

    assert_eq!(
        error("name = \"mine\"", &[]),
        "my.toml:1: catalog: is missing"
    );
    assert_eq!(
        error("name = \"mine\"\n[catalog]\ndataset = \"image\"", &[]),
        "my.toml:3: catalog.dataset: `image` is unknown (did you mean `images`?); allowed: fma, folders, images, table"
    );
}

#[test]
fn impossible_values_of_features_are_found_at_their_line() {
    for (text, message) in [
        (
            "n_mels = 0",
            "n_mels: 0 is out of range; allowed: 1 to 2048",
        ),
        ("n_fft = 1", "n_fft: 1 is out of range; allowed: 2 to 65536"),
        (
            "hop_length = 0",
            "hop_length: 0 is out of range; allowed: 1 to 1048576",
        ),
        (
            "win_length = 4096",
            "win_length: 4096 is longer than n_fft = 2048",
        ),
        (
            "window = \"han\"",
            "window: `han` is unknown (did you mean `hann`?); allowed: ",
        ),
        (
            "pad_mode = \"wrap\"",
            "pad_mode: `wrap` is unknown; allowed: ",
        ),
        (
            "norm = \"slany\"",
            "norm: `slany` is unknown (did you mean `slaney`?); allowed: slaney, none",
        ),
        (
            "power = -1",
            "power: allowed: above 0, at most 2; 1 is magnitude, 2 power",
        ),
        ("power = 1.5", "power: allowed before decibels: 1 or 2"),
        (
            "fmin = -5",
            "fmin: -5 is invalid; allowed: from 0 to below 11025 (half the sample rate)",
        ),
        (
            "fmax = 12000",
            "fmax: 12000 is invalid; allowed: above fmin = 0, at most 11025 (half the sample rate)",
        ),
        (
            "fmax = nan",
            "fmax: NaN is invalid; allowed: above fmin = 0, at most 11025 (half the sample rate)",
        ),
        ("n_mfcc = 20", "n_mfcc: op = \"mel\" does not use it"),
        (
            "frames = 0",
            "frames: 0 is out of range; allowed: 1 to 1048576",
        ),
        (
            "dim_order = \"mel,time\"",
            "dim_order: allowed: \"mel,frame\" or \"frame,mel\"",
        ),
        (
            "dtype = \"u8\"",
            "dtype: the range is unknown; allowed: f16, f32, or u8 with normalize = \"minmax\" or db with ref = \"max\" and top_db",
        ),
    ] {
        assert!(
            added(text).starts_with(&format!("my.toml:9: features.log_mel.{message}")),
            "{text}: {}",
            added(text)
        );
    }
}

#[test]
fn rules_between_keys_of_a_feature_hold() {
    let with_op = |text: &str| SMALLEST.replace("op = \"mel\"\ndb = {}", text);

    for (text, message) in [
        (
            "op = \"mel\"\ndtype = \"f16\"",
            "8: features.log_mel.dtype: linear power overflows f16",
        ),
        (
            "op = \"stft\"\nn_mels = 3",
            "8: features.log_mel.n_mels: op = \"stft\" does not use it",
        ),
        (
            "op = \"mfcc\"\nn_mfcc = 129",
            "8: features.log_mel.n_mfcc: 129 is out of range; allowed: 1 to n_mels = 128",
        ),
        (
            "op = \"mfcc\"\ndct_type = 4",
            "8: features.log_mel.dct_type: 4 is out of range; allowed: 1 to 3",
        ),
        (
            "op = \"mfcc\"\nlifter = -1",
            "8: features.log_mel.lifter: -1 is out of range; allowed: 0 to 1000000",
        ),
        (
            "op = \"mfcc\"\ndtype = \"u8\"",
            "8: features.log_mel.dtype: the range is unknown",
        ),
        (
            "op = \"mfcc\"\npreset = \"whisper\"",
            "8: features.log_mel.preset: `whisper` does not support op = \"mfcc\"",
        ),
        (
            "op = \"mel\"\ndb = { ref = \"min\" }",
            "8: features.log_mel.db.ref: allowed: \"max\" or a number above 0",
        ),
        (
            "op = \"mel\"\ndb = { amin = 0 }",
            "8: features.log_mel.db.amin: 0 is out of range",
        ),
        (
            "op = \"mel\"\n[features.db]\ntop_db = 0",
            "9: features.log_mel.db.top_db: 0 is invalid",
        ),
        (
            "op = \"mel\"\ndb = {}\ndelta = 1\nframes = 8",
            "10: features.log_mel.frames: 8 is out of range; allowed: 9 to",
        ),
    ] {
        let found = error(&with_op(text), &[]);
        assert!(
            found.starts_with(&format!("my.toml:{message}")),
            "{text}: {found}"
        );
    }

    let whisper = with_op("op = \"mel\"\npreset = \"whisper\"");
    assert_eq!(
        error(&whisper, &[]),
        "my.toml:8: features.log_mel.preset: `whisper` requires audio.sample_rate_hz = 16000"
    );
    parse(&whisper, &["audio.sample_rate_hz=16000"]).expect("whisper at its rate");

    let u8_of_decibels =
        with_op("op = \"mel\"\ndtype = \"u8\"\ndb = { ref = \"max\", top_db = 80 }");
    parse(&u8_of_decibels, &[]).expect("u8 where the range is known");
}

/// `recipe check` and the kernels use the same rules, so the kernels accept everything that passes the check.
#[test]
fn options_rejected_by_kernels_are_reported_with_their_line() {
    let with_op = |text: &str| SMALLEST.replace("op = \"mel\"\ndb = {}", text);

    for (text, message) in [
        // Kaldi's lowest band edge is 20 Hz by default.
        (
            "op = \"mel\"\npreset = \"kaldi\"\nfmax = 15",
            "9: features.log_mel.fmax: 15 is invalid; allowed: above fmin = 20, at most 11025 (half the sample rate)",
        ),
        (
            "op = \"mel\"\n[features.db]\ntop_db = 10001",
            "9: features.log_mel.db.top_db: 10001 is out of range; allowed: above 0, at most 10000",
        ),
        (
            "op = \"mel\"\npower = 1\npreset = \"whisper\"\n[audio]\nsample_rate_hz = 16000",
            "8: features.log_mel.power: allowed before Whisper's logarithm: 2",
        ),
        (
            "op = \"mfcc\"\nn_mels = 1\nn_mfcc = 1\ndct_type = 1",
            "10: features.log_mel.dct_type: 1 is invalid; allowed with n_mels = 1: 2 or 3",
        ),
        // An option without effect is reported as such, even if its value is unknown.
        (
            "op = \"stft\"\nnorm = \"slany\"",
            "8: features.log_mel.norm: op = \"stft\" does not use it",
        ),
        // A fault of a value that follows from a given option is reported at the line of the feature.
        (
            "op = \"mfcc\"\nn_mels = 10",
            "5: features.log_mel.n_mfcc: 20 is out of range; allowed: 1 to n_mels = 10",
        ),
        (
            "op = \"stft\"\nwin_length = 3\n[audio]\nduration_s = 3",
            "5: features.log_mel.hop_length: 0 is out of range; allowed: 1 to 1048576",
        ),
    ] {
        assert_eq!(error(&with_op(text), &[]), format!("my.toml:{message}"));
    }

    for text in [
        "op = \"mel\"\npreset = \"kaldi\"\nfmax = 21",
        "op = \"mel\"\n[features.db]\ntop_db = 10000",
    ] {
        parse(&with_op(text), &[]).expect("sound");
    }
}

#[test]
fn impossible_values_of_sections_are_found_at_their_line() {
    for (text, message) in [
        (
            "[split]\nfractions = [0.8, 0.1, 0.2]",
            "10: split.fractions: [0.8, 0.1, 0.2] is invalid",
        ),
        (
            "[split]\nfractions = [1.2, -0.1, -0.1]",
            "10: split.fractions: [1.2, -0.1, -0.1] is invalid",
        ),
        (
            "[split]\nrule = \"column\"",
            "10: split.rule: `column` requires split.column",
        ),
        (
            "[split]\ncolumn = \"fold\"",
            "10: split.column: is only used by rule = \"column\"",
        ),
        (
            "[split]\nrule = \"segment\"",
            "10: split.rule: `segment` requires audio.segment_s",
        ),
        (
            "[split]\nrule = \"official\"\ngroup_duplicates = true",
            "11: split.group_duplicates: only the rules",
        ),
        (
            "[audio]\nstretch = [0.85, 0.2]",
            "10: audio.stretch: 0.2 is out of range; allowed: 0.25 to 4",
        ),
        (
            "[audio]\nstretch = [nan]",
            "10: audio.stretch: NaN is out of range; allowed: 0.25 to 4",
        ),
        (
            "[audio]\nstretch = [0.85, 1.0]",
            "10: audio.stretch: 1 is the recorded tempo",
        ),
        (
            "[audio]\nstretch = [1.15, 0.85, 1.15]",
            "10: audio.stretch: contains a factor twice",
        ),
        (
            "[audio]\nstretch = [0.5, 0.6, 0.7, 0.8, 0.9, 1.1, 1.2, 1.3, 1.4]",
            "10: audio.stretch: 9 factors are too many; allowed: at most 8",
        ),
        (
            "[audio]\nstretch = 0.85",
            "10: audio.stretch: invalid type: floating point `0.85`, expected an array",
        ),
        (
            "[split]\nrule = \"segment\"\n[audio]\nsegment_s = 3\nsegments_max = 12\nstretch = [0.85]",
            "10: split.rule: `segment` does not assign stretched copies to a side: `segment_stretched` assigns them",
        ),
        (
            "[split]\nrule = \"segment_stretched\"\n[audio]\nsegment_s = 3\nsegments_max = 12",
            "10: split.rule: `segment_stretched` requires audio.stretch; without it, use `segment`",
        ),
        (
            "[split]\nrule = \"segment_stretched\"\n[audio]\nsegment_s = 3\nstretch = [0.85]",
            "10: split.rule: `segment_stretched` requires audio.segment_s, and audio.segments_max or audio.duration_s",
        ),
        (
            "[audio]\nsample_rate_hz = 4000",
            "10: audio.sample_rate_hz: 4000 is out of range; allowed: 8000 to 48000",
        ),
        (
            "[audio]\nduration_s = 0",
            "10: audio.duration_s: 0 is out of range; allowed: 0.001 to 10800",
        ),
        (
            "[audio]\nduration_s = inf",
            "10: audio.duration_s: inf is out of range; allowed: 0.001 to 10800",
        ),
        (
            "[audio]\nsegments_max = 3",
            "10: audio.segments_max: requires audio.segment_s",
        ),
        (
            "[audio]\nsegment_s = 3\nsegment_min_s = 4",
            "11: audio.segment_min_s: is longer than audio.segment_s = 3",
        ),
        (
            "[audio]\nduration_s = 2\nsegment_s = 3",
            "11: audio.segment_s: 3 is longer than audio.duration_s = 2",
        ),
        (
            "[shards]\nclips = 0",
            "10: shards.clips: 0 is out of range; allowed: 1 to 1048576",
        ),
        (
            "[shards]\nrow_group_rows = 0",
            "10: shards.row_group_rows: 0 is out of range; allowed: 1 to 1048576",
        ),
        (
            "[[features]]\nname = \"log_mel\"\nop = \"stft\"",
            "10: features.log_mel.name: `log_mel` is used twice",
        ),
        (
            "[[targets]]\nname = \"segment\"\ncolumn = \"x\"",
            "10: targets.segment.name: `segment` is the name of a column",
        ),
        (
            "[[targets]]\nname = \"log_mel_shape\"\ncolumn = \"x\"",
            "10: targets.log_mel_shape.name: `log_mel_shape` is the name of",
        ),
        (
            "[[targets]]\nname = \"Genre\"\ncolumn = \"x\"",
            "10: targets.Genre.name: `Genre` is not a column name",
        ),
        (
            "[[targets]]\nname = \"a\"\ncolumn = \"x\"\nclasses = [\"r\", \"r\"]",
            "12: targets.a.classes: allowed: at least one",
        ),
        (
            "[[catalog.clean]]\nstep = \"a\"",
            "9: catalog.clean.a: needs `where` (a predicate) or `sql`",
        ),
        (
            "[[catalog.clean]]\nstep = \"a\"\nwhere = \"b\"\nsql = \"c\"",
            "12: catalog.clean.a.sql: cannot be combined with `where`",
        ),
        (
            "[[catalog.clean]]\nstep = \"a\"\nwhere = \" \"",
            "11: catalog.clean.a.where: is empty",
        ),
    ] {
        assert!(
            added(text).starts_with(&format!("my.toml:{message}")),
            "{text}: {}",
            added(text)
        );
    }

    let folders = SMALLEST.replace("\"fma\"", "\"folders\"\nsubset = \"small\"");
    assert_eq!(
        error(&folders, &[]),
        "my.toml:5: catalog.subset: only dataset = \"fma\" has subsets"
    );

    let featureless = "features = []\nname = \"mine\"\n[catalog]\ndataset = \"fma\"\n";
    assert_eq!(
        error(featureless, &[]),
        "my.toml:1: features: is empty; at least one feature is required"
    );
}

#[test]
fn first_of_several_faults_is_reported() {
    assert!(added("n_mels = 0\n[audio]\nduration_s = 0").starts_with("my.toml:9: "));
    assert!(
        added("[audio]\nduration_s = 0\n[[features]]\nname = \"a\"\nop = \"mel\"\nn_mels = 0")
            .starts_with("my.toml:10: ")
    );
}

#[test]
fn sets_change_add_and_remove_values() {
    let sets = [
        "split.seed=7",
        "features.log_mel.n_mels=96",
        "features.log_mel.db.ref=max",
        "audio.duration_s = 15",
    ];
    let recipe = parse(SMALLEST, &sets).expect("valid sets");
    assert_eq!(
        (
            recipe.split.seed,
            recipe.features[0].n_mels,
            recipe.audio.duration_s
        ),
        (7, Some(96), Some(15.0))
    );
    let db = DbSpec {
        reference: DbRefSpec::Name("max".to_owned()),
        amin: 1e-10,
        top_db: None,
    };
    assert_eq!(recipe.features[0].db, Some(db));

    let load = |name: &str, sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        Recipe::load(name, &sets).expect("valid sets")
    };

    let recipe = load(
        "demo",
        &[
            "catalog.clean.labelled.where=track_genre_top = 'Rock'",
            "targets.genre.column=x",
            "audio.duration_s=none",
        ],
    );
    assert_eq!(
        recipe.catalog.clean[0].predicate.as_deref(),
        Some("track_genre_top = 'Rock'")
    );
    assert_eq!(
        (recipe.targets[0].column.as_str(), recipe.audio.duration_s),
        ("x", None)
    );

    let recipe = load(
        "demo",
        &[
            "features.log_mel.normalize=none",
            "features.mfcc.norm=none",
            "features.log_mel.db.top_db=none",
        ],
    );
    assert_eq!(recipe.features[0].normalize, super::Normalize::None);
    assert_eq!(recipe.features[1].norm, Some("none".into()));
    assert_eq!(
        recipe.features[0].db.as_ref().and_then(|db| db.top_db),
        None
    );
}

#[test]
fn sets_reach_into_inline_tables() {
    let text = "name = \"mine\"\ncatalog = { dataset = \"fma\" }\nfeatures = [{ name = \"a\", op = \"mel\" }]\n";
    let recipe = parse(
        text,
        &["features.a.db.top_db=70", "catalog.require_audio=false"],
    )
    .expect("valid sets");

    assert_eq!(
        recipe.features[0].db.as_ref().and_then(|db| db.top_db),
        Some(70.0)
    );
    assert!(!recipe.catalog.require_audio);
    assert!(error(text, &["features.a.n_mels=0"]).contains("features.a.n_mels: 0 is out of range"));

    let wrong = text.replace("op = \"mel\"", "op = \"mel\", n_mels = 0");
    assert!(error(&wrong, &[]).starts_with("my.toml:3: features.a.n_mels: "));
}

#[test]
fn set_errors_name_the_argument() {
    for (set, message) in [
        (
            "features.log_mel.n_mel=96",
            "features.log_mel.n_mel: unknown key (did you mean `n_mels`?); allowed: name, op,",
        ),
        (
            "features.log_mel.db.top=96",
            "features.log_mel.db.top: unknown key; allowed: ref, amin, top_db",
        ),
        (
            "features.log_mle.n_mels=96",
            "features.log_mle.n_mels: features has no element `log_mle` (did you mean `log_mel`?); there are: log_mel",
        ),
        (
            "features.log_mel.n_mels=many",
            "features.log_mel.n_mels: invalid type: string \"many\", expected a whole",
        ),
        (
            "features.log_mel.n_mels=0",
            "features.log_mel.n_mels: 0 is out of range; allowed: 1 to 2048",
        ),
        (
            "audio.duration_s=0.5",
            "audio.duration_s: 0.5 is shorter than audio.min_duration_s = 1: every clip would be rejected",
        ),
        (
            "audio.duration_s",
            "audio.duration_s: missing `=`: expected key=value",
        ),
        ("catalog.dataset=none", "catalog.dataset: is missing"),
        (
            "audio.duraton_s=none",
            "audio.duraton_s: nothing to remove: the recipe does not contain this key",
        ),
        (
            "features.mfcc=none",
            "features.mfcc: features has no element `mfcc`; there are: log_mel",
        ),
        ("features.log_mel=none", "features: "),
        (
            "features.log_mel=96",
            "features.log_mel: is a table: set one of its keys, such as features.log_mel.KEY=96, or",
        ),
        (
            "split=artist",
            "split: is a table: set one of its keys, such as split.rule=artist",
        ),
        (
            "audio=3",
            "audio: is a table: set one of its keys, such as audio.duration_s=3",
        ),
        (
            "features.log_mel.db=80",
            "features.log_mel.db: is a table: set one of its keys",
        ),
        ("name.first=x", "name.first: its parent is not a table"),
    ] {
        let found = with_set(set);
        assert!(
            found.starts_with(&format!("--set {set}: {message}")),
            "{found}"
        );
    }

    let two = error(SMALLEST, &["split.seed=1", "features.log_mel.n_mels=0"]);
    assert!(
        two.starts_with("--set features.log_mel.n_mels=0: "),
        "{two}"
    );
}

#[test]
fn a_set_removes_an_element_by_its_name() {
    let names = |sets: &[&str]| {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        let recipe = Recipe::load("fma-large", &sets).expect("valid sets");
        let steps: Vec<String> = recipe
            .catalog
            .clean
            .iter()
            .map(|step| step.step.clone())
            .collect();

        (
            recipe
                .features
                .iter()
                .map(|feature| feature.name.clone())
                .collect::<Vec<_>>(),
            steps,
        )
    };

    assert_eq!(names(&[]).0, ["log_mel", "mfcc"]);
    assert_eq!(names(&["features.mfcc=none"]).0, ["log_mel"]);
    assert_eq!(
        names(&["features.log_mel=none", "features.mfcc.n_mfcc=13"]).0,
        ["mfcc"]
    );
    assert_eq!(names(&["catalog.clean.genres=none"]).1, ["labelled"]);

    let inline = "name = \"mine\"\ncatalog = { dataset = \"fma\" }\n\
                  features = [{ name = \"a\", op = \"mel\" }, { name = \"b\", op = \"mfcc\" }]\n";
    assert_eq!(
        parse(inline, &["features.a=none"]).expect("valid").features[0].name,
        "b"
    );
}

#[test]
fn an_edited_text_keeps_comments_and_marks_what_was_set() {
    let source = Source::find("demo").expect("shipped");
    let (recipe, text) = source
        .parse(&["split.seed=7".to_owned()])
        .expect("valid set");

    assert!(
        text.contains("seed = 7  # --set\n") && text.contains("# no artist on two sides"),
        "{text}"
    );
    assert_eq!(
        Recipe::parse(&text, "again", &[]).expect("the edited text is a recipe"),
        recipe
    );
}

#[test]
fn shipped_recipes_are_found_by_name_and_valid() {
    for (name, _) in SHIPPED {
        let recipe = Recipe::load(name, &[]).expect("a shipped recipe");
        assert_eq!(recipe.name, name);
        assert!(!recipe.description.is_empty());
    }

    assert_eq!(
        Recipe::load("fma-smal", &[])
            .expect_err("no such recipe")
            .to_string(),
        "`fma-smal` is neither a shipped recipe nor a file (did you mean `fma-small`?); shipped recipes: demo, fma-large, \
         fma-small, fma-windows, gtzan-images, gtzan-published-images, gtzan-segments"
    );
}

#[test]
fn documented_example_is_valid() {
    let page = include_str!("../../../docs/recipes.md");
    let (_, rest) = page.split_once("```toml\n").expect("an example");
    let (example, _) = rest.split_once("```").expect("its end");
    assert_eq!(parse(example, &[]).expect("valid").name, "mine");
}

#[test]
fn an_explicit_default_is_the_same_recipe_as_an_absent_key() {
    let explicit = SMALLEST.replace(
        "db = {}",
        "db = { ref = 1, amin = 1e-10 }\npreset = \"librosa\"\nnormalize = \"none\"",
    );
    let sections = "[split]\nrule = \"artist\"\nfractions = [0.8, 0.1, 0.1]\nseed = 42\n[audio]\nsample_rate_hz = 22050\n\
                    min_duration_s = 1\n[shards]\nclips = 512\ncompression = \"zstd\"\n";

    let explicit = parse(&format!("{explicit}{sections}"), &[]).expect("valid");
    let absent = parse(SMALLEST, &[]).expect("valid");

    let json = |recipe: &Recipe| canonical::to_json(recipe).expect("plain struct");
    assert_eq!(json(&explicit), json(&absent));

    let changed = parse(SMALLEST, &["split.seed=43"]).expect("valid");
    assert_ne!(json(&changed), json(&absent));
}

#[test]
fn warnings_cover_leaks_rounding_and_empty_filters() {
    let warnings = |sets: &[&str]| parse(SMALLEST, sets).expect("valid").warnings();

    assert_eq!(warnings(&[]), [] as [&str; 0]);
    assert_eq!(
        warnings(&["split.rule=stratified"]),
        ["split.rule: leaky: tracks of one artist or album fall on several sides"]
    );

    // librosa 0.11's filters.mel(sr=22050, n_fft=256, n_mels=128) has 20 rows of zeros.
    assert_eq!(
        warnings(&["features.log_mel.n_fft=256"]),
        [
            "features.log_mel.n_mels: 20 of 128 mel filters are empty: lower n_mels, or raise n_fft or fmin"
        ]
    );

    // Many edges coincide with a bin. Three filters have a weight there only because of rounding, so they are not
    // empty.
    let on_bins = [
        "audio.sample_rate_hz=8000",
        "features.log_mel.n_fft=240",
        "features.log_mel.n_mels=80",
        "features.log_mel.fmax=1000",
    ];
    assert_eq!(
        warnings(&on_bins),
        [
            "features.log_mel.n_mels: 21 of 80 mel filters are empty: lower n_mels, or raise n_fft or fmin"
        ]
    );

    assert_eq!(
        warnings(&["features.log_mel.op=mfcc", "features.log_mel.dtype=f16"]),
        ["features.log_mel.dtype: f16 rounds MFCC by up to 0.25: f32 is the default"]
    );

    assert_eq!(
        warnings(&["features.log_mel.frames=100"]),
        [
            "features.log_mel.frames: clips of every length are cut or padded to it: audio.duration_s is absent"
        ]
    );
}

#[test]
fn pictures_and_audio_do_not_mix() {
    const IMAGES: &str = "name = \"pictures\"\n[catalog]\ndataset = \"images\"\n[[features]]\nname = \"image\"\n\
                          op = \"image\"\nwidth = 32\nheight = 24\n";
    let recipe = parse(IMAGES, &[]).expect("valid");
    assert!(recipe.warnings().is_empty());
    let args = recipe.features[0].image().expect("valid");
    assert_eq!((args.shape(), args.dtype), ([3, 24, 32], Dtype::U8));

    let refused = |sets: &[&str]| error(IMAGES, sets);

    assert_eq!(
        refused(&["audio.sample_rate_hz=44100"]),
        "--set audio.sample_rate_hz=44100: audio: dataset = \"images\" has no audio: remove this section"
    );
    assert_eq!(
        refused(&["catalog.dataset=folders"]),
        "--set catalog.dataset=folders: features.image.op: `image` requires dataset = \"images\"; for a picture of a \
         spectrogram, use picture"
    );
    assert_eq!(
        refused(&["features.image.width=none"]),
        "--set features.image.width=none: features.image.width: is missing: all images are stored in one size, in pixels"
    );

    for (set, key) in [
        (
            "features.image.width=0",
            "features.image.width: 0 is out of range",
        ),
        (
            "features.image.n_mels=8",
            "features.image.n_mels: op = \"image\" does not use it",
        ),
        (
            "features.image.filter=bicubic",
            "features.image.filter: `bicubic` is unknown",
        ),
        (
            "features.image.crop=[0, 0, 1, 1, 1]",
            "features.image.crop: invalid length 5, expected four numbers",
        ),
        (
            "features.image.crop=[0, 0, 0, 1]",
            "features.image.crop: allowed: [left, top,",
        ),
        (
            "features.image.crop=[20000, 0, 100, 100]",
            "features.image.crop: exceeds every picture that can be decoded: it ends at column 20100 and row 100",
        ),
        ("split.rule=segment", "split.rule: `segment` is for audio"),
        (
            "split.rule=segment_stretched",
            "split.rule: `segment_stretched` is for audio",
        ),
        (
            "split.rule=official",
            "split.rule: folders have no official split",
        ),
        (
            "split.group_duplicates=true",
            "split.group_duplicates: only audio is hashed",
        ),
    ] {
        let refused = refused(&[set]);
        assert!(refused.contains(key), "{set}: {refused}");
    }

    let mel = SMALLEST.replace("\"fma\"", "\"images\"");
    let mel = error(&mel, &[]);
    assert!(mel.contains("has no audio for `mel`"), "{mel}");
}

#[test]
fn recipe_errors_are_one_line_with_location() {
    for (name, text) in SHIPPED {
        for cut in (0..text.len()).step_by(7) {
            let broken = format!("{}{}", &text[..cut], &text[(cut + 5).min(text.len())..]);
            if let Err(error) = parse(&broken, &[]) {
                let line = error.to_string();
                assert!(
                    line.starts_with("my.toml:") && !line.contains('\n'),
                    "{name} without 5 bytes at {cut}: {line}"
                );
            }
        }
    }

    assert_eq!(
        error("audio.duration_s = 3\naudio.duratio_s = 0", &[])
            .split(' ')
            .next(),
        Some("my.toml:2:")
    );
}

/// Values that would require gigabytes or hours are rejected before a run, with key, line and allowed values.
#[test]
fn oversized_numbers_are_rejected_with_their_line() {
    for (text, message) in [
        (
            "[audio]\nsegment_s = 1e-7",
            "10: audio.segment_s: 1e-7 is out of range; allowed: 0.001 to 10800",
        ),
        (
            "[audio]\nsegment_s = 3e-5",
            "10: audio.segment_s: 3e-5 is out of range; allowed: 0.001 to 10800",
        ),
        (
            "[audio]\nsegment_s = 0.05",
            "10: audio.segment_s: 0.05 cuts a clip of 10800 s into 216000 segments, at most 100000 are allowed; \
             allowed: 0.1080 or more, or a smaller audio.segments_max, audio.duration_s or audio.max_duration_s",
        ),
        (
            "[audio]\nduration_s = 600\nsegment_s = 3\nsegment_hop_s = 0.005",
            "12: audio.segment_hop_s: 0.005 cuts a clip of 600 s into 120000 segments",
        ),
        (
            "[audio]\nduration_s = 1e300",
            "10: audio.duration_s: 1e300 is out of range; allowed: 0.001 to 10800",
        ),
        (
            "[audio]\nduration_s = 1e-300",
            "10: audio.duration_s: 1e-300 is out of range; allowed: 0.001 to 10800",
        ),
        (
            "[audio]\nduration_s = nan",
            "10: audio.duration_s: NaN is out of range; allowed: 0.001 to 10800",
        ),
        (
            "[audio]\nmin_duration_s = 1e300",
            "10: audio.min_duration_s: 1e300 is out of range; allowed: 0 to 10800",
        ),
        (
            "[audio]\nmax_duration_s = 10801",
            "10: audio.max_duration_s: 10801 is out of range; allowed: 0.001 to 10800",
        ),
        (
            "[audio]\nmax_duration_s = nan",
            "10: audio.max_duration_s: NaN is out of range; allowed: 0.001 to 10800",
        ),
        (
            "[audio]\nmax_duration_s = 1.0",
            "10: audio.max_duration_s: 1 is not above audio.min_duration_s = 1: every clip would be rejected",
        ),
        (
            "n_fft = 65537",
            "9: features.log_mel.n_fft: 65537 is out of range; allowed: 2 to 65536",
        ),
        (
            "n_mels = 2049",
            "9: features.log_mel.n_mels: 2049 is out of range; allowed: 1 to 2048",
        ),
        (
            "hop_length = 1",
            "9: features.log_mel.hop_length: a row of 10800 s would have 128 x 238140001 values, 121.9 GB, more than the \
             limit of 2.1 GB; allowed: a longer hop_length, or a smaller audio.max_duration_s, audio.duration_s or \
             audio.segment_s",
        ),
        (
            "frames = 1048576\nn_mels = 1000",
            "9: features.log_mel.frames: a row of 10800 s would have 1000 x 1048576 values, 4.2 GB, more than the limit of \
             2.1 GB; allowed: fewer frames",
        ),
        (
            "[shards]\nclips = 2000000",
            "10: shards.clips: 2000000 is out of range; allowed: 1 to 1048576",
        ),
        (
            "[shards]\nrow_group_rows = 2000000",
            "10: shards.row_group_rows: 2000000 is out of range",
        ),
    ] {
        assert!(
            added(text).starts_with(&format!("my.toml:{message}")),
            "{text}: {}",
            added(text)
        );
    }

    let mfcc = SMALLEST.replace(
        "op = \"mel\"\ndb = {}",
        "op = \"mfcc\"\nn_mels = 2000\nn_mfcc = 1025",
    );
    assert!(error(&mfcc, &[]).starts_with(
        "my.toml:9: features.log_mel.n_mfcc: 1025 is out of range; allowed: 0 to 1024"
    ));
}

/// Values used with archives of real music are accepted.
#[test]
fn plausible_large_numbers_are_accepted() {
    for text in [
        "[audio]\nsegment_s = 0.11",
        "[audio]\nsegment_s = 0.01\nsegments_max = 100",
        "[audio]\nduration_s = 10800",
        "[audio]\nduration_s = 30\nsegment_s = 0.025\nsegment_hop_s = 0.01",
        "hop_length = 1\n[audio]\nduration_s = 30",
        "n_fft = 65536\nn_mels = 2048\nhop_length = 4096",
        "[[features]]\nname = \"b\"\nop = \"stft\"",
    ] {
        let recipe = parse(&format!("{SMALLEST}{text}\n"), &[]);
        assert!(
            recipe.is_ok(),
            "{text}: {:?}",
            recipe.err().map(|error| error.to_string())
        );
    }
}

/// The default of `max_duration_s` does not change the identity of a recipe, whether it is given or not.
#[test]
fn max_duration_affects_identity_only_if_not_default() {
    let json = |text: &str| {
        canonical::to_json(&parse(&format!("{SMALLEST}{text}"), &[]).expect("sound")).expect("json")
    };
    assert!(!json("").contains("max_duration_s"));
    assert_eq!(
        json("[audio]\nmax_duration_s = 10800.0\n"),
        json("[audio]\n")
    );
    assert!(json("[audio]\nmax_duration_s = 600\n").contains("\"max_duration_s\":600"));
}

/// Limits that a recipe does not set are not part of its identity.
#[test]
fn file_limits_affect_identity_only_if_set() {
    let plain = parse(SMALLEST, &[]).expect("sound");
    let json = canonical::to_json(&plain).expect("JSON");
    assert!(
        !json.contains("max_file_bytes") && !json.contains("\"image\""),
        "{json}"
    );
    assert_eq!(plain.file_bytes_max(), crate::recipe::FILE_BYTES_MAX);

    let limited = parse(SMALLEST, &["audio.max_file_bytes=1000"]).expect("sound");
    assert_eq!(limited.file_bytes_max(), 1000);
    let json = canonical::to_json(&limited).expect("JSON");
    assert!(json.contains("\"max_file_bytes\":1000"), "{json}");

    for (set, problem) in [
        ("audio.max_file_bytes=0", "audio.max_file_bytes"),
        ("audio.max_file_bytes=536870913", "audio.max_file_bytes"),
        (
            "image.max_pixels=10",
            "only dataset = \"images\" has pictures",
        ),
    ] {
        let found = with_set(set);
        assert!(found.contains(problem), "{found}");
    }
}

#[test]
fn stretch_factors_are_ascending_and_omitted_if_empty() {
    let plain = parse(SMALLEST, &[]).expect("sound");
    let json = canonical::to_json(&plain).expect("JSON");
    assert!(!json.contains("stretch"), "{json}");
    let none = parse(&format!("{SMALLEST}[audio]\nstretch = []\n"), &[]).expect("sound");
    assert_eq!(canonical::to_json(&none).expect("JSON"), json);

    let recipe = parse(SMALLEST, &["audio.stretch=[1.15, 0.85]"]).expect("sound");
    assert_eq!(recipe.audio.stretch, [0.85, 1.15]);
    assert_eq!(recipe.audio.longest_stretch(), 1.0 / 0.85);
    assert_eq!(plain.audio.longest_stretch(), 1.0);
    let removed = parse(
        &format!("{SMALLEST}[audio]\nstretch = [0.85]\n"),
        &["audio.stretch=none"],
    );
    assert!(removed.expect("sound").audio.stretch.is_empty());
}

#[test]
fn stretched_copies_count_among_the_segments() {
    let audio = "[audio]\nsegment_s = 0.11\nmax_duration_s = 10800\n";
    parse(&format!("{SMALLEST}{audio}"), &[]).expect("98,182 segments");
    let found = added(&format!("{audio}stretch = [0.85]"));
    assert!(
        found.contains("audio.segment_s: 0.11 cuts a clip of"),
        "{found}"
    );
}
