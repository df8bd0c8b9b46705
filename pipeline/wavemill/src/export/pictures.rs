//! The format `png`: one picture per row, in one folder per class.

use std::path::Path;

use png::ColorType;
use wavemill_pages::encode_png;
use wavemill_schemas::recipe::Dtype;

use super::Format;
use super::class_files;
use super::content::{Content, PictureAxes};
use super::error::ExportError;
use super::reader::{Reader, Tensors};

/// Maximum width and height of a PNG picture, in pixels.
const SIDE_MAX: usize = (1 << 31) - 1;

/// Writes a picture for each row of all exported splits below `folder`; returns notes for users of the files.
///
/// # Errors
/// [`ExportError`] if rows cannot be read or a file cannot be written.
pub(super) fn write(
    content: &Content<'_>,
    reader: &Reader<'_>,
    folder: &Path,
) -> Result<Vec<String>, ExportError> {
    let mut pictures = Pictures {
        content,
        axes: content
            .picture_axes()
            .ok_or_else(|| unfit("not a picture"))?,
        values: Vec::new(),
        pixels: Vec::new(),
    };
    let mut notes = class_files::write(content, reader, folder, Format::Png, |rows, row| {
        pictures.picture(&rows.tensors, row)
    })?;
    notes.push(brightness(content).to_owned());
    Ok(notes)
}

/// Returns a note on how values are mapped to brightness.
fn brightness(content: &Content<'_>) -> &'static str {
    if content.tensor.dtype == Dtype::U8 {
        "stored bytes are the brightness"
    } else if content.is_unit_range {
        "values from 0 to 1 are black to white"
    } else {
        "black and white are the smallest and the largest value of each row"
    }
}

fn unfit(problem: &str) -> ExportError {
    ExportError::unfit(&Format::Png.name(), problem)
}

/// Converts the tensors of rows to PNG pictures.
struct Pictures<'a> {
    content: &'a Content<'a>,
    axes: PictureAxes,
    /// Scratch buffer for the values of a row.
    values: Vec<f32>,
    /// Scratch buffer for the pixels of a picture.
    pixels: Vec<u8>,
}

impl Pictures<'_> {
    fn picture(&mut self, tensors: &Tensors<'_>, row: usize) -> Result<Vec<u8>, ExportError> {
        let shape = tensors.shape(row)?;
        let width = shape[self.axes.width];
        let height = shape[self.axes.height];
        if width == 0 || height == 0 || width > SIDE_MAX || height > SIDE_MAX {
            return Err(unfit(&format!(
                "a row of {width} x {height} values is not a picture"
            )));
        }
        let color = match self.axes.channel {
            Some(_) => ColorType::Rgb,
            None => ColorType::Grayscale,
        };

        self.values.clear();
        let bytes = tensors.bytes(row);
        let brightness: &[u8] = if self.content.tensor.dtype == Dtype::U8 {
            &bytes
        } else {
            tensors.read(row, &mut self.values);
            self.pixels.clear();
            let range = self.range();
            let values = self.values.iter();
            self.pixels.extend(values.map(|value| range.byte(*value)));
            &self.pixels
        };
        let upright = arranged(brightness, &shape, self.axes);
        let file = encode_png(width, height, color, &upright);
        Ok(file.expect("writing to a vector cannot fail, and the pixels match the dimensions"))
    }

    fn range(&self) -> Range {
        if self.content.is_unit_range {
            return Range {
                low: 0.0,
                high: 1.0,
            };
        }

        let values = self.values.iter().copied();
        Range {
            low: values.clone().fold(f32::INFINITY, f32::min),
            high: values.fold(f32::NEG_INFINITY, f32::max),
        }
    }
}

/// The tensor values that are shown as black and as white.
#[derive(Clone, Copy, Debug)]
struct Range {
    low: f32,
    high: f32,
}

impl Range {
    fn byte(self, value: f32) -> u8 {
        // The span is computed in f64, because the difference of two f32 can exceed the largest f32.
        let span = f64::from(self.high) - f64::from(self.low);
        if span <= 0.0 {
            return 0;
        }
        let share = (f64::from(value) - f64::from(self.low)) / span;
        // The cast to u8 saturates at 0 and 255.
        (share * 255.0).round() as u8
    }
}

/// Arranges the values of a tensor in picture lines from top to bottom, with interleaved channels.
fn arranged(values: &[u8], shape: &[usize], axes: PictureAxes) -> Vec<u8> {
    // Distance between neighbouring elements along each dimension of the tensor.
    let mut strides = vec![1; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis] * shape[axis];
    }

    let n_channels = axes.channel.map_or(1, |axis| shape[axis]);
    let channel_stride = axes.channel.map_or(0, |axis| strides[axis]);
    let mut out = Vec::with_capacity(values.len());
    for line in 0..shape[axes.height] {
        let line = if axes.flipped {
            shape[axes.height] - 1 - line
        } else {
            line
        };
        for x in 0..shape[axes.width] {
            let at = line * strides[axes.height] + x * strides[axes.width];
            for channel in 0..n_channels {
                out.push(values[at + channel * channel_stride]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const GREY: PictureAxes = PictureAxes {
        channel: None,
        height: 0,
        width: 1,
        flipped: true,
    };

    #[test]
    fn low_frequencies_are_at_the_bottom_and_time_goes_to_the_right() {
        // A tensor of two bands and three frames; the first band has the lower frequency.
        let bands_first = [1, 2, 3, 11, 12, 13];
        let wanted = [11, 12, 13, 1, 2, 3];
        assert_eq!(arranged(&bands_first, &[2, 3], GREY), wanted);

        let frames_first = [1, 11, 2, 12, 3, 13];
        let axes = PictureAxes {
            height: 1,
            width: 0,
            ..GREY
        };
        assert_eq!(arranged(&frames_first, &[3, 2], axes), wanted);
    }

    #[test]
    fn channels_come_together_and_pictures_stay_upright() {
        let axes = PictureAxes {
            channel: Some(0),
            height: 1,
            width: 2,
            flipped: false,
        };
        let planes = [1, 2, 3, 4, 11, 12, 13, 14, 21, 22, 23, 24];
        let wanted = [1, 11, 21, 2, 12, 22, 3, 13, 23, 4, 14, 24];
        assert_eq!(arranged(&planes, &[3, 2, 2], axes), wanted);
    }

    #[test]
    fn values_become_brightness() {
        let row = Range {
            low: -80.0,
            high: 0.0,
        };
        assert_eq!(
            [-80.0, -40.0, 0.0].map(|value| row.byte(value)),
            [0, 128, 255]
        );

        let constant = Range {
            low: 3.0,
            high: 3.0,
        };
        assert_eq!(constant.byte(3.0), 0);

        let widest = Range {
            low: f32::MIN,
            high: f32::MAX,
        };
        assert_eq!(
            [f32::MIN, f32::MAX].map(|value| widest.byte(value)),
            [0, 255]
        );
    }
}
