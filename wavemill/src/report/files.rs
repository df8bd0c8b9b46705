//! Table of the files below the audio root, by outcome and extension.

use wavemill_pages::{Part, Section, Table};

use super::ReportError;
use super::answers::Answers;

const TABLE: &str = "audio_files";

pub(super) fn section(answers: &Answers<'_>) -> Result<Section, ReportError> {
    let mut section = Section::new("Files below the audio root");
    // Versions written by earlier releases do not have the table of files.
    if answers.columns(TABLE)?.fields().is_empty() {
        return Ok(section);
    }

    let answer = answers.ask(&format!(
        "SELECT fate, extension, files, bytes, array_to_string(examples, ', ') AS examples,
                array_to_string(near_rows, ', ') AS near_rows
         FROM {TABLE}"
    ))?;
    let fates = answer.texts("fate")?;
    let extensions = answer.texts("extension")?;
    let files = answer.counts("files")?;
    let bytes = answer.counts("bytes")?;
    let examples = answer.texts("examples")?;
    let near_rows = answer.texts("near_rows")?;

    let head = [
        "outcome",
        "extension",
        "files",
        "bytes",
        "examples",
        "similar names in rows",
    ];
    let mut table = Table::new("", &head);
    for row in 0..answer.len() {
        table.rows.push(vec![
            fates[row].clone().into(),
            extensions[row].clone().into(),
            files[row].into(),
            bytes[row].into(),
            examples[row].clone().into(),
            near_rows[row].clone().into(),
        ]);
    }

    let all: u64 = files.iter().sum();
    section.parts.push(Part::Text(format!(
        "Each of the {all} files found is counted in one row of this table. docs/store.md explains the outcomes."
    )));
    section.parts.push(Part::Table(table));
    Ok(section)
}
