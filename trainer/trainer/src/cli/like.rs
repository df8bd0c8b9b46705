//! `--like NAME`: uses the shipped configuration of a recipe's document, overridden by the user's own settings.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use wavemill_schemas::config::{Config, LayeredConfig, ShippedConfig};
use wavemill_schemas::settings;
use wavemill_terminal::exit::UsageError;

use crate::dataset::Dataset;

/// Value of `--like` that lists the names of the shipped configurations.
const LIST: &str = "list";

/// The option `--like`, which selects a document's configuration as a base.
#[derive(Clone, Debug, Args)]
pub(crate) struct LikeArgs {
    /// Start from the configuration of a recipe's document, such as gtzan-segments; --config and flags override it;
    /// `list` shows all names, --print-config the values and their sources
    #[arg(long, value_name = "NAME")]
    like: Option<String>,
}

impl LikeArgs {
    /// Returns one line for each shipped configuration if `--like list` was given, else `None`.
    pub(crate) fn listing(&self) -> Option<String> {
        (self.like.as_deref() == Some(LIST)).then(ShippedConfig::listing)
    }

    /// Reads the configuration selected by `--like`, overridden by `file` and then by `sets`.
    ///
    /// # Errors
    /// The name in `--like` is unknown, the file cannot be read, or a key or value is invalid.
    pub(crate) fn read(&self, file: Option<&Path>, sets: &[String]) -> Result<LayeredConfig> {
        let source = file.map_or("defaults".to_owned(), |path| path.display().to_string());
        let text = match file {
            Some(path) => settings::read(path)
                .map_err(|e| UsageError(format!("cannot read {source}: {e}")))?,
            None => String::new(),
        };
        Ok(Config::layered(self.shipped()?, &text, &source, sets)?)
    }

    /// Formats `config` as TOML, and marks the values that come from the configuration selected by `--like`.
    ///
    /// # Errors
    /// The name in `--like` is unknown.
    pub(crate) fn printed(&self, config: &Config) -> Result<String> {
        Ok(match self.shipped()? {
            Some(shipped) => shipped.marked(config)?,
            None => toml::to_string(config)?,
        })
    }

    /// Returns notes for the user: settings that override `--like`, or else the `--like` name for this store's recipe.
    pub(crate) fn notes(
        &self,
        layered: &LayeredConfig,
        file: Option<&Path>,
        data: &Dataset,
    ) -> Vec<String> {
        if self.like.is_some() || file.is_some() {
            return layered.replaced.clone();
        }

        let recipe = &data.store().manifest().recipe.name;
        let Some(shipped) = ShippedConfig::for_recipe(recipe) else {
            return Vec::new();
        };

        vec![format!(
            "optimiser, schedule and epochs are the defaults, which are those of fma-large: use --like {} for those of \
             {}",
            shipped.name, shipped.document
        )]
    }

    fn shipped(&self) -> Result<Option<&'static ShippedConfig>> {
        Ok(self.like.as_deref().map(ShippedConfig::find).transpose()?)
    }
}
