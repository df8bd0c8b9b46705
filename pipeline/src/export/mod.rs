//! A feature of one version, as files that other tools take as they are: arrays, images, sounds, a dataset.
//!
//! [`run`] is the flow: what is asked for, the check of the store's files, and one of the formats. Rows keep the order
//! of the manifest and the values that are stored. Each format streams, so memory holds a few rows, however large the
//! store is. Nothing here computes a feature, and the store is only read. Sounds alone are no stored values.

mod arrays;
mod class_files;
mod content;
mod dataset;
mod error;
mod keys;
mod names;
mod npy;
mod npz;
mod output;
mod pictures;
mod png;
mod reader;
mod sound;
mod wav;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;
use wavemill_schemas::manifest::Manifest;

use self::content::Content;
pub(crate) use self::error::ExportError;
pub(crate) use self::npy::header as npy_header;
use self::output::OutFile;
use self::reader::Reader;
use crate::course::{Course, Phase};
use crate::run::free_bytes;
use crate::store::Store;

/// The file that says what was exported.
const ABOUT: &str = "export.json";

/// What an export is written as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// An array a side, and a CSV file with keys and classes of its rows
    Npy,
    /// A zip of arrays a side: the feature, its keys and its class ids
    Npz,
    /// A picture a row, in a folder a class
    Png,
    /// A sound a row, made of mel bands by Griffin-Lim, in a folder a class
    Wav,
    /// A folder for `datasets.load_dataset`
    Huggingface,
}

impl Format {
    /// As it is typed.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Npy => "npy",
            Self::Npz => "npz",
            Self::Png => "png",
            Self::Wav => "wav",
            Self::Huggingface => "huggingface",
        }
    }
}

/// What is exported.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// Where the version lies.
    pub store: &'a Store,
    /// Its number.
    pub version: u64,
    /// Its manifest.
    pub manifest: &'a Manifest,
    /// Which feature; `None`: the only one.
    pub feature: Option<&'a str>,
    /// Which target names the folders of pictures and sounds; `None`: the first one.
    pub target: Option<&'a str>,
    /// Which sides; none: all but the one of rows without a side.
    pub splits: &'a [String],
    /// As what.
    pub format: Format,
}

/// What was exported.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// The version's number.
    pub version: u64,
    /// The feature's name.
    pub feature: String,
    /// Everything that decides its values.
    pub feature_id: String,
    /// Its type and shape, such as `f16[96,431]`.
    pub tensor: String,
    /// As it is typed.
    pub format: &'static str,
    /// In the manifest's order.
    pub sides: Vec<SideReport>,
    /// Rows of the sides that were not exported.
    pub left_out: BTreeMap<String, u64>,
    /// Files that were written.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What a reader of the files has to know.
    pub notes: Vec<String>,
}

/// One side of a [`Report`].
#[derive(Debug, Serialize)]
pub(crate) struct SideReport {
    /// Its name in the store.
    pub split: String,
    /// Its name in the export.
    pub name: String,
    /// Its rows.
    pub rows: u64,
}

/// Writes the export into `folder`, which must not exist yet. What is there after an error is of no use.
///
/// # Errors
/// [`ExportError`].
pub(crate) fn run(job: &Job<'_>, folder: &Path, course: &Course) -> Result<Report, ExportError> {
    let content = Content::select(job)?;
    require_space(&content, job.format, folder)?;
    let reader = Reader::new(job.store, &content, course);
    reader.check()?;

    fs::create_dir(folder).map_err(ExportError::io_at(folder, "create the folder"))?;
    course.enter(Phase::Exporting, content.rows());
    let mut notes = content.notes();
    match job.format {
        Format::Npy => arrays::write(&content, &reader, folder)?,
        Format::Npz => npz::write(&content, &reader, folder)?,
        Format::Png => notes.extend(pictures::write(&content, &reader, folder)?),
        Format::Wav => notes.extend(sound::write(&content, &reader, folder)?),
        Format::Huggingface => notes.extend(dataset::write(job, &content, &reader, folder)?),
    }
    // A dataset has it in its README: a file of JSON in its folder could be taken for data.
    if job.format != Format::Huggingface {
        write_about(job, &content, folder)?;
    }

    let (files, bytes) = size_of(folder).map_err(ExportError::io_at(folder, "list"))?;
    let mut sides = Vec::new();
    for side in &content.sides {
        sides.push(SideReport {
            split: side.split.to_owned(),
            name: side.name.clone(),
            rows: side.rows,
        });
    }
    Ok(Report {
        version: job.version,
        feature: content.feature.name.clone(),
        feature_id: content.feature.feature_id.clone(),
        tensor: content.feature.tensor_type(),
        format: job.format.name(),
        sides,
        left_out: content.left_out,
        files,
        bytes,
        notes,
    })
}

/// Refuses an export that cannot fit. Only of arrays it is known beforehand how much they take.
fn require_space(content: &Content<'_>, format: Format, folder: &Path) -> Result<(), ExportError> {
    let is_array = matches!(format, Format::Npy | Format::Npz);
    let (Some(row_bytes), true) = (content.tensor.row_bytes(), is_array) else {
        return Ok(());
    };
    let needed_bytes = content.rows().saturating_mul(row_bytes as u64);
    match free_bytes(folder) {
        Some(free_bytes) if free_bytes < needed_bytes => Err(ExportError::Space {
            needed_bytes,
            free_bytes,
        }),
        // A file system that does not tell is taken to have room.
        _ => Ok(()),
    }
}

/// What the files cannot say of themselves.
fn write_about(job: &Job<'_>, content: &Content<'_>, folder: &Path) -> Result<(), ExportError> {
    let classes: BTreeMap<&str, &[String]> = content
        .targets
        .iter()
        .map(|target| (target.name.as_str(), target.classes.as_slice()))
        .collect();
    let mut rows = BTreeMap::new();
    for side in &content.sides {
        rows.insert(side.split, side.rows);
    }

    let feature = content.feature;
    let mut about = json!({
        "plan_id": job.manifest.plan_id,
        "version": job.version,
        "format": job.format.name(),
        "feature": feature.name,
        "feature_id": feature.feature_id,
        "dtype": feature.dtype,
        "scale": feature.scale,
        "shape": feature.shape,
        "dim_names": feature.dim_names,
        "sample_rate_hz": feature.sample_rate_hz,
        "hop_length": feature.hop_length,
        "classes": classes,
        "rows": rows,
        "left_out": content.left_out,
    });
    // Pictures of a data set `images` were never sound, and no preset has a say in them.
    if feature.is_of_audio() {
        about["preset"] = json!(feature.preset);
    }
    if job.format == Format::Wav {
        about["approximation"] = sound::about(content);
    }
    let mut file = OutFile::create(&folder.join(ABOUT))?;
    file.put(format!("{about:#}\n").as_bytes())?;
    file.finish()
}

/// Files below a folder, and their bytes.
fn size_of(folder: &Path) -> io::Result<(u64, u64)> {
    let mut files = 0;
    let mut bytes = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                files += 1;
                bytes += metadata.len();
            }
        }
    }
    Ok((files, bytes))
}

#[cfg(test)]
mod tests;
