//! `--set key=value`: changes one value in the text of a recipe and keeps everything else.

use toml_edit::{DocumentMut, InlineTable, Item, Key, Value};
use wavemill_options::{Fault, did_you_mean};

use super::place;

/// Keys for which `none` is a value instead of removing the key.
const KEYS_WITH_NONE: [&str; 3] = ["normalize", "norm", "compression"];

/// Applies the `--set` option `flag` to the recipe in `document` and returns the new text.
pub(super) fn set(document: &mut DocumentMut, flag: &str) -> Result<String, Fault> {
    let (key, value) = flag
        .split_once('=')
        .ok_or_else(|| Fault::new(flag, "missing `=`: expected key=value"))?;
    let steps = Key::parse(key.trim())
        .map_err(|_| Fault::new(key, "invalid key: use a path such as split.seed"))?;
    let (last, parents) = steps
        .split_last()
        .ok_or_else(|| Fault::new(key, "missing key before the `=`"))?;

    // Descend to the table that contains the key. `path` is the key of the table reached so far, for error messages.
    let mut item = document.as_item_mut();
    let mut path = String::new();
    for step in parents {
        item = descend(item, step.get(), &path).map_err(|problem| Fault::new(key, problem))?;
        path = place::joined(&path, step.get());
    }

    // TOML has no null, so an absent key represents it.
    let value = value.trim();
    let edited = if value == "none" && !KEYS_WITH_NONE.contains(&last.get()) {
        remove(item, last.get(), &path)
    } else {
        put(item, last.get(), value, &path)
    };
    edited.map_err(|problem| Fault::new(key, problem))?;
    Ok(document.to_string())
}

/// Returns the child `step` of `item`, whose key is `path`. Array elements are found by name, and missing tables are
/// created.
fn descend<'a>(item: &'a mut Item, step: &str, path: &str) -> Result<&'a mut Item, String> {
    if item.is_array_of_tables() || item.is_array() {
        // Elements are addressed by name: names stay valid if an element is inserted before them; indices would not.
        let index = element(item, step, path)?;
        return item
            .get_mut(index)
            .ok_or_else(|| format!("{path} is too short"));
    }

    // A table within an inline table must be inline too, because it cannot have a header.
    let empty = if item.is_table() {
        toml_edit::table()
    } else {
        Item::Value(InlineTable::new().into())
    };
    let table = item
        .as_table_like_mut()
        .ok_or_else(|| format!("{path} is not a table"))?;
    Ok(table.entry(step).or_insert(empty))
}

fn has_named_elements(item: &Item) -> bool {
    place::elements(item).any(|element| place::element_name(element).is_some())
}

/// Returns the index of the element called `name` in the array at `path`.
fn element(array: &Item, name: &str, path: &str) -> Result<usize, String> {
    let found =
        place::elements(array).position(|element| place::element_name(element) == Some(name));
    found.ok_or_else(|| {
        let names: Vec<&str> = place::elements(array)
            .filter_map(place::element_name)
            .collect();
        let remedy = did_you_mean(name, &names, "there are");
        format!("{path} has no element `{name}`{remedy}")
    })
}

/// Removes the key or the named element `name` from `parent`, whose key is `path`.
fn remove(parent: &mut Item, name: &str, path: &str) -> Result<(), String> {
    if has_named_elements(parent) {
        let index = element(parent, name, path)?;
        if let Some(tables) = parent.as_array_of_tables_mut() {
            tables.remove(index);
        } else if let Some(values) = parent.as_array_mut() {
            values.remove(index);
        }
        return Ok(());
    }

    let removed = parent
        .as_table_like_mut()
        .and_then(|table| table.remove(name));
    removed
        .map(|_| ())
        .ok_or_else(|| "nothing to remove: the recipe does not contain this key".to_owned())
}

/// Sets `name` in `parent`, whose key is `path`, to the TOML value in `text`, or to `text` itself if it is not valid
/// TOML.
fn put(parent: &mut Item, name: &str, text: &str, path: &str) -> Result<(), String> {
    if has_named_elements(parent) {
        element(parent, name, path)?;
        return Err(format!(
            "is a table: set one of its keys, such as {path}.{name}.KEY={text}, or remove it with `none`"
        ));
    }

    // TOML requires quotes around strings, but shells remove them. A bare word is therefore a string.
    let mut value = text.parse::<Value>().unwrap_or_else(|_| Value::from(text));
    let inline = parent.is_inline_table();
    let table = parent
        .as_table_like_mut()
        .ok_or("its parent is not a table")?;

    match table.get(name).and_then(Item::as_value) {
        Some(old) if inline => *value.decor_mut() = old.decor().clone(),
        // The comment after a value describes the value's origin, so the old comment is replaced.
        _ if !inline => value.decor_mut().set_suffix("  # --set"),
        _ => {}
    }

    table.insert(name, Item::Value(value));
    Ok(())
}
