//! Access control: accepts requests that are addressed to this server and come from its own pages or from programs.
//!
//! A page of another site can make a browser send requests to this server. The browser states the origin of such a
//! request in `Origin`. With DNS rebinding, another site makes its name resolve to this machine. Its requests then
//! count as same-origin, but `Host` contains the name of the site.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};

use super::refusal::Refusal;

/// The names under which this server can be addressed.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    /// Address on which the server listens.
    pub address: IpAddr,
    /// Additional names, for example the name of a reverse proxy.
    pub names: Vec<String>,
}

impl Gate {
    /// Checks whether a request is addressed to this server and does not come from a page of another site.
    ///
    /// # Errors
    /// Status 400 without exactly one `Host`, 421 if `Host` names another server, 403 for a page of another site.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else {
            return Err(Refusal::bad_request(
                "The request must have one Host header.",
            ));
        };
        let host = authority(host.as_bytes())
            .ok_or_else(|| Refusal::bad_request("The Host header is not a valid host name."))?;

        // The request line may also contain the name of the server.
        let named = uri.authority().into_iter().chain(std::iter::once(&host));
        for authority in named {
            if !self.is_own(authority.host()) {
                return Err(Refusal::new(
                    StatusCode::MISDIRECTED_REQUEST,
                    format!(
                        "This server does not accept the host name {}; --host NAME adds a name.",
                        authority.host()
                    ),
                ));
            }
        }

        for origin in headers.get_all(header::ORIGIN) {
            let own = origin.to_str().ok().and_then(|origin| {
                let (scheme, rest) = origin.split_once("://")?;
                ["http", "https"].contains(&scheme).then_some(rest)
            });
            if own.is_none_or(|own| !own.eq_ignore_ascii_case(host.as_str())) {
                return Err(Refusal::new(
                    StatusCode::FORBIDDEN,
                    "Requests from pages of other sites are not allowed.",
                ));
            }
        }
        Ok(())
    }

    fn is_own(&self, host: &str) -> bool {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            // IP addresses are not subject to DNS rebinding. A wildcard listener accepts all of the machine's
            // addresses.
            return address.is_loopback()
                || address == self.address
                || self.address.is_unspecified();
        }
        // A name with a trailing dot is equivalent to the name without it.
        let name = host.strip_suffix('.').unwrap_or(host);
        name.eq_ignore_ascii_case("localhost")
            || self.names.iter().any(|own| own.eq_ignore_ascii_case(name))
    }
}

/// Parses a host with an optional port. Returns `None` if it contains user information.
fn authority(bytes: &[u8]) -> Option<Authority> {
    let authority = Authority::try_from(bytes).ok()?;
    (!authority.as_str().contains('@') && !authority.host().is_empty()).then_some(authority)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn status(gate: &Gate, host: &str, origin: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).expect("a header"));
        if let Some(origin) = origin {
            let origin = HeaderValue::from_str(origin).expect("a header");
            headers.insert(header::ORIGIN, origin);
        }

        match gate.check(&Uri::from_static("/"), &headers) {
            Ok(()) => 200,
            Err(refusal) => refusal.status.as_u16(),
        }
    }

    #[test]
    fn only_configured_hosts_are_accepted() {
        let gate = Gate {
            address: IpAddr::from([127, 0, 0, 1]),
            names: vec!["music.example".to_owned()],
        };

        for host in [
            "127.0.0.1:8080",
            "localhost",
            "LOCALHOST.:8080",
            "[::1]:8080",
            "Music.Example:443",
        ] {
            assert_eq!(status(&gate, host, None), 200, "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "192.168.0.7:8080"] {
            assert_eq!(status(&gate, host, None), 421, "{host}");
        }
        for host in ["user@localhost", "a b", ""] {
            assert_eq!(status(&gate, host, None), 400, "{host}");
        }

        let open = Gate {
            address: IpAddr::from([0, 0, 0, 0]),
            names: Vec::new(),
        };
        assert_eq!(status(&open, "192.168.0.7:8080", None), 200);
        assert_eq!(status(&open, "music.example", None), 421);

        let none = gate.check(&Uri::from_static("/"), &HeaderMap::new());
        assert_eq!(none.expect_err("no host").status, StatusCode::BAD_REQUEST);

        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        let other = Uri::from_static("http://evil.example/");
        assert!(gate.check(&other, &headers).is_err());
    }

    #[test]
    fn cross_origin_requests_are_rejected() {
        let gate = Gate {
            address: IpAddr::from([127, 0, 0, 1]),
            names: Vec::new(),
        };
        let host = "localhost:8080";

        assert_eq!(status(&gate, host, Some("http://localhost:8080")), 200);
        for origin in [
            "http://evil.example",
            "http://localhost:8081",
            "http://localhost",
            "http://localhost:8080.evil.example",
            "null",
            "file://localhost:8080",
            "",
        ] {
            assert_eq!(status(&gate, host, Some(origin)), 403, "{origin}");
        }
    }
}
