//! The web page: a static frame that the script fills.

use maud::{DOCTYPE, Markup, html};

use wavemill_source::Media;

use super::limits::Limits;

/// Script of the page. It sends songs and displays the responses.
pub(crate) const SCRIPT: &str = include_str!("page.js");

/// Style rules of this page in addition to the common style of all pages.
const STYLE: &str = include_str!("page.css");

/// Returns the style sheet of the page.
pub(crate) fn style() -> String {
    format!("{}{STYLE}", wavemill_pages::STYLE)
}

/// Builds the page of a server with the models `runs`.
pub(crate) fn index(runs: &[&str], limits: &Limits) -> Markup {
    let size = wavemill_pages::binary_bytes(limits.upload_bytes as u64);
    let length = wavemill_pages::seconds(limits.song_s);
    let extensions = Media::Audio.extensions().join(",.");

    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                link rel="icon" href="data:,";
                title { "Genre prediction" }
                link rel="stylesheet" href="/page.css";
                script src="/page.js" defer {}
            }
            body {
                header {
                    h1 { "Genre prediction" }
                    p.lead {
                        "Genres of songs are predicted by "
                        @for (place, run) in runs.iter().enumerate() {
                            @if place > 0 { " and " }
                            strong { (run) }
                        }
                        ". Songs are sent only to this server and are not stored."
                    }
                }
                main {
                    section aria-labelledby="send-title" {
                        h2 #send-title { "Songs" }
                        div #drop {
                            label.button for="files" { "Choose songs" }
                            input #files type="file" multiple
                                accept={ "audio/*,." (extensions) } aria-describedby="may";
                            p #may.note {
                                "Or drop them anywhere on this page. MP3, AAC, Ogg, FLAC, WAV and others, at most " (size)
                                " and " (length) " each."
                            }
                        }
                        noscript { p.warning { "This page requires JavaScript. Programs can use /api/predict." } }
                        ol #songs aria-label="Songs of this tab, newest first" {}
                        p #said role="status" {}
                    }
                    section aria-labelledby="answers-title" {
                        h2 #answers-title { "Predictions" }
                        p #none.note { "No predictions yet." }
                        div #answers {}
                        p { button #clear type="button" hidden { "Clear all predictions" } }
                    }
                }
                footer {
                    "wavemill " (env!("CARGO_PKG_VERSION")) ". "
                    a href="/api/openapi.json" { "API description" } "."
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_names_are_escaped_without_inline_scripts() {
        let page = index(&["a", "<script>b"], &Limits::default()).into_string();
        assert!(
            page.contains("&lt;script&gt;b") && !page.contains("<script>"),
            "{page}"
        );

        // The content security policy blocks inline styles and scripts.
        assert!(
            !page.contains("style=") && !page.contains("<style"),
            "{page}"
        );
    }
}
