//! Photos: pictures in colours of their own, without axes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{Markup, html};

use super::svg::Picture;
use super::{Drawing, png};
use crate::table::Table;

/// A picture in colours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Photo {
    /// Number of pixels in a row.
    pub width: usize,
    /// Red, green and blue of each pixel, row by row from the top.
    pub pixels: Vec<[u8; 3]>,
}

impl Drawing for Photo {
    fn picture(&self) -> Option<Picture> {
        None
    }

    fn drawing(&self, alt: &str) -> Markup {
        let picture = STANDARD.encode(png::colours(&self.pixels, self.width));
        html! { img.photo alt=(alt) src={ "data:image/png;base64," (picture) }; }
    }

    fn summary(&self) -> String {
        let height = self.pixels.len().checked_div(self.width).unwrap_or(0);
        format!("Picture of {} by {height} pixels.", self.width)
    }

    /// Returns an empty table, because the numbers of pixels are of no use.
    fn table(&self) -> Table {
        Table::default()
    }
}
