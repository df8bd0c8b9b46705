//! The finished part of a plan: a receipt for each feature of each shard, and the inputs as they were read.

use std::collections::BTreeMap;

use wavemill_schemas::input::InputSeen;
use wavemill_schemas::manifest::Receipt;

/// The part of a plan that this run and earlier runs have finished.
#[derive(Debug)]
pub struct FinishedShards {
    /// Receipts by the shard's index in the plan, then by feature in the recipe's order.
    receipts: Vec<Vec<Option<Receipt>>>,
    /// Inputs of the finished shards, by `clip_key`.
    pub inputs: BTreeMap<String, InputSeen>,
}

impl FinishedShards {
    /// Creates the state of a plan of which nothing is finished.
    pub fn new(n_shards: usize, n_features: usize) -> Self {
        Self {
            receipts: vec![vec![None; n_features]; n_shards],
            inputs: BTreeMap::new(),
        }
    }

    /// Stores the receipt of a finished file.
    pub fn put(&mut self, place: usize, feature: usize, receipt: Receipt) {
        self.receipts[place][feature] = Some(receipt);
    }

    /// Discards the receipts of a shard, so that all its files are written again.
    pub fn forget(&mut self, place: usize) {
        self.receipts[place].fill(None);
    }

    /// Returns the first of a shard's `inputs` whose content differs from that of which another file was computed.
    pub fn changed_input<'i>(&self, inputs: &'i BTreeMap<String, InputSeen>) -> Option<&'i String> {
        let mut inputs = inputs.iter();
        let changed = inputs.find(|(clip_key, seen)| {
            let before = self.inputs.get(*clip_key);
            before.is_some_and(|before| before.content != seen.content)
        });
        changed.map(|(clip_key, _)| clip_key)
    }

    /// Returns the receipts of a shard, by feature.
    pub fn receipts_of_shard(&self, place: usize) -> &[Option<Receipt>] {
        &self.receipts[place]
    }

    /// Returns the receipts of a feature, in plan order.
    pub fn of_feature(&self, feature: usize) -> impl Iterator<Item = &Receipt> {
        self.receipts
            .iter()
            .filter_map(move |receipts_of_shard| receipts_of_shard.get(feature)?.as_ref())
    }

    /// Returns all receipts, shard by shard.
    pub fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        self.receipts.iter().flatten().flatten()
    }

    /// Returns the number of finished feature files.
    pub fn n_done(&self) -> usize {
        self.receipts().count()
    }

    /// Returns the number of feature files in the plan.
    pub fn n_total(&self) -> usize {
        self.receipts.iter().map(Vec::len).sum()
    }

    /// Returns the shards whose features reject different clips. A clip must have rows in all features or in none, so
    /// these shards have to be written again with all features at once.
    pub fn in_dispute(&self) -> Vec<usize> {
        let mut places = Vec::new();
        for (place, receipts_of_shard) in self.receipts.iter().enumerate() {
            let mut rejects = receipts_of_shard
                .iter()
                .flatten()
                .map(|receipt| &receipt.rejects);
            if let Some(first) = rejects.next()
                && rejects.any(|other| other != first)
            {
                places.push(place);
            }
        }
        places
    }
}
