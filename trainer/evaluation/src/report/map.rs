//! t-SNE map of the rows' vectors, coloured by class. A tooltip describes the row under the pointer.

use std::collections::HashSet;

use wavemill_pages::{Chart, Part, Plot, Point, Scatter, Section, count, number};

use super::RunRecord;
use super::rows::{MapRows, MapTarget};
use super::run_record::MAP;
use super::titles::Titles;

/// Maximum number of points with a tooltip on a page. Each tooltip is an element, and too many make the browser slow.
const NAMED_MAX: usize = 10_000;

pub(super) fn section(runs: &[RunRecord]) -> Section {
    let mut section = Section::new("Embedding map");
    let maps = runs.iter().filter_map(|run| run.map.as_ref());
    let n_charts: usize = maps.map(|map| map.targets.len()).sum();
    let named_max = NAMED_MAX / n_charts.max(1);

    let mut charts = Vec::new();
    for (place, run) in runs.iter().enumerate() {
        let Some(map) = &run.map else {
            section.add_text(run.lacks("--map", MAP));
            continue;
        };
        let ids: HashSet<i64> = map.track_ids.iter().copied().collect();
        let titles = Titles::read(&run.open_store(&map.about.manifest), &ids);
        for (which, target) in map.targets.iter().enumerate() {
            let id = format!("map{place}t{which}");
            let names = names_of(map, target, &titles, named_max);
            charts.push(chart_of(run, map, target, names, id));
        }
        // If there are predictions, the section about mistakes already states why titles are missing.
        if run.predictions.is_none() {
            section.parts.extend(titles.missing.map(Part::Text));
        }
    }
    if charts.is_empty() {
        return section;
    }

    section.add_text(
        "Each point is a row, and rows with similar embeddings are close to each other. Distances between clusters \
         have little meaning, and the axes have none. Use the buttons to change the colours or to highlight a single \
         class. Hover over a point to see its details.",
    );
    let largest = runs.iter().filter_map(|run| run.map.as_ref());
    if largest.map(|map| map.places.len()).max() > Some(named_max) {
        section.add_text(format!(
            "{} points of each map have a tooltip, misclassified rows first.",
            count(named_max as u64)
        ));
    }
    section.add_charts(charts);
    section
}

/// Returns the tooltips of up to `named_max` rows, and an empty text for each other row.
fn names_of(map: &MapRows, target: &MapTarget, titles: &Titles, named_max: usize) -> Vec<String> {
    let mut rows: Vec<usize> = (0..map.places.len()).collect();
    // Misclassified rows get tooltips first. The sort is stable, so other rows keep their order.
    rows.sort_by_key(|&row| !target.is_wrong(row));

    let mut names = vec![String::new(); rows.len()];
    for row in rows.into_iter().take(named_max) {
        let [title, artist] = titles.get(map.track_ids[row]);
        let known: Vec<String> = title.into_iter().chain(artist).collect();
        let clip = &map.clip_keys[row];
        names[row] = match &known[..] {
            // The tooltip begins with the classes, because a long title may be cut off.
            [] => format!("{}: {clip}", target.verdict(row)),
            known => format!("{}: {} ({clip})", target.verdict(row), known.join(" – ")),
        };
    }
    names
}

impl MapTarget {
    /// Reports whether the predicted class of a row is wrong. For a row without a label, returns false.
    fn is_wrong(&self, row: usize) -> bool {
        self.truths[row].is_some() && self.truths[row] != self.predicted[row]
    }

    fn verdict(&self, row: usize) -> String {
        let predicted = self.name_at(self.predicted[row]);
        match self.truths[row] {
            None => format!("Unlabelled, predicted as {predicted}"),
            truth if truth == self.predicted[row] => format!("{predicted}, correct"),
            truth => format!("{}, predicted as {predicted}", self.name_at(truth)),
        }
    }

    fn name_at(&self, class: Option<usize>) -> &str {
        let name = class.and_then(|class| self.classes.get(class));
        name.map_or("unnamed class", String::as_str)
    }
}

fn chart_of(
    run: &RunRecord,
    map: &MapRows,
    target: &MapTarget,
    names: Vec<String>,
    id: String,
) -> Chart {
    let mut points = Vec::with_capacity(map.places.len());

    let classes = target.truths.iter().zip(&target.predicted);
    let rows = map.places.iter().zip(classes).zip(names);
    for ((place, (truth, predicted)), name) in rows {
        // A row whose vector contains a value that is not a number has no position on the map.
        let Some([x, y]) = *place else { continue };
        points.push(Point {
            x: f64::from(x),
            y: f64::from(y),
            group: *truth,
            is_right: truth.is_some().then(|| truth == predicted),
            name,
        });
    }

    let scatter = Scatter {
        id,
        counted: "rows".to_owned(),
        grouped: "true class".to_owned(),
        groups: target.classes.clone(),
        points,
    };
    let title = format!("{}, {} on {}", run.name, target.name, map.about.side);
    Chart::new(title, note(map), Plot::Scatter(scatter))
}

/// Describes how the map was computed, as a note below the chart.
fn note(map: &MapRows) -> String {
    let Some(made) = &map.about.map else {
        return String::new();
    };

    let mut message = format!(
        "Computed by {} with perplexity {}, from the checkpoint of step {}.",
        made.method,
        number(made.perplexity),
        count(map.about.step)
    );

    let n_rows = map.places.len() as u64;
    if n_rows < made.rows_of_side {
        message += &format!(
            " A random sample of {} of {} rows.",
            count(n_rows),
            count(made.rows_of_side)
        );
    }
    message
}
