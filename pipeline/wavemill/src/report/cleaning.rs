//! Number of rows after each step from the metadata records to clips with features. All numbers come from the manifest.

use wavemill_pages::{Chart, Funnel, Plot, Section, Step};
use wavemill_schemas::manifest::Manifest;

pub(super) fn section(manifest: &Manifest) -> Section {
    let counts = &manifest.counts;
    let mut left = counts.rows_read;
    let mut steps = vec![step("metadata rows", left)];
    if counts.rows_rejected > 0 {
        left = left.saturating_sub(counts.rows_rejected);
        steps.push(step("readable rows", left));
    }
    for dropped in &counts.rows_dropped {
        left = left.saturating_sub(dropped.rows);
        steps.push(step(&format!("after step {}", dropped.step), left));
    }
    if let Some(limit) = manifest.identity.limit {
        let name = format!("within --limit {limit}");
        steps.push(step(&name, counts.clips_planned));
    }
    steps.push(step("clips with features", counts.clips_written));

    let counted = "rows".to_owned();
    let mut section = Section::new("From metadata to features");
    section.add_charts([Chart::new(
        "Rows after each step",
        "The pale part of a bar shows the rows removed by the step. Every row is either kept, dropped or rejected.",
        Plot::Funnel(Funnel { counted, steps }),
    )]);
    section
}

fn step(name: &str, left: u64) -> Step {
    let name = name.to_owned();
    Step { name, left }
}
