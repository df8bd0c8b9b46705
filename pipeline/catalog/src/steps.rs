//! Runs the recipe's cleaning SQL step by step. Each step is counted, and each dropped row is attributed to its step.

use std::collections::{HashMap, HashSet};
use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringViewArray,
};
use arrow::compute::{FilterBuilder, cast};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::sql::parser::Statement;
use wavemill_runtime::parallel::in_parts;
use wavemill_runtime::progress::Phase;
use wavemill_schemas::recipe::AUDIO_STEP;
use wavemill_schemas::recipe::{CatalogSpec, CleanStep, Subset};
use wavemill_source::AudioIndex;

use super::csv_text::{DROPPED_BY, LINE};
use super::engine::{Engine, nearest, one_line};
use super::load::without_line;
use super::statements::{parse_query, require_expression};
use super::{CatalogError, StepCount, fma, wide};

/// State of the rows between cleaning steps.
pub(super) struct Cleaner<'a> {
    engine: &'a Engine,
    /// Source of FMA's further tables; `None` for other data sets.
    fma_metadata: Option<&'a Path>,
    threads: usize,
    /// Every parsed row, ordered by line.
    all: RecordBatch,
    /// For each line, 1 + the index in `all` of the row that starts on it; 0 if no row starts there.
    places: Vec<u32>,
    /// For each row of `all`, the index of the cleaning step that dropped it.
    dropped_by: Vec<Option<usize>>,
    /// The rows that no step has dropped so far. [`LINE`] is always one of their columns.
    pub rows: RecordBatch,
    /// Row counts of the cleaning steps that have run.
    pub steps: Vec<StepCount>,
}

impl<'a> Cleaner<'a> {
    /// Creates the state before the first cleaning step, with all parsed rows.
    pub(super) fn new(
        engine: &'a Engine,
        fma_metadata: Option<&'a Path>,
        threads: usize,
        all: RecordBatch,
    ) -> Self {
        // The rows are ordered by line, so the last row has the largest line number.
        let last_line = lines(&all).values().last();
        let mut places = vec![0; last_line.map_or(0, |last| *last as usize + 1)];
        for (&line, place) in lines(&all).values().iter().zip(1..) {
            places[line as usize] = place;
        }

        let dropped_by = vec![None; all.num_rows()];
        Self {
            engine,
            fma_metadata,
            threads,
            rows: all.clone(),
            dropped_by,
            all,
            places,
            steps: Vec::new(),
        }
    }

    /// Returns the index in `all` of the row that starts on `line`.
    fn row_of(&self, line: i64) -> Option<usize> {
        let place = *self.places.get(usize::try_from(line).ok()?)?;
        (place as usize).checked_sub(1)
    }

    /// Returns for each row of `all` whether its line is in `kept`.
    fn marks(&self, kept: &Int64Array) -> Vec<bool> {
        let mut marks = vec![false; self.all.num_rows()];
        for row in kept.values().iter().filter_map(|&line| self.row_of(line)) {
            marks[row] = true;
        }
        marks
    }

    /// Runs the cleaning step `subset`, then the cleaning steps of the recipe.
    ///
    /// # Errors
    /// `Unusable` if SQL is refused or fails, or if a query loses or repeats the keys of rows.
    pub(super) fn run(&mut self, spec: &CatalogSpec) -> Result<(), CatalogError> {
        self.engine
            .progress()
            .enter(Phase::Cleaning, spec.clean.len() as u64);
        if let Some(subset) = spec.subset {
            self.keep_where("subset", subset_predicate(subset))?;
        }

        for CleanStep {
            step,
            predicate,
            sql,
        } in &spec.clean
        {
            match (predicate, sql) {
                (Some(predicate), _) => self.keep_where(step, predicate)?,
                (None, Some(sql)) => self.replace_by(step, sql)?,
                (None, None) => {}
            }
            self.engine.progress().add(1);
        }
        Ok(())
    }

    /// Runs the cleaning step `audio`, which keeps rows whose clip is in `audio`. Returns the number of dropped rows.
    ///
    /// # Errors
    /// `NoAudio` if there were rows and none of their clips has a file.
    pub(super) fn keep_with_audio(
        &mut self,
        keys: &StringViewArray,
        audio: &AudioIndex,
    ) -> Result<usize, CatalogError> {
        let mask: BooleanArray = keys
            .iter()
            .map(|key| key.map(|key| audio.contains_key(key)))
            .collect();

        let dropped = keys.len() - mask.true_count();
        // If no row has a file, the audio folder is wrong: this is an error, instead of dropping every row.
        if dropped == keys.len() && dropped > 0 {
            return Err(CatalogError::NoAudio {
                rows: dropped,
                example: keys.value(0).to_owned(),
                hint: String::new(),
            });
        }

        let kept = self.filtered(&mask)?;
        self.finish(AUDIO_STEP, kept);
        Ok(dropped)
    }

    /// Runs a `where` step. The query returns only line numbers, so that wide rows are not copied through the engine.
    fn keep_where(&mut self, step: &str, predicate: &str) -> Result<(), CatalogError> {
        let query = parse_where(LINE, predicate).map_err(unusable(step))?;
        let answer = self.query(step, &query)?;
        let kept = self.marks(lines(&answer));

        // The rows keep their order, regardless of the order of the query's result.
        let mut mask = Vec::with_capacity(self.rows.num_rows());
        for &line in lines(&self.rows).values() {
            mask.push(self.row_of(line).is_some_and(|row| kept[row]));
        }
        let mask = BooleanArray::from(mask);
        let rows = self.filtered(&mask)?;
        self.finish(step, rows);
        Ok(())
    }

    fn filtered(&self, mask: &BooleanArray) -> Result<RecordBatch, CatalogError> {
        let filter = FilterBuilder::new(mask).optimize().build();
        let columns = in_parts(self.threads, self.rows.num_columns(), |column| {
            filter.filter(self.rows.column(column))
        })?;
        Ok(RecordBatch::try_new(self.rows.schema(), columns)?)
    }

    /// Runs a `sql` step, whose result is the input of the next step.
    fn replace_by(&mut self, step: &str, sql: &str) -> Result<(), CatalogError> {
        let output = self.all_columns(step, sql)?;
        if let Some(name) = repeated_column(&output.schema()) {
            let problem = format!("two columns `{name}`");
            let remedy = "list the columns instead of `*`, or use JOIN … USING";
            return Err(step_key(step, problem, remedy));
        }
        let had_keys = self.rows.column_by_name("clip_key").is_some();
        let keys = output
            .column_by_name("clip_key")
            .map(|_| clip_keys(&output))
            .transpose();
        let keys = keys.map_err(|problem| {
            step_key(step, problem, "set a unique text `clip_key` for each row")
        })?;
        if had_keys && keys.is_none() {
            return Err(step_key(step, "no `clip_key`", "select it too, or `*`"));
        }

        // Rows of the query's result are identified by their lines, or else by their keys.
        let lines = if output.column_by_name(LINE).is_some() {
            self.kept_lines(step, &output)?
        } else if let (true, Some(keys)) = (had_keys, &keys) {
            self.lines_by_key(step, keys)?
        } else {
            return self.start_again(step, &output);
        };
        let rows = with_first_column(LINE, Arc::new(lines), &without_line(&output)?)?;
        self.finish(step, rows);
        Ok(())
    }

    /// Runs the query of a cleaning step, which may select `*`. Packs the columns of wide tables for the query.
    fn all_columns(&self, step: &str, sql: &str) -> Result<RecordBatch, CatalogError> {
        let query = &parse_query(sql).map_err(unusable(step))?;
        if let Some(packed) = wide::packed(&self.rows, sql) {
            self.engine.set_table("input", &packed)?;
            // A query that fails on packed columns is run again on the original rows.
            if let Ok(output) = self.engine.query(query) {
                return Ok(wide::unpacked(&output)?);
            }
        }
        self.query(step, query)
    }

    fn query(&self, step: &str, query: &Statement) -> Result<RecordBatch, CatalogError> {
        self.engine.set_table("input", &self.rows)?;
        self.engine.query(query).map_err(|source| {
            if self.engine.progress().is_stopped() {
                return CatalogError::Stopped;
            }

            // DataFusion's own message does not name the metadata file that contains the missing table.
            if let Some(table) = self.engine.missing_table(query) {
                let hint = self.table_hint(&table);
                return CatalogError::Unusable(format!(
                    "cleaning step `{step}`: no table `{table}`: {hint}"
                ));
            }

            // DataFusion's error is not kept as a `source`, because its message would list every known column.
            let message = one_line(&source);
            CatalogError::Unusable(format!("cleaning step `{step}`: {message}"))
        })
    }

    fn table_hint(&self, table: &str) -> String {
        if let (Some(metadata), Some(file)) = (self.fma_metadata, fma::file_of(table)) {
            return format!(
                "it comes from {file}, which is not in {}",
                metadata.display()
            );
        }
        let known = self.engine.tables();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        format!(
            "nearest: {}; --table {table}=FILE adds a table",
            nearest(table, &known)
        )
    }

    fn kept_lines(&self, step: &str, output: &RecordBatch) -> Result<Int64Array, CatalogError> {
        let mut is_left = self.marks(lines(&self.rows));
        let lines = cast(&output[LINE], &DataType::Int64)?
            .as_primitive::<Int64Type>()
            .clone();

        // A row may occur once, and only if no earlier step has dropped it. A repeated line would count a row twice. An
        // unknown line would count a row that was never read or was already counted as dropped.
        let are_kept = lines.iter().all(|line| {
            let row = line.and_then(|line| self.row_of(line));
            row.is_some_and(|row| std::mem::take(&mut is_left[row]))
        });
        if are_kept {
            return Ok(lines);
        }
        Err(step_key(
            step,
            format!("a null, unknown or repeated `{LINE}`"),
            "leave this column unchanged",
        ))
    }

    fn lines_by_key(&self, step: &str, keys: &StringViewArray) -> Result<Int64Array, CatalogError> {
        let before = clip_keys(&self.rows).map_err(CatalogError::clip_key)?;
        let line_of: HashMap<_, _> = before.iter().zip(lines(&self.rows).values()).collect();

        // Keys are unique both before and after the query, because `clip_keys` refuses repeated keys.
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let Some(&&line) = line_of.get(&key) else {
                return Err(step_key(
                    step,
                    format!("an unknown `clip_key` {key:?}"),
                    "select csv_line too, or `*`",
                ));
            };
            found.push(line);
        }
        Ok(Int64Array::from(found))
    }

    /// Handles a query that creates keys and does not select line numbers. Allowed only if the number of rows is that
    /// of all parsed rows, so that no row has been dropped.
    fn start_again(&mut self, step: &str, output: &RecordBatch) -> Result<(), CatalogError> {
        if output.num_rows() != self.all.num_rows() {
            let problem = format!("no `{LINE}`, and not the number of rows that were read");
            return Err(step_key(
                step,
                problem,
                "select csv_line too, so that dropped rows can be identified",
            ));
        }

        let numbers: Int64Array = (1..).take(output.num_rows()).map(Some).collect();
        let all = with_first_column(LINE, Arc::new(numbers), output)?;
        // The counts of the previous steps are kept. Line numbers, and the lookup of rows by line, are created again.
        let steps = std::mem::take(&mut self.steps);
        *self = Self {
            steps,
            ..Self::new(self.engine, self.fma_metadata, self.threads, all.clone())
        };
        self.finish(step, all);
        Ok(())
    }

    fn finish(&mut self, step: &str, rows: RecordBatch) {
        let kept = self.marks(lines(&rows));
        // Rows that an earlier step dropped are not in `self.rows`, so they remain attributed to that step.
        for &line in lines(&self.rows).values() {
            if let Some(row) = self.row_of(line).filter(|row| !kept[*row]) {
                self.dropped_by[row] = Some(self.steps.len());
            }
        }

        let n_kept = rows.num_rows();
        self.steps.push(StepCount {
            step: step.to_owned(),
            dropped: (self.rows.num_rows() - n_kept) as u64,
            kept: n_kept as u64,
        });
        self.rows = rows;
    }

    /// Creates the table `tracks_all`: every parsed row, with the name of the step that dropped it, or null.
    ///
    /// # Errors
    /// `Arrow` if an arrow function fails.
    pub(super) fn tracks_all(&self) -> Result<RecordBatch, CatalogError> {
        let steps = self.dropped_by.iter();
        let names = steps.map(|step| step.map(|step| self.steps[step].step.as_str()));
        let dropped_by: StringViewArray = names.collect();
        with_first_column(DROPPED_BY, Arc::new(dropped_by), &self.all)
    }
}

/// Returns a function that creates the error of a step whose SQL is refused.
fn unusable(step: &str) -> impl Fn(CatalogError) -> CatalogError {
    move |error| CatalogError::Unusable(format!("cleaning step `{step}`: {error}"))
}

/// Parses the condition of a `where` step. Returns a query for `columns` of the rows to keep.
///
/// # Errors
/// [`CatalogError::Unusable`] if the condition has a syntax error, is more than one expression, or is beyond a limit.
pub fn parse_where(columns: &str, predicate: &str) -> Result<Statement, CatalogError> {
    require_expression(predicate)?;
    // The line break prevents a comment at the end of the predicate from commenting out the bracket.
    parse_query(&format!(
        "SELECT {columns} FROM input WHERE ({predicate}\n)"
    ))
}

const fn subset_predicate(subset: Subset) -> &'static str {
    match subset {
        Subset::Small => "set_subset IN ('small')",
        Subset::Medium => "set_subset IN ('small', 'medium')",
        Subset::Large => "set_subset IN ('small', 'medium', 'large')",
    }
}

/// Returns the error for a step whose query lost the columns that identify rows.
fn step_key(step: &str, problem: impl Display, remedy: &str) -> CatalogError {
    CatalogError::Unusable(format!(
        "cleaning step `{step}`: its result has {problem}; {remedy}"
    ))
}

/// Returns the first name that an earlier column has, too.
pub(super) fn repeated_column(schema: &Schema) -> Option<&str> {
    let mut names = HashSet::new();
    let mut fields = schema.fields().iter();
    fields.find_map(|field| (!names.insert(field.name())).then_some(field.name().as_str()))
}

fn lines(rows: &RecordBatch) -> &Int64Array {
    rows[LINE].as_primitive::<Int64Type>()
}

/// Returns the clip keys of `rows` as text. If keys are missing, null or repeated, the error describes the problem.
pub(super) fn clip_keys(rows: &RecordBatch) -> Result<StringViewArray, String> {
    let keys = rows
        .column_by_name("clip_key")
        .ok_or("no column `clip_key`")?;
    let keys = cast(keys, &DataType::Utf8View).map_err(|_| "a `clip_key` that is not text")?;
    let keys = keys.as_string_view().clone();
    if keys.null_count() > 0 {
        return Err(format!("{} rows without a `clip_key`", keys.null_count()));
    }

    // Strictly ascending keys, as in most files, cannot repeat.
    if keys.iter().is_sorted_by(|key, next| key < next) {
        return Ok(keys);
    }

    let mut seen = HashSet::with_capacity(keys.len());
    match keys.iter().flatten().find(|key| !seen.insert(*key)) {
        Some(twice) => Err(format!("`clip_key` {twice} more than once")),
        None => Ok(keys),
    }
}

/// Returns `rows` with an additional first column.
pub(super) fn with_first_column(
    name: &str,
    column: ArrayRef,
    rows: &RecordBatch,
) -> Result<RecordBatch, CatalogError> {
    let mut fields = vec![Arc::new(Field::new(
        name,
        column.data_type().clone(),
        column.null_count() > 0,
    ))];
    fields.extend(rows.schema().fields().iter().cloned());

    let columns = std::iter::once(column)
        .chain(rows.columns().iter().cloned())
        .collect();
    Ok(RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns,
    )?)
}
