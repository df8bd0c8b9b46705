//! Remedies for mistakes in statements: names that are texts or columns of other tables, and subscripts of tensors.

use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::{Column, DFSchema, DataFusionError, Result, SchemaError, plan_err};
use datafusion::logical_expr::ExprSchemable as _;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawFieldAccessExpr};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Ident, visit_expressions};
use wavemill_schemas::manifest::TargetEntry;

use super::error::nearest;
use super::tensor::TensorType;
use super::{SqlError, classes};

/// A column that a statement names and no table of the query has.
pub(super) struct UnknownColumn<'a> {
    pub column: &'a Column,
    /// The columns of the query's tables.
    valid: &'a [Column],
}

impl<'a> UnknownColumn<'a> {
    /// Returns the column that caused `error`, if one did.
    pub(super) fn of(error: &'a DataFusionError) -> Option<Self> {
        let DataFusionError::SchemaError(error, _) = error.find_root() else {
            return None;
        };
        match error.as_ref() {
            SchemaError::FieldNotFound {
                field,
                valid_fields,
            } => Some(Self {
                column: field,
                valid: valid_fields,
            }),
            _ => None,
        }
    }

    /// Returns the error with a remedy, or with the usual one.
    pub(super) fn error(&self, remedy: Option<String>) -> SqlError {
        SqlError::unknown("column", &self.column.flat_name(), remedy)
    }

    /// Returns the remedy that follows from the query's own tables: another name of the table, or of the column.
    pub(super) fn near(&self) -> Option<String> {
        let mut tables: Vec<&str> = self.valid.iter().filter_map(table_of).collect();
        tables.dedup();
        if let Some(table) = table_of(self.column)
            && !tables.contains(&table)
        {
            let tables = tables.join(", ");
            return Some(format!(
                "the query has no table or alias '{table}', only {tables}"
            ));
        }

        let name = &self.column.name;
        let names: Vec<&str> = self.valid.iter().map(|column| &*column.name).collect();
        // SQL converts unquoted names to lower case, so other names need quotes.
        let quoted = names
            .iter()
            .find(|valid| valid.eq_ignore_ascii_case(name) && *valid != name);
        let near = match quoted {
            Some(name) => vec![format!("\"{name}\"")],
            None => nearest(name, &names),
        };
        SqlError::did_you_mean(&near)
    }

    /// Returns the remedy for a text without single quotes, with which `statement` compares a column. If the text could
    /// also be the name of a column, it needs double quotes, which other languages use for texts.
    pub(super) fn text(
        &self,
        statement: &Statement,
        is_near: bool,
        targets: &[TargetEntry],
    ) -> Option<String> {
        let Statement::Statement(statement) = statement else {
            return None;
        };
        let is_name = |part: &&Expr| {
            matches!(part, Expr::Identifier(Ident { value, quote_style, .. })
                if self.column.relation.is_none()
                    && value.eq_ignore_ascii_case(&self.column.name)
                    && (quote_style.is_some() || !is_near))
        };
        let found = visit_expressions(statement, |part| {
            let (compared, word) = match part {
                Expr::BinaryOp { left, right, .. } => (left, Some(&**right).filter(is_name)),
                Expr::Like { expr, pattern, .. } | Expr::ILike { expr, pattern, .. } => {
                    (expr, Some(&**pattern).filter(is_name))
                }
                Expr::InList { expr, list, .. } => (expr, list.iter().find(is_name)),
                _ => return ControlFlow::Continue(()),
            };
            match word {
                Some(Expr::Identifier(word)) => {
                    ControlFlow::Break((compared.to_string(), word.value.clone()))
                }
                _ => ControlFlow::Continue(()),
            }
        });

        let (compared, text) = found.break_value()?;
        // The column may have the name of its table.
        let column = compared.rsplit('.').next().unwrap_or_default();
        let target = targets.iter().find(|target| target.name == column);
        let example = target.and_then(|target| classes::remedy_for_class(&text, target));
        let example = example.unwrap_or_else(|| format!("'{}'", text.replace('\'', "''")));
        Some(format!("texts take single quotes: {example}"))
    }
}

fn table_of(column: &Column) -> Option<&str> {
    column.relation.as_ref().map(|relation| relation.table())
}

/// Refuses subscripts of tensors, such as `log_mel[0]`: their bytes are no list to DataFusion.
#[derive(Debug)]
pub(super) struct TensorSubscripts;

impl ExprPlanner for TensorSubscripts {
    fn plan_field_access(
        &self,
        access: RawFieldAccessExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawFieldAccessExpr>> {
        let (_, field) = access.expr.to_field(schema)?;
        let is_list = matches!(field.data_type(), DataType::List(_));
        let Some(tensor) = TensorType::from_field(&field).filter(|_| !is_list) else {
            return Ok(PlannerResult::Original(access));
        };

        let name = field.name();
        let indices: Vec<String> = ('i'..).take(tensor.shape.len()).map(String::from).collect();
        plan_err!(
            "{name}[…] is not possible, because {name} is a tensor: tensor_at({name}, {}) is one of its values, \
             tensor_slice({name}, axis, start, end) a part",
            indices.join(", ")
        )
    }
}
