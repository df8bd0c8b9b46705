//! The calling thread of an extraction: receives the results of the other threads and writes them to files in plan
//! order.

use std::sync::atomic::Ordering;

use wavemill_store::Store;
use wavemill_store::shards::{
    FinishedFile, FinishedShard, FinishedShards, RowGroup, ShardWriter, WriterArgs,
};

use super::event::Event;
use super::pool::{self, Queues};
use super::{RejectTally, Work};
use crate::error::ExtractError;
use crossbeam_channel::Sender;
use fail::fail_point;

/// Writes every shard of `work.todo` and adds its receipts to `finished`.
///
/// # Errors
/// The first [`ExtractError`]; an error of the kind `Interrupted` if `work.stop` was set. Receipts of finished shards
/// are kept.
pub(crate) fn write_shards(
    store: &Store,
    plan_id: &str,
    work: &Work<'_>,
    finished: &mut FinishedShards,
) -> Result<(), ExtractError> {
    let mut files = Files {
        writer: ShardWriter::new(WriterArgs {
            store,
            plan_id,
            keys: work.keys,
            features_id: work.features_id,
            taken: work.taken,
            todo: work.todo,
            formats: work.formats,
            budget: &work.budget,
        }),
        store,
        plan_id,
        work,
        rejects: RejectTally::from_receipts(finished.receipts()),
        finished,
        shards_written: 0,
        clips_taken: 0,
        clips_read: None,
    };
    std::thread::scope(|scope| take_events(pool::start(scope, work), &mut files))?;

    // There was no error, but shards are missing, so the user asked the run to stop.
    if files.shards_written < work.todo.len() {
        return Err(ExtractError::stopped_after(finished));
    }
    Ok(())
}

/// Processes events until all threads have ended, and returns the first error.
fn take_events(queues: Queues, files: &mut Files<'_, '_>) -> Result<(), ExtractError> {
    let work = files.work;
    let mut groups = Some(queues.groups);
    let mut result = Ok(());
    for event in queues.events {
        // After a failure, events are only drained, so that no worker waits for this thread.
        if result.is_err() {
            continue;
        }

        result = files.take(event, groups.as_ref());
        if result.is_err() {
            work.stop.store(true, Ordering::Relaxed);
            work.budget.close();
        }

        // Dropping the sender of row groups lets the workers end: no more row groups can arrive.
        if result.is_err() || files.has_all_clips() {
            groups = None;
        }
    }
    result
}

/// The files of the shards, and the counts of written shards, clips and rejects.
struct Files<'a, 'w> {
    writer: ShardWriter<'a>,
    store: &'a Store,
    plan_id: &'a str,
    work: &'a Work<'w>,
    rejects: RejectTally,
    finished: &'a mut FinishedShards,
    shards_written: usize,
    clips_taken: usize,
    /// Total number of clips; known when the readers have ended.
    clips_read: Option<usize>,
}

impl Files<'_, '_> {
    fn has_all_clips(&self) -> bool {
        self.clips_read == Some(self.clips_taken)
    }

    fn take(
        &mut self,
        event: Event,
        groups: Option<&Sender<RowGroup>>,
    ) -> Result<(), ExtractError> {
        match event {
            Event::Failed(error) => return Err(error),
            Event::ReadDone { clips } => self.clips_read = Some(clips),
            Event::Encoded(group) => {
                self.writer.encoded(group)?;
                self.finish_shards()?;
            }
            Event::Clip { seq, outcome, seen } => {
                self.clips_taken += 1;
                // The rows may complete a row group, which frees memory. Until this is known, waiting clips must not be
                // refused.
                let _busy = self.work.budget.busy();
                outcome.taken();

                if let Some(reject) = outcome.reject() {
                    let limits = self.work.limits;
                    self.rejects
                        .add(reject, limits.planned, limits.reject_fraction)?;
                }
                for group in self.writer.outcome(seq, outcome, seen) {
                    // Sending cannot fail: clips only arrive while the sender and the workers exist.
                    let _ = groups.map(|sender| sender.send(group));
                }
                self.finish_shards()?;
            }
        }
        Ok(())
    }

    fn finish_shards(&mut self) -> Result<(), ExtractError> {
        for shard in self.writer.finished()? {
            self.put(shard)?;
            self.shards_written += 1;
        }
        Ok(())
    }

    /// Writes the hashes of a shard's inputs, and then the shard's receipts.
    fn put(&mut self, finished: FinishedShard) -> Result<(), ExtractError> {
        let FinishedShard {
            index,
            files,
            inputs,
        } = finished;
        let todo = &self.work.todo[index];
        let label = todo.shard.label();

        // Another feature of the shard, or another shard that contains the clip, may have been computed from earlier
        // contents of the file.
        if let Some(clip_key) = self.finished.changed_input(&inputs) {
            let clip_key = clip_key.clone();
            return Err(ExtractError::Changed { clip_key });
        }

        // A worker that finished all files has also recorded the inputs from which it computed them.
        let mut files_written = files
            .iter()
            .filter(|file| matches!(file, FinishedFile::Written(_)));
        if files_written.next().is_some() {
            self.store.write_seen(self.plan_id, &label, &inputs)?;
        }
        for (file, &feature) in files.into_iter().zip(self.work.feature_numbers) {
            let receipt = match file {
                FinishedFile::Written(receipt) => {
                    self.store.write_receipt(self.plan_id, &label, receipt)?
                }
                FinishedFile::Found(receipt) => receipt,
            };
            fail_point!("receipt-written");
            self.finished.put(todo.place, feature, receipt);
        }
        self.finished.inputs.extend(inputs);
        Ok(())
    }
}
