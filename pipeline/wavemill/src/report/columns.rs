//! Profile of the columns of `tracks`, and charts of a data set's own columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use wavemill_pages::{Bars, Chart, Plot, Section, Table};
use wavemill_sql::SqlError;

use super::answers::Answers;
use super::bins::{self, Values};
use crate::quote::identifier;

/// Maximum number of different values that are drawn as bars.
const BARS_MAX: u64 = 20;
/// Maximum number of charts of own columns.
const CHARTS_MAX: usize = 12;
/// Columns of every table that are not about the contents of a track.
const COMMON: [&str; 4] = ["clip_key", "track_id", "split", "artist_id"];

/// A column of `tracks` and its values.
pub(super) struct Profile {
    field: FieldRef,
    n_values: u64,
    n_nulls: u64,
    n_distinct: Option<u64>,
    low: Option<String>,
    high: Option<String>,
}

pub(super) fn section(profiles: Vec<Profile>) -> Section {
    let mut section = Section::new("Columns of tracks");
    section.add_table(Table::of(
        "",
        profiles,
        &[
            ("column", &|of| of.field.name().as_str().into()),
            ("type", &|of| kind(of.field.data_type()).into()),
            ("nulls", &|of| of.n_nulls.into()),
            ("different values", &|of| of.n_distinct.into()),
            ("from", &|of| of.low.clone().into()),
            ("to", &|of| of.high.clone().into()),
        ],
    ));
    section
}

/// Returns the profiles of all columns of `tracks`.
///
/// # Errors
/// [`SqlError`] if the table is damaged.
pub(super) fn profiles(answers: &Answers<'_>) -> Result<Vec<Profile>, SqlError> {
    let columns = answers.columns("tracks")?;
    let fields = columns.fields().iter();
    fields.map(|field| Profile::of(answers, field)).collect()
}

/// Returns the name of a type for people who do not know Arrow.
fn kind(of: &DataType) -> String {
    match of {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::List(item) | DataType::LargeList(item) => {
            format!("list of {}", kind(item.data_type()))
        }
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => "date".to_owned(),
        of if of.is_integer() => "integer".to_owned(),
        of if of.is_floating() => "number".to_owned(),
        of => of.to_string().to_lowercase(),
    }
}

impl Profile {
    /// Reads one column, so that a query needs no more memory than the different values of a column.
    fn of(answers: &Answers<'_>, field: &FieldRef) -> Result<Self, SqlError> {
        let name = identifier(field.name());
        // Lists and structures have no order, and whether two of them are equal tells little.
        let values = if field.data_type().is_nested() {
            String::new()
        } else {
            format!(
                ", count(DISTINCT {name}) AS n_distinct, CAST(min({name}) AS VARCHAR) AS low,
                   CAST(max({name}) AS VARCHAR) AS high"
            )
        };
        let answer = answers.ask(&format!(
            "SELECT count({name}) AS n_values, count(*) AS n{values} FROM tracks"
        ))?;

        let n_values = answer.count("n_values")?;
        let n_nulls = answer.count("n")? - n_values;
        let mut profile = Self {
            field: Arc::clone(field),
            n_values,
            n_nulls,
            n_distinct: None,
            low: None,
            high: None,
        };
        if !values.is_empty() {
            profile.n_distinct = Some(answer.count("n_distinct")?);
            profile.low = answer.texts("low")?.swap_remove(0);
            profile.high = answer.texts("high")?.swap_remove(0);
        }
        Ok(profile)
    }
}

/// Returns charts of the columns that have some, but not too many different values, or numbers.
///
/// # Errors
/// [`SqlError`] if the table is damaged.
pub(super) fn charts(answers: &Answers<'_>, profiles: &[Profile]) -> Result<Vec<Chart>, SqlError> {
    let manifest = answers.subject.manifest;
    let targets = manifest.recipe.targets.iter();
    let targets: Vec<&str> = targets.map(|target| target.column.as_str()).collect();

    let mut charts = Vec::new();
    for profile in profiles {
        let field = &profile.field;
        let name = field.name().as_str();
        // Targets have charts of their own.
        let is_about_splits = COMMON.contains(&name) || name.starts_with("split_");
        if is_about_splits || targets.contains(&name) || field.data_type().is_nested() {
            continue;
        }

        let n_distinct = profile.n_distinct.unwrap_or(0);
        if (2..=BARS_MAX).contains(&n_distinct) && n_distinct < profile.n_values {
            charts.push(bars(answers, field)?);
        } else if field.data_type().is_numeric() && n_distinct > BARS_MAX {
            charts.extend(histogram(answers, name)?);
        }
        if charts.len() == CHARTS_MAX {
            break;
        }
    }
    Ok(charts)
}

/// Returns the counts of a column's values: numbers in their order, texts by their frequency.
fn bars(answers: &Answers<'_>, field: &Field) -> Result<Chart, SqlError> {
    let name = identifier(field.name());
    let order = match field.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "n DESC, v",
        _ => "v",
    };
    let answer = answers.ask(&format!(
        "SELECT {name} AS v, count(*) AS n FROM tracks GROUP BY 1 ORDER BY {order}"
    ))?;
    let values = answer.texts("v")?.into_iter().zip(answer.counts("n")?);
    let bars: Vec<(String, u64)> = values
        .map(|(value, n)| (value.unwrap_or_else(|| "(null)".to_owned()), n))
        .collect();
    let title = format!("Tracks by {}", field.name());
    let bars = Bars::counts(field.name(), "tracks", &bars);
    Ok(Chart::new(title, "", Plot::Bars(bars)))
}

fn histogram(answers: &Answers<'_>, name: &str) -> Result<Option<Chart>, SqlError> {
    let values = Values {
        value: &identifier(name),
        rows: "tracks",
        is_time: false,
        axis: name,
        counted: "tracks",
    };
    bins::histogram(answers, &format!("Tracks by {name}"), "", &values)
}
