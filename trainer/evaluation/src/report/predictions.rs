//! Table of the predictions that a report is about, and warnings about their rows.

use wavemill_pages::{Section, Table};

use crate::Evaluated;

pub(super) fn section(evaluations: &[&Evaluated]) -> Section {
    let mut section = Section::new("Predictions");
    section.add_table(Table::of(
        "",
        evaluations,
        &[
            ("predictions", &|of| of.name.as_str().into()),
            ("target", &|of| of.evaluation.target.as_str().into()),
            ("split", &|of| of.split.name().into()),
            ("rows", &|of| (of.predictions.len() as u64).into()),
            ("version of the store", &|of| of.version.into()),
        ],
    ));

    for of in evaluations {
        for warning in &of.warnings {
            section.add_warning(format!("{}: {warning}", of.name));
        }
    }
    section
}
