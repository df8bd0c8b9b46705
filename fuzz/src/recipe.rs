//! Fuzz test: recipes, experiments and configurations of training. The first line of the input is an override (`--set`) if it
//! has the form `#set KEY=VALUE`. A recipe that is accepted must survive a round trip.

use wavemill_schemas::config::Config;
use wavemill_schemas::experiment;
use wavemill_schemas::recipe::{self, Recipe};

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

    let _ = Config::parse(text, "fuzz", &sets);
    let source = recipe::Source { origin: "fuzz".to_owned(), text: text.to_owned() };
    let Ok((parsed, edited)) = source.parse(&sets) else {
        return;
    };
    let again = Recipe::parse(&edited, "fuzz", &[]).expect("the edited text is a recipe");
    assert_eq!(again, parsed);
    parsed.warnings();
}
