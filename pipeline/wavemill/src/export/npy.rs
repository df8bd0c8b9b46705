//! Headers of NumPy's format 1.0: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

/// Number of bytes before the text of a header: magic string (6), version (2) and length of the text (2).
const FIXED_BYTES: usize = 10;

/// The length of a header in bytes is a multiple of this number, so that the values are aligned.
const ALIGNMENT: usize = 64;

/// Returns the npy header of an array, which is followed by the array's values in row-major order.
///
/// `descr` is NumPy's name of the type. Shapes of up to about 1,000 dimensions fit.
pub(crate) fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let mut dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    // In Python, a tuple of one element has a trailing comma.
    if dims.len() == 1 {
        dims.push(String::new());
    }
    let dims = dims.join(", ");
    let dims = dims.trim_end();
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");

    // The header ends with a newline, which counts towards its padded length.
    let padded = (FIXED_BYTES + text.len() + 1).next_multiple_of(ALIGNMENT) - FIXED_BYTES;
    let length = u16::try_from(padded).expect("the header of a short shape fits in a u16");
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(length.to_le_bytes());
    header.extend(format!("{text:width$}\n", width = padded - 1).bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(shape: &[usize]) -> String {
        let header = header("<f2", shape);
        assert_eq!(header.len() % ALIGNMENT, 0);
        assert_eq!(&header[..8], b"\x93NUMPY\x01\x00");
        let length = u16::from_le_bytes([header[8], header[9]]);
        assert_eq!(usize::from(length) + FIXED_BYTES, header.len());
        assert_eq!(header.last(), Some(&b'\n'));
        String::from_utf8_lossy(&header[FIXED_BYTES..])
            .trim_end()
            .to_owned()
    }

    #[test]
    fn shapes_are_tuples_of_python() {
        let before = "{'descr': '<f2', 'fortran_order': False, 'shape': ";
        assert_eq!(text(&[5, 96, 431]), format!("{before}(5, 96, 431), }}"));
        assert_eq!(text(&[5]), format!("{before}(5,), }}"));
        assert_eq!(text(&[]), format!("{before}(), }}"));
    }

    #[test]
    fn a_header_that_just_fits_gets_no_second_line() {
        for digits in 0..70 {
            let shape = vec![1; digits];
            assert!(text(&shape).ends_with("), }"));
        }
    }
}
