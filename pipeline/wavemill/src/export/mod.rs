//! Exports a feature of one version to files that other tools can open: arrays, images, sounds, or a dataset.
//!
//! [`run`] is the main flow: it selects the contents, checks the store's files and writes one of the formats. Rows keep
//! the order of the manifest and their stored values; only sounds of mel bands are computed from them. All formats are
//! streamed, so only a few rows are in memory, regardless of the size of the store. The export computes no features and
//! only reads the store.

mod arrays;
pub(crate) mod catalogs;
mod class_files;
mod content;
mod dataset;
mod error;
mod fma_features;
mod keys;
mod names;
mod npy;
mod output;
mod pictures;
mod reader;
mod sound;
mod webdataset;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;
use wavemill_extract::run::free_bytes;
use wavemill_runtime::progress::{Phase, Progress};
use wavemill_schemas::exit::{Kind, PlainError};
use wavemill_schemas::manifest::Manifest;
use wavemill_store::Store;

use self::content::{Content, ExportedSplit};
pub(crate) use self::error::ExportError;
pub(crate) use self::npy::header as npy_header;
use self::output::write_new;
use self::reader::Reader;

/// Name of the file that describes the export.
const ABOUT: &str = "export.json";

/// File format of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// One array per split, and a CSV file with the keys and classes of its rows
    Npy,
    /// One picture per row, in one folder per class
    Png,
    /// One sound per row, in one folder per class: samples as stored, or computed from mel bands by Griffin-Lim
    Wav,
    /// A folder for `datasets.load_dataset`
    Huggingface,
    /// Tar files of samples, which the Python package `webdataset` reads
    Webdataset,
    /// All statistics as one CSV file, laid out as FMA's `features.csv`
    FmaFeatures,
}

impl Format {
    /// Returns the name of the format on the command line.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value().unwrap_or_default();
        value.get_name().to_owned()
    }
}

/// An export job: the feature, the splits and the file format.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    /// The store that contains the version.
    pub store: &'a Store,
    /// Number of the version.
    pub version: u64,
    /// Manifest of the version.
    pub manifest: &'a Manifest,
    /// Name of the feature; `None` if there is only one.
    pub feature: Option<&'a str>,
    /// The target whose classes name the folders of pictures and sounds; `None` for the first target.
    pub target: Option<&'a str>,
    /// Names of the splits; if empty, all splits, without the rows that have no split.
    pub splits: &'a [String],
    /// File format.
    pub format: Format,
}

/// The report of an export.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// Number of the version.
    pub version: u64,
    /// Name of the feature.
    pub feature: String,
    /// Id of the feature, which covers everything that affects its values.
    pub feature_id: String,
    /// Type and shape of the feature's tensors, such as `f16[96,431]`.
    pub tensor: String,
    /// Name of the format.
    pub format: String,
    /// Exported splits, in the manifest's order.
    pub sides: Vec<ExportedSplit>,
    /// Number of rows in each split that is not exported.
    pub left_out: BTreeMap<String, u64>,
    /// Number of files that the export wrote.
    pub files: u64,
    /// Total size of the written files in bytes.
    pub bytes: u64,
    /// Notes for users of the exported files.
    pub notes: Vec<String>,
}

/// Writes the export to `folder`, which must be an empty folder. After an error, its contents are incomplete.
///
/// # Errors
/// [`ExportError`] if the feature cannot be exported, a file cannot be read or written, or the export is stopped.
pub(crate) fn run(
    job: &Job<'_>,
    folder: &Path,
    progress: &Progress,
) -> Result<Report, ExportError> {
    if job.format == Format::FmaFeatures {
        return fma_features::run(job, folder, progress);
    }
    let content = Content::select(job)?;
    require_space(&content, job.format, folder)?;
    let reader = Reader {
        store: job.store,
        content: &content,
        progress,
    };
    reader.check()?;

    progress.enter(Phase::Exporting, content.rows());
    let mut notes = content.notes();
    match job.format {
        Format::Npy => arrays::write(&content, &reader, folder)?,
        Format::Png => notes.extend(pictures::write(&content, &reader, folder)?),
        Format::Wav => notes.extend(sound::write(&content, &reader, folder)?),
        Format::Huggingface => notes.extend(dataset::write(job, &content, &reader, folder)?),
        Format::Webdataset => notes.extend(webdataset::write(&content, &reader, folder)?),
        Format::FmaFeatures => {}
    }
    // A dataset has a README instead of `export.json`, because `datasets` could mistake a JSON file for data.
    if job.format != Format::Huggingface {
        write_about(job, &content, folder)?;
    }

    let size = size_of(folder).map_err(ExportError::io_at(folder, "list"))?;
    Ok(report(job, &content, size, notes))
}

/// Returns the report of an export whose files have a number and a total size in bytes.
fn report(
    job: &Job<'_>,
    content: &Content<'_>,
    (files, bytes): (u64, u64),
    notes: Vec<String>,
) -> Report {
    Report {
        version: job.version,
        feature: content.feature.name.clone(),
        feature_id: content.feature.feature_id.clone(),
        tensor: content.feature.tensor_type(),
        format: job.format.name(),
        sides: content.splits.clone(),
        left_out: content.left_out.clone(),
        files,
        bytes,
        notes,
    }
}

/// Refuses an export that cannot fit on the disk. The size is only known in advance for `npy`.
fn require_space(content: &Content<'_>, format: Format, folder: &Path) -> Result<(), ExportError> {
    let (Some(row_bytes), Format::Npy) = (content.tensor.row_bytes(), format) else {
        return Ok(());
    };
    let needed_bytes = content.rows().saturating_mul(row_bytes as u64);
    match free_bytes(folder) {
        Some(free_bytes) if free_bytes < needed_bytes => {
            let message = format!(
                "--out: about {needed_bytes} bytes are needed and {free_bytes} are free: free some space, or write to \
                 another file system"
            );
            Err(PlainError::new(Kind::NoSpace, message).into())
        }
        // If the free space is unknown, it is assumed to be sufficient.
        _ => Ok(()),
    }
}

/// Writes `export.json` with the information about the export that its data files do not contain.
fn write_about(job: &Job<'_>, content: &Content<'_>, folder: &Path) -> Result<(), ExportError> {
    let classes: BTreeMap<&str, &[String]> = content
        .targets
        .iter()
        .map(|target| (target.name.as_str(), target.classes.as_slice()))
        .collect();
    let mut rows = BTreeMap::new();
    for split in &content.splits {
        rows.insert(split.stored.as_str(), split.rows);
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
    // A preset has no effect on features of picture files, and samples and files have none.
    if feature.is_of_audio() && !feature.preset.is_empty() {
        about["preset"] = json!(feature.preset);
    }
    if job.format == Format::Wav && !feature.is_pcm() {
        about["approximation"] = sound::about(content);
    }
    write_new(&folder.join(ABOUT), format!("{about:#}\n").as_bytes())
}

/// Returns the number of files below a folder and their total size in bytes.
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
