//! The three splits of the data, and the names that data sets give them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::named_enum;

/// Name of the folder for rows that the rule assigns to neither training, validation nor test.
pub const NO_SPLIT: &str = "none";

named_enum! {
    /// A part of the data, in the order of a recipe's fractions. Where groups of different splits are merged, the first
    /// split takes precedence.
    ///
    /// An official split or a split column may also have other values, and stores keep those as folders. The split of a
    /// clip, a shard or a file is therefore a name, for which [`Split::named`] returns the split that it means, if any.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Split {
        /// Rows from which a model learns.
        Training = "training",
        /// Rows that determine when training stops.
        Validation = "validation",
        /// Rows on which a model is evaluated once.
        Test = "test",
    }
}

impl Split {
    /// Returns the split with a name that [`Self::name`] returns.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|split| split.name() == name)
    }

    /// Returns the split with the name `name` in a data set; `None` for a name that means none of the three.
    ///
    /// The usual abbreviations are accepted in upper and lower case: `train`; `val`, `valid` and `dev`; `eval`.
    pub fn meant(name: &str) -> Option<Self> {
        match name.to_ascii_lowercase().as_str() {
            "training" | "train" => Some(Self::Training),
            "validation" | "valid" | "val" | "dev" => Some(Self::Validation),
            "test" | "eval" => Some(Self::Test),
            _ => None,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn synonyms_mean_one_split_and_other_names_none() {
        for name in ["training", "train", "Train"] {
            assert_eq!(Split::meant(name), Some(Split::Training), "{name}");
        }
        for name in ["validation", "valid", "val", "dev"] {
            assert_eq!(Split::meant(name), Some(Split::Validation), "{name}");
        }
        for name in ["test", "eval", "TEST"] {
            assert_eq!(Split::meant(name), Some(Split::Test), "{name}");
        }
        for name in ["none", "", "fold1", "testing ground"] {
            assert_eq!(Split::meant(name), None, "{name}");
        }
    }
}
