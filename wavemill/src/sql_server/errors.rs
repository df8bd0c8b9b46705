//! PostgreSQL's error codes, by which clients tell errors apart.

use std::sync::atomic::AtomicBool;

use datafusion::common::DataFusionError;
use datafusion::sql::sqlparser::parser::ParserError;
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError};
use wavemill_schemas::exit;
use wavemill_schemas::text::error_line;
use wavemill_sql::{SharedSession, SqlError};

/// Too many clients are connected.
pub(super) const TOO_MANY_CONNECTIONS: &str = "53300";
/// The client may not connect in this way.
pub(super) const INVALID_AUTHORIZATION: &str = "28000";
/// The server ends.
pub(super) const ADMIN_SHUTDOWN: &str = "57P01";
/// The query was ended by its client or by a limit.
pub(super) const QUERY_CANCELED: &str = "57014";
/// The setting cannot be changed.
pub(super) const CANNOT_CHANGE: &str = "55P02";
/// An internal fault, or any error without a code of its own.
pub(super) const INTERNAL: &str = "XX000";
/// The statement is nested too deeply, is too long, or calls a function that needs too much.
pub(super) const TOO_COMPLEX: &str = "54001";
/// The client does not keep to the protocol.
pub(super) const PROTOCOL_VIOLATION: &str = "08P01";
/// There is no cursor with this name.
pub(super) const NO_CURSOR: &str = "34000";
/// PostgreSQL supports this, and this server does not.
pub(super) const UNSUPPORTED: &str = "0A000";
/// The statement has a syntax error.
pub(super) const SYNTAX: &str = "42601";
const DATA_CORRUPTED: &str = "XX001";

/// Creates an error after which the connection continues.
pub(super) fn error(code: &str, message: impl Into<String>) -> PgWireError {
    with_severity("ERROR", code, message.into())
}

/// Creates an error that ends the connection.
pub(super) fn fatal(code: &str, message: impl Into<String>) -> PgWireError {
    with_severity("FATAL", code, message.into())
}

fn with_severity(severity: &str, code: &str, message: String) -> PgWireError {
    let info = ErrorInfo::new(severity.to_owned(), code.to_owned(), message);
    PgWireError::UserError(Box::new(info))
}

/// Returns the error that the client receives: the cause of a failed query, as `wavemill sql` reports it. May read whole
/// files of the store, until `stop` is set.
pub(super) fn explained(
    failed: PgWireError,
    session: &SharedSession,
    stop: &AtomicBool,
) -> PgWireError {
    let PgWireError::ApiError(cause) = failed else {
        return failed;
    };
    let cause = match cause.downcast::<DataFusionError>() {
        Ok(cause) => SqlError::from(*cause),
        Err(cause) => match cause.downcast::<SqlError>() {
            Ok(cause) => *cause,
            Err(cause) if cause.is::<ParserError>() => SqlError::Syntax {
                detail: cause.to_string(),
            },
            Err(cause) => return error(INTERNAL, error_line(cause.as_ref())),
        },
    };

    match session.explain(cause, stop) {
        SqlError::Refused { statement } => {
            let message = format!("{statement} writes, but this server is read-only");
            error("25006", message)
        }
        cause => error(code_of(&cause), cause.to_string()),
    }
}

/// Returns the code of an error of SQL.
pub(super) fn code_of(cause: &SqlError) -> &'static str {
    match cause {
        SqlError::OtherVersion(error) if error.exit_code() == exit::DAMAGED => DATA_CORRUPTED,
        SqlError::UnknownTable { .. } | SqlError::OtherVersion(_) => "42P01",
        SqlError::UnknownColumn { .. } => "42703",
        SqlError::Syntax { .. } | SqlError::Empty => SYNTAX,
        SqlError::Meaning { .. } => "42000",
        SqlError::TooComplex { .. } => TOO_COMPLEX,
        SqlError::Refused { .. } | SqlError::InStore { .. } => "25006",
        SqlError::Manifest { .. } | SqlError::Damaged { .. } | SqlError::Unreadable { .. } => {
            DATA_CORRUPTED
        }
        // Another session changed what this one reads.
        SqlError::Collected { .. } => "55000",
        SqlError::Memory { .. } => "53200",
        SqlError::Interrupted => QUERY_CANCELED,
        SqlError::NoStore { .. }
        | SqlError::Panicked(_)
        | SqlError::UnknownCommand { .. }
        | SqlError::OwnTable { .. }
        | SqlError::TensorAsText { .. }
        | SqlError::BinaryToTerminal { .. }
        | SqlError::SeveralResults { .. }
        | SqlError::Output(_)
        | SqlError::Prompt { .. }
        | SqlError::Failed { .. } => INTERNAL,
    }
}
