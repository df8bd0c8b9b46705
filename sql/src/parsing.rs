//! Parses statements, and limits how deeply they are nested and how large their plans are.
//!
//! Statements and plans are copied, compared and dropped recursively. The parser builds `a OR b OR …` in a loop, so the
//! depth of a statement is only limited by its length: a long one takes more stack than any thread of a query has.
//! Planning cannot be ended, and a short statement can have a large plan.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::panic::resume_unwind;
use std::{ptr, thread};

use datafusion::sql::parser::{CopyToSource, DFParserBuilder, Statement};
use datafusion::sql::sqlparser::ast::{
    self, Expr, ObjectName, Query, Select, SetExpr, TableFactor, Visit, Visitor,
};
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect, PostgreSqlDialect};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use super::SqlError;
use super::dialect::BoundedDialect;
use super::type_limits::{excessive_type, has_excessive_column, has_excessive_type};

/// Maximum depth of nested expressions, such as the number of terms of a sum, and maximum number of nested set
/// operations and of steps with `|>`.
const DEPTH_MAX: usize = 500;
/// Maximum depth of brackets of all kinds. The parser limits expressions in parentheses to about 50, but not types such
/// as `ARRAY<ARRAY<…`, nor patterns of rows, and takes up to 30 KB of stack for each level of them.
const BRACKETS_MAX: usize = 100;
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
/// Stack for parsing a text, in total and for each byte that can add a level: dropping a level takes up to a kilobyte.
/// Memory is taken only when the stack grows.
const STACK_BYTES: usize = 16 << 20;
const STACK_BYTES_PER_LEVEL: usize = 2048;
/// Bytes that add no level: long lists of numbers consist of them.
const FLAT: &[u8] = b"0123456789,. '\"\n\r\t_";

/// Parses the statements of a query, of which there is at least one.
///
/// # Errors
/// [`SqlError::Syntax`], [`SqlError::Empty`], and [`SqlError::TooComplex`] if a statement is beyond a limit.
pub(super) fn statements(sql: &str) -> Result<VecDeque<Statement>, SqlError> {
    // A statement that is refused is dropped with the same stack.
    with_stack(sql, || parsed(sql))
}

/// Calls `parse` with the stack that parsing `sql` takes.
fn with_stack<T: Send>(
    sql: &str,
    parse: impl FnOnce() -> Result<T, SqlError> + Send,
) -> Result<T, SqlError> {
    let n_levels = sql.bytes().filter(|byte| !FLAT.contains(byte)).count();
    let stack_bytes = STACK_BYTES + STACK_BYTES_PER_LEVEL.saturating_mul(n_levels);
    let parser = thread::Builder::new().stack_size(stack_bytes);

    thread::scope(|scope| {
        let parsing = parser.spawn_scoped(scope, parse);
        match parsing.map(|parsing| parsing.join()) {
            Ok(Ok(parsed)) => parsed,
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
    let dialect = BoundedDialect::new(&GenericDialect {}, sql);
    require_shallow_brackets(&dialect, sql)?;
    let statements = DFParserBuilder::new(sql)
        .with_dialect(&dialect)
        .build()
        .and_then(|mut parser| parser.parse_statements());
    if dialect.has_given_up() {
        return Err(too_ambiguous());
    }

    let statements = statements?;
    if statements.is_empty() {
        return Err(SqlError::Empty);
    }
    statements.iter().try_for_each(check)?;
    Ok(statements)
}

/// Returns the number of statements of a text for PostgreSQL, or `None` if the text has a syntax error.
///
/// # Errors
/// [`SqlError::TooComplex`] if parsing the text is beyond a limit.
pub fn n_postgres_statements(sql: &str) -> Result<Option<usize>, SqlError> {
    with_stack(sql, || {
        let dialect = BoundedDialect::new(&PostgreSqlDialect {}, sql);
        require_shallow_brackets(&dialect, sql)?;
        let statements = Parser::parse_sql(&dialect, sql);
        if dialect.has_given_up() {
            return Err(too_ambiguous());
        }
        Ok(statements.ok().map(|statements| statements.len()))
    })
}

/// Refuses brackets that are nested too deeply, and types such as `int[][][]…` with too many levels. The parser does not
/// limit them, and visitors do not see types.
fn require_shallow_brackets(dialect: &dyn Dialect, sql: &str) -> Result<(), SqlError> {
    // The parser finds the errors of tokens, too.
    let tokens = Tokenizer::new(dialect, sql).tokenize().unwrap_or_default();

    let (mut brackets, mut angles, mut subscripts) = (0_usize, 0_usize, 0_usize);
    let mut is_type = false;
    for token in &tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => brackets += 1,
            Token::RParen | Token::RBracket | Token::RBrace => {
                brackets = brackets.saturating_sub(1);
            }
            Token::Lt if is_type => angles += 1,
            Token::Gt => angles = angles.saturating_sub(1),
            Token::ShiftRight => angles = angles.saturating_sub(2),
            Token::Whitespace(_) => continue,
            _ => {}
        }

        subscripts = match token {
            Token::LBracket => subscripts + 1,
            // Between the subscripts of an element, or of an enclosing type.
            Token::RBracket | Token::RParen | Token::Gt | Token::ShiftRight => subscripts,
            Token::Number(..) => subscripts,
            _ => 0,
        };
        if brackets + angles > BRACKETS_MAX || subscripts > DEPTH_MAX {
            return Err(too_many_brackets());
        }
        is_type = matches!(token, Token::Word(word) if matches!(word.keyword, Keyword::ARRAY | Keyword::STRUCT));
    }
    Ok(())
}

/// Refuses a statement that is beyond a limit.
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
/// take too much stack, or which has too many groupings or relations to plan.
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

fn too_ambiguous() -> SqlError {
    SqlError::TooComplex {
        detail: "the statement is nested too deeply or can be read in too many ways, most likely because of an error \
                 in brackets or in keywords that are used as names: check them, or divide the statement"
            .to_owned(),
    }
}

fn too_many_brackets() -> SqlError {
    SqlError::TooComplex {
        detail: format!(
            "the statement has more than {BRACKETS_MAX} levels of brackets, or {DEPTH_MAX} subscripts after each other: \
             divide it"
        ),
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

fn too_many_doublings() -> SqlError {
    SqlError::TooComplex {
        detail: format!(
            "more than {DOUBLINGS_MAX} nested subqueries in expressions, rows or calls of {}, of which each level doubles \
             the plan: move inner ones to queries of WITH",
            DOUBLING.join(", ")
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

fn too_many_relations() -> SqlError {
    SqlError::TooComplex {
        detail: format!(
            "a statement may read {RELATIONS_MAX} tables, and {FROM_RELATIONS_MAX} in one FROM, and each use of a query \
             of WITH counts as all tables of that query: divide it into several statements"
        ),
    }
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
    type Break = SqlError;

    fn pre_visit_statement(&mut self, statement: &ast::Statement) -> ControlFlow<SqlError> {
        if has_excessive_column(statement) {
            return ControlFlow::Break(excessive_type("the type of a column"));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<SqlError> {
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

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<SqlError> {
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

    fn pre_visit_select(&mut self, _: &Select) -> ControlFlow<SqlError> {
        self.in_from.push(0);
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<SqlError> {
        self.in_from.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<SqlError> {
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
        if has_excessive_type(expr) {
            return ControlFlow::Break(excessive_type("a type"));
        }

        self.doublings += usize::from(is_planned_twice(expr));
        if self.doublings > DOUBLINGS_MAX {
            return ControlFlow::Break(too_many_doublings());
        }

        self.expressions += n_levels(expr);
        limited(self.expressions)
    }

    fn post_visit_expr(&mut self, expr: &Expr) -> ControlFlow<SqlError> {
        self.doublings -= usize::from(is_planned_twice(expr));
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

/// True if DataFusion plans the parts of an expression twice.
fn is_planned_twice(expr: &Expr) -> bool {
    match expr {
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::Tuple(_) | Expr::Map(_) => true,
        Expr::Function(function) => {
            let name = function.name.to_string().to_ascii_lowercase();
            DOUBLING.contains(&name.as_str())
        }
        _ => false,
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
    use super::*;

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
    fn errors_in_statements_that_can_be_read_in_many_ways_are_found_at_once() {
        for chain in [
            "case -",
            "position(",
            "{fn a(",
            "MAP(",
            "ARRAY<",
            "TABLE(a ",
        ] {
            let sql = format!("SELECT {}", chain.repeat(40));
            assert!(statements(&sql).is_err(), "{chain}");
            assert!(
                !matches!(n_postgres_statements(&sql), Ok(Some(_))),
                "{chain}"
            );
            let cast = format!("SELECT CAST(1 AS {}", chain.repeat(5000));
            assert!(statements(&cast).is_err(), "{chain}");
        }

        let types = "case -".repeat(24) + "STRUCT<" + &"a int,".repeat(4000);
        assert!(statements(&format!("SELECT {types} / ?9 9")).is_err());
        let intervals = "SELECT ".to_owned() + &"INTERVAL ".repeat(2000) + "1";
        let subscripts = "SELECT ".to_owned() + &"a.b.c.d[".repeat(8) + "/ ?9 9";
        for sql in [intervals, subscripts] {
            let refused = statements(&sql).expect_err("nested names");
            assert!(refused.to_string().contains("too many ways"), "{refused}");
        }
        let nested = "lower(".repeat(8) + "a.b.c['d']['e']" + &")".repeat(8);
        let select = format!("SELECT {nested} FROM a WHERE NOT {nested} = 'x'");
        assert!(statements(&select).is_ok());
        assert_eq!(n_postgres_statements(&select).expect("simple"), Some(1));
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
        ] {
            let nested = |n: usize| format!("SELECT {}a{}", open.repeat(n), close.repeat(n));
            assert!(statements(&nested(16)).is_ok(), "{open}");
            let refused = statements(&nested(17)).expect_err("deep");
            assert!(
                refused.to_string().contains("16 nested subqueries"),
                "{refused}"
            );
            let one = nested(1);
            let several = format!("{one}{}", format!(", ({one})").repeat(40));
            assert!(statements(&several).is_ok(), "{open}");
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
            assert!(statements(&permitted).is_ok(), "{permitted}");
        }
        for refused in [
            doubling(11),
            doubling(26),
            list(",", 501),
            list(" CROSS JOIN", 501),
            union(201),
        ] {
            let refused = statements(&refused).expect_err("too many");
            assert!(
                matches!(&refused, SqlError::TooComplex { detail } if detail.contains("2000 tables")),
                "{refused}"
            );
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
