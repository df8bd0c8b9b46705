//! `wavemill report`: the page states the store's content, text from the data is escaped, and a browser loads
//! nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use wavemill_tests::Failed;

use crate::steps::{commit, planned, work};
use crate::support::{
    RECIPE, Ran, argv, contains, files_below, inputs, lacks, manifest, own_store, run, same,
    scratch, sql_number, starts_with, wavemill, whole, within,
};
use crate::table::Table;

/// Names of browser programs, in the order in which they are tried.
const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// Sections of a report about a store with features, targets and rejects.
const SECTIONS: [&str; 11] = [
    "From metadata to features",
    "Tracks",
    "Columns of tracks",
    "Splits and data leakage",
    "Rejects",
    "Files below the audio root",
    "Audio",
    "Features",
    "Spectrograms per class",
    "Provenance",
    "Versions",
];

/// Largest size of a page. Pages contain no tensors; pictures of all classes are the largest part.
const PAGE_BYTES_MAX: u64 = 10 << 20;

/// Writes a report of the store, and returns the JSON summary and the page.
fn report(store: &Path, out: &Path) -> Result<(Value, String), Failed> {
    let ran = run(wavemill(["report", "--json", "--store"])
        .arg(store)
        .arg("--out")
        .arg(out))
    .exits(0)?;
    Ok((serde_json::from_str(&ran.out)?, fs::read_to_string(out)?))
}

/// Returns the JSON data that is embedded in a page.
pub(crate) fn about(html: &str) -> Result<Value, Failed> {
    let begin = r#"<script type="application/json" id="about">"#;
    let (_, rest) = html.split_once(begin).ok_or("no data in the page")?;
    let (json, _) = rest.split_once("</script>").ok_or("no end of the data")?;
    Ok(serde_json::from_str(json)?)
}

/// Fails if the page loads a resource or runs a script.
pub(crate) fn loads_nothing(html: &str) -> Result<(), Failed> {
    for attribute in [" src=\"", " href=\""] {
        for (at, _) in html.match_indices(attribute) {
            let value: String = html[at + attribute.len()..].chars().take(40).collect();
            // A link to a neighbouring page is loaded only when it is clicked.
            let is_link = html[..at].ends_with("<a") && value.starts_with("./");
            let is_own = value.starts_with("data:") || value.starts_with('#') || is_link;
            same(&format!("loads {value}"), is_own, true)?;
        }
    }

    for word in [
        "url(",
        "@import",
        "<script>",
        "<iframe",
        "<link rel=\"stylesheet",
    ] {
        lacks(html, word)?;
    }
    same("scripts", html.matches("<script").count(), 1)
}

#[apply(trial)]
fn describes_the_store() -> Result<(), Failed> {
    let out = scratch("report").join("page.html");
    let (written, html) = report(whole(), &out)?;
    same("version", &written["version"], &Value::from(1))?;
    same(
        "bytes",
        written["bytes"].as_u64(),
        Some(fs::metadata(&out)?.len()),
    )?;
    within("too large", html.len() as u64, ..=PAGE_BYTES_MAX)?;

    let sections: Vec<&str> = written["sections"]
        .as_array()
        .ok_or("no sections")?
        .iter()
        .filter_map(Value::as_str)
        .collect();
    same("sections", sections, SECTIONS.to_vec())?;
    for section in SECTIONS {
        contains(&html, &format!(">{section}</h2>"))?;
    }
    loads_nothing(&html)?;

    let manifest = manifest(whole(), 1)?;
    let about = about(&html)?;
    same(
        "counts",
        &about["counts"],
        &serde_json::to_value(&manifest.counts)?,
    )?;

    for (reason, n) in &manifest.counts.rejects {
        let row = format!("<th scope=\"row\">{reason}</th><td class=\"number\">{n}</td>");
        contains(&html, &row)?;
    }

    // SQL counts the same clips.
    let clips = sql_number(
        whole(),
        "SELECT count(DISTINCT clip_key) FROM features_log_mel WHERE split = 'training'",
    )?;
    let row = format!("<th scope=\"row\">training</th><td class=\"number\">{clips}</td>");
    contains(&html, &row)?;

    // The page contains a mean and a typical row of each class with training rows, and the charts above them.
    let counts = &manifest.targets[0].counts["training"];
    let classes = counts.iter().filter(|n| **n > 0).count();
    same(
        "pictures",
        html.matches("data:image/png;base64,").count(),
        2 * classes,
    )?;

    let drawings = html.matches("<svg role=\"img\" aria-label=\"").count();
    same(
        "a table for each chart",
        html.matches("<summary>Numbers</summary>").count(),
        drawings,
    )?;
    lacks(&html, "cannot be drawn")?;

    // The same store gives the same page.
    let again = out.with_file_name("again.html");
    same("again", report(whole(), &again)?.1 == html, true)
}

/// Some data sets abbreviate the names of splits, and some have no test split.
#[apply(trial)]
fn leaks_are_found_between_splits_of_other_names() -> Result<(), Failed> {
    let mut table = Table::new("report-sides", 6);
    table.set_recipe(
        "",
        &[("rule = \"artist\"", "rule = \"column\"\ncolumn = \"side\"")],
    );
    for track in 0..6 {
        table.row(track).side = "train";
    }
    table.row(2).side = "valid";
    table.row(3).side = "eval";
    // The test track is a copy of a training track's recording, by an artist who also has training tracks.
    table.row(3).voice = 0;

    let store = table.first("leaking", &[])?;
    let (_, html) = report(&store, &store.with_extension("html"))?;
    let warning = "Some of the 1 test clips overlap with the training split: 1 by identical recordings, 1 by artists.";
    contains(&html, warning)?;
    let row = "<th scope=\"row\">valid</th><td class=\"number\">1</td>";
    contains(&html, row)?;

    table.row(3).side = "valid";
    let store = table.first("without-test", &[])?;
    let (_, html) = report(&store, &store.with_extension("html"))?;
    let warning = "There is no test split, so leakage into the test split cannot be measured. The splits are named train, valid.";
    contains(&html, warning)?;

    let (_, leaks) = html
        .split_once("Overlap between splits")
        .ok_or("no leaks")?;
    let (leaks, _) = leaks.split_once("</table>").ok_or("no end")?;
    same(leaks, leaks.contains('%'), false)
}

#[apply(trial)]
fn copies_in_several_splits_are_warned_about_and_counted() -> Result<(), Failed> {
    let mut table = Table::new("report-copies", 8);
    let by_column = ("rule = \"artist\"", "rule = \"column\"\ncolumn = \"side\"");
    table.set_recipe("", &[by_column]);
    for (track, side, voice) in [
        (1, "validation", 0),
        (2, "test", 0),
        (3, "test", 1),
        (4, "training", 1),
        (5, "training", 1),
        (6, "test", 6),
        (7, "test", 6),
    ] {
        let row = table.row(track);
        (row.side, row.voice) = (side, voice);
        row.artist = Some(track);
    }

    // Copies in one split are not a leak, and neither is a clip that is rejected.
    table.row(4).samples = 8;
    let warned = |ran: Ran| -> Result<(), Failed> {
        for message in [
            "warning: 2 recordings in several splits, such as a/00",
            "a/002.wav (test) and a/001.wav (validation)",
            "a/003.wav (test) and a/005.wav (training)",
            ": split.group_duplicates = true puts",
        ] {
            contains(&ran.err, message)?;
        }
        Ok(())
    };
    warned(run(&mut table.extract(&[])?).exits(0)?)?;
    let in_steps = table.store().with_file_name("steps");
    let plan = planned(&mut table.written()?.plan(&in_steps))?;
    run(&mut work(&in_steps, &plan, "1/1")).exits(0)?;
    warned(run(&mut commit(&in_steps, &plan)).exits(0)?)?;

    let (_, html) = report(&table.store(), &table.store().with_extension("html"))?;
    let (_, pairs) = html
        .split_once("Clips that share an item with another split")
        .ok_or("no pairs")?;
    for (side, clips, other) in [
        ("test", 2, "training"),
        ("test", 1, "validation"),
        ("training", 2, "test"),
        ("validation", 1, "training"),
    ] {
        let cells = format!(
            "identical recordings</th><td>{side}</td><td class=\"number\">{clips}</td><td>{other}</td>"
        );
        contains(pairs, &cells)?;
    }

    // Under a rule that draws the splits, the option prevents this.
    table.set_recipe(
        "",
        &[(
            "rule = \"artist\"",
            "rule = \"artist\"\ngroup_duplicates = true",
        )],
    );
    let grouped = table.store().with_file_name("grouped");
    let ran = run(&mut table.written()?.extract(&grouped)).exits(0)?;
    lacks(&ran.err, "in several splits")
}

#[apply(trial)]
fn lists_the_changes_of_a_version() -> Result<(), Failed> {
    let store = own_store("report-versions");
    let mut next = inputs().extract(&store);
    next.args(["--new-version", "--set", "features.mfcc.n_mfcc=7"]);
    run(&mut next).exits(0)?;

    let (written, html) = report(&store, &store.with_file_name("2.html"))?;
    same("version", &written["version"], &Value::from(2))?;
    contains(&html, "recipe features.mfcc.n_mfcc")?;
    // The versions share the files of one feature, so they take less than the sum of their sizes.
    contains(&html, "because files that did not change are stored once")?;
    let history =
        run(wavemill(["info", "--versions", "--json", "--store"]).arg(&store)).exits(0)?;
    let history: Value = serde_json::from_str(&history.out)?;
    let held = &history[1]["held"];
    let sizes = [&held["new_bytes"], &held["bytes"]].map(|n| n.as_u64().unwrap_or(0));
    same("sizes", 0 < sizes[0] && sizes[0] < sizes[1], true)?;

    let out = store.with_file_name("1.html");
    let mut old = wavemill(["report", "--version", "1", "--json", "--store"]);
    let ran = run(old.arg(&store).arg("--out").arg(&out)).exits(0)?;
    contains(&ran.out, "\"version\":1")
}

#[apply(trial)]
fn own_columns_have_charts_and_a_profile() -> Result<(), Failed> {
    let mut table = Table::new("report-own", 12);
    table.row(0).side = "test";
    table.add(40).side = "test";
    let store = table.first("store", &[])?;
    let (_, html) = report(&store, &store.with_file_name("own.html"))?;

    // Texts are drawn by their frequency. The target and the columns of splits have no chart of their own.
    contains(&html, ">Tracks by side<")?;
    lacks(&html, ">Tracks by genre<")?;
    lacks(&html, ">Tracks by split_")?;
    let profile = "<th scope=\"row\">side</th><td>text</td><td class=\"number\">0</td>\
                   <td class=\"number\">2</td><td>test</td><td>training</td>";
    contains(&html, profile)
}

/// Writes a report with sounds from an audio archive and returns the page.
fn report_with(audio: &Path, out: &Path) -> Result<String, Failed> {
    let mut command = wavemill(["report", "--store"]);
    command.arg(whole()).arg("--audio").arg(audio);
    run(command.arg("--out").arg(out)).exits(0)?;
    Ok(fs::read_to_string(out)?)
}

/// Counts the classes of the store from [`whole`] that have training rows. The page shows a typical row of each.
fn shown_classes() -> Result<usize, Failed> {
    let manifest = manifest(whole(), 1)?;
    let counts = &manifest.targets[0].counts["training"];
    Ok(counts.iter().filter(|n| **n > 0).count())
}

/// Counts the rows that a page lists as rows without audio.
fn unheard(html: &str) -> usize {
    let Some((_, rest)) = html.split_once("Rows without audio</caption>") else {
        return 0;
    };
    let table = rest.split("</table>").next().unwrap_or_default();
    table.matches("<th scope=\"row\">").count()
}

#[apply(trial)]
fn typical_tracks_can_be_heard() -> Result<(), Failed> {
    let folder = scratch("report-audio");
    let out = folder.join("page.html");
    let html = report_with(&inputs().audio, &out)?;
    loads_nothing(&html)?;
    within("too large", html.len() as u64, ..=PAGE_BYTES_MAX)?;
    same("unheard", unheard(&html), 0)?;
    contains(&html, "; media-src data:\"")?;

    let begin = "src=\"data:audio/wav;base64,";
    let mut players = 0;
    for player in html.split(begin).skip(1) {
        let sound = player.split('"').next().unwrap_or_default();
        starts_with(sound, "UklGR")?;
        // Sounds have at most 3 s at 22,050 Hz, with two bytes per sample.
        let is_long = (100_000..=180_000).contains(&sound.len());
        same(&format!("{} letters", sound.len()), is_long, true)?;
        players += 1;
    }
    same("players", players, shown_classes()?)?;

    // Without the archive, the page contains no player, and its content security policy allows no sound.
    let (_, silent) = report(whole(), &folder.join("silent.html"))?;
    lacks(&silent, "<audio")?;
    lacks(&silent, "media-src")?;

    // Tests `--audio` with folders that are not audio archives.
    let mut nowhere = wavemill(["report", "--audio", "nowhere", "--store"]);
    run(nowhere.arg(whole()).current_dir(&folder))
        .exits(2)?
        .says(&["--audio", "nowhere"])?;

    let empty = scratch("report-no-audio");
    let mut none = wavemill(["report", "--store"]);
    run(none.arg(whole()).arg("--audio").arg(&empty))
        .exits(2)?
        .says(&["--audio", "no clip"])
}

#[apply(trial)]
fn changed_archive_is_reported() -> Result<(), Failed> {
    let folder = scratch("report-audio-changed");
    let out = folder.join("page.html");

    // Clips are removed, replaced by other content, replaced by links out of the archive, or replaced by other
    // recordings.
    let changed = inputs().copied(&folder).audio;
    let names = files_below(&changed);
    let outside = folder.join("outside.mp3");
    fs::copy(changed.join(&names[0]), &outside)?;

    for (place, name) in names.iter().enumerate() {
        let clip = changed.join(name);
        fs::remove_file(&clip)?;
        match place % 4 {
            0 => {}
            1 => fs::write(&clip, "<script>alert(1)</script>")?,
            2 => std::os::unix::fs::symlink(&outside, &clip)?,
            _ => {
                fs::copy(&outside, &clip)?;
            }
        }
    }

    let html = report_with(&changed, &out)?;
    loads_nothing(&html)?;
    within("some are told", unheard(&html), 1..)?;
    let players = html.matches("<audio").count();
    same(
        "each is heard or told",
        players + unheard(&html),
        shown_classes()?,
    )?;

    // Writes the report with the audio archive of another data set.
    let other = scratch("report-audio-other");
    fs::copy(&outside, other.join("other.mp3"))?;
    let html = report_with(&other, &out)?;
    same("told", unheard(&html), shown_classes()?)?;
    contains(&html, "missing_file: ")?;
    lacks(&html, "media-src")
}

/// A cleaning step that injects markup into titles, names and labels.
const HOSTILE_STEP: &str = r#"[[catalog.clean]]
step = "hostile"
sql = """SELECT * REPLACE (
    '</script><script>alert(1)</script>' AS track_title,
    '<a href="https://example.org/' || repeat('x', 100000) AS artist_name,
    CASE WHEN track_genre_top = 'Rock' THEN '"><img src=x onerror=alert(1)>' ELSE track_genre_top END AS track_genre_top
) FROM input"""
[[targets]]"#;

#[apply(trial)]
fn hostile_texts_are_escaped() -> Result<(), Failed> {
    let store = hostile_store("report-hostile")?;
    let (_, html) = report(&store, &store.with_file_name("page.html"))?;
    loads_nothing(&html)?;

    lacks(&html, "<script>alert")?;
    lacks(&html, "<img")?;

    // The markup is displayed as text.
    contains(&html, "&lt;script&gt;alert(1)&lt;/script&gt;")?;
    contains(&html, "&quot;&gt;&lt;img src=x onerror=alert(1)&gt;")?;
    contains(&html, "(truncated from 100,")?;
    lacks(&html, &"x".repeat(1000))
}

fn hostile_store(name: &str) -> Result<PathBuf, Failed> {
    let folder = scratch(name);
    let mut inputs = inputs().clone();
    inputs.recipe = folder.join("hostile.toml");
    fs::write(
        &inputs.recipe,
        RECIPE.replacen("[[targets]]", HOSTILE_STEP, 1),
    )?;

    let store = folder.join("store");
    run(&mut inputs.extract(&store)).exits(0)?;
    Ok(store)
}

/// Tests stores without targets, labels, metadata, run records, or rows of equal length.
#[apply(trial)]
fn stores_of_every_kind() -> Result<(), Failed> {
    let folder = scratch("report-kinds");
    let genre = folder.join("audio/Rock & <Roll>");
    fs::create_dir_all(&genre)?;
    let mut clips = 0;
    for entry in fs::read_dir(inputs().audio.join("000"))? {
        let entry = entry?;
        fs::copy(entry.path(), genre.join(entry.file_name()))?;
        clips += 1;
        if clips == 5 {
            break;
        }
    }

    let begin = RECIPE.find("[[catalog.clean]]").ok_or("no steps")?;
    let end = RECIPE.find("[split]").ok_or("no split")?;
    let recipe = format!("{}{}", &RECIPE[..begin], &RECIPE[end..]);
    let recipe = recipe
        .replace("dataset = \"fma\"", "dataset = \"folders\"")
        .replace("rule = \"official\"", "rule = \"artist\"")
        .replace("duration_s = 3.0\nmin_duration_s = 1.0\n", "");

    let mut own = inputs().clone();
    own.metadata = None;
    own.audio = folder.join("audio");
    own.recipe = folder.join("folders.toml");
    fs::write(&own.recipe, recipe)?;

    let store = folder.join("store");
    run(&mut own.extract(&store)).exits(0)?;
    fs::remove_dir_all(store.join("_wavemill/runs"))?;

    let (_, html) = report(&store, &folder.join("page.html"))?;
    loads_nothing(&html)?;
    contains(&html, "record of the run that made this version is not in")
}

#[apply(trial)]
fn other_files_are_left_alone() -> Result<(), Failed> {
    fn to(out: &Path) -> Ran {
        run(wavemill(["report", "--store"])
            .arg(whole())
            .arg("--out")
            .arg(out))
    }

    let folder = scratch("report-out");
    let mine = folder.join("mine.html");
    fs::write(&mine, "<!DOCTYPE html><title>mine</title>")?;
    to(&mine).exits(2)?.says(&["not a page of wavemill"])?;
    contains(&fs::read_to_string(&mine)?, "<title>mine")?;
    to(&folder).exits(2)?.says(&["a folder, not a file"])?;
    to(&folder.join("no/such.html"))
        .exits(2)?
        .says(&["--out"])?;

    let inside = whole().join("page.html");
    to(&inside).exits(2)?.says(&["must be outside the store"])?;
    same("in the store", inside.exists(), false)?;

    // The default name of the page contains the version number. A page by wavemill is overwritten.
    let default = folder.join("report-1.html");
    for _ in 0..2 {
        let mut here = wavemill(["report", "--store"]);
        let ran = run(here.arg(whole()).current_dir(&folder)).exits(0)?;
        same("lines", ran.err.lines().count(), 1)?;
        starts_with(&ran.err, "version 1: report-1.html (")?;
        same("the page", default.is_file(), true)?;
    }
    same("nothing else", fs::read_dir(&folder)?.count(), 2)?;

    let mut quiet = wavemill(["report", "--quiet", "--store"]);
    let ran = run(quiet.arg(whole()).current_dir(&folder)).exits(0)?;
    same("quiet", (ran.out, ran.err), (String::new(), String::new()))?;
    let mut none = wavemill(["report", "--store"]);
    run(none.arg(&folder)).exits(2)?.says(&["no store"])
}

#[apply(trial)]
fn damage_is_named() -> Result<(), Failed> {
    for (name, is_table) in [("tracks", true), ("log_mel", false)] {
        let store = own_store("report-damage");
        let manifest = manifest(&store, 1)?;
        let mut files = manifest.files_of(name);
        let file = files.next().ok_or("no file")?;
        let path = store.join(&file.path);
        fs::write(&path, &fs::read(&path)?[..file.bytes as usize / 2])?;

        let out = store.with_file_name("page.html");
        let ran = run(wavemill(["report", "--store"])
            .arg(&store)
            .arg("--out")
            .arg(&out))
        .exits(3)?;
        let word = if is_table {
            "tracks.parquet"
        } else {
            "log_mel"
        };
        ran.says(&[word])?;
        same("a page", out.exists(), false)?;
    }
    Ok(())
}

/// Returns a browser that can run without a screen.
pub(crate) fn browser() -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    for name in BROWSERS {
        let mut places = std::env::split_paths(&folders).map(|folder| folder.join(name));
        if let Some(found) = places.find(|place| place.is_file()) {
            return Some(found);
        }
    }
    None
}

pub(crate) fn has_browser() -> bool {
    browser().is_some()
}

/// Results of loading a page in a browser.
pub(crate) struct Visit {
    pub dom: String,
    /// Console messages, including errors.
    pub console: Vec<String>,
    /// Network requests of the page itself.
    pub requests: Vec<String>,
}

impl Visit {
    pub(crate) fn load(browser: &Path, page: &Path) -> Result<Self, Failed> {
        let folder = scratch("browser");
        let log = folder.join("net.json");

        let output = Command::new(browser)
            .args(argv(
                "--headless=new --no-sandbox --disable-gpu --no-first-run \
                 --disable-background-networking --disable-component-update \
                 --disable-sync --disable-extensions --enable-logging=stderr",
            ))
            // Without this switch, a page from a file may not send requests to this machine.
            .args(["--disable-features=LocalNetworkAccessChecks"])
            .arg(format!(
                "--user-data-dir={}",
                folder.join("profile").display()
            ))
            .arg(format!("--log-net-log={}", log.display()))
            .arg("--dump-dom")
            .arg(format!("file://{}", page.display()))
            .stdin(Stdio::null())
            .output()?;

        let said = String::from_utf8_lossy(&output.stderr);
        let console = said.lines().filter(|line| line.contains(":CONSOLE"));
        Ok(Self {
            dom: String::from_utf8_lossy(&output.stdout).into_owned(),
            console: console.map(str::to_owned).collect(),
            requests: requests(&fs::read_to_string(log)?)?,
        })
    }
}

/// Loads a page in a browser and fails unless it sends no requests, logs nothing, and shows all charts.
pub(crate) fn quiet_visit(browser: &Path, page: &Path) -> Result<Visit, Failed> {
    let html = fs::read_to_string(page)?;
    let visit = Visit::load(browser, page)?;
    let name = page.display();

    same(&format!("console of {name}"), &visit.console, &Vec::new())?;
    same(&format!("requests of {name}"), &visit.requests, &Vec::new())?;
    same(
        &format!("charts of {name}"),
        drawings(&visit.dom),
        drawings(&html),
    )?;
    Ok(visit)
}

/// Counts the charts of a page.
pub(crate) fn drawings(html: &str) -> usize {
    html.matches("<svg role=\"img\"").count()
}

/// Returns the requests of the page from a network log, which also contains requests of the browser itself.
fn requests(log: &str) -> Result<Vec<String>, Failed> {
    let log: Value = serde_json::from_str(log)?;
    let mut requests = Vec::new();
    for event in log["events"].as_array().ok_or("no events")? {
        let params = &event["params"];
        let initiator = params["initiator"].as_str().unwrap_or("not an origin");
        if let Some(url) = params["url"].as_str()
            && initiator != "not an origin"
            && !url.starts_with("data:")
        {
            requests.push(url.to_owned());
        }
    }
    Ok(requests)
}

#[apply(trial)]
#[needs(has_browser)]
fn a_browser_finds_nothing_to_load() -> Result<(), Failed> {
    let browser = &browser().ok_or("no browser on PATH")?;

    // First tests a page that does load and log something; otherwise silence would prove nothing.
    let folder = scratch("report-browser");
    let loud = folder.join("loud.html");
    fs::write(
        &loud,
        "<!DOCTYPE html><img src='http://127.0.0.1:9/x.png'><script>console.error('loud')</script>",
    )?;

    let visit = Visit::load(browser, &loud)?;
    same(
        "a console that is heard",
        visit.console.iter().any(|line| line.contains("loud")),
        true,
    )?;
    same("a request that is seen", visit.requests.is_empty(), false)?;

    let store = hostile_store("report-browser-store")?;
    for store in [whole(), &store] {
        let out = folder.join("page.html");
        report(store, &out)?;
        let visit = quiet_visit(browser, &out)?;
        within("many charts", drawings(&visit.dom), 6..)?;
        // The parsed page has no elements other than those that wavemill wrote.
        same("images", visit.dom.matches("<img").count(), 0)?;
        same("scripts", visit.dom.matches("<script").count(), 1)?;
    }

    // Audio players load nothing, because their sounds are embedded in the page.
    let out = folder.join("sounds.html");
    report_with(&inputs().audio, &out)?;
    let visit = quiet_visit(browser, &out)?;
    let players = visit.dom.matches("<audio controls").count();
    same("players", players, shown_classes()?)
}
