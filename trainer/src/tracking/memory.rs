//! What a run's folder remembers of MLflow: which run it is there, and what is there already.

use serde::{Deserialize, Serialize};
use wavemill_scores::records::RunDir;

use super::TrackingError;

/// `mlflow.json`. Holds no credentials.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Address of the server.
    pub(super) server: String,
    /// Name of MLflow's experiment.
    pub(super) experiment: String,
    /// MLflow's run.
    pub(super) run_id: String,
    /// Whether it has all parameters.
    pub(super) has_parameters: bool,
    /// The last epoch's step of which it has the figures.
    pub(super) logged_step: Option<u64>,
}

impl Memory {
    /// That of `folder`; `None` where the run was never at a server.
    ///
    /// # Errors
    /// [`TrackingError::Memory`], [`TrackingError::Record`].
    pub(super) fn read(folder: &RunDir) -> Result<Option<Self>, TrackingError> {
        let Some(text) = folder.read_mlflow()? else {
            return Ok(None);
        };
        serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| TrackingError::Memory {
                path: folder.mlflow(),
                source,
            })
    }

    /// Writes it, whole or not at all.
    ///
    /// # Errors
    /// [`TrackingError::Record`].
    pub(super) fn write(&self, folder: &RunDir) -> Result<(), TrackingError> {
        let text = serde_json::to_string_pretty(self).map_err(|source| TrackingError::Memory {
            path: folder.mlflow(),
            source,
        })?;
        Ok(folder.write_mlflow((text + "\n").as_bytes())?)
    }
}

/// Server and experiment that a run was at before; `None` where it was at none.
///
/// # Errors
/// [`TrackingError::Memory`], [`TrackingError::Record`].
pub(crate) fn recorded(folder: &RunDir) -> Result<Option<(String, String)>, TrackingError> {
    Ok(Memory::read(folder)?.map(|memory| (memory.server, memory.experiment)))
}
