//! Parses a text to a [`Recipe`], strictly, with error messages for people who write recipes by hand.

use std::io;
use std::path::Path;

use serde::de::DeserializeOwned;
use toml_edit::{Document, Item};
use wavemill_options::{Fault, Op, did_you_mean};

use super::place::{self, Place};
use super::{Recipe, SHIPPED, edit, validate};
use crate::exit::PlainError;
use crate::settings;
use crate::wording::{explain, one_line};

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
    /// An error that lists the shipped recipes for an unknown name, or if the file cannot be read.
    pub fn find(name_or_file: &str) -> Result<Self, PlainError> {
        Self::find_among("recipe", &SHIPPED, name_or_file)
    }

    /// Reads a file of a `kind` like [`Source::find`]. `shipped` contains the names and texts of the shipped files.
    pub(crate) fn find_among(
        kind: &str,
        shipped: &[(&str, &str)],
        name_or_file: &str,
    ) -> Result<Self, PlainError> {
        let path = Path::new(name_or_file);
        // A shipped name takes precedence over a file of the same name, which can be given as ./NAME.
        let text = match shipped.iter().find(|(name, _)| *name == name_or_file) {
            Some((_, text)) => Ok((*text).to_owned()),
            None => settings::read_file(path),
        };

        let text = text.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                let shipped: Vec<&str> = shipped.iter().map(|(name, _)| *name).collect();
                PlainError::usage(format!(
                    "`{name_or_file}` is neither a shipped {kind} nor a file{}",
                    did_you_mean(name_or_file, &shipped, &format!("shipped {kind}s"))
                ))
            }
            _ => {
                let message = format!(
                    "{kind} {}: not a TOML file that can be read",
                    path.display()
                );
                PlainError::usage(message).caused_by(source)
            }
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
    /// The first error of the file, or else of the sets, with its line and key.
    pub fn parse(&self, sets: &[String]) -> Result<(Recipe, String), PlainError> {
        let (document, recipe) = self.read()?;
        let root = document.as_item();

        // Keep the recipe after each `--set`, so that a fault can be attributed to the option that introduced it.
        let mut edited = document.clone().into_mut();
        let mut history = vec![recipe];
        for flag in sets {
            let recipe = edit::set(&mut edited, flag).and_then(|text| reparse(&text));
            history.push(recipe.map_err(|fault| invalid(&Place::Flag(flag.clone()), &fault))?);
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
    /// An error that names the line of wrong syntax, or of a wrong key or type.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<(Document<&str>, T), PlainError> {
        let document = Document::parse(self.text.as_str()).map_err(|error| {
            let place = self.line(error.span().map_or(0, |span| span.start));
            PlainError::usage(format!("{place}: {}", one_line(error.message())))
        })?;

        let root = document.as_item();
        let value = deserialise(&self.text, root).map_err(|fault| {
            let key = place::shown(root, &fault.key);
            invalid(&self.line(fault.offset), &Fault::new(key, fault.problem))
        })?;
        Ok((document, value))
    }

    /// Returns the error for an invalid value, with the line of the value's key.
    pub(crate) fn invalid(&self, root: &Item, fault: Fault) -> PlainError {
        let place = self.line(place::offset_of(root, &fault.key));
        let key = place::shown(root, &fault.key);
        invalid(&place, &Fault { key, ..fault })
    }

    /// Reports the first impossible value by its line in the file, or else the first one that a `--set` introduced.
    fn check(
        &self,
        history: &[Recipe],
        sets: &[String],
        root: &Item,
        edited: &Item,
    ) -> Result<(), PlainError> {
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
        let place = match origin {
            Origin::File(offset) => self.line(offset),
            Origin::Set(index) => Place::Flag(sets[index].clone()),
        };
        // Look up the key in the edited document, because a `--set` may have added it.
        let key = place::shown(edited, &fault.key);
        Err(invalid(&place, &Fault::new(key, &fault.problem)))
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
    pub fn load(name_or_file: &str, sets: &[String]) -> Result<Self, PlainError> {
        Source::find(name_or_file)?
            .parse(sets)
            .map(|(recipe, _)| recipe)
    }

    /// Parses a recipe; error messages refer to its file as `origin`.
    pub fn parse(text: &str, origin: &str, sets: &[String]) -> Result<Self, PlainError> {
        let source = Source {
            origin: origin.to_owned(),
            text: text.to_owned(),
        };
        source.parse(sets).map(|(recipe, _)| recipe)
    }
}

/// Creates the error for an unknown key, a wrong type or an impossible value. The key has dots between its parts and
/// elements by name: `features.log_mel.n_mels`.
fn invalid(place: &Place, fault: &Fault) -> PlainError {
    PlainError::usage(format!("{place}: {fault}"))
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

        let op = op_of(root, &key);
        TypeFault {
            offset: span.start,
            key,
            problem: explain(error.message(), |key| op.is_none_or(|op| op.has_key(key))),
        }
    })
}

/// Returns the operation of the feature that has `key`; `None` for a key of anything else.
fn op_of(root: &Item, key: &str) -> Option<Op> {
    let steps: Vec<&str> = key.split('.').collect();
    let ["features", index, _] = steps[..] else {
        return None;
    };
    let feature = root.get("features")?.get(index.parse::<usize>().ok()?)?;
    let name = feature.get("op")?.as_str()?;
    Op::ALL.into_iter().find(|op| op.name() == name)
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
