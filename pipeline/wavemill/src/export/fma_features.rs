//! The format `fma-features`: all statistics of a version in one CSV file, with the columns and headings of FMA's
//! `features.csv`.

use std::fmt::Write as _;
use std::path::Path;

use arrow::datatypes::Int64Type;
use wavemill_runtime::progress::{Phase, Progress};
use wavemill_schemas::manifest::{FeatureEntry, FileEntry};

use super::content::Content;
use super::error::ExportError;
use super::keys::numbers;
use super::output::OutFile;
use super::reader::{Reader, Tensors};
use super::{Format, Job, Report, report, size_of};

/// Name of the file.
const FILE: &str = "features.csv";
/// Column that identifies a row.
const TRACK_ID: &str = "track_id";

/// Writes the file to `folder`, which must be new or empty.
///
/// # Errors
/// [`ExportError`] if the version has no statistics, or several rows of a track; if a file cannot be read or written;
/// or if the export is stopped.
pub(super) fn run(
    job: &Job<'_>,
    folder: &Path,
    progress: &Progress,
) -> Result<Report, ExportError> {
    let contents = contents(job)?;
    let readers: Vec<Reader<'_>> = contents
        .iter()
        .map(|content| Reader {
            store: job.store,
            content,
            progress,
        })
        .collect();
    readers.iter().try_for_each(Reader::check)?;

    let first = &contents[0];
    progress.enter(Phase::Exporting, first.rows());

    let mut out = OutFile::create(&folder.join(FILE))?;
    out.put(headings(&contents).as_bytes())?;
    for (split_at, split) in first.splits.iter().enumerate() {
        for file_at in 0..first.files(split).count() {
            let tables = tables(&contents, &readers, split_at, file_at)?;
            out.put(lines(&tables)?.as_bytes())?;
            readers[0].done(tables[0].track_ids.len());
        }
    }
    out.finish()?;

    let names: Vec<&str> = contents
        .iter()
        .map(|content| content.feature.name.as_str())
        .collect();
    let ids: Vec<&str> = contents
        .iter()
        .map(|content| content.feature.feature_id.as_str())
        .collect();
    let n_columns: usize = contents.iter().map(|content| sources(content).len()).sum();
    let size = size_of(folder).map_err(ExportError::io_at(folder, "list"))?;
    Ok(Report {
        feature: names.join(", "),
        feature_id: ids.join(" "),
        tensor: format!("{n_columns} columns"),
        ..report(job, first, size, Vec::new())
    })
}

/// Selects the features of statistics, in the order of their sources' names.
fn contents<'a>(job: &Job<'a>) -> Result<Vec<Content<'a>>, ExportError> {
    let unfit = |problem: &str| ExportError::unfit(&Format::FmaFeatures.name(), problem);
    let audio = &job.manifest.recipe.audio;
    if audio.segment_s.is_some() || !audio.stretch.is_empty() {
        let problem = "the version has several rows of a track; make one without audio.segment_s and audio.stretch";
        return Err(unfit(problem));
    }

    let mut contents = Vec::new();
    if job.feature.is_some() {
        contents.push(Content::select(job)?);
    } else {
        for feature in &job.manifest.features {
            if is_statistics(feature) {
                contents.push(Content::select(&Job {
                    feature: Some(&feature.name),
                    ..*job
                })?);
            }
        }
    }

    if contents.is_empty() || contents.iter().any(|content| sources(content).is_empty()) {
        let problem = "needs a feature with op = \"statistics\"; `wavemill recipe show fma-features` has all of FMA's";
        return Err(unfit(problem));
    }
    contents.sort_by(|one, other| sources(one).cmp(&sources(other)));
    let has_twins = contents
        .windows(2)
        .any(|pair| sources(&pair[0]) == sources(&pair[1]));
    if has_twins {
        let problem = "two features are statistics of the same source; choose one by --feature, or make a version with one";
        return Err(unfit(problem));
    }
    Ok(contents)
}

fn is_statistics(feature: &FeatureEntry) -> bool {
    feature
        .dim_names
        .first()
        .is_some_and(|name| name == "statistic")
}

/// Returns the source, the statistic and the number of each column of a feature: `mfcc`, `mean` and `01`. Features that
/// are not statistics have none.
fn sources<'a>(content: &'a Content<'_>) -> Vec<[&'a str; 3]> {
    let columns = content.feature.columns.iter().flatten();
    let columns = columns.filter(|_| is_statistics(content.feature));
    let parts = columns.map(|column| {
        let mut parts = column.rsplitn(3, '_');
        let [number, statistic, source] = [(); 3].map(|()| parts.next().unwrap_or_default());
        [source, statistic, number]
    });
    parts.collect()
}

/// Returns the four lines above the rows: source, statistic and number of each column, and the name of the first
/// column.
fn headings(contents: &[Content<'_>]) -> String {
    let all: Vec<[&str; 3]> = contents.iter().flat_map(sources).collect();
    let mut text = String::new();
    for (line, heading) in ["feature", "statistics", "number"].into_iter().enumerate() {
        text += heading;
        for parts in &all {
            text.push(',');
            text += parts[line];
        }
        text.push('\n');
    }
    text += TRACK_ID;
    text += &",".repeat(all.len());
    text.push('\n');
    text
}

/// Statistics of one feature, of the rows of a shard.
struct Table {
    track_ids: Vec<i64>,
    /// Number of columns.
    width: usize,
    values: Vec<f32>,
}

impl Table {
    fn read(
        content: &Content<'_>,
        reader: &Reader<'_>,
        file: &FileEntry,
    ) -> Result<Self, ExportError> {
        let mut table = Self {
            track_ids: Vec::new(),
            width: sources(content).len(),
            values: Vec::new(),
        };
        reader.file(file, &[TRACK_ID, &content.feature.name], |batch| {
            let track_ids = numbers::<Int64Type>(batch, TRACK_ID)?;
            table.track_ids.extend(track_ids.values());
            let tensors = Tensors::from_batch(batch, content)?;
            for row in 0..batch.num_rows() {
                tensors.shape(row)?;
                tensors.read(row, &mut table.values);
            }
            Ok(())
        })?;
        Ok(table)
    }
}

/// Reads the statistics of all features from the files of a shard.
fn tables(
    contents: &[Content<'_>],
    readers: &[Reader<'_>],
    split_at: usize,
    file_at: usize,
) -> Result<Vec<Table>, ExportError> {
    let each = contents.iter().zip(readers);
    each.map(|(content, reader)| {
        let split = content.splits.get(split_at);
        let file = split.and_then(|split| content.files(split).nth(file_at));
        Table::read(content, reader, file.ok_or_else(other_rows)?)
    })
    .collect()
}

/// Returns the lines of a shard's rows.
fn lines(tables: &[Table]) -> Result<String, ExportError> {
    let track_ids = &tables[0].track_ids;
    if tables.iter().any(|table| table.track_ids != *track_ids) {
        return Err(other_rows());
    }
    let mut text = String::new();
    for (row, track_id) in track_ids.iter().enumerate() {
        let _ = write!(text, "{track_id}");
        for table in tables {
            for value in &table.values[row * table.width..][..table.width] {
                let _ = write!(text, ",{value}");
            }
        }
        text.push('\n');
    }
    Ok(text)
}

fn other_rows() -> ExportError {
    ExportError::rows("its features have different rows")
}
