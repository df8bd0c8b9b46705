//! Number of rows after each step from the metadata records to clips with features. All numbers come from the manifest.

use wavemill_pages::{Chart, Funnel, Part, Plot, Section, Step};
use wavemill_schemas::manifest::Manifest;

pub(super) fn section(manifest: &Manifest) -> Section {
    let mut section = Section::new("From metadata to features");
    section.parts.push(Part::Charts(vec![chart(manifest)]));
    section
}

/// Creates a funnel chart of the rows left after each step.
fn chart(manifest: &Manifest) -> Chart {
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
        steps.push(step(
            &format!("within --limit {limit}"),
            counts.clips_planned,
        ));
    }
    steps.push(step("clips with features", counts.clips_written));

    let funnel = Funnel {
        counted: "rows".to_owned(),
        steps,
    };
    Chart {
        title: "Rows after each step".to_owned(),
        note: "The pale part of a bar shows the rows removed by the step. Every row is either kept, dropped or rejected."
            .to_owned(),
        plot: Plot::Funnel(funnel),
    }
}

fn step(name: &str, left: u64) -> Step {
    Step {
        name: name.to_owned(),
        left,
    }
}
