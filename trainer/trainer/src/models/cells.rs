//! A recurrent layer over steps.
//!
//! Stacked layers are separate layers with dropout between them: cuDNN's own dropout has a random state that no seed
//! resets, so a resumed run could not reproduce its results.

use tch::Tensor;

use super::ModelError;
use super::layers::{Initializer, Layer, VarScope};
use super::walk::{Operation, OperationKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// LSTM, Hochreiter and Schmidhuber 1997, as in torch.
    Lstm,
    /// GRU, Cho et al. 2014, as in torch.
    Gru,
}

/// Arguments of a recurrent layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecurrentArgs {
    pub cell: Cell,
    /// Length of the state vector of one direction.
    pub width: i64,
    /// Whether the layer also processes the steps in reverse order.
    pub both_ways: bool,
}

impl RecurrentArgs {
    const fn directions(&self) -> i64 {
        if self.both_ways { 2 } else { 1 }
    }

    /// Returns the number of values that the layer returns per step, over both directions.
    pub(crate) const fn outputs(&self) -> i64 {
        self.directions() * self.width
    }
}

/// A recurrent layer with torch's variables: `weight_ih_lK`, `weight_hh_lK`, `bias_ih_lK`, `bias_hh_lK`, and the same
/// names with the suffix `_reverse`. All are initially uniform in ±1 / √width, as in torch.
#[derive(Debug)]
pub(crate) struct Recurrent {
    variables: Vec<Tensor>,
    args: RecurrentArgs,
}

impl Recurrent {
    /// Creates the variables of the layer `number` of a stack, counted from 0. `from` is the number of input values per
    /// step.
    pub(crate) fn new(
        scope: &VarScope<'_>,
        number: usize,
        from: i64,
        args: RecurrentArgs,
    ) -> Result<Self, ModelError> {
        // torch stores the weights of all gates of a layer in one matrix.
        let gates = match args.cell {
            Cell::Lstm => 4 * args.width,
            Cell::Gru => 3 * args.width,
        };
        let directions: &[&str] = if args.both_ways {
            &["", "_reverse"]
        } else {
            &[""]
        };
        let start = Initializer::Uniform((args.width as f64).powf(-0.5));

        let mut variables = Vec::new();
        for direction in directions {
            for (name, dims) in [
                ("weight_ih", &[gates, from][..]),
                ("weight_hh", &[gates, args.width]),
                ("bias_ih", &[gates]),
                ("bias_hh", &[gates]),
            ] {
                let name = format!("{name}_l{number}{direction}");
                variables.push(scope.variable(&name, dims, start)?);
            }
        }
        Ok(Self { variables, args })
    }
}

impl Layer for Recurrent {
    /// Maps `[n, steps, values]` to the states after every step, `[n, steps, outputs]`.
    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, ModelError> {
        let RecurrentArgs {
            cell,
            width,
            both_ways,
        } = self.args;
        // Under autocast a preceding convolution returns bf16, while the recurrent weights stay f32.
        let x = x.f_to_kind(self.variables[0].kind())?;

        // The zeros are derived from `x`, so that a traced model accepts any number of rows.
        let zeros = x.f_select(1, 0)?.f_narrow(1, 0, 1)?.f_zeros_like()?;
        let zeros = zeros
            .f_unsqueeze(0)?
            .f_expand([self.args.directions(), -1, width], false)?
            .f_contiguous()?;

        // libtorch's own dropout rate is 0.0, since it applies only between the layers of one call. Batch axis first.
        let all: Vec<&Tensor> = self.variables.iter().collect();
        let steps = match cell {
            Cell::Lstm => {
                let start = [&zeros, &zeros];
                x.f_lstm(&start, &all, true, 1, 0.0, train, both_ways, true)?
                    .0
            }
            Cell::Gru => {
                x.f_gru(&zeros, &all, true, 1, 0.0, train, both_ways, true)?
                    .0
            }
        };
        Ok(steps)
    }

    fn operations(&self) -> Vec<Operation> {
        let (name, each) = match (self.args.cell, self.args.both_ways) {
            (Cell::Lstm, false) => ("LSTM", ""),
            (Cell::Lstm, true) => ("bidirectional LSTM", " per direction"),
            (Cell::Gru, false) => ("GRU", ""),
            (Cell::Gru, true) => ("bidirectional GRU", " per direction"),
        };
        vec![Operation {
            kind: OperationKind::Recurrent,
            name,
            settings: format!("{} units{each}", self.args.width),
            parameters: self.variables.iter().map(|x| x.numel() as i64).sum(),
        }]
    }
}
