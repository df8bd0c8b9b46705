//! Photos: pictures in colours of their own, without axes.

use maud::{Markup, html};
use png::ColorType;

use super::Drawing;
use super::png::data_url;
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
    fn drawing(&self, alt: &str) -> Markup {
        let pixels = self.pixels.as_flattened();
        html! { img.photo alt=(alt) src=(data_url(self.width, ColorType::Rgb, pixels)); }
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
