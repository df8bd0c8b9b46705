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
    /// A [`Fault`] of the option if the name is unknown, with the nearest and all allowed names.
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
