//! Invented names, titles and biographies with features of real metadata: accents, other scripts, quotes, HTML,
//! newlines.

use crate::rng::Rng;

const FIRST: [&str; 20] = [
    "Søren",
    "Zoë",
    "Los Niños de",
    "The Quiet",
    "Åse &",
    "DJ",
    "Młody",
    "Jürgen",
    "Electric",
    "Große",
    "Señorita",
    "Old",
    "Bébé",
    "Çelik",
    "東京",
    "Miss",
    "Ivan",
    "Paper",
    "Sir",
    "Ænigma",
];
const LAST: [&str; 20] = [
    "Ångström",
    "Río",
    "Lanterns",
    "Kettle",
    "Owls",
    "Möbius",
    "Wójcik",
    "Harbour",
    "Synthé",
    "Foxglove",
    "O'Brien",
    "Straße",
    "Cartographers",
    "Ñandú",
    "Tiny Orchestra",
    "Ørsted",
    "Pigeons",
    "Trio",
    "Café",
    "Moth",
];
const TITLE: [&str; 16] = [
    "Blue",
    "Étude",
    "Last Train",
    "Rain, Again",
    "Kitchen",
    "Über den Wolken",
    "No. 9",
    "Letter",
    "\"Untitled\"",
    "Winter",
    "Après",
    "The Mill",
    "Signal",
    "Corner Shop",
    "Mañana",
    "Halfway",
];

/// Returns an artist's name that is unique for `index`.
pub(crate) fn artist(index: usize) -> String {
    // 7 and 20 are coprime, so twenty artists have twenty last names. Each further round shifts the last names by one.
    format!(
        "{} {}",
        FIRST[index % FIRST.len()],
        LAST[(index * 7 + index / FIRST.len()) % LAST.len()]
    )
}

/// Draws a title of a track or an album.
pub(crate) fn title(rng: &mut Rng) -> String {
    let first = *rng.pick(&TITLE);
    match rng.below(4) {
        0 => first.to_owned(),
        1 => format!(
            "{first} ({} version)",
            rng.pick(&["slow", "live", "demo", "2nd"])
        ),
        2 => format!("{first}: {}", rng.pick(&TITLE)),
        _ => format!("{first} & {}", rng.pick(&TITLE)),
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
