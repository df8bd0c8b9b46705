//! Weights of a learner: those of checkpoints, and their equality on all ranks.

use std::collections::BTreeMap;
use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::Learner;
use crate::TrainError;
use crate::checkpoint;
use crate::ffi;
use crate::optim::WeightAverage;
use crate::safetensors;
use crate::strategy::RankError;

impl Learner {
    /// Averages the running statistics of batch norm over the ranks, so that all ranks evaluate the same model.
    pub(crate) fn average_buffers(&self) -> Result<(), TrainError> {
        if self.ranks.world_size() == 1 {
            return Ok(());
        }

        for (_, buffer) in self.buffers() {
            // Sum on the CPU, where sums have the same bits in every run. On a GPU, NCCL chooses the order of
            // summation.
            let mut mean = ffi::send(&buffer, Device::Cpu)?
                .to_kind(Kind::Double)
                .contiguous();
            self.ranks.sum(&mut mean)?;
            tch::no_grad(|| {
                buffer
                    .shallow_clone()
                    .copy_(&(mean / self.ranks.world_size() as f64))
            });
        }
        Ok(())
    }

    /// Returns the tensors of a checkpoint: weights, buffers of all ranks, and the optimiser's state. All ranks must
    /// call this.
    pub(crate) fn tensors(&self) -> Result<Vec<(String, Tensor)>, TrainError> {
        let mut tensors: Vec<(String, Tensor)> = self
            .variables()
            .into_iter()
            .map(|(name, tensor)| (format!("model.{name}"), tensor))
            .collect();
        if let Some(average) = &self.average {
            average.store(&mut tensors);
        }
        tensors.extend(self.optimizer.state());

        // Until the end of an epoch, each rank has its own running statistics.
        let buffers = self.buffers();
        if self.ranks.world_size() == 1 || buffers.is_empty() {
            return Ok(tensors);
        }
        // All buffers are sent in one message, sorted by name, so that the order is the same on every rank.
        let flat = Tensor::cat(
            &buffers
                .iter()
                .map(|(_, b)| b.view(-1).to_kind(Kind::Double))
                .collect::<Vec<_>>(),
            0,
        );

        // Buffers are gathered from all ranks and not averaged, so that each rank resumes with exactly the same bits.
        let values = Vec::<f64>::try_from(ffi::send(&flat, Device::Cpu)?)?;
        let bytes: Vec<u8> = values.into_iter().flat_map(f64::to_le_bytes).collect();
        for (rank, bytes) in self.ranks.gather(&bytes)?.iter().enumerate() {
            let values: Vec<f64> = bytes
                .as_chunks::<8>()
                .0
                .iter()
                .map(|b| f64::from_le_bytes(*b))
                .collect();
            tensors.push((format!("rank{rank}.buffers"), Tensor::from_slice(&values)));
        }
        Ok(tensors)
    }

    /// Restores the tensors returned by [`Self::tensors`]. `world_size` is the number of ranks of the run that wrote
    /// them; the buffers of each rank are restored only if the number of ranks has not changed.
    ///
    /// # Errors
    /// [`TrainError::Other`] if the tensors do not fit the model, and [`RankError::Disagree`] if another rank read other
    /// weights.
    pub(crate) fn load(
        &mut self,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
        world_size: usize,
    ) -> Result<(), TrainError> {
        checkpoint::copy_into(&self.variables(), tensors, "model.", path)?;
        self.check_weights_of(path)?;
        if let Some(average) = &self.average {
            average.load(tensors, path)?;
        }
        self.optimizer.load(tensors)?;

        let own = tensors.get(&format!("rank{}.buffers", self.ranks.rank()));
        if let Some(flat) = own.filter(|_| world_size == self.ranks.world_size()) {
            // Buffers are in the order in which `tensors` concatenated them.
            let mut offset = 0;
            for (_, buffer) in self.buffers() {
                let values = flat
                    .narrow(0, offset, buffer.numel() as i64)
                    .view(buffer.size().as_slice());
                tch::no_grad(|| buffer.shallow_clone().copy_(&values));
                offset += buffer.numel() as i64;
            }
        }
        Ok(())
    }

    /// Loads only weights and buffers of a checkpoint, for evaluation.
    ///
    /// # Errors
    /// [`TrainError::Other`] if the tensors do not fit the model, and [`RankError::Disagree`] if another rank read other
    /// weights.
    pub(crate) fn load_model(
        &self,
        tensors: &BTreeMap<String, Tensor>,
        path: &Path,
    ) -> Result<(), TrainError> {
        checkpoint::copy_into(&self.variables(), tensors, "model.", path)?;
        self.check_weights_of(path)?;
        self.average.iter().for_each(WeightAverage::reset);
        Ok(())
    }

    /// Checks that all ranks read the same weights from `path`. Each rank reads its own machine's file, and another
    /// process may write a better checkpoint between two reads. All ranks must call this.
    pub(super) fn check_weights_of(&self, path: &Path) -> Result<(), TrainError> {
        self.check_equal(&format!("weights of {}", path.display()))
    }

    /// Checks that all ranks have the same weights, called `name` in the error. All ranks must call this. Random
    /// weights may differ between kinds of GPUs and CPUs.
    ///
    /// # Errors
    /// [`RankError::Disagree`] on every rank; the message names the first rank that differs from rank 0.
    pub(crate) fn check_equal(&self, name: &str) -> Result<(), TrainError> {
        if self.ranks.world_size() == 1 {
            return Ok(());
        }
        let mut hasher = blake3::Hasher::new();
        for (_, tensor) in self.variables() {
            let bytes = safetensors::bytes_of(&tensor).map_err(|source| {
                RankError::Other(format!("rank {}: {source}", self.ranks.rank()))
            })?;
            hasher.update(&bytes);
        }

        let own = hasher.finalize().to_hex();
        let all = self.ranks.gather(own.as_bytes())?;
        let Some(rank) = all.iter().position(|hash| *hash != all[0]) else {
            return Ok(());
        };
        // All ranks return the same error, so none may take the end of another for its loss.
        let _ = self.ranks.finish();
        let [found, wanted] = [rank, 0].map(|rank| String::from_utf8_lossy(&all[rank]));
        let field = format!("{name} with the blake3");
        Err(RankError::differs(rank, &field, &found, &wanted).into())
    }
}
