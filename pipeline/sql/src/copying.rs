//! Limits of operators that copy values.
//!
//! DataFusion limits a batch by rows, and its memory pool does not count batches in transit: a join copies a text of
//! 20 MB into each row of its result, and `s || 'a'` makes a new one for each. The bytes that an operator can make of a
//! batch are therefore estimated before it gets the batch. Tensors do not count, because the number of rows of a batch
//! depends on their size.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::kernels::length::length;
use arrow::compute::{cast, max};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::Result;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream,
};
use futures::StreamExt;

use super::SqlError;
use super::bounded::{bytes_of, elements, n_values};
use super::tensor::TensorType;
use super::windows::{Results, Window};

/// Divisor of the memory limit for what an operator can make of a batch.
pub(super) const MADE_DIVISOR: usize = 4;
/// Divisor of the rows of a batch that a filter collects and that are as long as the longest one. More than that would be a
/// strange coincidence, and values of `array_agg` and `string_agg` may be long.
const FILTER_DIVISOR: usize = 16;
pub(super) const MIB: f64 = (1 << 20) as f64;

/// Adds a check in front of every operator of `plan` that copies texts or lists. `batch_rows` is the number of rows of the
/// plan's batches, and `memory_bytes` the memory limit.
///
/// # Errors
/// If DataFusion cannot rebuild the plan, which does not occur in practice.
pub(super) fn limited(
    plan: Arc<dyn ExecutionPlan>,
    batch_rows: usize,
    memory_bytes: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    plan.transform_up(|node| {
        // Match by name, because DataFusion has several kinds of join and all their names contain this word.
        let n_repeated = match node.name() {
            name if name.contains("Join") => batch_rows,
            "UnnestExec" => batch_rows,
            "FilterExec" => batch_rows / FILTER_DIVISOR,
            _ => 0,
        };
        let window = Window::of(&*node)?;
        let unnest = node.downcast_ref::<UnnestExec>();
        let unnested = unnest.map_or(&[][..], UnnestExec::list_column_indices);
        let unnested: Vec<_> = unnested.iter().map(|l| l.index_in_input_schema).collect();
        let (n_copies, copied) = copies(&*node)?;
        if n_repeated + n_copies == 0 || node.children().is_empty() {
            return Ok(Transformed::no(node));
        }

        let inputs = node.children().into_iter().map(|input| {
            let checked: Arc<dyn ExecutionPlan> = Arc::new(Checked {
                input: Arc::clone(input),
                operator: node.name().trim_end_matches("Exec").to_owned(),
                n_repeated,
                unnested: unnested.clone(),
                window: window.clone(),
                n_copies,
                copied: copied.clone(),
                bytes_max: (memory_bytes / MADE_DIVISOR) as f64,
            });
            checked
        });
        let inputs = inputs.collect();
        let unchanged = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Keep);
        node.replace_children(inputs, unchanged)
            .map(Transformed::yes)
    })
    .data()
}

/// Returns at least the number of copies of a value that an operator makes in expressions, and the columns that they have.
fn copies(operator: &dyn ExecutionPlan) -> Result<(usize, HashSet<usize>)> {
    // The rows of a sort are compared by copies of their keys, and a window function can return its argument.
    let is_key = ["Sort", "Window"]
        .iter()
        .any(|kind| operator.name().contains(kind));
    let schema = operator.children().first().map(|input| input.schema());
    let (mut n_copies, mut copied) = (0, HashSet::new());

    operator.apply_expressions(&mut |root| {
        if !is_key && root.is::<Column>() {
            return Ok(TreeNodeRecursion::Continue);
        }
        copied.extend(collect_columns(root).iter().map(Column::index));
        n_copies += usize::from(is_key);

        root.apply(|part| {
            // `length(s)` reads a text, but a list may have the same one several times.
            let field = schema.as_ref().map(|schema| part.return_field(schema));
            if !matches!(field, Some(Ok(field)) if !is_text(&field)) {
                n_copies += part.children().len();
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok((n_copies, copied))
}

/// Reports whether the values of a column have different sizes. Tensors do not count.
pub(super) fn is_text(field: &Field) -> bool {
    let is_fixed = matches!(
        field.data_type(),
        DataType::Null | DataType::Boolean | DataType::FixedSizeBinary(_)
    );
    let is_fixed = is_fixed || field.data_type().primitive_width().is_some();
    !is_fixed && TensorType::from_field(field).is_none()
}

/// The input of an operator that copies values.
#[derive(Clone, Debug)]
struct Checked {
    input: Arc<dyn ExecutionPlan>,
    operator: String,
    /// Number of rows of a batch that can be the same row.
    n_repeated: usize,
    /// Columns of lists, for each element of which the operator repeats the row.
    unnested: Vec<usize>,
    window: Option<Window>,
    /// Number of copies that expressions make of the columns in `copied`.
    n_copies: usize,
    copied: HashSet<usize>,
    bytes_max: f64,
}

impl Checked {
    /// Refuses a batch of which the operator can make too much, together with the results of `earlier` batches.
    fn require_little(&self, batch: &RecordBatch, earlier: &mut Results) -> Result<()> {
        let mut needed = match &self.window {
            Some(window) => window.bytes(batch, earlier)?,
            None => self.repeated_bytes(batch)?,
        };
        let texts = texts(batch);
        for (place, _, column) in &texts {
            if self.copied.contains(place) {
                needed += bytes_of(column)? * self.n_copies as f64;
            }
        }
        if needed <= self.bytes_max {
            return Ok(());
        }

        let mut longest = (0.0, "");
        for (_, field, column) in texts {
            for row in 0..column.len() {
                let bytes = bytes_of(&column.slice(row, 1))?;
                if bytes > longest.0 {
                    longest = (bytes, field.name());
                }
            }
        }
        let detail = format!(
            "{} can make {:.1} MiB of a batch of {} rows, but the limit is {:.1}: the longest value of column {} has \
             {:.3} MiB; shorten it with left(…), leave it out, or raise --memory-limit",
            self.operator,
            needed / MIB,
            batch.num_rows(),
            self.bytes_max / MIB,
            longest.1,
            longest.0 / MIB,
        );
        Err(SqlError::Usage(detail).into())
    }

    /// Returns at least the bytes of a batch that the operator makes by repeating rows of `batch`.
    fn repeated_bytes(&self, batch: &RecordBatch) -> Result<f64> {
        if self.n_repeated == 0 {
            return Ok(0.0);
        }
        let texts = texts(batch).into_iter();
        let texts = texts.filter(|(place, ..)| !self.unnested.contains(place));
        let texts: Vec<_> = texts.map(|(.., column)| column).collect();
        let lists: Vec<_> = self.unnested.iter().map(|i| batch.column(*i)).collect();
        let n_repeated = |n_values: Option<usize>| n_values.unwrap_or(0).max(self.n_repeated);

        // Rows are only compared if one can be too long.
        let n_values_max = lists.iter().map(|list| n_values(list)).max();
        let widest = texts.iter().map(|column| largest(column));
        let bytes = widest.sum::<Result<f64>>()? * n_repeated(n_values_max) as f64;
        if bytes <= self.bytes_max {
            return Ok(bytes);
        }
        let (mut sum, mut most) = (0.0, 0.0_f64);
        for row in 0..batch.num_rows() {
            let bytes = texts.iter().map(|column| bytes_of(&column.slice(row, 1)));
            let bytes = bytes.sum::<Result<f64>>()?;
            let n_values = lists.iter().map(|list| n_values(&list.slice(row, 1)));
            let n_values = n_values.max();
            sum += bytes * n_values.map_or(f64::INFINITY, |n| n as f64);
            most = most.max(bytes * n_repeated(n_values) as f64);
        }
        Ok(most.min(sum))
    }
}

/// Returns the columns of texts and lists of a batch with their places.
fn texts(batch: &RecordBatch) -> Vec<(usize, &FieldRef, &ArrayRef)> {
    let fields = batch.schema_ref().fields().iter().enumerate();
    let columns = fields.zip(batch.columns());
    let columns = columns.map(|((place, field), column)| (place, field, column));
    columns.filter(|(_, field, _)| is_text(field)).collect()
}

/// Returns at least the number of bytes of the largest value.
pub(super) fn largest(values: &ArrayRef) -> Result<f64> {
    if let Some(width) = values.data_type().primitive_width() {
        return Ok(width as f64);
    }
    if let DataType::Struct(_) = values.data_type() {
        return values.as_struct().columns().iter().map(largest).sum();
    }
    let elements = elements(values);
    let bytes = match &elements {
        Some(elements) => largest(elements)?,
        None if values.data_type().is_string() || values.data_type().is_binary() => 1.0,
        None => return bytes_of(values),
    };
    let lengths = cast(&length(values)?, &DataType::Int64)?;
    let longest = max(lengths.as_primitive::<Int64Type>()).unwrap_or(0);
    Ok(size_of::<u128>() as f64 + longest as f64 * bytes)
}

impl ExecutionPlan for Checked {
    fn name(&self) -> &str {
        "CheckedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut checked = Self::clone(&self);
        checked.input = children.pop().unwrap_or(checked.input);
        Ok(Arc::new(checked))
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let batches = self.input.execute(partition, context)?;
        let schema = batches.schema();
        let checked = self.clone();
        let mut earlier = Results::default();
        let batches = batches.map(move |batch| {
            let batch = batch?;
            checked.require_little(&batch, &mut earlier)?;
            Ok(batch)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }
}

impl DisplayAs for Checked {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
