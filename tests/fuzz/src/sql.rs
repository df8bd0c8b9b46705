//! Fuzz test: input of the SQL prompt. Statements must end with rows or an error, soon after they are interrupted.

use std::io::sink;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use wavemill_sql::testing::TestStore;
use wavemill_sql::{Console, Format, Session};

use crate::stores::LIMITS;

/// Time after which a statement is interrupted, as with Ctrl-C.
const PATIENCE: Duration = Duration::from_millis(300);

thread_local! {
    static SESSION: (TestStore, Session) = {
        let store = TestStore::small();
        let session = wavemill_sql::open(&store.handle(), &store.manifest, LIMITS);
        (store, session.expect("the store opens"))
    };
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    // The examples of the documentation.
    let page = include_str!("../../../docs/sql.md");
    let blocks = page.split("```sql\n").skip(1).filter_map(|rest| rest.split("```").next());
    let commands = ["\\d", "\\d tracks", "\\x on\nSELECT 1", "SELECT tensor_get(log_mel, 0, 1) FROM features_log_mel"];
    blocks.chain(commands).map(|text| text.as_bytes().to_vec()).collect()
}

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    SESSION.with(|(_, session)| {
        let interrupt = session.interrupt();
        interrupt.clean();
        let (done, wait) = channel::<()>();
        let watch = thread::spawn(move || {
            while wait.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                interrupt.stop();
            }
        });

        for format in [Format::Table, Format::Json] {
            let mut console = Console { format, expanded: false };
            // An error is a valid result.
            let _ = console.answer(session, text, sink());
        }
        drop(done);
        watch.join().expect("it only waits");
    });
}
