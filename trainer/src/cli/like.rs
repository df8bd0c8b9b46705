//! `--like NAME`: the configuration of the document that a recipe follows, below a user's own.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use wavemill_schemas::config::{Config, LayeredConfig, ShippedConfig};
use wavemill_schemas::settings;

use super::exit::UsageError;
use crate::dataset::Dataset;

/// Asks for the names.
const LIST: &str = "list";

/// How a document trained, as a base.
#[derive(Clone, Debug, Args)]
pub(crate) struct LikeArgs {
    /// Begin with how a recipe's document trained, such as gtzan-segments; --config and flags win over it; `list` shows
    /// all, --print-config what one holds and where each value comes from
    #[arg(long, value_name = "NAME")]
    like: Option<String>,
}

impl LikeArgs {
    /// The names with a line each, where they are asked for.
    pub(crate) fn listing(&self) -> Option<String> {
        (self.like.as_deref() == Some(LIST)).then(ShippedConfig::listing)
    }

    /// As given.
    pub(crate) fn name(&self) -> Option<&str> {
        self.like.as_deref()
    }

    /// The shipped configuration, the file over it, `sets` over both.
    ///
    /// # Errors
    /// No such configuration; the file cannot be read, or a key or value is wrong.
    pub(crate) fn read(&self, file: Option<&Path>, sets: &[String]) -> Result<LayeredConfig> {
        let source = file.map_or("defaults".to_owned(), |path| path.display().to_string());
        let text = match file {
            Some(path) => settings::read(path)
                .map_err(|e| UsageError(format!("cannot read {source}: {e}")))?,
            None => String::new(),
        };
        Ok(Config::layered(self.shipped()?, &text, &source, sets)?)
    }

    /// `config` as TOML, with the origin of each value that is still the document's.
    ///
    /// # Errors
    /// No such configuration.
    pub(crate) fn printed(&self, config: &Config) -> Result<String> {
        Ok(match self.shipped()? {
            Some(shipped) => shipped.marked(config)?,
            None => toml::to_string(config)?,
        })
    }

    /// What a user of `data` should know of the values in use: what won over `--like`, or that a document's own are there.
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
        let Some(shipped) = ShippedConfig::of_recipe(recipe) else {
            return Vec::new();
        };

        vec![format!(
            "optimiser, schedule and epochs are the defaults, document 000's: --like {} has those of the document that \
             this store's recipe follows",
            shipped.name
        )]
    }

    fn shipped(&self) -> Result<Option<&'static ShippedConfig>> {
        Ok(self.like.as_deref().map(ShippedConfig::find).transpose()?)
    }
}
