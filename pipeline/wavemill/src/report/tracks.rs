//! Distribution of the tracks by class and split, year, bit rate and length.

use std::collections::BTreeMap;

use arrow::datatypes::DataType;
use wavemill_pages::{Axis, Bars, Chart, Histogram, Plot, Section, Series, count};
use wavemill_schemas::manifest::TargetEntry;
use wavemill_schemas::recipe::Dataset;
use wavemill_sql::SqlError;

use super::answers::Answers;
use super::bins::{self, Values};
use super::columns::{self, Profile};
use super::splits;
use crate::quote::identifier;

/// Columns of the table `tracks` that contain a date, each with a description of the date.
const DATES: [(&str, &str); 3] = [
    ("album_date_released", "year of the album's release"),
    ("track_date_recorded", "year of the recording"),
    ("track_date_created", "year of the upload"),
];
/// Maximum number of bit rates that have a bar of their own.
const RATES_MAX: usize = 12;
/// Maximum number of years shown. The latest ones are chosen, since metadata also contain years such as 1.
const YEARS_MAX: i64 = 120;
/// Up to this number of years, a bar chart with a label per year is drawn, since a histogram would label fractions.
const FEW_YEARS: i64 = 12;

pub(super) fn section(answers: &Answers<'_>, profiles: &[Profile]) -> Result<Section, SqlError> {
    let mut charts = Vec::new();
    for target in &answers.subject.manifest.targets {
        charts.push(by_class(target));
    }
    for (column, name) in DATES {
        charts.extend(by_year(answers, column, name)?);
    }
    charts.extend(by_bit_rate(answers)?);
    charts.extend(by_length(answers)?);
    if answers.subject.manifest.recipe.catalog.dataset == Dataset::Table {
        charts.extend(columns::charts(answers, profiles)?);
    }

    let mut section = Section::new("Tracks");
    section.add_charts(charts);
    Ok(section)
}

/// Returns a stacked bar chart of the clips in each class, with one part per split.
fn by_class(target: &TargetEntry) -> Chart {
    let mut order: Vec<usize> = (0..target.classes.len()).collect();
    order.sort_by_key(|&class| {
        let clips = target
            .counts
            .values()
            .filter_map(|counts| counts.get(class));
        std::cmp::Reverse(clips.sum::<u64>())
    });

    // The splits are in the order training, validation, test, and then others by name.
    let mut counts: Vec<(&String, &Vec<u64>)> = target.counts.iter().collect();
    counts.sort_by_key(|(split, _)| splits::place(split));
    let mut series = Vec::new();
    for (split, counts) in counts {
        series.push(Series {
            name: split.clone(),
            // A split may lack the counts of classes that it does not have.
            values: order
                .iter()
                .map(|&class| counts.get(class).copied().unwrap_or(0) as f64)
                .collect(),
        });
    }

    let n_classes = target.classes.len();
    let names = order.iter().map(|&class| target.classes[class].clone());
    let bars = Bars {
        named: target.name.clone(),
        names: names.collect(),
        series,
        unit: String::new(),
    };
    Chart::new(
        format!("Clips by {} and split", target.name),
        format!("{n_classes} classes. Unlabelled clips are not counted."),
        Plot::Bars(bars),
    )
}

fn by_year(answers: &Answers<'_>, column: &str, name: &str) -> Result<Option<Chart>, SqlError> {
    let columns = answers.columns("tracks")?;
    let is_date = columns.field_with_name(column).is_ok_and(|field| {
        matches!(
            field.data_type(),
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64
        )
    });
    if !is_date {
        return Ok(None);
    }

    let answer = answers.ask(&format!(
        "SELECT CAST(date_part('year', {column}) AS BIGINT) AS year, count(*) AS n
         FROM tracks GROUP BY 1 ORDER BY 1",
        column = identifier(column)
    ))?;
    let mut unknown = 0;
    let mut by_year = BTreeMap::new();
    for (year, n) in answer.numbers("year")?.into_iter().zip(answer.counts("n")?) {
        match year {
            Some(year) => _ = by_year.insert(year as i64, n),
            None => unknown += n,
        }
    }
    let Some((&last, _)) = by_year.last_key_value() else {
        return Ok(None);
    };

    // A chart with a single bar carries no information.
    if by_year.len() < 2 {
        return Ok(None);
    }

    let oldest = last - YEARS_MAX + 1;
    let first = by_year
        .range(oldest..)
        .next()
        .map_or(last, |(year, _)| *year);
    let earlier: u64 = by_year.range(..first).map(|(_, n)| n).sum();
    let years = first..=last;
    let counts = years.map(|year| by_year.get(&year).copied().unwrap_or(0));
    let mut note = format!("Tracks without such a date: {}.", count(unknown));
    if earlier > 0 {
        note += &format!(" {} are from before {first}.", count(earlier));
    }
    let plot = if last - first < FEW_YEARS {
        let years = (first..=last).map(|year| year.to_string());
        let bars: Vec<(String, u64)> = years.zip(counts).collect();
        Plot::Bars(Bars::counts("year", "tracks", &bars))
    } else {
        Plot::Histogram(Histogram {
            axis: Axis::new(name, first as f64, (last + 1) as f64),
            counted: "tracks".to_owned(),
            counts: counts.collect(),
        })
    };
    Ok(Some(Chart::new(format!("Tracks by {name}"), note, plot)))
}

fn by_bit_rate(answers: &Answers<'_>) -> Result<Option<Chart>, SqlError> {
    if !has_number(answers, "track_bit_rate")? {
        return Ok(None);
    }
    // Rounded to the nearest kbit/s, because tracks with a variable rate have arbitrary values. No rate reaches the
    // upper bound: it excludes NaN, infinity and numbers that have no integer.
    let answer = answers.ask(
        "SELECT CAST((track_bit_rate + 500) / 1000 AS BIGINT) AS rate, count(*) AS n
         FROM tracks WHERE track_bit_rate > 0 AND track_bit_rate < 1e12 GROUP BY 1 ORDER BY n DESC, rate",
    )?;
    let rates = answer.counts("rate")?;
    let counts = answer.counts("n")?;
    if rates.is_empty() {
        return Ok(None);
    }

    // The most frequent rates have bars, in the order of the rates.
    let mut most: Vec<(u64, u64)> = rates.iter().copied().zip(counts.iter().copied()).collect();
    most.truncate(RATES_MAX);
    most.sort_unstable();
    let bars = most.iter().map(|(rate, n)| (format!("{rate} kbit/s"), *n));
    let mut bars: Vec<(String, u64)> = bars.collect();
    let others: u64 = counts.iter().skip(RATES_MAX).sum();
    if others > 0 {
        let n = rates.len() - RATES_MAX;
        bars.push((format!("{n} other rates"), others));
    }
    Ok(Some(Chart::new(
        "Tracks by original bit rate",
        "As stated in the metadata; the clips in an archive may have been re-encoded.",
        Plot::Bars(Bars::counts("bit rate", "tracks", &bars)),
    )))
}

fn by_length(answers: &Answers<'_>) -> Result<Option<Chart>, SqlError> {
    if !has_number(answers, "track_duration")? {
        return Ok(None);
    }
    bins::histogram(
        answers,
        "Tracks by original length",
        "As stated in the metadata.",
        &Values {
            value: "track_duration",
            rows: "(SELECT track_duration FROM tracks WHERE track_duration >= 0 AND track_duration < 1e12)",
            is_time: true,
            axis: "length (s)",
            counted: "tracks",
        },
    )
}

/// Reports whether `tracks` has a numeric column of this name.
fn has_number(answers: &Answers<'_>, name: &str) -> Result<bool, SqlError> {
    let columns = answers.columns("tracks")?;
    let field = columns.field_with_name(name);
    Ok(field.is_ok_and(|field| field.data_type().is_numeric()))
}
