//! Translates error messages of serde for users who write TOML but not Rust.

use wavemill_options::did_you_mean;

/// Translates an error message of serde.
pub(super) fn explain(message: &str) -> String {
    let message = one_line(message);

    // serde puts the found value, followed by the allowed values, in backquotes.
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((wrong, allowed)) = quoted.split_first() else {
        return plain_types(&message);
    };

    if message.starts_with("unknown field") {
        format!("unknown key{}", choice(wrong, allowed))
    } else if message.starts_with("unknown variant") {
        format!("`{wrong}` is unknown{}", choice(wrong, allowed))
    } else if message.starts_with("missing field") {
        "is missing".to_owned()
    } else {
        plain_types(&message)
    }
}

/// Returns a suggestion for a misspelled word and the list of allowed words.
fn choice(wrong: &str, allowed: &[&str]) -> String {
    format!(
        "{}; allowed: {}",
        did_you_mean(wrong, allowed),
        allowed.join(", ")
    )
}

/// Replaces Rust type names by plain words.
fn plain_types(message: &str) -> String {
    const WORDS: [(&str, &str); 9] = [
        ("f64", "a number"),
        ("u8", "a whole number from 0 to 255"),
        ("u32", "a whole number, 0 or more"),
        ("u64", "a whole number, 0 or more"),
        ("usize", "a whole number, 0 or more"),
        ("a boolean", "true or false"),
        ("a sequence", "an array"),
        ("an array of length 3", "three numbers"),
        ("an array of length 4", "four numbers"),
    ];

    // serde's message for an enum value that is neither a string nor a table.
    if message == "wanted string or table" {
        return "expected a string in quotes".to_owned();
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

    // No key of a recipe uses other types; they keep serde's name.
    let expected = WORDS
        .iter()
        .find(|(rust, _)| *rust == expected)
        .map_or(expected, |(_, plain)| plain);
    format!("{found}, expected {expected}")
}

/// Returns the most likely intended key if a value is given for a whole section.
fn key_of(section: &str) -> Option<&'static str> {
    match section {
        "CatalogSpec" => Some("catalog.dataset"),
        "SplitSpec" => Some("split.rule"),
        "AudioSpec" => Some("audio.duration_s"),
        "ShardSpec" => Some("shards.clips"),
        _ => None,
    }
}

/// Joins the lines of a TOML parser's message.
pub(crate) fn one_line(message: &str) -> String {
    message.trim().replace('\n', ", ")
}
