//! Addresses of folders in object stores, and the options for their providers in the environment.

use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::{Position, Url};

use crate::remote::connection::Connector;
use crate::remote::limits::Limits;
use crate::remote::listing::CheckedLists;
use crate::remote::{RemoteError, runtime};

/// Longest pause before a request is repeated: the time that is lost after the server is there again.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Time for which a signed request is repeated: S3 accepts its signature for a quarter of an hour.
const SIGNED_TIME: Duration = Duration::from_secs(14 * 60);

/// Time without progress of a request to a web server, which may take long to find a clip.
const INPUT_TIMEOUT: Duration = Duration::from_secs(300);

/// Opens the bucket of an address, and returns it with the path in it. Web servers are only opened if `is_input` is set.
pub(crate) fn open(
    address: &str,
    is_input: bool,
) -> Result<(Box<dyn ObjectStore>, ObjectPath), RemoteError> {
    let refused = |problem: String| RemoteError::address(address, problem);
    let url = parsed(address, is_input)?;
    let found = match is_input && is_web(&url) {
        // `ObjectStoreScheme` would take some web servers for S3 or Azure, whose requests need credentials.
        true => ObjectPath::from_url_path(url.path())
            .ok()
            .map(|path| (ObjectStoreScheme::Http, path)),
        false => ObjectStoreScheme::parse(&url).ok(),
    };
    let (scheme, path) = found.ok_or_else(|| refused(unsupported(is_input).to_owned()))?;

    let limits = Limits::read()?;
    // Only the time limits the repetitions: how many fit into it depends on how long the server takes to refuse.
    let retry = RetryConfig {
        backoff: BackoffConfig {
            max_backoff: PAUSE_MAX,
            ..BackoffConfig::default()
        },
        max_retries: usize::MAX,
        retry_timeout: limits.retry_time.min(SIGNED_TIME),
    };
    let origin = url.origin().ascii_serialization();
    let url = url.to_string();
    // Connections are shared by all callers, so they must not depend on the threads of one of them.
    let runtime = runtime().map_err(|error| refused(format!("cannot start threads: {error}")))?;
    let connector = CheckedLists {
        inner: Connector {
            runtime: runtime.handle().clone(),
            stall_time: limits.stall_time,
        },
        drops_names: !is_input,
    };
    let opened: Result<Box<dyn ObjectStore>, object_store::Error> = match scheme {
        ObjectStoreScheme::AmazonS3 => AmazonS3Builder::from_env()
            .with_url(url)
            .with_retry(retry)
            .with_http_connector(connector)
            .build()
            .map(|store| Box::new(store) as _),
        ObjectStoreScheme::GoogleCloudStorage => GoogleCloudStorageBuilder::from_env()
            .with_url(url)
            .with_retry(retry)
            .with_http_connector(connector)
            .build()
            .map(|store| Box::new(store) as _),
        ObjectStoreScheme::MicrosoftAzure => MicrosoftAzureBuilder::from_env()
            .with_url(url)
            .with_retry(retry)
            .with_http_connector(connector)
            .build()
            .map(|store| Box::new(store) as _),
        ObjectStoreScheme::Http if is_input => HttpBuilder::new()
            .with_url(origin)
            .with_client_options(
                ClientOptions::new()
                    .with_allow_http(true)
                    .with_timeout(INPUT_TIMEOUT),
            )
            .with_retry(retry)
            .with_http_connector(connector)
            .build()
            .map(|store| Box::new(store) as _),
        _ => return Err(refused(unsupported(is_input).to_owned())),
    };
    let objects = opened.map_err(|error| refused(error.to_string()))?;
    Ok((objects, path))
}

/// Parses an address, and refuses a user, a password and a query: requests have none of them. They may be secret, so
/// the error does not contain them.
pub(crate) fn parsed(address: &str, is_input: bool) -> Result<Url, RemoteError> {
    let url = Url::parse(address)
        .map_err(|error| RemoteError::address(address, format!("not an address: {error}")))?;
    // An address in Azure may have its container before the `@`.
    let has_container = matches!(url.scheme(), "az" | "abfs" | "abfss");
    let has_user = url.password().is_some() || !(has_container || url.username().is_empty());
    if !has_user && url.query().is_none() && url.fragment().is_none() {
        return Ok(url);
    }

    let problem = match is_web(&url) {
        true if is_input => {
            "addresses with a user, a password, `?` or `#` are not supported: download the file first, or give the \
             address of a public file or of S3 (s3://)"
        }
        true => unsupported(is_input),
        false if has_user => {
            "addresses with a user or a password are not supported: set the credentials in the environment, such as \
             AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        }
        false => "names with `?` or `#` are not supported: rename the object or folder",
    };
    let begin = match has_user {
        true => Position::BeforeHost,
        false => Position::BeforeUsername,
    };
    let end = match url.scheme() {
        // The query is part of the object's name.
        "s3" | "gs" => Position::AfterFragment,
        _ => Position::AfterPath,
    };
    let address = format!("{}://{}", url.scheme(), &url[begin..end]);
    Err(RemoteError::address(address, problem))
}

/// Returns the name of the server of a store's address.
pub(crate) fn server(address: &str) -> String {
    if address.starts_with("s3") {
        let endpoint = AmazonS3Builder::from_env().get_config_value(&AmazonS3ConfigKey::Endpoint);
        return endpoint.unwrap_or_else(|| "Amazon S3".to_owned());
    }
    match address.starts_with("gs") {
        true => "Google Cloud Storage".to_owned(),
        false => "Azure Blob Storage".to_owned(),
    }
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
}

const fn unsupported(is_input: bool) -> &'static str {
    match is_input {
        true => {
            "not supported: give a path on this machine, or an address that begins with s3://, gs://, az://, abfss://, \
             https:// or http://"
        }
        false => {
            "not supported: give a path on this machine, or an address that begins with s3://, gs://, az:// or abfss://"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::Object;

    #[test]
    fn addresses_have_a_bucket_and_a_path() {
        let (_, path) = open("s3://music/stores/whole/", false).expect("an address");
        assert_eq!(path.as_ref(), "stores/whole");
        let (_, path) = open("gs://music", false).expect("an address");
        assert_eq!(path.as_ref(), "");
        for other in [
            "http://host/store",
            "ftp://host/store",
            "s3://",
            "memory:///x",
        ] {
            let error = open(other, false).expect_err(other);
            assert!(error.to_string().starts_with(other), "{error}");
        }
    }

    #[test]
    fn secrets_in_addresses_are_refused_and_not_printed() {
        for (address, shown) in [
            ("https://user:secret@host/x.zip", "https://host/x.zip"),
            ("https://secret@host:81/x.zip", "https://host:81/x.zip"),
            ("https://host/x.zip?sig=secret", "https://host/x.zip"),
            ("https://host/x.zip?sig=a/secret", "https://host/x.zip"),
            ("s3://key:secret@music/x.zip", "s3://music/x.zip"),
            ("az://music/x.zip?sig=secret", "az://music/x.zip"),
        ] {
            for error in [
                open(address, true).expect_err(address),
                Object::find(address).expect_err(address),
            ] {
                let message = error.to_string();
                assert!(message.starts_with(&format!("{shown}: ")), "{message}");
                assert!(!message.contains("secret"), "{message}");
            }
        }

        let container = "abfss://music@account.dfs.core.windows.net/x.zip";
        assert_eq!(
            parsed(container, true).expect("an address").as_str(),
            container
        );
        let name = open("s3://music/a?.zip", true).expect_err("a query");
        assert_eq!(
            name.to_string(),
            "s3://music/a?.zip: names with `?` or `#` are not supported: rename the object or folder"
        );
    }

    #[test]
    fn inputs_at_web_addresses_need_no_credentials() {
        for (address, path) in [
            ("https://music.s3.eu-west-1.amazonaws.com/x/y", "x/y"),
            ("https://s3.eu-west-1.amazonaws.com/music/x", "music/x"),
            ("https://account.blob.core.windows.net/music/x", "music/x"),
            ("http://host/a%20b", "a b"),
        ] {
            let (objects, found) = open(address, true).expect(address);
            assert_eq!(
                (objects.to_string().as_str(), found.as_ref()),
                ("HttpStore", path),
                "{address}"
            );
        }
    }
}
