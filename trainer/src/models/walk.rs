//! The path of a row through a model: stages, the operations of each stage, and branches.
//!
//! The model records this path during its forward pass, so a description cannot differ from the code. Training uses a
//! disabled [`Walk`], for which no description is created.

use std::fmt::Display;

use serde::Serialize;
use tch::Tensor;

/// Kind of an operation.
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

/// An operation on a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Operation {
    pub kind: OperationKind,
    /// Name, such as `2-D convolution`.
    pub name: &'static str,
    /// Window, stride, width or rate in words; empty if the operation has no settings.
    pub settings: String,
    /// Number of trainable parameters.
    pub parameters: i64,
}

impl Operation {
    /// Creates an operation without parameters.
    pub(crate) fn fixed(name: &'static str, settings: impl Into<String>) -> Self {
        Self {
            kind: OperationKind::Other,
            name,
            settings: settings.into(),
            parameters: 0,
        }
    }

    /// Creates the operation that flattens a row's values into one axis for a dense layer.
    pub(crate) fn flatten() -> Self {
        Self::fixed("flatten", "")
    }
}

/// Merges runs of equal operations into one operation each, with the number of repetitions in its settings.
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

/// A stage: its operations and the shape of its output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stage {
    /// Name in the architecture's definition.
    pub name: String,
    /// Shape of the output for one row, without n.
    pub shape: Vec<i64>,
    /// Branch that contains the stage; `None` before a fork and after the join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<&'static str>,
    /// Operations in the order of execution.
    pub operations: Vec<Operation>,
    /// Parameters of all operations.
    pub parameters: i64,
}

/// One of several parallel branches, from an input to the stage that joins them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Branch {
    /// Name, as in [`Stage::branch`].
    pub name: &'static str,
    /// Name of the input that the branch starts with.
    pub input: &'static str,
}

/// Records each stage that a model reports during a forward pass, in order, unless it is disabled.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    record: Option<WalkRecord>,
}

/// Stages and branches recorded during a forward pass.
#[derive(Debug, Default)]
pub(crate) struct WalkRecord {
    pub stages: Vec<Stage>,
    /// Branches from left to right; empty if the stages form one sequence.
    pub branches: Vec<Branch>,
    current: Option<&'static str>,
}

impl Walk {
    /// Creates a disabled walk, which records nothing.
    pub(crate) const fn unheard() -> Self {
        Self { record: None }
    }

    /// Creates a walk that records everything.
    pub(crate) fn recorded() -> Self {
        Self {
            record: Some(WalkRecord::default()),
        }
    }

    /// Returns the recorded stages and branches; none if the walk is disabled.
    pub(crate) fn into_record(self) -> WalkRecord {
        self.record.unwrap_or_default()
    }

    /// Records a stage: its name, its output `[n, …]`, and the operations since the previous stage.
    pub(crate) fn stage(
        &mut self,
        name: impl Display,
        x: &Tensor,
        operations: impl FnOnce() -> Vec<Operation>,
    ) {
        let Some(record) = &mut self.record else {
            return;
        };
        let operations = operations();
        record.stages.push(Stage {
            name: name.to_string(),
            shape: x.size().split_off(1),
            branch: record.current,
            parameters: operations.iter().map(|one| one.parameters).sum(),
            operations,
        });
    }

    /// Starts the branch `name`, which begins at `input` and contains the stages that follow.
    pub(crate) fn branch(&mut self, name: &'static str, input: &'static str) {
        if let Some(record) = &mut self.record {
            record.branches.push(Branch { name, input });
            record.current = Some(name);
        }
    }

    /// Ends all branches. The next stage concatenates their outputs.
    pub(crate) fn join(&mut self) {
        if let Some(record) = &mut self.record {
            record.current = None;
        }
    }
}
