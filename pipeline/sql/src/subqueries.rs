//! Limits of values of scalar subqueries.
//!
//! The value of `(SELECT string_agg(s, '') FROM t)` is computed once, but an expression such as `(SELECT …) || title`
//! copies it for each row. The expression may be part of any operator, also of one that reads a file, so that the value
//! itself is checked where it is used.

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchema, DataFusionError, Result, internal_err};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::SqlError;
use super::copying::{MADE_DIVISOR, MIB, is_text};

/// Adds a check to all scalar subqueries of an optimized plan whose texts or lists are copied.
///
/// # Errors
/// If an expression has no type, which does not occur in practice.
pub(super) fn limited(plan: LogicalPlan, memory_bytes: usize) -> Result<LogicalPlan> {
    let bytes_max = memory_bytes / MADE_DIVISOR;
    plan.transform_up_with_subqueries(|node| {
        let schema = match &node {
            LogicalPlan::TableScan(_) => node.schema().as_ref().clone(),
            _ => merge_schema(&node.inputs()),
        };
        let names = NamePreserver::new(&node);
        node.map_expressions(|root| {
            let name = names.save(&root);
            // The result of an expression is a column.
            let checked = checked(root, 1, &schema, bytes_max)?;
            Ok(checked.update_data(|root| name.restore(root)))
        })
    })
    .data()
}

/// Adds a check to the subqueries in `part` of an expression, of whose value the other parts make `n_copies`.
fn checked(
    part: Expr,
    n_copies: usize,
    schema: &DFSchema,
    bytes_max: usize,
) -> Result<Transformed<Expr>> {
    let is_text = |part: &Expr| Ok::<_, DataFusionError>(is_text(&part.to_field(schema)?.1));
    if let Expr::ScalarSubquery(_) = part {
        if n_copies == 0 || !is_text(&part)? {
            return Ok(Transformed::no(part));
        }
        let check = ScalarUDF::from(Checked {
            n_copies,
            bytes_max,
            signature: Signature::any(1, Volatility::Immutable),
        });
        return Ok(Transformed::yes(check.call(vec![part])));
    }
    if !part.exists(|part| Ok(matches!(part, Expr::ScalarSubquery(_))))? {
        return Ok(Transformed::no(part));
    }

    // Parts without columns are computed once. Functions may make an array of an argument, whatever they return.
    let is_text = is_text(&part)?;
    let is_copy = match &part {
        Expr::Alias(_) => false,
        Expr::AggregateFunction(_) | Expr::WindowFunction(_) => true,
        Expr::ScalarFunction(_) => part.any_column_refs(),
        _ => is_text && part.any_column_refs(),
    };
    let n_copies = if is_text { n_copies } else { 0 } + usize::from(is_copy);
    part.map_children(|child| checked(child, n_copies, schema, bytes_max))
}

/// A function that returns the value of a subquery unless its copies for a batch are too large.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    n_copies: usize,
    bytes_max: usize,
    signature: Signature,
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &'static str {
        "subquery"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the type follows from the field of the subquery")
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        match args.arg_fields {
            [value] => Ok(FieldRef::clone(value)),
            _ => internal_err!("a subquery has one value"),
        }
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (Some(value), n_rows) = (args.args.pop(), args.number_rows) else {
            return internal_err!("a subquery has one value");
        };
        let bytes = match &value {
            ColumnarValue::Array(_) => 0,
            ColumnarValue::Scalar(value) => match value.try_as_str() {
                Some(text) => text.map_or(0, str::len),
                None => value.size(),
            },
        };
        let needed = bytes as f64 * (n_rows * self.n_copies) as f64;
        if needed <= self.bytes_max as f64 {
            return Ok(value);
        }

        let detail = format!(
            "an expression can make {:.1} MiB of a batch of {n_rows} rows, but the limit is {:.1}: the value of a subquery \
             has {:.3} MiB; shorten it with left(…), leave it out, or raise --memory-limit",
            needed / MIB,
            self.bytes_max as f64 / MIB,
            bytes as f64 / MIB,
        );
        Err(SqlError::Usage(detail).into())
    }
}
