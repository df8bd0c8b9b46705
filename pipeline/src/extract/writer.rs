//! The calling thread of an extraction: takes what the other threads finish, and puts it into files in plan order.

use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
use wavemill_schemas::manifest::Receipt;

use super::event::Event;
use super::pool::{self, Queues};
use super::{ExtractError, RejectTally, Work};
use crate::shards::{RowGroup, ShardWriter, WriterArgs};
use crate::store::Store;

/// Writes every shard of `work.todo` and puts its receipt into `receipts`, which is in plan order.
///
/// # Errors
/// The first [`ExtractError`]; [`ExtractError::Interrupted`] when `work.stop` was set. Finished shards keep their
/// receipts.
pub(crate) fn write_shards(
    store: &Store,
    plan_id: &str,
    work: &Work<'_>,
    receipts: &mut [Option<Receipt>],
) -> Result<(), ExtractError> {
    let mut files = Files {
        writer: ShardWriter::new(WriterArgs {
            root: store.root(),
            plan_id,
            clips: work.clips,
            todo: work.todo,
            class_sizes: work.class_sizes,
            formats: work.formats,
            budget: &work.budget,
            row_group_rows: work.limits.row_group_rows,
        }),
        store,
        plan_id,
        work,
        rejects: RejectTally::of(receipts.iter().flatten()),
        receipts,
        clips_taken: 0,
        clips_read: None,
    };
    std::thread::scope(|scope| take_events(pool::start(scope, work), &mut files))?;

    // No error, and shards are missing: the run was asked to stop.
    let done = receipts.iter().flatten().count();
    if done < receipts.len() {
        return Err(ExtractError::Interrupted {
            done,
            total: receipts.len(),
        });
    }
    Ok(())
}

/// Takes events until all threads have ended, and gives the first error.
fn take_events(queues: Queues, files: &mut Files<'_, '_>) -> Result<(), ExtractError> {
    let work = files.work;
    let mut groups = Some(queues.groups);
    let mut result = Ok(());
    for event in queues.events {
        // After a failure events are only drained, so that no worker waits for this thread.
        if result.is_err() {
            continue;
        }

        result = files.take(event, groups.as_ref());
        if result.is_err() {
            work.stop.store(true, Ordering::Relaxed);
            work.budget.close();
        }

        // Workers end when no more row groups can come.
        if result.is_err() || files.has_all_clips() {
            groups = None;
        }
    }
    result
}

/// The files of the shards, and what is counted on the way into them.
struct Files<'a, 'w> {
    writer: ShardWriter<'a>,
    store: &'a Store,
    plan_id: &'a str,
    work: &'a Work<'w>,
    rejects: RejectTally,
    receipts: &'a mut [Option<Receipt>],
    clips_taken: usize,
    /// How many clips will have come in the end; known when the readers have ended.
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
                // Its rows may fill a row group, which gives memory back: until that is known, nobody gives up waiting.
                let _busy = self.work.budget.busy();
                outcome.taken();

                if let Some(reject) = outcome.reject() {
                    self.rejects.add(reject, self.work.limits)?;
                }
                for group in self.writer.outcome(seq, outcome, seen)? {
                    // Clips come only while the sender is held, and so do workers.
                    let _ = groups.map(|sender| sender.send(group));
                }
                self.finish_shards()?;
            }
        }
        Ok(())
    }

    fn finish_shards(&mut self) -> Result<(), ExtractError> {
        for (index, receipt) in self.writer.finished()? {
            let todo = &self.work.todo[index];
            let label = todo.shard.label();
            self.store.write_receipt(self.plan_id, &label, &receipt)?;
            self.receipts[todo.place] = Some(receipt);
        }
        Ok(())
    }
}
