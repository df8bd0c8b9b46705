//! End-to-end tests of the built programs: the files and messages that they write, and the state that they leave
//! when they are stopped.
//!
//! Each test run generates one data set of synthetic MP3s and one store of it, which tests only read.

// clippy recognizes tests by `cfg(test)`, which is not set in a test binary without the standard harness.
#![allow(clippy::unwrap_used)]

#[macro_use]
extern crate macro_rules_attribute;

// The module `trial` must precede the modules that use its macro.
#[macro_use]
mod trial;

mod backends;
mod broken;
mod bucket;
mod catalogs;
mod cli;
mod derived;
mod embeddings;
mod experiment;
mod export;
mod extract;
mod faults;
mod fit;
mod folders;
mod folds;
mod found_files;
mod grow;
mod guarded;
mod images;
mod lies;
mod links;
mod lying_bucket;
mod manifests;
mod memory;
mod near_copies;
mod pages;
mod peers;
mod progress;
mod prompt;
mod random_growth;
mod ranks;
mod real;
mod records;
mod remote;
mod report;
mod resume;
mod rows;
mod segments;
mod serve;
mod signals;
mod sounds;
mod sql;
mod steps;
mod store;
mod stretch;
mod support;
mod sweep;
mod table;
mod tags;
mod takeover;
mod terminal;
mod train;
mod train_report;
mod weights;

use wavemill_tests::Arguments;

fn main() {
    let scratch = support::make_scratch();
    let conclusion = wavemill_tests::run(&Arguments::from_args(), trial::all());

    drop(scratch);
    conclusion.exit();
}
