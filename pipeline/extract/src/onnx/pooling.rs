//! Means and deviations over the frames of a model's output.

use wavemill_schemas::recipe::{OnnxArgs, Pooling};

/// Collects the outputs for the windows of a row.
pub(super) struct Pool {
    pooling: Pooling,
    /// First layer that is stored, and how many.
    layers: (usize, usize),
    /// Dimensions of an output: layers, frames, values.
    dims: [usize; 3],
    n_frames: usize,
    sums: Vec<f64>,
    squares: Vec<f64>,
}

impl Pool {
    pub(super) fn new(args: &OnnxArgs, dims: [usize; 3]) -> Self {
        let layers = match args.layer {
            Some(layer) => (layer, 1),
            None => (0, dims[0]),
        };
        Self {
            pooling: args.pooling,
            layers,
            dims,
            n_frames: 0,
            sums: Vec::new(),
            squares: Vec::new(),
        }
    }

    /// Begins a row.
    pub(super) fn clear(&mut self) {
        let n = self.layers.1 * self.dims[2];
        self.n_frames = 0;
        self.sums.clear();
        self.sums.resize(n, 0.0);
        self.squares.clear();
        self.squares.resize(n, 0.0);
    }

    /// Adds the output for one window. Values that are complete are appended to `row`.
    pub(super) fn push(&mut self, output: &[f32], row: &mut Vec<f32>) {
        let [_, n_frames, n_values] = self.dims;
        let (first, n_layers) = self.layers;
        let layers = &output[first * n_frames * n_values..][..n_layers * n_frames * n_values];
        if self.pooling == Pooling::None {
            row.extend_from_slice(layers);
            return;
        }

        let sums = self.sums.chunks_exact_mut(n_values);
        let squares = self.squares.chunks_exact_mut(n_values);
        let each = layers
            .chunks_exact(n_frames * n_values)
            .zip(sums.zip(squares));
        for (layer, (sums, squares)) in each {
            for frame in layer.chunks_exact(n_values) {
                for ((&x, sum), square) in frame.iter().zip(&mut *sums).zip(&mut *squares) {
                    *sum += f64::from(x);
                    *square += f64::from(x) * f64::from(x);
                }
            }
        }
        self.n_frames += n_frames;

        if self.pooling == Pooling::Window {
            self.finish(row);
            self.clear();
        }
    }

    /// Appends the values of a row that are only known at its end.
    pub(super) fn finish(&mut self, row: &mut Vec<f32>) {
        if self.n_frames == 0 {
            return;
        }
        let n = self.n_frames as f64;
        let n_values = self.dims[2];
        let each = self.sums.chunks_exact(n_values);
        for (sums, squares) in each.zip(self.squares.chunks_exact(n_values)) {
            row.extend(sums.iter().map(|sum| (sum / n) as f32));
            if self.pooling == Pooling::MeanStd {
                let of_value = sums.iter().zip(squares).map(|(sum, square)| {
                    let mean = sum / n;
                    // Rounding may give a tiny negative variance.
                    (square / n - mean * mean).max(0.0).sqrt() as f32
                });
                row.extend(of_value);
            }
        }
    }
}
