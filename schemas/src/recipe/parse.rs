//! From text to a [`Recipe`], strictly, with errors for people who write recipes by hand.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml_edit::{Document, Item};
use wavemill_options::{Fault, did_you_mean};

use super::place::{self, Place};
use super::wording::{explain, one_line};
use super::{Recipe, edit, shipped, validate};
use crate::settings;

/// Why there is no recipe. One line each.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// Neither a shipped name nor a file.
    #[error(
        "no recipe and no file is called `{name}`{}; shipped recipes: {}",
        did_you_mean(name, &shipped::names()),
        shipped::names().join(", ")
    )]
    Unknown {
        /// As given.
        name: String,
    },
    /// The file is there, but cannot be read.
    #[error("recipe {}: cannot read it", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not TOML.
    #[error("{place}: {problem}")]
    Syntax {
        /// Where.
        place: Place,
        /// What TOML wants there.
        problem: String,
    },
    /// An unknown key, a wrong type or an impossible value.
    #[error("{place}: {key}: {problem}")]
    Invalid {
        /// Where.
        place: Place,
        /// With dots, elements by name: `features.log_mel.n_mels`.
        key: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
}

/// The text of a recipe and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Path of the file or name of the shipped recipe, for errors.
    pub origin: String,
    /// TOML.
    pub text: String,
}

impl Source {
    /// The shipped recipe of that name, else the file at that path.
    ///
    /// # Errors
    /// [`RecipeError::Unknown`], [`RecipeError::Read`].
    pub fn find(name_or_file: &str) -> Result<Self, RecipeError> {
        // A shipped name goes before a file of that name, which can be given as ./NAME.
        if let Some(text) = shipped::text(name_or_file) {
            return Ok(Self {
                origin: name_or_file.to_owned(),
                text: text.to_owned(),
            });
        }

        let path = Path::new(name_or_file);
        match settings::read_file(path) {
            Ok(text) => Ok(Self {
                origin: name_or_file.to_owned(),
                text,
            }),
            Err(source) if source.kind() == io::ErrorKind::NotFound => Err(RecipeError::Unknown {
                name: name_or_file.to_owned(),
            }),
            Err(source) => Err(RecipeError::Read {
                path: path.to_owned(),
                source,
            }),
        }
    }

    /// The recipe, and its text with `sets` applied and comments kept.
    ///
    /// A set is `key=value`: see [`Recipe::load`].
    ///
    /// # Errors
    /// [`RecipeError::Syntax`], [`RecipeError::Invalid`]: the first in the file, else the first of the sets.
    pub fn parse(&self, sets: &[String]) -> Result<(Recipe, String), RecipeError> {
        let document =
            Document::parse(self.text.as_str()).map_err(|error| RecipeError::Syntax {
                place: self.line(error.span().map_or(0, |span| span.start)),
                problem: one_line(error.message()),
            })?;
        let root = document.as_item();
        let recipe = deserialise(&self.text, root).map_err(|fault| RecipeError::Invalid {
            place: self.line(fault.offset),
            key: place::shown(root, &fault.key),
            problem: fault.problem,
        })?;

        // One recipe after each set: what is impossible is blamed on the set that brought it in.
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
        let recipe = history.pop().expect("the file's own recipe is the first");
        Ok((recipe, edited.to_string()))
    }

    /// The first impossible value by line of the file, else the first that a set brought in.
    fn check(
        &self,
        history: &[Recipe],
        sets: &[String],
        root: &Item,
        edited: &Item,
    ) -> Result<(), RecipeError> {
        // A set may mend a fault of the file: what counts is what is wrong after the last one.
        let faults: Vec<Vec<Fault>> = history.iter().map(validate::faults).collect();
        let Some(now) = faults.last() else {
            return Ok(());
        };

        // Faults of the file come first, by their place in it, and then those of the sets, by the order of these.
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
            // By the edited document: a set may have added the key.
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
    /// The shipped recipe of that name, else the file at that path, with `sets` applied in order.
    ///
    /// A set is `key=value`: `split.seed=7`, `features.log_mel.n_mels=96` (elements by their `name`, cleaning steps by
    /// their `step`). The value is TOML, else text as it stands; `none` removes a key that may be absent.
    ///
    /// # Errors
    /// As [`Source::find`] and [`Source::parse`].
    pub fn load(name_or_file: &str, sets: &[String]) -> Result<Self, RecipeError> {
        Source::find(name_or_file)?
            .parse(sets)
            .map(|(recipe, _)| recipe)
    }

    /// A recipe from its text; `origin` stands in errors for the file.
    ///
    /// # Errors
    /// As [`Source::parse`].
    pub fn parse(text: &str, origin: &str, sets: &[String]) -> Result<Self, RecipeError> {
        let source = Source {
            origin: origin.to_owned(),
            text: text.to_owned(),
        };
        source.parse(sets).map(|(recipe, _)| recipe)
    }
}

/// What brought a fault in. Those of the file are less than those of any set.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    /// The file, at this byte.
    File(usize),
    /// The set of this index.
    Set(usize),
}

/// What serde objects to.
pub(crate) struct TypeFault {
    /// The byte of the text at which it stands.
    pub offset: usize,
    /// With dots, elements by number.
    pub key: String,
    /// In plain words.
    pub problem: String,
}

/// `root` is the same text once more: serde knows types and no keys, the document knows where each key stands.
pub(crate) fn deserialise<T: DeserializeOwned>(text: &str, root: &Item) -> Result<T, TypeFault> {
    toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();

        // Faults of the whole file have an empty span.
        let mut key = if span.is_empty() {
            String::new()
        } else {
            place::key_at(root, span.start)
        };

        // Of a missing key serde gives the span of the section that lacks it.
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

/// The recipe in an edited text, its faults called by names and not yet placed.
fn reparse(text: &str) -> Result<Recipe, Fault> {
    // The author has never seen this text: its lines would mean nothing to them.
    let document =
        Document::parse(text).map_err(|error| Fault::new("", one_line(error.message())))?;
    let root = document.as_item();
    deserialise(text, root)
        .map_err(|error| Fault::new(place::shown(root, &error.key), error.problem))
}
