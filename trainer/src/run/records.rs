//! Writes the log, TensorBoard events and configuration of a run, on rank 0.

use wavemill_pages::Matrix;
use wavemill_schemas::config::Config;
use wavemill_scores::metrics::{Predictions, Report};
use wavemill_scores::records::{EventPicture, EventWriter, Log, RecordError, ResumePoint, RunDir};

use super::{Job, RunError};
use crate::checkpoint::State;

/// Maximum number of classes that the note on a picture lists.
const NAMED_MAX: usize = 200;
/// Maximum number of characters of a class name in the note.
const NAME_CHARS_MAX: usize = 40;

/// Writers for the log, TensorBoard events and configuration in a run's folder.
pub(super) struct Records {
    pub(super) folder: RunDir,
    log: Log,
    events: EventWriter,
}

impl Records {
    pub(super) fn open(job: &Job, state: &State, world_size: usize) -> Result<Self, RunError> {
        let folder = RunDir::open(&job.folder)?;
        // Open the log first, because it takes the lock: another process writing this run must not lose events below.
        let mut log = Log::open(&folder.log())?;
        // A run that was killed before its first checkpoint starts over in the same folder.
        let goes_on = !log.is_empty()?;

        let resumed = ResumePoint {
            step: state.step,
            epoch_ended: state.batch == 0,
        };
        let events = EventWriter::create(folder.path(), goes_on.then_some(resumed))?;
        if goes_on {
            log.resumed(state.epoch, state.step)?;
        }

        let notes = [
            ("device", format!("{:?}", job.device)),
            ("world_size", world_size.to_string()),
        ];
        log.note("start", state.epoch, state.step, &notes)?;
        Ok(Self {
            folder,
            log,
            events,
        })
    }

    /// Updates `config.toml` to the configuration of this run.
    pub(super) fn keep_config(&self, config: &Config) -> Result<(), RunError> {
        let path = self.folder.config();
        let text =
            toml::to_string(config).map_err(|source| RecordError::Config { path, source })?;
        if self.folder.read_config()? != text {
            self.folder.write_config(&text)?;
        }
        Ok(())
    }

    /// Logs a warning for readers of the results.
    pub(super) fn warning(&mut self, epoch: u64, step: u64, text: &str) -> Result<(), RunError> {
        Ok(self
            .log
            .note("warning", epoch, step, &[("text", text.to_owned())])?)
    }

    pub(super) fn step(
        &mut self,
        epoch: u64,
        step: u64,
        loss: f64,
        lr: f64,
    ) -> Result<(), RunError> {
        self.log
            .append("step", epoch, step, &[("loss", loss), ("lr", lr)])?;
        Ok(self
            .events
            .scalars(step, &[("step/loss", loss), ("step/lr", lr)])?)
    }

    pub(super) fn epoch(
        &mut self,
        epoch: u64,
        step: u64,
        values: &[(&str, f64)],
    ) -> Result<(), RunError> {
        self.log.append("epoch", epoch, step, values)?;
        Ok(self.events.scalars(step, values)?)
    }

    /// Writes a confusion matrix of the validation rows as a picture, for each single-label target.
    pub(super) fn confusion(
        &mut self,
        step: u64,
        predictions: &[Predictions],
    ) -> Result<(), RunError> {
        for target in predictions {
            // A target without labelled rows has no report.
            let Ok(Report::Single(report)) = Report::of(target) else {
                continue;
            };

            let matrix = Matrix {
                names: target.classes().to_vec(),
                counts: report.confusion,
                ..Matrix::default()
            };
            let Some(picture) = matrix.to_png() else {
                continue;
            };

            self.events.picture(
                step,
                &EventPicture {
                    tag: &format!("validation/confusion/{}", target.target()),
                    note: &note(target.classes()),
                    width: picture.width,
                    height: picture.height,
                    png: &picture.png,
                },
            )?;
        }
        Ok(())
    }
}

/// Returns an explanation of the confusion matrix, since the picture contains no text.
fn note(classes: &[String]) -> String {
    let mut names: Vec<String> = Vec::new();
    for class in classes.iter().take(NAMED_MAX) {
        names.push(class.chars().take(NAME_CHARS_MAX).collect());
    }
    if classes.len() > NAMED_MAX {
        names.push("…".to_owned());
    }
    format!(
        "A row is a true class, and a column is what the model said. The brighter a cell is, the larger its share of \
         the row; the diagonal is recall. Classes from the top left: {}",
        names.join(", ")
    )
}
