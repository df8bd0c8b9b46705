//! Parses Python's `repr` of lists, as used in FMA's columns: `[21, 103]`, `['a', "b's"]`.
//!
//! Provides SQL functions, which recipes can also use: `python_ints(text)` returns a list of i64, `python_texts(text)` a
//! list of text. They return null for a text that is not such a list. A third one is `normalized(text)`, see
//! [`spelling`](super::spelling).

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Builder, ListBuilder, StringViewArray, StringViewBuilder,
};
use arrow::datatypes::{DataType, Field};
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarUDF, Volatility, create_udf};

use super::spelling;

/// Returns the SQL functions of recipes.
pub(super) fn functions() -> [ScalarUDF; 3] {
    let list = |item| DataType::List(Arc::new(Field::new_list_field(item, true)));
    [
        function("python_ints", list(DataType::Int64), ints),
        function("python_texts", list(DataType::Utf8View), texts),
        function("normalized", DataType::Utf8View, normalized),
    ]
}

fn function(name: &str, returns: DataType, convert: fn(&StringViewArray) -> ArrayRef) -> ScalarUDF {
    create_udf(
        name,
        vec![DataType::Utf8View],
        returns,
        Volatility::Immutable,
        Arc::new(
            move |arguments: &[ColumnarValue]| -> Result<ColumnarValue> {
                let text = arguments[0].to_array(1)?;
                Ok(ColumnarValue::Array(convert(text.as_string_view())))
            },
        ),
    )
}

fn normalized(text: &StringViewArray) -> ArrayRef {
    let texts = text.iter().map(|text| text.map(spelling::normalized));
    Arc::new(texts.collect::<StringViewArray>())
}

fn ints(text: &StringViewArray) -> ArrayRef {
    let mut lists = ListBuilder::with_capacity(Int64Builder::new(), text.len());
    let mut row = Vec::new();
    for value in text {
        let parsed = value.is_some_and(|value| parse_ints(value, &mut row).is_some());
        if parsed {
            lists.values().append_slice(&row);
        }
        lists.append(parsed);
    }
    Arc::new(lists.finish())
}

fn texts(text: &StringViewArray) -> ArrayRef {
    let mut lists = ListBuilder::with_capacity(StringViewBuilder::new(), text.len());
    let mut row = Vec::new();
    for value in text {
        let parsed = value.is_some_and(|value| parse_texts(value, &mut row).is_some());
        if parsed {
            row.iter()
                .for_each(|item| lists.values().append_value(item));
        }
        lists.append(parsed);
    }
    Arc::new(lists.finish())
}

fn inside_brackets(text: &str) -> Option<&str> {
    Some(text.trim().strip_prefix('[')?.strip_suffix(']')?.trim())
}

/// Parses `[21, 103]` into `row`, which is cleared first. Returns `None` if the text is not such a list.
fn parse_ints(text: &str, row: &mut Vec<i64>) -> Option<()> {
    row.clear();
    let inside = inside_brackets(text)?;
    if inside.is_empty() {
        return Some(());
    }
    for item in inside.split(',') {
        row.push(item.trim().parse().ok()?);
    }
    Some(())
}

/// Parses `['a', "b's"]` into `row`, which is cleared first. Returns `None` if the text is not such a list.
fn parse_texts(text: &str, row: &mut Vec<String>) -> Option<()> {
    row.clear();
    let mut rest = inside_brackets(text)?;
    while !rest.is_empty() {
        let quote = rest
            .chars()
            .next()
            .filter(|quote| matches!(quote, '\'' | '"'))?;
        // Single and double quotes are both one byte long.
        let (item, behind) = quoted(&rest[1..], quote)?;
        row.push(item);

        let behind = behind.trim_start();
        rest = match behind.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None if behind.is_empty() => behind,
            None => return None,
        };
    }
    Some(())
}

/// Returns the unescaped text before the closing `quote`, and the text after it.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut item = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => item.push(escaped(&mut chars)?),
            c if c == quote => return Some((item, chars.as_str())),
            c => item.push(c),
        }
    }
    None
}

fn escaped(chars: &mut std::str::Chars<'_>) -> Option<char> {
    let n_digits = match chars.next()? {
        'n' => return Some('\n'),
        'r' => return Some('\r'),
        't' => return Some('\t'),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        plain => return Some(plain),
    };
    // The text is not indexed directly, because the range may end within a character.
    let digits = chars.as_str().get(..n_digits)?;
    *chars = chars.as_str()[n_digits..].chars();
    char::from_u32(u32::from_str_radix(digits, 16).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_texts(text: &str) -> Option<Vec<String>> {
        let mut row = Vec::new();
        parse_texts(text, &mut row).map(|()| row)
    }

    #[test]
    fn integers_are_parsed_as_python_prints_them() {
        let mut row = Vec::new();
        for (text, wanted) in [("[21, 103]", &[21, 103][..]), ("[]", &[]), ("[-1]", &[-1])] {
            assert!(parse_ints(text, &mut row).is_some(), "{text}");
            assert_eq!(row, wanted, "{text}");
        }
        for text in ["", "[", "21", "[21,]", "[21 103]", "['a']"] {
            assert!(parse_ints(text, &mut row).is_none(), "{text}");
        }
    }

    #[test]
    fn texts_with_either_quote_and_escapes() {
        assert_eq!(read_texts("[]"), Some(vec![]));
        assert_eq!(
            read_texts(r#"['a', "b's"]"#),
            Some(vec!["a".into(), "b's".into()])
        );
        assert_eq!(
            read_texts(r"['it\'s\n', '\xe9\u4eac']"),
            Some(vec!["it's\n".into(), "é京".into()])
        );

        for text in ["", "['a'", "['a' 'b']", "[a]", "['a]", r"['\x4']"] {
            assert_eq!(read_texts(text), None, "{text}");
        }
    }

    #[test]
    fn text_that_is_not_a_list_is_null_in_sql() {
        let text = StringViewArray::from(vec![Some("[1]"), Some("x"), None]);
        let lists = ints(&text);
        assert_eq!(
            (lists.is_null(0), lists.is_null(1), lists.is_null(2)),
            (false, true, true)
        );
    }
}
