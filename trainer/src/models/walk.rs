//! What a row passes on its way through a model: stages, the operations of each, and branches.
//!
//! A model tells it while it answers, so that no description can differ from the code. In training nobody listens, and
//! then no word of it is made.

use std::fmt::Display;

use serde::Serialize;
use tch::Tensor;

/// What an operation is, as far as a drawing tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OperationKind {
    Convolution,
    Recurrent,
    /// Dense layers, and vectors of ids.
    Dense,
    /// All that has nothing to learn, and batch norm.
    Other,
}

/// One thing that is done to a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Operation {
    pub kind: OperationKind,
    /// Such as `2-D convolution`.
    pub name: &'static str,
    /// Window, stride, width or share, in words; empty where there is nothing to choose.
    pub settings: String,
    /// Numbers that training changes.
    pub parameters: i64,
}

impl Operation {
    /// One without anything to learn.
    pub(crate) fn fixed(name: &'static str, settings: impl Into<String>) -> Self {
        Self {
            kind: OperationKind::Other,
            name,
            settings: settings.into(),
            parameters: 0,
        }
    }

    /// All values of a row in one line, as dense layers want them.
    pub(crate) fn flatten() -> Self {
        Self::fixed("all values in one line", "")
    }
}

/// The same operations, with a run of equal ones told once.
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

/// A stage: what is done there, and what comes out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Stage {
    /// As the architecture calls it.
    pub name: String,
    /// For one row: without n.
    pub shape: Vec<i64>,
    /// The branch that it lies in; none before a fork and behind the join.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch: Option<&'static str>,
    /// In order.
    pub operations: Vec<Operation>,
    /// Of all operations.
    pub parameters: i64,
}

/// One of several ways that lie side by side, from an input to the stage that joins them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Branch {
    /// As stages name it.
    pub name: &'static str,
    /// The input that it begins at.
    pub input: &'static str,
}

/// Told of each stage, in order, by the model that a row passes.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    record: Option<WalkRecord>,
}

/// What was told.
#[derive(Debug, Default)]
pub(crate) struct WalkRecord {
    pub stages: Vec<Stage>,
    /// From left to right; none where one stage follows another.
    pub branches: Vec<Branch>,
    current: Option<&'static str>,
}

impl Walk {
    /// Nobody listens.
    pub(crate) const fn unheard() -> Self {
        Self { record: None }
    }

    /// Everything is kept.
    pub(crate) fn recorded() -> Self {
        Self {
            record: Some(WalkRecord::default()),
        }
    }

    /// What was told; nothing where nobody listened.
    pub(crate) fn into_record(self) -> WalkRecord {
        self.record.unwrap_or_default()
    }

    /// A stage's name, its output `[n, …]`, and what was done there since the stage before.
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

    /// The stages that follow lie in the branch `name`, which begins at `input`.
    pub(crate) fn branch(&mut self, name: &'static str, input: &'static str) {
        if let Some(record) = &mut self.record {
            record.branches.push(Branch { name, input });
            record.current = Some(name);
        }
    }

    /// All branches end: the next stage has them side by side.
    pub(crate) fn join(&mut self) {
        if let Some(record) = &mut self.record {
            record.current = None;
        }
    }
}
