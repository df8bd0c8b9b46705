//! Recurrent layers over frames.
//!
//! Layers are executed one by one with dropout between them: cuDNN's own dropout has a random state that no seed
//! resets, so a resumed run could not reproduce its results.

use tch::Tensor;

use super::ModelError;
use super::layers::{Fixed, Initializer, Layer, VarScope};
use super::walk::{Operation, OperationKind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// LSTM, Hochreiter and Schmidhuber 1997, as in torch.
    Lstm,
    /// GRU, Cho et al. 2014, as in torch.
    Gru,
}

/// Arguments of a stack of recurrent layers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecurrentArgs {
    pub cell: Cell,
    /// Length of the state vector of one direction.
    pub width: i64,
    /// Number of stacked layers.
    pub layers: i64,
    /// Whether each layer also processes the steps in reverse order.
    pub both_ways: bool,
    /// Dropout rate between two layers; `None` for no dropout.
    pub dropout: Option<f64>,
}

impl RecurrentArgs {
    /// Returns the number of values that a layer returns per step, over both directions.
    pub(crate) const fn outputs(&self) -> i64 {
        if self.both_ways {
            2 * self.width
        } else {
            self.width
        }
    }
}

/// Recurrent layers with torch's variables: `weight_ih_lK`, `weight_hh_lK`, `bias_ih_lK`, `bias_hh_lK`, and the same
/// names with the suffix `_reverse`. All are initially uniform in ±1 / √width, as in torch.
#[derive(Debug)]
pub(crate) struct Recurrent {
    layers: Vec<Vec<Tensor>>,
    args: RecurrentArgs,
}

impl Recurrent {
    /// Creates the variables of all layers. `from` is the number of input values per step.
    pub(crate) fn new(
        scope: &VarScope<'_>,
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

        let mut layers = Vec::new();
        for layer in 0..args.layers {
            let from = if layer == 0 { from } else { args.outputs() };
            let mut variables = Vec::new();
            for direction in directions {
                for (name, dims) in [
                    ("weight_ih", &[gates, from][..]),
                    ("weight_hh", &[gates, args.width]),
                    ("bias_ih", &[gates]),
                    ("bias_hh", &[gates]),
                ] {
                    let name = format!("{name}_l{layer}{direction}");
                    variables.push(scope.variable(&name, dims, start)?);
                }
            }
            layers.push(variables);
        }

        Ok(Self {
            layers,
            args: RecurrentArgs {
                dropout: args.dropout.map(|own| scope.dropout(own)),
                ..args
            },
        })
    }

    /// Describes the recurrent layers as operations, one per layer, with dropout between them.
    pub(crate) fn operations(&self) -> Vec<Operation> {
        let name = match (self.args.cell, self.args.both_ways) {
            (Cell::Lstm, false) => "LSTM",
            (Cell::Lstm, true) => "bidirectional LSTM",
            (Cell::Gru, false) => "GRU",
            (Cell::Gru, true) => "bidirectional GRU",
        };
        let each = if self.args.both_ways {
            " per direction"
        } else {
            ""
        };

        let mut operations = Vec::new();
        for (i, layer) in self.layers.iter().enumerate() {
            if let (1.., Some(share)) = (i, self.args.dropout) {
                operations.extend(Fixed::Dropout(share).operations());
            }
            operations.push(Operation {
                kind: OperationKind::Recurrent,
                name,
                settings: format!("{} units{each}", self.args.width),
                parameters: layer.iter().map(|x| x.numel() as i64).sum(),
            });
        }
        operations
    }

    /// Maps `[n, steps, values]` to the last layer's state after every step, `[n, steps, outputs]`, and to the last
    /// layer's final states, with both directions concatenated, `[n, outputs]`.
    pub(crate) fn forward(&self, x: &Tensor, train: bool) -> Result<(Tensor, Tensor), ModelError> {
        // Under autocast a preceding convolution returns bf16, while the recurrent weights stay f32.
        let x = x.f_to_kind(self.layers[0][0].kind())?;
        let directions = self.args.outputs() / self.args.width;

        // The zeros are derived from `x`, so that a traced model accepts any number of rows.
        let zeros = x.f_select(1, 0)?.f_narrow(1, 0, 1)?.f_zeros_like()?;
        let zeros = zeros
            .f_unsqueeze(0)?
            .f_expand([directions, -1, self.args.width], false)?
            .f_contiguous()?;

        let mut steps = x;
        let mut last = zeros.shallow_clone();
        for (i, layer) in self.layers.iter().enumerate() {
            // No dropout before the first layer.
            if let (1.., Some(share)) = (i, self.args.dropout) {
                steps = steps.f_dropout(share, train)?;
            }
            (steps, last) = self.layer(&steps, &zeros, layer, train)?;
        }

        Ok((steps, last.f_transpose(0, 1)?.f_flatten(1, 2)?))
    }

    fn layer(
        &self,
        x: &Tensor,
        zeros: &Tensor,
        layer: &[Tensor],
        train: bool,
    ) -> Result<(Tensor, Tensor), ModelError> {
        let both_ways = self.args.both_ways;
        let variables: Vec<&Tensor> = layer.iter().collect();

        // libtorch's own dropout rate is 0.0, since it applies only between the layers of one call. Batch axis first.
        match self.args.cell {
            Cell::Lstm => {
                let start = [zeros, zeros];
                let (steps, last, _) =
                    x.f_lstm(&start, &variables, true, 1, 0.0, train, both_ways, true)?;
                Ok((steps, last))
            }
            Cell::Gru => Ok(x.f_gru(zeros, &variables, true, 1, 0.0, train, both_ways, true)?),
        }
    }
}
