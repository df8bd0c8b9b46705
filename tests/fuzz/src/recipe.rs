//! Fuzz test: recipes, experiments and configurations of training. The first line of the input is an override (`--set`) if it
//! has the form `#set KEY=VALUE`. A recipe and a configuration that are accepted must survive a round trip.

use tempfile::TempDir;
use wavemill_schemas::config::Config;
use wavemill_schemas::experiment::{self, ExperimentSource};
use wavemill_schemas::recipe::{self, Recipe};

use crate::stores::{in_memory, write};

thread_local! {
    /// A folder for the file of the experiment.
    static FOLDER: TempDir = in_memory();
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let shipped = recipe::SHIPPED.iter().chain(&experiment::SHIPPED);
    let mut seeds: Vec<Vec<u8>> = shipped.map(|(_, text)| text.as_bytes().to_vec()).collect();
    let config = "#set optimizer.lr=0.1\n[model]\nname = \"crnn\"\n[train]\nepochs = 3\n";
    seeds.push(config.into());
    seeds
}

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let first = text.lines().next().unwrap_or_default();
    let sets: Vec<String> = first.strip_prefix("#set ").map(str::to_owned).into_iter().collect();

    if let Ok(config) = Config::parse(text, "fuzz", &sets) {
        let stored = toml::to_string(&config).expect("tables");
        let again = Config::parse(&stored, "fuzz", &[]).expect("the stored text is a configuration");
        assert_eq!(again.hash(), config.hash());
    }
    FOLDER.with(|folder| {
        let path = folder.path().join("experiment.toml");
        write(&path, text.as_bytes());
        if let Ok(experiment) = ExperimentSource::find(&path.display().to_string()) {
            // Errors are valid results.
            let _ = experiment.check();
        }
    });

    let source = recipe::Source { origin: "fuzz".to_owned(), text: text.to_owned() };
    let Ok((parsed, edited)) = source.parse(&sets) else {
        return;
    };
    let again = Recipe::parse(&edited, "fuzz", &[]).expect("the edited text is a recipe");
    assert_eq!(again, parsed);
    parsed.warnings();
}
