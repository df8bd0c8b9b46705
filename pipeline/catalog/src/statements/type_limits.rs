//! Limits of the types of columns and casts: their depth, because they are walked recursively, and their fixed sizes,
//! because one NULL takes memory for all elements.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    self, ArrayElemTypeDef, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName,
    Statement,
};

use crate::error::CatalogError;

/// Maximum depth of the type of a column: the JSON writer takes 16 KB of stack for each level, and Arrow does not read
/// Parquet files with a few levels more.
const TYPE_DEPTH_MAX: usize = 61;
/// Maximum number of elements of nested lists with fixed sizes that a statement may name: a NULL takes memory for all of
/// them. Tables of a store are not limited, because each of their rows takes as much.
const FIXED_ELEMENTS_MAX: u64 = 1 << 24;

/// Refuses a plan in which the type of a column is nested so deeply that walking it recursively could take too much
/// stack.
pub fn require_shallow_columns(plan: &LogicalPlan) -> Result<(), CatalogError> {
    let mut deep = None;
    plan.apply_with_subqueries(|node| {
        let mut columns = node.schema().fields().iter();
        deep = columns
            .find(|column| is_deeper(column.data_type(), TYPE_DEPTH_MAX))
            .cloned();
        Ok(match deep {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    })?;
    deep.map_or(Ok(()), |column| {
        let what = format!("the type of column {}", column.name());
        Err(excessive_type(&what))
    })
}

/// True if a type has more than `levels` nested levels.
fn is_deeper(data_type: &DataType, levels: usize) -> bool {
    let inner = inner_types(data_type);
    levels == 0 || inner.iter().any(|inner| is_deeper(inner, levels - 1))
}

/// Returns the number of elements, or of bytes, of a value whose type has fixed sizes.
fn n_fixed_values(data_type: &DataType) -> u64 {
    let inner = inner_types(data_type);
    let inner = inner.into_iter().map(n_fixed_values).max().unwrap_or(1);
    match data_type {
        DataType::FixedSizeList(_, size) | DataType::FixedSizeBinary(size) => {
            u64::try_from(*size).unwrap_or(0).saturating_mul(inner)
        }
        _ => inner,
    }
}

/// Returns the types of which a type consists.
fn inner_types(data_type: &DataType) -> Vec<&DataType> {
    match data_type {
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::ListView(element)
        | DataType::LargeListView(element)
        | DataType::FixedSizeList(element, _)
        | DataType::Map(element, _)
        | DataType::RunEndEncoded(_, element) => vec![element.data_type()],
        DataType::Struct(fields) => fields.iter().map(|field| field.data_type()).collect(),
        DataType::Union(fields, _) => fields.iter().map(|(_, field)| field.data_type()).collect(),
        DataType::Dictionary(_, value) => vec![value],
        _ => Vec::new(),
    }
}

/// True if a column of a table that a statement creates is too large.
pub(crate) fn has_excessive_column(statement: &Statement) -> bool {
    match statement {
        Statement::CreateTable(table) => table
            .columns
            .iter()
            .any(|column| n_fixed_elements(&column.data_type) > FIXED_ELEMENTS_MAX),
        _ => false,
    }
}

/// True if an expression itself names a type that is nested too deeply or is too large.
pub(crate) fn has_excessive_type(expr: &Expr) -> bool {
    match expr {
        Expr::Cast { data_type, .. } => n_fixed_elements(data_type) > FIXED_ELEMENTS_MAX,
        Expr::TypedString(text) => n_fixed_elements(&text.data_type) > FIXED_ELEMENTS_MAX,
        Expr::Function(function) if is_arrow_cast(&function.name) => match &function.args {
            FunctionArguments::List(list) => list.args.iter().any(is_excessive_text),
            _ => false,
        },
        _ => false,
    }
}

/// True if the name of a function is that of a cast to a type that is a text, as in `arrow_cast(x, 'List(Int8)')`.
pub(crate) fn is_arrow_cast(function: &ObjectName) -> bool {
    let name = function.to_string().to_ascii_lowercase();
    name.contains("arrow_cast") || name.contains("arrow_try_cast")
}

/// True if an argument is the text of a type that is nested too deeply or is too large.
fn is_excessive_text(argument: &FunctionArg) -> bool {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) = argument else {
        return false;
    };
    let Some(text) = value.value.clone().into_string() else {
        return false;
    };

    // Reading a type takes stack for each level, too.
    let is_deep = text.matches('(').count() > TYPE_DEPTH_MAX;
    is_deep
        || text
            .parse()
            .is_ok_and(|data_type| n_fixed_values(&data_type) > FIXED_ELEMENTS_MAX)
}

/// Returns the number of elements of a value whose type has fixed sizes, such as 6 for `int[2][3]`.
fn n_fixed_elements(data_type: &ast::DataType) -> u64 {
    match data_type {
        ast::DataType::Array(ArrayElemTypeDef::SquareBracket(element, size)) => {
            size.unwrap_or(1).saturating_mul(n_fixed_elements(element))
        }
        ast::DataType::Array(
            ArrayElemTypeDef::AngleBracket(element) | ArrayElemTypeDef::Parenthesis(element),
        ) => n_fixed_elements(element),
        ast::DataType::Struct(fields, _) => {
            let sizes = fields
                .iter()
                .map(|field| n_fixed_elements(&field.field_type));
            sizes.max().unwrap_or(1)
        }
        _ => 1,
    }
}

pub(crate) fn excessive_type(what: &str) -> CatalogError {
    CatalogError::Unusable(format!(
        "{what} has more than {TYPE_DEPTH_MAX} levels, or {FIXED_ELEMENTS_MAX} elements of fixed sizes: select an \
             inner level, or use lists without a size"
    ))
}
