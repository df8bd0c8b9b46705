//! PostgreSQL's system tables, and the functions with which clients ask for names.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, Result, ScalarValue, exec_err};
use datafusion::datasource::empty::EmptyTable;
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlanBuilder, ScalarUDF, Signature, SimpleScalarUDF, TypeSignature,
    Volatility, ident, lit,
};
use datafusion::prelude::SessionContext;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::setup_pg_catalog;

/// Name of the database, which is DataFusion's catalog.
pub(crate) const DATABASE: &str = "wavemill";
/// Schema of unqualified names.
pub(super) const SCHEMA: &str = "store";
/// Name of a function that returns null for all arguments.
pub(super) const ABSENT_FUNCTION: &str = "wavemill_absent";
/// Schema of PostgreSQL's system tables.
const SYSTEM: &str = "pg_catalog";
/// System tables of indexes and constraints, and their columns that are arrays.
const ARRAYS: [(&str, &[&str]); 2] = [
    (
        "pg_index",
        &["indkey", "indcollation", "indclass", "indoption"],
    ),
    ("pg_constraint", &["conkey", "confkey"]),
];
/// Version of PostgreSQL whose system tables and functions clients may expect.
pub(super) const POSTGRES_VERSION: &str = "16.6";

/// Registers the system tables and functions in a session.
///
/// # Errors
/// If DataFusion rejects them, which does not occur in practice.
pub(super) fn register(ctx: &SessionContext) -> std::result::Result<(), Box<DataFusionError>> {
    setup_pg_catalog(ctx, DATABASE, EmptyContextProvider)?;
    if let Some(catalog) = ctx.catalog(DATABASE)
        && let Some(tables) = catalog.schema(SYSTEM)
    {
        catalog.register_schema(SYSTEM, Arc::new(SystemTables(tables)))?;
    }

    use TypeSignature::{Any, Nullary, VariadicAny};

    // SQLAlchemy refuses a server whose version does not begin with PostgreSQL's name.
    let version = format!(
        "PostgreSQL {POSTGRES_VERSION} (wavemill {})",
        env!("CARGO_PKG_VERSION")
    );
    let schemas = [SCHEMA, SYSTEM].map(ScalarValue::from);
    let schemas = ScalarValue::new_list_nullable(&schemas, &DataType::Utf8);
    for (name, arguments, value) in [
        ("version", Nullary, ScalarValue::from(version)),
        // Replaces a function that returns PostgreSQL's default, `public`.
        ("current_schema", Nullary, ScalarValue::from(SCHEMA)),
        ("current_schemas", Any(1), ScalarValue::List(schemas)),
        ("pg_collation_is_visible", Any(1), ScalarValue::from(true)),
        // psycopg looks up types that PostgreSQL may have as extensions. There are none, and no sequences either.
        ("to_regtype", Any(1), ScalarValue::Int32(None)),
        ("pg_get_serial_sequence", Any(2), ScalarValue::Utf8(None)),
        ("current_setting", VariadicAny, ScalarValue::Utf8(None)),
        (ABSENT_FUNCTION, VariadicAny, ScalarValue::Utf8(None)),
    ] {
        let returned = value.data_type();
        let constant = move |_: &[ColumnarValue]| Ok(ColumnarValue::Scalar(value.clone()));
        register_function(ctx, name, arguments, returned, constant);
    }

    // Clients call these functions for rows of sequences, indexes and constraints. Because there are none, the functions
    // are only planned.
    for (name, returned) in [
        ("generate_subscripts", DataType::Int32),
        ("pg_get_indexdef", DataType::Utf8),
    ] {
        let refuse = move |_: &[ColumnarValue]| exec_err!("{name} is not implemented");
        register_function(ctx, name, VariadicAny, returned, refuse);
    }
    Ok(())
}

fn register_function(
    ctx: &SessionContext,
    name: &str,
    arguments: TypeSignature,
    returned: DataType,
    function: impl Fn(&[ColumnarValue]) -> Result<ColumnarValue> + Send + Sync + 'static,
) {
    let signature = Signature::new(arguments, Volatility::Immutable);
    let function =
        SimpleScalarUDF::new_with_signature(name, signature, returned, Arc::new(function));
    ctx.register_udf(ScalarUDF::from(function));
}

/// PostgreSQL's system tables, in which the tables of [`ARRAYS`] are empty: a store has neither indexes nor constraints.
/// The library fills them with those of an empty database, and their columns with arrays are texts, which clients cannot
/// take apart.
#[derive(Debug)]
struct SystemTables(Arc<dyn SchemaProvider>);

#[async_trait]
impl SchemaProvider for SystemTables {
    fn table_names(&self) -> Vec<String> {
        self.0.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = self.0.table(name).await? else {
            return Ok(None);
        };
        if name == "pg_class" {
            return with_options(table).map(Some);
        }
        let Some((_, arrays)) = ARRAYS.iter().find(|(table, _)| *table == name) else {
            return Ok(Some(table));
        };
        let schema = table.schema();
        let fields = schema.fields().iter().map(|field| {
            let field = Field::clone(field);
            if !arrays.contains(&field.name().as_str()) {
                return field;
            }
            field.with_data_type(DataType::new_list(DataType::Int16, true))
        });
        let schema = Schema::new(fields.collect::<Vec<_>>());
        Ok(Some(Arc::new(EmptyTable::new(Arc::new(schema)))))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.table_exist(name)
    }
}

/// Adds a column to `pg_class` that the library does not have, for SQLAlchemy.
fn with_options(table: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let null = ScalarValue::Utf8(None);
    let names = table.schema();
    let columns = names.fields().iter().map(|field| ident(field.name()));
    let columns = columns.chain([lit(null).alias("reloptions")]);
    let columns: Vec<Expr> = columns.collect();
    let plan = LogicalPlanBuilder::scan("pg_class", provider_as_source(table), None)?;
    let plan = plan.project(columns)?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}
