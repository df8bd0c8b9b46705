//! Table of the files below the audio root, by outcome and extension.

use wavemill_pages::Section;
use wavemill_sql::SqlError;

use super::answers::Answers;

const TABLE: &str = "audio_files";

pub(super) fn section(answers: &Answers<'_>) -> Result<Section, SqlError> {
    let mut section = Section::new("Files below the audio root");
    // Versions written by earlier releases do not have the table of files.
    if answers.columns(TABLE)?.fields().is_empty() {
        return Ok(section);
    }

    let all = answers.ask(&format!("SELECT sum(files) AS n FROM {TABLE}"))?;
    section.add_text(format!(
        "Each of the {} files found is counted in one row of this table. docs/store-format.md explains the outcomes.",
        all.count("n")?
    ));
    section.add_table(answers.table(&format!(
        "SELECT fate AS outcome, extension, files, bytes, array_to_string(examples, ', ') AS examples,
                array_to_string(near_rows, ', ') AS \"similar names in rows\"
         FROM {TABLE}"
    ))?);
    Ok(section)
}
