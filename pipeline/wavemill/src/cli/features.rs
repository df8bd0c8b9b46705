//! `wavemill features`: computes the rows that extract would write for some clips, without a store.

use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, bail};
use arrow::ipc::writer::StreamWriter;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use wavemill_decode::{FILE_BYTES_MAX, OUTPUT_S_MAX};
use wavemill_extract::features::{FeaturePlan, NoRows};
use wavemill_extract::single::{self, RowExtractor};
use wavemill_schemas::clip::ClipRow;
use wavemill_schemas::manifest::FeatureEntry;
use wavemill_schemas::recipe::{self, Dtype, Recipe};
use wavemill_schemas::text::shown;
use wavemill_store::shards::{FeatureRow, Format};
use wavemill_store::tensors::stats;
use wavemill_terminal::exit::UsageError;
use wavemill_terminal::files::write_file;

use super::clips::{ClipArgs, ClipList};
use super::exit::ChildFailure;
use crate::export::npy_header;

const EXAMPLES: &str = "\
Examples:
  wavemill features song.mp3 --recipe fma-large --feature log_mel \\
      --format npy --out song.npy
  wavemill features *.mp3 --recipe mine.toml --feature mfcc > mfcc.jsonl
  wavemill features album/ @others.txt --recipe mine.toml --feature mfcc \\
      > mfcc.jsonl

Exit code 1 also if a clip has no rows: stderr names each with its reason, and the others are written.";

/// Compute features of single audio files, without a store
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct FeaturesCommand {
    #[command(flatten)]
    clips: ClipArgs,
    /// A shipped recipe's name, or a TOML file
    #[arg(long, value_name = "NAME|FILE")]
    recipe: String,
    /// Change a value of the recipe
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Feature of the recipe; required if it has several
    #[arg(long, value_name = "NAME")]
    feature: Option<String>,
    /// npy: one array whose first axis is the rows; json: one line per row; arrow: an IPC stream of rows as in the
    /// shards
    #[arg(long, value_enum, default_value = "json")]
    format: Output,
    /// Output file; `-` is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Npy,
    Json,
    Arrow,
}

impl FeaturesCommand {
    /// Computes the feature rows of the clips and writes them to the output file.
    ///
    /// # Errors
    /// Wrong usage; or a clip that cannot be read or has no rows, after the rows of the other clips were written.
    pub fn run(&self) -> Result<u8> {
        let recipe = Recipe::load(&self.recipe, &self.sets)?;
        if recipe.catalog.dataset == recipe::Dataset::Images {
            let message = format!(
                "--recipe {}: its features are computed from pictures; this command supports only audio",
                self.recipe
            );
            return Err(UsageError(message).into());
        }
        let number = feature_number(&recipe, self.feature.as_deref())?;

        let to_stdout = self.out == Path::new("-");
        if to_stdout && self.format != Output::Json && io::stdout().is_terminal() {
            let message = format!(
                "--format {:?} cannot be written to a terminal: give --out FILE",
                self.format
            );
            return Err(UsageError(message.to_lowercase()).into());
        }
        let found = self.clips.find()?;
        let n_rejected = if to_stdout {
            let out = BufWriter::new(io::stdout().lock());
            self.write(&recipe, number, &found, out)?
        } else {
            write_file("--out", &self.out, |file| {
                self.write(&recipe, number, &found, file)
            })?
        };
        found.rejected(n_rejected).map(|()| 0)
    }

    /// Writes the rows of every clip for the feature at index `number`. Returns how many clips have no rows.
    fn write(
        &self,
        recipe: &Recipe,
        number: usize,
        found: &ClipList,
        out: impl Write,
    ) -> Result<usize> {
        let plan = Arc::new(single::plan(recipe, number)?);
        let mut clips = RowExtractor::new(&plan, OUTPUT_S_MAX)?;
        let entry = &plan.entries()[0];
        let mut sink = Sink::begin(self.format, out, &plan, recipe)?;

        let mut rejected = found.unreadable.len();
        for (path, message) in &found.unreadable {
            wavemill_terminal::say!("{}", shown(&format!("{}: {message}", path.display())));
        }

        let mut known = Vec::new();
        for path in &found.clips {
            // A clip is added to `known` before its rows, which refer to the clip by its index in `known`.
            let clip_key = path.to_string_lossy().replace('\\', "/");
            known.push(single::clip_row(clip_key, recipe.targets.len()));
            match rows_of(&mut clips, known.len() - 1, path)? {
                ClipOutcome::Rows(rows) => sink.write(entry, rows, &known)?,
                ClipOutcome::Rejected(reason) => {
                    wavemill_terminal::say!("{}", shown(&format!("{}: {reason}", path.display())));
                    rejected += 1;
                }
            }
        }

        sink.finish(entry)?;
        Ok(rejected)
    }
}

/// Returns the index among the recipe's stored features of the feature `wanted`, or of its only feature.
///
/// # Errors
/// [`UsageError`], which names the features, if there is no such feature, or if one of several has to be chosen.
pub fn feature_number(recipe: &Recipe, wanted: Option<&str>) -> Result<usize, UsageError> {
    let names: Vec<&str> = recipe.stored_features().map(|f| f.name.as_str()).collect();
    let Some(wanted) = wanted else {
        return match names.len() {
            1 => Ok(0),
            _ => Err(UsageError(format!(
                "--feature: required, one of {}",
                names.join(", ")
            ))),
        };
    };

    let number = names.iter().position(|name| *name == wanted);
    number.ok_or_else(|| {
        UsageError(format!(
            "--feature {wanted}: not in this recipe, which has {}",
            names.join(", ")
        ))
    })
}

impl ClipList {
    fn rejected(&self, rejected: usize) -> Result<()> {
        match (rejected, self.clips.len() + self.unreadable.len()) {
            (0, _) => Ok(()),
            // The reason of the only clip was printed, and there is nothing to add.
            (_, 1) => Err(ChildFailure { code: 1 }.into()),
            (rejected, clips) => bail!("no rows for {rejected} of {clips} clips"),
        }
    }
}

/// The result of reading one clip, which does not end the command.
pub enum ClipOutcome {
    /// Its feature rows.
    Rows(Vec<FeatureRow>),
    /// The reason why the clip has no feature rows.
    Rejected(String),
}

/// Reads a clip and computes its feature rows.
///
/// # Errors
/// An error of the recipe or of the device, but not a rejected clip.
pub fn rows_of(clips: &mut RowExtractor, clip: usize, path: &Path) -> Result<ClipOutcome> {
    let mut bytes = Vec::new();
    let read = File::open(path)
        // One byte over the limit is enough for the decoder to reject the file, and no more of it is held in memory.
        .and_then(|file| file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        return Ok(ClipOutcome::Rejected(format!("cannot read it: {error}")));
    }

    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    let rows = clips
        .decode(extension, &bytes)
        .and_then(|()| clips.rows(clip, &path.to_string_lossy()));
    match rows {
        Ok(rows) => Ok(ClipOutcome::Rows(rows)),
        Err(NoRows::Reject(reject)) => Ok(ClipOutcome::Rejected(single::describe_reject(&reject))),
        Err(NoRows::Error(error)) => Err(error.into()),
    }
}

fn write_json(
    out: &mut impl Write,
    entry: &FeatureEntry,
    clips: &[ClipRow],
    row: &FeatureRow,
) -> Result<()> {
    let tensor = &row.tensors[0];
    let values = stats::values(tensor, entry);

    let line = json!({
        "clip_key": clips[row.clip].clip_key,
        "segment": row.facts.segment,
        "offset_s": row.facts.offset_s,
        "duration_s": row.facts.duration_s,
        "lost_s": row.facts.lost_s,
        "silent": row.facts.silent,
        "audio_blake3": *row.facts.audio_blake3,
        "feature": entry.name,
        "feature_id": entry.feature_id,
        "dim_names": entry.dim_names,
        "shape": tensor.shape,
        "values": nested(&values, &tensor.shape),
    });
    Ok(writeln!(out, "{line}")?)
}

/// Converts a tensor's values to nested JSON lists, one level per dimension.
fn nested(values: &[f32], shape: &[usize]) -> Value {
    match shape {
        [] | [_] => json!(values),
        [_, rest @ ..] => {
            let part_len = rest.iter().product::<usize>().max(1);
            let parts = values.chunks(part_len);
            parts.map(|part| nested(part, rest)).collect()
        }
    }
}

/// Writes feature rows as an npy file in NumPy's format 1.0.
fn write_npy(out: &mut impl Write, entry: &FeatureEntry, rows: &[FeatureRow]) -> Result<()> {
    let Some(dtype) = Dtype::named(&entry.dtype) else {
        bail!("the type {} is unknown", entry.dtype);
    };

    let Some(shape) = rows.first().map(|row| &row.tensors[0].shape) else {
        bail!("no rows, so no file was written: give other clips");
    };
    if rows.iter().any(|row| row.tensors[0].shape != *shape) {
        return Err(UsageError(
            "--format npy: the rows differ in shape; use json or arrow, or set audio.duration_s"
                .to_owned(),
        )
        .into());
    }

    // The axis of rows is present for a single row too, so that the number of rows does not change the number of axes.
    let shape: Vec<usize> = std::iter::once(&rows.len()).chain(shape).copied().collect();
    out.write_all(&npy_header(dtype.numpy_name(), &shape))?;
    for row in rows {
        // The stored bytes of a tensor are already little-endian and row-major.
        out.write_all(&row.tensors[0].bytes)?;
    }
    Ok(())
}

/// The destination of rows. JSON and Arrow are written clip by clip, so that a long list takes no more memory than a
/// short one; an npy file begins with the number of all rows.
enum Sink<W: Write> {
    Npy {
        out: W,
        rows: Vec<FeatureRow>,
    },
    Json(W),
    Arrow {
        format: Box<Format>,
        writer: Box<StreamWriter<W>>,
    },
}

impl<W: Write> Sink<W> {
    fn begin(output: Output, out: W, plan: &FeaturePlan, recipe: &Recipe) -> Result<Self> {
        match output {
            Output::Npy => Ok(Self::Npy {
                out,
                rows: Vec::new(),
            }),
            Output::Json => Ok(Self::Json(out)),
            Output::Arrow => {
                let format = Box::new(single::stream_format(plan, recipe)?);
                let writer = Box::new(StreamWriter::try_new(out, &format.schema)?);
                Ok(Self::Arrow { format, writer })
            }
        }
    }

    /// Writes the rows of one clip; `clips` contains an entry for each clip so far.
    fn write(
        &mut self,
        entry: &FeatureEntry,
        of_clip: Vec<FeatureRow>,
        clips: &[ClipRow],
    ) -> Result<()> {
        match self {
            Self::Npy { rows, .. } => rows.extend(of_clip),
            Self::Json(out) => {
                for row in &of_clip {
                    write_json(out, entry, clips, row)?;
                }
            }
            Self::Arrow { format, writer } => {
                for row in of_clip {
                    writer.write(&format.batch(0, vec![row], clips)?)?;
                }
            }
        }
        Ok(())
    }

    fn finish(self, entry: &FeatureEntry) -> Result<()> {
        let mut out = match self {
            Self::Npy { mut out, rows } => {
                write_npy(&mut out, entry, &rows)?;
                out
            }
            Self::Json(out) => out,
            Self::Arrow { mut writer, .. } => {
                writer.finish()?;
                writer.into_inner()?
            }
        };
        Ok(out.flush()?)
    }
}
