//! The parser of all numbers in options, whose errors state what is allowed.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};
use std::str::FromStr;

/// Returns a parser of numbers in the range `allowed`, for the `value_parser` of an option. NaN is in no range.
pub fn number<T: FromStr + PartialOrd + Display + 'static>(
    allowed: impl RangeBounds<T> + Clone + Send + Sync + 'static,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    // Only types with fractions accept this text.
    let kind = match T::from_str("0.5") {
        Ok(_) => "a number",
        Err(_) => "a whole number",
    };
    let range = match (allowed.start_bound(), allowed.end_bound()) {
        (Bound::Included(least), Bound::Included(most)) => format!(" from {least} to {most}"),
        (Bound::Excluded(below), Bound::Included(most)) => {
            format!(" above {below}, at most {most}")
        }
        (Bound::Included(least), _) => format!(", {least} or more"),
        _ => String::new(),
    };

    move |text| {
        let number = T::from_str(text).ok();
        let number = number.filter(|number| allowed.contains(number));
        number.ok_or_else(|| format!("must be {kind}{range}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_not_allowed_state_what_is() {
        let threads = number::<u16>(1..=1024);
        assert_eq!(threads("1024"), Ok(1024));
        for text in ["two", "0", "1025", "-1", "1.5", ""] {
            let error = threads(text).expect_err(text);
            assert_eq!(error, "must be a whole number from 1 to 1024");
        }

        let epochs = number::<u64>(1..);
        assert_eq!(epochs("7"), Ok(7));
        let error = epochs("ten").expect_err("a word");
        assert_eq!(error, "must be a whole number, 1 or more");

        let fraction = number::<f64>(0.0..=1.0);
        assert_eq!(fraction("0.5"), Ok(0.5));
        for text in ["half", "1.5", "NaN"] {
            let error = fraction(text).expect_err(text);
            assert_eq!(error, "must be a number from 0 to 1");
        }

        let seconds = number::<f64>((Bound::Excluded(0.0), Bound::Included(900.0)));
        let error = seconds("0").expect_err("no time");
        assert_eq!(error, "must be a number above 0, at most 900");
    }
}
