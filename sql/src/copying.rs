//! Limits of operators that copy values.
//!
//! DataFusion limits a batch by rows, and its memory pool does not count batches in transit: a join copies a text of
//! 20 MB into each row of its result, and `s || 'a'` makes a new one for each. The bytes that an operator can make of a
//! batch are therefore estimated before it gets the batch. Tensors do not count, because the number of rows of a batch
//! depends on their size.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::unnest::{ListUnnest, UnnestExec};
use datafusion::physical_plan::windows::WindowAggExec;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties,
    ReplaceChildrenOptions, SendableRecordBatchStream,
};
use futures::StreamExt;

use super::SqlError;
use super::bounded::{bytes_of, n_values};
use super::tensor::TensorType;

/// Divisor of the memory limit for what an operator can make of a batch.
const MADE_DIVISOR: usize = 4;
/// Divisor of the rows of a batch that a filter collects and that are as long as the longest one. More than that would be a
/// strange coincidence, and values of `array_agg` and `string_agg` may be long.
const FILTER_DIVISOR: usize = 16;
const MIB: f64 = (1 << 20) as f64;

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
        let is_window = node.is::<WindowAggExec>();
        let unnest = node.downcast_ref::<UnnestExec>();
        let unnested = unnest.map_or(&[][..], UnnestExec::list_column_indices);
        let (n_copies, copied) = copies(&*node)?;
        if n_repeated + n_copies == 0 || node.children().is_empty() {
            return Ok(Transformed::no(node));
        }

        let inputs = node.children().into_iter().map(|input| {
            let checked: Arc<dyn ExecutionPlan> = Arc::new(Checked {
                input: Arc::clone(input),
                operator: node.name().trim_end_matches("Exec").to_owned(),
                n_repeated,
                unnested: unnested.to_vec(),
                is_window,
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
    let is_key = ["Sort", "Window"].map(|kind| operator.name().contains(kind));
    let mut n_copies = 0;
    let mut copied = HashSet::new();
    operator.apply_expressions(&mut |root| {
        if is_key.contains(&true) || !root.is::<Column>() {
            copied.extend(collect_columns(root).iter().map(Column::index));
            // A function may have the same argument several times.
            root.apply(|_| {
                n_copies += 1;
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
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
    unnested: Vec<ListUnnest>,
    /// True if a value of a column in `copied` can be in all rows.
    is_window: bool,
    /// Number of copies that expressions make of the columns in `copied`.
    n_copies: usize,
    copied: HashSet<usize>,
    bytes_max: f64,
}

impl Checked {
    /// Refuses a batch of which the operator can make too much. `seen` has the number of rows of the stream and the bytes of
    /// the widest one.
    fn require_little(&self, batch: &RecordBatch, seen: &mut (usize, f64)) -> Result<()> {
        let schema = batch.schema_ref();
        let texts = schema.fields().iter().zip(batch.columns()).enumerate();
        let texts: Vec<_> = texts.filter(|(_, (field, _))| is_text(field)).collect();

        let mut n_repeated = self.n_repeated as f64;
        for list in &self.unnested {
            let lists = batch.column(list.index_in_input_schema);
            n_repeated = largest(lists, |list| Ok(n_values(list) as f64))?.max(n_repeated);
        }
        seen.0 += batch.num_rows();
        if self.is_window {
            n_repeated = seen.0 as f64;
        }

        let mut needed = 0.0;
        let mut repeated = Vec::new();
        for (place, (_, column)) in &texts {
            let is_copied = self.copied.contains(place);
            if is_copied {
                needed += bytes_of(column)? * self.n_copies as f64;
            }
            if !self.is_unnested(*place) && (is_copied || !self.is_window) {
                repeated.push(*column);
            }
        }
        let sum = |measure: fn(&ArrayRef) -> Result<f64>| {
            let bytes = repeated.iter().map(|column| measure(column));
            bytes.sum::<Result<f64>>()
        };
        // Rows are only compared if one can be too long.
        let mut widest = sum(bytes_of)?;
        if widest * n_repeated > self.bytes_max {
            widest = sum(|column| largest(column, bytes_of))?;
        }
        seen.1 = widest.max(seen.1);
        needed += n_repeated * seen.1;
        if needed <= self.bytes_max {
            return Ok(());
        }

        let mut longest = (0.0, "");
        for (_, (field, column)) in texts {
            let bytes = largest(column, bytes_of)?;
            if bytes > longest.0 {
                longest = (bytes, field.name());
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
        let refused = SqlError::TooComplex { detail };
        Err(DataFusionError::External(Box::new(refused)))
    }

    fn is_unnested(&self, place: usize) -> bool {
        let mut unnested = self.unnested.iter();
        unnested.any(|list| list.index_in_input_schema == place)
    }
}

/// Returns the largest measure of a row.
fn largest(values: &ArrayRef, measure: impl Fn(&ArrayRef) -> Result<f64>) -> Result<f64> {
    (0..values.len()).try_fold(0.0, |max: f64, row| {
        Ok(max.max(measure(&values.slice(row, 1))?))
    })
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
        let mut seen = (0, 0.0);
        let batches = batches.map(move |batch| {
            let batch = batch?;
            checked.require_little(&batch, &mut seen)?;
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
