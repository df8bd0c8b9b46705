//! Addresses of folders in object stores, and the options for their providers in the environment.

use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::client::SpawnedReqwestConnector;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as ObjectPath;
use object_store::{ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use crate::limits::Limits;
use crate::{RemoteError, runtime};

/// Number of times that a request is repeated after an error of the server or of the connection.
const RETRIES: usize = 8;

/// Time limit of a request to a web server, which may take long to send a clip.
const INPUT_TIMEOUT: Duration = Duration::from_secs(300);

/// Opens the bucket of an address, and returns it with the path in it. Web servers are only opened if `is_input` is set.
pub(crate) fn open(
    address: &str,
    is_input: bool,
) -> Result<(Box<dyn ObjectStore>, ObjectPath), RemoteError> {
    let refused = |problem: String| RemoteError::Address {
        address: address.to_owned(),
        problem,
    };
    let url = Url::parse(address).map_err(|error| refused(format!("not an address: {error}")))?;
    if url.query().is_some() || url.fragment().is_some() {
        let problem = "names with `?` or `#` are not supported: rename the folder";
        return Err(refused(problem.to_owned()));
    }
    let (scheme, path) =
        ObjectStoreScheme::parse(&url).map_err(|_| refused(unsupported(is_input).to_owned()))?;

    let retry = RetryConfig {
        max_retries: RETRIES,
        retry_timeout: Limits::read()?.retry_time,
        ..RetryConfig::default()
    };
    let origin = url.origin().ascii_serialization();
    let url = url.to_string();
    // Connections are shared by all callers, so they must not depend on the threads of one of them.
    let runtime = runtime().map_err(|error| refused(format!("cannot start threads: {error}")))?;
    let connector = SpawnedReqwestConnector::new(runtime.handle().clone());
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
}
