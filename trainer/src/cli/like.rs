//! `--like NAME`: starts from the configuration of a recipe's document, which the user's own settings override.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use wavemill_schemas::config::{Config, LayeredConfig, ShippedConfig};
use wavemill_schemas::settings;
use wavemill_terminal::exit::UsageError;

use crate::dataset::Dataset;

/// Name that lists the available configurations.
const LIST: &str = "list";

/// Option for a document's configuration as a base.
#[derive(Clone, Debug, Args)]
pub(crate) struct LikeArgs {
    /// Start from the configuration of a recipe's document, such as gtzan-segments; --config and flags override it;
    /// `list` shows all names, --print-config the values and their sources
    #[arg(long, value_name = "NAME")]
    like: Option<String>,
}

impl LikeArgs {
    /// Returns a line for each available name, if `--like list` was given.
    pub(crate) fn listing(&self) -> Option<String> {
        (self.like.as_deref() == Some(LIST)).then(ShippedConfig::listing)
    }

    /// Returns the name as given.
    pub(crate) fn name(&self) -> Option<&str> {
        self.like.as_deref()
    }

    /// Reads the shipped configuration, overridden by the file and then by `sets`.
    ///
    /// # Errors
    /// The configuration is unknown, the file cannot be read, or a key or value is invalid.
    pub(crate) fn read(&self, file: Option<&Path>, sets: &[String]) -> Result<LayeredConfig> {
        let source = file.map_or("defaults".to_owned(), |path| path.display().to_string());
        let text = match file {
            Some(path) => settings::read(path)
                .map_err(|e| UsageError(format!("cannot read {source}: {e}")))?,
            None => String::new(),
        };
        Ok(Config::layered(self.shipped()?, &text, &source, sets)?)
    }

    /// Formats `config` as TOML, with the source of each value that is still the document's.
    ///
    /// # Errors
    /// The configuration is unknown.
    pub(crate) fn printed(&self, config: &Config) -> Result<String> {
        Ok(match self.shipped()? {
            Some(shipped) => shipped.marked(config)?,
            None => toml::to_string(config)?,
        })
    }

    /// Returns notes for the user: values that override `--like`, or the name of a configuration for this recipe.
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
            "optimiser, schedule and epochs are the defaults (document 000): use --like {} for those of the document \
             that this store's recipe follows",
            shipped.name
        )]
    }

    fn shipped(&self) -> Result<Option<&'static ShippedConfig>> {
        Ok(self.like.as_deref().map(ShippedConfig::find).transpose()?)
    }
}
