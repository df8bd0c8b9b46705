//! Headers of NumPy's format 1.0: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use wavemill_schemas::recipe::Dtype;

/// Magic (6 bytes), version (2) and the length of the rest (2).
const FIXED_BYTES: usize = 10;

/// The whole header is a multiple of this, so that values begin where a processor likes them.
const ALIGNMENT: usize = 64;

/// NumPy's name of a stored type: byte order, kind, bytes a value.
pub(super) const fn descr(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F16 => "<f2",
        Dtype::F32 => "<f4",
        Dtype::U8 => "|u1",
    }
}

/// What stands before the values of an array, which follow row-major.
///
/// `descr` is NumPy's name of the type. Shapes of up to about 1,000 dimensions fit.
pub(crate) fn header(descr: &str, shape: &[usize]) -> Vec<u8> {
    let mut dims: Vec<String> = shape.iter().map(ToString::to_string).collect();
    // Python's tuple of one has a comma behind it.
    if dims.len() == 1 {
        dims.push(String::new());
    }
    let dims = dims.join(", ");
    let dims = dims.trim_end();
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({dims}), }}");

    // A newline ends it.
    let padded = (FIXED_BYTES + text.len() + 1).next_multiple_of(ALIGNMENT) - FIXED_BYTES;
    let length = u16::try_from(padded).expect("a shape of a few numbers");
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
