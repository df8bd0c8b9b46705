//! Parses a text to a [`Recipe`], strictly, with error messages for people who write recipes by hand.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml_edit::{Document, Item};
use wavemill_options::{Fault, did_you_mean};

use super::place::{self, Place};
use super::wording::{explain, one_line};
use super::{Recipe, SHIPPED, edit, validate};
use crate::settings;

/// The error type for recipes and for files of experiments. Each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// The name is neither that of a shipped recipe or experiment nor that of a file.
    #[error(
        "`{name}` is neither a shipped {kind} nor a file{}; shipped {kind}s: {}",
        did_you_mean(name, shipped),
        shipped.join(", ")
    )]
    Unknown {
        /// Kind of the file: `recipe` or `experiment`.
        kind: &'static str,
        /// Name of the recipe or experiment, as given.
        name: String,
        /// Names of the shipped recipes or experiments.
        shipped: Vec<&'static str>,
    },
    /// The file exists, but cannot be read.
    #[error("{kind} {}: cannot read the file", path.display())]
    Read {
        /// Kind of the file: `recipe` or `experiment`.
        kind: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The error of the file system.
        source: io::Error,
    },
    /// The file is not valid TOML.
    #[error("{place}: {problem}")]
    Syntax {
        /// Position of the error.
        place: Place,
        /// Message of the TOML parser.
        problem: String,
    },
    /// The file contains an unknown key, a wrong type or an impossible value.
    #[error("{place}: {key}: {problem}")]
    Invalid {
        /// Position of the error.
        place: Place,
        /// Key of the invalid value, with dots between its parts and elements by name: `features.log_mel.n_mels`.
        key: String,
        /// Description of the error and of the allowed values.
        problem: String,
    },
}

/// The text of a recipe or an experiment, and the text's origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Path of the file or name of the shipped recipe, for error messages.
    pub origin: String,
    /// Text of the recipe in TOML.
    pub text: String,
}

impl Source {
    /// Reads the text of the shipped recipe of that name, or else of the file at that path.
    ///
    /// # Errors
    /// [`RecipeError::Unknown`] for an unknown name; [`RecipeError::Read`] if the file cannot be read.
    pub fn find(name_or_file: &str) -> Result<Self, RecipeError> {
        Self::find_among("recipe", &SHIPPED, name_or_file)
    }

    /// Reads a file of a `kind` like [`Source::find`]. `shipped` contains the names and texts of the shipped files.
    pub(crate) fn find_among(
        kind: &'static str,
        shipped: &[(&'static str, &str)],
        name_or_file: &str,
    ) -> Result<Self, RecipeError> {
        let path = Path::new(name_or_file);
        // A shipped name takes precedence over a file of the same name, which can be given as ./NAME.
        let text = match shipped.iter().find(|(name, _)| *name == name_or_file) {
            Some((_, text)) => Ok((*text).to_owned()),
            None => settings::read_file(path),
        };

        let text = text.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => RecipeError::Unknown {
                kind,
                name: name_or_file.to_owned(),
                shipped: shipped.iter().map(|(name, _)| *name).collect(),
            },
            _ => RecipeError::Read {
                kind,
                path: path.to_owned(),
                source,
            },
        })?;
        Ok(Self {
            origin: name_or_file.to_owned(),
            text,
        })
    }

    /// Parses the recipe with `sets` applied. Returns it together with the edited text, which keeps the comments.
    ///
    /// Parses the recipe after applying `sets`, overrides of the form `key=value`: see [`Recipe::load`].
    ///
    /// # Errors
    /// [`RecipeError::Syntax`], [`RecipeError::Invalid`]: the first error of the file, or else of the sets.
    pub fn parse(&self, sets: &[String]) -> Result<(Recipe, String), RecipeError> {
        let (document, recipe) = self.read()?;
        let root = document.as_item();

        // Keep the recipe after each `--set`, so that a fault can be attributed to the option that introduced it.
        let mut edited = document.clone().into_mut();
        let mut history = vec![recipe];
        for flag in sets {
            let recipe = edit::set(&mut edited, flag).and_then(|text| reparse(&text));
            history.push(recipe.map_err(|fault| RecipeError::Invalid {
                place: Place::Flag(flag.clone()),
                key: fault.key,
                problem: fault.problem,
            })?);
        }

        self.check(&history, sets, root, edited.as_item())?;
        let recipe = history
            .pop()
            .expect("the history contains at least the file's own recipe");
        Ok((recipe, edited.to_string()))
    }

    /// Deserializes the recipe's text. Also returns the text as a document, which maps keys to lines.
    ///
    /// # Errors
    /// [`RecipeError::Syntax`]; [`RecipeError::Invalid`] for a wrong key or type.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<(Document<&str>, T), RecipeError> {
        let document =
            Document::parse(self.text.as_str()).map_err(|error| RecipeError::Syntax {
                place: self.line(error.span().map_or(0, |span| span.start)),
                problem: one_line(error.message()),
            })?;

        let root = document.as_item();
        let value = deserialise(&self.text, root).map_err(|fault| RecipeError::Invalid {
            place: self.line(fault.offset),
            key: place::shown(root, &fault.key),
            problem: fault.problem,
        })?;
        Ok((document, value))
    }

    /// Returns the error for an invalid value, with the line of the value's key.
    pub(crate) fn invalid(&self, root: &Item, fault: Fault) -> RecipeError {
        RecipeError::Invalid {
            place: self.line(place::offset_of(root, &fault.key)),
            key: place::shown(root, &fault.key),
            problem: fault.problem,
        }
    }

    /// Reports the first impossible value by its line in the file, or else the first one that a `--set` introduced.
    fn check(
        &self,
        history: &[Recipe],
        sets: &[String],
        root: &Item,
        edited: &Item,
    ) -> Result<(), RecipeError> {
        // A `--set` may correct a fault of the file, so only the faults after the last `--set` count.
        let faults: Vec<Vec<Fault>> = history.iter().map(validate::faults).collect();
        let Some(now) = faults.last() else {
            return Ok(());
        };

        // Faults of the file precede those of the sets. They are ordered by position in the file and by order of the
        // sets.
        let mut first: Option<(Origin, &Fault)> = None;
        for fault in now {
            let origin = match faults.iter().rposition(|then| !then.contains(fault)) {
                Some(set) => Origin::Set(set),
                None => Origin::File(place::offset_of(root, &fault.key)),
            };
            if first.is_none_or(|(earliest, _)| origin < earliest) {
                first = Some((origin, fault));
            }
        }

        let Some((origin, fault)) = first else {
            return Ok(());
        };
        Err(RecipeError::Invalid {
            place: match origin {
                Origin::File(offset) => self.line(offset),
                Origin::Set(index) => Place::Flag(sets[index].clone()),
            },
            // Look up the key in the edited document, because a `--set` may have added it.
            key: place::shown(edited, &fault.key),
            problem: fault.problem.clone(),
        })
    }

    fn line(&self, offset: usize) -> Place {
        Place::Line {
            origin: self.origin.clone(),
            line: place::line_of(&self.text, offset),
        }
    }
}

impl Recipe {
    /// Loads the shipped recipe of that name, or else the file at that path, and applies `sets` in order.
    ///
    /// A set is `key=value`: `split.seed=7`, `features.log_mel.n_mels=96` (elements by their `name`, cleaning steps by
    /// their `step`). The value is TOML, or text if it is not valid TOML; `none` removes an optional key.
    ///
    /// # Errors
    /// The errors of [`Source::find`] and [`Source::parse`].
    pub fn load(name_or_file: &str, sets: &[String]) -> Result<Self, RecipeError> {
        Source::find(name_or_file)?
            .parse(sets)
            .map(|(recipe, _)| recipe)
    }

    /// Parses a recipe; error messages refer to its file as `origin`.
    ///
    /// # Errors
    /// The errors of [`Source::parse`].
    pub fn parse(text: &str, origin: &str, sets: &[String]) -> Result<Self, RecipeError> {
        let source = Source {
            origin: origin.to_owned(),
            text: text.to_owned(),
        };
        source.parse(sets).map(|(recipe, _)| recipe)
    }
}

/// Origin of a fault in a recipe. Faults of the file compare as less than those of any `--set`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    /// The fault is in the file, at this byte offset.
    File(usize),
    /// The fault was introduced by the `--set` with this index.
    Set(usize),
}

/// A type error reported by serde.
struct TypeFault {
    /// Byte offset of the error in the text.
    offset: usize,
    /// Key of the wrong value, with dots between its parts and elements by number.
    key: String,
    /// Description of the type error in plain words.
    problem: String,
}

/// Deserializes `text`. `root` is the same text, parsed: serde reports byte ranges, and the document maps them to keys.
fn deserialise<T: DeserializeOwned>(text: &str, root: &Item) -> Result<T, TypeFault> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();

        // Errors about the whole file have an empty span of bytes.
        let mut key = if span.is_empty() {
            String::new()
        } else {
            place::key_at(root, span.start)
        };

        // For a missing key, serde reports the span of the section in which it is missing.
        let missing = error
            .message()
            .strip_prefix("missing field `")
            .and_then(|rest| rest.strip_suffix('`'));
        if let Some(name) = missing {
            key = place::joined(&key, name);
        }

        TypeFault {
            offset: span.start,
            key,
            problem: explain(error.message()),
        }
    })
}

/// Parses a recipe's text after a `--set`. Faults use element names in their keys and have no position.
fn reparse(text: &str) -> Result<Recipe, Fault> {
    // Line numbers of the edited text would be meaningless to the user, who has never seen this text.
    let document =
        Document::parse(text).map_err(|error| Fault::new("", one_line(error.message())))?;
    let root = document.as_item();
    deserialise(text, root)
        .map_err(|error| Fault::new(place::shown(root, &error.key), error.problem))
}
