//! The words of errors: serde's messages for people who write TOML and no Rust.

use wavemill_options::did_you_mean;

/// serde's message in the words of a recipe's author.
pub(super) fn explain(message: &str) -> String {
    let message = one_line(message);

    // serde puts what it found, and then what it knows, in backquotes.
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

/// What may have been meant, and all that is allowed.
fn choice(wrong: &str, allowed: &[&str]) -> String {
    format!(
        "{}; allowed: {}",
        did_you_mean(wrong, allowed),
        allowed.join(", ")
    )
}

/// Rust's type names in plain words.
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

    // An enum's value that is neither.
    if message == "wanted string or table" {
        return "expected a word in quotes".to_owned();
    }
    let Some((found, expected)) = message.split_once(", expected ") else {
        return message.to_owned();
    };

    // A section was given a value: serde names the Rust type of the section.
    if let Some(section) = expected.strip_prefix("struct ") {
        let value = found.split(['"', '`']).nth(1).unwrap_or("VALUE");
        let such_as =
            key_of(section).map_or_else(String::new, |key| format!(", such as {key}={value}"));
        return format!("has keys of its own: set one of them{such_as}");
    }

    // Types that no key has today keep serde's word.
    let expected = WORDS
        .iter()
        .find(|(rust, _)| *rust == expected)
        .map_or(expected, |(_, plain)| plain);
    format!("{found}, expected {expected}")
}

/// The key that is most often meant where a whole section is given a value.
fn key_of(section: &str) -> Option<&'static str> {
    match section {
        "CatalogSpec" => Some("catalog.dataset"),
        "SplitSpec" => Some("split.rule"),
        "AudioSpec" => Some("audio.duration_s"),
        "ShardSpec" => Some("shards.clips"),
        _ => None,
    }
}

/// TOML's messages have several lines.
pub(crate) fn one_line(message: &str) -> String {
    message.trim().replace('\n', ", ")
}
