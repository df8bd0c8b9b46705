//! Tests of report pages about synthetic runs.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;
use wavemill_loader::{Split, Store};
use wavemill_pages::{Chart, Part, Plot, Section};
use wavemill_schemas::recipe::{Dtype, SplitRule};
use wavemill_schemas::run::{Noun, RunDir, RunResult};
use wavemill_scores::metrics::{Label, Predictions, Row, count_leaks, score_split};
use wavemill_scores::records::Entry;

use super::*;
use crate::fixture::{Fixture, RowId};

/// Number of tracks in the predictions of a synthetic run.
const TRACKS: usize = 60;

/// Adds a row of a track.
fn push(predictions: &mut Predictions, track: usize, label: Label, probabilities: &[f32]) {
    let row = Row {
        index: track as u64,
        clip_key: &Fixture::clip_key(track),
        segment: 0,
        track_id: track as i64,
        artist_id: Some(track as i64 / 2),
        label,
        probabilities,
    };
    predictions.push(&row).expect("a row");
}

/// Creates predictions for tracks of three classes. Each `every`-th track is predicted as the next class.
fn predictions(every: usize) -> Predictions {
    let classes = ["Rock", "Jazz", "Folk"].map(str::to_owned);
    let mut predictions = Predictions::single("genre", &classes);

    for track in 0..TRACKS {
        let truth = track % 3;
        let is_wrong = track % every == 0;
        let guess = if is_wrong { (truth + 1) % 3 } else { truth };
        let sure = 0.5 + 0.4 * (track as f32 / TRACKS as f32);

        let mut probabilities = [(1.0 - sure) / 2.0; 3];
        probabilities[guess] = sure;

        push(&mut predictions, track, Label::Class(truth), &probabilities);
    }

    predictions
}

/// Creates predictions for tracks with one of three labels. The label of each `every`-th track gets a low probability.
fn several(every: usize) -> Predictions {
    let labels = ["Rock", "Jazz", "Folk"].map(str::to_owned);
    let mut predictions = Predictions::multi("genres_all", &labels);

    for track in 0..TRACKS {
        let mut holds = [false; 3];
        holds[track % 3] = true;
        let mut probabilities = [0.1; 3];
        probabilities[track % 3] = if track % every == 0 { 0.2 } else { 0.9 };

        push(&mut predictions, track, Label::Set(&holds), &probabilities);
    }

    predictions
}

/// Creates the metadata of a file written by `eval`.
fn about() -> rows::RowsMetadata {
    let about = json!({
        "format": 1, "run": "x", "step": 20, "model": "lstm", "side": "test", "split_rule": "artist", "feature": "log_mel",
        "feature_id": "1", "manifest": "2", "targets": [],
        "map": {"method": "t-SNE", "perplexity": 20.0, "seed": 0, "steps": 500, "rows_of_side": 100},
    });
    serde_json::from_value(about).expect("metadata")
}

fn line(kind: &str, epoch: u64, step: u64, unix_s: f64, values: &[(&str, f64)]) -> Entry {
    let mut named = BTreeMap::new();
    for (name, value) in values {
        named.insert((*name).to_owned(), *value);
    }

    Entry {
        kind: kind.to_owned(),
        step,
        epoch,
        values: named,
        notes: BTreeMap::new(),
        unix_s,
    }
}

/// Writes a run with the accuracy of its only epoch, unless it has none.
fn write_trial(path: &Path, config: &str, accuracy: Option<f64>) -> RunDir {
    let run = RunDir::take(path).expect("room");
    run.write_config(config).expect("room");
    if let Some(accuracy) = accuracy {
        let entry = line("epoch", 0, 10, 1.0, &[("validation/accuracy", accuracy)]);
        let json = serde_json::to_string(&entry).expect("JSON") + "\n";
        std::fs::write(run.log(), json).expect("room");
    }
    run
}

/// Checks that a page contains each of these texts.
fn assert_says(html: &str, texts: &[&str]) {
    for text in texts {
        assert!(html.contains(text), "{text}: {html}");
    }
}

/// Creates the log of a run of three epochs with ten steps each.
fn log() -> Vec<Entry> {
    let mut log = vec![line("start", 0, 0, 100.0, &[])];
    log[0].notes.insert("device".to_owned(), "Cpu".to_owned());

    for epoch in 0..3 {
        for step in 0..10 {
            let done = epoch * 10 + step + 1;
            let values = [("loss", 2.0 / done as f64), ("lr", 0.001)];
            log.push(line("step", epoch, done, 100.0 + done as f64, &values));
        }

        let values = [
            ("training/loss", 1.0 / (epoch + 1) as f64),
            ("training/accuracy", 0.5),
            ("validation/loss", 1.2),
            ("validation/accuracy", 0.6),
            ("validation/macro_f1", 0.55),
            ("data_wait_s", 2.5),
        ];

        let done = (epoch + 1) * 10;
        log.push(line("epoch", epoch, done, 100.0 + done as f64, &values));
    }

    log
}

fn result(predictions: &Predictions) -> RunResult {
    let leaks = count_leaks(SplitRule::Artist, Split::Test, [], []);
    let evaluation = score_split(predictions, 7, leaks).expect("labels");

    RunResult {
        model: "lstm".to_owned(),
        parameters: 12_345,
        start: "from scratch".to_owned(),
        feature: "log_mel".to_owned(),
        feature_id: "1".to_owned(),
        manifest_hash: "2".to_owned(),
        config_hash: "3".to_owned(),
        world_size: 1,
        batch_norm_per_rank: false,
        ended_by_sweep: false,
        epochs: 3,
        steps: 30,
        temperatures: Vec::new(),
        best_epoch: Some(1),
        training_rows: 100,
        damaged_rows: 0,
        warnings: vec!["something to know".to_owned()],
        validation: Vec::new(),
        test: vec![evaluation],
        test_asked: 1,
    }
}

/// Creates a completed run without files written by `eval`.
fn run(name: &str, every: usize) -> RunRecord {
    RunRecord {
        name: name.to_owned(),
        path: Path::new("runs").join(name),
        config: toml::from_str(&format!(
            "seed = 7\n[model]\nname = \"lstm\"\ndropout = 0.{every}\n"
        ))
        .expect("TOML"),
        log: log(),
        result: Some(result(&predictions(every))),
        scores: Vec::new(),
        predictions: None,
        map: None,
        store: None,
    }
}

/// Creates a completed run with both files written by `eval`.
fn evaluated(name: &str, every: usize) -> RunRecord {
    let own = predictions(every);
    let truths: Vec<Option<usize>> = (0..TRACKS).map(|track| Some(track % 3)).collect();
    let places = (0..TRACKS).map(|track| Some([track as f32, (track % 7) as f32]));

    RunRecord {
        predictions: Some(PredictionRows {
            about: about(),
            targets: vec![own],
        }),
        map: Some(MapRows {
            about: about(),
            clip_keys: (0..TRACKS).map(|track| format!("{track}.mp3")).collect(),
            track_ids: (0..TRACKS as i64).collect(),
            places: places.collect(),
            targets: vec![MapTarget {
                name: "genre".to_owned(),
                classes: ["Rock", "Jazz", "Folk"].map(str::to_owned).to_vec(),
                predicted: truths.clone(),
                truths,
            }],
        }),
        ..run(name, every)
    }
}

fn titles_of(page: &Page) -> Vec<&str> {
    let sections = page.sections.iter();
    sections.map(|section| section.title.as_str()).collect()
}

/// Returns the text of all paragraphs of a section.
fn paragraphs(section: &Section) -> String {
    let mut text = String::new();
    for part in &section.parts {
        if let Part::Text(message) | Part::Warning(message) = part {
            text += message;
            text.push('\n');
        }
    }
    text
}

fn titled<'a>(page: &'a Page, title: &str) -> &'a Section {
    let mut sections = page.sections.iter();
    let found = sections.find(|section| section.title == title);
    found.unwrap_or_else(|| panic!("no section {title}: {:?}", titles_of(page)))
}

fn assert_section_says(page: &Page, title: &str, message: &str) {
    let text = paragraphs(titled(page, title));
    assert!(text.contains(message), "{title}: {text}");
}

#[test]
fn a_run_without_files_of_eval_names_the_commands() {
    let page = page(&[run("lstm-1", 5)]);
    let wanted = [
        "Run",
        "Learning curves",
        "Scores",
        "Confusion matrix",
        "Scores per class",
        "Calibration",
        "Embedding map",
        "Misclassified tracks",
        "Configuration",
    ];
    assert_eq!(titles_of(&page), wanted);

    let command = "Create it with `wavemill train eval runs/lstm-1 --predictions runs/lstm-1/predictions.parquet`.";
    for title in ["Scores per class", "Calibration", "Misclassified tracks"] {
        assert_section_says(&page, title, command);
    }
    assert_section_says(
        &page,
        "Embedding map",
        "eval runs/lstm-1 --map runs/lstm-1/map.parquet`",
    );
    assert_section_says(&page, "Run", "lstm-1: something to know");

    let html = page.to_html();
    // 48 of 60 predictions are right: the 12 tracks whose id is a multiple of five are misclassified.
    assert_says(
        &html,
        &[
            ">0.800</strong>",
            "48 of 60 (80.0 %) are on the diagonal.",
            "The weights of epoch 2 were kept.",
            "7.50 s",
            "25.0 %",
        ],
    );
}

#[test]
fn mistakes_are_the_wrong_tracks_with_the_surest_first() {
    let page = page(&[evaluated("lstm-1", 5)]);
    let section = titled(&page, "Misclassified tracks");
    let message = paragraphs(section);
    assert!(message.contains("12 of 60 tracks (20.0 %)"), "{message}");
    assert!(
        message.contains("does not record the location of its store"),
        "{message}"
    );

    let mut tables = section.parts.iter().filter_map(|part| match part {
        Part::Table(table) => Some(table),
        _ => None,
    });

    let table = tables.next().expect("a table");
    assert_eq!(table.rows.len(), 12);
    let wanted = [
        "track",
        "true class",
        "predicted class",
        "confidence",
        "probability of true class",
        "clip",
    ];
    assert_eq!(table.head, wanted);

    // Track 55 has class 1 (Jazz) and was predicted as class 2 (Folk).
    let first: Vec<String> = table.rows[0]
        .iter()
        .map(|cell| format!("{cell:?}"))
        .collect();
    let wanted = [
        "Text(\"55\")",
        "Text(\"Jazz\")",
        "Text(\"Folk\")",
        "Measure(\"0.867\")",
    ];
    assert_eq!(first[..4], wanted);
}

/// Creates a run with predictions for the rows of a store in `root`, of which a third are wrong.
fn on_store(fixture: &Fixture, root: &Path) -> RunRecord {
    fixture.write(root);
    let store = Store::open(root, None).expect("a store");
    let mut run = evaluated("lstm-1", 3);
    if let Some(rows) = &mut run.predictions {
        rows.about.manifest = store.manifest_hash().to_owned();
    }
    run.store = Some(RunStore {
        root: root.to_owned(),
        version: 1,
    });
    run
}

/// Returns the pictures in the section about mistakes.
fn gallery(page: &Page) -> Vec<Chart> {
    let parts = titled(page, "Misclassified tracks").parts.iter();
    let charts = parts.filter_map(|part| match part {
        Part::Charts(charts) => Some(charts.clone()),
        _ => None,
    });
    charts.flatten().collect()
}

#[test]
fn surest_mistakes_are_shown_as_spectrograms() {
    for (ragged, frames_first) in [(false, false), (true, true)] {
        let fixture = Fixture {
            ragged,
            frames_first,
            ..Fixture::default()
        };
        let folder = tempfile::tempdir().expect("a folder");
        let page = page(&[on_store(&fixture, folder.path())]);
        let message = "The 12 with the highest confidence: log_mel of the first row of each.";
        assert_section_says(&page, "Misclassified tracks", message);

        let charts = gallery(&page);
        assert_eq!(charts.len(), 12);
        let shown = [&charts[0].title, &charts[0].note];
        let wanted = [
            "Rock, predicted as Jazz with probability 0.880",
            "000/000057.mp3",
        ];
        assert_eq!(shown, wanted);

        let Plot::HeatMap(map) = &charts[0].plot else {
            panic!("{charts:?}")
        };
        let frames = fixture.frames(57);
        assert_eq!((map.columns, map.values.len()), (frames, 6 * frames));
        let row = RowId {
            clip: 57,
            segment: 0,
            variant: 1.0,
        };
        for (value, wanted) in map.values.iter().zip((fixture.values)(&fixture, row)) {
            // f16 has 11 significant bits.
            assert!((value - wanted).abs() < 1e-3, "{value}, not {wanted}");
        }
        assert_eq!((&*map.across.name, &*map.up.name), ("time (s)", "mel band"));
        let span_s = (frames * 512) as f64 / 22_050.0;
        assert!((map.across.to - span_s).abs() < 1e-9);
    }
}

#[test]
fn surest_mistakes_are_shown_as_pictures() {
    let fixture = Fixture {
        dtype: Dtype::U8,
        shape: [3, 400 * 640],
        picture: Some([400, 640]),
        clips: 60,
        // Channels of one colour: red 1, green 0.6, blue 0.2.
        values: |fixture, _| {
            let pixels = fixture.shape[1];
            (0..3 * pixels)
                .map(|place| 1.0 - 0.4 * (place / pixels) as f32)
                .collect()
        },
        ..Fixture::default()
    };
    let folder = tempfile::tempdir().expect("a folder");
    let page = page(&[on_store(&fixture, folder.path())]);

    let charts = gallery(&page);
    assert_eq!(charts.len(), 12);
    let Plot::Photo(photo) = &charts[0].plot else {
        panic!("{charts:?}")
    };
    assert_eq!((photo.width, photo.pixels.len()), (320, 320 * 200));
    assert!(photo.pixels.iter().all(|pixel| *pixel == [255, 153, 51]));
    let html = page.to_html();
    assert_says(
        &html,
        &[
            "<img class=\"photo\" alt=\"Rock, predicted as Jazz",
            "base64,iVBOR",
        ],
    );
}

#[test]
fn pictures_that_cannot_be_read_are_explained() {
    let says = |run: RunRecord, message: &str| {
        let page = page(&[run]);
        assert_section_says(&page, "Misclassified tracks", message);
        assert_eq!(gallery(&page), []);
    };
    says(
        evaluated("lstm-1", 3),
        "Pictures are not available: the run does not record the location of its store.",
    );

    let folder = tempfile::tempdir().expect("a folder");
    let run = on_store(&Fixture::default(), folder.path());
    let mut other = run.clone();
    other.predictions.as_mut().expect("rows").about.manifest = "2".to_owned();
    says(
        other,
        "Pictures are not available: the predictions are for another version of the store than the run was trained on.",
    );
    let two = page(&[run.clone(), evaluated("other", 3)]);
    assert_eq!(gallery(&two), [], "only the page of one run has pictures");

    let samples = tempfile::tempdir().expect("a folder");
    let fixture = Fixture {
        shape: [1, 10],
        samples: true,
        dtype: Dtype::S16,
        ..Fixture::default()
    };
    let without = page(&[on_store(&fixture, samples.path())]);
    assert_eq!(gallery(&without), []);
    let text = paragraphs(titled(&without, "Misclassified tracks"));
    assert!(!text.contains("Pictures"), "samples have none: {text}");

    let feature = folder.path().join("data/fixture/features/log_mel");
    std::fs::remove_dir_all(feature.join("split=test")).expect("a folder");
    says(run.clone(), "split=test/00000.parquet");
    std::fs::remove_dir_all(folder.path()).expect("a folder");
    says(
        run,
        "Pictures are not available: the store that the run was trained on cannot be read.",
    );
}

#[test]
fn points_say_what_they_are_and_mistakes_come_first() {
    let mut run = evaluated("lstm-1", 5);
    let map = run.map.as_mut().expect("a map");
    let target = &mut map.targets[0];
    target.predicted[7] = Some(2);
    target.truths[8] = None;

    let html = page(std::slice::from_ref(&run)).to_html();
    assert_says(
        &html,
        &[
            "h0\"><title>Rock, correct: 0.mp3</title>",
            "h0\"><title>Jazz, predicted as Folk: 7.mp3</title>",
            "h0\"><title>Unlabelled, predicted as Folk: 8.mp3</title>",
        ],
    );
    assert_eq!(html.matches("h0\"><title>").count(), TRACKS);
    assert!(!html.contains("points of each map have a tooltip"));

    // If there are more points than tooltips, the misclassified row still gets a tooltip.
    let map = run.map.as_mut().expect("a map");
    let n_rows = 20_000;
    map.clip_keys = vec!["x.mp3".to_owned(); n_rows];
    map.track_ids = vec![0; n_rows];
    map.places = vec![Some([1.0, 2.0]); n_rows];
    map.targets[0].truths = vec![Some(0); n_rows];
    map.targets[0].predicted = vec![Some(0); n_rows];
    map.targets[0].predicted[n_rows - 1] = Some(1);

    let html = page(&[run]).to_html();
    assert_eq!(html.matches("h0\"><title>").count(), 10_000);
    assert_eq!(html.matches("<title>Rock, predicted as Jazz: ").count(), 1);
    assert!(html.contains("10,000 points of each map have a tooltip"));
}

/// Creates the scores of a model that was trained elsewhere.
fn elsewhere(name: &str, own: Predictions) -> Evaluated {
    let leaks = count_leaks(SplitRule::Artist, Split::Test, [], []);
    Evaluated {
        name: name.to_owned(),
        evaluation: score_split(&own, 7, leaks).expect("labels"),
        predictions: own,
        warnings: vec!["no test row of genre is Pop".to_owned()],
        split: Split::Test,
        seed: 7,
        store: "nowhere".into(),
        version: 3,
        manifest_hash: "2".to_owned(),
    }
}

#[test]
fn predictions_made_elsewhere_have_the_sections_of_a_run_about_them() {
    let one = elsewhere("mine", predictions(5));
    let page = evaluation_page(&[&one]);
    let wanted = [
        "Predictions",
        "Scores",
        "Confusion matrix",
        "Scores per class",
        "Calibration",
        "Misclassified tracks",
    ];
    assert_eq!(titles_of(&page), wanted);
    let message = paragraphs(titled(&page, "Predictions"));
    assert_eq!(message, "mine: no test row of genre is Pop\n");

    // Apart from the first, the sections are those of a run with the same predictions.
    let run = super::page(&[evaluated("mine", 5)]);
    for title in [
        "Scores",
        "Confusion matrix",
        "Scores per class",
        "Calibration",
    ] {
        assert_eq!(titled(&page, title), titled(&run, title));
    }

    let html = page.to_html();
    assert!(html.contains(">0.800</strong>"), "{html}");
    assert!(!html.contains("wavemill-train"), "{html}");
}

#[test]
fn predictions_made_elsewhere_are_compared_for_the_same_target() {
    let one = elsewhere("one", predictions(10));
    let other = elsewhere("other", predictions(3));
    let tags = elsewhere("tags", several(4));

    let html = evaluation_page(&[&one, &other, &tags]).to_html();
    assert_says(
        &html,
        &["genre: one and other, on test", "+0.233", "genres_all"],
    );
    let alone = evaluation_page(&[&one, &tags]);
    assert!(!titles_of(&alone).contains(&"Differences"), "{alone:?}");
}

#[test]
fn runs_are_compared_with_the_first_one() {
    let runs = [evaluated("good", 10), evaluated("bad", 3), run("blind", 4)];
    let page = page(&runs);
    assert_section_says(
        &page,
        "Differences",
        "blind: predictions.parquet not found.",
    );

    let html = page.to_html();
    // 54 of 60 predictions of run `good` are right, and 40 of 60 of run `bad`.
    assert_says(
        &html,
        &[
            "genre: good and bad, on test",
            "+0.233",
            "model.dropout",
            "Loss, training",
        ],
    );
    assert!(!html.contains("genre: good and blind"));
    assert!(!html.contains("cannot be drawn"));
    assert_eq!(html.matches("class=\"pick by-verdict\"").count(), 2);
}

#[test]
fn several_labels_have_differences_and_nothing_that_one_class_has() {
    let mut runs = [evaluated("good", 10), evaluated("bad", 3)];
    for (run, every) in runs.iter_mut().zip([10, 3]) {
        let rows = run.predictions.as_mut().expect("predictions");
        rows.targets.push(several(every));
    }
    let page = page(&runs);

    let caption = "genres_all: good and bad, on test";
    let differences = titled(&page, "Differences");
    let is_there = differences.parts.iter().any(|part| match part {
        Part::Table(table) => table.caption == caption,
        _ => false,
    });
    assert!(is_there, "{differences:?}");
    for title in ["Calibration", "Embedding map", "Misclassified tracks"] {
        let section = titled(&page, title);
        assert!(!format!("{section:?}").contains("genres_all"), "{title}");
    }
}

#[test]
fn incomparable_predictions_are_explained() {
    let mut other = evaluated("other", 3);
    if let Some(rows) = &mut other.predictions {
        rows.about.side = Split::Validation;
    }
    assert_section_says(
        &page(&[evaluated("one", 5), other]),
        "Differences",
        "are for different splits",
    );

    let mut fewer = evaluated("fewer", 3);
    if let Some(rows) = &mut fewer.predictions {
        let classes = ["Rock", "Jazz"].map(str::to_owned);
        rows.targets = vec![Predictions::single("genre", &classes)];
    }
    assert_section_says(
        &page(&[evaluated("one", 5), fewer]),
        "Differences",
        "targets with different classes",
    );
}

#[test]
fn files_of_other_weights_or_rows_are_reported() {
    let same = evaluated("same", 5);
    let message = paragraphs(titled(&page(&[same]), "Run"));
    assert!(!message.contains("parquet"), "{message}");

    let mut other = evaluated("other", 5);
    if let Some(rows) = &mut other.predictions {
        rows.about.step = 10;
    }
    if let Some(rows) = &mut other.map {
        rows.about.manifest = "another".to_owned();
    }
    let message = paragraphs(titled(&page(&[other]), "Run"));
    assert!(
        message.contains("predictions.parquet was computed from the checkpoint of step 10, but the scores of the result \
                        from that of step 20"),
        "{message}"
    );
    assert!(
        message.contains("map.parquet was computed on another version of the store"),
        "{message}"
    );
}

#[test]
fn a_run_that_has_not_ended_and_one_that_has_nothing() {
    let begun = RunRecord {
        result: None,
        ..run("begun", 5)
    };
    let page_of_begun = page(&[begun]);
    let message = paragraphs(titled(&page_of_begun, "Run"));
    assert!(message.contains("fit --resume runs/begun"), "{message}");
    assert!(titles_of(&page_of_begun).contains(&"Learning curves"));

    let empty = RunRecord {
        log: Vec::new(),
        result: None,
        config: toml::Table::new(),
        ..run("empty", 5)
    };
    let html = page(&[empty]).to_html();
    assert!(html.contains("The log contains no completed epoch."));
}

#[test]
fn names_of_classes_and_runs_stay_texts() {
    const HOSTILE: &str = "</script><script>alert(1)</script>";

    let mut hostile = evaluated(HOSTILE, 5);
    if let Some(result) = &mut hostile.result {
        result.test[0].classes[0] = HOSTILE.to_owned();
        result.warnings = vec![HOSTILE.to_owned()];
    }
    if let Some(map) = &mut hostile.map {
        map.targets[0].classes[0] = HOSTILE.to_owned();
    }

    let html = page(&[hostile]).to_html();
    assert!(!html.contains("<script>alert"));
    assert_eq!(html.matches("</script>").count(), 1);
    assert!(html.contains("&lt;script&gt;alert(1)"));
}

#[test]
fn the_trials_of_a_folder_are_there_with_the_best_first() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(SweepRecord::read(folder.path()).expect("no runs").is_none());

    let trials = [
        ("a", "1e-5", Some(0.3)),
        ("b", "1e-3", Some(0.6)),
        ("c", "1e-4", Some(0.5)),
        ("d", "0.1", None),
    ];

    for (name, lr, accuracy) in trials {
        let config =
            format!("[train]\nselect = \"accuracy\"\n[optimizer]\nlr = {lr}\nname = \"<b>\"\n");
        write_trial(&folder.path().join(name), &config, accuracy);
    }
    std::fs::create_dir(folder.path().join("no run")).expect("room");

    let sweep = SweepRecord::read(folder.path()).expect("runs");
    let sweep = sweep.expect("a sweep");
    assert_eq!(sweep.names(), ["b", "c", "a", "d"]);
    let page = sweep_page(&sweep);
    assert_eq!(
        titles_of(&page),
        ["Trials", "Learning curves", "Configuration"]
    );
    assert_section_says(&page, "Trials", "1 of 4 trials have no score");

    let html = page.to_html();
    assert_says(
        &html,
        &[
            "<th scope=\"row\">b</th><td class=\"number\">0.600</td>",
            ">optimizer.lr</th>",
            "<th scope=\"row\">d</th><td class=\"number\">–</td>",
            "best accuracy on validation",
        ],
    );
    assert!(!html.contains("<b>"));
}

#[test]
fn repetitions_have_a_mean_and_no_best() {
    let folder = tempfile::tempdir().expect("a folder");
    for (seed, accuracy) in [(0, 0.4), (1, 0.6)] {
        let config = format!("seed = {seed}\n[train]\nselect = \"accuracy\"\n");
        let path = folder.path().join(seed.to_string());
        write_trial(&path, &config, Some(accuracy));
    }

    let sweep = SweepRecord::read(folder.path()).expect("runs");
    let facts = sweep_page(&sweep.expect("runs")).facts;
    let shown = [&facts[1].name, &facts[1].value, &facts[1].note];
    assert_eq!(shown, ["mean accuracy on validation", "0.500", "of 2 runs"]);
}

#[test]
fn trials_that_were_killed_and_repeated_count_once() {
    let folder = tempfile::tempdir().expect("a folder");
    // The second run repeats the first, which was killed; the third ended after one of five epochs.
    for (name, lr, has_ended) in [("a-1", 1, false), ("a-2", 1, true), ("b-1", 2, true)] {
        let epochs = if lr == 1 { 1 } else { 5 };
        let config =
            format!("[train]\nselect = \"accuracy\"\nepochs = {epochs}\n[optimizer]\nlr = {lr}\n");
        let run = write_trial(&folder.path().join(name), &config, Some(0.5));
        if has_ended {
            run.write_result(&result(&predictions(5))).expect("room");
        }
    }

    let sweep = SweepRecord::read(folder.path())
        .expect("runs")
        .expect("a sweep");
    assert_eq!(sweep.names(), ["a-2", "b-1"]);
    let html = sweep_page(&sweep).to_html();
    assert_says(&html, &["2 ended", "<td>yes</td>", "<td>early</td>"]);
}

#[test]
fn a_page_of_many_classes_lists_the_most_frequent_confusions() {
    const N_CLASSES: usize = 1_000;
    let classes: Vec<String> = (0..N_CLASSES)
        .map(|class| format!("class {class}"))
        .collect();
    let mut predictions = Predictions::single("label", &classes);
    for row in 0..2 * N_CLASSES {
        let truth = row % N_CLASSES;
        let mut probabilities = vec![0.0; N_CLASSES];
        probabilities[if row < 10 { 7 } else { truth }] = 1.0;
        push(&mut predictions, row, Label::Class(truth), &probabilities);
    }

    let leaks = count_leaks(SplitRule::Stratified, Split::Test, [], []).with_noun(Noun::Picture);
    let mut one = elsewhere("mine", predictions);
    one.evaluation = score_split(&one.predictions, 7, leaks).expect("labels");
    let page = evaluation_page(&[&one]);
    let html = page.to_html();
    assert!(html.len() < 2_000_000, "{} bytes", html.len());
    assert!(html.contains("most frequent confusions of 1000 classes"));
    titled(&page, "Misclassified pictures");
    assert!(!html.contains(" tracks"), "pictures are no tracks");
}

#[test]
fn damaged_files_are_named_with_what_writes_them() {
    let folder = tempfile::tempdir().expect("a folder");
    let assert_says = |message: &str| {
        let error = RunRecord::read(folder.path(), None).expect_err("damage");
        assert!(error.to_string().contains(message), "{error}");
    };

    let run = RunDir::take(folder.path()).expect("room");
    assert_says("not a run (no config.toml)");

    run.write_config("seed = \n").expect("room");
    assert_says("config.toml is damaged");

    run.write_config("seed = 1\n").expect("room");
    assert!(RunRecord::read(folder.path(), None).is_ok());

    let damage = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).expect("room");
    };
    damage("map.parquet", "no Parquet");
    assert_says("map.parquet is damaged");
    assert_says("eval RUN --map FILE");

    damage("predictions.parquet", "no Parquet");
    assert_says("eval RUN --predictions FILE");

    damage("log.jsonl", "{}\n");
    assert_says("log.jsonl, line 1");
}
