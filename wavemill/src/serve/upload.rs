//! Receives uploaded files: their size is checked during the transfer, and they are kept in memory only until the end
//! of the request.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::{Body, BodyDataStream, Bytes};
use axum::extract::multipart::{Field, MultipartError};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use axum::http::{StatusCode, header};
use futures::StreamExt;
use futures::stream::poll_fn;
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

/// An uploaded file that is being received.
enum Incoming {
    /// The request body is the file.
    Plain(BodyDataStream),
    /// The file is a part of a multipart form. `body` is also read without `form`, to discard it.
    Form {
        form: Multipart,
        body: Arc<Mutex<BodyDataStream>>,
    },
}

/// Receives a file. The rest of a rejected request is discarded in the background.
///
/// # Errors
/// Status 400 if the request contains no valid upload, 408 if the upload takes too long, 413 if it is too large.
pub(crate) async fn receive(
    request: Request,
    name: Option<String>,
    limits: &Limits,
) -> Result<Upload, Refusal> {
    let announced = announced_bytes(&request);
    let mut incoming = Incoming::from_request(request, limits).await?;

    if announced.is_some_and(|bytes| bytes > incoming.bytes_max(limits)) {
        incoming.drain_aside();
        return Err(too_large(limits));
    }
    let received = timeout(limits.upload, incoming.file(name, announced, limits)).await;
    match received {
        Ok(Ok(upload)) => Ok(upload),
        Ok(Err(refusal)) => {
            // After a timeout, do not wait for the client a second time.
            if refusal.status != StatusCode::REQUEST_TIMEOUT {
                incoming.drain_aside();
            }
            Err(refusal)
        }
        Err(_) => Err(too_slow(limits.upload)),
    }
}

/// Reads and discards the rest of a body in the background, while the client receives the error response.
pub(crate) fn drain_aside(body: Body) {
    Incoming::Plain(body.into_data_stream()).drain_aside();
}

impl Incoming {
    async fn from_request(request: Request, limits: &Limits) -> Result<Self, Refusal> {
        let kind = request.headers().get(header::CONTENT_TYPE);
        let is_form = kind.is_some_and(|kind| {
            let kind = kind.as_bytes().to_ascii_lowercase();
            kind.starts_with(b"multipart/form-data")
        });
        if !is_form {
            return Ok(Self::Plain(request.into_body().into_data_stream()));
        }
        let (head, body) = request.into_parts();
        let body = Arc::new(Mutex::new(body.into_data_stream()));
        let shared = Arc::clone(&body);
        let stream = poll_fn(move |context| {
            let mut body = shared.lock().unwrap_or_else(PoisonError::into_inner);
            body.poll_next_unpin(context)
        });

        let mut request = Request::from_parts(head, Body::from_stream(stream));
        // The form's parser keeps all bytes until it finds the end of what precedes a file.
        DefaultBodyLimit::max(limits.upload_bytes + FORM_BYTES).apply(&mut request);
        match Multipart::from_request(request, &()).await {
            Ok(form) => Ok(Self::Form { form, body }),
            Err(_) => {
                if let Some(body) = Arc::into_inner(body) {
                    let body = body.into_inner().unwrap_or_else(PoisonError::into_inner);
                    Self::Plain(body).drain_aside();
                }
                Err(Refusal::bad_request(
                    "The form's Content-Type has no boundary.",
                ))
            }
        }
    }

    fn bytes_max(&self, limits: &Limits) -> usize {
        match self {
            Self::Plain(_) => limits.upload_bytes,
            Self::Form { .. } => limits.upload_bytes + FORM_BYTES,
        }
    }

    async fn file(
        &mut self,
        name: Option<String>,
        announced: Option<usize>,
        limits: &Limits,
    ) -> Result<Upload, Refusal> {
        match self {
            Self::Plain(stream) => {
                // The announced size is reserved, so that the buffer is not copied while it grows.
                let mut bytes = Vec::with_capacity(announced.unwrap_or(0));
                while let Some(chunk) = in_time(stream.next(), limits).await? {
                    let chunk = chunk.map_err(|_| broken())?;
                    append(&mut bytes, &chunk, limits)?;
                }

                let name = file_name(name.as_deref());
                Ok(Upload { name, bytes })
            }
            Self::Form { form, .. } => {
                let mut found = None;
                while let Some(field) = in_time(form.next_field(), limits)
                    .await?
                    .map_err(|error| bad_form(&error, limits))?
                {
                    // Browsers send the name of the file. Other clients may only name the part of the form `file`.
                    let is_file = field.file_name().is_some() || field.name() == Some("file");
                    if !is_file {
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

                    found = Some(part(field, name.as_deref(), limits).await?);
                }
                found.ok_or_else(|| {
                    Refusal::bad_request(
                        "The form contains no file; send the song as the part `file`.",
                    )
                })
            }
        }
    }

    /// Reads and discards the rest of the body in the background for at most [`DRAIN_S`] seconds.
    fn drain_aside(self) {
        tokio::spawn(async move {
            let _ = timeout(Duration::from_secs(DRAIN_S), self.drain()).await;
        });
    }

    async fn drain(self) {
        let mut stream = match self {
            Self::Plain(stream) => stream,
            Self::Form { form, body } => {
                // The form's parser would keep the bytes.
                drop(form);
                let Some(body) = Arc::into_inner(body) else {
                    return;
                };
                body.into_inner().unwrap_or_else(PoisonError::into_inner)
            }
        };
        while let Some(Ok(_)) = stream.next().await {}
    }
}

/// Receives one part of a multipart form as a file.
async fn part(
    mut field: Field<'_>,
    name: Option<&str>,
    limits: &Limits,
) -> Result<Upload, Refusal> {
    let name = file_name(name.or(field.file_name()));
    let mut bytes = Vec::new();
    while let Some(chunk) = in_time(field.chunk(), limits)
        .await?
        .map_err(|error| bad_form(&error, limits))?
    {
        append(&mut bytes, &chunk, limits)?;
    }
    Ok(Upload { name, bytes })
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

fn broken() -> Refusal {
    Refusal::bad_request("The upload was interrupted.")
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
