//! Flat buffers (buckets) for gradients: one sum over the ranks per 25 MiB or so, instead of one per variable.
//!
//! Gradients are copied into the buckets after the backward pass and back before the optimizer's step. The memory of
//! the buckets is allocated once. Gradients are summed and not averaged; the caller divides the loss by Σ weight.

use tch::{Device, Kind, Tensor};

use super::{Collective, RankError};
use crate::ffi;

/// Maximum size of a gradient bucket with several variables, as PyTorch's `bucket_cap_mb`: there are few reductions per
/// step, and a second copy of 25 MiB is cheap.
const BUCKET_BYTES: usize = 25 << 20;

/// A variable and the part of the bucket that contains its gradient.
#[derive(Debug)]
struct Slot {
    variable: Tensor,
    /// Part of the bucket's memory as a tensor in the shape of the variable.
    view: Tensor,
}

#[derive(Debug)]
struct Bucket {
    flat: Tensor,
    slots: Vec<Slot>,
}

/// Buckets for the gradients of all variables of a model.
#[derive(Debug)]
pub(crate) struct Buckets {
    buckets: Vec<Bucket>,
    /// f64 values on the CPU: the number of ranks that have a gradient for each variable, in the order of the slots.
    present: Tensor,
    /// True once every variable has a gradient on every rank. It stays true, because gradients are set to zero in place
    /// and never removed.
    is_complete: bool,
}

impl Buckets {
    /// Allocates buckets for the gradients of `variables`. All variables are on one device, and their order must be the
    /// same on every rank. A bucket contains values of one kind, f32 or f64.
    pub(crate) fn new(variables: &[(String, Tensor)]) -> Self {
        // A new bucket starts if the next variable is of another kind (f32 or f64) or would make the current bucket too
        // large.
        let mut groups: Vec<Vec<&Tensor>> = Vec::new();
        let mut bytes = 0;
        for (_, variable) in variables {
            let size = variable.numel() * variable.kind().elt_size_in_bytes();
            // A variable that is larger than the maximum size of a bucket gets its own bucket in the second arm.
            let fits = bytes + size <= BUCKET_BYTES;
            match groups.last_mut() {
                Some(group) if fits && group[0].kind() == variable.kind() => {
                    group.push(variable);
                    bytes += size;
                }
                _ => {
                    groups.push(vec![variable]);
                    bytes = size;
                }
            }
        }

        let present = Tensor::zeros([variables.len() as i64], (Kind::Double, Device::Cpu));
        Self {
            buckets: groups.into_iter().map(bucket).collect(),
            present,
            is_complete: false,
        }
    }

    /// Sums the gradients of all variables and `extras` over the ranks, in place. `extras` is a contiguous f64 tensor on
    /// the CPU or on the variables' device.
    ///
    /// A gradient that is undefined on this rank counts as zeros. A gradient that is undefined on every rank stays
    /// undefined. Gradients must be set to zero in place between calls. Does nothing if there is only one rank.
    ///
    /// # Errors
    /// [`RankError`] if the sum over the ranks fails, for example because a rank is lost.
    pub(crate) fn reduce(
        &mut self,
        group: &dyn Collective,
        extras: &mut Tensor,
    ) -> Result<(), RankError> {
        if group.world_size() == 1 {
            return Ok(());
        }

        let rank = group.rank();
        tch::no_grad(|| {
            group.sum(extras)?;
            // The counts are summed before the gradients, because `present` determines which gradients are copied back.
            if !self.is_complete {
                self.sum_present(group)?;
            }

            let mut present = plain(&mut self.present).iter();
            for bucket in &mut self.buckets {
                bucket.fill().map_err(RankError::torch(rank))?;
                group.sum(&mut bucket.flat)?;
                for (slot, &ranks) in bucket.slots.iter().zip(present.by_ref()) {
                    // A gradient that is undefined on every rank stays undefined, and the optimizer skips its variable.
                    if ranks > 0.0 {
                        slot.give_back().map_err(RankError::torch(rank))?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Returns the number of values in each bucket.
    #[cfg(test)]
    pub(super) fn lengths(&self) -> Vec<i64> {
        self.buckets
            .iter()
            .map(|bucket| bucket.flat.numel() as i64)
            .collect()
    }

    /// Reports whether later steps need not count gradients.
    #[cfg(test)]
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Counts the ranks that have a gradient, for each variable.
    fn sum_present(&mut self, group: &dyn Collective) -> Result<(), RankError> {
        let slots = self.buckets.iter().flat_map(|bucket| &bucket.slots);
        for (present, slot) in plain(&mut self.present).iter_mut().zip(slots) {
            *present = f64::from(u8::from(slot.variable.grad().defined()));
        }

        group.sum(&mut self.present)?;
        // A gradient that any rank has is copied to all ranks.
        self.is_complete = plain(&mut self.present).iter().all(|&ranks| ranks > 0.0);
        Ok(())
    }
}

fn plain(numbers: &mut Tensor) -> &mut [f64] {
    ffi::slice_mut(numbers).expect("made as contiguous f64 on the CPU")
}

fn bucket(variables: Vec<&Tensor>) -> Bucket {
    let values: i64 = variables
        .iter()
        .map(|variable| variable.numel() as i64)
        .sum();
    let flat = Tensor::zeros([values], (variables[0].kind(), variables[0].device()));

    let mut slots = Vec::with_capacity(variables.len());
    let mut start = 0;
    for variable in variables {
        let length = variable.numel() as i64;
        // The slots are views of the bucket's memory, so that one sum over the bucket sums all of its gradients.
        let view = flat
            .narrow(0, start, length)
            .view(variable.size().as_slice());
        slots.push(Slot {
            variable: variable.shallow_clone(),
            view,
        });
        start += length;
    }
    Bucket { flat, slots }
}

impl Bucket {
    fn fill(&mut self) -> Result<(), tch::TchError> {
        for slot in &mut self.slots {
            let grad = slot.variable.grad();
            if grad.defined() {
                slot.view.f_copy_(&grad)?;
            } else {
                let _ = slot.view.f_zero_()?;
            }
        }
        Ok(())
    }
}

impl Slot {
    fn give_back(&self) -> Result<(), tch::TchError> {
        if !self.variable.grad().defined() {
            // tch cannot assign a gradient to a variable. The backward pass of 0 · Σ variable allocates a gradient of
            // zeros.
            tch::with_grad(|| {
                self.variable
                    .f_sum(self.variable.kind())?
                    .f_mul_scalar(0.0)?
                    .f_backward()
            })?;
        }
        self.variable.grad().f_copy_(&self.view)
    }
}
