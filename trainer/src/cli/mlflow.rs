//! Options of commands that train: at which MLflow server their runs are.

use std::path::Path;

use anyhow::Result;
use clap::Args;
use wavemill_schemas::config::Config;
use wavemill_scores::records::RunDir;

use crate::dataset::Dataset;
use crate::tracking::{self, RunDescription, Server, Tracker};

/// Name of MLflow's experiment where none is given.
const EXPERIMENT: &str = "wavemill";

/// At which MLflow server runs are, if at any.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct MlflowArgs {
    /// Log parameters, the figures of each epoch and files to the MLflow server at URI, such as http://127.0.0.1:5000
    #[arg(long, value_name = "URI")]
    mlflow: Option<String>,
    /// MLflow's experiment, which is made if it is not there [default: wavemill]
    #[arg(long, value_name = "NAME", requires = "mlflow")]
    mlflow_experiment: Option<String>,
}

impl MlflowArgs {
    /// The server that is asked for; else the one at which the run in `folder` was before. It has answered.
    ///
    /// # Errors
    /// [`tracking::TrackingError`].
    pub(crate) fn server(&self, folder: Option<&Path>) -> Result<Option<Server>> {
        let Some(server) = self.asked_or_recorded(folder)? else {
            return Ok(None);
        };
        server.check()?;
        Ok(Some(server))
    }

    /// As [`Self::server`], without a question to it.
    fn asked_or_recorded(&self, folder: Option<&Path>) -> Result<Option<Server>> {
        if let Some(uri) = &self.mlflow {
            let experiment = self.mlflow_experiment.as_deref().unwrap_or(EXPERIMENT);
            return Ok(Some(Server::new(uri, experiment)?));
        }

        let Some(run) = folder.and_then(|folder| RunDir::open(folder).ok()) else {
            return Ok(None);
        };
        match tracking::recorded(&run)? {
            Some((uri, experiment)) => Ok(Some(Server::new(&uri, &experiment)?)),
            None => Ok(None),
        }
    }

    /// A new run of `config` at the server that is asked for, which need not answer.
    ///
    /// # Errors
    /// As [`start`].
    pub(crate) fn trial(
        &self,
        folder: &Path,
        config: &Config,
        data: &Dataset,
    ) -> Result<Option<Tracker>> {
        match self.asked_or_recorded(None)? {
            Some(server) => Ok(Some(start(server, folder, config, data)?)),
            None => Ok(None),
        }
    }

    /// As words of a command line.
    pub(crate) fn to_args(&self) -> Vec<&str> {
        let mut words = Vec::new();
        if let Some(uri) = &self.mlflow {
            words.extend(["--mlflow", uri]);
        }
        if let Some(experiment) = &self.mlflow_experiment {
            words.extend(["--mlflow-experiment", experiment]);
        }
        words
    }
}

/// The run in `folder` at `server`: a new one, or the one that it was there before.
///
/// # Errors
/// What the folder remembers of MLflow cannot be read.
pub(crate) fn start(
    server: Server,
    folder: &Path,
    config: &Config,
    data: &Dataset,
) -> Result<Tracker> {
    let folder = RunDir::open(folder)?;
    let mut parameters = Vec::new();
    put("", &toml::Table::try_from(config)?, &mut parameters);

    let store = data.store();
    let tags = [
        ("mlflow.source.name", "wavemill-train".to_owned()),
        ("wavemill.program", env!("CARGO_PKG_VERSION").to_owned()),
        ("wavemill.store_version", store.version().to_string()),
        ("wavemill.manifest_hash", store.manifest_hash().to_owned()),
        ("wavemill.feature_id", data.feature().feature_id.clone()),
        ("wavemill.config_hash", config.hash()),
    ];
    let described = RunDescription {
        name: folder.id(),
        parameters,
        tags: tags.map(|(key, value)| (key.to_owned(), value)).into(),
    };
    Ok(Tracker::start(server, folder, described)?)
}

/// Values by their dotted keys, as `--set` takes them, without quotes.
fn put(section: &str, table: &toml::Table, into: &mut Vec<(String, String)>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(table) => put(&format!("{section}{key}."), table, into),
            toml::Value::String(text) => into.push((format!("{section}{key}"), text.clone())),
            value => into.push((format!("{section}{key}"), value.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::config;

    #[test]
    fn parameters_have_the_keys_of_set() {
        let table = toml::Table::try_from(config(&["optimizer.lr=0.25"])).expect("a table");
        let mut parameters = Vec::new();
        put("", &table, &mut parameters);

        for (key, value) in [
            ("optimizer.lr", "0.25"),
            ("model.name", "lstm"),
            ("seed", "0"),
        ] {
            let found = parameters.iter().find(|(name, _)| name == key);
            assert_eq!(found.map(|(_, value)| value.as_str()), Some(value), "{key}");
        }
    }

    #[test]
    fn a_trials_process_is_told_the_same_server() {
        let args = MlflowArgs {
            mlflow: Some("http://a".to_owned()),
            mlflow_experiment: Some("b".to_owned()),
        };
        let words = ["--mlflow", "http://a", "--mlflow-experiment", "b"];
        assert_eq!(args.to_args(), words);
        assert!(MlflowArgs::default().to_args().is_empty());
    }
}
