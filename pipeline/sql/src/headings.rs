//! Result headings as the user wrote them.
//!
//! DataFusion names a column by its plan: `avg(features_log_mel.lost_s)`, `Int64(1)`. Before planning, every unnamed
//! expression of the outermost SELECT therefore gets its own text as an alias.

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Ident, Query, SelectItem, SetExpr, Statement as Sql};

/// Returns `statement` with names for its result columns. Statements other than queries are returned unchanged.
pub(super) fn named(statement: &Statement) -> Statement {
    // Copy the statement: if planning with these names fails, `Planner::plan` needs the original.
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

/// Names the expressions in the SELECT of a query. A UNION takes its names from the first of its SELECTs.
fn name_body(body: &mut SetExpr) {
    match body {
        SetExpr::Select(select) => select.projection.iter_mut().for_each(name_item),
        SetExpr::Query(query) => name_query(query),
        SetExpr::SetOperation { left, .. } => name_body(left),
        // VALUES and TABLE have no list of expressions, and the other variants are not queries.
        _ => {}
    }
}

fn name_item(item: &mut SelectItem) {
    let SelectItem::UnnamedExpr(expr) = item else {
        return;
    };
    // A plain column already has a name and needs no alias.
    if matches!(expr, Expr::Identifier(_) | Expr::CompoundIdentifier(_)) {
        return;
    }
    let text = expr.to_string();
    // Quote the alias, so that DataFusion does not convert it to lower case.
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
