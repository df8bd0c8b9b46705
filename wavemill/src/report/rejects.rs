//! Rejected inputs by reason, with examples.

use wavemill_pages::{Bars, Cell, Chart, Part, Plot, Section, Table};

use super::ReportError;
use super::answers::Answers;
use crate::quote::literal;

/// Maximum number of examples per reason of rejection.
const EXAMPLES: usize = 5;

pub(super) fn section(answers: &Answers<'_>) -> Result<Section, ReportError> {
    let mut section = Section::new("Rejects");
    let rejects = &answers.subject.manifest.counts.rejects;
    let mut reasons: Vec<(String, u64)> = rejects.iter().map(|(r, n)| (r.clone(), *n)).collect();
    reasons.retain(|(_, n)| *n > 0);
    reasons.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    if reasons.is_empty() {
        let none = "No records or files were rejected.".to_owned();
        section.parts.push(Part::Text(none));
        return Ok(section);
    }

    section.parts.push(Part::Charts(vec![Chart {
        title: "Rejects by reason".to_owned(),
        note: "A reject does not stop a run. Each reject is a row of the table rejects.".to_owned(),
        plot: Plot::Bars(Bars::counts("reason", "rejects", &reasons)),
    }]));
    section.parts.push(Part::Details(
        format!("First {EXAMPLES} rejects of each reason"),
        examples(answers, &reasons)?,
    ));
    Ok(section)
}

fn examples(answers: &Answers<'_>, reasons: &[(String, u64)]) -> Result<Table, ReportError> {
    let head = ["reason", "clip", "stage", "byte", "line", "detail"];
    let mut table = Table::new("", &head);

    for (reason, _) in reasons {
        let answer = answers.ask(&format!(
            "SELECT clip_key, stage, byte_offset, line, detail FROM rejects WHERE reason = {}
             ORDER BY clip_key, line LIMIT {EXAMPLES}",
            literal(reason)
        ))?;

        let keys = answer.texts("clip_key")?;
        let stages = answer.texts("stage")?;
        let bytes = answer.numbers("byte_offset")?;
        let lines = answer.numbers("line")?;
        let details = answer.texts("detail")?;

        for row in 0..answer.len() {
            table.rows.push(vec![
                reason.as_str().into(),
                keys[row].clone().into(),
                stages[row].clone().into(),
                count_of(bytes[row]),
                count_of(lines[row]),
                details[row].clone().into(),
            ]);
        }
    }
    Ok(table)
}

fn count_of(number: Option<f64>) -> Cell {
    number.map(|n| n as u64).into()
}
