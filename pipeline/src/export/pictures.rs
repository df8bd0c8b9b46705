//! `png`: a picture a row, in a folder a class.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use wavemill_schemas::manifest::TargetEntry;
use wavemill_schemas::recipe::Dtype;

use super::content::{Content, PictureAxes, Side};
use super::error::ExportError;
use super::keys::{KeyTable, Keys};
use super::output::OutFile;
use super::png::{Colour, SIDE_MAX, encode};
use super::reader::{Reader, Tensors};
use super::{Format, arrays, names};

/// The folder of rows without a class.
const UNLABELLED: &str = "unlabelled";

/// Writes all sides below `folder`; returns what a reader has to know.
///
/// # Errors
/// [`ExportError`].
pub(super) fn write(
    content: &Content<'_>,
    reader: &Reader<'_>,
    folder: &Path,
) -> Result<Vec<String>, ExportError> {
    let axes = content.picture_axes().ok_or_else(|| unfit("no picture"))?;
    let folders = ClassFolders::new(content.target);
    let mut missing = Vec::new();
    for side in &content.sides {
        let mut pictures = Pictures {
            content,
            axes,
            folders: &folders,
            folder: folder.join(&side.name),
            made: BTreeSet::new(),
            values: Vec::new(),
            pixels: Vec::new(),
        };
        pictures.side(side, reader, folder)?;
        missing.extend(folders.missing(side, &pictures.made));
    }

    let mut notes = Vec::new();
    if let Some(target) = content.target {
        folders.write_table(target, folder)?;
        notes.push(format!(
            "folders are classes of {}; classes.csv has their ids",
            target.name
        ));
    }
    if !missing.is_empty() {
        // `ImageFolder` numbers the folders that it finds.
        notes.push(format!(
            "a side without a folder for each class: numbers that a loader gives to folders differ between sides; missing: {}",
            missing.join(", ")
        ));
    }
    notes.push(brightness(content).to_owned());
    Ok(notes)
}

/// How values become brightness, in words.
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
    ExportError::Unfit {
        format: Format::Png.name(),
        problem: problem.to_owned(),
    }
}

/// A folder's name for each class.
struct ClassFolders {
    /// In id order.
    names: Vec<String>,
}

impl ClassFolders {
    fn new(target: Option<&TargetEntry>) -> Self {
        let classes = target.map_or(&[][..], |target| target.classes.as_slice());
        Self {
            names: names::of_classes(classes, &[UNLABELLED]),
        }
    }

    fn name(&self, class: Option<usize>) -> &str {
        match class {
            Some(id) => &self.names[id],
            None => UNLABELLED,
        }
    }

    /// Classes without a picture on a side.
    fn missing(&self, side: &Side<'_>, made: &BTreeSet<String>) -> Vec<String> {
        let absent = self.names.iter().filter(|name| !made.contains(*name));
        absent.map(|name| format!("{}/{name}", side.name)).collect()
    }

    /// `classes.csv`: id, class, folder.
    fn write_table(&self, target: &TargetEntry, folder: &Path) -> Result<(), ExportError> {
        let path = folder.join("classes.csv");
        let written = self.table(target);
        let written = written.map_err(std::io::Error::other);
        let written = written.map_err(ExportError::io_at(&path, "write"))?;

        let mut file = OutFile::create(&path)?;
        file.put(&written)?;
        file.finish()
    }

    fn table(&self, target: &TargetEntry) -> csv::Result<Vec<u8>> {
        let mut table = csv::Writer::from_writer(Vec::new());
        table.write_record(["id", "class", "folder"])?;
        for (id, (class, name)) in target.classes.iter().zip(&self.names).enumerate() {
            table.write_record([&id.to_string(), class, name])?;
        }
        table
            .into_inner()
            .map_err(|error| error.into_error().into())
    }
}

/// The pictures of one side.
struct Pictures<'a> {
    content: &'a Content<'a>,
    axes: PictureAxes,
    folders: &'a ClassFolders,
    folder: PathBuf,
    /// Folders of classes so far.
    made: BTreeSet<String>,
    /// Scratch.
    values: Vec<f32>,
    /// Scratch.
    pixels: Vec<u8>,
}

impl Pictures<'_> {
    fn side(
        &mut self,
        side: &Side<'_>,
        reader: &Reader<'_>,
        root: &Path,
    ) -> Result<(), ExportError> {
        fs::create_dir(&self.folder)
            .map_err(ExportError::io_at(&self.folder, "create the folder"))?;
        let content = self.content;
        let path = root.join(format!("{}.csv", side.name));
        let mut table = KeyTable::create(&path, content, true, Format::Png.name())?;

        let columns = arrays::columns(content);
        reader.side(side, &arrays::as_strs(&columns), |batch| {
            let keys = Keys::of(batch, content)?;
            let tensors = Tensors::of(batch, content)?;
            for row in 0..batch.num_rows() {
                let class = match content.target {
                    Some(target) => keys.class(target, row)?,
                    None => None,
                };
                let name = names::of_row(
                    keys.clip_key.value(row),
                    keys.segment.value(row),
                    keys.variant.value(row),
                );
                let class = self.class_folder(class)?;
                let name = format!("{class}/{name}.png");
                let picture = self.picture(&tensors, row)?;
                let mut file = OutFile::create(&self.folder.join(&name))?;
                file.put(&picture)?;
                file.finish()?;
                table.row(&keys, row, &format!("{}/{name}", side.name))?;
            }
            reader.done(batch.num_rows());
            Ok(())
        })?;
        table.finish()
    }

    /// The name of a class's folder, which is there then.
    fn class_folder(&mut self, class: Option<usize>) -> Result<String, ExportError> {
        let name = self.folders.name(class).to_owned();
        if self.made.insert(name.clone()) {
            let path = self.folder.join(&name);
            fs::create_dir(&path).map_err(ExportError::io_at(&path, "create the folder"))?;
        }
        Ok(name)
    }

    fn picture(&mut self, tensors: &Tensors<'_>, row: usize) -> Result<Vec<u8>, ExportError> {
        let shape = tensors.shape(row)?;
        let width = shape[self.axes.width];
        let height = shape[self.axes.height];
        if width == 0 || height == 0 || width > SIDE_MAX || height > SIDE_MAX {
            return Err(unfit(&format!(
                "a row of {width} x {height} values is no picture"
            )));
        }
        let colour = match self.axes.channel {
            Some(_) => Colour::Rgb,
            None => Colour::Grey,
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
        Ok(encode(width, height, colour, &upright))
    }

    fn range(&self) -> Range {
        if self.content.is_unit_range {
            return Range {
                low: 0.0,
                high: 1.0,
            };
        }
        let values = || self.values.iter().copied();
        Range {
            low: values().fold(f32::INFINITY, f32::min),
            high: values().fold(f32::NEG_INFINITY, f32::max),
        }
    }
}

/// Which values are black and white.
#[derive(Clone, Copy, Debug)]
struct Range {
    low: f32,
    high: f32,
}

impl Range {
    fn byte(self, value: f32) -> u8 {
        // In f64, because two f32 can be further apart than the largest f32.
        let span = f64::from(self.high) - f64::from(self.low);
        if span <= 0.0 {
            return 0;
        }
        let share = (f64::from(value) - f64::from(self.low)) / span;
        // A cast keeps to the range of a byte.
        (share * 255.0).round() as u8
    }
}

/// The values of a tensor as lines from the top, with channels side by side.
fn arranged(values: &[u8], shape: &[usize], axes: PictureAxes) -> Vec<u8> {
    // How far apart two neighbours of a dimension are.
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
        // Two bands of three frames; the first band is the lower one.
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
