//! A loaded model: its input and output, the sizes of both, and one call.

use std::sync::{Mutex, PoisonError};

use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::{Outlet, TensorElementType, TensorRef, ValueType};
use wavemill_schemas::recipe::{Fault, ModelSizes, OnnxArgs, Pooling};

use super::TensorError;
use super::external::has_external_data;
use super::library::environment;

/// Maximum number of values of a model's input: an hour, the longest `window_s`, of samples at 192 kHz.
const INPUT_VALUES_MAX: usize = 3600 * 192_000;

/// A model, ready to run. Calls by several threads are made one after the other, and each uses all of the session's
/// threads: a session per thread would hold the weights as many times.
pub(crate) struct Model {
    /// The session, and the options of each call, which select the output.
    session: Mutex<(Session, RunOptions<HasSelectedOutputs>)>,
    input: String,
    /// Dimensions of the input for one window.
    dims: Vec<usize>,
    /// True if the first axis of input and output is that of a batch, which is one window.
    has_batch: bool,
    sizes: ModelSizes,
    /// Dimensions of the output for one window: `[layers, frames, values]`.
    output_dims: [usize; 3],
    /// Shape of the output.
    output_shape: Vec<usize>,
    bytes: u64,
}

/// The tensor from which a model's input is cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Source {
    /// Samples: `[samples]`.
    Samples,
    /// Bands of frames: `[bands, frames]`.
    BandFrame(usize),
    /// Frames of bands: `[frames, bands]`.
    FrameBand(usize),
}

impl Source {
    pub(super) fn from_args(args: &OnnxArgs) -> Self {
        match &args.source {
            None => Self::Samples,
            Some(source) if source.dim_names()[0] == "frame" => Self::FrameBand(source.n_bands()),
            Some(source) => Self::BandFrame(source.n_bands()),
        }
    }

    /// Returns the dimensions of a window of `n` samples or frames.
    fn dims(self, n: usize) -> Vec<usize> {
        match self {
            Self::Samples => vec![n],
            Self::BandFrame(n_bands) => vec![n_bands, n],
            Self::FrameBand(n_bands) => vec![n, n_bands],
        }
    }

    /// Returns the index of the axis of samples or frames.
    const fn axis(self) -> usize {
        match self {
            Self::Samples | Self::FrameBand(_) => 0,
            Self::BandFrame(_) => 1,
        }
    }

    pub(super) const fn n_bands(self) -> usize {
        match self {
            Self::Samples => 1,
            Self::BandFrame(n_bands) | Self::FrameBand(n_bands) => n_bands,
        }
    }
}

impl Model {
    /// Loads a model from the bytes of its file and runs it once on zeros, which gives the sizes of its output.
    ///
    /// `row` is the number of samples or frames of every row; `None` if rows differ. `threads` compute one call.
    ///
    /// # Errors
    /// [`TensorError`]; a [`Fault`] names the option that does not fit the model.
    pub(crate) fn load(
        file: &[u8],
        args: &OnnxArgs,
        row: Option<usize>,
        threads: usize,
    ) -> Result<Self, TensorError> {
        require_one_file(file)?;
        let before = resident_bytes();
        let session = open(file, threads)?;
        let input = only_input(&session)?;
        let output = selected_output(&session, args)?;

        let source = Source::from_args(args);
        let shape = float_shape(input.dtype(), "input", input.name())?;
        let window = window(&shape, source, args.window, row)?;
        let (dims, has_batch) = input_dims(&shape, &source.dims(window))?;
        let input = input.name().to_owned();
        let selector = OutputSelector::no_default().with(output);
        let options = RunOptions::new().map_err(load_error)?;

        let mut model = Self {
            session: Mutex::new((session, options.with_outputs(selector))),
            input,
            dims,
            has_batch,
            sizes: ModelSizes::default(),
            output_dims: [0; 3],
            output_shape: Vec::new(),
            bytes: 0,
        };
        model.measure(args, window)?;
        let grown = resident_bytes().saturating_sub(before);
        model.bytes = grown.max(file.len() as u64);
        Ok(model)
    }

    /// Runs the model on zeros, to learn the shape of its output.
    fn measure(&mut self, args: &OnnxArgs, window: usize) -> Result<(), TensorError> {
        let mut dims = self.dims.iter();
        let n_values = dims.try_fold(1_usize, |n, &dim| n.checked_mul(dim));
        let n_values = n_values.filter(|n| (1..=INPUT_VALUES_MAX).contains(n));
        let n_values = n_values.ok_or_else(|| {
            let problem = format!(
                "its input has the shape {:?}; allowed: 1 to {INPUT_VALUES_MAX} values",
                self.dims
            );
            Fault::new("model", problem)
        })?;
        let shape = self.run(&vec![0.0; n_values], &mut Vec::new())?;
        let of_window = match self.has_batch {
            true if shape.first() == Some(&1) => &shape[1..],
            true => {
                return Err(output_fault(
                    &shape,
                    "its first axis is not that of the batch",
                ));
            }
            false => &shape[..],
        };

        let [layers, frames, values] = match of_window {
            [values] => [0, 1, *values],
            [frames, values] => [0, *frames, *values],
            [layers, frames, values] => [*layers, *frames, *values],
            _ => {
                return Err(output_fault(
                    &shape,
                    "allowed behind the batch: [values], [frames, values], [layers, frames, values]",
                ));
            }
        };
        if frames == 0 || values == 0 {
            return Err(output_fault(&shape, "it is empty"));
        }
        self.output_dims = [layers.max(1), frames, values];
        self.output_shape.clone_from(&shape);
        self.sizes = ModelSizes {
            window,
            frames,
            pooled: pooled(args, layers, values)?,
        };
        Ok(())
    }

    /// Returns the sizes of the model's input and output.
    pub(crate) const fn sizes(&self) -> &ModelSizes {
        &self.sizes
    }

    /// Returns the bytes by which loading and running the model increased the memory of the process.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the bytes of the buffers of one [`ModelPlan`](super::ModelPlan): window and output of a call, and the
    /// sums over a row.
    pub(crate) fn buffer_bytes(&self) -> usize {
        let input = self.dims.iter().product::<usize>();
        let output = self.output_dims.iter().product::<usize>();
        let values = self.output_dims[0] * self.output_dims[2];
        (input + output) * size_of::<f32>() + values * 2 * size_of::<f64>()
    }

    /// Returns the dimensions of the output for one window: layers, frames, values.
    pub(super) const fn output_dims(&self) -> [usize; 3] {
        self.output_dims
    }

    /// Runs the model like [`Self::run`], and checks that the output has the shape of the output for zeros.
    pub(super) fn run_alike(&self, window: &[f32], out: &mut Vec<f32>) -> Result<(), TensorError> {
        let shape = self.run(window, out)?;
        if shape == self.output_shape {
            return Ok(());
        }
        Err(TensorError::not_run(&format!(
            "its output has the shape {shape:?}, and for zeros {:?}: the shape must not depend on values",
            self.output_shape
        )))
    }

    /// Runs the model on a window. Replaces `out` by the output and returns its shape.
    ///
    /// A call computes one window: on a CPU, eight windows at once took eight times as long as one.
    pub(super) fn run(
        &self,
        window: &[f32],
        out: &mut Vec<f32>,
    ) -> Result<Vec<usize>, TensorError> {
        let shape = self.dims.clone();
        let tensor = TensorRef::from_array_view((shape, window)).map_err(run_error)?;
        // A panic elsewhere leaves the session as it was.
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let (session, options) = &mut *session;
        let outputs = session
            .run_with_options(ort::inputs![self.input.as_str() => tensor], options)
            .map_err(run_error)?;
        let (shape, values) = outputs[0].try_extract_tensor::<f32>().map_err(run_error)?;
        out.clear();
        out.extend_from_slice(values);
        Ok(shape.iter().map(|&dim| dim as usize).collect())
    }
}

fn load_error(error: ort::Error) -> TensorError {
    TensorError::not_loaded(error.message().trim())
}

/// Refuses a model that has weights in other files, which ONNX Runtime would read relative to the current directory.
fn require_one_file(file: &[u8]) -> Result<(), TensorError> {
    // ONNX Runtime's own format, which it reads from memory without other files.
    if file.get(4..8) == Some(b"ORTM") {
        return Ok(());
    }
    match has_external_data(file) {
        Some(false) => Ok(()),
        Some(true) => {
            let problem = "has weights in another file, which no hash covers: export it with external_data=False, or \
                           convert it with onnx.save(onnx.load(OLD), NEW)";
            Err(Fault::new("model", problem).into())
        }
        None => {
            let problem = "it is not a complete file in ONNX format (protocol buffers)";
            Err(TensorError::not_loaded(problem))
        }
    }
}

fn run_error(error: ort::Error) -> TensorError {
    TensorError::not_run(error.message().trim())
}

fn open(file: &[u8], threads: usize) -> Result<Session, TensorError> {
    let builder = Session::builder(environment()?).map_err(load_error)?;
    let builder = builder
        .with_intra_threads(threads)
        .and_then(|builder| builder.with_inter_threads(1))
        // Spinning threads would take time from those that decode.
        .and_then(|builder| builder.with_intra_op_spinning(false))
        .and_then(|builder| builder.with_deterministic_compute(true));
    let mut builder = builder.map_err(|error| TensorError::not_loaded(error.message()))?;
    builder.commit_from_memory(file).map_err(load_error)
}

fn names(outlets: &[Outlet]) -> String {
    let names: Vec<&str> = outlets.iter().map(Outlet::name).collect();
    names.join(", ")
}

fn only_input(session: &Session) -> Result<&Outlet, TensorError> {
    match session.inputs() {
        [input] => Ok(input),
        [] => Err(Fault::new("model", "has no input").into()),
        inputs => Err(Fault::new(
            "model",
            format!(
                "has the inputs {}: export it with a single one, for samples or for a feature",
                names(inputs)
            ),
        )
        .into()),
    }
}

/// Returns the name of the output that the feature stores.
fn selected_output(session: &Session, args: &OnnxArgs) -> Result<String, TensorError> {
    let outputs = session.outputs();
    let selected = match &args.output {
        Some(name) => outputs.iter().find(|output| output.name() == name),
        None if outputs.len() == 1 => outputs.first(),
        None => None,
    };
    let Some(output) = selected else {
        let problem = match &args.output {
            Some(name) => format!("the model has no output `{name}`"),
            None => "is missing: the model has several outputs".to_owned(),
        };
        let names = names(outputs);
        return Err(Fault::new("output", format!("{problem}; allowed: {names}")).into());
    };

    float_shape(output.dtype(), "output", output.name())?;
    Ok(output.name().to_owned())
}

/// Returns the dimensions of an input or output; a dynamic one is −1.
fn float_shape(dtype: &ValueType, kind: &str, name: &str) -> Result<Vec<i64>, TensorError> {
    match dtype {
        ValueType::Tensor {
            ty: TensorElementType::Float32,
            shape,
            ..
        } => Ok(shape.iter().copied().collect()),
        other => {
            let problem =
                format!("its {kind} `{name}` is {other}: export it with a tensor of float32");
            Err(Fault::new("model", problem).into())
        }
    }
}

/// Returns the number of samples or frames of a window: as the model fixes it, as the recipe gives it, or those of a
/// row.
fn window(
    shape: &[i64],
    source: Source,
    given: Option<usize>,
    row: Option<usize>,
) -> Result<usize, TensorError> {
    let n_axes = source.dims(0).len();
    let axis = shape.len().checked_sub(n_axes - source.axis());
    let fixed = axis.and_then(|axis| shape.get(axis)).copied();
    let fixed = fixed.and_then(|dim| usize::try_from(dim).ok());

    match (fixed, given) {
        (Some(fixed), Some(given)) if fixed != given => Err(Fault::new(
            "window_s",
            format!(
                "the model takes {fixed} samples or frames, as its input is {}, and this is {given}: remove window_s, or \
                 change the dim_order of the source",
                shown(shape)
            ),
        )
        .into()),
        (Some(window), _) | (None, Some(window)) => Ok(window),
        (None, None) => row.ok_or_else(|| {
            let problem = "is missing: rows have any length, and a model's memory grows with it; or set audio.duration_s \
                           or audio.segment_s";
            Fault::new("window_s", problem).into()
        }),
    }
}

/// Compares the model's input with the dimensions of a window. In front of these, it may have an axis for a batch, and
/// behind that one of channels of size 1. Returns the dimensions with these axes, and whether there are any.
fn input_dims(shape: &[i64], window: &[usize]) -> Result<(Vec<usize>, bool), TensorError> {
    let n_front = shape.len().saturating_sub(window.len());
    let ones = std::iter::repeat_n(1, n_front);
    let dims: Vec<usize> = ones.chain(window.iter().copied()).collect();
    let fits = |(&wanted, &dim): (&i64, &usize)| wanted < 0 || wanted == dim as i64;
    let is_fit = n_front <= 2 && dims.len() == shape.len() && shape.iter().zip(&dims).all(fits);
    if is_fit {
        return Ok((dims, n_front > 0));
    }

    let window: Vec<String> = window.iter().map(ToString::to_string).collect();
    let window = window.join(", ");
    let problem = format!(
        "its input has the shape {}, and a window [{window}]; allowed: [{window}], [batch, {window}], [batch, 1, {window}], \
         where the batch is dynamic or 1",
        shown(shape)
    );
    Err(Fault::new("model", problem).into())
}

fn shown(shape: &[i64]) -> String {
    let dims = shape.iter().map(|&dim| match dim {
        ..0 => "dynamic".to_owned(),
        dim => dim.to_string(),
    });
    format!("[{}]", dims.collect::<Vec<_>>().join(", "))
}

fn output_fault(shape: &[usize], problem: &str) -> TensorError {
    Fault::new("output", format!("has the shape {shape:?}: {problem}")).into()
}

/// Returns the dimensions of a pooled output.
fn pooled(args: &OnnxArgs, layers: usize, values: usize) -> Result<Vec<usize>, TensorError> {
    let values = match args.pooling {
        Pooling::MeanStd => 2 * values,
        Pooling::Mean | Pooling::Window | Pooling::None => values,
    };

    match args.layer {
        None if layers == 0 => Ok(vec![values]),
        None if args.pooling == Pooling::None => {
            let problem =
                format!("is missing: pooling = \"none\" stores one of the {layers} layers");
            Err(Fault::new("layer", problem).into())
        }
        None => Ok(vec![layers, values]),
        Some(layer) if layer < layers => Ok(vec![values]),
        Some(_) => {
            let problem = match layers {
                0 => "the output has no layers".to_owned(),
                _ => format!("allowed: 0 to {}", layers - 1),
            };
            Err(Fault::new("layer", problem).into())
        }
    }
}

/// Returns the bytes of memory of this process, or 0 where the system does not tell.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = statm.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kb = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kb.unwrap_or(0) << 10
}
