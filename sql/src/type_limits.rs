//! Limits of the types of columns and casts: their depth, because they are walked recursively, and their fixed sizes,
//! because one NULL takes memory for all elements.

use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{
    self, ArrayElemTypeDef, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName,
};

use super::SqlError;

/// Maximum depth of the type of a column: the JSON writer takes 16 KB of stack for each level.
const TYPE_DEPTH_MAX: usize = 64;
/// Maximum number of elements of a value of nested lists with fixed sizes: a NULL takes memory for all of them.
const FIXED_ELEMENTS_MAX: u64 = 1 << 22;

/// Refuses a plan in which the type of a column is nested so deeply that walking it recursively could take too much
/// stack, or whose value takes too much memory.
///
/// # Errors
/// [`SqlError::TooComplex`].
pub(super) fn require_simple_types(plan: &LogicalPlan) -> Result<(), SqlError> {
    let mut refused = None;
    plan.apply_with_subqueries(|node| {
        let mut columns = node.schema().fields().iter();
        refused = columns
            .find(|column| is_excessive(column.data_type(), TYPE_DEPTH_MAX, 1))
            .cloned();
        Ok(match refused {
            Some(_) => TreeNodeRecursion::Stop,
            None => TreeNodeRecursion::Continue,
        })
    })?;
    refused.map_or(Ok(()), |column| {
        Err(excessive_type(&format!(
            "the type of column {}",
            column.name()
        )))
    })
}

/// True if a type has more than `levels` nested levels, or if `n` of its values have too many elements.
fn is_excessive(data_type: &DataType, levels: usize, n: u64) -> bool {
    let Some(levels) = levels.checked_sub(1).filter(|_| n <= FIXED_ELEMENTS_MAX) else {
        return true;
    };
    let is_excessive_field = |field: &FieldRef| is_excessive(field.data_type(), levels, n);
    match data_type {
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::ListView(element)
        | DataType::LargeListView(element)
        | DataType::Map(element, _)
        | DataType::RunEndEncoded(_, element) => is_excessive_field(element),
        DataType::FixedSizeList(element, size) => {
            let size = u64::try_from(*size).unwrap_or(0);
            is_excessive(element.data_type(), levels, n.saturating_mul(size))
        }
        DataType::FixedSizeBinary(size) => {
            let size = u64::try_from(*size).unwrap_or(0);
            n.saturating_mul(size) > FIXED_ELEMENTS_MAX
        }
        DataType::Struct(fields) => fields.iter().any(is_excessive_field),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| is_excessive_field(field)),
        DataType::Dictionary(_, value) => is_excessive(value, levels, n),
        _ => false,
    }
}

/// True if an expression itself names a type that is nested too deeply or is too large.
pub(super) fn has_excessive_type(expr: &Expr) -> bool {
    match expr {
        Expr::Cast { data_type, .. } => n_fixed_elements(data_type) > FIXED_ELEMENTS_MAX,
        Expr::TypedString(text) => n_fixed_elements(&text.data_type) > FIXED_ELEMENTS_MAX,
        // The type is a text, as in `arrow_cast(x, 'List(Int8)')`.
        Expr::Function(function) if is_arrow_cast(&function.name) => {
            let FunctionArguments::List(list) = &function.args else {
                return false;
            };
            let mut texts = list.args.iter().filter_map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(value))) => {
                    value.value.clone().into_string()
                }
                _ => None,
            });
            // Reading the type takes stack, too.
            texts.any(|text| {
                text.matches('(').count() > TYPE_DEPTH_MAX
                    || text
                        .parse()
                        .is_ok_and(|data_type| is_excessive(&data_type, TYPE_DEPTH_MAX, 1))
            })
        }
        _ => false,
    }
}

fn is_arrow_cast(function: &ObjectName) -> bool {
    let name = function.to_string().to_ascii_lowercase();
    ["arrow_cast", "arrow_try_cast"]
        .iter()
        .any(|cast| name.contains(cast))
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

pub(super) fn excessive_type(what: &str) -> SqlError {
    SqlError::TooComplex {
        detail: format!(
            "{what} has more than {TYPE_DEPTH_MAX} levels, or {FIXED_ELEMENTS_MAX} elements of fixed sizes: select an \
             inner level, or use lists without a size"
        ),
    }
}
