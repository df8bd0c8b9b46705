//! Where the vectors of rows lie on a map, with their classes.

use wavemill_pages::{Chart, Part, Plot, Point, Scatter, Section, count, number};

use super::RunRecord;
use super::rows::{MapRows, MapTarget};
use super::run_record::MAP;

pub(super) fn section(runs: &[RunRecord]) -> Section {
    let mut section = Section::new("A map of the vectors");
    let mut charts = Vec::new();
    for (place, run) in runs.iter().enumerate() {
        let Some(map) = &run.map else {
            let words = run.lacks("--map", MAP);
            section.parts.push(Part::Text(words));
            continue;
        };
        for (which, target) in map.targets.iter().enumerate() {
            let id = format!("map{place}t{which}");
            charts.push(chart_of(run, map, target, id));
        }
    }
    if charts.is_empty() {
        return section;
    }

    section.parts.push(Part::Text(
        "A point is a row. Rows whose vectors are near each other lie near each other. How far two groups lie from \
         each other says little, and the axes say nothing. The buttons choose what the colours say; a class by itself \
         shows where it lies among the others."
            .to_owned(),
    ));
    section.parts.push(Part::Charts(charts));
    section
}

fn chart_of(run: &RunRecord, map: &MapRows, target: &MapTarget, id: String) -> Chart {
    let mut points = Vec::with_capacity(map.places.len());

    let classes = target.truths.iter().zip(&target.predicted);
    for (place, (truth, predicted)) in map.places.iter().zip(classes) {
        // A vector with a value that is no number lies nowhere.
        let Some([x, y]) = *place else { continue };
        points.push(Point {
            x: f64::from(x),
            y: f64::from(y),
            group: *truth,
            is_right: truth.is_some().then(|| truth == predicted),
        });
    }

    Chart {
        title: format!("{}, {} on {}", run.name, target.name, map.about.side),
        note: note(map),
        plot: Plot::Scatter(Scatter {
            id,
            counted: "rows".to_owned(),
            grouped: "true class".to_owned(),
            groups: target.classes.clone(),
            points,
        }),
    }
}

/// How the map was made.
fn note(map: &MapRows) -> String {
    let Some(made) = &map.about.map else {
        return String::new();
    };

    let mut words = format!(
        "By {} with perplexity {}, from the checkpoint of step {}.",
        made.method,
        number(made.perplexity),
        count(map.about.step)
    );

    let n_rows = map.places.len() as u64;
    if n_rows < made.rows_of_side {
        words += &format!(
            " {} of {} rows, drawn by chance.",
            count(n_rows),
            count(made.rows_of_side)
        );
    }
    words
}
