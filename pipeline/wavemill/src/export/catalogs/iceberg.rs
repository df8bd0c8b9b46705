//! Apache Iceberg tables, format version 2 (<https://iceberg.apache.org/spec/>), each with one snapshot.
//!
//! The store's files have no field ids; readers find columns by name (`schema.name-mapping.default`). The column
//! `split` is in no file: it is the partition's value, which readers take for columns that a file lacks (the section
//! "Column Projection" of the specification). `gc.enabled = false` forbids engines to delete the store's files.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use apache_avro::types::Value;
use apache_avro::{Codec, DeflateSettings, Schema as AvroSchema, Writer};
use arrow::datatypes::{DataType, TimeUnit};
use serde_json::{Value as Json, json};

use super::super::error::ExportError;
use super::super::output::write_new;
use super::{CatalogJob, Table};

/// Number of the only snapshot's changes.
const SEQUENCE: i64 = 1;
/// Id of the first partition field, as Iceberg's own library numbers them.
const PARTITION_ID: i32 = 1000;
/// Status of an entry that its snapshot adds.
const ADDED: i32 = 1;
/// Content of a file with rows, and not with deletions.
const DATA: i32 = 0;
/// Name of the column with the split.
const SPLIT: &str = "split";

/// Writes one folder per table. Returns the columns that have no type in Iceberg.
///
/// # Errors
/// [`ExportError::Io`] if a file cannot be written.
pub(super) fn write(
    job: &CatalogJob<'_>,
    tables: &[Table<'_>],
    folder: &Path,
) -> Result<Vec<String>, ExportError> {
    let root = job.store.root();
    let place = match job.store.remote() {
        Some(_) => job.store.place().to_owned(),
        None => fs::canonicalize(root).map_err(ExportError::io_at(root, "find"))?,
    };
    let mut left_out = Vec::new();
    for table in tables {
        let columns = Columns::of(table);
        left_out.extend(columns.left_out.iter().cloned());
        let files = TableFiles {
            written: folder.join(&table.name).join("metadata"),
            location: job.out.join(&table.name),
            place: &place,
        };
        files.write(job, table, &columns)?;
    }
    Ok(left_out)
}

/// The columns of a table in Iceberg.
struct Columns {
    /// The field `fields` of the schema.
    fields: Vec<Json>,
    /// The names of each column in files.
    mapping: Vec<Json>,
    last_id: i32,
    /// Id of the column `split`, if files have a split.
    split: Option<i32>,
    left_out: Vec<String>,
}

impl Columns {
    fn of(table: &Table<'_>) -> Self {
        // Ids follow the order of columns, and those of the items of lists come after them.
        let n = table.schema.fields().len() as i32;
        let mut columns = Self {
            fields: Vec::new(),
            mapping: Vec::new(),
            last_id: n,
            split: None,
            left_out: Vec::new(),
        };
        for (field, id) in table.schema.fields().iter().zip(1..) {
            let name = field.name();
            let Some(data_type) = columns.data_type(field.data_type()) else {
                let message = format!("{}.{name}: {}", table.name, field.data_type());
                columns.left_out.push(message);
                continue;
            };

            let mut names = json!({"field-id": id, "names": [name]});
            if let Some(element) = data_type.get("element-id") {
                names["fields"] = json!([{"field-id": element, "names": ["item", "element"]}]);
            }
            let is_split = name == SPLIT && table.files.iter().all(|file| file.feature.is_some());
            if is_split {
                columns.split = Some(id);
            }
            columns.fields.push(json!({
                "id": id,
                "name": name,
                // Readers require that a file has the columns that are not null.
                "required": !field.is_nullable() && !is_split,
                "type": data_type,
            }));
            columns.mapping.push(names);
        }
        columns
    }

    fn data_type(&mut self, data_type: &DataType) -> Option<Json> {
        let name = match data_type {
            DataType::Boolean => "boolean",
            DataType::Int8 | DataType::Int16 | DataType::Int32 => "int",
            DataType::Int64 => "long",
            DataType::Float32 => "float",
            DataType::Float64 => "double",
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "string",
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "binary",
            DataType::Date32 => "date",
            DataType::Timestamp(TimeUnit::Microsecond, None) => "timestamp",
            DataType::Timestamp(TimeUnit::Microsecond, Some(_)) => "timestamptz",
            DataType::FixedSizeBinary(bytes) => return Some(json!(format!("fixed[{bytes}]"))),
            DataType::List(item) => {
                let element = self.data_type(item.data_type())?;
                self.last_id += 1;
                return Some(json!({
                    "type": "list",
                    "element-id": self.last_id,
                    "element": element,
                    "element-required": !item.is_nullable(),
                }));
            }
            _ => return None,
        };
        Some(json!(name))
    }

    fn schema(&self) -> Json {
        json!({"type": "struct", "schema-id": 0, "fields": self.fields})
    }

    fn partitions(&self) -> Json {
        match self.split {
            Some(id) => json!([
                {"source-id": id, "field-id": PARTITION_ID, "name": SPLIT, "transform": "identity"}
            ]),
            None => json!([]),
        }
    }
}

/// The places of a table's metadata and files.
struct TableFiles<'a> {
    /// The folder while it is written.
    written: PathBuf,
    /// The table's folder afterwards.
    location: PathBuf,
    /// The store's folder or address.
    place: &'a Path,
}

impl TableFiles<'_> {
    /// Writes the list of data files, the list of such lists, and the metadata of the table.
    fn write(
        &self,
        job: &CatalogJob<'_>,
        table: &Table<'_>,
        columns: &Columns,
    ) -> Result<(), ExportError> {
        fs::create_dir_all(&self.written)
            .map_err(ExportError::io_at(&self.written, "create the folder"))?;
        let snapshot = job.version as i64;
        let bytes = self.data_files(snapshot, table, columns)?;
        self.snapshot(snapshot, table, bytes)?;

        let metadata = self.metadata(job, table, columns).to_string();
        write_new(&self.written.join("v1.metadata.json"), metadata.as_bytes())?;
        // With this file, DuckDB and Hadoop's catalog find the metadata in the table's folder.
        write_new(&self.written.join("version-hint.text"), b"1")
    }

    /// Writes the list of data files, and returns its size in bytes.
    fn data_files(
        &self,
        snapshot: i64,
        table: &Table<'_>,
        columns: &Columns,
    ) -> Result<i64, ExportError> {
        let files = table.files.iter().map(|file| {
            let path = self.place.join(&file.path).display().to_string();
            // A table without splits has no partitions, whose record has no fields then.
            let partition = columns.split.map(|_| {
                let split = file.split_name().to_owned();
                (SPLIT, nullable(Value::String(split)))
            });

            record([
                ("status", Value::Int(ADDED)),
                ("snapshot_id", nullable(Value::Long(snapshot))),
                ("sequence_number", nullable(Value::Long(SEQUENCE))),
                ("file_sequence_number", nullable(Value::Long(SEQUENCE))),
                (
                    "data_file",
                    record([
                        ("content", Value::Int(DATA)),
                        ("file_path", Value::String(path)),
                        ("file_format", Value::String("PARQUET".to_owned())),
                        ("partition", record(partition)),
                        ("record_count", Value::Long(file.rows as i64)),
                        ("file_size_in_bytes", Value::Long(file.bytes as i64)),
                    ]),
                ),
            ])
        });

        self.avro(
            "files.avro",
            &manifest_schema(columns.split.is_some()),
            files.collect(),
            &[
                ("schema", columns.schema().to_string()),
                ("schema-id", "0".to_owned()),
                ("partition-spec", columns.partitions().to_string()),
                ("partition-spec-id", "0".to_owned()),
                ("format-version", "2".to_owned()),
                ("content", "data".to_owned()),
            ],
        )
    }

    /// Writes the list of the snapshot's lists: the one of `bytes` that [`TableFiles::data_files`] wrote.
    fn snapshot(&self, snapshot: i64, table: &Table<'_>, bytes: i64) -> Result<(), ExportError> {
        let rows: u64 = table.files.iter().map(|file| file.rows).sum();
        let list = record([
            ("manifest_path", Value::String(self.path("files.avro"))),
            ("manifest_length", Value::Long(bytes)),
            ("partition_spec_id", Value::Int(0)),
            ("content", Value::Int(0)),
            ("sequence_number", Value::Long(SEQUENCE)),
            ("min_sequence_number", Value::Long(SEQUENCE)),
            ("added_snapshot_id", Value::Long(snapshot)),
            ("added_files_count", Value::Int(table.files.len() as i32)),
            ("existing_files_count", Value::Int(0)),
            ("deleted_files_count", Value::Int(0)),
            ("added_rows_count", Value::Long(rows as i64)),
            ("existing_rows_count", Value::Long(0)),
            ("deleted_rows_count", Value::Long(0)),
        ]);

        self.avro(
            "snapshot.avro",
            &manifest_list_schema(),
            vec![list],
            &[
                ("format-version", "2".to_owned()),
                ("snapshot-id", snapshot.to_string()),
                ("sequence-number", SEQUENCE.to_string()),
            ],
        )?;
        Ok(())
    }

    fn metadata(&self, job: &CatalogJob<'_>, table: &Table<'_>, columns: &Columns) -> Json {
        let snapshot = job.version;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |time| time.as_millis() as u64);
        let mapping = json!(columns.mapping).to_string();

        json!({
            "format-version": 2,
            "table-uuid": uuid(&[&job.manifest.plan_id, &table.name]),
            "location": self.location,
            "last-sequence-number": SEQUENCE,
            "last-updated-ms": now,
            "last-column-id": columns.last_id,

            "schemas": [columns.schema()],
            "current-schema-id": 0,
            "partition-specs": [{"spec-id": 0, "fields": columns.partitions()}],
            "default-spec-id": 0,
            "last-partition-id": columns.split.map_or(PARTITION_ID - 1, |_| PARTITION_ID),
            "sort-orders": [{"order-id": 0, "fields": []}],
            "default-sort-order-id": 0,

            "properties": {
                "gc.enabled": "false",
                "schema.name-mapping.default": mapping,
                "wavemill.plan_id": job.manifest.plan_id,
                "wavemill.version": job.version.to_string(),
            },

            "current-snapshot-id": snapshot,
            "snapshots": [{
                "snapshot-id": snapshot,
                "sequence-number": SEQUENCE,
                "timestamp-ms": now,
                "manifest-list": self.path("snapshot.avro"),
                "summary": {"operation": "append"},
                "schema-id": 0,
            }],
            "refs": {"main": {"snapshot-id": snapshot, "type": "branch"}},
            "snapshot-log": [],
            "metadata-log": [],
        })
    }

    /// Returns the path that a metadata file will have.
    fn path(&self, name: &str) -> String {
        let path = self.location.join("metadata").join(name);
        path.display().to_string()
    }

    /// Writes a file of Avro records, and returns its size in bytes.
    fn avro(
        &self,
        name: &str,
        schema: &Json,
        records: Vec<Value>,
        metadata: &[(&str, String)],
    ) -> Result<i64, ExportError> {
        let encode = || {
            let schema = AvroSchema::parse(schema)?;
            // pyiceberg 0.12 cannot read files without a codec.
            let codec = Codec::Deflate(DeflateSettings::default());
            let mut writer = Writer::with_codec(&schema, Vec::new(), codec)?;
            for (key, value) in metadata {
                writer.add_user_metadata((*key).to_owned(), value)?;
            }
            writer.extend(records)?;
            writer.into_inner()
        };

        let path = self.written.join(name);
        let bytes = encode().map_err(ExportError::io_at::<apache_avro::Error>(&path, "encode"))?;

        write_new(&path, &bytes)?;
        Ok(bytes.len() as i64)
    }
}

fn nullable(value: Value) -> Value {
    Value::Union(1, Box::new(value))
}

fn record<'a>(fields: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    let fields = fields.into_iter();
    Value::Record(
        fields
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

/// Returns the schema of the list of data files, with the field ids of the specification.
fn manifest_schema(has_split: bool) -> Json {
    let split = json!({"name": SPLIT, "type": ["null", "string"], "field-id": PARTITION_ID});
    let partition = if has_split { vec![split] } else { Vec::new() };
    json!({"type": "record", "name": "manifest_entry", "fields": [
        {"name": "status", "type": "int", "field-id": 0},
        {"name": "snapshot_id", "type": ["null", "long"], "field-id": 1},
        {"name": "sequence_number", "type": ["null", "long"], "field-id": 3},
        {"name": "file_sequence_number", "type": ["null", "long"], "field-id": 4},
        {"name": "data_file", "field-id": 2, "type": {"type": "record", "name": "r2", "fields": [
            {"name": "content", "type": "int", "field-id": 134},
            {"name": "file_path", "type": "string", "field-id": 100},
            {"name": "file_format", "type": "string", "field-id": 101},
            {"name": "partition", "field-id": 102,
                "type": {"type": "record", "name": "r102", "fields": partition}},
            {"name": "record_count", "type": "long", "field-id": 103},
            {"name": "file_size_in_bytes", "type": "long", "field-id": 104},
        ]}},
    ]})
}

/// Returns the schema of the list of lists.
fn manifest_list_schema() -> Json {
    let fields = [
        ("manifest_path", "string", 500),
        ("manifest_length", "long", 501),
        ("partition_spec_id", "int", 502),
        ("content", "int", 517),
        ("sequence_number", "long", 515),
        ("min_sequence_number", "long", 516),
        ("added_snapshot_id", "long", 503),
        ("added_files_count", "int", 504),
        ("existing_files_count", "int", 505),
        ("deleted_files_count", "int", 506),
        ("added_rows_count", "long", 512),
        ("existing_rows_count", "long", 513),
        ("deleted_rows_count", "long", 514),
    ];
    let fields = fields.map(|(name, kind, id)| json!({"name": name, "type": kind, "field-id": id}));
    json!({"type": "record", "name": "manifest_file", "fields": fields})
}

/// Returns the UUID (version 8) of a hash of `parts`.
fn uuid(parts: &[&str]) -> String {
    let hash = blake3::hash(parts.join("\n").as_bytes());
    let hex = hash.to_hex();
    format!(
        "{}-{}-8{}-8{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..15],
        &hex[15..18],
        &hex[18..30]
    )
}
