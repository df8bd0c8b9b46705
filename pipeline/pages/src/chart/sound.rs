//! A sound shown with its image: a waveform and a player.
//!
//! The sound is a WAVE file embedded in the page, because a page loads no other files. The file is written here from
//! samples: no byte of the source file reaches a browser's decoder.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, PreEscaped, html};

use super::svg::{Ink, WIDTH};
use crate::text::number;
use crate::wav::wave_of_integers;

/// Height of a waveform, in SVG units.
const HEIGHT: u32 = 56;
/// Maximum number of lines in a waveform: each is two SVG units wide.
const SPANS: usize = 240;
/// Maximum number of samples of one sound in a page: more than 90 s at 44.1 kHz, or 11 MB in base64.
const SAMPLES_MAX: usize = 1 << 22;

/// A sound of one channel, to be shown and played in a page.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sound {
    /// The sample rate of the sound.
    pub sample_rate_hz: u32,
    /// The start of the sound within its recording, in seconds.
    pub from_s: f64,
    /// The samples; full scale is ±1, and louder samples are clipped.
    pub samples: Vec<f32>,
}

impl Sound {
    /// Returns the samples that are embedded in a page: at most [`SAMPLES_MAX`].
    fn samples(&self) -> &[f32] {
        &self.samples[..self.samples.len().min(SAMPLES_MAX)]
    }

    /// Returns the waveform and the player; `alt` describes the sound.
    pub(super) fn markup(&self, alt: &str) -> Markup {
        if self.samples.is_empty() || self.sample_rate_hz == 0 {
            return html! {};
        }

        let Some(file) = wave_of_integers(self.samples(), self.sample_rate_hz) else {
            return html! {};
        };
        let address = format!("data:audio/wav;base64,{}", STANDARD.encode(file));
        let span_s = self.samples().len() as f64 / f64::from(self.sample_rate_hz);
        html! {
            div.sound {
                // The player is accessible, so the waveform is hidden from screen readers.
                svg aria-hidden="true" viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } { (PreEscaped(self.waveform())) }
                audio controls preload="metadata" aria-label={ "Listen: " (alt) } src=(address) {}
                p.note {
                    "Excerpt: " (number(tenths(span_s))) " s, starting at second " (number(tenths(self.from_s))) "."
                }
            }
        }
    }

    /// Returns the waveform as an SVG path: for each span, a line from its lowest to its highest sample.
    fn waveform(&self) -> String {
        let samples = self.samples();
        let span = samples.len().div_ceil(SPANS).max(1);
        let step = f64::from(WIDTH) / samples.len().div_ceil(span) as f64;

        let mut path = String::new();
        for (place, span) in samples.chunks(span).enumerate() {
            let low = span.iter().copied().fold(1.0, f32::min);
            let high = span.iter().copied().fold(-1.0, f32::max);
            let top = height_of(high);
            // Silence is drawn as a line of minimum length.
            let bottom = height_of(low).max(top + 1.0);
            let x = (place as f64 + 0.5) * step;
            // Writing to a string cannot fail.
            let _ = write!(path, "M{x:.1} {top:.1}V{bottom:.1}");
        }

        let code = Ink::Series(0).code();
        format!("<path class=\"l k{code}\" stroke-width=\"{step:.1}\" d=\"{path}\"/>")
    }
}

/// Returns the distance of a sample from the top of the waveform, in SVG units.
fn height_of(sample: f32) -> f64 {
    let half = f64::from(HEIGHT) / 2.0;
    half - f64::from(sample.clamp(-1.0, 1.0)) * (half - 1.0)
}

fn tenths(seconds: f64) -> f64 {
    (seconds * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sound(samples: &[f32]) -> Sound {
        Sound {
            sample_rate_hz: 22_050,
            from_s: 3.0,
            samples: samples.to_vec(),
        }
    }

    #[test]
    fn a_waveform_goes_from_the_lowest_to_the_highest_sample() {
        let path = sound(&[1.0, -1.0, 0.0]).waveform();
        assert!(
            path.contains("M80.0 1.0V2.0M240.0 55.0V56.0M400.0 28.0V29.0"),
            "{path}"
        );
        let long: Vec<f32> = (0..100_000).map(|at| (at % 3) as f32 - 1.0).collect();
        let path = sound(&long).waveform();
        assert!(path.matches('M').count() <= SPANS, "{path}");
        assert_eq!(path.matches(" 1.0V55.0").count(), path.matches('M').count());
    }

    #[test]
    fn a_player_says_which_part_it_plays() {
        let html = sound(&[0.5; 11_025]).markup("a < b").into_string();
        assert!(html.contains("aria-label=\"Listen: a &lt; b\""), "{html}");
        assert!(html.contains("src=\"data:audio/wav;base64,UklGR"), "{html}");
        assert!(html.contains("0.5 s, starting at second 3."), "{html}");
        assert_eq!(sound(&[]).markup("").into_string(), "");
    }
}
