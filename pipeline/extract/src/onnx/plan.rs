//! Computes the tensor of a row: cuts windows, runs the model and pools its output.

use std::sync::Arc;

use wavemill_kernels::{KernelError, Packing, pack_into};
use wavemill_schemas::recipe::{Dtype, OnnxArgs, STANDARDIZE_EPS};

use super::TensorError;
use super::model::{Model, Source};
use super::pooling::Pool;

/// Buffers of one worker for a feature that a model computes.
pub(crate) struct ModelPlan {
    model: Arc<Model>,
    source: Source,
    standardize: bool,
    packing: Packing,
    pool: Pool,
    /// Input of one call.
    window: Vec<f32>,
    /// Output of one call.
    output: Vec<f32>,
    /// Pooled values of the row.
    row: Vec<f32>,
}

impl ModelPlan {
    /// Creates empty buffers for a model that was loaded with the same arguments.
    pub(crate) fn new(model: &Arc<Model>, args: &OnnxArgs) -> Self {
        Self {
            model: Arc::clone(model),
            source: Source::from_args(args),
            standardize: args.standardize,
            packing: match args.dtype {
                Dtype::F16 => Packing::F16,
                Dtype::F32 | Dtype::U8 | Dtype::S16 => Packing::F32,
            },
            pool: Pool::new(args, model.output_dims()),
            window: Vec::new(),
            output: Vec::new(),
            row: Vec::new(),
        }
    }

    /// Frees the buffers.
    pub(crate) fn forget_scratch(&mut self) {
        self.window = Vec::new();
        self.output = Vec::new();
        self.row = Vec::new();
    }

    /// Computes the packed tensor of a row from its samples, or from the values of the source's tensor.
    ///
    /// The last window ends with the last sample or frame, so it may overlap the one before. Samples that do not fill one
    /// window are followed by zeros.
    ///
    /// # Errors
    /// [`KernelError::TooFewFrames`] for fewer frames than a window; [`TensorError::Model`] if the model fails;
    /// [`TensorError::NotFinite`].
    pub(crate) fn run(&mut self, values: &[f32]) -> Result<Vec<u8>, TensorError> {
        let n = values.len() / self.source.n_bands();
        let sizes = self.model.sizes();
        let (window, n_windows) = (sizes.window, sizes.n_windows(n));
        if n < window && self.source != Source::Samples {
            return Err(TensorError::Kernel(KernelError::TooFewFrames {
                frames: n,
                needed: window,
            }));
        }

        self.row.clear();
        self.pool.clear();
        for number in 0..n_windows {
            let start = (number * window).min(n.saturating_sub(window));
            self.cut(values, start, window, n);
            self.model.run_alike(&self.window, &mut self.output)?;
            self.pool.push(&self.output, &mut self.row);
        }
        self.pool.finish(&mut self.row);
        self.packed()
    }

    /// Copies the window that begins with the sample or frame `start`.
    fn cut(&mut self, values: &[f32], start: usize, window: usize, n: usize) {
        self.window.clear();
        match self.source {
            Source::Samples => self
                .window
                .extend_from_slice(&values[start..(start + window).min(n)]),
            Source::FrameBand(n_bands) => self
                .window
                .extend_from_slice(&values[start * n_bands..(start + window) * n_bands]),
            Source::BandFrame(_) => {
                for band in values.chunks_exact(n) {
                    self.window.extend_from_slice(&band[start..start + window]);
                }
            }
        }

        if self.standardize {
            standardize(&mut self.window);
        }
        self.window.resize(window * self.source.n_bands(), 0.0);
    }

    fn packed(&mut self) -> Result<Vec<u8>, TensorError> {
        if let Some(index) = self.row.iter().position(|value| !value.is_finite()) {
            let value = self.row[index];
            return Err(TensorError::NotFinite { index, value });
        }
        let mut bytes = Vec::with_capacity(self.row.len() * self.packing.dtype().bytes());
        pack_into(&self.row, self.packing, &mut bytes)?;
        Ok(bytes)
    }
}

/// Subtracts the mean and divides by the standard deviation.
fn standardize(values: &mut [f32]) {
    let n = values.len().max(1) as f64;
    let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let squares = values.iter().map(|&x| (f64::from(x) - mean).powi(2));
    let deviation = (squares.sum::<f64>() / n + STANDARDIZE_EPS).sqrt();
    for value in values {
        *value = ((f64::from(*value) - mean) / deviation) as f32;
    }
}
