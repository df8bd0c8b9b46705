//! Table of the predictions that a report is about, and warnings about their rows.

use wavemill_pages::{Part, Section, Table};

use crate::Evaluated;

pub(super) fn section(evaluations: &[&Evaluated]) -> Section {
    let mut section = Section::new("Predictions");
    let head = [
        "predictions",
        "target",
        "split",
        "rows",
        "version of the store",
    ];
    let mut table = Table::new("", &head);
    for of in evaluations {
        table.rows.push(vec![
            of.name.as_str().into(),
            of.evaluation.target.as_str().into(),
            of.side.name().into(),
            (of.predictions.len() as u64).into(),
            of.version.into(),
        ]);
    }
    section.parts.push(Part::Table(table));

    for of in evaluations {
        for warning in &of.warnings {
            section.add_warning(format!("{}: {warning}", of.name));
        }
    }
    section
}
