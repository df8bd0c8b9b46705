//! Writes results as aligned columns for reading.
//!
//! Column widths are computed from the first rows, so that a result can be streamed. A wider value in a later row only
//! shifts that row.

use std::fmt::{self, Write as _};
use std::io::Write;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, SchemaRef};
use arrow::error::ArrowError;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use wavemill_schemas::text::{push_shown, shown};

use super::{Sink, SqlError};
use crate::tensor::{TensorColumn, TensorType};

/// Maximum length of a value in the table output, in characters. The other output formats write whole values.
const CELL_CHARS: usize = 80;
/// Maximum length of a value in characters if each value has its own line.
const LINE_CHARS: usize = 2000;
/// Number of leading rows from which the column widths are computed.
const HEAD_ROWS: usize = 1000;
/// Names of the columns of EXPLAIN.
const PLAN_COLUMNS: [&str; 2] = ["plan_type", "plan"];

/// Writes results as a table.
pub(super) struct TableSink<W> {
    out: W,
    schema: Option<SchemaRef>,
    layout: Layout,
    is_expanded: bool,
    /// Whether a result has been written. An empty line separates it from the next one.
    is_second: bool,
    /// Buffered rows, which are written as soon as the column widths are known.
    head: Vec<Vec<String>>,
    widths: Option<Vec<usize>>,
    /// Number of rows of this result so far.
    rows: usize,
}

/// Layout of a result as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// One line per row of the result.
    Rows,
    /// One line per value of the result.
    Values,
    /// The text of EXPLAIN, which has several lines.
    Plan,
}

impl<W: Write> TableSink<W> {
    pub(super) fn new(out: W) -> Self {
        Self {
            out,
            schema: None,
            layout: Layout::Rows,
            is_expanded: false,
            is_second: false,
            head: Vec::new(),
            widths: None,
            rows: 0,
        }
    }

    /// Computes the column widths and writes the header and the buffered rows. Later calls only write the rows.
    fn flush_head(&mut self) -> Result<(), SqlError> {
        let Some(schema) = self.schema.clone() else {
            return Ok(());
        };

        // Numbers are right-aligned.
        let right: Vec<bool> = schema
            .fields()
            .iter()
            .map(|field| field.data_type().is_numeric())
            .collect();

        let widths = match &self.widths {
            Some(widths) => widths.clone(),
            None => {
                let names = headings(&schema);
                let widths = widths(&names, &self.head);
                write_row(&mut self.out, &names, &widths, &vec![false; names.len()])?;
                let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
                writeln!(self.out, "{}", rules.join("+"))?;
                self.widths = Some(widths.clone());
                widths
            }
        };

        for row in self.head.drain(..) {
            write_row(&mut self.out, &row, &widths, &right)?;
        }
        Ok(())
    }

    fn write_values(&mut self, names: &[String], cells: &[String]) -> Result<(), SqlError> {
        let width = names
            .iter()
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0);

        self.rows += 1;
        writeln!(self.out, "-- row {} {}", self.rows, "-".repeat(width))?;
        for (name, cell) in names.iter().zip(cells) {
            let padding = " ".repeat(width - name.chars().count());
            writeln!(
                self.out,
                "{}",
                format!(" {name}{padding} | {cell}").trim_end()
            )?;
        }
        Ok(())
    }

    /// Writes the output of EXPLAIN line by line, without shortening it.
    fn write_plan(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        let options = FormatOptions::new();
        let kinds = ArrayFormatter::try_new(batch.column(0), &options)?;
        let plans = ArrayFormatter::try_new(batch.column(1), &options)?;

        for row in 0..batch.num_rows() {
            writeln!(self.out, "{}:", shown(&kinds.value(row).to_string()))?;
            for line in plans.value(row).to_string().lines() {
                writeln!(self.out, "  {}", shown(line))?;
            }
        }
        Ok(())
    }
}

fn headings(schema: &SchemaRef) -> Vec<String> {
    schema
        .fields()
        .iter()
        .map(|field| shown(field.name()).into_owned())
        .collect()
}

impl<W: Write> Sink for TableSink<W> {
    fn begin(&mut self, schema: &SchemaRef) -> Result<(), SqlError> {
        // The results of DDL and SET have no columns.
        self.schema = (!schema.fields().is_empty()).then(|| schema.clone());
        self.widths = None;
        self.rows = 0;

        // A sink receives results and no statements, so EXPLAIN is recognized by its columns.
        let is_plan = schema
            .fields()
            .iter()
            .map(|field| field.name().as_str())
            .eq(PLAN_COLUMNS);
        self.layout = match self.is_expanded {
            _ if is_plan => Layout::Plan,
            true => Layout::Values,
            false => Layout::Rows,
        };

        // A statement without columns writes nothing, so it needs no separating empty line.
        if self.schema.is_some() && std::mem::replace(&mut self.is_second, true) {
            writeln!(self.out)?;
        }
        Ok(())
    }

    fn write(&mut self, batch: &RecordBatch) -> Result<(), SqlError> {
        if self.layout == Layout::Plan {
            return self.write_plan(batch);
        }

        let schema = batch.schema();
        let columns: Vec<Cells> = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, array)| Cells::new(field, array))
            .collect::<Result<_, _>>()?;

        if self.layout == Layout::Values {
            let names = headings(&schema);

            for row in 0..batch.num_rows() {
                let cells: Vec<String> = columns
                    .iter()
                    .map(|column| column.text(row, LINE_CHARS))
                    .collect();
                self.write_values(&names, &cells)?;
            }
            return Ok(());
        }

        for row in 0..batch.num_rows() {
            // The first rows are buffered until there are enough to compute the widths.
            self.head.push(
                columns
                    .iter()
                    .map(|column| column.text(row, CELL_CHARS))
                    .collect(),
            );
        }
        if self.widths.is_some() || self.head.len() >= HEAD_ROWS {
            self.flush_head()?;
        }
        Ok(())
    }

    fn expand(&mut self, expanded: bool) {
        self.is_expanded = expanded;
    }

    fn finish(&mut self) -> Result<(), SqlError> {
        if self.layout == Layout::Rows {
            self.flush_head()?;
        }
        self.schema = None;
        Ok(self.out.flush()?)
    }
}

fn widths(names: &[String], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = names.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

fn write_row(
    out: &mut impl Write,
    cells: &[String],
    widths: &[usize],
    right: &[bool],
) -> Result<(), SqlError> {
    let mut line = String::new();
    for (i, ((cell, &width), &right)) in cells.iter().zip(widths).zip(right).enumerate() {
        line.push_str(if i == 0 { " " } else { " | " });
        let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
        let parts = if right {
            [padding.as_str(), cell]
        } else {
            [cell.as_str(), &padding]
        };
        line.extend(parts);
    }

    writeln!(out, "{}", line.trim_end())?;
    Ok(())
}

/// One column of a batch, as text.
enum Cells<'a> {
    Tensors(TensorColumn<'a>, TensorType),
    Values(ArrayFormatter<'a>),
}

impl<'a> Cells<'a> {
    fn new(field: &Field, array: &'a ArrayRef) -> Result<Self, ArrowError> {
        // With `with_display_error`, a value that cannot be formatted becomes text. An error then means that the `Cell`
        // is full.
        const OPTIONS: FormatOptions = FormatOptions::new()
            .with_null("NULL")
            .with_display_error(true);
        match (TensorType::from_field(field), TensorColumn::new(array)) {
            (Some(tensor), Some(column)) => Ok(Self::Tensors(column, tensor)),
            _ => Ok(Self::Values(ArrayFormatter::try_new(array, &OPTIONS)?)),
        }
    }

    fn text(&self, row: usize, chars_max: usize) -> String {
        match self {
            Self::Tensors(column, _) if column.is_null(row) => "NULL".to_owned(),
            Self::Tensors(column, tensor) => tensor.label(column.n_values(row, tensor)),
            Self::Values(formatter) => {
                let mut cell = Cell {
                    text: String::new(),
                    chars: 0,
                    chars_max,
                };
                // An error means that the cell is full: the rest of a long list is never formatted.
                if write!(cell, "{}", formatter.value(row)).is_err() {
                    cell.text.push('…');
                }
                cell.text
            }
        }
    }
}

/// Text of limited length that is safe to print on a terminal.
struct Cell {
    text: String,
    chars: usize,
    chars_max: usize,
}

impl fmt::Write for Cell {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            // The last character is reserved for the `…` of `Cells::text`.
            if self.chars == self.chars_max - 1 {
                return Err(fmt::Error);
            }
            push_shown(&mut self.text, c);
            self.chars += 1;
        }
        Ok(())
    }
}
