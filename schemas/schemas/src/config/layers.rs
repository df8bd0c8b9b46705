//! Configurations in layers: a shipped configuration, a file that overrides it, and `--set` overriding both.

use toml::{Table, Value};
use wavemill_options::did_you_mean;

use super::{Config, ShippedConfig, apply_set, error_at};
use crate::exit::PlainError;
use crate::wording::{UNKNOWN_KEY, explain, quoted};

/// A configuration, and its differences from the shipped configuration on which it is based.
#[derive(Debug)]
pub struct LayeredConfig {
    /// The configuration merged from all layers.
    pub config: Config,
    /// One sentence for each value of the shipped configuration that the file or a `--set` has overridden.
    pub replaced: Vec<String>,
}

impl Config {
    /// Merges the shipped configuration `like`, the TOML `text` and `sets` (`key.path=value`), in ascending precedence,
    /// and checks the result.
    ///
    /// A `[schedule]` section in the file replaces the shipped section as a whole: otherwise the shipped schedules
    /// would be multiplied with those of the file.
    ///
    /// # Errors
    /// An error that names the file or the `--set` option, the key and the allowed values.
    pub fn layered(
        like: Option<&ShippedConfig>,
        text: &str,
        place: &str,
        sets: &[String],
    ) -> Result<LayeredConfig, PlainError> {
        // The file is parsed separately first, so that an error names the file's line.
        let _: Self = read(text, place)?;
        let base = like
            .map(|shipped| table(shipped.text, shipped.name))
            .transpose()?
            .unwrap_or_default();
        // `base` is kept unchanged because `replaced` compares the result with it.
        let mut document = base.clone();
        put_over(&mut document, table(text, place)?);
        let mut config: Self = typed(&document, place)?;

        // Apply the `--set` options one by one, so that an error names the invalid option.
        for set in sets {
            let place = format!("--set {set}");
            apply_set(&mut document, set).map_err(|message| error_at(&place, message))?;
            config = typed(&document, &place)?;
        }

        // Check the values after the last set, which may correct an invalid value of the file or of an earlier set.
        config.check()?;
        // As in torch, an infinite maximum clips nothing. JSON, and so a checkpoint, has no infinity.
        config.optimizer.clip_norm = config.optimizer.clip_norm.filter(|max| max.is_finite());
        let replaced = like
            .map(|shipped| replaced(shipped, &base, &config))
            .transpose()?
            .unwrap_or_default();
        Ok(LayeredConfig { config, replaced })
    }
}

fn read(text: &str, place: &str) -> Result<Config, PlainError> {
    toml::from_str(text).map_err(|e| {
        // The parser reports a byte offset; users need a line number.
        let line = e
            .span()
            .map(|span| text[..span.start].matches('\n').count() + 1);
        let place = line.map_or(place.to_owned(), |line| format!("{place}, line {line}"));
        error_at(&place, explained(&e))
    })
}

fn table(text: &str, place: &str) -> Result<Table, PlainError> {
    text.parse().map_err(|e| error_at(place, explained(&e)))
}

fn typed(document: &Table, place: &str) -> Result<Config, PlainError> {
    document
        .clone()
        .try_into()
        .map_err(|e| error_at(place, explained(&e)))
}

/// Translates an error of serde in a configuration. For an unknown key that another section has, suggests that key: `lr`
/// is `optimizer.lr`.
fn explained(error: &toml::de::Error) -> String {
    let message = error.message();
    let quoted = quoted(message);
    let Some((wrong, known)) = quoted
        .split_first()
        .filter(|_| message.starts_with(UNKNOWN_KEY))
    else {
        return explain(message, |_| true);
    };

    // The name in torch and Keras.
    let name = wrong.replace("learning_rate", "lr");
    let elsewhere = all_keys()
        .into_iter()
        .find(|key| key.rsplit('.').next() == Some(&name));
    let remedy = match elsewhere {
        Some(key) => format!(" (did you mean `{key}`?)"),
        None => did_you_mean(wrong, known, "allowed"),
    };
    format!("unknown key `{wrong}`{remedy}")
}

/// Returns the keys of all sections, such as `optimizer.lr`, also those without a default.
fn all_keys() -> Vec<String> {
    // The error for an unknown key lists the known ones.
    let known = |section: &str| -> Vec<String> {
        let error = toml::from_str::<Config>(&format!("{section}\nunknown = 0")).err();
        let message = error.as_ref().map_or("", |error| error.message());
        let known = quoted(message).into_iter().skip(1);
        known.map(str::to_owned).collect()
    };

    let mut keys = Vec::new();
    for section in known("") {
        let names = known(&format!("[{section}]"));
        keys.extend(names.iter().map(|name| format!("{section}.{name}")));
    }
    keys
}

/// Merges two configurations section by section. If both have a section, its values are combined, and the values of
/// `upper` take precedence.
fn put_over(lower: &mut Table, upper: Table) {
    for (key, value) in upper {
        match (lower.get_mut(&key), value) {
            // `[schedule]` is not merged but replaced as a whole, by the other arm of this match: see `layered`.
            (Some(Value::Table(lower)), Value::Table(upper)) if key != "schedule" => {
                lower.extend(upper)
            }
            (_, value) => {
                lower.insert(key, value);
            }
        }
    }
}

/// Returns a sentence for each key of the shipped file whose value in `config` differs.
fn replaced(
    shipped: &ShippedConfig,
    base: &Table,
    config: &Config,
) -> Result<Vec<String>, PlainError> {
    let theirs = as_table(&read(shipped.text, shipped.name)?, shipped.name)?;
    let ours = as_table(config, shipped.name)?;

    let mut sentences = Vec::new();
    // Keys that the shipped file does not contain are defaults, so changing them overrides nothing.
    for (key, _) in dotted(base) {
        // Compare values as parsed, with their types: 1 and 1.0 are equal.
        let (Some(theirs), ours) = (at(&theirs, &key), at(&ours, &key)) else {
            continue;
        };
        match ours {
            Some(ours) if ours == theirs => {}
            Some(ours) => sentences.push(format!(
                "{key} = {ours}, where {} has {theirs}",
                shipped.name
            )),
            None => sentences.push(format!("no {key}, where {} has {theirs}", shipped.name)),
        }
    }
    Ok(sentences)
}

/// Converts a configuration to a table with all values, including defaults.
fn as_table(config: &Config, place: &str) -> Result<Table, PlainError> {
    Table::try_from(config).map_err(|e| error_at(place, e))
}

/// Returns the values of a table and of its sections by dotted key (`section.key`), in the order of the table.
pub fn dotted(table: &Table) -> Vec<(String, &Value)> {
    let mut values = Vec::new();
    for (key, value) in table {
        match value {
            Value::Table(inner) => {
                let inner = dotted(inner).into_iter();
                values.extend(inner.map(|(below, value)| (format!("{key}.{below}"), value)));
            }
            _ => values.push((key.clone(), value)),
        }
    }
    values
}

fn at<'a>(table: &'a Table, path: &str) -> Option<&'a Value> {
    match path.split_once('.') {
        Some((section, rest)) => at(table.get(section)?.as_table()?, rest),
        None => table.get(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layered(name: &str, text: &str, sets: &[&str]) -> LayeredConfig {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        Config::layered(
            Some(ShippedConfig::find(name).expect("shipped")),
            text,
            "mine.toml",
            &sets,
        )
        .expect("valid")
    }

    #[test]
    fn set_overrides_file_and_file_overrides_shipped_configuration() {
        let text = "[optimizer]\nlr = 0.5\n[train]\nepochs = 3";
        let LayeredConfig { config, replaced } = layered(
            "gtzan-segments",
            text,
            &["train.epochs=2", "loss.label_smoothing=0"],
        );

        assert_eq!((config.optimizer.lr, config.train.epochs), (0.5, 2));
        assert_eq!(
            (config.model.name.as_str(), config.data.batch_size),
            ("genregenie-cnn", 32),
            "the shipped ones"
        );

        let told = [
            "optimizer.lr = 0.5, where gtzan-segments has 0.001",
            "train.epochs = 2, where gtzan-segments has 40",
        ];
        assert_eq!(replaced, told, "0 is 0.0");
    }

    #[test]
    fn a_files_schedule_stands_alone() {
        let LayeredConfig { config, replaced } =
            layered("fma-large", "[schedule.cosine]\nwarmup_steps = 5", &[]);

        assert!(
            config.schedule.step.is_none()
                && config.schedule.plateau.is_none()
                && config.schedule.cosine.is_some()
        );
        assert!(
            replaced.contains(&"no schedule.step.gamma, where fma-large has 0.7".to_owned()),
            "{replaced:?}"
        );
    }

    #[test]
    fn errors_state_their_location() {
        let shipped = ShippedConfig::find("fma-small").expect("shipped");
        let set = ["train.epoch=2".to_owned()];
        for (text, sets, message) in [
            (
                "seed = 1\n[train]\nepoch = 2",
                &[][..],
                "mine.toml, line 3: unknown key `epoch` (did you mean `epochs`?)",
            ),
            (
                "",
                &set,
                "--set train.epoch=2: unknown key `epoch` (did you mean `epochs`?)",
            ),
        ] {
            let error = Config::layered(Some(shipped), text, "mine.toml", sets);
            let error = error.expect_err("wrong").to_string();
            assert_eq!(error, message);
        }
    }
}
