//! Translates error messages of serde for users who write TOML but not Rust.

use wavemill_options::did_you_mean;

/// The beginning of serde's message for an unknown key.
pub(crate) const UNKNOWN_KEY: &str = "unknown field";

/// Translates an error message of serde. `is_allowed` selects those of the known keys that the section can have.
pub(crate) fn explain(message: &str, is_allowed: impl Fn(&str) -> bool) -> String {
    let message = one_line(message);
    let quoted = quoted(&message);
    let Some((wrong, known)) = quoted.split_first() else {
        return plain_types(&message);
    };

    if message.starts_with(UNKNOWN_KEY) {
        let mut keys = known.to_vec();
        keys.retain(|key| is_allowed(key));
        format!("unknown key{}", did_you_mean(wrong, &keys, "allowed"))
    } else if message.starts_with("unknown variant") {
        format!(
            "`{wrong}` is unknown{}",
            did_you_mean(wrong, known, "allowed")
        )
    } else if message.starts_with("missing field") {
        "is missing".to_owned()
    } else {
        plain_types(&message)
    }
}

/// Returns the words that a message of serde has in backquotes: the found value, followed by the allowed values.
pub(crate) fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// Replaces Rust type names by plain words.
fn plain_types(message: &str) -> String {
    const WORDS: [(&str, &str); 11] = [
        ("f64", "a number"),
        ("u8", "a whole number from 0 to 255"),
        ("u32", "a whole number, 0 or more"),
        ("u64", "a whole number, 0 or more"),
        ("usize", "a whole number, 0 or more"),
        ("i64", "a whole number"),
        ("a boolean", "true or false"),
        ("a sequence", "an array"),
        ("an array of length 2", "two numbers"),
        ("an array of length 3", "three numbers"),
        ("an array of length 4", "four numbers"),
    ];

    // serde's message for an enum value that is neither a string nor a table.
    if message == "wanted string or table" {
        return "must be a string in quotes".to_owned();
    }
    let Some((found, expected)) = message.split_once(", expected ") else {
        return message.to_owned();
    };

    // A value was given for a whole section: serde's message contains the Rust type of the section.
    if let Some(section) = expected.strip_prefix("struct ") {
        let value = found.split(['"', '`']).nth(1).unwrap_or("VALUE");
        let such_as =
            key_of(section).map_or_else(String::new, |key| format!(", such as {key}={value}"));
        return format!("is a table: set one of its keys{such_as}");
    }

    // No key uses other types; they keep serde's name.
    let expected = WORDS
        .iter()
        .find(|(rust, _)| *rust == expected)
        .map_or(expected, |(_, plain)| plain);
    let value = found.strip_prefix("invalid type: ");
    let Some(value) = value.or_else(|| found.strip_prefix("invalid value: ")) else {
        return format!("{found}, expected {expected}");
    };
    // The Rust type precedes the value: `string "many"`.
    let value = value.find(['"', '`']).map_or(value, |at| &value[at..]);
    format!("must be {expected}, not {}", value.trim_matches('`'))
}

/// Returns the most likely intended key if a value is given for a whole section.
fn key_of(section: &str) -> Option<&'static str> {
    match section {
        "CatalogSpec" => Some("catalog.dataset"),
        "SplitSpec" => Some("split.rule"),
        "AudioSpec" => Some("audio.duration_s"),
        "ShardSpec" => Some("shards.clips"),
        "Model" => Some("model.name"),
        "Optimizer" => Some("optimizer.name"),
        _ => None,
    }
}

/// Joins the lines of a TOML parser's message.
pub(crate) fn one_line(message: &str) -> String {
    message.trim().replace('\n', ", ")
}
