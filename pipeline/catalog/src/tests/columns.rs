//! Tables of many columns: their cost, and the maximum number of columns.

use std::io::Read;

use arrow::array::{DictionaryArray, Int64Array};
use arrow::datatypes::Int32Type;

use wavemill_schemas::exit::{Classified, Kind};

use super::*;

/// Writes a table of two rows with `n_columns` columns of numbers and text. The first column is the clip's key.
fn wide_table(n_columns: usize) -> tempfile::TempDir {
    let names: Vec<String> = (1..n_columns).map(|i| format!("c{i}")).collect();
    let value = |i: usize| match i % 2 {
        0 => i.to_string(),
        _ => "x".to_owned(),
    };
    let values: Vec<String> = (1..n_columns).map(value).collect();

    let rows = format!(
        "clip_key,{}\na.wav,{values}\nb.wav,{values}\n",
        names.join(","),
        values = values.join(",")
    );

    folder_with("t.csv", rows).0
}

/// Reads and splits a table of `n_columns` and returns the CPU time of doing so, in seconds.
fn cpu_s(n_columns: usize) -> f64 {
    let sql = "SELECT *, c2 + 1 AS d FROM input WHERE c1 = 'x'";
    let recipe = with_target(recipe(Dataset::Table, vec![query("more", sql)]), "c1");
    let settings = CatalogSettings {
        threads: 1,
        ..CatalogSettings::default()
    };

    let folder = wide_table(n_columns);
    let before = wavemill_runtime::clock::cpu_time();
    let cleaned = clean(
        &recipe,
        &folder.path().into(),
        &AudioIndex::new(),
        settings,
        &Arc::default(),
    )
    .unwrap();
    let catalog = cleaned
        .split(&recipe, &Recordings::default(), None, &ClassLists::new())
        .unwrap();
    let took = wavemill_runtime::clock::cpu_time() - before;

    // The added columns are `d`, the track's id and the splits by three rules.
    assert_eq!(catalog.tables["tracks"].num_columns(), n_columns + 5);
    assert_eq!(catalog.tables["tracks_all"].num_columns(), n_columns + 2);
    took.as_secs_f64()
}

#[test]
fn read_time_is_linear_in_columns() {
    // Both times include a constant part, which reduces their ratio. Before the fix, the ratio was 20 or more.
    let (few, many) = (cpu_s(1_250), cpu_s(10_000));
    assert!(
        many / few < 12.0,
        "8 times the columns take {:.1} times as long: {few:.3} s, {many:.3} s",
        many / few
    );
}

/// Reader that repeats `line` without end and counts the bytes that were read.
struct Endless<'a> {
    line: std::iter::Cycle<std::slice::Iter<'a, u8>>,
    bytes: &'a std::cell::Cell<usize>,
}

impl std::io::Read for Endless<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        buffer
            .iter_mut()
            .for_each(|byte| *byte = *self.line.next().unwrap());
        self.bytes.set(self.bytes.get() + buffer.len());
        Ok(buffer.len())
    }
}

/// Opens a text that repeats `line` without end. Returns the error and the number of bytes read.
fn opened(line: &str, header: csv_text::Header) -> (String, usize) {
    let bytes = std::cell::Cell::new(0);
    let input = Endless {
        line: line.as_bytes().iter().cycle(),
        bytes: &bytes,
    };
    let error = csv_text::TextReader::open("t.csv", input, header)
        .err()
        .expect("too many");
    (error.to_string(), bytes.get())
}

#[test]
fn too_many_columns_are_detected_in_the_header() {
    for header in [
        csv_text::Header::Line(Default::default()),
        csv_text::Header::Levels,
    ] {
        let (message, bytes) = opened(
            &format!("a{}\n", ",b".repeat(csv_text::COLUMNS_MAX)),
            header,
        );
        assert!(
            message.starts_with("metadata file t.csv: 10001 columns exceed the limit of 10000"),
            "{message}"
        );
        assert!(bytes <= 2 << 20, "{bytes} bytes were read");
    }

    let (message, bytes) = opened("no line ends ", csv_text::Header::Line(Default::default()));
    assert!(
        message.contains("t.csv: its first line does not end within 16777216 bytes"),
        "{message}"
    );
    assert!(bytes <= 32 << 20, "{bytes} bytes were read");

    assert!(
        opened("a,", csv_text::Header::Line(Default::default()))
            .0
            .contains(" columns exceed the limit of")
    );
}

/// Returns the error message for a table that is refused.
fn usage_error(path: &Path) -> String {
    let error = run(&recipe(Dataset::Table, vec![]), path).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    error.to_string()
}

#[test]
fn too_many_parquet_columns_are_an_error() {
    let one: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    let columns = (0..=csv_text::COLUMNS_MAX).map(|i| (format!("c{i}"), one.clone()));
    let (_folder, path) = folder_with("t.parquet", in_parquet(columns));

    let refused = usage_error(&path);
    assert!(
        refused.starts_with("metadata file t.parquet: 10001 columns exceed the limit of 10000"),
        "{refused}"
    );

    let with_footer = |footer: &[u8]| {
        let length = (footer.len() as u32).to_le_bytes();
        std::fs::write(&path, [b"PAR1", footer, &length, b"PAR1"].concat()).unwrap();
        usage_error(&path)
    };
    // A footer that announces a million columns and contains none. The columns must be refused without reading them.
    let refused = with_footer(b"\x15\x04\x19\xfc\xc1\x84\x3d");
    assert!(refused.contains("1000000 columns"), "{refused}");

    // A root with 2³¹ - 1 children.
    let refused =
        with_footer(b"\x15\x04\x19\x1c\x48\x01r\x15\xfe\xff\xff\xff\x0f\x00\x16\x00\x19\x0c\x00");
    assert!(
        refused.contains("its footer is not in the form"),
        "{refused}"
    );
}

#[test]
fn record_without_an_end_is_an_error() {
    let start = &b"a,b\n1,2\n3,\"4"[..];
    let input = start.chain(std::io::repeat(b'x'));
    let mut reader =
        csv_text::TextReader::open("t.csv", input, csv_text::Header::Line(Default::default()))
            .unwrap();
    let error = loop {
        match reader.next_batch() {
            Ok(batch) => assert!(batch.is_some(), "the file has no end"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), Kind::Usage);
    let message = error.to_string();
    assert!(
        message.contains("t.csv")
            && message.contains("the record on line 3 has more than 67108864 bytes"),
        "{message}"
    );
}

#[test]
fn content_and_rows_have_limits() {
    assert_eq!(
        load::inflated("t.jsonl", &b"12345"[..], 5).unwrap(),
        "12345"
    );
    let error = load::inflated("t.jsonl", &b"12345"[..], 4).unwrap_err();
    assert_eq!(error.kind(), Kind::Usage);
    let message = error.to_string();
    assert!(
        message.contains("t.jsonl: it has more than 4 bytes"),
        "{message}"
    );

    // The values of 1,000 rows, and their numbers, have 16,000 bytes. Batches that share values have them once.
    let rows = || {
        let values: ArrayRef = std::sync::Arc::new(Int64Array::from(vec![7; 1_000]));
        RecordBatch::try_from_iter([("a", values)]).unwrap()
    };
    let all = |batches: [RecordBatch; 2]| {
        let schema = batches[0].schema();
        load::all_rows("t.parquet", &schema, batches.into_iter().map(Ok), 28_000)
    };
    let first = rows();
    assert_eq!(all([first.clone(), first]).unwrap().num_rows(), 2_000);
    let message = all([rows(), rows()]).unwrap_err().to_string();
    assert!(
        message.contains("t.parquet: its rows in memory have more than 28000 bytes"),
        "{message}"
    );
}

#[test]
fn columns_inside_of_json_objects_count() {
    let keys: Vec<String> = (0..10_000).map(|i| format!("\"k{i}\":1")).collect();
    let line = format!(
        "{{\"clip_key\":\"a.wav\",\"plays\":{{{}}}}}",
        keys.join(",")
    );
    let Err(refused) = load::json_table("t.jsonl", line.as_bytes()) else {
        panic!("10,001 columns");
    };
    assert!(refused.to_string().contains("columns"), "{refused}");
}

/// A category of pandas is a dictionary.
#[test]
fn keys_may_be_categories() {
    let keys: DictionaryArray<Int32Type> = ["b.wav", "a.wav"].into_iter().collect();
    let labels: ArrayRef = Arc::new(StringArray::from_iter_values(["x", "y"]));
    let columns = [("clip_key", Arc::new(keys) as ArrayRef), ("label", labels)];
    let (_folder, path) = folder_with("t.parquet", in_parquet(columns));

    let settings = CatalogSettings::default();
    let recipe = with_target(recipe(Dataset::Table, vec![]), "label");
    let audio = AudioIndex::new();
    let cleaned = clean(
        &recipe,
        &path.as_path().into(),
        &audio,
        settings,
        &Arc::default(),
    );
    let cleaned = cleaned.unwrap();
    assert_eq!(cleaned.clip_keys().collect::<Vec<_>>(), ["a.wav", "b.wav"]);
}
