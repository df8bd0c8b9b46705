//! Bins of histograms with round edges.

use wavemill_pages::{Axis, Chart, Histogram, Plot};
use wavemill_sql::SqlError;

use super::answers::Answers;

/// Minimum number of bins between the smallest and the largest value, except for the largest percent of the values.
const BINS_MIN: f64 = 15.0;
/// The axis covers all values except the largest percent, which may be a hundred times as large. The last bin contains
/// them.
const LEFT_OUT: u64 = 100;
/// Widths of bins of a time that are not powers of ten, in seconds: parts and multiples of minutes.
const TIMES_S: [f64; 6] = [15.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// The values of a histogram.
pub(super) struct Values<'a> {
    /// SQL expression of a value.
    pub value: &'a str,
    /// SQL expression of the rows.
    pub rows: &'a str,
    /// True if the values are times in seconds.
    pub is_time: bool,
    /// Name of the axis.
    pub axis: &'a str,
    /// The kind of items that are counted.
    pub counted: &'a str,
}

/// Returns a histogram with round edges, or `None` if the values are nearly equal.
///
/// # Errors
/// [`SqlError`] if a query fails.
pub(super) fn histogram(
    answers: &Answers<'_>,
    title: &str,
    note: &str,
    values: &Values<'_>,
) -> Result<Option<Chart>, SqlError> {
    let rows = format!(
        "(SELECT CAST({} AS DOUBLE) AS v FROM {}) WHERE v IS NOT NULL AND NOT isnan(v)",
        values.value, values.rows
    );
    let range = answers.ask(&format!(
        "SELECT min(v) AS low, max(v) AS high, count(*) AS n FROM {rows}"
    ))?;
    let n = range.count("n")?;
    let most = answers.ask(&format!(
        "SELECT v FROM {rows} ORDER BY v LIMIT 1 OFFSET {}",
        n.saturating_sub(1) - n / LEFT_OUT
    ))?;
    let ends = [
        range.number("low")?,
        range.number("high")?,
        most.number("v")?,
    ];
    let [Some(low), Some(high), Some(most)] = ends else {
        return Ok(None);
    };
    // If all values are the same, a chart carries no information.
    if !(high - low).is_finite() || high <= low || high - low < 0.01 * high.abs() {
        return Ok(None);
    }

    // If nearly all values are equal, their range has no width.
    let range = if most > low { most - low } else { high - low };
    let width = width(range, values.is_time);
    let first = (low / width).floor() * width;
    let n_bins = ((most - first) / width).floor() + 1.0;
    let end = first + width * n_bins;
    // Values near the largest number cannot be drawn on an axis.
    if !(end - first).is_finite() || !(2.0 * end).is_finite() || width <= 0.0 {
        return Ok(None);
    }
    let answer = answers.ask(&format!(
        "SELECT CAST(least(floor((v - {first}) / {width}), {n_bins} - 1) AS BIGINT) AS bin, count(*) AS n
         FROM {rows} GROUP BY 1 ORDER BY 1"
    ))?;
    let mut counts = vec![0; n_bins as usize];
    for (bin, n) in answer.counts("bin")?.into_iter().zip(answer.counts("n")?) {
        counts[bin as usize] += n;
    }

    let mut note = note.to_owned();
    if high > end {
        note += &format!(" The last bar contains all values over {}.", end - width);
    }
    let histogram = Histogram {
        axis: Axis::new(values.axis, first, end),
        counted: values.counted.to_owned(),
        counts,
    };
    let plot = Plot::Histogram(histogram);
    Ok(Some(Chart::new(title, note.trim_start(), plot)))
}

/// Returns the largest round width of which a range has at least [`BINS_MIN`].
fn width(range: f64, is_time: bool) -> f64 {
    let most = range / BINS_MIN;
    let power = 10_f64.powf(most.log10().floor());
    let mut width = power;
    for factor in [2.0, 5.0] {
        if factor * power <= most {
            width = factor * power;
        }
    }
    if is_time && most >= TIMES_S[0] {
        let fitting = TIMES_S.iter().filter(|&&time_s| time_s <= most);
        width = fitting.fold(width.min(TIMES_S[0]), |_, &time_s| time_s);
    }
    width
}

#[cfg(test)]
mod tests {
    use super::width;

    #[test]
    fn widths_are_round() {
        for (range, is_time, wanted) in [
            (30.0, false, 2.0),
            (29.97, true, 1.0),
            (100.0, false, 5.0),
            (3.0, false, 0.2),
            (600.0, true, 30.0),
            (1_000.0, true, 60.0),
            (20_000.0, true, 600.0),
            (20_000.0, false, 1_000.0),
        ] {
            let width = width(range, is_time);
            assert!((width - wanted).abs() < 1e-9, "{range}: {width}");
        }
    }
}
