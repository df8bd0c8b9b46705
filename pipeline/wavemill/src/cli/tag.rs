//! `wavemill tag`: gives names to versions.

use anyhow::Result;
use clap::Args;
use wavemill_schemas::version_name::{TagName, VersionName};
use wavemill_store::{Store, StorePlace, TagReport};

use super::{WaitArgs, print_report};

const EXAMPLES: &str = "\
Examples:
  wavemill tag --store store 3 paper
  wavemill tag --store store 4 paper         # moves it
  wavemill info --store store --versions     # lists versions and tags
  rm store/_wavemill/tags/paper              # removes it

Every --version option accepts a number or a tag, including those of `wavemill train`. `gc` keeps \
the data of tagged versions.";

/// Give a version a name, and keep its data from being removed by gc
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct TagCommand {
    /// The store's folder, or its address such as s3://bucket/store
    #[arg(long, value_name = "DIR")]
    store: StorePlace,
    /// Version, by its number or another tag
    version: VersionName,
    /// Name of the tag: letters, digits, `.`, `_` and `-`, not only digits. An existing tag moves to this version
    name: TagName,
    #[command(flatten)]
    wait: WaitArgs,
    /// Print the tag as JSON on stdout
    #[arg(long)]
    json: bool,
}

impl TagCommand {
    /// Writes the tag to the store and prints a confirmation.
    ///
    /// # Errors
    /// `StoreError` if the version does not exist or the tag cannot be written.
    pub fn run(&self) -> Result<u8> {
        let store = Store::open(&self.store)?;
        let tagged = store.tag(&self.version, &self.name, self.wait.duration())?;
        print_report(&tagged, self.json, || format_report(&tagged))
    }
}

fn format_report(tagged: &TagReport) -> String {
    let TagReport { tag, version, .. } = tagged;
    match tagged.was {
        Some(was) if was == *version => format!("version {version} already has the tag {tag}\n"),
        Some(was) => format!("tag {tag} moved from version {was} to version {version}\n"),
        None if tagged.was_damaged => {
            format!("version {version} now has the tag {tag}; the damaged tag was replaced\n")
        }
        None => format!("version {version} now has the tag {tag}\n"),
    }
}
