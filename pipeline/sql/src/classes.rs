//! The names of classes in tables of features, whose rows contain the ids of classes.
//!
//! For each target, such as `genre`, these tables have a further column, such as `genre_name`. It is computed from the
//! manifest for queries that read it.

use std::sync::Arc;

use datafusion::catalog::{TableProvider, view::ViewTable};
use datafusion::common::Column;
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Case, Expr, LogicalPlanBuilder, UNNAMED_TABLE, lit};
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

/// Returns the remedy for `text`, such as `Rock`, that stands where the id of a class or a column belongs; `None` if
/// the target has no class with nearly this name.
pub(super) fn remedy_for_class(text: &str, target: &TargetEntry) -> Option<String> {
    let classes: Vec<&str> = target.classes.iter().map(String::as_str).collect();
    let class = nearest(text, &classes).into_iter().next()?;
    let name = target.name_column();
    Some(format!(
        "{} is the id of a class, and {name} its name, as in {name} = '{}'",
        target.name,
        class.replace('\'', "''")
    ))
}
