//! Limits of functions whose result can be much larger than their arguments.
//!
//! DataFusion computes the result of a function in one piece, which its memory pool does not count, and it computes
//! calls with constants while it plans, where nothing can end them. A call of these functions is therefore estimated
//! from its arguments first, and refused if it needs too much.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, GenericListArray, OffsetSizeTrait};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type, IntervalMonthDayNanoType, TimeUnit};
use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature,
};
use datafusion::prelude::SessionContext;

use super::SqlError;

/// The functions that are limited. Other functions return at most a small multiple of their arguments.
const NAMES: [&str; 13] = [
    "array_repeat",
    "array_resize",
    "array_to_string",
    "arrays_zip",
    "concat_ws",
    "generate_series",
    "lpad",
    "range",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "replace",
    "rpad",
];
/// Maximum number of bytes that a call adds to a batch: an eighth of the memory of a thread, because a function may hold
/// its result twice, and an expression may call several. A quarter of the memory limit if that is less.
const BATCH_BYTES_MAX: usize = 64 << 20;
/// Divisor of this limit for a call with constants. It is computed while the query is planned, a statement may contain
/// thousands of such calls, and each result is kept for the whole query.
const CONSTANTS_DIVISOR: f64 = 64.0;
const MIB: f64 = (1 << 20) as f64;
const DAY_NANOSECONDS: f64 = 86_400e9;

/// Replaces the functions of a session by their limited versions.
///
/// # Errors
/// If DataFusion lacks one of them, which does not occur in practice.
pub(super) fn register(ctx: &SessionContext, memory_bytes: usize) -> Result<()> {
    let bytes_max = BATCH_BYTES_MAX.min(memory_bytes / 4);
    for name in NAMES {
        let function = Arc::unwrap_or_clone(ctx.udf(name)?);
        // Also replaces the function under its other names.
        ctx.register_udf(ScalarUDF::from(Bounded {
            function,
            bytes_max,
        }));
    }
    Ok(())
}

/// A function of DataFusion that refuses calls which need too much.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Bounded {
    function: ScalarUDF,
    bytes_max: usize,
}

impl ScalarUDFImpl for Bounded {
    fn name(&self) -> &str {
        self.function.name()
    }

    fn aliases(&self) -> &[String] {
        self.function.aliases()
    }

    fn signature(&self) -> &Signature {
        self.function.signature()
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.function.coerce_types(types)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.function.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.function.return_field_from_args(args)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        self.check(&args)?;
        self.function.invoke_with_args(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.function.documentation()
    }
}

impl Bounded {
    /// Refuses a call that needs too much.
    fn check(&self, args: &ScalarFunctionArgs) -> Result<()> {
        let is_constant = |argument: &ColumnarValue| matches!(argument, ColumnarValue::Scalar(_));
        let are_constants = args.args.iter().all(is_constant);
        let arguments = args.args.iter().map(|argument| match argument {
            ColumnarValue::Array(values) => Ok(Arc::clone(values)),
            ColumnarValue::Scalar(value) => value.to_array(),
        });
        let arguments = arguments.collect::<Result<Vec<ArrayRef>>>()?;

        let n_rows = if are_constants { 1 } else { args.number_rows };
        let mut needed = 0.0;
        for row in 0..n_rows {
            needed += cost(self.name(), &arguments, row)?;
        }

        let max = self.bytes_max as f64;
        let (max, place) = if are_constants {
            (max / CONSTANTS_DIVISOR, "with constants".to_owned())
        } else {
            (max, format!("of a batch of {n_rows} rows"))
        };
        if needed <= max {
            return Ok(());
        }

        let remedy = match self.name() {
            "generate_series" | "range" => "use the table generate_series(…) in FROM instead",
            _ => "give it smaller numbers or shorter texts",
        };
        let refused = SqlError::Usage(format!(
            "{} {place} needs {:.0} MiB, but the limit is {:.1}: {remedy}",
            self.name(),
            (needed / MIB).ceil(),
            max / MIB
        ));
        Err(refused.into())
    }
}

/// Returns at least the number of bytes that a call adds to its arguments in `row`.
fn cost(name: &str, arguments: &[ArrayRef], row: usize) -> Result<f64> {
    let text = |i: usize| arguments.get(i).map_or("", |values| text_at(values, row));
    let number = |i: usize| match arguments.get(i) {
        Some(values) => number_at(values, row),
        None => Ok(0.0),
    };

    Ok(match (name, arguments) {
        ("repeat", _) => text(0).len() as f64 * number(1)?.max(0.0),
        // A character has up to four bytes.
        ("lpad" | "rpad", _) => 4.0 * number(1)?.max(0.0),
        ("replace", _) => {
            let (from, to) = (text(1), text(2));
            let growth = to.len().saturating_sub(from.len());
            if from.is_empty() || growth == 0 {
                return Ok(0.0);
            }
            text(0).matches(from).count() as f64 * growth as f64
        }
        // Groups can be nested, and each returns its text.
        ("regexp_match", _) => text(0).len() as f64 * text(1).matches('(').count() as f64,
        ("regexp_replace", _) => {
            let (old, new) = (text(0), text(2));
            let n_groups = new.matches(['\\', '$']).count();
            // An empty match is between two bytes.
            let n_matches = match text(3).contains('g') {
                true => old.len() + 1,
                false => 1,
            };
            n_matches as f64 * new.len() as f64 + n_groups as f64 * old.len() as f64
        }
        ("arrays_zip", lists) => {
            let n_values = lists.iter().map(|list| n_values(&value_at(list, row)));
            8.0 * lists.len() as f64 * n_values.max().unwrap_or(0) as f64
        }
        ("generate_series" | "range", _) => 8.0 * range_len(arguments, row)?,
        ("array_repeat", [element, ..]) => {
            // The function also makes an index of 8 bytes for each value.
            let element = value_at(element, row);
            let bytes = bytes_of(&element)?.max(8.0 * n_values(&element) as f64);
            bytes * number(1)?.max(0.0)
        }
        ("array_resize", [lists, ..]) => {
            let null = match lists.data_type() {
                DataType::List(field) | DataType::LargeList(field) => null_bytes(field.data_type()),
                _ => 0.0,
            };
            let fill = match arguments.get(2) {
                Some(fill) => bytes_of(&value_at(fill, row))?,
                None => 0.0,
            };
            fill.max(null) * number(1)?.max(0.0)
        }
        ("array_to_string", [lists, ..]) => {
            let list = value_at(lists, row);
            let delimiters = n_values(&list) as f64 * text(1).len() as f64;
            let nulls = n_nulls(&list) as f64 * text(2).len() as f64;
            delimiters + nulls + shared_bytes(&list)
        }
        ("concat_ws", [separator, values @ ..]) => {
            let n_separators = values.len().saturating_sub(1);
            let values = values.iter().map(|value| len_at(value, row));
            n_separators as f64 * len_at(separator, row) as f64 + values.sum::<usize>() as f64
        }
        _ => 0.0,
    })
}

/// Returns the position of `row` in an argument, which consists of one value if it is constant.
fn place(values: &ArrayRef, row: usize) -> usize {
    row.min(values.len() - 1)
}

/// Returns the value of an argument in `row`, as an array of one value.
fn value_at(values: &ArrayRef, row: usize) -> ArrayRef {
    values.slice(place(values, row), 1)
}

/// Returns the text of an argument in `row`, or an empty one if it is null.
fn text_at(values: &ArrayRef, row: usize) -> &str {
    let row = place(values, row);
    if values.is_null(row) {
        return "";
    }
    match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().value(row),
        DataType::LargeUtf8 => values.as_string::<i64>().value(row),
        DataType::Utf8View => values.as_string_view().value(row),
        _ => "",
    }
}

/// Returns the number of bytes of the text or the bytes of an argument in `row`, or 0 if it is null.
fn len_at(values: &ArrayRef, row: usize) -> usize {
    let place = place(values, row);
    if values.is_null(place) {
        return 0;
    }
    match values.data_type() {
        DataType::Binary => values.as_binary::<i32>().value(place).len(),
        DataType::LargeBinary => values.as_binary::<i64>().value(place).len(),
        DataType::BinaryView => values.as_binary_view().value(place).len(),
        _ => text_at(values, row).len(),
    }
}

/// Returns the number of an argument in `row`, or 0 if it is null. Dates and times are in nanoseconds.
fn number_at(values: &ArrayRef, row: usize) -> Result<f64> {
    if let Some(numbers) = values.as_primitive_opt::<Int64Type>() {
        let row = place(values, row);
        let number = numbers.is_valid(row).then(|| numbers.value(row));
        return Ok(number.unwrap_or(0) as f64);
    }

    let unit = match values.data_type() {
        DataType::Date32 => DAY_NANOSECONDS,
        DataType::Timestamp(TimeUnit::Second, _) => 1e9,
        DataType::Date64 | DataType::Timestamp(TimeUnit::Millisecond, _) => 1e6,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1e3,
        _ => 1.0,
    };
    let number = cast(&value_at(values, row), &DataType::Int64)?;
    Ok(number_at(&number, 0)? * unit)
}

/// Returns at least the number of values of a range.
fn range_len(arguments: &[ArrayRef], row: usize) -> Result<f64> {
    let is_null = |values: &ArrayRef| values.is_null(place(values, row));
    if arguments.iter().any(is_null) {
        return Ok(0.0);
    }
    let (start, stop, step) = match arguments {
        [] => return Ok(0.0),
        [stop] => (0.0, number_at(stop, row)?, Some(1.0)),
        [start, stop] => (number_at(start, row)?, number_at(stop, row)?, Some(1.0)),
        [start, stop, step, ..] => (
            number_at(start, row)?,
            number_at(stop, row)?,
            step_at(step, row)?,
        ),
    };
    Ok(match step {
        None => f64::INFINITY,
        // The function itself refuses this step.
        Some(0.0) => 0.0,
        Some(step) => ((stop - start) / step + 1.0).max(0.0),
    })
}

/// Returns the step of a range, in nanoseconds if it is an interval. `None` if the sign depends on the length of
/// a month: the range could be endless.
fn step_at(values: &ArrayRef, row: usize) -> Result<Option<f64>> {
    let Some(steps) = values.as_primitive_opt::<IntervalMonthDayNanoType>() else {
        return number_at(values, row).map(Some);
    };
    let step = steps.value(place(values, row));
    let with_month = |days: f64| {
        let days = f64::from(step.months) * days + f64::from(step.days);
        days * DAY_NANOSECONDS + step.nanoseconds as f64
    };
    let (short, long) = (with_month(28.0), with_month(31.0));
    let nearer = if short.abs() < long.abs() {
        short
    } else {
        long
    };
    Ok((short.signum() == long.signum()).then_some(nearer))
}

/// Returns the elements of all lists of an array, or `None` if it has no lists.
pub(super) fn elements(values: &ArrayRef) -> Option<ArrayRef> {
    fn of<O: OffsetSizeTrait>(lists: &GenericListArray<O>) -> ArrayRef {
        let offsets = lists.value_offsets();
        let (first, last) = (offsets[0].as_usize(), offsets[lists.len()].as_usize());
        lists.values().slice(first, last - first)
    }
    match values.data_type() {
        DataType::List(_) => Some(of(values.as_list::<i32>())),
        DataType::LargeList(_) => Some(of(values.as_list::<i64>())),
        DataType::FixedSizeList(..) => Some(Arc::clone(values.as_fixed_size_list().values())),
        DataType::Map(..) => {
            let maps = values.as_map();
            let offsets = maps.value_offsets();
            let (first, last) = (offsets[0] as usize, offsets[maps.len()] as usize);
            Some(Arc::new(maps.entries().slice(first, last - first)))
        }
        _ => None,
    }
}

/// Returns the number of values of an array, including those of lists in it.
pub(super) fn n_values(values: &ArrayRef) -> usize {
    values.len() + elements(values).map_or(0, |elements| n_values(&elements))
}

/// Returns the number of nulls of an array, including those of lists in it.
fn n_nulls(values: &ArrayRef) -> usize {
    values.logical_null_count() + elements(values).map_or(0, |elements| n_nulls(&elements))
}

/// Returns the number of bytes of the texts of an array if values can share one: a list that has a long text many times
/// may be small.
fn shared_bytes(values: &ArrayRef) -> f64 {
    match (elements(values), values.data_type()) {
        (Some(elements), _) => shared_bytes(&elements),
        (None, DataType::Utf8View) => values.as_string_view().lengths().map(f64::from).sum(),
        (None, DataType::BinaryView) => values.as_binary_view().lengths().map(f64::from).sum(),
        (None, DataType::Dictionary(..)) => {
            let dictionary = values.as_any_dictionary();
            let texts = dictionary.values();
            if texts.is_empty() {
                return 0.0;
            }
            let keys = dictionary.normalized_keys();
            keys.iter().map(|key| len_at(texts, *key) as f64).sum()
        }
        (None, _) => 0.0,
    }
}

/// Returns the number of bytes of a copy of an array.
pub(super) fn bytes_of(values: &ArrayRef) -> Result<f64> {
    let n_bytes = 8.0 * values.len() as f64;
    match (elements(values), values.data_type()) {
        (Some(elements), _) => Ok(n_bytes + bytes_of(&elements)?),
        (None, DataType::Struct(_)) => values.as_struct().columns().iter().map(bytes_of).sum(),
        // A copy shares the texts. They count nevertheless, because the name of a folded constant contains all of them.
        (None, DataType::Dictionary(..) | DataType::Utf8View | DataType::BinaryView) => {
            Ok(2.0 * n_bytes + shared_bytes(values))
        }
        (None, _) => Ok(values.to_data().get_slice_memory_size()? as f64),
    }
}

/// Returns the number of bytes of a null in an array.
fn null_bytes(data_type: &DataType) -> f64 {
    match data_type {
        DataType::FixedSizeBinary(n) => f64::from(*n),
        DataType::FixedSizeList(field, n) => f64::from(*n) * null_bytes(field.data_type()),
        DataType::Struct(fields) => fields
            .iter()
            .map(|field| null_bytes(field.data_type()))
            .sum(),
        other => other.primitive_width().unwrap_or(16) as f64,
    }
}
