//! Executes a text of SQL and backslash commands from an argument, a file or the prompt.

use std::io::{self, BufWriter, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, UInt64Array};

use super::script::{Piece, pieces};
use super::tensor::TensorType;
use super::{Format, Session, Sink, SqlError, output};

/// Output settings of the console.
#[derive(Clone, Copy, Debug)]
pub struct Console {
    /// Output format of query results.
    pub format: Format,
    /// Whether tables have one line per value, for rows wider than the screen. `\x` toggles it.
    pub expanded: bool,
}

impl Console {
    /// Executes `text` and writes the results to standard output.
    ///
    /// # Errors
    /// [`SqlError`] if a statement or command fails. Earlier results have already been written.
    pub fn show(&mut self, session: &Session, text: &str) -> Result<(), SqlError> {
        self.answer(session, text, BufWriter::new(io::stdout()))
    }

    /// Executes `text` and writes the results to `out`.
    ///
    /// # Errors
    /// [`SqlError`] if a statement or command fails. Earlier results have already been written.
    pub fn answer(
        &mut self,
        session: &Session,
        text: &str,
        out: impl Write + Send,
    ) -> Result<(), SqlError> {
        let mut sink = output::sink(self.format, out);
        sink.expand(self.expanded);
        let pieces = pieces(text);
        if pieces.is_empty() {
            let problem = "the query is empty: give SQL, such as \"SELECT count(*) FROM tracks\"";
            return Err(SqlError::Usage(problem.to_owned()));
        }

        for piece in pieces {
            match piece {
                Piece::Sql(sql) => session.run(sql, sink.as_mut())?,
                Piece::Command(command) => self.command(session, command, sink.as_mut())?,
            }
        }
        Ok(())
    }

    fn command(
        &mut self,
        session: &Session,
        command: &str,
        sink: &mut dyn Sink,
    ) -> Result<(), SqlError> {
        let (word, rest) = command
            .split_once(char::is_whitespace)
            .unwrap_or((command, ""));

        let answer = match (word, rest.trim()) {
            ("\\d", "") => tables(session)?,
            ("\\d", table) => columns(session, table)?,
            ("\\x", turn) => {
                self.expanded = match turn {
                    "on" => true,
                    "off" => false,
                    _ => !self.expanded,
                };
                sink.expand(self.expanded);
                return Ok(());
            }
            _ => {
                return Err(SqlError::Usage(format!(
                    "no command {word}: available are \\d, \\d TABLE and \\x, and at the prompt \\? and \\q"
                )));
            }
        };

        sink.begin(&answer.schema())?;
        sink.write(&answer)?;
        sink.finish()
    }
}

/// Implements `\d`: returns the tables, with their number of rows if the manifest contains it.
fn tables(session: &Session) -> Result<RecordBatch, SqlError> {
    let names = session.tables();
    let rows: UInt64Array = names.iter().map(|name| session.rows_of(name)).collect();
    let columns: [(&str, ArrayRef); 2] = [
        ("table", Arc::new(StringArray::from_iter_values(&names))),
        ("rows", Arc::new(rows)),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}

/// Implements `\d TABLE`: returns the columns and their types.
fn columns(session: &Session, table: &str) -> Result<RecordBatch, SqlError> {
    let schema = session.columns(table)?;
    let names = schema.fields().iter().map(|field| field.name().clone());
    let types = schema.fields().iter().map(|field| {
        let tensor = TensorType::from_field(field).map(|tensor| format!("tensor {tensor}"));
        tensor.unwrap_or_else(|| field.data_type().to_string())
    });

    let columns: [(&str, ArrayRef); 2] = [
        ("column", Arc::new(StringArray::from_iter_values(names))),
        ("type", Arc::new(StringArray::from_iter_values(types))),
    ];
    Ok(RecordBatch::try_from_iter(columns)?)
}
