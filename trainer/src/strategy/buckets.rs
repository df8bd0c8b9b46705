//! Gradients in flat tensors that live as long as the run: one sum for some 25 MB instead of one for each variable.
//!
//! Copied in after backward and out before the optimiser's step, both into memory that is there already. Scales nothing:
//! losses are weighted sums, and who divides by Σ weight knows it from the extras.

use tch::{Device, Kind, Tensor};

use super::{Collective, RankError};
use crate::ffi;

/// Most bytes of a bucket, if it holds more than one variable. Source: PyTorch's `bucket_cap_mb`; few sums a step, and
/// memory that is still cheap to have twice.
const BUCKET_BYTES: usize = 25 << 20;

/// A variable and its part of a bucket.
#[derive(Debug)]
struct Slot {
    variable: Tensor,
    /// Of the bucket's memory, in the variable's shape.
    view: Tensor,
}

#[derive(Debug)]
struct Bucket {
    flat: Tensor,
    slots: Vec<Slot>,
}

/// All gradients of a model, and a few numbers besides.
#[derive(Debug)]
pub(crate) struct Buckets {
    buckets: Vec<Bucket>,
    /// f64, on the CPU wherever the variables are: the extras, then for each variable whether it has a gradient here.
    numbers: Tensor,
    extras: usize,
}

impl Buckets {
    /// Room for the gradients of `variables`, which are of one device, in this order (the same on every rank), and for
    /// `extras` f64. A bucket holds one kind, f32 or f64.
    pub(crate) fn new(variables: &[(String, Tensor)], extras: usize) -> Self {
        // A bucket is closed when the next variable would make it too large, or is of another kind.
        let mut groups: Vec<Vec<&Tensor>> = Vec::new();
        let mut bytes = 0;
        for (_, variable) in variables {
            let size = variable.numel() * variable.kind().elt_size_in_bytes();
            // A variable larger than a bucket gets one for itself, through the arm below.
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

        let numbers = Tensor::zeros(
            [(extras + variables.len()) as i64],
            (Kind::Double, Device::Cpu),
        );
        Self {
            buckets: groups.into_iter().map(bucket).collect(),
            numbers,
            extras,
        }
    }

    /// Σ over ranks of every variable's gradient, in place, and of `extras`, exactly as f64 sums go.
    ///
    /// A gradient that is undefined here counts as zeros; one that no rank has stays undefined. With one rank nothing
    /// is done at all.
    ///
    /// # Errors
    /// [`RankError`].
    ///
    /// # Panics
    /// If there are not as many extras as [`Self::new`] was told.
    pub(crate) fn reduce(
        &mut self,
        group: &dyn Collective,
        extras: &mut [f64],
    ) -> Result<(), RankError> {
        assert_eq!(
            extras.len(),
            self.extras,
            "extras of a step are counted once"
        );

        if group.world_size() == 1 {
            return Ok(());
        }

        let rank = group.rank();
        tch::no_grad(|| {
            // The numbers go first, because `present` decides below which gradients are given back.
            self.sum_numbers(group, extras)?;

            // How many ranks have a gradient for each variable, in the order of slots.
            let mut present = plain(&mut self.numbers)[self.extras..].iter();
            for bucket in &mut self.buckets {
                bucket.fill().map_err(RankError::torch(rank))?;
                group.sum(&mut bucket.flat)?;
                for (slot, &ranks) in bucket.slots.iter().zip(present.by_ref()) {
                    // A gradient that no rank has stays undefined, and the optimiser passes over its variable.
                    if ranks > 0.0 {
                        slot.give_back().map_err(RankError::torch(rank))?;
                    }
                }
            }
            Ok(())
        })
    }

    /// Values of each bucket.
    #[cfg(test)]
    pub(super) fn lengths(&self) -> Vec<i64> {
        self.buckets
            .iter()
            .map(|bucket| bucket.flat.numel() as i64)
            .collect()
    }

    fn sum_numbers(&mut self, group: &dyn Collective, extras: &mut [f64]) -> Result<(), RankError> {
        let count = self.extras;
        let numbers = plain(&mut self.numbers);
        numbers[..count].copy_from_slice(extras);

        let slots = self.buckets.iter().flat_map(|bucket| &bucket.slots);
        for (present, slot) in numbers[count..].iter_mut().zip(slots) {
            *present = f64::from(u8::from(slot.variable.grad().defined()));
        }

        group.sum(&mut self.numbers)?;
        extras.copy_from_slice(&plain(&mut self.numbers)[..count]);
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
        // Views of one piece of memory: a sum over the bucket is at once the sum of each gradient.
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
            // tch cannot set a gradient; the one of 0 · Σ variable is a zero in its place.
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
