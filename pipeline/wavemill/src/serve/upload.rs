//! Receives uploaded files: their size is checked during the transfer, and they are kept in memory only until the end
//! of the request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::multipart::MultipartError;
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};
use futures::stream::poll_fn;
use futures::{Stream, StreamExt};
use tokio::time::timeout;

use super::limits::{DRAIN_S, FORM_BYTES, Limits, NAME_CHARS};
use super::refusal::Refusal;

/// An uploaded file that was received completely.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Upload {
    /// File name given by the client, without directories.
    pub name: String,
    pub bytes: Vec<u8>,
}

/// The body of a request, of which the handler may leave a rest unread.
pub(crate) struct SharedBody(Arc<Mutex<BodyDataStream>>);

impl SharedBody {
    /// Returns the request with a body whose rest can be read after the handler has dropped it.
    pub(crate) fn of(request: Request) -> (Request, Self) {
        let (head, body) = request.into_parts();
        let shared = Self(Arc::new(Mutex::new(body.into_data_stream())));
        let body = Body::from_stream(shared.stream());
        (Request::from_parts(head, body), shared)
    }

    fn stream(&self) -> impl Stream<Item = Result<Bytes, axum::Error>> + Unpin + use<> {
        let body = Arc::clone(&self.0);
        poll_fn(move |context| {
            let mut body = body.lock().unwrap_or_else(PoisonError::into_inner);
            body.poll_next_unpin(context)
        })
    }

    /// Reads and discards the rest of the body in the background for at most [`DRAIN_S`] seconds, while the client
    /// receives the response.
    pub(crate) fn drain_aside(&self) {
        let mut rest = self.stream();
        let drain = async move { while let Some(Ok(_)) = rest.next().await {} };
        tokio::spawn(timeout(Duration::from_secs(DRAIN_S), drain));
    }
}

/// Receives a file: the body of the request, or the only file of a form.
///
/// # Errors
/// Status 400 if the request contains no valid upload, 408 if the upload takes too long, 413 if it is too large.
pub(crate) async fn receive(
    mut request: Request,
    name: Option<String>,
    limits: &Limits,
) -> Result<Upload, Refusal> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.map_or(Vec::new(), |kind| kind.as_bytes().to_ascii_lowercase());
    let is_form = kind.starts_with(b"multipart/form-data");
    let bytes_max = limits.upload_bytes + if is_form { FORM_BYTES } else { 0 };

    let announced = announced_bytes(&request).unwrap_or(0);
    if announced > bytes_max {
        return Err(too_large(limits));
    }

    let received = async {
        if is_form {
            // The form's parser keeps all bytes until it finds the end of what precedes a file.
            DefaultBodyLimit::max(bytes_max).apply(&mut request);
            return file_of_form(request, name, limits).await;
        }
        // The announced size is reserved, so that the buffer is not copied while it grows.
        let mut bytes = Vec::with_capacity(announced);
        let mut body = request.into_body().into_data_stream();
        while let Some(chunk) = in_time(body.next(), limits).await? {
            let chunk = chunk.map_err(|_| Refusal::bad_request("The upload was interrupted."))?;
            append(&mut bytes, &chunk, limits)?;
        }
        let name = file_name(name.as_deref());
        Ok(Upload { name, bytes })
    };
    let received = timeout(limits.upload, received).await;
    received.unwrap_or_else(|_| Err(too_slow(limits.upload)))
}

async fn file_of_form(
    request: Request,
    name: Option<String>,
    limits: &Limits,
) -> Result<Upload, Refusal> {
    let form = Multipart::from_request(request, &()).await;
    let mut form =
        form.map_err(|_| Refusal::bad_request("The form's Content-Type has no boundary."))?;
    let bad_form = |error: MultipartError| bad_form(&error, limits);

    let mut found = None;
    while let Some(mut field) = in_time(form.next_field(), limits)
        .await?
        .map_err(bad_form)?
    {
        // Browsers send the name of the file. Other clients may only name the part of the form `file`.
        if field.file_name().is_none() && field.name() != Some("file") {
            return Err(Refusal::bad_request(
                "The form has a part that is not a file; send the song as the part `file`.",
            ));
        }
        // A response describes a single song, so a second file is rejected.
        if found.is_some() {
            return Err(Refusal::bad_request(
                "Send one song per request; several requests can be sent at once.",
            ));
        }

        let name = file_name(name.as_deref().or(field.file_name()));
        let mut bytes = Vec::new();
        while let Some(chunk) = in_time(field.chunk(), limits).await?.map_err(bad_form)? {
            append(&mut bytes, &chunk, limits)?;
        }
        found = Some(Upload { name, bytes });
    }
    found.ok_or_else(|| {
        Refusal::bad_request("The form contains no file; send the song as the part `file`.")
    })
}

fn append(bytes: &mut Vec<u8>, chunk: &Bytes, limits: &Limits) -> Result<(), Refusal> {
    if bytes.len() + chunk.len() > limits.upload_bytes {
        return Err(too_large(limits));
    }
    bytes.extend_from_slice(chunk);
    Ok(())
}

/// Waits for the next chunk. Fails if the client sends nothing for too long.
async fn in_time<T>(next: impl Future<Output = T>, limits: &Limits) -> Result<T, Refusal> {
    let next = timeout(limits.silence, next).await;
    next.map_err(|_| too_slow(limits.silence))
}

fn announced_bytes(request: &Request) -> Option<usize> {
    let length = request.headers().get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

/// Returns the last component of a path without control characters, limited to [`NAME_CHARS`] characters.
fn file_name(name: Option<&str>) -> String {
    let name = name.unwrap_or_default();
    let last = name.rsplit(['/', '\\']).next().unwrap_or_default();
    let shown = last.chars().filter(|c| !c.is_control());
    let kept: String = shown.take(NAME_CHARS).collect();
    if kept.trim().is_empty() {
        return "upload".to_owned();
    }
    kept
}

fn too_large(limits: &Limits) -> Refusal {
    Refusal::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!(
            "The file is too large: this server accepts at most {}.",
            wavemill_pages::binary_bytes(limits.upload_bytes as u64)
        ),
    )
}

fn too_slow(waited: Duration) -> Refusal {
    Refusal::new(
        StatusCode::REQUEST_TIMEOUT,
        format!(
            "The upload took too long and was stopped after {} s.",
            waited.as_secs_f64()
        ),
    )
}

fn bad_form(error: &MultipartError, limits: &Limits) -> Refusal {
    if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return too_large(limits);
    }
    Refusal::bad_request("The form is damaged or incomplete.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_folders_and_an_end() {
        assert_eq!(file_name(Some("song.mp3")), "song.mp3");
        assert_eq!(file_name(Some("../../etc/pass\u{1b}wd")), "passwd");
        assert_eq!(file_name(Some("C:\\music\\a.wav")), "a.wav");
        assert_eq!(
            file_name(Some(&"é".repeat(1000))).chars().count(),
            NAME_CHARS
        );

        for none in [None, Some(""), Some("a/"), Some(" ")] {
            assert_eq!(file_name(none), "upload");
        }
    }
}
