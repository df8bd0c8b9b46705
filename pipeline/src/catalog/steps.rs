//! Cleaning: the recipe's SQL, step by step, each step counted, each row followed to the step that dropped it.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringViewArray,
};
use arrow::compute::{FilterBuilder, cast};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use wavemill_schemas::recipe::{CatalogSpec, CleanStep, Subset};

use super::csv_text::{DROPPED_BY, LINE};
use super::engine::{Engine, nearest, one_line};
use super::load::without_line;
use super::parallel::by_column;
use super::{CatalogError, StepCount, fma, wide};
use crate::course::Phase;
use crate::source::AudioIndex;

/// The step that drops rows whose clip has no file.
pub const AUDIO_STEP: &str = "audio";

/// The rows on their way through the steps.
pub(super) struct Cleaner<'a> {
    engine: &'a Engine,
    /// Where FMA's further tables come from; `None` for other data sets.
    fma_metadata: Option<&'a Path>,
    threads: usize,
    /// Every parsed row, ordered by line.
    all: RecordBatch,
    /// For each line, 1 + the row of `all` that began on it; 0: none did.
    places: Vec<u32>,
    /// Index of the step that dropped a row, for each row of `all`.
    dropped_by: Vec<Option<usize>>,
    /// The rows that are left; [`LINE`] is always among the columns.
    pub rows: RecordBatch,
    /// One per step so far.
    pub steps: Vec<StepCount>,
}

impl<'a> Cleaner<'a> {
    /// Starts with all parsed rows.
    pub(super) fn new(
        engine: &'a Engine,
        fma_metadata: Option<&'a Path>,
        threads: usize,
        all: RecordBatch,
    ) -> Self {
        // The rows are in the order of their lines, so the last line is the largest.
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

    /// Row of `all` that began on `line`.
    fn row_of(&self, line: i64) -> Option<usize> {
        let place = *self.places.get(usize::try_from(line).ok()?)?;
        (place as usize).checked_sub(1)
    }

    /// For each row of `all`: is its line among `kept`?
    fn marks(&self, kept: &Int64Array) -> Vec<bool> {
        let mut marks = vec![false; self.all.num_rows()];
        for row in kept.values().iter().filter_map(|&line| self.row_of(line)) {
            marks[row] = true;
        }
        marks
    }

    /// `subset`, then the recipe's steps.
    ///
    /// # Errors
    /// `Step` for refused or failing SQL, `StepKey` for a query that loses or repeats rows' keys.
    pub(super) fn run(&mut self, spec: &CatalogSpec) -> Result<(), CatalogError> {
        self.engine
            .course()
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
            self.engine.course().add(1);
        }
        Ok(())
    }

    /// Step `audio`: keeps rows whose clip is in `audio`. Returns how many it dropped.
    ///
    /// # Errors
    /// `NoAudio` when nothing would be left of some rows.
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
        // Not one file: that is the wrong folder, and no reason to drop every row.
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

    /// `where`: only line numbers come back, so that wide rows never pass through the engine.
    fn keep_where(&mut self, step: &str, predicate: &str) -> Result<(), CatalogError> {
        let answer = self.query(step, &where_query(LINE, predicate))?;
        let kept = self.marks(lines(&answer));

        // In the order of the rows that there are, whatever the order of the answer.
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
        Ok(by_column(self.threads, self.rows.schema(), |column| {
            filter.filter(self.rows.column(column))
        })?)
    }

    /// `sql`: the query's result is what the next step sees.
    fn replace_by(&mut self, step: &str, sql: &str) -> Result<(), CatalogError> {
        let output = self.all_columns(step, sql)?;
        let had_keys = self.rows.column_by_name("clip_key").is_some();
        let keys = output
            .column_by_name("clip_key")
            .map(|_| clip_keys(&output))
            .transpose();
        let keys = keys.map_err(|problem| {
            step_key(step, problem, "give each row its own text in `clip_key`")
        })?;
        if had_keys && keys.is_none() {
            return Err(step_key(step, "no `clip_key`", "select it too, or `*`"));
        }

        // Rows are followed through a query by their lines, else by their keys.
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

    /// A query that may ask for `*`.
    fn all_columns(&self, step: &str, sql: &str) -> Result<RecordBatch, CatalogError> {
        if let Some(packed) = wide::packed(&self.rows, sql) {
            self.engine.set_table("input", &packed)?;
            // Whatever fails on packed columns is asked once more of the rows as they are.
            if let Ok(output) = self.engine.query(sql) {
                return Ok(wide::unpacked(&output)?);
            }
        }
        self.query(step, sql)
    }

    fn query(&self, step: &str, sql: &str) -> Result<RecordBatch, CatalogError> {
        self.engine.set_table("input", &self.rows)?;
        self.engine.query(sql).map_err(|source| {
            if self.engine.course().is_stopped() {
                return CatalogError::Stopped;
            }

            // The engine's own message would not say which file the table comes from.
            if let Some(table) = self.engine.missing_table(sql) {
                return CatalogError::NoTable {
                    step: step.to_owned(),
                    hint: self.table_hint(&table),
                    table,
                };
            }

            CatalogError::Step {
                step: step.to_owned(),
                message: one_line(&source),
            }
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
        format!("nearest: {}", nearest(table, &known))
    }

    fn kept_lines(&self, step: &str, output: &RecordBatch) -> Result<Int64Array, CatalogError> {
        let mut is_left = self.marks(lines(&self.rows));
        let lines = cast(&output[LINE], &DataType::Int64)?
            .as_primitive::<Int64Type>()
            .clone();

        // A row may come once, and only if no step has dropped it. A repeated line would count a row twice, and any
        // other one a row that was never read or is counted as dropped.
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
            "pass that column on as it is",
        ))
    }

    fn lines_by_key(&self, step: &str, keys: &StringViewArray) -> Result<Int64Array, CatalogError> {
        let before = clip_keys(&self.rows).map_err(|problem| CatalogError::ClipKey { problem })?;
        let line_of: HashMap<_, _> = before.iter().zip(lines(&self.rows).values()).collect();

        // The keys of both are unique: `clip_keys` refuses others.
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

    /// A query that makes keys and keeps no line: fine while no row is gone, since then its rows are all there are.
    fn start_again(&mut self, step: &str, output: &RecordBatch) -> Result<(), CatalogError> {
        if output.num_rows() != self.all.num_rows() {
            let problem = format!("no `{LINE}`, and not as many rows as were read");
            return Err(step_key(
                step,
                problem,
                "select csv_line too, so that dropped rows can be told",
            ));
        }

        let numbers: Int64Array = (1..).take(output.num_rows()).map(Some).collect();
        let all = with_first_column(LINE, Arc::new(numbers), output)?;
        // The counts of the steps before this one stay; lines, and the places of rows by them, start anew.
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
        // A row that an earlier step dropped is not among these, and keeps that step's name.
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

    /// Table `tracks_all`: every parsed row, and the step that dropped it or null.
    ///
    /// # Errors
    /// `Arrow` alone.
    pub(super) fn tracks_all(&self) -> Result<RecordBatch, CatalogError> {
        let steps = self.dropped_by.iter();
        let names = steps.map(|step| step.map(|step| self.steps[step].step.as_str()));
        let dropped_by: StringViewArray = names.collect();
        with_first_column(DROPPED_BY, Arc::new(dropped_by), &self.all)
    }
}

/// The query of a `where` step for `columns` of the rows that it keeps.
pub(crate) fn where_query(columns: &str, predicate: &str) -> String {
    // The line break keeps a comment at the predicate's end from swallowing the bracket.
    format!("SELECT {columns} FROM input WHERE ({predicate}\n)")
}

const fn subset_predicate(subset: Subset) -> &'static str {
    match subset {
        Subset::Small => "set_subset IN ('small')",
        Subset::Medium => "set_subset IN ('small', 'medium')",
        Subset::Large => "set_subset IN ('small', 'medium', 'large')",
    }
}

fn step_key(step: &str, problem: impl Into<String>, remedy: &'static str) -> CatalogError {
    CatalogError::StepKey {
        step: step.to_owned(),
        problem: problem.into(),
        remedy,
    }
}

fn lines(rows: &RecordBatch) -> &Int64Array {
    rows[LINE].as_primitive::<Int64Type>()
}

/// The keys as text, each there and each once; otherwise what is wrong with them.
pub(super) fn clip_keys(rows: &RecordBatch) -> Result<StringViewArray, String> {
    let keys = rows
        .column_by_name("clip_key")
        .ok_or("no column `clip_key`")?;
    let keys = cast(keys, &DataType::Utf8View).map_err(|_| "a `clip_key` that is no text")?;
    let keys = keys.as_string_view().clone();
    if keys.null_count() > 0 {
        return Err(format!("{} rows without a `clip_key`", keys.null_count()));
    }

    // As in most files; then nothing can repeat.
    if keys.iter().is_sorted_by(|key, next| key < next) {
        return Ok(keys);
    }

    let mut seen = HashSet::with_capacity(keys.len());
    match keys.iter().flatten().find(|key| !seen.insert(*key)) {
        Some(twice) => Err(format!("`clip_key` {twice} twice")),
        None => Ok(keys),
    }
}

/// `rows` with a column more, at the front.
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
