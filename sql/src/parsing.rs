//! Parses statements, and limits how deeply they are nested.
//!
//! Statements and plans are copied, compared and dropped recursively. The parser builds `a OR b OR …` in a loop, so the
//! depth of a statement is only limited by its length: a long one takes more stack than any thread of a query has.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::thread;

use datafusion::sql::parser::{CopyToSource, DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{self, Expr, Query, SetExpr, Visit, Visitor};

use super::SqlError;

/// Maximum depth of nested expressions, such as the number of terms of a sum, and maximum number of nested set
/// operations.
const DEPTH_MAX: usize = 500;
/// Maximum number of groupings of all `CUBE` of a statement: DataFusion makes all of them while it plans.
const GROUPINGS_MAX: usize = 1 << 12;
/// Stack for parsing a text, in total and for each byte that can add a level: dropping a level takes up to a kilobyte.
/// Memory is taken only when the stack grows.
const STACK_BYTES: usize = 2 << 20;
const STACK_BYTES_PER_LEVEL: usize = 2048;
/// Bytes that add no level: long lists of numbers consist of them.
const FLAT: &[u8] = b"0123456789,. '\"\n\r\t_";

/// Parses the statements of a query, of which there is at least one.
///
/// # Errors
/// [`SqlError::Syntax`], [`SqlError::Empty`], and [`SqlError::TooComplex`] if a statement is nested too deeply.
pub(super) fn statements(sql: &str) -> Result<VecDeque<Statement>, SqlError> {
    let n_levels = sql.bytes().filter(|byte| !FLAT.contains(byte)).count();
    let stack_bytes = STACK_BYTES + STACK_BYTES_PER_LEVEL.saturating_mul(n_levels);
    let parser = thread::Builder::new().stack_size(stack_bytes);
    thread::scope(|scope| {
        // A statement that is refused is dropped on this thread, too.
        let parsing = parser.spawn_scoped(scope, || parsed(sql));
        match parsing.map(|parsing| parsing.join()) {
            Ok(Ok(statements)) => statements,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(error) => Err(SqlError::TooComplex {
                detail: format!(
                    "SQL of {} bytes cannot be parsed at once ({error}): divide it",
                    sql.len()
                ),
            }),
        }
    })
}

fn parsed(sql: &str) -> Result<VecDeque<Statement>, SqlError> {
    let statements = DFParserBuilder::new(sql)
        .build()
        .and_then(|mut parser| parser.parse_statements())?;
    if statements.is_empty() {
        return Err(SqlError::Empty);
    }
    statements.iter().try_for_each(check)?;
    Ok(statements)
}

/// Refuses a statement that is nested too deeply.
fn check(statement: &Statement) -> Result<(), SqlError> {
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
        Statement::Statement(statement) => require_shallow(statement),
        Statement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => visit(query),
            CopyToSource::Relation(_) => Ok(()),
        },
        Statement::CreateExternalTable(table) => {
            visit(&table.columns)?;
            visit(&table.order_exprs)?;
            visit(&table.constraints)
        }
        Statement::Explain(_) | Statement::Reset(_) => Ok(()),
    }
}

/// Refuses a statement in which expressions or set operations are nested so deeply that walking them recursively could
/// take too much stack.
///
/// # Errors
/// [`SqlError::TooComplex`].
pub fn require_shallow(statement: &ast::Statement) -> Result<(), SqlError> {
    visit(statement)
}

fn visit(part: &impl Visit) -> Result<(), SqlError> {
    let mut depth = Depth::default();
    match part.visit(&mut depth) {
        ControlFlow::Break(refused) => Err(refused),
        ControlFlow::Continue(()) => Ok(()),
    }
}

fn too_deep() -> SqlError {
    SqlError::TooComplex {
        detail: format!(
            "the statement has more than {DEPTH_MAX} nested expressions or set operations: replace a long chain of \
             OR by IN (…), and other long chains by a table with one row for each term"
        ),
    }
}

fn too_many_groupings() -> SqlError {
    SqlError::TooComplex {
        detail: format!(
            "GROUP BY CUBE (…) of n expressions makes 2^n groupings, and a statement may have {GROUPINGS_MAX}: list \
             those that you need in GROUPING SETS (…)"
        ),
    }
}

/// The current depth of a walk, and the number of groupings so far.
#[derive(Default)]
struct Depth {
    expressions: usize,
    operations: usize,
    groupings: usize,
}

impl Visitor for Depth {
    type Break = SqlError;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<SqlError> {
        self.operations += n_operations(&query.body);
        limited(self.operations)
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<SqlError> {
        self.operations -= n_operations(&query.body);
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<SqlError> {
        if let Expr::Cube(sets) = expr {
            let groupings = 1_usize.checked_shl(sets.len() as u32);
            self.groupings = self
                .groupings
                .saturating_add(groupings.unwrap_or(usize::MAX));
            if self.groupings > GROUPINGS_MAX {
                return ControlFlow::Break(too_many_groupings());
            }
        }
        self.expressions += n_levels(expr);
        limited(self.expressions)
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<SqlError> {
        self.expressions -= n_levels(expr);
        ControlFlow::Continue(())
    }
}

fn limited(depth: usize) -> ControlFlow<SqlError> {
    if depth > DEPTH_MAX {
        ControlFlow::Break(too_deep())
    } else {
        ControlFlow::Continue(())
    }
}

/// Returns the number of set operations of a query, without those of queries in parentheses.
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

/// Returns the number of levels that an expression adds to the plan: `a[1][2]` is one expression with two of them.
fn n_levels(expr: &Expr) -> usize {
    match expr {
        Expr::CompoundFieldAccess { access_chain, .. } => access_chain.len(),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_statements_are_refused_whatever_their_form() {
        let chain = |head: &str, term: &str, n: usize| format!("{head}{}", term.repeat(n));
        for (head, term) in [
            ("SELECT a FROM t WHERE a = 0", " OR a = 0"),
            ("SELECT 1", "+1"),
            ("SELECT a", "[1]"),
            ("SELECT a", " IS NULL"),
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
            let refused = statements(&deep).expect_err(head);
            assert!(
                matches!(refused, SqlError::TooComplex { .. }),
                "{head}: {refused}"
            );
            let shallow = chain(head, term, 400) + close;
            assert!(statements(&shallow).is_ok(), "{head}");
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
        assert!(statements(&cube(12)).is_ok());
        for refused in [
            cube(13),
            cube(30),
            cube(200),
            format!("{} UNION {}", cube(12), cube(12)),
        ] {
            let refused = statements(&refused).expect_err("too many");
            assert!(matches!(refused, SqlError::TooComplex { .. }), "{refused}");
        }
    }

    #[test]
    fn wide_statements_are_permitted() {
        let many = "SELECT a FROM t WHERE a IN (0".to_owned() + &", 1 + 1".repeat(2000) + ")";
        assert!(statements(&many).is_ok());
        let several = "SELECT 1 + 1;".repeat(600);
        assert_eq!(statements(&several).expect("SQL").len(), 600);
    }
}
