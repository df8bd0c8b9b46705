//! What is finished of a plan: a receipt for each feature of each shard, and what was seen of the inputs.

use std::collections::BTreeMap;

use wavemill_schemas::manifest::Receipt;

use crate::source::InputSeen;

/// What is finished of a plan, by earlier runs and by this one.
#[derive(Debug)]
pub(crate) struct FinishedShards {
    /// By the shard's place in the plan, then by feature in the recipe's order.
    receipts: Vec<Vec<Option<Receipt>>>,
    /// The inputs of what is finished, by `clip_key`.
    pub inputs: BTreeMap<String, InputSeen>,
}

impl FinishedShards {
    /// Nothing is finished yet of so many shards of so many features.
    pub(crate) fn new(n_shards: usize, n_features: usize) -> Self {
        Self {
            receipts: vec![vec![None; n_features]; n_shards],
            inputs: BTreeMap::new(),
        }
    }

    /// A feature's file of a shard is there.
    pub(crate) fn put(&mut self, place: usize, feature: usize, receipt: Receipt) {
        self.receipts[place][feature] = Some(receipt);
    }

    /// All files of a shard are to be written once more.
    pub(crate) fn forget(&mut self, place: usize) {
        self.receipts[place].fill(None);
    }

    /// The receipts of a shard, by feature.
    pub(crate) fn of_shard(&self, place: usize) -> &[Option<Receipt>] {
        &self.receipts[place]
    }

    /// The receipts of a feature, in plan order.
    pub(crate) fn of_feature(&self, feature: usize) -> impl Iterator<Item = &Receipt> {
        self.receipts
            .iter()
            .filter_map(move |of_shard| of_shard.get(feature)?.as_ref())
    }

    /// All receipts, shard by shard.
    pub(crate) fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        self.receipts.iter().flatten().flatten()
    }

    /// Files that are there.
    pub(crate) fn n_done(&self) -> usize {
        self.receipts().count()
    }

    /// Files of the plan.
    pub(crate) fn n_total(&self) -> usize {
        self.receipts.iter().map(Vec::len).sum()
    }

    /// Shards whose features do not reject the same clips. A clip has rows in all features or in none, so they are to be
    /// written once more, with all features at a time.
    pub(crate) fn in_dispute(&self) -> Vec<usize> {
        let mut places = Vec::new();
        for (place, of_shard) in self.receipts.iter().enumerate() {
            let mut rejects = of_shard.iter().flatten().map(|receipt| &receipt.rejects);
            if let Some(first) = rejects.next()
                && rejects.any(|other| other != first)
            {
                places.push(place);
            }
        }
        places
    }
}
