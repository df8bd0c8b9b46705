//! The names of classes in tables of features, whose rows contain the ids of classes.
//!
//! For each target, such as `genre`, these tables have a further column, such as `genre_name`. It is computed from the
//! manifest for queries that read it.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::catalog::{TableProvider, view::ViewTable};
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, ScalarValue};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::expr::{BinaryExpr, InList, Like};
use datafusion::logical_expr::{
    Between, Case, Expr, LogicalPlan, LogicalPlanBuilder, UNNAMED_TABLE, lit,
};
use wavemill_schemas::manifest::TargetEntry;

use super::SqlError;
use super::error::nearest;
use super::table::StoreTable;

/// Returns a table of features with the name of each row's class, for each of `targets` with a column of ids.
///
/// # Errors
/// [`SqlError`] if DataFusion rejects the columns, which does not occur in practice.
pub(super) fn with_names(
    features: StoreTable,
    targets: &[TargetEntry],
) -> Result<Arc<dyn TableProvider>, SqlError> {
    let schema = features.schema();
    let stored = schema.fields().iter();
    let mut columns: Vec<Expr> = stored
        .map(|field| Expr::Column(Column::from_name(field.name())))
        .collect();
    for target in targets {
        let name = target.name_column();
        // A feature may have the name of the column.
        if schema.column_with_name(&name).is_none() && !target.classes.is_empty() {
            columns.push(class_of(target).alias(name));
        }
    }

    let rows =
        LogicalPlanBuilder::scan(UNNAMED_TABLE, provider_as_source(Arc::new(features)), None)?;
    Ok(Arc::new(ViewTable::new(
        rows.project(columns)?.build()?,
        None,
    )))
}

/// Returns the class whose id is in a target's column; null for an unlabelled row.
fn class_of(target: &TargetEntry) -> Expr {
    let id = Expr::Column(Column::from_name(&target.name));
    let names = (0_i32..).zip(&target.classes);
    let cases = names.map(|(id, class)| (Box::new(lit(id)), Box::new(lit(class))));
    Expr::Case(Case::new(Some(Box::new(id)), cases.collect(), None))
}

/// Refuses comparisons of the ids of classes with texts that are no ids, such as `genre = 'Rock'`.
///
/// # Errors
/// [`SqlError::Usage`] with the comparison that was meant.
pub(super) fn refuse_names(plan: &LogicalPlan, targets: &[TargetEntry]) -> Result<(), SqlError> {
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                let compared = compared(part);
                let target = compared
                    .iter()
                    .find_map(|part| target_of(part, node, targets));
                let text = compared.iter().find_map(|part| text_of(part));
                if let (Some(target), Some(text)) = (target, text) {
                    refused = Some(not_an_id(target, text));
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    refused.map_or(Ok(()), Err)
}

/// Returns the parts of an expression that it compares with each other.
fn compared(expression: &Expr) -> Vec<&Expr> {
    match expression {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            vec![left, right]
        }
        Expr::Like(Like { expr, pattern, .. }) => vec![expr, pattern],
        Expr::Between(Between {
            expr, low, high, ..
        }) => vec![expr, low, high],
        Expr::InList(InList { expr, list, .. }) => std::iter::once(&**expr).chain(list).collect(),
        _ => Vec::new(),
    }
}

/// Returns the target of which `part` is the column of ids in the rows that `node` reads.
fn target_of<'a>(
    part: &Expr,
    node: &LogicalPlan,
    targets: &'a [TargetEntry],
) -> Option<&'a TargetEntry> {
    let Expr::Column(column) = part else {
        return None;
    };
    let target = targets.iter().find(|target| target.name == column.name)?;
    let is_id = node.inputs().into_iter().any(|input| {
        let field = input.schema().qualified_field_from_column(column);
        field.is_ok_and(|(_, field)| *field.data_type() == DataType::Int32)
    });
    is_id.then_some(target)
}

/// Returns the constant text of `part`, unless it is a number.
fn text_of(part: &Expr) -> Option<&str> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = part else {
        return None;
    };
    text.parse::<i32>().is_err().then_some(text)
}

fn not_an_id(target: &TargetEntry, text: &str) -> SqlError {
    let classes: Vec<&str> = target.classes.iter().map(String::as_str).collect();
    let near = nearest(text, &classes).into_iter().next();
    let class = near.unwrap_or_else(|| text.to_owned()).replace('\'', "''");
    SqlError::Usage(format!(
        "{} is the id of a class, a number: compare the class itself, as in {} = '{class}' (the table classes lists all \
         ids and classes)",
        target.name,
        target.name_column()
    ))
}
