//! JSON embedded in a page, for programs that read it.

use serde_json::Value;

/// Serializes a value as JSON that is safe inside a `script` element: `<`, `>` and `&`, which can occur only in
/// strings, are written as escapes. So no `</script>` ends the element, and no `<!--` changes how the rest is parsed.
pub(crate) fn inline(value: &Value) -> String {
    let mut json = value.to_string();
    // U+2028 and U+2029 end a line in JavaScript, but not in JSON.
    for c in ['<', '>', '&', '\u{2028}', '\u{2029}'] {
        json = json.replace(c, &format!("\\u{:04x}", u32::from(c)));
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn embedded_json_cannot_close_its_element() {
        let value =
            json!({"</script><script>alert(1)</script>": "<!-- <script> & ]]> \u{2028}\u{2029}"});
        let text = inline(&value);
        assert!(
            !text.contains(['<', '>', '&', '\u{2028}', '\u{2029}']),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }
}
