//! Where a server is, and what it asks to be shown: the URI of `--mlflow`, and variables that MLflow's own client reads.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ureq::http::Uri;

use super::TrackingError;

/// Variables of MLflow's own client, which keep credentials out of the list of processes.
const USERNAME: &str = "MLFLOW_TRACKING_USERNAME";
const PASSWORD: &str = "MLFLOW_TRACKING_PASSWORD";
const TOKEN: &str = "MLFLOW_TRACKING_TOKEN";

const NO_ADDRESS: &str = "it is no address of a server, such as http://127.0.0.1:5000";

/// A server, and how requests to it are signed.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Such as `http://mlflow.example:5000/prefix`: without credentials, and without a slash at its end.
    pub(super) base: String,
    /// Value of the header `Authorization`.
    pub(super) authorization: Option<String>,
}

/// Without credentials: this may be printed.
impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.base)
    }
}

impl Address {
    /// The server of `uri`. Credentials in it win over variables, which `variable` reads.
    ///
    /// # Errors
    /// [`TrackingError::Uri`]. Its words never repeat what may be a password.
    pub(super) fn parse(
        uri: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, TrackingError> {
        let parsed: Uri = uri.parse().map_err(|_| TrackingError::Uri(NO_ADDRESS))?;
        match parsed.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(TrackingError::Uri(
                    "https is not built in; give an http:// address on a network that you trust, or forward a port to the \
                     server, as with `ssh -L 5000:localhost:5000 HOST`, and give http://127.0.0.1:5000",
                ));
            }
            _ => return Err(TrackingError::Uri(NO_ADDRESS)),
        }
        if parsed.query().is_some() {
            return Err(TrackingError::Uri("a server's address has no `?`"));
        }

        let authority = parsed
            .authority()
            .map_or("", |authority| authority.as_str());
        let (user_info, host) = match authority.rsplit_once('@') {
            Some((user_info, host)) => (Some(user_info), host),
            None => (None, authority),
        };
        let path = parsed.path().trim_end_matches('/');

        let authorization = match user_info {
            Some(user_info) => Some(of_uri(user_info)?),
            None => of_variables(variable),
        };
        Ok(Self {
            base: format!("http://{host}{path}"),
            authorization,
        })
    }
}

/// `user:password`, each with `%40` and the like for characters that a URI cannot hold.
fn of_uri(user_info: &str) -> Result<String, TrackingError> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let user = decoded(user);
    let password = decoded(password);
    user.zip(password)
        .map(|(user, password)| basic(&user, &password))
        .ok_or(TrackingError::Uri(
            "a % in its user or password is not followed by two hex digits",
        ))
}

fn of_variables(variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    if let (Some(user), Some(password)) = (variable(USERNAME), variable(PASSWORD)) {
        return Some(basic(user.as_bytes(), password.as_bytes()));
    }
    variable(TOKEN).map(|token| format!("Bearer {}", token.trim()))
}

/// Source: RFC 7617.
fn basic(user: &[u8], password: &[u8]) -> String {
    let pair = [user, b":", password].concat();
    format!("Basic {}", STANDARD.encode(pair))
}

/// Without percent signs. Source: RFC 3986, section 2.1.
fn decoded(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(uri: &str) -> Address {
        Address::parse(uri, |_| None).expect("an address")
    }

    #[test]
    fn a_server_may_lie_below_a_path_and_at_an_ipv6_address() {
        let bases = [
            "http://127.0.0.1:5000",
            "http://127.0.0.1:5000/",
            "http://[::1]:5000/a/b/",
        ]
        .map(|uri| parsed(uri).base);

        assert_eq!(
            bases,
            [
                "http://127.0.0.1:5000",
                "http://127.0.0.1:5000",
                "http://[::1]:5000/a/b"
            ]
        );
    }

    #[test]
    fn credentials_are_sent_and_never_shown() {
        let address = parsed("http://ann:p%40ss@host:5000");
        assert_eq!(address.base, "http://host:5000");
        // printf 'ann:p@ss' | base64
        assert_eq!(address.authorization.as_deref(), Some("Basic YW5uOnBAc3M="));
        assert!(!format!("{address:?}").contains("ann"));

        let variables = |name: &str| match name {
            USERNAME => Some("ann".to_owned()),
            PASSWORD => Some("p@ss".to_owned()),
            _ => Some("secret\n".to_owned()),
        };
        let of_variables = Address::parse("http://host", variables).expect("an address");
        assert_eq!(of_variables.authorization, address.authorization);
        let token = |name: &str| variables(name).filter(|_| name == TOKEN);
        let token = Address::parse("http://host", token).expect("an address");
        assert_eq!(token.authorization.as_deref(), Some("Bearer secret"));
    }

    #[test]
    fn what_is_no_address_is_said_without_its_words() {
        for (uri, said) in [
            ("https://ann:secret@host", "https is not built in"),
            ("sqlite:///secret.db", "no address"),
            ("file:secret", "no address"),
            ("secret", "no address"),
            ("http://ann:secret%4@host", "two hex digits"),
            ("http://host/?a=secret", "`?`"),
            ("http://", "no address"),
        ] {
            let error = Address::parse(uri, |_| None).expect_err(uri).to_string();
            assert!(error.contains(said), "{uri}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
