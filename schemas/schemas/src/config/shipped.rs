//! The training configurations of the documents, compiled into the program: `fit --like NAME`. In the files, a comment
//! marks the origin of every value.

use wavemill_options::did_you_mean;

use super::{Config, error_at};
use crate::exit::PlainError;

/// A shipped configuration.
#[derive(Debug)]
pub struct ShippedConfig {
    /// Name of the configuration, the same as that of the document's recipe.
    pub name: &'static str,
    /// Name of the document that the configuration follows.
    pub document: &'static str,
    /// Description of the configuration, in one line.
    pub about: &'static str,
    /// TOML text of the configuration; the comment after each value states the value's origin.
    pub text: &'static str,
}

/// All shipped configurations, in the order of their documents.
pub const SHIPPED: [ShippedConfig; 5] = [
    ShippedConfig {
        name: "fma-large",
        document: "Music Genre Classification (UAB, 2025)",
        about: "a CNN and a GRU over log-mel, two schedules, augmentation",
        text: include_str!("../../configs/fma-large.toml"),
    },
    ShippedConfig {
        name: "gtzan-segments",
        document: "GenreGenie",
        about: "CNN over 3-s segments, Adam with a constant learning rate",
        text: include_str!("../../configs/gtzan-segments.toml"),
    },
    ShippedConfig {
        name: "fma-small",
        document: "Music Genre Recognition (UAB, 2023)",
        about: "CRNN over 640 frames, Adam with a constant learning rate",
        text: include_str!("../../configs/fma-small.toml"),
    },
    ShippedConfig {
        name: "fma-windows",
        document: "Clasificación de género musical con Deep Learning",
        about: "CNN and bidirectional GRU in parallel, genre and sub-genre",
        text: include_str!("../../configs/fma-windows.toml"),
    },
    ShippedConfig {
        name: "gtzan-images",
        document: "Music Genre Classification in Pytorch",
        about: "ResNet-50 for ten epochs, best with pretrained weights (--init)",
        text: include_str!("../../configs/gtzan-images.toml"),
    },
];

/// Column at which the comment after a value starts.
const MARK_COLUMN: usize = 36;

impl ShippedConfig {
    /// Returns the configuration of that name.
    ///
    /// # Errors
    /// An error that lists all names.
    pub fn find(name: &str) -> Result<&'static Self, PlainError> {
        Self::for_recipe(name).ok_or_else(|| {
            let names: Vec<&str> = SHIPPED.iter().map(|shipped| shipped.name).collect();
            let remedy = did_you_mean(name, &names, "`--like list` describes them");
            let message = format!("no such configuration{remedy}");
            error_at(&format!("--like {name}"), message)
        })
    }

    /// Returns the configuration of the document that a recipe follows, if there is one.
    pub fn for_recipe(recipe: &str) -> Option<&'static Self> {
        SHIPPED.iter().find(|shipped| shipped.name == recipe)
    }

    /// Returns a table of all configurations, one line each.
    pub fn listing() -> String {
        let lines = SHIPPED.iter().map(|shipped| {
            format!(
                "{:<16}{}: {}\n",
                shipped.name, shipped.document, shipped.about
            )
        });
        lines.collect()
    }

    /// Returns `config` as TOML, with the origin comments of this configuration on all unchanged values.
    ///
    /// # Errors
    /// An error if the configuration cannot be written as TOML, which does not happen for a configuration
    /// that was parsed.
    pub fn marked(&self, config: &Config) -> Result<String, PlainError> {
        let own = Config::parse(self.text, self.name, &[])?;
        // Use the same serializer as for `config`, so that equal values give equal lines.
        let own = lines_by_key(&text_of(&own)?);
        // The origins of values are comments, which only exist in the original text.
        let marks = lines_by_key(self.text);

        let mut out = String::new();
        for (key, line) in lines_by_key(&text_of(config)?) {
            let is_own = own
                .iter()
                .any(|(other, theirs)| *other == key && *theirs == line);
            let mark = marks
                .iter()
                .find(|(other, _)| *other == key)
                .and_then(|(_, line)| mark_of(line));

            match mark.filter(|_| is_own) {
                Some(mark) => out += &format!("{line:<MARK_COLUMN$}# {mark}\n"),
                None => out += &format!("{line}\n"),
            }
        }
        Ok(out)
    }
}

fn text_of(config: &Config) -> Result<String, PlainError> {
    toml::to_string(config).map_err(|e| error_at("the configuration", e))
}

/// Splits a TOML text into (key, line) pairs. The key is a path such as `optimizer.lr`, and empty for lines that set no
/// value.
fn lines_by_key(text: &str) -> Vec<(String, String)> {
    let mut section = String::new();
    let mut lines = Vec::new();
    for line in text.lines() {
        let mut key = String::new();
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.split(']').next())
        {
            section = format!("{name}.");
        } else if let Some((name, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            key = format!("{}{name}", section);
        }
        lines.push((key, line.to_owned()));
    }
    lines
}

/// Returns the comment after a value.
fn mark_of(line: &str) -> Option<&str> {
    line.split_once(" # ").map(|(_, mark)| mark.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARKS: [&str; 3] = ["text", "repository", "our choice"];

    #[test]
    fn every_shipped_value_has_a_mark_and_the_whole_is_a_configuration() {
        for shipped in &SHIPPED {
            Config::parse(shipped.text, shipped.name, &[]).expect(shipped.name);

            let values: Vec<_> = lines_by_key(shipped.text)
                .into_iter()
                .filter(|(key, _)| !key.is_empty())
                .collect();
            assert!(values.len() > 10, "{}", shipped.name);

            for (key, line) in values {
                let mark = mark_of(&line).unwrap_or_default();
                assert!(
                    MARKS.iter().any(|known| mark.starts_with(known)),
                    "{}: {key} has the mark {mark:?}",
                    shipped.name
                );
            }
        }
    }

    #[test]
    fn a_recipe_that_follows_a_document_has_its_configuration() {
        for recipe in [
            "fma-large",
            "gtzan-segments",
            "fma-small",
            "fma-windows",
            "gtzan-images",
        ] {
            assert!(
                crate::recipe::Recipe::load(recipe, &[]).is_ok()
                    && ShippedConfig::for_recipe(recipe).is_some()
            );
        }

        for (name, remedy) in [
            ("fma-smal", " (did you mean `fma-small`?)"),
            (
                "vgg",
                "; `--like list` describes them: fma-large, gtzan-segments, fma-small, fma-windows, gtzan-images",
            ),
        ] {
            let error = ShippedConfig::find(name).expect_err("none of that name");
            let wanted = format!("--like {name}: no such configuration{remedy}");
            assert_eq!(error.to_string(), wanted);
        }
    }

    #[test]
    fn gtzans_users_do_not_get_the_schedule_of_fma_large() {
        fn like(name: &str) -> Config {
            let shipped = ShippedConfig::find(name).expect("shipped");
            Config::parse(shipped.text, name, &[]).expect("valid")
        }

        let gtzan = like("gtzan-segments");
        assert_eq!((gtzan.schedule.step, gtzan.schedule.plateau), (None, None));
        assert_eq!(like("fma-large").schedule, Config::default().schedule);
        assert_eq!(like("gtzan-images").train.epochs, 10);
    }

    #[test]
    fn marks_stay_with_the_values_that_are_still_the_documents() {
        let shipped = ShippedConfig::find("gtzan-segments").expect("shipped");
        let config =
            Config::parse(shipped.text, "", &["optimizer.lr=0.5".to_owned()]).expect("valid");
        let text = shipped.marked(&config).expect("TOML");

        assert_eq!(Config::parse(&text, "", &[]).expect("still TOML"), config);
        assert!(
            text.contains("channels = 3                        # text: colour"),
            "{text}"
        );
        assert!(
            text.contains("lr = 0.5\n")
                && text.contains("weight_decay = 0.0                  # our choice"),
            "{text}"
        );
    }
}
