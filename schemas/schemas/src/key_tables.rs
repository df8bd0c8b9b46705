//! The key tables of the pages, made from the doc comments and defaults of the structs that parse the files.
//!
//! A table stands between `<!-- keys: NAME -->` and `<!-- end -->`. `WAVEMILL_BLESS=1 cargo test -p wavemill-schemas
//! --lib key_tables` rewrites all of them. The first paragraph of a field's documentation is the meaning of its key. Its
//! last sentence may be `Default: ….` for a default that is not in the serialized default value.

use std::fs;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::Value;

use crate::config::Config;
use crate::recipe::{AudioSpec, CsvSpec, ImageSpec, Recipe, ShardSpec, SplitSpec};

/// Source of all structs and enums of the tables.
const SOURCES: [&str; 3] = [
    include_str!("recipe/mod.rs"),
    include_str!("config/mod.rs"),
    include_str!("../../options/src/spec.rs"),
];

/// Maximum number of variants of an enum that are listed in a table.
const LISTED_MAX: usize = 6;

/// A table of a page.
struct Table {
    page: &'static str,
    name: &'static str,
    /// Name of the struct whose fields are the keys.
    of: &'static str,
    /// The keys of the table; all if empty.
    only: &'static [&'static str],
    /// Serialized default value of the struct; null if it has none.
    defaults: Value,
}

/// A field of a struct in `SOURCES`.
struct Field {
    /// Name in files.
    key: String,
    /// First paragraph of the documentation.
    meaning: String,
    /// Text of the sentence `Default: ….`.
    documented_default: Option<String>,
    /// Type without `Option` and `Vec`.
    of: String,
    is_option: bool,
    is_list: bool,
    has_default: bool,
}

fn defaults<T: Serialize + Default>() -> Value {
    serde_json::to_value(T::default()).expect("plain values")
}

/// Keys of features in a table of recipes.md; the other pages describe the keys of each operation.
const OF_ALL: &[&str] = &["name", "op", "source", "stored"];
const OF_PICTURES: &[&str] = &["crop", "filter"];
/// Keys of features that are computed from another feature, in features.md.
const OF_DERIVED: &[&str] = &[
    "source",
    "start_bpm",
    "std_bpm",
    "max_tempo",
    "colour_map",
    "height",
    "width",
];
/// Keys of `[catalog]` without the sections that have tables of their own.
const OF_CATALOG: &[&str] = &["dataset", "subset", "require_audio"];

fn tables() -> Vec<Table> {
    let catalog = serde_json::json!({ "require_audio": true });
    let recipes = |name, of, only, defaults| Table {
        page: "recipes.md",
        name,
        of,
        only,
        defaults,
    };
    vec![
        recipes("catalog", "CatalogSpec", OF_CATALOG, catalog),
        recipes("catalog.clean", "CleanStep", &[], Value::Null),
        recipes("catalog.csv", "CsvSpec", &[], defaults::<CsvSpec>()),
        recipes("targets", "TargetSpec", &[], Value::Null),
        recipes("split", "SplitSpec", &[], defaults::<SplitSpec>()),
        recipes("audio", "AudioSpec", &[], defaults::<AudioSpec>()),
        recipes("features", "FeatureSpec", OF_ALL, Value::Null),
        recipes("picture", "FeatureSpec", OF_PICTURES, Value::Null),
        recipes("image", "ImageSpec", &[], defaults::<ImageSpec>()),
        recipes("shards", "ShardSpec", &[], defaults::<ShardSpec>()),
        Table {
            page: "features.md",
            ..recipes("derived", "FeatureSpec", OF_DERIVED, Value::Null)
        },
        Table {
            page: "trainer.md",
            ..recipes("configuration", "Config", &[], defaults::<Config>())
        },
    ]
}

/// Returns the lines of the definition of `kind` (`struct` or `enum`) `name`: its attributes and its body.
fn definition(kind: &str, name: &str) -> Option<(Vec<&'static str>, Vec<&'static str>)> {
    let head = format!("pub {kind} {name} {{");
    for source in SOURCES {
        let lines: Vec<&str> = source.lines().collect();
        let Some(at) = lines.iter().position(|line| line.trim() == head) else {
            continue;
        };

        // The definitions of `named_enum!` are indented.
        let indent = lines[at].len() - head.len();
        let end = format!("{}}}", " ".repeat(indent));
        let body = lines[at + 1..].iter().take_while(|line| **line != end);

        let is_attribute =
            |line: &&&str| line.trim().starts_with('#') || line.trim().starts_with("///");
        let attributes = lines[..at].iter().rev().take_while(is_attribute);
        return Some((attributes.copied().collect(), body.copied().collect()));
    }
    None
}

/// Returns the fields of a struct in the order of its definition; `None` if it is not in `SOURCES`.
fn fields(name: &str) -> Option<Vec<Field>> {
    let (attributes, body) = definition("struct", name)?;
    let has_default = attributes
        .iter()
        .any(|line| line.contains("deny_unknown_fields, default"));

    let mut fields = Vec::new();
    let (mut docs, mut attributes) = (Vec::new(), String::new());
    for line in body.iter().map(|line| line.trim()) {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push(doc.trim());
        } else if let Some((field, of)) = line
            .strip_prefix("pub ")
            .and_then(|rest| rest.split_once(": "))
        {
            let paragraph = docs.iter().take_while(|doc| !doc.is_empty());
            let paragraph: Vec<&str> = paragraph.copied().collect();
            fields.push(Field {
                has_default: has_default || attributes.contains("default"),
                ..Field::new(
                    field,
                    &paragraph.join(" "),
                    of.trim_end_matches(','),
                    &attributes,
                )
            });
            docs.clear();
            attributes.clear();
        } else {
            attributes.push_str(line);
        }
    }
    Some(fields)
}

impl Field {
    fn new(field: &str, doc: &str, of: &str, attributes: &str) -> Self {
        let renamed = attributes.split_once("rename = \"");
        let renamed = renamed.and_then(|(_, rest)| rest.split('"').next());
        let (meaning, documented_default) = match doc.split_once(" Default: ") {
            Some((meaning, default)) => (meaning, Some(default.trim_end_matches('.').to_owned())),
            None => (doc, None),
        };

        let inner = |name: &str| {
            of.strip_prefix(name)
                .and_then(|rest| rest.strip_suffix('>'))
        };
        let (option, list) = (inner("Option<"), inner("Vec<"));
        Self {
            key: renamed.unwrap_or(field).to_owned(),
            meaning: meaning.replace("[`", "`").replace("`]", "`"),
            documented_default,
            of: option.or(list).unwrap_or(of).to_owned(),
            is_option: option.is_some(),
            is_list: list.is_some(),
            has_default: false,
        }
    }

    /// Returns the meaning with the names of the values, if there are few and the text does not name them.
    fn meaning(&self) -> String {
        let values = values(&self.of);
        let is_named = values
            .iter()
            .all(|value| self.meaning.contains(value.as_str()));
        if values.len() > LISTED_MAX || is_named {
            return self.meaning.clone();
        }
        format!(
            "{}: {}.",
            self.meaning.trim_end_matches('.'),
            values.join(", ")
        )
    }
}

/// Returns the names of an enum's values, in backquotes; none if it is not an enum in `SOURCES`.
fn values(name: &str) -> Vec<String> {
    let Some((attributes, body)) = definition("enum", name) else {
        return Vec::new();
    };
    if !attributes.iter().any(|line| line.contains("rename_all")) {
        return Vec::new();
    }

    let variants = body.iter().map(|line| line.trim());
    let variants =
        variants.filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()));
    let snake = attributes.iter().any(|line| line.contains("snake_case"));
    let mut names = Vec::new();
    for variant in variants {
        let variant = variant.split([' ', ',']).next().unwrap_or_default();
        let mut value = String::new();
        for letter in variant.chars() {
            if snake && letter.is_ascii_uppercase() && !value.is_empty() {
                value.push('_');
            }
            value.push(letter.to_ascii_lowercase());
        }
        names.push(format!("`{value}`"));
    }
    names
}

/// Appends the rows of the struct `of` to `rows`: key, default and meaning. `defaults` is its default value.
fn add_rows(rows: &mut Vec<[String; 3]>, of: &str, only: &[&str], prefix: &str, defaults: &Value) {
    let fields = fields(of).unwrap_or_else(|| panic!("no struct {of} in the sources"));
    for field in fields {
        if !only.is_empty() && !only.contains(&field.key.as_str()) {
            continue;
        }

        let key = format!("{prefix}{}", field.key);
        let default = defaults.get(&field.key).unwrap_or(&Value::Null);
        let is_section = self::fields(&field.of).is_some();
        if !is_section || field.is_option || field.is_list {
            assert!(
                !field.meaning.is_empty(),
                "{of}.{} has no documentation",
                field.key
            );
            rows.push([
                format!("`{key}`"),
                default_text(&field, default, is_section),
                field.meaning().replace('|', "\\|"),
            ]);
        }
        if is_section {
            let dot = if field.is_list { "[]." } else { "." };
            add_rows(rows, &field.of, &[], &format!("{key}{dot}"), default);
        }
    }
}

fn default_text(field: &Field, default: &Value, is_section: bool) -> String {
    match (&field.documented_default, default) {
        (Some(text), Value::Null) => text.clone(),
        (Some(text), Value::Array(items)) if items.is_empty() => text.clone(),
        (Some(_), _) => panic!(
            "`{}` is {default} by default: remove the sentence",
            field.key
        ),
        (None, Value::Null) if is_section && field.is_option => "off".to_owned(),
        (None, Value::Null) if field.is_option || field.has_default => String::new(),
        (None, Value::Null) => "required".to_owned(),
        (None, Value::Object(_)) => "on".to_owned(),
        (None, value) => format!("`{value}`"),
    }
}

fn render(table: &Table) -> String {
    let mut rows = Vec::new();
    add_rows(&mut rows, table.of, table.only, "", &table.defaults);
    for key in table.only {
        let cell = format!("`{key}`");
        assert!(rows.iter().any(|row| row[0] == cell), "{}: {key}", table.of);
    }

    let mut text = "| key | default | meaning |\n|---|---|---|\n".to_owned();
    for row in rows {
        let line = format!("| {} |\n", row.join(" | "));
        text.push_str(&line.replace("|  |", "| |"));
    }
    text
}

/// Returns `page` with the rendered table in the place of the table that it contains.
fn with_table(page: &str, table: &Table) -> String {
    let start = format!("<!-- keys: {} -->\n", table.name);
    let (before, rest) = page
        .split_once(&start)
        .unwrap_or_else(|| panic!("{} has no line {start}", table.page));
    let (_, after) = rest
        .split_once("<!-- end -->")
        .expect("the end of the table");
    format!("{before}{start}{}<!-- end -->{after}", render(table))
}

#[test]
fn the_tables_of_the_pages_are_those_of_the_structs() {
    let is_blessed = std::env::var_os("WAVEMILL_BLESS").is_some_and(|value| value == "1");
    for table in tables() {
        let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs");
        let path = docs.join(table.page);
        let page = fs::read_to_string(&path).expect("the page");
        let wanted = with_table(&page, &table);

        if is_blessed {
            fs::write(&path, wanted).expect("a page that can be written");
        } else {
            let mut lines = page.lines().zip(wanted.lines());
            assert!(
                page == wanted,
                "docs/{}, table `{}`: WAVEMILL_BLESS=1 rewrites it from the documentation of `{}`; the first lines that \
                 differ: {:#?}",
                table.page,
                table.name,
                table.of,
                lines.find(|(is, want)| is != want)
            );
        }
    }
}

/// A default in backquotes after `Default:` is the default.
#[test]
fn documented_defaults_are_the_defaults() {
    fn documented(of: &str, prefix: &str, sets: &mut Vec<String>) {
        for field in fields(of).expect("a struct of the sources") {
            let key = format!("{prefix}{}", field.key);
            let literal = field.documented_default.as_deref().unwrap_or_default();
            if let Some(literal) = literal.strip_prefix('`')
                && !field.is_option
            {
                sets.push(format!("{key}={}", literal.trim_end_matches('`')));
            }
            if !field.is_option && !field.is_list && fields(&field.of).is_some() {
                documented(&field.of, &format!("{key}."), sets);
            }
        }
    }

    let mut sets = Vec::new();
    documented("Config", "", &mut sets);
    assert!(
        sets.contains(&"data.sampler=\"all\"".to_owned()),
        "{sets:?}"
    );
    for set in sets {
        let config = Config::parse("", "no file", std::slice::from_ref(&set)).expect("a default");
        assert_eq!(config, Config::default(), "{set}");
    }

    let mut sets = Vec::new();
    documented("Recipe", "", &mut sets);
    assert_eq!(sets, ["audio.max_duration_s=10800.0"]);
    for set in sets {
        let plain = Recipe::load("fma-large", &[]).expect("a shipped recipe");
        assert_eq!(Recipe::load("fma-large", &[set]).expect("a default"), plain);
    }
}
