//! Writes CSV in the format of pandas, which FMA's tables use: a field is quoted only if necessary.

/// Returns one record with its line feed.
pub(crate) fn record<I: IntoIterator<Item: AsRef<str>>>(fields: I) -> String {
    let quoted: Vec<String> = fields
        .into_iter()
        .map(|field| quote(field.as_ref()))
        .collect();
    quoted.join(",") + "\n"
}

fn quote(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::record;

    #[test]
    fn only_fields_that_need_quotes_are_quoted() {
        assert_eq!(
            record(["a b", "", "1,2", "x\ny", "5\" tape"]),
            "a b,,\"1,2\",\"x\ny\",\"5\"\" tape\"\n"
        );
    }
}
