//! Parsing of option values that are names, such as `hann` or `reflect`.

use crate::fault::Fault;

/// A type whose values have names in recipes.
pub(crate) trait Named: Copy + 'static {
    /// Name of the option that has this type.
    const KEY: &'static str;
    /// All names with their values; a value may have several names.
    const NAMES: &'static [(&'static str, Self)];

    /// Returns the value called `name`.
    ///
    /// # Errors
    /// A [`Fault`] of the option if the name is unknown, with the nearest allowed name, or all of them.
    fn named(name: &str) -> Result<Self, Fault> {
        if let Some((_, value)) = Self::NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(*value);
        }

        let allowed: Vec<&str> = Self::NAMES.iter().map(|(known, _)| *known).collect();
        let remedy = did_you_mean(name, &allowed, "allowed");
        Err(Fault::new(
            Self::KEY,
            format!("`{name}` is unknown{remedy}"),
        ))
    }
}

/// Returns the remedy for a word that is not in `allowed`, to be appended to an error message: the nearest word, or if
/// none is near, all of them after `list`.
pub fn did_you_mean(wrong: &str, allowed: &[&str], list: &str) -> String {
    // Allow one error in a short word and more in a long one: beyond that, the word would be a guess.
    let is_near = |distance, word: &str| distance <= 1 + wrong.len().min(word.len()) / 5;
    let distances = allowed
        .iter()
        .map(|word| (edit_distance(wrong, word), word));
    match distances.min() {
        Some((distance, word)) if is_near(distance, word) => format!(" (did you mean `{word}`?)"),
        _ => format!("; {list}: {}", allowed.join(", ")),
    }
}

/// Returns the Levenshtein distance of two words: the number of inserted, deleted and replaced characters.
fn edit_distance(left: &str, right: &str) -> usize {
    // Keeps one row of the distance table: `diagonal` is the already overwritten cell above and to the left.
    let mut row: Vec<usize> = (0..=right.chars().count()).collect();
    for (i, l) in left.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, r) in right.chars().enumerate() {
            let replaced = diagonal + usize::from(l != r);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
