//! Invented names, titles and biographies with features of real metadata: accents, other scripts, quotes, HTML,
//! newlines.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::rng::Rng;

/// The contents of `data/names.toml`.
static WORDS: LazyLock<Words> = LazyLock::new(|| {
    toml::from_str(include_str!("../data/names.toml")).expect("the tests read this file")
});

/// Words of which names and titles consist.
#[derive(Deserialize)]
struct Words {
    first: Vec<String>,
    last: Vec<String>,
    title: Vec<String>,
}

/// Returns an artist's name that is unique for `index`.
pub(crate) fn artist(index: usize) -> String {
    let first = &WORDS.first[index % WORDS.first.len()];
    // 7 and 20 are coprime, so twenty artists have twenty last names. Each further round shifts the last names by one.
    let round = index / WORDS.first.len();
    let last = &WORDS.last[(index * 7 + round) % WORDS.last.len()];
    format!("{first} {last}")
}

/// Draws a title of a track or an album.
pub(crate) fn title(rng: &mut Rng) -> String {
    const VERSIONS: [&str; 4] = ["slow", "live", "demo", "2nd"];

    let first = rng.pick(&WORDS.title);
    match rng.below(4) {
        0 => first.clone(),
        1 => format!("{first} ({} version)", rng.pick(&VERSIONS)),
        2 => format!("{first}: {}", rng.pick(&WORDS.title)),
        _ => format!("{first} & {}", rng.pick(&WORDS.title)),
    }
}

/// Draws a biography: empty, one line of HTML, or several lines with quotes and commas.
pub(crate) fn bio(name: &str, rng: &mut Rng) -> String {
    let year = 1960 + rng.below(55);
    match rng.below(3) {
        0 => String::new(),
        1 => format!("<p>{name} has existed, on and off, since {year}.</p>"),
        _ => format!(
            "<p>{name} (\"<em>the</em> {name}\") was dreamt up in {year}, by arithmetic.</p>\n\
             <p>Plays sines, saws &amp; noise.\nSee <a href=\"http://example.org/{year}\">the page</a>, \"if it is up\".</p>"
        ),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn artist_names_are_unique() {
        let names: std::collections::BTreeSet<String> = (0..100).map(super::artist).collect();
        assert_eq!(names.len(), 100);
    }
}
