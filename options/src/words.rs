//! Parsing of named values.

use crate::fault::Fault;

/// A value that has a name in recipes.
pub(crate) trait Named: Copy + 'static {
    /// Key whose values have these names.
    const KEY: &'static str;
    /// All names; a value may have several.
    const NAMES: &'static [(&'static str, Self)];

    /// Returns the value called `name`.
    ///
    /// # Errors
    /// A [`Fault`] of the key with the nearest name and all allowed names.
    fn named(name: &str) -> Result<Self, Fault> {
        if let Some((_, value)) = Self::NAMES.iter().find(|(known, _)| *known == name) {
            return Ok(*value);
        }

        let allowed: Vec<&str> = Self::NAMES.iter().map(|(known, _)| *known).collect();
        let hint = did_you_mean(name, &allowed);
        let problem = format!("`{name}` is unknown{hint}; allowed: {}", allowed.join(", "));
        Err(Fault::new(Self::KEY, problem))
    }
}

/// Returns ` (did you mean …?)` with the nearest word of `allowed`, or an empty string if none is close enough for a
/// typing error.
pub fn did_you_mean(wrong: &str, allowed: &[&str]) -> String {
    // Allow one error in a short word and more in a long one: beyond that, the hint would be a guess.
    let nearest = allowed
        .iter()
        .map(|word| (edit_distance(wrong, word), word))
        .min();
    match nearest {
        Some((distance, word)) if distance <= 1 + wrong.len().min(word.len()) / 4 => {
            format!(" (did you mean `{word}`?)")
        }
        _ => String::new(),
    }
}

/// Computes the Levenshtein distance: the number of inserted, deleted and replaced characters.
fn edit_distance(left: &str, right: &str) -> usize {
    // Keeps one row of the table: `diagonal` is the cell up and to the left, which has already been overwritten.
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
