//! Small framed messages that ranks exchange in addition to the values of the ring, and the proof that two ranks belong
//! to the same job.
//!
//! A frame is a length (u32, little-endian) followed by JSON. The proof is a keyed hash over the message and a random
//! number from the other rank, so that the job's token is never sent. Messages and gradients are not encrypted.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// First bytes sent by a rank that accepts connections. They distinguish it from another program that listens on the
/// port.
const MAGIC: &[u8; 16] = b"wavemill ranks 1";
/// Length in bytes of the random numbers that prevent replay attacks.
const NONCE_BYTES: usize = 32;
/// Maximum size of a message in bytes. The longest message is the table of addresses, with about 25 bytes per rank.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

type Nonce = [u8; NONCE_BYTES];

/// Secret key of one job.
#[derive(Clone, Copy)]
pub(super) struct Key([u8; 32]);

impl Key {
    /// Derives the secret key from the job's token.
    pub(super) fn from_token(token: &str) -> Self {
        Self(blake3::derive_key(
            "wavemill trainer: ranks of one job",
            token.as_bytes(),
        ))
    }

    /// Computes the keyed hash of a message. `side` is the role of the sender, so that a rank's own message cannot be
    /// replayed to it.
    fn proof(&self, side: &str, nonce: &Nonce, body: &[u8]) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(side.as_bytes()).update(nonce).update(body);
        hasher.finalize()
    }
}

/// Returns random bytes from the operating system.
///
/// # Errors
/// I/O errors of /dev/urandom, if it cannot be opened or read.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn frame(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;

    let length = bytes.len() - 4;
    check_length(length)?;
    bytes[..4].copy_from_slice(&(length as u32).to_le_bytes());
    Ok(bytes)
}

fn check_length(length: usize) -> io::Result<()> {
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("message of {length} bytes is too long"),
        ));
    }
    Ok(())
}

fn receive_body(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    // Check the length before allocating memory: the sender has not been authenticated yet.
    check_length(length)?;

    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(body)
}

/// Sends one message with a single write.
pub(super) fn send(stream: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&frame(message)?)
}

/// Blocks until one message has been received.
pub(super) fn receive<T: DeserializeOwned>(stream: &mut impl Read) -> io::Result<T> {
    Ok(serde_json::from_slice(&receive_body(stream)?)?)
}

fn send_proven(
    stream: &mut impl Write,
    key: &Key,
    side: &str,
    nonce: &Nonce,
    message: &impl Serialize,
) -> io::Result<()> {
    let frame = frame(message)?;
    let mut bytes = key.proof(side, nonce, &frame[4..]).as_bytes().to_vec();
    bytes.extend_from_slice(&frame);
    stream.write_all(&bytes)
}

fn receive_proven<T: DeserializeOwned>(
    stream: &mut impl Read,
    key: &Key,
    side: &str,
    nonce: &Nonce,
) -> io::Result<T> {
    let mut proof = [0; 32];
    stream.read_exact(&mut proof)?;
    let body = receive_body(stream)?;

    // `blake3::Hash` compares in constant time.
    if key.proof(side, nonce, &body) != blake3::Hash::from_bytes(proof) {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the token of another job",
        ));
    }
    Ok(serde_json::from_slice(&body)?)
}

/// Authenticates a rank that connects to a listener: sends `message` with a proof of the token, and checks the proof in
/// the listener's reply.
///
/// # Errors
/// `PermissionDenied` if the proof is wrong, `UnexpectedEof` if the listener has another token, or an I/O error of the
/// stream.
pub(super) fn introduce(
    stream: &mut (impl Read + Write),
    key: &Key,
    message: &impl Serialize,
) -> io::Result<()> {
    // Read from the listener first: another program that listens on this port then receives nothing about this job.
    let mut opening = [0; MAGIC.len() + NONCE_BYTES];
    stream.read_exact(&mut opening)?;
    let (magic, theirs) = opening.split_at(MAGIC.len());
    let theirs: Nonce = theirs.try_into().map_err(io::Error::other)?;
    if magic != MAGIC {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "another program is listening there",
        ));
    }

    let ours: Nonce = random()?;
    stream.write_all(&ours)?;
    send_proven(stream, key, "guest", &theirs, message)?;
    receive_proven(stream, key, "host", &ours)
}

/// Authenticates a rank that connects to this listener: returns its message, after replying with a proof of the token.
///
/// # Errors
/// `PermissionDenied` if the proof is wrong, or an I/O error of the stream.
pub(super) fn receive_introduction<T: DeserializeOwned>(
    stream: &mut (impl Read + Write),
    key: &Key,
) -> io::Result<T> {
    let ours: Nonce = random()?;
    stream.write_all(&[MAGIC.as_slice(), &ours].concat())?;
    let mut theirs: Nonce = [0; NONCE_BYTES];
    stream.read_exact(&mut theirs)?;
    // Check the peer's proof before sending the answer: an unauthenticated peer receives only a random number.
    let message = receive_proven(stream, key, "guest", &ours)?;
    send_proven(stream, key, "host", &theirs, &())?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn meet(host: &str, guest: &str) -> (io::Result<String>, io::Result<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let mut out = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let host = Key::from_token(host);
        let host = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a guest");
            receive_introduction::<String>(&mut stream, &host)
        });
        let answer = introduce(&mut out, &Key::from_token(guest), &"hello");
        (host.join().expect("no panic"), answer)
    }

    #[test]
    fn ranks_with_equal_tokens_connect() {
        let (heard, answer) = meet("token", "token");
        assert_eq!(heard.expect("proven"), "hello");
        answer.expect("proven");
    }

    #[test]
    fn wrong_token_is_rejected_without_disclosure() {
        let (heard, answer) = meet("token", "tokem");
        assert_eq!(
            heard.expect_err("wrong").kind(),
            io::ErrorKind::PermissionDenied
        );
        answer.expect_err("the connection was dropped");
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused_before_it_is_allocated() {
        let error = receive::<String>(&mut [255_u8; 8].as_slice()).expect_err("4 GiB");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
