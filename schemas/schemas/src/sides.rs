//! Names of the sides of a split (training, validation, test) as data sets use them.

/// Names of the three sides of a split, in the order of a recipe's fractions.
pub const SIDES: [&str; 3] = ["training", "validation", "test"];

/// Name of the folder for rows that the rule assigns to neither training, validation nor test.
pub const NO_SIDE: &str = "none";

/// Returns the side with the name `name`: `training`, `validation` or `test`; `None` for any other name.
///
/// The usual abbreviations are accepted in upper and lower case: `train`; `val`, `valid` and `dev`; `eval`.
pub fn side_meant(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().as_str() {
        "training" | "train" => Some("training"),
        "validation" | "valid" | "val" | "dev" => Some("validation"),
        "test" | "eval" => Some("test"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synonyms_mean_one_side_and_other_names_none() {
        for name in ["training", "train", "Train"] {
            assert_eq!(side_meant(name), Some("training"), "{name}");
        }
        for name in ["validation", "valid", "val", "dev"] {
            assert_eq!(side_meant(name), Some("validation"), "{name}");
        }
        for name in ["test", "eval", "TEST"] {
            assert_eq!(side_meant(name), Some("test"), "{name}");
        }
        for name in ["none", "", "fold1", "testing ground"] {
            assert_eq!(side_meant(name), None, "{name}");
        }
    }
}
