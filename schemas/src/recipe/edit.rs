//! `--set key=value`: one changed value in a recipe's text, everything else as it stands.

use toml_edit::{DocumentMut, InlineTable, Item, Key, Value};
use wavemill_options::{Fault, did_you_mean};

use super::place;

/// Keys for which `none` is a value and does not remove the key.
const NONE_IS_A_VALUE: [&str; 3] = ["normalize", "norm", "compression"];

/// Applies `flag` to `document` and returns the new text.
pub(super) fn set(document: &mut DocumentMut, flag: &str) -> Result<String, Fault> {
    let (key, value) = flag
        .split_once('=')
        .ok_or_else(|| Fault::new(flag, "no `=`; write key=value"))?;
    let steps =
        Key::parse(key.trim()).map_err(|_| Fault::new(key, "not a key; write it as split.seed"))?;
    let (last, parents) = steps
        .split_last()
        .ok_or_else(|| Fault::new(key, "no key before the `=`"))?;

    // Down to the table that holds the key; `path` is the way there, for errors.
    let mut item = document.as_item_mut();
    let mut path = String::new();
    for step in parents {
        item = descend(item, step.get(), &path).map_err(|problem| Fault::new(key, problem))?;
        path = place::joined(&path, step.get());
    }

    // TOML has no null: an absent key is what stands for one.
    let value = value.trim();
    let edited = if value == "none" && !NONE_IS_A_VALUE.contains(&last.get()) {
        remove(item, last.get(), &path)
    } else {
        put(item, last.get(), value, &path)
    };
    edited.map_err(|problem| Fault::new(key, problem))?;
    Ok(document.to_string())
}

/// The child of `item` (which stands at `path`) called `step`: an element by its name; a table is made when absent.
fn descend<'a>(item: &'a mut Item, step: &str, path: &str) -> Result<&'a mut Item, String> {
    if item.is_array_of_tables() || item.is_array() {
        // Names hold when somebody adds an element before this one; numbers would not.
        let index = element(item, step, path)?;
        return item
            .get_mut(index)
            .ok_or_else(|| format!("{path} is too short"));
    }

    // What stands between braces on one line can hold no table with a header of its own.
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

/// Where the element called `name` stands in the array at `path`.
fn element(array: &Item, name: &str, path: &str) -> Result<usize, String> {
    let found =
        place::elements(array).position(|element| place::element_name(element) == Some(name));
    found.ok_or_else(|| {
        let names: Vec<&str> = place::elements(array)
            .filter_map(place::element_name)
            .collect();
        let hint = did_you_mean(name, &names);
        format!(
            "nothing in {path} is called `{name}`{hint}; there are: {}",
            names.join(", ")
        )
    })
}

/// Takes `name` out of `parent` (which stands at `path`): a key, or an element by its name.
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
        .ok_or_else(|| "nothing to remove: the recipe does not give this key".to_owned())
}

/// Gives `name` in `parent` (which stands at `path`) the value that `text` is in TOML, else `text` itself.
fn put(parent: &mut Item, name: &str, text: &str, path: &str) -> Result<(), String> {
    if has_named_elements(parent) {
        element(parent, name, path)?;
        return Err(format!(
            "has keys of its own: set one of them, as {path}.{name}.KEY={text}, or remove it by `none`"
        ));
    }

    // A word is TOML only in quotes, which a shell takes away: it stands for itself.
    let mut value = text.parse::<Value>().unwrap_or_else(|_| Value::from(text));
    let inline = parent.is_inline_table();
    let table = parent
        .as_table_like_mut()
        .ok_or("its parent is not a table")?;

    match table.get(name).and_then(Item::as_value) {
        Some(old) if inline => *value.decor_mut() = old.decor().clone(),
        // The old comment tells where the old value came from.
        _ if !inline => value.decor_mut().set_suffix("  # --set"),
        _ => {}
    }

    table.insert(name, Item::Value(value));
    Ok(())
}
