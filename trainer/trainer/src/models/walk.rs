//! The path of a row through a model: stages, the operations of each stage, and parallel branches.
//!
//! The model records this path during its forward pass, so a description cannot differ from the code. Training uses a
//! disabled [`Walk`], which records no path.

use std::fmt::Display;

use serde::Serialize;
use tch::Tensor;

/// Kind of an operation in a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OperationKind {
    Convolution,
    Recurrent,
    /// Dense layers and embeddings of ids.
    Dense,
    /// Batch norm, and operations without parameters.
    Other,
}

/// An operation that a model applies to a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Operation {
    pub kind: OperationKind,
    /// Name of the operation, such as `2-D convolution`.
    pub name: &'static str,
    /// Settings of the operation in words (window, stride, width or rate); empty if there are none.
    pub settings: String,
    /// Number of trainable parameters of the operation.
    pub parameters: i64,
}

impl Operation {
    /// Creates an operation that has no parameters.
    pub(crate) fn fixed(name: &'static str, settings: impl Into<String>) -> Self {
        Self {
            kind: OperationKind::Other,
            name,
            settings: settings.into(),
            parameters: 0,
        }
    }
}

/// Returns the number of parameters of all `operations`.
pub(crate) fn parameters_of(operations: &[Operation]) -> i64 {
    operations.iter().map(|one| one.parameters).sum()
}

/// Merges consecutive equal operations into one operation, whose settings contain the number of repetitions.
pub(crate) fn repeated(operations: Vec<Operation>) -> Vec<Operation> {
    let mut folded: Vec<Operation> = Vec::new();
    for run in operations.chunk_by(|a, b| a == b) {
        let mut operation = run[0].clone();
        if run.len() > 1 {
            operation.settings += &format!(", {} times", run.len());
            operation.parameters *= run.len() as i64;
        }
        folded.push(operation);
    }
    folded
}

/// A stage of a model: consecutive operations, and the shape of their output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stage {
    /// Name of the stage in the architecture's definition.
    pub name: String,
    /// Shape of the stage's output for one row, without n.
    pub shape: Vec<i64>,
    /// Name of the branch that contains the stage; `None` before a fork and after the join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<&'static str>,
    /// Operations of the stage in the order of execution.
    pub operations: Vec<Operation>,
    /// Number of parameters of all operations.
    pub parameters: i64,
}

/// One of several parallel branches, from an input to the stage that joins them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Branch {
    /// Name of the branch, as in [`Stage::branch`].
    pub name: &'static str,
    /// Name of the input with which the branch begins.
    pub input: &'static str,
}

/// Records, in order, each stage that a model reports during a forward pass; the default is disabled and records no
/// stage.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    is_enabled: bool,
    pub stages: Vec<Stage>,
    /// Branches in the order in which they begin; empty if the stages form one sequence.
    pub branches: Vec<Branch>,
    current: Option<&'static str>,
}

impl Walk {
    /// Creates an enabled walk.
    pub(crate) fn enabled() -> Self {
        Self {
            is_enabled: true,
            ..Self::default()
        }
    }

    /// Records a stage with its name, its output `x` (`[n, …]`), and the operations since the previous stage.
    pub(crate) fn stage(
        &mut self,
        name: impl Display,
        x: &Tensor,
        operations: impl FnOnce() -> Vec<Operation>,
    ) {
        if !self.is_enabled {
            return;
        }
        let operations = operations();
        self.stages.push(Stage {
            name: name.to_string(),
            shape: x.size().split_off(1),
            branch: self.current,
            parameters: parameters_of(&operations),
            operations,
        });
    }

    /// Begins the branch `name`, which starts with `input` and contains the stages that follow.
    pub(crate) fn branch(&mut self, name: &'static str, input: &'static str) {
        if self.is_enabled {
            self.branches.push(Branch { name, input });
            self.current = Some(name);
        }
    }

    /// Ends all branches. The next stage concatenates the branches' outputs.
    pub(crate) fn join(&mut self) {
        self.current = None;
    }
}
