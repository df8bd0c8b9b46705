//! Processing of pictures in a worker: they are decoded and packed in one step, without a device.

use std::sync::Arc;

use wavemill_runtime::clock::cpu_time;
use wavemill_schemas::columns::RowFacts;
use wavemill_schemas::input::InputSeen;
use wavemill_store::shards::FeatureRow;
use wavemill_store::tensors::Tensor;

use super::clip::ClipBytes;
use super::counters::add_time;
use super::event::Event;
use super::worker::{Worker, WorkerQueues};
use crate::features::NoRows;

impl Worker<'_> {
    /// Decodes a picture, computes its features and returns the clip's event.
    pub(super) fn picture(&mut self, clip: ClipBytes, queues: &WorkerQueues) -> Event {
        let ClipBytes {
            mut ticket,
            bytes,
            failure,
            mut permit,
            ..
        } = clip;

        let tensors = match failure {
            Some(reject) => Err(reject.into()),
            None => {
                // All bytes of the file are used, so the hash of the file identifies the picture.
                ticket.seen = InputSeen::read(ticket.seen.id, blake3::hash(&bytes), None);
                self.guarded(|worker| worker.picture_tensors(&bytes))
            }
        };
        self.give_back(bytes, queues);

        let rows = tensors.map(|tensors| {
            permit.holds(self.work.features.picture_row_bytes());
            vec![FeatureRow {
                clip: ticket.row,
                // Facts about audio are stored as nulls for pictures: see `Nulls::WithoutAudio`.
                facts: RowFacts {
                    variant: 1.0,
                    ..RowFacts::default()
                },
                n_samples: 0,
                permit: Some(Arc::new(permit)),
                tensors,
            }]
        });
        ticket.end(self.work, rows)
    }

    fn picture_tensors(&self, bytes: &[u8]) -> Result<Vec<Tensor>, NoRows> {
        let start = cpu_time();
        let tensors = self.work.features.picture_tensors(bytes);
        add_time(&self.work.counters.times.decode, start);
        Ok(tensors?)
    }
}
