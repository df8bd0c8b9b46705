use super::*;
use crate::recipe::SplitRule;

const OWN_EXPERIMENT: &str = r#"
name = "mine"
description = "x"
recipe = "demo"

[[variants]]
name = "as-in-document"
about = "leaky"
set = ["split.rule=stratified"]

[[variants]]
name = "wide"
about = "128 bands"
set = ["features.log_mel.n_mels=128"]

[[train]]
name = "crnn"
like = "fma-small"
set = ["train.epochs=2"]

[[claims]]
metric = "accuracy"
value = 0.5
train = "crnn"
split = "none"
says = "a half"
"#;

fn parse(text: &str) -> Result<ExperimentSource, PlainError> {
    let source = Source {
        origin: "mine.toml".to_owned(),
        text: text.to_owned(),
    };
    ExperimentSource::parse(source, None)
}

fn error(from: &str, to: &str) -> String {
    assert_eq!(OWN_EXPERIMENT.matches(from).count(), 1, "{from}");
    parse(&OWN_EXPERIMENT.replace(from, to))
        .expect_err(to)
        .to_string()
}

#[test]
fn errors_state_line_and_key() {
    parse(OWN_EXPERIMENT)
        .expect("sound")
        .check()
        .expect("sound");

    let no_training = "claims[0].train: no training has this name (did you mean `crnn`?)";
    let base = "variants.base.name: `base` is reserved for the unchanged recipe";
    for (from, to, said) in [
        (
            "recipe =",
            "recip =",
            "mine.toml:4: recip: unknown key (did you mean `recipe`?)",
        ),
        (
            "\nset = [\"train.epochs=2\"]",
            "\nset = \"train.epochs=2\"",
            "mine.toml:19: train.crnn.set: ",
        ),
        ("train = \"crnn\"", "train = \"crn\"", no_training),
        ("name = \"wide\"", "name = \"base\"", base),
        (
            "name = \"wide\"",
            "name = \"as-in-document\"",
            "another element has this name",
        ),
        ("name = \"wide\"", "name = \"../x\"", "a to z, 0 to 9"),
    ] {
        let message = error(from, to);
        assert!(message.contains(said), "{message}");
    }

    let message = error("value = 0.5", "value = 71.4");
    let whole = "mine.toml:23: claims[0].value: must be from 0 to 1";
    assert_eq!(message, whole);
}

#[test]
fn a_name_is_short_and_of_one_line() {
    let long = "x".repeat(65);
    for name in ["a\\nb", "a\\u001bb", "a b", "a/b", "ä", "", &long] {
        for (from, line) in [("name = \"wide\"", 12), ("name = \"crnn\"", 17)] {
            let message = error(from, &format!("name = \"{name}\""));
            assert!(
                message.starts_with(&format!("mine.toml:{line}: ")),
                "{message}"
            );
        }
    }

    let message = error("name = \"wide\"", &format!("name = \"{long}\""));
    assert!(
        message.contains("65 bytes are too long: at most 64 are allowed"),
        "{message}"
    );
    let longest = format!("name = \"{}\"", "x".repeat(64));
    parse(&OWN_EXPERIMENT.replace("name = \"wide\"", &longest)).expect("64 bytes");
}

#[test]
fn too_many_trainings_are_rejected() {
    let mut text = OWN_EXPERIMENT.to_owned();
    for number in 2..999 {
        text += &format!("[[variants]]\nname = \"v{number}\"\nabout = \"x\"\n");
    }
    parse(&text).expect("with the base 1,000");

    text += "[[variants]]\nname = \"v999\"\nabout = \"x\"\n";
    let message = parse(&text).expect_err("one more").to_string();
    assert!(message.starts_with("mine.toml:"), "{message}");
    assert!(
        message.ends_with(
            "variants: 1001 trainings (1 in the base and in each of 1000 variants): at most 1000 are allowed"
        ),
        "{message}"
    );
}

#[test]
fn modified_recipes_and_configurations_are_validated() {
    let source =
        parse(&OWN_EXPERIMENT.replace("n_mels=128", "n_mel=128")).expect("valid by itself");
    let found = source.check().expect_err("no such key");
    assert_eq!(found.to_string(), "variant wide");

    let source =
        parse(&OWN_EXPERIMENT.replace("train.epochs=2", "train.epoch=2")).expect("valid by itself");
    assert_eq!(
        source.check().expect_err("no such key").to_string(),
        "train crnn, variant base"
    );

    let source = parse(&OWN_EXPERIMENT.replace("like = \"fma-small\"", "like = \"fma-smal\""))
        .expect("sound");
    source.check().expect_err("no such configuration");
}

#[test]
fn variants_are_applied_in_order_and_the_documents_split_last() {
    let source = parse(OWN_EXPERIMENT).expect("sound");
    for (variant, split, sets) in [
        ("base", SplitKind::Recipe, &["split.seed=7"][..]),
        (
            "wide",
            SplitKind::AsInDocument,
            &[
                "features.log_mel.n_mels=128",
                "split.rule=stratified",
                "split.seed=7",
            ],
        ),
    ] {
        let recipe = source.recipe(variant, split, &["split.seed=7".to_owned()]);
        assert_eq!(recipe.expect("sound").sets, sets, "{variant}");
    }

    let own = OWN_EXPERIMENT.replace(
        "about = \"128 bands\"",
        "about = \"\"\nset_as_in_document = []",
    );
    let source = parse(&own).expect("sound");
    let recipe = source
        .recipe("wide", SplitKind::AsInDocument, &[])
        .expect("sound");
    assert_eq!(recipe.sets, ["features.log_mel.n_mels=128"]);
}

#[test]
fn a_variant_may_have_a_recipe_and_audio_of_its_own() {
    let source = parse(&OWN_EXPERIMENT.replace(
        "about = \"128 bands\"",
        "about = \"\"\nrecipe = \"fma-small\"\naudio = [\"small\"]",
    ))
    .expect("sound");

    for (variant, name, audio) in [
        ("as-in-document", "demo", &[][..]),
        ("wide", "fma-small", &["small"]),
        ("wide+as-in-document", "fma-small", &["small"]),
        ("as-in-document+wide", "fma-small", &["small"]),
    ] {
        let recipe = source.recipe(variant, SplitKind::Recipe, &[]);
        let recipe = recipe.expect("sound");
        assert_eq!(recipe.recipe.name, name, "{variant}");
        assert_eq!(recipe.data.audio, audio as &[&str], "{variant}");
    }
}

#[test]
fn joined_variants_use_a_split_that_their_rows_support() {
    let source = ExperimentSource::find("gtzan-segments").expect("shipped");
    for joined in ["stretched+fault-filtered", "fault-filtered+stretched"] {
        for (split, rule) in [
            (SplitKind::Recipe, SplitRule::Column),
            (SplitKind::AsInDocument, SplitRule::SegmentStretched),
        ] {
            let recipe = source.recipe(joined, split, &[]).expect(joined);
            assert_eq!(recipe.recipe.split.rule, rule, "{joined}");
        }
    }
}

#[test]
fn claims_match_their_variant_under_any_split() {
    let experiment = ExperimentSource::find("gtzan-segments")
        .expect("shipped")
        .experiment;

    for (done, wanted) in [
        (&[BASE][..], &["base 0.74", "stretched 0.92"][..]),
        (
            &[BASE, "fault-filtered"],
            &["base 0.74", "fault-filtered 0.74", "stretched 0.92"],
        ),
        (
            &["fault-filtered+stretched"],
            &["base 0.74", "fault-filtered+stretched 0.92"],
        ),
        // The variant `plain` has another feature, so its trainings use another model.
        (&["plain"], &["base 0.74", "stretched 0.92"]),
    ] {
        // The accuracy identifies which of the document's two models a returned claim is about.
        let claims = experiment.claims_beside(done).into_iter();
        let accuracies = claims.filter(|claim| claim.metric == ClaimMetric::Accuracy);
        let told = accuracies.map(|claim| format!("{} {}", claim.variant, claim.value));
        assert_eq!(told.collect::<Vec<_>>(), wanted, "{done:?}");
    }
}

#[test]
fn unknown_name_error_lists_valid_names() {
    let source = parse(OWN_EXPERIMENT).expect("sound");

    let variant = source
        .recipe("wid", SplitKind::Recipe, &[])
        .expect_err("none");
    assert_eq!(
        variant.to_string(),
        "--variant wid: mine has no such variant (did you mean `wide`?)"
    );

    let train = source
        .experiment
        .trainings(&["mlp".to_owned()])
        .expect_err("none");
    assert_eq!(
        train.to_string(),
        "--train mlp: mine has no such training; there are: crnn"
    );

    let none = ExperimentSource::find("fma-lrge")
        .expect_err("none")
        .to_string();
    assert!(none.contains("did you mean `fma-large`?"), "{none}");
}

#[test]
fn files_are_relative_to_the_experiment() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = OWN_EXPERIMENT.replace("recipe = \"demo\"", "recipe = \"r.toml\"");
    let file = folder.path().join("mine.toml");
    std::fs::write(&file, text).expect("room");
    let (_, demo) = crate::recipe::SHIPPED[0];
    std::fs::write(folder.path().join("r.toml"), demo).expect("room");

    let source = ExperimentSource::find(&file.to_string_lossy()).expect("sound");
    let recipe = source
        .recipe(BASE, SplitKind::Recipe, &[])
        .expect("beside it");

    assert_eq!(
        recipe.source,
        folder.path().join("r.toml").to_string_lossy()
    );
    assert_eq!(recipe.recipe.name, "demo");
}
