//! Groups of rows that must stay together, by union-find.

use std::collections::HashMap;
use std::hash::Hash;

use super::SplitRow;

/// Rows, and the groups to which they belong.
pub(super) struct LinkedRows<'a, 'r> {
    rows: &'a [SplitRow<'r>],
    /// For each row, another row of the same group, or the row itself if it is the root.
    parent: Vec<usize>,
}

impl<'a, 'r> LinkedRows<'a, 'r> {
    /// Creates a separate group for every row.
    pub(super) fn new(rows: &'a [SplitRow<'r>]) -> Self {
        Self {
            rows,
            parent: (0..rows.len()).collect(),
        }
    }

    /// Joins the groups of rows for which `id` returns the same value.
    pub(super) fn link_by<T: Eq + Hash>(&mut self, id: impl Fn(&SplitRow<'r>) -> Option<T>) {
        let mut first = HashMap::new();
        for (index, row) in self.rows.iter().enumerate() {
            let Some(id) = id(row) else { continue };
            let first = *first.entry(id).or_insert(index);
            let first = self.root(first);
            let this = self.root(index);
            self.parent[this] = first;
        }
    }

    /// Joins the groups of rows with the same recording or near copies of it.
    pub(super) fn link_copies(&mut self) {
        self.link_by(|row| row.recording);
        self.link_by(|row| row.near_group);
    }

    fn root(&mut self, mut index: usize) -> usize {
        while self.parent[index] != index {
            // Path halving shortens long chains of links between rows.
            self.parent[index] = self.parent[self.parent[index]];
            index = self.parent[index];
        }
        index
    }

    /// Returns the groups, in no particular order; the rows within each group are ordered by key.
    pub(super) fn groups(mut self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut place_of = vec![None; self.rows.len()]; // index of each group, by its root row
        for index in 0..self.rows.len() {
            let place = *place_of[self.root(index)].get_or_insert(groups.len());
            if place == groups.len() {
                groups.push(Vec::new());
            }
            groups[place].push(index);
        }

        for group in &mut groups {
            group.sort_by_key(|&index| self.rows[index].key);
        }
        groups
    }
}
