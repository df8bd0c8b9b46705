//! The filters of Chromaprint's algorithm 1. Each compares the energies of two areas of notes and frames, and two bits of
//! an item are the quarter of its range in which the ratio is.

/// Number of notes of an octave.
pub(super) const N_NOTES: usize = 12;

/// Division of a filter's area into two parts that are compared.
#[derive(Clone, Copy)]
enum Parts {
    /// The whole area, and nothing.
    Whole,
    /// The upper and the lower half of the notes.
    NoteHalves,
    /// The later and the earlier half of the frames.
    FrameHalves,
    /// Lower notes of later frames with upper notes of earlier frames, and the other two quarters.
    Diagonals,
    /// The middle third of the notes, and the others.
    NoteThirds,
    /// The middle third of the frames, and the others.
    FrameThirds,
}

/// A filter over 12 notes and 16 frames.
pub(super) struct Filter {
    parts: Parts,
    /// The lowest note of the area.
    note: usize,
    /// Number of notes of the area.
    n_notes: usize,
    /// Number of frames of the area, from the first.
    n_frames: usize,
    /// Natural logarithms of the ratios at which the second, third and last quarter begin.
    quarters: [f64; 3],
}

const fn filter(parts: Parts, [note, n_notes, n_frames]: [usize; 3], quarters: [f64; 3]) -> Filter {
    Filter {
        parts,
        note,
        n_notes,
        n_frames,
        quarters,
    }
}

/// The filters in the order of their bits, from the highest.
pub(super) const FILTERS: [Filter; 16] = [
    filter(Parts::Whole, [4, 3, 15], [1.98215, 2.35817, 2.63523]),
    filter(
        Parts::NoteThirds,
        [4, 6, 15],
        [-1.03809, -0.651211, -0.282167],
    ),
    filter(
        Parts::NoteHalves,
        [0, 4, 16],
        [-0.298702, 0.119262, 0.558497],
    ),
    filter(
        Parts::Diagonals,
        [8, 2, 12],
        [-0.105439, 0.0153946, 0.135898],
    ),
    filter(
        Parts::Diagonals,
        [4, 4, 8],
        [-0.142891, 0.0258736, 0.200632],
    ),
    filter(
        Parts::NoteThirds,
        [0, 3, 5],
        [-0.826319, -0.590612, -0.368214],
    ),
    filter(
        Parts::NoteHalves,
        [2, 2, 9],
        [-0.557409, -0.233035, 0.0534525],
    ),
    filter(
        Parts::FrameHalves,
        [7, 3, 4],
        [-0.0646826, 0.00620476, 0.0784847],
    ),
    filter(
        Parts::FrameHalves,
        [6, 2, 16],
        [-0.192387, -0.029699, 0.215855],
    ),
    filter(
        Parts::FrameHalves,
        [1, 3, 2],
        [-0.0397818, -0.00568076, 0.0292026],
    ),
    filter(
        Parts::FrameThirds,
        [10, 1, 15],
        [-0.53823, -0.369934, -0.190235],
    ),
    filter(
        Parts::Diagonals,
        [6, 2, 10],
        [-0.124877, 0.0296483, 0.139239],
    ),
    filter(
        Parts::FrameHalves,
        [1, 1, 14],
        [-0.101475, 0.0225617, 0.231971],
    ),
    filter(
        Parts::Diagonals,
        [5, 6, 4],
        [-0.0799915, -0.00729616, 0.063262],
    ),
    filter(
        Parts::NoteHalves,
        [9, 2, 12],
        [-0.272556, 0.019424, 0.302559],
    ),
    filter(
        Parts::Diagonals,
        [4, 2, 14],
        [-0.164292, -0.0321188, 0.0846339],
    ),
];

impl Filter {
    /// Returns the quarter in which the ratio of the two parts is, 0 to 3. `sums` are the sums of all energies of earlier
    /// frames and lower notes.
    pub(super) fn quarter(&self, sums: &[[f64; N_NOTES + 1]]) -> u32 {
        let (low, high) = (self.note, self.note + self.n_notes);
        let end = self.n_frames;
        let area = |frames: [usize; 2], notes: [usize; 2]| {
            let [first, last] = frames.map(|frame| &sums[frame]);
            let [low, high] = notes;
            last[high] - last[low] - first[high] + first[low]
        };

        let (one, other) = match self.parts {
            Parts::Whole => (area([0, end], [low, high]), 0.0),
            Parts::NoteHalves => {
                let middle = low + self.n_notes / 2;
                (
                    area([0, end], [middle, high]),
                    area([0, end], [low, middle]),
                )
            }
            Parts::FrameHalves => {
                let middle = end / 2;
                (
                    area([middle, end], [low, high]),
                    area([0, middle], [low, high]),
                )
            }
            Parts::Diagonals => {
                let (half, middle) = (end / 2, low + self.n_notes / 2);
                (
                    area([0, half], [middle, high]) + area([half, end], [low, middle]),
                    area([0, half], [low, middle]) + area([half, end], [middle, high]),
                )
            }
            Parts::NoteThirds => {
                let third = self.n_notes / 3;
                let (from, to) = (low + third, low + 2 * third);
                (
                    area([0, end], [from, to]),
                    area([0, end], [low, from]) + area([0, end], [to, high]),
                )
            }
            Parts::FrameThirds => {
                let third = end / 3;
                let (from, to) = (third, 2 * third);
                (
                    area([from, to], [low, high]),
                    area([0, from], [low, high]) + area([to, end], [low, high]),
                )
            }
        };
        let ratio = libm::log((1.0 + one) / (1.0 + other));
        self.quarters
            .iter()
            .filter(|start| ratio >= **start)
            .count() as u32
    }
}
