//! A dialect of SQL whose parser gives up on a text that it can read in too many ways, or that needs too much stack.
//!
//! The parser tries a word as a keyword first and then as a name, and parses the rest again each time. If the rest has
//! an error, a text of a hundred bytes takes hours. sqlparser 0.63 remembers the places that failed. The parser limits the
//! depth of most expressions, but not of `INTERVAL INTERVAL …`.
//!
//! Parsing can only be interrupted where the parser asks its dialect, and nearly all answers are `bool`. To end it, the
//! dialect unwinds the stack.

use std::any::TypeId;
use std::panic::resume_unwind;
use std::time::{Duration, Instant};

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, GenericDialect};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

/// Time that the parser may take for any text, and for each of its bytes. It takes less than a microsecond for each byte
/// of a text that it reads once.
const PARSING: Duration = Duration::from_secs(2);
const PARSING_PER_BYTE: Duration = Duration::from_micros(1);
/// Stack that must be left where an expression begins. The parser looks for a type there, which may be nested as deeply
/// as brackets may be.
const STACK_LEFT_BYTES: usize = 4 << 20;

/// Generic SQL, for parsing one text now.
#[derive(Debug)]
pub(crate) struct BoundedDialect {
    deadline: Instant,
}

/// Payload of unwinding when the parser gives up.
pub(crate) struct GivenUp;

impl BoundedDialect {
    pub(crate) fn new(sql: &str) -> Self {
        let n_bytes = u32::try_from(sql.len()).unwrap_or(u32::MAX);
        Self {
            deadline: Instant::now() + PARSING + PARSING_PER_BYTE * n_bytes,
        }
    }

    /// Unwinds the stack with [`GivenUp`], without a message, if parsing takes too long or too much stack.
    fn require_time_and_stack(&self) {
        if Instant::now() > self.deadline
            || stacker::remaining_stack().is_some_and(|left| left < STACK_LEFT_BYTES)
        {
            resume_unwind(Box::new(GivenUp));
        }
    }
}

/// Passes properties on to the generic dialect.
macro_rules! delegated {
    ($($property:ident)*) => {
        $(fn $property(&self) -> bool {
            self.require_time_and_stack();
            GenericDialect.$property()
        })*
    };
}

/// All methods that `GenericDialect` of sqlparser 0.62 implements, but
/// `supports_match_recognize`: DataFusion has no such tables, and the quantifiers of a pattern can be nested without limit.
impl Dialect for BoundedDialect {
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        self.require_time_and_stack();
        GenericDialect.parse_prefix(parser)
    }

    fn dialect(&self) -> TypeId {
        GenericDialect.dialect()
    }

    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_delimited_identifier_start(ch)
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        GenericDialect.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        GenericDialect.is_identifier_part(ch)
    }

    delegated! {
        allow_extract_custom
        allow_extract_single_quotes
        support_map_literal_syntax
        supports_array_join_syntax
        supports_array_typedef_with_brackets
        supports_asc_desc_in_column_definition
        supports_bitwise_shift_operators
        supports_comma_separated_set_assignments
        supports_comma_separated_trim
        supports_comment_on
        supports_comment_optimizer_hint
        supports_connect_by
        supports_constraint_keyword_without_name
        supports_create_index_with_clause
        supports_create_view_comment_syntax
        supports_cte_without_as
        supports_data_type_signed_suffix
        supports_detach
        supports_dictionary_syntax
        supports_empty_projections
        supports_explain_with_utility_options
        supports_extract_comma_syntax
        supports_filter_during_aggregation
        supports_from_first_select
        supports_group_by_expr
        supports_group_by_with_modifier
        supports_install
        supports_interpolate
        supports_interval_options
        supports_key_column_option
        supports_left_associative_joins_without_parens
        supports_limit_by
        supports_limit_comma
        supports_load_extension
        supports_match_against
        supports_multiline_comment_hints
        supports_named_fn_args_with_assignment_operator
        supports_nested_comments
        supports_optimize_table
        supports_parens_around_table_factor
        supports_parenthesized_set_variables
        supports_partition_by_after_order_by
        supports_pipe_operator
        supports_prewhere
        supports_projection_trailing_commas
        supports_quote_delimited_string
        supports_select_format
        supports_select_item_multi_column_alias
        supports_select_wildcard_except
        supports_select_wildcard_exclude
        supports_select_wildcard_ilike
        supports_select_wildcard_rename
        supports_select_wildcard_replace
        supports_set_names
        supports_settings
        supports_start_transaction_modifier
        supports_string_escape_constant
        supports_struct_literal
        supports_try_convert
        supports_unicode_string_literal
        supports_update_order_by
        supports_user_host_grantee
        supports_values_as_table_factor
        supports_window_clause_named_window_reference
        supports_window_function_null_treatment_arg
        supports_with_fill
        supports_xml_expressions
    }
}
