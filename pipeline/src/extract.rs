//! The parallel middle of a run: read, decode, compute, encode, append, until every shard has its receipt.

use std::sync::atomic::Ordering;

use crossbeam_channel::Sender;
use wavemill_schemas::manifest::Receipt;

use crate::account::Rejected;
use crate::event::Event;
use crate::pool::{self, Work};
use crate::run::RunError;
use crate::settings::Limits;
use crate::shards::{RowGroup, ShardWriter};
use crate::store::Store;

/// Writes every shard of `work.todo` and puts its receipt into `receipts`, which is in plan order.
///
/// # Errors
/// The first [`RunError`]; [`RunError::Interrupted`] when `work.stop` was set. Finished shards keep their receipts.
pub fn write_shards(
    store: &Store,
    plan_id: &str,
    work: &Work<'_>,
    receipts: &mut [Option<Receipt>],
) -> Result<(), RunError> {
    let limits = work.limits;
    let mut drive = Drive {
        writer: ShardWriter::new((store.root(), plan_id), work, limits.row_group_rows),
        store,
        plan_id,
        work,
        limits,
        rejected: Rejected::of(receipts.iter().flatten()),
        receipts,
        taken: 0,
        issued: None,
    };
    let mut result = Ok(());
    std::thread::scope(|scope| {
        let pool::Queues { events, groups } = pool::start(scope, work);
        let mut groups = Some(groups);
        for event in events {
            // After a failure events are only drained, so that no worker waits for this thread.
            if result.is_err() {
                continue;
            }
            result = drive.event(event, groups.as_ref());
            if result.is_err() {
                work.stop.store(true, Ordering::Relaxed);
                work.budget.close();
            }
            // Workers end when no more row groups can come.
            if result.is_err() || drive.issued == Some(drive.taken) {
                groups = None;
            }
        }
    });
    result?;
    let done = receipts.iter().flatten().count();
    if done < receipts.len() {
        return Err(RunError::Interrupted { done, total: receipts.len() });
    }
    Ok(())
}

struct Drive<'a, 'w> {
    writer: ShardWriter<'a>,
    store: &'a Store,
    plan_id: &'a str,
    work: &'a Work<'w>,
    limits: &'a Limits,
    rejected: Rejected,
    receipts: &'a mut [Option<Receipt>],
    taken: usize,
    issued: Option<usize>,
}

impl Drive<'_, '_> {
    fn event(&mut self, event: Event, groups: Option<&Sender<RowGroup>>) -> Result<(), RunError> {
        match event {
            Event::Failed(error) => return Err(error),
            Event::ReadDone { clips } => self.issued = Some(clips),
            Event::Encoded(group) => {
                self.writer.encoded(group)?;
                self.finish_shards()?;
            }
            Event::Clip { seq, outcome, seen } => {
                self.taken += 1;
                // Its rows may fill a row group, which gives memory back: until that is known, nobody gives up waiting.
                let _busy = self.work.budget.busy();
                outcome.taken();
                if let Some(reject) = outcome.reject() {
                    self.rejected.add(reject, self.limits)?;
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

    fn finish_shards(&mut self) -> Result<(), RunError> {
        for (index, receipt) in self.writer.finished()? {
            let todo = &self.work.todo[index];
            self.store.write_receipt(self.plan_id, &todo.shard.label(), &receipt)?;
            self.receipts[todo.place] = Some(receipt);
        }
        Ok(())
    }
}
