//! `wavemill demo`: creates a small labelled data set, extracts it and runs some queries.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use arrow::util::display::array_value_to_string;
use clap::Args;
use wavemill_schemas::number::number;
use wavemill_schemas::text::counted;
use wavemill_terminal::interrupt::ChildGuard;
use wavemill_terminal::output::{OutputArgs, ProgressFormat, report, stdout};

use super::command_of;
use super::exit::ChildFailure;
use super::extract::ExtractCommand;
use super::program::{beside, not_there, shown_program};
use super::sql::SqlCommand;
use super::train::{CANNOT_START, PredictCommand, code_of, output_args, trainer};
use crate::quote::shell;

const EXAMPLES: &str = "\
Examples:
  wavemill demo
  wavemill demo /tmp/wavemill-demo --tracks 80
  wavemill demo --train     # also trains a model, and predicts a clip

The audio is synthetic: ten kinds of instrument and rhythm, encoded as MP3. Some files are damaged on purpose.

Exit codes: as for `wavemill extract`; also 1 if the program demo-audio is neither next to wavemill nor on PATH.";

const QUESTIONS: [(&str, &str); 3] = [
    (
        "How many tracks, artists and minutes does each genre have?",
        "SELECT track_genre_top AS genre, count(*) AS tracks, count(DISTINCT t.artist_id) AS artists, \
         round(sum(f.duration_s) / 60, 1) AS minutes FROM tracks t JOIN features_log_mel f USING (clip_key) \
         GROUP BY 1 ORDER BY tracks DESC, genre",
    ),
    (
        "Which recordings occur more than once?",
        "SELECT left(audio_blake3, 12) AS audio, count(*) AS clips, min(clip_key) AS first, max(clip_key) AS second \
         FROM features_log_mel GROUP BY audio_blake3 HAVING count(*) > 1",
    ),
    (
        "Which inputs were rejected, and why?",
        "SELECT stage, reason, count(*) AS inputs, min(coalesce(clip_key, 'line ' || line)) AS for_example \
         FROM rejects GROUP BY stage, reason ORDER BY stage, reason",
    ),
];

/// A clip of the test split, and its genre.
const TEST_CLIP: &str = "SELECT clip_key, track_genre_top FROM features_log_mel JOIN tracks USING (clip_key) \
     WHERE split = 'test' ORDER BY clip_key LIMIT 1";

/// Number of tracks of each genre in each split, with the names of the genres.
const NEXT_QUERY: &str = "SELECT class, split, count(*) FROM features_log_mel JOIN classes ON class_id = genre \
     WHERE target = 'genre' GROUP BY 1, 2 ORDER BY 1, 2";

/// Create a small synthetic data set, extract it and run queries
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoCommand {
    /// Folder for the data set and the store
    #[arg(default_value = "wavemill-demo")]
    dir: PathBuf,
    /// Number of tracks
    #[arg(long, default_value_t = 320, value_parser = number::<u32>(1..=2000))]
    tracks: u32,
    /// Also train a model on the store, and predict a clip of the test split (starts wavemill-train)
    #[arg(long)]
    train: bool,
}

impl DemoCommand {
    /// Creates the demo's data set, extracts its features into a store, and runs SQL queries on the store. With
    /// `train`, also trains a model and predicts a clip.
    ///
    /// # Errors
    /// The program `demo-audio` or the trainer is missing, or one of the commands that the demo runs has failed.
    pub fn run(&self) -> Result<u8> {
        let wavemill = shown_program();
        let data = self.dir.join("data");
        if is_complete(&data)? {
            report(&format!(
                "1. the data set already exists in {}\n",
                data.display()
            ));
        } else {
            report(&format!(
                "1. generating {}, and some more with faults, in {} (synthetic audio, not recorded music)\n",
                counted(self.tracks, "track"),
                data.display()
            ));
            make_data(&data, self.tracks)?;
        }

        let store = self.dir.join("store");
        let shown_store = shell(&store);
        report(&format!(
            "2. {wavemill} extract --recipe demo --max-reject-fraction 0.2 --metadata {} --audio {} --store {shown_store}\n",
            shell(data.join("fma_metadata")),
            shell(data.join("fma_demo")),
        ));
        extract(&data, &store)?.run()?;

        for (number, (question, query)) in QUESTIONS.iter().enumerate() {
            let number = number + 3;
            report(&format!(
                "\n{number}. {question}\n   {wavemill} sql --store {shown_store} \"{query}\"\n"
            ));
            sql(&store, query)?.run()?;
        }

        let run = self.dir.join("run");
        let of_model = if self.train {
            fit(&wavemill, &store, &run)?;
            predict_test_clip(&wavemill, &store, &data, &run)?;
            format!(
                "\n  {wavemill} train report {0}\n  {wavemill} serve --run {0}",
                shell(&run)
            )
        } else {
            format!("\n  {wavemill} demo {} --train", shell(&self.dir))
        };

        report(&format!(
            "\nThe store is plain Parquet: open {} with DuckDB, Polars, pandas or Spark.\n\
             \nNext, a page about the store, {}, a query, and a store of your own folder MUSIC/GENRE/….mp3:\n  \
             {wavemill} report --store {shown_store}{of_model}\n  \
             {wavemill} sql --store {shown_store} \"{NEXT_QUERY}\"\n  \
             {wavemill} extract --recipe folders --audio MUSIC --store mystore\n",
            shell(store.join("data")),
            if self.train {
                "one about the training, a server of the model"
            } else {
                "a trained model"
            },
        ));
        Ok(0)
    }
}

/// Reports whether the data set in `data` is complete: `demo-audio` writes two files of metadata after all clips, each
/// under a temporary name until the file is complete.
fn is_complete(data: &Path) -> io::Result<bool> {
    let metadata = data.join("fma_metadata");
    Ok(metadata.join("tracks.csv").try_exists()? && metadata.join("genres.csv").try_exists()?)
}

/// Creates the data set with `demo-audio`, a separate program next to this one because its encoder is LGPL.
fn make_data(data: &Path, tracks: u32) -> Result<()> {
    // If the folder cannot be created, this program's message is the only one.
    std::fs::create_dir_all(data).with_context(|| format!("cannot create {}", data.display()))?;

    let mut command = Command::new(beside("demo-audio"));
    command
        .arg(data)
        .args(["--tracks", &tracks.to_string()])
        .stdout(Stdio::null());
    if OutputArgs::get().shown() != ProgressFormat::None {
        command.arg("--progress");
    }
    if holds_only_ours(data) {
        command.arg("--force");
    }
    run_program(command, || {
        not_there("demo-audio", "`scripts/build.sh -p demo-audio`")
    })
}

/// Runs another program to its end. `missing` is the message if it cannot be started.
///
/// # Errors
/// [`ChildFailure`] if the program has failed and reported the reason.
fn run_program(mut command: Command, missing: impl FnOnce() -> String) -> Result<()> {
    // A signal from the terminal reaches only this program, which ends its child processes itself.
    let child = command.process_group(0).spawn().with_context(missing)?;
    let status = ChildGuard::new(child).wait()?;
    match status.code() {
        Some(0) => Ok(()),
        Some(_) => Err(ChildFailure {
            code: code_of(status),
        }
        .into()),
        // A program that was killed has reported nothing.
        None => bail!("{} failed: {status}", command.get_program().display()),
    }
}

/// Trains the demo's model. A run that was interrupted is continued, and a complete one is kept.
fn fit(wavemill: &str, store: &Path, run: &Path) -> Result<()> {
    const MODEL: [&str; 6] = ["--model", "crnn", "--epochs", "15", "--device", "cpu"];
    report(&format!(
        "\n6. {wavemill} train fit --store {} {} --resume-or-start {}\n",
        shell(store),
        MODEL.join(" "),
        shell(run)
    ));

    let mut command = trainer()?;
    command.args(output_args()).arg("fit").arg("--store");
    command.arg(store).args(MODEL);
    command.arg("--resume-or-start").arg(run);
    run_program(command, || CANNOT_START.to_owned())
}

/// Predicts the genre of a clip that the model was not trained on, and prints the true genre below it.
fn predict_test_clip(wavemill: &str, store: &Path, data: &Path, run: &Path) -> Result<()> {
    let mut rows = sql(store, TEST_CLIP)?.open()?.rows(TEST_CLIP)?;
    let row = rows.next().context("the test split has no clip")??;
    let clip = data
        .join("fma_demo")
        .join(array_value_to_string(row.column(0), 0)?);
    let genre = array_value_to_string(row.column(1), 0)?;

    report(&format!(
        "\n7. Which genre has this clip of the test split?\n   {wavemill} predict --run {} --table {}\n",
        shell(run),
        shell(&clip)
    ));
    let line = [
        OsStr::new("--run"),
        run.as_os_str(),
        OsStr::new("--table"),
        clip.as_os_str(),
    ];
    command_of::<PredictCommand>(&line)?.run()?;
    writeln!(stdout(), "true genre: {genre}")?;
    Ok(())
}

/// Reports whether a folder contains only files of the demo. Files of an interrupted command may be replaced; in a
/// folder with any other file, nothing is replaced. FMA's own metadata have the same name, but the demo writes its
/// audio first.
fn holds_only_ours(data: &Path) -> bool {
    if data.join("fma_metadata").exists() && !data.join("fma_demo").exists() {
        return false;
    }
    let Ok(entries) = std::fs::read_dir(data) else {
        return false;
    };
    for entry in entries {
        // The name of an entry that cannot be read is unknown, so it counts as another program's file.
        let name = entry.map(|entry| entry.file_name()).unwrap_or_default();
        if name != "fma_metadata" && name != "fma_demo" {
            return false;
        }
    }
    true
}

fn extract(data: &Path, store: &Path) -> Result<ExtractCommand> {
    let metadata = data.join("fma_metadata");
    let audio = data.join("fma_demo");
    command_of(&[
        OsStr::new("--recipe"),
        OsStr::new("demo"),
        // Some clips of the demo are broken on purpose, so a larger fraction of rejected clips is allowed.
        OsStr::new("--max-reject-fraction"),
        OsStr::new("0.2"),
        OsStr::new("--metadata"),
        metadata.as_os_str(),
        OsStr::new("--audio"),
        audio.as_os_str(),
        OsStr::new("--store"),
        store.as_os_str(),
    ])
}

fn sql(store: &Path, query: &str) -> Result<SqlCommand> {
    command_of(&[OsStr::new("--store"), store.as_os_str(), OsStr::new(query)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_set_without_genres_is_recreated() {
        let data = tempfile::tempdir().expect("a folder");
        let metadata = data.path().join("fma_metadata");
        std::fs::create_dir(&metadata).expect("a folder");
        for (name, completes) in [("tracks.csv", false), ("genres.csv", true)] {
            std::fs::write(metadata.join(name), "").expect("a file");
            assert_eq!(is_complete(data.path()).unwrap(), completes, "{name}");
        }
        // The demo writes its audio first, so metadata without audio are FMA's own.
        assert!(!holds_only_ours(data.path()));
        std::fs::create_dir(data.path().join("fma_demo")).expect("a folder");
        assert!(holds_only_ours(data.path()));
    }
}
