//! Tests of a recipe's error messages, of `--set` options and of the shipped recipes.

use super::{DbRefSpec, DbSpec, Dtype, Recipe, SHIPPED, Source};
use crate::canonical;
use crate::exit::PlainError;

/// The smallest recipe, eight lines; text appended by a test case starts at line 9.
const SMALLEST: &str = r#"
name = "mine"
[catalog]
dataset = "fma"
[[features]]
name = "log_mel"
op = "mel"
db = {}
"#;

/// A recipe of pictures.
const PICTURES: &str = r#"
name = "pictures"
[catalog]
dataset = "images"
[[features]]
name = "image"
op = "image"
width = 32
height = 24
"#;

fn parse(text: &str, sets: &[&str]) -> Result<Recipe, PlainError> {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Recipe::parse(text, "my.toml", &sets)
}

/// Loads the recipe of the given name and applies `--set` options.
fn load(name: &str, sets: &[&str]) -> Recipe {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    Recipe::load(name, &sets).expect("valid sets")
}

fn top_db(recipe: &Recipe) -> Option<f64> {
    recipe.features[0].db.as_ref()?.top_db
}

fn to_json(recipe: &Recipe) -> String {
    canonical::to_json(recipe).expect("plain struct")
}

/// Compares the error messages of all recipes in `errors.txt` with those listed there.
#[test]
fn errors_are_as_listed() {
    let mut recipe = "";
    let mut differences = String::new();
    for block in include_str!("errors.txt").split("\n\n") {
        if block.starts_with('#') {
            continue;
        }
        if let Some(name) = block.strip_prefix("recipe: ") {
            recipe = match name {
                "smallest" => SMALLEST,
                "without op" => SMALLEST
                    .strip_suffix("op = \"mel\"\ndb = {}\n")
                    .expect("its end"),
                "pictures" => PICTURES,
                "nothing" => "",
                _ => panic!("no recipe {name}"),
            };
            continue;
        }

        let (case, wanted) = block.split_once("\n=> ").expect("a case and its result");
        let (sets, lines): (Vec<&str>, Vec<&str>) =
            case.lines().partition(|line| line.starts_with("--set "));
        let sets: Vec<&str> = sets.iter().map(|set| &set["--set ".len()..]).collect();

        let text = format!("{recipe}{}\n", lines.join("\n"));
        let found = match parse(&text, &sets) {
            Ok(_) => "valid".to_owned(),
            Err(error) => error.to_string(),
        };
        if found != wanted.trim_end() {
            differences += &format!("{case}\n=> {found}\nbut expected: {wanted}\n\n");
        }
    }
    assert!(differences.is_empty(), "{differences}");
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
    assert_eq!(recipe.split.seed, 7);
    assert_eq!(recipe.features[0].n_mels, Some(96));
    assert_eq!(recipe.audio.duration_s, Some(15.0));
    let db = DbSpec {
        reference: DbRefSpec::Name("max".to_owned()),
        amin: 1e-10,
        top_db: None,
    };
    assert_eq!(recipe.features[0].db, Some(db));

    let sets = [
        "catalog.clean.labelled.where=track_genre_top = 'Rock'",
        "targets.genre.column=x",
        "audio.duration_s=none",
        "features.log_mel.normalize=none",
        "features.mfcc.norm=none",
        "features.log_mel.db.top_db=none",
    ];
    let recipe = load("demo", &sets);
    let predicate = recipe.catalog.clean[0].predicate.as_deref();
    assert_eq!(predicate, Some("track_genre_top = 'Rock'"));
    assert_eq!(recipe.targets[0].column, "x");
    assert_eq!(recipe.audio.duration_s, None);
    assert_eq!(recipe.features[0].normalize, super::Normalize::None);
    assert_eq!(recipe.features[1].norm, Some("none".into()));
    assert_eq!(top_db(&recipe), None);
}

#[test]
fn sets_reach_into_inline_tables() {
    let text = "name = \"mine\"\ncatalog = { dataset = \"fma\" }\nfeatures = [{ name = \"a\", op = \"mel\" }]\n";
    let sets = ["features.a.db.top_db=70", "catalog.require_audio=false"];
    let recipe = parse(text, &sets).expect("valid sets");

    assert_eq!(top_db(&recipe), Some(70.0));
    assert!(!recipe.catalog.require_audio);
}

#[test]
fn a_set_removes_an_element_by_its_name() {
    fn names(sets: &[&str]) -> (Vec<String>, Vec<String>) {
        let recipe = load("fma-large", sets);
        let features = recipe.features.into_iter().map(|feature| feature.name);
        let steps = recipe.catalog.clean.into_iter().map(|step| step.step);
        (features.collect(), steps.collect())
    }

    assert_eq!(names(&[]).0, ["log_mel", "mfcc"]);
    assert_eq!(names(&["features.mfcc=none"]).0, ["log_mel"]);
    let sets = ["features.log_mel=none", "features.mfcc.n_mfcc=13"];
    assert_eq!(names(&sets).0, ["mfcc"]);
    assert_eq!(names(&["catalog.clean.genres=none"]).1, ["labelled"]);

    let inline = "name = \"mine\"\ncatalog = { dataset = \"fma\" }\n\
                  features = [{ name = \"a\", op = \"mel\" }, { name = \"b\", op = \"mfcc\" }]\n";
    let recipe = parse(inline, &["features.a=none"]).expect("valid");
    assert_eq!(recipe.features[0].name, "b");
}

#[test]
fn an_edited_text_keeps_comments_and_marks_what_was_set() {
    let source = Source::find("demo").expect("shipped");
    let (recipe, text) = source
        .parse(&["split.seed=7".to_owned()])
        .expect("valid set");

    assert!(
        text.contains("seed = 7  # --set\n") && text.contains("# no artist in two splits"),
        "{text}"
    );
    assert_eq!(parse(&text, &[]).expect("a recipe"), recipe);
}

#[test]
fn dropped_rows_lack_what_a_step_requires() {
    for (recipe, step, reason) in [
        ("demo", "labelled", "without a genre"),
        ("fma-large", "labelled", "without a genre"),
        ("fma-large", "genres", "by step genres"),
        ("fma-large", "audio", "without audio"),
    ] {
        assert_eq!(load(recipe, &[]).reason_of_drop(step), reason);
    }
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
        "`fma-smal` is neither a shipped recipe nor a file (did you mean `fma-small`?)"
    );
}

#[test]
fn documented_example_is_valid() {
    let page = include_str!("../../../../docs/recipes.md");
    let (_, rest) = page.split_once("mine.toml <<'END'\n").expect("an example");
    let (example, _) = rest.split_once("\nEND\n").expect("its end");
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

    assert_eq!(to_json(&explicit), to_json(&absent));

    let changed = parse(SMALLEST, &["split.seed=43"]).expect("valid");
    assert_ne!(to_json(&changed), to_json(&absent));
}

#[test]
fn warnings_cover_leaks_rounding_and_empty_filters() {
    fn warnings(sets: &[&str]) -> Vec<String> {
        parse(SMALLEST, sets).expect("valid").warnings()
    }

    assert_eq!(warnings(&[]), [] as [&str; 0]);
    // Many edges of mel filters coincide with an FFT bin. Three filters have a weight there only because of rounding,
    // so they are not empty.
    let on_bins = [
        "audio.sample_rate_hz=8000",
        "features.log_mel.n_fft=240",
        "features.log_mel.n_mels=80",
        "features.log_mel.fmax=1000",
    ];
    for (sets, warning) in [
        (
            &["split.rule=stratified"][..],
            "split.rule: leaky: tracks of one artist or album fall into several splits",
        ),
        // librosa 0.11's filters.mel(sr=22050, n_fft=256, n_mels=128) has 20 rows of zeros.
        (
            &["features.log_mel.n_fft=256"],
            "features.log_mel.n_mels: 20 of 128 mel filters are empty: lower n_mels, or raise n_fft or fmin",
        ),
        (
            &on_bins,
            "features.log_mel.n_mels: 21 of 80 mel filters are empty: lower n_mels, or raise n_fft or fmin",
        ),
        (
            &["features.log_mel.op=mfcc", "features.log_mel.dtype=f16"],
            "features.log_mel.dtype: f16 rounds MFCC by up to 0.25: f32 is the default",
        ),
        (
            &["features.log_mel.frames=100"],
            "features.log_mel.frames: clips of every length are cut or padded to it: audio.duration_s is absent",
        ),
    ] {
        assert_eq!(warnings(sets), [warning]);
    }
}

#[test]
fn a_recipe_of_pictures_is_valid() {
    let recipe = parse(PICTURES, &[]).expect("valid");
    assert!(recipe.warnings().is_empty());
    let args = recipe.features[0].image().expect("valid");
    assert_eq!((args.shape(), args.dtype), ([3, 24, 32], Dtype::U8));
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
}

/// The default of `max_duration_s` does not change a recipe's hash, whether it is given or not.
#[test]
fn max_duration_affects_identity_only_if_not_default() {
    fn json_with(text: &str) -> String {
        to_json(&parse(&format!("{SMALLEST}{text}"), &[]).expect("sound"))
    }

    assert!(!json_with("").contains("max_duration_s"));
    assert_eq!(
        json_with("[audio]\nmax_duration_s = 10800.0\n"),
        json_with("[audio]\n")
    );
    assert!(json_with("[audio]\nmax_duration_s = 600\n").contains("\"max_duration_s\":600"));
}

/// Limits that a recipe does not set are not part of the recipe's hash.
#[test]
fn file_limits_affect_identity_only_if_set() {
    let plain = parse(SMALLEST, &[]).expect("sound");
    let json = to_json(&plain);
    assert!(
        !json.contains("max_file_bytes") && !json.contains("\"image\""),
        "{json}"
    );
    assert_eq!(plain.file_bytes_max(), crate::recipe::FILE_BYTES_MAX);

    let limited = parse(SMALLEST, &["audio.max_file_bytes=1000"]).expect("sound");
    assert_eq!(limited.file_bytes_max(), 1000);
    let json = to_json(&limited);
    assert!(json.contains("\"max_file_bytes\":1000"), "{json}");
}

#[test]
fn stretch_factors_are_ascending_and_omitted_if_empty() {
    let plain = parse(SMALLEST, &[]).expect("sound");
    let json = to_json(&plain);
    assert!(!json.contains("stretch"), "{json}");
    let none = parse(&format!("{SMALLEST}[audio]\nstretch = []\n"), &[]).expect("sound");
    assert_eq!(to_json(&none), json);

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
