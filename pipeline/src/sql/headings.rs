//! Headings as the user wrote them.
//!
//! DataFusion names a column by its plan: `avg(features_log_mel.lost_s)`, `Int64(1)`. So before it is planned, every
//! expression of the outermost SELECT that has no name gets its own text as one.

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, Statement as Sql};

/// `statement` with names for its results; any other than a query as it is.
pub(super) fn named(statement: &Statement) -> Statement {
    // A copy: where planning with these names fails, `Planner::plan` needs the statement as it came.
    let mut named = statement.clone();
    if let Statement::Statement(inner) = &mut named
        && let Sql::Query(query) = inner.as_mut()
    {
        name_query(query);
    }
    named
}

fn name_query(query: &mut Query) {
    name_body(&mut query.body);
}

/// The first of several SELECTs gives a UNION its names.
fn name_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => select.projection.iter_mut().for_each(name_item),
        SetExpr::Query(query) => name_query(query),
        SetExpr::SetOperation { left, .. } => name_body(left),
        // VALUES and TABLE have no list of expressions, and all else is no query.
        _ => {}
    }
}

fn name_item(item: &mut SelectItem) {
    let SelectItem::UnnamedExpr(expr) = item else {
        return;
    };
    // A column has its name already.
    if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
        return;
    }
    let text = expr.to_string();
    // In quotes, so that DataFusion does not turn the text into lower case.
    *item = SelectItem::ExprWithAlias {
        expr: expr.clone(),
        alias: Ident::with_quote('"', text),
    };
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParserBuilder;

    use super::*;

    fn after(sql: &str) -> String {
        let statements = DFParserBuilder::new(sql)
            .build()
            .and_then(|mut parser| parser.parse_statements());
        named(&statements.expect("SQL")[0]).to_string()
    }

    #[test]
    fn expressions_without_a_name_get_their_text() {
        let cases = [
            (
                "SELECT avg(x), a.b, c AS d, * FROM t",
                "SELECT avg(x) AS \"avg(x)\", a.b, c AS d, * FROM t",
            ),
            ("SELECT 1", "SELECT 1 AS \"1\""),
            (
                "SELECT 'a' || x FROM t ORDER BY 1",
                "SELECT 'a' || x AS \"'a' || x\" FROM t ORDER BY 1",
            ),
            (
                "SELECT 1 UNION SELECT 2",
                "SELECT 1 AS \"1\" UNION SELECT 2",
            ),
            (
                "SELECT x FROM (SELECT avg(y) FROM t)",
                "SELECT x FROM (SELECT avg(y) FROM t)",
            ),
            ("EXPLAIN SELECT 1", "EXPLAIN SELECT 1"),
        ];
        for (sql, want) in cases {
            assert_eq!(after(sql), want);
        }
    }
}
