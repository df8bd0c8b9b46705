//! Values that have names.

use crate::fault::Fault;

/// The value called `name`. Errors: a [`Fault`] of `key` with the nearest name and all that are allowed.
pub(crate) fn named<T: Copy>(key: &str, names: &[(&str, T)], name: &str) -> Result<T, Fault> {
    if let Some((_, value)) = names.iter().find(|(known, _)| *known == name) {
        return Ok(*value);
    }

    let allowed: Vec<&str> = names.iter().map(|(known, _)| *known).collect();
    let hint = did_you_mean(name, &allowed);
    let problem = format!("`{name}` is unknown{hint}; allowed: {}", allowed.join(", "));
    Err(Fault::new(key, problem))
}

/// ` (did you mean …?)` for the nearest of `allowed` when it is near enough to be a slip.
pub fn did_you_mean(wrong: &str, allowed: &[&str]) -> String {
    // One slip in a short word, more in a long one: beyond that the hint would be a guess.
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

/// Levenshtein's: insertions, deletions and replacements of characters.
fn edit_distance(left: &str, right: &str) -> usize {
    // One row of the table at a time: `diagonal` is the cell up and to the left, which the row no longer holds.
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
