//! Rejected inputs by reason, with examples.

use wavemill_pages::{Bars, Chart, Plot, Section};
use wavemill_sql::SqlError;

use super::answers::Answers;

/// Maximum number of examples per reason of rejection.
const EXAMPLES: usize = 5;

pub(super) fn section(answers: &Answers<'_>) -> Result<Section, SqlError> {
    let mut section = Section::new("Rejects");
    let rejects = &answers.subject.manifest.counts.rejects;
    let mut reasons: Vec<(String, u64)> = rejects.iter().map(|(r, n)| (r.clone(), *n)).collect();
    reasons.retain(|(_, n)| *n > 0);
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    if reasons.is_empty() {
        section.add_text("No records or files were rejected.");
        return Ok(section);
    }

    let bars = Bars::counts("reason", "rejects", &reasons);
    let note = "A reject does not stop a run. Each reject is a row of the table rejects.";
    section.add_charts([Chart::new("Rejects by reason", note, Plot::Bars(bars))]);
    let examples = answers.table(&format!(
        "SELECT reason, clip_key AS clip, stage, byte_offset AS byte, line, detail FROM
         (SELECT *, count(*) OVER (PARTITION BY reason) AS n,
                 row_number() OVER (PARTITION BY reason ORDER BY clip_key, line) AS place FROM rejects)
         WHERE place <= {EXAMPLES} ORDER BY n DESC, reason, place"
    ))?;
    section.add_details(format!("First {EXAMPLES} rejects of each reason"), examples);
    Ok(section)
}
