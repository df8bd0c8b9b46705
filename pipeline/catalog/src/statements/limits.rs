//! Limits of nested expressions, set operations, groupings and relations, found by walking a statement.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::ptr;

use datafusion::sql::parser::{CopyToSource, Statement};
use datafusion::sql::sqlparser::ast::{
    self, Expr, ObjectName, Query, Select, SetExpr, TableFactor, Visit, Visitor,
};

use super::type_limits::{excessive_type, has_excessive_column, has_excessive_type, is_arrow_cast};
use crate::error::CatalogError;

/// Maximum depth of nested expressions, such as the number of terms of a sum, and maximum number of nested set
/// operations and of steps with `|>`.
pub(crate) const DEPTH_MAX: usize = 500;
/// Stack that a thread needs to plan and run a statement: plans are walked recursively, with more than 100 KB for each
/// nested expression. Memory is taken only when a stack grows.
pub const QUERY_STACK_BYTES: usize = 64 << 20;
/// Maximum depth of nested expressions of which DataFusion plans the inner ones twice.
const DOUBLINGS_MAX: usize = 16;
/// Functions that DataFusion replaces by an expression with two copies of an argument.
const DOUBLING: [&str; 5] = ["coalesce", "ifnull", "map", "nvl", "row"];
/// Maximum number of groupings of all `CUBE` of a statement: DataFusion makes all of them while it plans.
const GROUPINGS_MAX: usize = 1 << 12;
/// Maximum number of relations of a statement. DataFusion copies the plan of a query of WITH for each reference to it,
/// so 26 queries that each read the previous one twice would be a plan of 2^26 scans.
const RELATIONS_MAX: usize = 2000;
/// Maximum number of relations of one FROM: their plan has one level for each, and each level copies the columns of
/// those below it.
const FROM_RELATIONS_MAX: usize = DEPTH_MAX;

/// Refuses a statement that is beyond a limit.
pub(crate) fn check(statement: &Statement) -> Result<(), CatalogError> {
    let mut explained = statement;
    let mut n_explains = 0;
    while let Statement::Explain(explain) = explained {
        explained = &explain.statement;
        n_explains += 1;
    }
    if n_explains > DEPTH_MAX {
        return Err(too_deep());
    }

    match explained {
        Statement::Statement(statement) => require_shallow_part(statement),
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => require_shallow_part(query),
            CopyToSource::Relation(_) => Ok(()),
        },
        Statement::CreateExternalTable(table) => {
            require_shallow_part(&table.columns)?;
            require_shallow_part(&table.order_exprs)?;
            require_shallow_part(&table.constraints)
        }
        Statement::Explain(_) | Statement::Reset(_) => Ok(()),
    }
}

/// Refuses a statement, or a part of one, in which expressions or set operations are nested so deeply that walking them
/// recursively could take too much stack, or which has too many groupings or relations to plan.
pub(crate) fn require_shallow_part(part: &impl Visit) -> Result<(), CatalogError> {
    let mut depth = Depth::default();
    match part.visit(&mut depth) {
        ControlFlow::Break(refused) => Err(refused),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn too_deep() -> CatalogError {
    CatalogError::Unusable(format!(
        "the statement has more than {DEPTH_MAX} nested expressions or set operations: replace a long chain of \
             OR by IN (…), and other long chains by a table with one row for each term"
    ))
}

fn too_many_doublings() -> CatalogError {
    CatalogError::Unusable(format!(
        "more than {DOUBLINGS_MAX} nested subqueries in expressions, rows, BETWEEN, casts (of which each counts as two, \
             and `= ANY` and `= ALL` as four) or calls of {}, of which each level doubles the work of planning: move \
             inner ones to queries of WITH, or to a table",
        DOUBLING.join(", ")
    ))
}

fn too_many_groupings() -> CatalogError {
    CatalogError::Unusable(format!(
        "GROUP BY CUBE (…) of n expressions makes 2^n groupings, and a statement may have {GROUPINGS_MAX}: list \
             those that you need in GROUPING SETS (…)"
    ))
}

fn too_many_relations() -> CatalogError {
    CatalogError::Unusable(format!(
        "a statement may read {RELATIONS_MAX} tables, and {FROM_RELATIONS_MAX} in one FROM, and each use of a query \
             of WITH counts as all tables of that query: divide it into several statements"
    ))
}

/// The current depth of a walk, and the numbers of groupings and relations so far.
#[derive(Default)]
struct Depth {
    expressions: usize,
    doublings: usize,
    operations: usize,
    groupings: usize,
    relations: usize,
    /// The number of relations of each enclosing SELECT, and of each enclosing query outside of its SELECTs.
    in_from: Vec<usize>,
    queries: Vec<EnclosingQuery>,
    /// The names of queries of WITH that have not been visited yet, by their addresses.
    names: HashMap<*const Query, String>,
    /// The names of the queries of WITH that can be referred to, and their numbers of relations.
    named: Vec<(String, usize)>,
}

/// The numbers of relations, and of queries of WITH, before a query.
struct EnclosingQuery {
    relations: usize,
    named: usize,
}

impl Depth {
    /// Returns the number of relations that the name of a table or of a query of WITH stands for.
    fn n_relations(&self, name: &ObjectName) -> usize {
        let parts = name.0.iter().filter_map(|part| part.as_ident());
        let parts: Vec<&str> = parts.map(|part| part.value.as_str()).collect();
        // Quoted names that differ only in case count as one, of which the largest is meant.
        let name = parts.join(".").to_lowercase();
        let sizes = self.named.iter().filter(|(named, _)| *named == name);
        sizes.map(|(_, size)| *size).max().unwrap_or(1).max(1)
    }
}

impl Visitor for Depth {
    type Break = CatalogError;

    fn pre_visit_statement(&mut self, statement: &ast::Statement) -> ControlFlow<CatalogError> {
        if has_excessive_column(statement) {
            return ControlFlow::Break(excessive_type("the type of a column"));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<CatalogError> {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            let name = cte.alias.name.value.to_lowercase();
            self.names.insert(ptr::from_ref(cte.query.as_ref()), name);
        }
        self.queries.push(EnclosingQuery {
            relations: self.relations,
            named: self.named.len(),
        });
        self.in_from.push(0);

        self.operations += n_query_operations(query);
        limited(self.operations)
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<CatalogError> {
        self.operations -= n_query_operations(query);

        self.in_from.pop();
        if let Some(before) = self.queries.pop() {
            // The queries of its own WITH end with it.
            self.named.truncate(before.named);
            if let Some(name) = self.names.remove(&ptr::from_ref(query)) {
                self.named.push((name, self.relations - before.relations));
                // Its relations count at each use.
                self.relations = before.relations;
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, _: &Select) -> ControlFlow<CatalogError> {
        self.in_from.push(0);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<CatalogError> {
        self.in_from.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<CatalogError> {
        self.relations += match factor {
            TableFactor::Table { name, .. } => self.n_relations(name),
            _ => 1,
        };
        let mut in_from = 0;
        if let Some(from) = self.in_from.last_mut() {
            *from += 1;
            in_from = *from;
        }
        if self.relations > RELATIONS_MAX || in_from > FROM_RELATIONS_MAX {
            return ControlFlow::Break(too_many_relations());
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<CatalogError> {
        if let Expr::Cube(sets) = expr {
            let groupings = 1_usize.checked_shl(sets.len() as u32);
            self.groupings = self
                .groupings
                .saturating_add(groupings.unwrap_or(usize::MAX));
            if self.groupings > GROUPINGS_MAX {
                return ControlFlow::Break(too_many_groupings());
            }
        }
        if has_excessive_type(expr) {
            return ControlFlow::Break(excessive_type("a type"));
        }

        self.doublings += n_doublings(expr);
        if self.doublings > DOUBLINGS_MAX {
            return ControlFlow::Break(too_many_doublings());
        }

        self.expressions += n_levels(expr);
        limited(self.expressions)
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<CatalogError> {
        self.doublings -= n_doublings(expr);
        self.expressions -= n_levels(expr);
        ControlFlow::Continue(())
    }
}

fn limited(depth: usize) -> ControlFlow<CatalogError> {
    if depth > DEPTH_MAX {
        ControlFlow::Break(too_deep())
    } else {
        ControlFlow::Continue(())
    }
}

/// Returns the number of set operations and of steps with `|>` of a query, without those of queries in parentheses.
fn n_query_operations(query: &Query) -> usize {
    n_operations(&query.body) + query.pipe_operators.len()
}

/// Returns the number of set operations of a body, without those of queries in parentheses.
fn n_operations(body: &SetExpr) -> usize {
    let mut count = 0;
    let mut body = body;
    while let SetExpr::SetOperation { left, right, .. } = body {
        // The right side has few levels, because its operations bind more closely.
        count += 1 + n_operations(right);
        body = left;
    }
    count
}

/// Returns how many times an expression doubles the work of planning its parts.
fn n_doublings(expr: &Expr) -> usize {
    match expr {
        Expr::Subquery(_)
        | Expr::InSubquery { .. }
        | Expr::Exists { .. }
        | Expr::Between { .. }
        | Expr::Tuple(_)
        | Expr::Map(_) => 1,
        // The plan asks each cast twice whether it can be null. Arithmetic between them adds casts to a common type.
        Expr::Cast { .. } => 2,
        // Planning each level takes almost four times as long as planning the next inner one, whatever the subquery is.
        Expr::AnyOp { .. } | Expr::AllOp { .. } => 3,

        Expr::Function(function) if is_arrow_cast(&function.name) => 2,
        Expr::Function(function) => {
            let name = function.name.to_string().to_ascii_lowercase();
            usize::from(DOUBLING.contains(&name.as_str()))
        }
        _ => 0,
    }
}

/// Returns the number of levels that an expression adds to the plan: `a[1][2]` is one expression with two of them.
fn n_levels(expr: &Expr) -> usize {
    match expr {
        Expr::CompoundFieldAccess { access_chain, .. } => access_chain.len(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::CatalogError;

    fn is_of_syntax(error: &CatalogError) -> bool {
        error.to_string().starts_with("sql parser error")
    }

    #[test]
    fn deep_statements_are_refused_whatever_their_form() {
        let chain = |head: &str, term: &str, n: usize| format!("{head}{}", term.repeat(n));
        for (head, term) in [
            ("SELECT a FROM t WHERE a = 0", " OR a = 0"),
            ("SELECT 1", "+1"),
            ("SELECT a", "[1]"),
            ("SELECT a", " IS NULL"),
            ("SELECT a::int", "[]"),
            ("SELECT 1 a", " |> WHERE a = 1"),
            ("SELECT 1", " UNION SELECT 1"),
            ("SELECT 1 UNION SELECT 1", " INTERSECT SELECT 1"),
            ("EXPLAIN COPY (SELECT 1", "+1"),
        ] {
            let close = if head.contains('(') {
                ") TO 'x.csv'"
            } else {
                ""
            };
            let deep = chain(head, term, 5000) + close;
            let refused = parse(&deep).expect_err(head);
            assert!(!is_of_syntax(&refused), "{head}: {refused}");
            let shallow = chain(head, term, 400) + close;
            assert!(parse(&shallow).is_ok(), "{head}");
        }
    }

    #[test]
    fn deep_expressions_that_are_planned_twice_are_refused() {
        for (open, close) in [
            ("coalesce(", ", 0)"),
            ("NVL(", ", 0)"),
            ("row(", ")"),
            ("(SELECT ", ")"),
            ("EXISTS(SELECT ", ")"),
            ("map(", ", 1)"),
            ("a IN (SELECT ", ")"),
        ] {
            let nested = |n: usize| format!("SELECT {}a{}", open.repeat(n), close.repeat(n));
            assert!(parse(&nested(16)).is_ok(), "{open}");
            let refused = parse(&nested(17)).expect_err("deep");
            assert!(
                refused.to_string().contains("16 nested subqueries"),
                "{refused}"
            );
            let one = nested(1);
            let several = format!("{one}{}", format!(", ({one})").repeat(40));
            assert!(parse(&several).is_ok(), "{open}");
        }

        for (open, close, permitted) in [
            ("a = ANY (SELECT ", ")", 4),
            ("(1 + ", ")::int", 8),
            ("arrow_cast(1 + ", ", 'Int32')", 8),
            ("(", " BETWEEN 1 AND 2)", 16),
        ] {
            let nested = |n: usize| format!("SELECT {}a{}", open.repeat(n), close.repeat(n));
            assert!(parse(&nested(permitted)).is_ok(), "{open}");
            let refused = parse(&nested(permitted + 1)).expect_err(open).to_string();
            assert!(
                refused.contains("doubles the work of planning"),
                "{refused}"
            );
        }
    }

    #[test]
    fn cubes_of_many_expressions_are_refused() {
        let cube = |n: usize| {
            format!(
                "SELECT count(*) FROM t GROUP BY CUBE (a{})",
                ", a".repeat(n - 1)
            )
        };
        assert!(parse(&cube(12)).is_ok());
        for refused in [
            cube(13),
            cube(30),
            cube(200),
            format!("{} UNION {}", cube(12), cube(12)),
        ] {
            let refused = parse(&refused).expect_err("too many");
            assert!(!is_of_syntax(&refused), "{refused}");
        }
    }

    #[test]
    fn statements_over_too_many_tables_are_refused() {
        let doubling = |levels: usize| {
            let queries = (1..=levels).map(|i| {
                let last = i - 1;
                format!(", a{i} AS (SELECT l.x FROM a{last} l, A{last} r)")
            });
            let queries: String = queries.collect();
            format!("WITH a0 AS (SELECT 1 x){queries} SELECT * FROM a{levels}")
        };
        let chain = |n: usize| {
            let queries = (1..n).map(|i| format!(", a{i} AS (SELECT * FROM a{} JOIN t{i})", i - 1));
            let queries: String = queries.collect();
            format!(
                "WITH a0 AS (SELECT * FROM t){queries} SELECT * FROM a{}",
                n - 1
            )
        };
        let list = |between: &str, n: usize| {
            let others: String = (1..n).map(|i| format!("{between} t a{i}")).collect();
            format!("SELECT * FROM t a0{others}")
        };
        let union = |n: usize| vec![list(",", n); 10].join(" UNION ALL ");
        // The names of a query of WITH end with it.
        let inner = format!("SELECT * FROM (WITH t AS ({}) SELECT 1)", list(",", 400));

        for permitted in [
            doubling(10),
            chain(200),
            list(",", 500),
            union(200),
            format!("{inner}, {}", "t, ".repeat(400) + "t"),
        ] {
            assert!(parse(&permitted).is_ok(), "{permitted}");
        }
        for refused in [
            doubling(11),
            doubling(26),
            list(",", 501),
            list(" CROSS JOIN", 501),
            union(201),
        ] {
            let refused = parse(&refused).expect_err("too many");
            assert!(refused.to_string().contains("2000 tables"), "{refused}");
        }
    }

    #[test]
    fn wide_statements_are_permitted() {
        let many = "SELECT a FROM t WHERE a IN (0".to_owned() + &", 1 + 1".repeat(2000) + ")";
        assert!(parse(&many).is_ok());
        let several = "SELECT 1 + 1;".repeat(600);
        assert_eq!(parse(&several).expect("SQL").len(), 600);
    }
}
