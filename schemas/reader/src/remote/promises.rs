//! Checks of what a store needs from its server, because some servers and proxies report success for what they did not
//! do.

use object_store::PutMode;

use crate::remote::address::server;
use crate::remote::{Remote, RemoteError};

/// Object by which conditional writes are tested. It is kept, so that later tests need one request.
const PROBE: &str = "_wavemill/conditional-writes";

impl Remote {
    /// Checks that the server refuses to create an object that exists. Otherwise a commit could replace another one.
    ///
    /// # Errors
    /// [`RemoteError::Address`] if the server does not; [`RemoteError::Request`].
    pub fn require_conditional_writes(&self) -> Result<(), RemoteError> {
        // The first request succeeds unless the object exists since an earlier test.
        for _ in 0..2 {
            match self.put_as(PROBE, Vec::new().into(), PutMode::Create) {
                Ok(()) => {}
                Err(object_store::Error::AlreadyExists { .. }) => return Ok(()),
                Err(error) => return Err(self.not_created(error)),
            }
        }
        Err(self.unfit("ignores the condition `If-None-Match`"))
    }

    /// Returns the error for a conditional write that failed: the condition is the reason if the same write succeeds
    /// without it.
    fn not_created(&self, error: object_store::Error) -> RemoteError {
        match self.put_as(PROBE, Vec::new().into(), PutMode::Overwrite) {
            Ok(()) => self.unfit("refuses the condition `If-None-Match`"),
            Err(_) => self.failed("write", PROBE)(error),
        }
    }

    fn unfit(&self, problem: &str) -> RemoteError {
        let problem = format!(
            "the server {} {problem}, so that a commit could replace another one: use a server with conditional writes \
             (for Google Cloud Storage, a gs:// address), or write a store in a folder and copy it",
            server(self.address())
        );
        RemoteError::address(self.address(), problem)
    }

    /// Checks that an object has the content with which it was written.
    ///
    /// # Errors
    /// [`RemoteError::Request`], also if the object is missing or has other content.
    pub fn require_written(&self, name: &str, content: &[u8]) -> Result<(), RemoteError> {
        let problem = match self.get(name)? {
            Some(stored) if stored == content => return Ok(()),
            Some(_) => "returns other content",
            None => "has no such object",
        };
        let problem = format!(
            "the server {} reported success, but {problem}: look for a proxy or a rule that drops requests or objects, \
             and run the command again",
            server(self.address())
        );
        Err(self.refused("write", name, problem))
    }
}
