//! Time stretch: which clips get stretched copies, how many rows they have, and that nothing else changes.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;
use wavemill_tests::Failed;

use crate::support::{
    argv, contains, inputs, manifest, run, same, same_versions, scratch, sql, sql_number, wavemill,
};
use crate::table::{MFCC, Table};

/// Samples in half a minute at the sample rate of the table's files.
const HALF_A_MINUTE: u32 = 30 * 8000;

/// Creates five tracks of half a minute, three of them for training, cut into 3-s segments.
fn tracks(name: &str) -> Table {
    let mut table = Table::new(name, 5);
    for track in 0..5 {
        table.row(track).samples = HALF_A_MINUTE;
    }
    table.row(3).side = "validation";
    table.row(4).side = "test";

    let audio = "segment_s = 3.0\nsegments_max = 12\nsegment_min_s = 2.5\nstretch = [1.15, 0.85]\n";
    let changes = [
        ("rule = \"artist\"", "rule = \"column\"\ncolumn = \"side\""),
        ("duration_s = 0.25\n", audio),
    ];
    table.set_recipe(MFCC, &changes);
    table
}

/// Counts the rows by split and variant, in hundredths.
fn rows(store: &Path) -> Result<BTreeMap<String, u64>, Failed> {
    let query = "SELECT split, CAST(round(variant * 100) AS BIGINT) AS percent, count(*) AS n \
                 FROM features_log_mel GROUP BY split, variant";
    let mut counts = BTreeMap::new();
    for row in sql(store, query)? {
        let name = format!(
            "{} {}",
            row["split"].as_str().unwrap_or_default(),
            row["percent"]
        );
        counts.insert(name, row["n"].as_u64().ok_or("no number")?);
    }

    Ok(counts)
}

#[apply(trial)]
fn copies_are_used_only_for_training() -> Result<(), Failed> {
    let table = tracks("stretched");
    let store = table.store();
    let ran = run(table.extract(&["--json"])?.args(["--threads", "4"])).exits(0)?;
    let told: Value = serde_json::from_str(&ran.out)?;

    // 30 s become 35.3 s and 26.1 s. The remainder of each is too short for a padded segment.
    let want = [
        ("training 100", 3 * 10),
        ("training 85", 3 * 11),
        ("training 115", 3 * 8),
        ("validation 100", 10),
        ("test 100", 10),
    ];
    let want: BTreeMap<String, u64> = want.map(|(name, n)| (name.to_owned(), n)).into();
    same("rows", rows(&store)?, want)?;

    let stretched = manifest(&store, 1)?;
    same("feature rows", stretched.counts.feature_rows, 107)?;
    same("told", told["counts"]["feature_rows"].as_u64(), Some(107))?;

    // Each clip is counted once per class, independent of its number of rows.
    let counts = &stretched.targets[0].counts["training"];
    same("training clips by class", counts.iter().sum::<u64>(), 3)?;

    let misplaced =
        "SELECT count(*) FROM features_log_mel WHERE abs(offset_s - 3 * segment) > 0.001";
    same("offsets", sql_number(&store, misplaced)?, 0)?;
    let distinct =
        "SELECT count(*) FROM (SELECT DISTINCT clip_key, variant, segment FROM features_log_mel)";
    same("distinct rows", sql_number(&store, distinct)?, 107)?;
    let alike = "SELECT count(*) FROM features_log_mel AS a, features_log_mel AS b \
                 WHERE a.clip_key = b.clip_key AND a.variant < b.variant AND a.log_mel = b.log_mel";
    same(
        "copies that sound as recorded",
        sql_number(&store, alike)?,
        0,
    )?;

    let one_thread = table.first("one-thread", &["--threads", "1"])?;
    same_versions(&store, &one_thread)?;
    let other_order = table.first("other-order", &["--set", "audio.stretch=[0.85, 1.15]"])?;
    same_versions(&store, &other_order)?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;

    // With `stretch=none`, the unstretched rows and the files of the other splits are the same, byte for byte.
    let plain = table.first("plain", &["--set", "audio.stretch=none"])?;
    let recorded = manifest(&plain, 1)?;

    same(
        "feature ids",
        recorded
            .features
            .iter()
            .map(|f| &f.feature_id)
            .collect::<Vec<_>>(),
        stretched
            .features
            .iter()
            .map(|f| &f.feature_id)
            .collect::<Vec<_>>(),
    )?;
    same("plans", recorded.plan_id == stretched.plan_id, false)?;

    for (was, is) in recorded.files.iter().zip(&stretched.files) {
        let is_training = was.split.as_deref() == Some("training");
        if was.feature.is_some() {
            same(&was.path, was.blake3 == is.blake3, !is_training)?;
        }
    }

    let sum = "SELECT round(sum(tensor_mean(log_mel)), 3) AS x FROM features_log_mel \
               WHERE variant = 1.0 AND split = 'training'";
    same("plain rows", sql(&plain, sum)?, sql(&store, sum)?)
}

#[apply(trial)]
fn copies_are_in_all_splits_under_segment_stretched() -> Result<(), Failed> {
    let table = tracks("leaky");
    let rule = (
        "rule = \"column\"\ncolumn = \"side\"",
        "rule = \"segment_stretched\"\nfractions = [0.6, 0.2, 0.2]",
    );
    let recipe = table.written()?.recipe;
    let text = std::fs::read_to_string(&recipe)?.replace(rule.0, rule.1);
    std::fs::write(&recipe, &text)?;

    let store = table.store();
    let ran = run(&mut table.extract(&[])?).exits(0)?;
    contains(
        &ran.err,
        "leaky: segments of one track and their stretched copies",
    )?;

    let found = rows(&store)?;
    same("rows", found.values().sum::<u64>(), 5 * 29)?;
    for side in ["training", "validation", "test"] {
        for percent in [85, 100, 115] {
            let name = format!("{side} {percent}");
            same(&name, found.get(&name).is_some_and(|&n| n > 0), true)?;
        }
    }

    // An unstretched row is in the same split as under the rule `segment`.
    let sets = ["--set", "audio.stretch=none", "--set", "split.rule=segment"];
    let segments = table.first("segments", &sets)?;
    let sides = "SELECT clip_key, segment, split FROM features_log_mel WHERE variant = 1.0 \
                 ORDER BY clip_key, segment";
    same("sides", sql(&store, sides)?, sql(&segments, sides)?)?;

    // With another seed, existing rows are assigned to splits again without decoding.
    let sets = ["--set", "split.seed=7", "--new-version", "--json"];
    let ran = run(&mut table.extract(&sets)?).exits(0)?;
    let told: Value = serde_json::from_str(&ran.out)?;
    same("decoded", &told["clips_decoded"], &0.into())?;
    run(wavemill(["verify", "--store"]).arg(&store)).exits(0)?;

    let refused = ["--set", "split.rule=segment"];
    run(&mut table.extract(&refused)?)
        .exits(2)?
        .says(&["split.rule", "segment_stretched"])
}

#[apply(trial)]
fn whole_clips_are_cut_to_the_duration() -> Result<(), Failed> {
    let table = Table::new("whole", 4);
    table.set_recipe(
        "",
        &[(
            "duration_s = 0.25\n",
            "duration_s = 0.25\nstretch = [0.5, 2.0]\n",
        )],
    );

    run(&mut table.extract(&["--set", "split.fractions=[1.0, 0.0, 0.0]"])?).exits(0)?;
    let store = table.store();
    let counts = rows(&store)?;
    let want = [("training 100", 4), ("training 200", 4), ("training 50", 4)];
    same(
        "rows",
        counts,
        want.map(|(name, n)| (name.to_owned(), n)).into(),
    )?;

    // The faster copy ends before the end of its row.
    let shapes = "SELECT count(DISTINCT tensor_shape(log_mel)) FROM features_log_mel";
    same("shapes", sql_number(&store, shapes)?, 1)?;

    let dry = table
        .extract(&["--dry-run", "--json", "--new-version"])?
        .output()?;
    let told: Value = serde_json::from_slice(&dry.stdout)?;
    same("planned", &told["clips_planned"], &4.into())
}

#[apply(trial)]
fn stretching_requires_the_cpu() -> Result<(), Failed> {
    let store = scratch("device").join("store");
    let stretch = argv("--set audio.stretch=[0.85] --set audio.duration_s=1.0");

    for words in [
        &["--backend", "cuda"][..],
        &["--backend", "auto", "--devices", "0"],
    ] {
        let command = &mut inputs().extract(&store);
        let ran = run(command.args(&stretch).args(words)).exits(2)?;
        ran.says(&["audio.stretch is computed only on the CPU", "--backend cpu"])?;
        same(&words.join(" "), store.exists(), false)?;
    }

    let command = &mut inputs().extract(&store);
    let ran = run(command
        .args(&stretch)
        .args(["--backend", "auto", "--limit", "4"]))
    .exits(0)?;
    let why = "note: features are computed on the CPU: audio.stretch has no GPU implementation";
    same(&ran.err, ran.err.lines().any(|line| line == why), true)
}
