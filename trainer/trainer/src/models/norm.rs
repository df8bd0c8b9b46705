//! Batch norm with the statistics of one rank's rows, or with those of the rows of all ranks.
//!
//! Over one rank, libtorch does the work. Over all ranks, two differentiable sums over ranks give the same result as a
//! single process with all rows. Supports f32 and f64, and keeps its statistics in the precision of the weights.

use tch::Tensor;

use super::ModelError;
use super::layers::{Initializer, Layer, VarScope};
use super::walk::Operation;
use crate::ffi::{self, Group};

/// Weight of a batch in the update of the running statistics; equal to torch's default.
const MOMENTUM: f64 = 0.1;
/// Number added to the variance, to avoid a division by 0; equal to torch's default.
const EPS: f64 = 1e-5;

/// Normalises each channel of `[n, channels, …]` to mean 0 and variance 1, then scales and shifts the result.
///
/// Variables, with initial values: `weight` (1), `bias` (0), and the untrained `running_mean` (0) and `running_var`
/// (1), all `[channels]`. Source: Ioffe and Szegedy 2015; unbiased running variance, as in torch.
pub(crate) struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    ranks: Option<&'static Group>,
}

impl std::fmt::Debug for BatchNorm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "BatchNorm({:?}, over ranks: {})",
            self.weight.size(),
            self.ranks.is_some()
        )
    }
}

impl BatchNorm {
    /// Creates the four variables of batch norm in `scope`.
    pub(crate) fn new(scope: &VarScope<'_>, channels: i64) -> Result<Self, ModelError> {
        Ok(Self {
            weight: scope.variable("weight", &[channels], Initializer::Constant(1.0))?,
            bias: scope.variable("bias", &[channels], Initializer::Constant(0.0))?,
            running_mean: scope.buffer("running_mean", channels, 0.0)?,
            running_var: scope.buffer("running_var", channels, 1.0)?,
            ranks: scope.ranks,
        })
    }

    /// Normalises by Σ x and then Σ (x − mean)², over all ranks if a group is set. Two passes avoid cancellation.
    fn by_sums(&self, x: &Tensor) -> Result<Tensor, ModelError> {
        let kind = x.kind();
        // Under autocast `x` is bf16, whose precision is too low for sums over rows.
        let x = x.f_to_kind(self.weight.kind())?;
        let channels = self.weight.size()[0];

        // The axes to sum over, which are all except the channels, and a shape that broadcasts one value per channel.
        let mut over: Vec<i64> = (0..x.dim() as i64).collect();
        over.remove(1);
        let mut shape = vec![1; x.dim()];
        shape[1] = channels;

        // The number of values is summed as well, because ranks may have different numbers of rows.
        let own_count = x.numel() as f64 / channels as f64;
        let own_count = Tensor::f_full([1], own_count, (x.kind(), x.device()))?;
        let own_sums = x.f_sum_dim_intlist(&over[..], false, None)?;
        let sums = self.summed(&Tensor::f_cat(&[&own_sums, &own_count], 0)?)?;
        // Detached, because the number of values has no gradient.
        let count = sums.f_narrow(0, channels, 1)?.f_detach()?;
        let mean = sums.f_narrow(0, 0, channels)?.f_div(&count)?;

        let centred = x.f_sub(&mean.f_view(&shape[..])?)?;
        let own_squares = centred
            .f_square()?
            .f_sum_dim_intlist(&over[..], false, None)?;
        let squares = self.summed(&own_squares)?;
        let variance = squares.f_div(&count)?;
        tch::no_grad(|| self.remember(&mean, &squares, &count))?;

        let scale = variance.f_add_scalar(EPS)?.f_rsqrt()?.f_mul(&self.weight)?;
        let y = centred
            .f_mul(&scale.f_view(&shape[..])?)?
            .f_add(&self.bias.f_view(&shape[..])?)?;
        Ok(y.f_to_kind(kind)?)
    }

    fn summed(&self, tensor: &Tensor) -> Result<Tensor, ModelError> {
        match self.ranks {
            Some(group) => Ok(ffi::sum_over_ranks(tensor, group)?),
            None => Ok(tensor.shallow_clone()),
        }
    }

    fn remember(&self, mean: &Tensor, squares: &Tensor, count: &Tensor) -> Result<(), ModelError> {
        // A single value has no unbiased variance: the clamp avoids 0 / 0 in the running variance.
        let unbiased = squares.f_div(&count.f_sub_scalar(1.0)?.f_clamp_min(1.0)?)?;

        // Shallow clones share the memory of the variables, which libtorch updates in place.
        let mut running_mean = self.running_mean.shallow_clone();
        let mut running_var = self.running_var.shallow_clone();
        let _ = running_mean.f_lerp_(mean, MOMENTUM)?;
        let _ = running_var.f_lerp_(&unbiased, MOMENTUM)?;
        Ok(())
    }
}

impl Layer for BatchNorm {
    /// Normalises by the running statistics, or if `train` by those of the batch, which then update the running ones.
    ///
    /// # Errors
    /// [`ModelError::OneValue`] if the batch has one value per channel, whose variance is 0; other errors of libtorch.
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        let values = x.numel() as i64 / self.weight.size()[0].max(1);
        match self.ranks {
            Some(_) if train => self.by_sums(x),
            None if train && values == 1 => Err(ModelError::OneValue),
            _ => Ok(x.f_batch_norm(
                Some(&self.weight),
                Some(&self.bias),
                Some(&self.running_mean),
                Some(&self.running_var),
                train,
                MOMENTUM,
                EPS,
                true,
            )?),
        }
    }

    fn operations(&self) -> Vec<Operation> {
        vec![Operation {
            parameters: (self.weight.numel() + self.bias.numel()) as i64,
            ..Operation::fixed("batch norm", "")
        }]
    }
}

#[cfg(test)]
mod tests {
    use tch::nn::{VarStore, init};
    use tch::{Device, Kind};
    use wavemill_schemas::config;

    use super::*;
    use crate::testing::two_equal_ranks;

    fn norm(store: &mut VarStore, ranks: Option<&'static Group>) -> BatchNorm {
        store.set_kind(Kind::Double);
        let model = config::Model {
            sync_batch_norm: true,
            ..config::Model::default()
        };
        let norm = BatchNorm::new(&VarScope::new(&store.root(), &model, ranks), 3).unwrap();

        tch::no_grad(|| {
            init::Init::Uniform { lo: 0.5, up: 1.5 }.set(&mut norm.weight.shallow_clone());
            init::Init::Uniform { lo: -1.0, up: 1.0 }.set(&mut norm.bias.shallow_clone());
        });

        norm
    }

    fn off(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    /// Computes the loss of one rank with another weight for each element, so that the gradients differ as well.
    fn loss(norm: &BatchNorm, x: &Tensor, weights: &Tensor) -> (Tensor, Tensor) {
        let y = norm.forward(x, true).unwrap();
        let loss = (&y * weights * &y).sum(Kind::Double);
        (y, loss)
    }

    #[test]
    fn two_equal_ranks_are_one_process_with_the_doubled_batch() {
        let group = two_equal_ranks();
        for shape in [&[4_i64, 3][..], &[4, 3, 5], &[2, 3, 4, 5]] {
            let (mut one, mut two) = (VarStore::new(Device::Cpu), VarStore::new(Device::Cpu));
            let whole = norm(&mut one, None);
            let part = norm(&mut two, Some(group));
            two.copy(&one).unwrap();

            let x = (Tensor::randn(shape, (Kind::Double, Device::Cpu)) * 3.0 + 1.0)
                .set_requires_grad(true);
            let weights = Tensor::rand(shape, (Kind::Double, Device::Cpu));

            let (y, of_rank) = loss(&part, &x, &weights);
            of_rank.backward();

            let twice = Tensor::cat(&[&x, &x], 0).detach().set_requires_grad(true);
            let (want, of_all) = loss(&whole, &twice, &Tensor::cat(&[&weights, &weights], 0));
            of_all.backward();

            // Tolerance for the rounding of f64: a few hundred values of size 10 are summed.
            const MAX: f64 = 1e-12;
            assert!(off(&y, &want.narrow(0, 0, shape[0])) < MAX, "{shape:?}");
            assert!(
                off(&x.grad(), &twice.grad().narrow(0, 0, shape[0])) < MAX,
                "{shape:?}"
            );

            // Both ranks have the same parameters, and each rank computes half of their gradient.
            assert!(
                off(&(part.weight.grad() * 2.0), &whole.weight.grad()) < MAX,
                "{shape:?}"
            );
            assert!(
                off(&(part.bias.grad() * 2.0), &whole.bias.grad()) < MAX,
                "{shape:?}"
            );

            assert!(
                off(&part.running_mean, &whole.running_mean) < MAX,
                "{shape:?}"
            );
            assert!(
                off(&part.running_var, &whole.running_var) < MAX,
                "{shape:?}"
            );
        }
    }

    #[test]
    fn outside_of_training_running_statistics_serve_and_stay() {
        let mut store = VarStore::new(Device::Cpu);
        let norm = norm(&mut store, None);
        let x = Tensor::randn([6, 3], (Kind::Double, Device::Cpu));
        let y = norm.forward(&x, false).unwrap();
        assert!(off(&y, &(&x / (1.0 + EPS).sqrt() * &norm.weight + &norm.bias)) < 1e-12);
        assert_eq!(norm.running_mean.abs().max().double_value(&[]), 0.0);
    }

    #[test]
    fn a_batch_of_one_value_is_refused_in_training() {
        let mut store = VarStore::new(Device::Cpu);
        let norm = norm(&mut store, None);
        let x = Tensor::ones([1, 3], (Kind::Double, Device::Cpu));
        let refused = norm.forward(&x, true);
        assert!(matches!(refused, Err(ModelError::OneValue)), "{refused:?}");
        assert!(norm.forward(&x, false).is_ok());
    }
}
