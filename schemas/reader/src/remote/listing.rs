//! Checks answers to listings before they are believed.
//!
//! `object_store` takes every XML document for a list of objects: after an error with status 200, or a page of a proxy, a
//! folder would count as empty, and what is known about it would be removed. One name that is no path fails the whole list.

use std::io;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::path::Path as ObjectPath;

/// Names of the root elements of lists: S3 and Google Cloud Storage, Azure.
const ROOTS: [&str; 2] = ["ListBucketResult", "EnumerationResults"];

/// Elements of lists that have a name: objects and folders.
const ENTRIES: [&str; 4] = ["Contents", "Blob", "CommonPrefixes", "BlobPrefix"];

/// Number of characters of an answer that an error quotes.
const QUOTED_CHARS: usize = 80;

/// Makes connections, or sends requests, and checks lists in answers.
#[derive(Debug)]
pub(crate) struct CheckedLists<T> {
    pub inner: T,
    /// True to leave out objects whose names are no paths, which are none of a store.
    pub drops_names: bool,
}

impl<C: HttpConnector> HttpConnector for CheckedLists<C> {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(CheckedLists {
            inner: self.inner.connect(options)?,
            drops_names: self.drops_names,
        }))
    }
}

#[async_trait]
impl HttpService for CheckedLists<HttpClient> {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let mut options = request.uri().query().unwrap_or_default().split('&');
        let is_list = options.any(|option| option == "list-type=2" || option == "comp=list");
        let response = self.inner.execute(request).await?;
        if !is_list || !response.status().is_success() {
            return Ok(response);
        }

        let (parts, body) = response.into_parts();
        let mut list = String::from_utf8_lossy(&body.bytes().await?).into_owned();
        if let Some(problem) = problem(&list) {
            let error = io::Error::other(format!(
                "the answer is not a whole list of objects: {problem}: check the address, the endpoint and proxies"
            ));
            return Err(HttpError::new(HttpErrorKind::Decode, error));
        }
        if self.drops_names {
            list = without_other_names(&list);
        }
        Ok(HttpResponse::from_parts(parts, list.into()))
    }
}

/// Returns what is wrong if an answer is no list, or if the rest of a list that was cut cannot be requested.
fn problem(answer: &str) -> Option<String> {
    let is_element = |tag: &&str| !tag.starts_with(['?', '!']);
    let root = answer
        .split('<')
        .skip(1)
        .find(is_element)
        .unwrap_or_default();
    let name = root.split([' ', '\n', '>', '/']).next().unwrap_or_default();
    if !ROOTS.contains(&name.rsplit(':').next().unwrap_or_default()) {
        let words: Vec<&str> = answer.split_whitespace().collect();
        return Some(words.join(" ").chars().take(QUOTED_CHARS).collect());
    }
    let is_cut = answer.contains("<IsTruncated>true<");
    let has_rest = answer.contains("<NextContinuationToken>");
    (is_cut && !has_rest).then(|| "it was cut, and has no NextContinuationToken".to_owned())
}

/// Removes objects and folders from a list whose names are no paths.
fn without_other_names(list: &str) -> String {
    let mut list = list.to_owned();
    for element in ENTRIES {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let mut kept = String::with_capacity(list.len());
        let mut rest = list.as_str();
        while let Some((before, after)) = rest.split_once(&open)
            && let Some((entry, after)) = after.split_once(&close)
        {
            kept += before;
            if is_path(entry, element.contains("Prefix")) {
                kept += &format!("{open}{entry}{close}");
            }
            rest = after;
        }
        list = kept + rest;
    }
    list
}

/// Reports whether the name in an entry is that of a file or folder: `object_store` would refuse `a//b` and `a/../b`, and
/// take the object `a/`, by which some programs mark a folder, for `a`.
fn is_path(entry: &str, is_folder: bool) -> bool {
    let mut names = ["<Key>", "<Name>", "<Prefix>"].iter();
    let (_, name) = names
        .find_map(|tag| entry.split_once(tag))
        .unwrap_or_default();
    let mut path = name.split('<').next().unwrap_or_default();
    if is_folder {
        path = path.strip_suffix('/').unwrap_or(path);
    }
    let controls = ["&#9;", "&#10;", "&#13;", "&#x9;", "&#xA;", "&#xD;"];
    let has_control = controls.iter().any(|control| path.contains(control));
    !has_control && ObjectPath::parse(path).is_ok_and(|parsed| parsed.as_ref() == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_are_no_lists_are_errors() {
        for list in [
            "<ListBucketResult/>",
            "\u{feff}<?xml version=\"1.0\"?>\n<!-- x --><ListBucketResult xmlns=\"http://s3/\"><Name>b</Name></ListBucketResult>",
            "<s3:ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>x</NextContinuationToken></s3:ListBucketResult>",
            "<?xml version=\"1.0\"?><EnumerationResults ServiceEndpoint=\"x\"><Blobs/></EnumerationResults>",
        ] {
            assert_eq!(problem(list), None, "{list}");
        }
        for other in [
            "",
            "{}",
            "<Error><Code>SlowDown</Code></Error>",
            "<!DOCTYPE html>\n<html><body>Log in</body></html>",
            "<html xmlns=\"http://www.w3.org/1999/xhtml\"><ListBucketResult/></html>",
            "<ListBucketResults></ListBucketResults>",
            "<ListBucketResult><IsTruncated>true</IsTruncated><NextMarker>a</NextMarker></ListBucketResult>",
        ] {
            assert!(problem(other).is_some(), "{other}");
        }
    }

    #[test]
    fn names_that_are_no_paths_are_left_out() {
        let object = |key: &str| format!("<Contents><Key>{key}</Key><Size>1</Size></Contents>");
        let folder = |key: &str| format!("<CommonPrefixes><Prefix>{key}</Prefix></CommonPrefixes>");
        let kept = [
            object("a/b"),
            object("a &amp; b/\u{fc} &#34;"),
            folder("data/p/"),
        ];
        let mut list = kept.join("");
        for other in [
            "a//b", "a/../b", "..", "./a", "a/", "/a", "a&#13;b", "a&#xD;", "a\nb",
        ] {
            list += &object(other);
        }
        list += &folder("data//");
        list += &folder("data/../");
        assert_eq!(
            without_other_names(&format!("<X>{list}</X>")),
            format!("<X>{}</X>", kept.join(""))
        );
    }
}
