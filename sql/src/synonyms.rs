//! Functions by the names that DuckDB and Postgres have for them.
//!
//! Where the function itself is here under another name, an unknown name is answered with that one, and not with
//! whatever name has the most letters in common.

/// The other name, and how it is written here.
pub(super) const SYNONYMS: &[(&str, &str)] = &[
    (
        "approx_quantile",
        "approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY x)",
    ),
    ("arg_max", "first_value(y ORDER BY x DESC)"),
    ("arg_min", "first_value(y ORDER BY x)"),
    ("array_agg_distinct", "array_agg(DISTINCT x)"),
    ("avg_tensor", "tensor_avg(x)"),
    ("count_if", "count(*) FILTER (WHERE …)"),
    ("countif", "count(*) FILTER (WHERE …)"),
    ("date_diff", "date_part('day', b - a)"),
    ("datediff", "date_part('day', b - a)"),
    ("day", "date_part('day', x)"),
    ("first", "first_value(x ORDER BY …)"),
    ("format", "concat(…)"),
    ("group_concat", "string_agg(x, ', ')"),
    ("hour", "date_part('hour', x)"),
    ("if", "CASE WHEN … THEN … ELSE … END"),
    ("iff", "CASE WHEN … THEN … ELSE … END"),
    ("last", "last_value(x ORDER BY …)"),
    ("len", "length(x), or array_length(x) of a list"),
    ("list", "array_agg(x)"),
    ("list_value", "make_array(…)"),
    ("listagg", "string_agg(x, ', ')"),
    ("max_by", "first_value(y ORDER BY x DESC)"),
    ("min_by", "first_value(y ORDER BY x)"),
    ("minute", "date_part('minute', x)"),
    ("month", "date_part('month', x)"),
    ("pg_typeof", "arrow_typeof(x)"),
    ("printf", "concat(…)"),
    (
        "quantile",
        "approx_percentile_cont(0.9) WITHIN GROUP (ORDER BY x)",
    ),
    ("regexp_extract", "regexp_match(x, pattern)[1]"),
    ("regexp_full_match", "regexp_like(x, '^pattern$')"),
    (
        "regexp_matches",
        "regexp_like(x, pattern) for true or false, regexp_match(x, pattern) for the parts",
    ),
    ("regexp_split_to_array", "string_to_array(x, ' ')"),
    ("second", "date_part('second', x)"),
    ("str_split", "string_to_array(x, ' ')"),
    ("strftime", "to_char(x, '%Y-%m-%d')"),
    ("string_split", "string_to_array(x, ' ')"),
    ("strptime", "to_timestamp(x, '%Y-%m-%d')"),
    ("tensor_sum", "tensor_mean(x) and tensor_shape(x)"),
    ("to_varchar", "CAST(x AS TEXT)"),
    ("try_strptime", "to_timestamp(x, '%Y-%m-%d')"),
    ("typeof", "arrow_typeof(x)"),
    ("week", "date_part('week', x)"),
    ("year", "date_part('year', x)"),
];

/// What to write for a function that is not here by that name.
pub(super) fn of(name: &str) -> Option<&'static str> {
    let name = name.to_lowercase();
    SYNONYMS
        .iter()
        .find(|(other, _)| *other == name)
        .map(|(_, here)| *here)
}

/// DataFusion's words about functions, in ours; `None` for any others.
pub(super) fn explain(message: &str) -> Option<String> {
    if message.starts_with("Invalid function '") {
        return Some(unknown(
            between(message, "Invalid function '", '\'')?,
            between(message, "Did you mean '", '\''),
        ));
    }

    // A tensor is a binary value to DataFusion, of which no sum is made. It says so in one of two ways.
    let function = between(message, "argument types '", '(')
        .or_else(|| between(message, "to satisfy a call to '", '\''))?;
    let is_binary =
        message.contains("FixedSizeBinary(") || message.contains(&format!("'{function}(Binary)"));

    is_binary.then(|| {
        format!(
            "{function} does not take tensors: {function}(tensor_mean(x)) is over one number a row, tensor_avg(x) the mean \
             of each value over rows, tensor_mean(x, axis) of each band"
        )
    })
}

fn unknown(name: &str, near: Option<&str>) -> String {
    match (of(name), near) {
        (Some(here), _) => format!("no function {name}: use {here}"),
        (None, Some(near)) => format!("no function {name}; did you mean {near}?"),
        (None, None) => format!("no function {name}"),
    }
}

/// What stands behind `start`, up to `end`.
fn between<'a>(text: &'a str, start: &str, end: char) -> Option<&'a str> {
    let (_, rest) = text.split_once(start)?;
    rest.split(end).next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_names_are_answered_with_ours() {
        let len = explain("Invalid function 'LEN'.\nDid you mean 'left'?");
        assert_eq!(
            len.as_deref(),
            Some("no function LEN: use length(x), or array_length(x) of a list")
        );

        let typo = explain("Invalid function 'lengthx'.\nDid you mean 'length'?");
        assert_eq!(
            typo.as_deref(),
            Some("no function lengthx; did you mean length?")
        );

        assert_eq!(explain("a table or column"), None);
        assert!(
            SYNONYMS.is_sorted_by_key(|(name, _)| *name),
            "in order, for who adds one"
        );
    }
}
