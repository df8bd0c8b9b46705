//! Writes vectors for TensorBoard's embedding projector: two text tables and a configuration file that names them.
//! Source: TensorBoard's `projector_config.proto` and the projector's help text on loading data.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use wavemill_scores::metrics::{THRESHOLD, likeliest};

use super::rank_rows::RankRows;
use super::{RowsFileError, io_error, rows_wanted, temporary_for};
use crate::dataset::{Dataset, Target};

/// Table of vectors, one row per line, values separated by tabs.
const VECTORS: &str = "vectors.tsv";
/// Table of labels and keys of each row, with a header line.
const METADATA: &str = "metadata.tsv";
/// Configuration file. TensorBoard looks for this name in the folder of its event files.
const CONFIG: &str = "projector_config.pbtxt";
/// Contents of the configuration file. Paths are relative to the file.
const CONFIG_TEXT: &str = "\
embeddings {
  tensor_name: \"vectors before the heads\"
  tensor_path: \"vectors.tsv\"
  metadata_path: \"metadata.tsv\"
}
";

/// The projector's files, which are written when all rows are known.
#[derive(Debug)]
pub(super) struct ProjectorFiles {
    folder: PathBuf,
    /// Indices of the rows in the files, ascending.
    pub wanted: Vec<u32>,
    /// The rows collected so far.
    pub rows: RankRows,
}

impl ProjectorFiles {
    /// Creates `folder` and draws the rows of the files from `rows`, which are all rows of the side.
    pub(super) fn new(folder: &Path, seed: u64, rows: &[u32]) -> Result<Self, RowsFileError> {
        fs::create_dir_all(folder).map_err(io_error(folder))?;
        // Report a path that is not writable now, before the evaluation.
        let _ = temporary_for(&folder.join(CONFIG))?;
        Ok(Self {
            folder: folder.to_owned(),
            wanted: rows_wanted(rows, seed),
            rows: RankRows::default(),
        })
    }

    /// Writes the files. The configuration file comes last, because it names the other two.
    pub(super) fn finish(self, data: &Dataset) -> Result<(), RowsFileError> {
        let at = |name: &str| self.folder.join(name);
        write(&at(VECTORS), |out| write_vectors(out, &self.rows))?;
        write(&at(METADATA), |out| write_metadata(out, data, &self.rows))?;
        write(&at(CONFIG), |out| out.write_all(CONFIG_TEXT.as_bytes()))
    }
}

/// Writes a file under a temporary name and renames it when it is complete.
fn write(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), RowsFileError> {
    let mut out = BufWriter::new(temporary_for(path)?);
    content(&mut out).map_err(io_error(path))?;
    let whole = out.into_inner().map_err(io::IntoInnerError::into_error);
    let whole = whole.map_err(io_error(path))?;
    whole.finish(path).map_err(io_error(path))
}

fn write_vectors(out: &mut dyn Write, rows: &RankRows) -> io::Result<()> {
    for at in 0..rows.rows.len() {
        let Some(vector) = finite_vector(rows, at) else {
            continue;
        };
        for (place, value) in vector.iter().enumerate() {
            let before = if place > 0 { "\t" } else { "" };
            write!(out, "{before}{value}")?;
        }
        writeln!(out)?;
    }
    Ok(())
}

fn write_metadata(out: &mut dyn Write, data: &Dataset, rows: &RankRows) -> io::Result<()> {
    let mut names = vec![
        "clip_key".to_owned(),
        "segment".to_owned(),
        "variant".to_owned(),
    ];
    for target in data.targets() {
        names.push(format!("{}_true", target.name()));
        names.push(format!("{}_predicted", target.name()));
    }
    write_line(out, &names)?;

    let all = data.rows();
    for (at, &number) in rows.rows.iter().enumerate() {
        // Skip the same rows as in the table of vectors: the two tables correspond line by line.
        if finite_vector(rows, at).is_none() {
            continue;
        }
        let row = number as usize;
        let mut line = vec![
            all.clip_keys[row].to_string(),
            all.segments[row].to_string(),
            all.variants[row].to_string(),
        ];
        for (target, [probabilities, _]) in data.targets().iter().zip(&rows.targets) {
            let classes = target.classes().len();
            line.push(true_classes(data, target, number));
            line.push(predicted_classes(
                target,
                &probabilities[at * classes..(at + 1) * classes],
            ));
        }
        write_line(out, &line)?;
    }
    Ok(())
}

/// Returns the vector of a row, or `None` if it has a non-finite value, which the projector cannot display.
fn finite_vector(rows: &RankRows, at: usize) -> Option<&[f32]> {
    let width = rows.width();
    let vector = &rows.vectors[at * width..(at + 1) * width];
    vector
        .iter()
        .all(|value| value.is_finite())
        .then_some(vector)
}

/// Writes a line of a table. Replaces control characters, because a tab or line break would start another cell.
fn write_line(out: &mut dyn Write, texts: &[String]) -> io::Result<()> {
    let cells: Vec<String> = texts
        .iter()
        .map(|text| text.replace(|c: char| c.is_control(), " "))
        .collect();
    writeln!(out, "{}", cells.join("\t"))
}

/// Returns the names of a row's true classes; empty without a label.
fn true_classes(data: &Dataset, target: &Target, row: u32) -> String {
    let classes = target.labels(data.rows(), row);
    names_of(
        target,
        classes.filter_map(|class| usize::try_from(class).ok()),
    )
}

/// Returns the names of the predicted classes.
fn predicted_classes(target: &Target, probabilities: &[f32]) -> String {
    if !target.is_multi() {
        return names_of(target, [likeliest(probabilities)]);
    }
    let above = probabilities.iter().enumerate();
    let above = above.filter(|(_, p)| **p >= THRESHOLD);
    names_of(target, above.map(|(class, _)| class))
}

fn names_of(target: &Target, classes: impl IntoIterator<Item = usize>) -> String {
    let mut ids: Vec<usize> = classes.into_iter().collect();
    ids.sort_unstable();
    let names = ids.iter().filter_map(|&class| target.classes().get(class));
    let names: Vec<&str> = names.map(String::as_str).collect();
    names.join(", ")
}
