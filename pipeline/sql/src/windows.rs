//! Sizes of the results of window functions.
//!
//! Each row has its own copy of a result: `max(s)` over a partition of 1,000 rows makes 1,000 texts.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::partition;
use datafusion::common::utils::get_row_at_idx;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    Accumulator, ColumnarValue, WindowFrame, WindowFrameBound, WindowFrameUnits,
};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::window::{
    PlainAggregateWindowExpr, SlidingAggregateWindowExpr, StandardWindowExpr, WindowExpr,
};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec, WindowUDFExpr};

use super::bounded::bytes_of;
use super::copying::{is_text, largest};

/// The functions of an operator whose results are texts or lists.
#[derive(Clone, Debug)]
pub(super) struct Window {
    partition_by: Vec<Arc<dyn PhysicalExpr>>,
    arguments: Vec<(Arc<dyn PhysicalExpr>, Content)>,
    /// True if the operator makes results batch by batch, otherwise those of all rows at once.
    is_streamed: bool,
}

/// The values of an argument that a result contains.
#[derive(Clone, Debug)]
enum Content {
    /// At most so many values of the partition.
    Values(f64),
    /// The value of the first or the last row of the partition.
    End,
    /// The result of this aggregate over the partition.
    Aggregate(Arc<AggregateFunctionExpr>),
}

/// Bytes of the results of a [`Window`].
#[derive(Default)]
pub(super) struct Results {
    /// Those of complete partitions, less the bytes of their arguments, which the operator holds in any case.
    complete: f64,
    last: Partition,
}

/// The rows of a partition up to the current batch.
#[derive(Default)]
struct Partition {
    key: Option<Vec<ScalarValue>>,
    n_rows: f64,
    arguments: Vec<Argument>,
}

#[derive(Default)]
struct Argument {
    /// Bytes of all values.
    sum: f64,
    first: f64,
    /// Bytes of the longest value, or of the longer one of both ends.
    longest: f64,
    aggregate: Option<Box<dyn Accumulator>>,
}

impl Window {
    /// Returns the window of an operator, or `None` if it has none.
    pub(super) fn of(operator: &dyn ExecutionPlan) -> Result<Option<Self>> {
        let (functions, is_streamed) = if let Some(all) = operator.downcast_ref::<WindowAggExec>() {
            (all.window_expr(), false)
        } else if let Some(streamed) = operator.downcast_ref::<BoundedWindowAggExec>() {
            (streamed.window_expr(), true)
        } else {
            return Ok(None);
        };

        let mut arguments = Vec::new();
        for function in functions {
            if is_text(&*function.field()?) {
                let (expressions, content) = content(&**function);
                arguments.extend(expressions.into_iter().map(|e| (e, content.clone())));
            }
        }
        let first = functions.first();
        let partition_by = first.map_or(&[][..], |function| function.partition_by());
        Ok(Some(Self {
            partition_by: partition_by.to_vec(),
            arguments,
            is_streamed,
        }))
    }

    /// Returns at least the bytes that the operator has to hold for the results of `batch` and, unless they are streamed, of
    /// all batches before it. The rows of all batches are sorted by `partition_by`.
    pub(super) fn bytes(&self, batch: &RecordBatch, results: &mut Results) -> Result<f64> {
        let n_rows = batch.num_rows();
        if n_rows == 0 || self.arguments.is_empty() {
            return Ok(0.0);
        }
        if self.is_streamed {
            results.complete = 0.0;
            results.last.n_rows = 0.0;
        }
        let keys = self.partition_by.iter();
        let keys = keys.map(|key| key.evaluate(batch)?.into_array(n_rows));
        let keys = keys.collect::<Result<Vec<_>>>()?;
        let partitions = match keys.is_empty() {
            true => std::iter::once(0..n_rows).collect(),
            false => partition(&keys)?.ranges(),
        };
        // A constant is an array of one value.
        let values = self.arguments.iter();
        let values = values.map(|(argument, _)| match argument.evaluate(batch)? {
            ColumnarValue::Array(values) => Ok(values),
            ColumnarValue::Scalar(value) => value.to_array(),
        });
        let values = values.collect::<Result<Vec<_>>>()?;

        for rows in partitions {
            let key = get_row_at_idx(&keys, rows.start)?;
            if results.last.key.as_ref() != Some(&key) {
                results.complete += self.results_of(&mut results.last)?;
                results.last = self.partition(key)?;
            }
            results.last.n_rows += rows.len() as f64;
            let arguments = results.last.arguments.iter_mut().zip(&self.arguments);
            for ((argument, (_, content)), values) in arguments.zip(&values) {
                match values.len() == n_rows {
                    true => argument.add(&values.slice(rows.start, rows.len()), 1, content)?,
                    false => argument.add(values, rows.len(), content)?,
                }
            }
        }
        Ok(results.complete + self.results_of(&mut results.last)?)
    }

    /// Returns an empty partition.
    fn partition(&self, key: Vec<ScalarValue>) -> Result<Partition> {
        let arguments = self.arguments.iter().map(|(_, content)| {
            let aggregate = match content {
                Content::Aggregate(function) => Some(function.create_accumulator()?),
                _ => None,
            };
            Ok(Argument {
                aggregate,
                ..Argument::default()
            })
        });
        Ok(Partition {
            key: Some(key),
            n_rows: 0.0,
            arguments: arguments.collect::<Result<_>>()?,
        })
    }

    /// Returns at least the bytes of the results in a partition, less those of the arguments.
    fn results_of(&self, partition: &mut Partition) -> Result<f64> {
        let mut bytes = 0.0;
        for (argument, (_, content)) in partition.arguments.iter_mut().zip(&self.arguments) {
            let result = match (content, &mut argument.aggregate) {
                (_, Some(aggregate)) => bytes_of(&aggregate.evaluate()?.to_array()?)?,
                (Content::Values(n), _) => argument.sum.min(argument.longest * n),
                _ => argument.longest,
            };
            let held = if self.is_streamed { 0.0 } else { argument.sum };
            bytes += result * partition.n_rows - held;
        }
        Ok(bytes)
    }
}

impl Argument {
    /// Adds `n` times the values of an argument.
    fn add(&mut self, values: &ArrayRef, n: usize, content: &Content) -> Result<()> {
        let end = |row| bytes_of(&values.slice(row, 1));
        match content {
            Content::Values(_) => self.longest = self.longest.max(largest(values)?),
            Content::End => {
                if self.sum == 0.0 {
                    self.first = end(0)?;
                }
                self.longest = self.first.max(end(values.len() - 1)?);
            }
            Content::Aggregate(_) => {
                if let Some(aggregate) = &mut self.aggregate {
                    aggregate.update_batch(&[Arc::clone(values)])?;
                }
            }
        }
        self.sum += bytes_of(values)? * n as f64;
        Ok(())
    }
}

/// Returns the arguments of a function, and which of their values a result contains.
fn content(function: &dyn WindowExpr) -> (Vec<Arc<dyn PhysicalExpr>>, Content) {
    let frame = function.get_window_frame();
    let is_whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
    let name = function.name();

    if let Some(function) = function.as_any().downcast_ref::<StandardWindowExpr>() {
        let function = function.get_standard_func_expr();
        let function = function.as_any().downcast_ref::<WindowUDFExpr>();
        let (function_name, arguments) = match function {
            Some(function) => (function.fun().name(), function.args()),
            None => ("", &[][..]),
        };
        let is_end = is_whole && ["first_value", "last_value"].contains(&function_name);
        let content = match is_end && !name.contains("IGNORE NULLS") {
            true => Content::End,
            false => Content::Values(1.0),
        };
        return (arguments.to_vec(), content);
    }

    let plain = function.as_any().downcast_ref::<PlainAggregateWindowExpr>();
    let sliding = function
        .as_any()
        .downcast_ref::<SlidingAggregateWindowExpr>();
    let aggregate = plain.map(PlainAggregateWindowExpr::get_aggregate_expr);
    let aggregate = aggregate.or(sliding.map(SlidingAggregateWindowExpr::get_aggregate_expr));
    let content = match aggregate {
        Some(aggregate) if ["max", "min"].contains(&aggregate.fun().name()) => {
            match is_whole && !name.contains("FILTER") {
                true => Content::Aggregate(Arc::new(aggregate.clone())),
                false => Content::Values(1.0),
            }
        }
        _ => Content::Values(frame_rows(frame)),
    };
    (function.expressions(), content)
}

/// Returns at least the number of rows in a frame.
fn frame_rows(frame: &WindowFrame) -> f64 {
    let distance = |bound: &WindowFrameBound| match bound {
        WindowFrameBound::CurrentRow => 0.0,
        WindowFrameBound::Preceding(ScalarValue::UInt64(Some(n)))
        | WindowFrameBound::Following(ScalarValue::UInt64(Some(n))) => *n as f64,
        _ => f64::INFINITY,
    };
    match frame.units {
        WindowFrameUnits::Rows => 1.0 + distance(&frame.start_bound) + distance(&frame.end_bound),
        _ => f64::INFINITY,
    }
}
