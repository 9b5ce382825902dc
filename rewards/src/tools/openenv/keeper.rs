//! What answers the pings of servers while completions are sampled and nobody calls. Servers ask whether a client is
//! still there (uvicorn every 20 s) and close a connection that does not say so.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, TryLockError, Weak};
use std::time::Duration;

use super::session::{Line, Session};

/// How often connections are looked after.
const EVERY: Duration = Duration::from_secs(1);

type Lines = Mutex<Vec<Weak<Mutex<Line>>>>;

/// The connections of the sessions that are open, and a thread that looks after them for as long as this is there.
#[derive(Debug)]
pub(super) struct Keeper {
    lines: Arc<Lines>,
    /// The thread ends with it.
    _ends: Sender<()>,
}

impl Keeper {
    pub(super) fn start() -> Result<Self, String> {
        let lines = Arc::new(Lines::default());
        let (_ends, ended) = channel::<()>();
        let looked_after = Arc::clone(&lines);
        let look = move || {
            while ended.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                look_after(&looked_after);
            }
        };
        std::thread::Builder::new().name("openenv".into()).spawn(look).map_err(|error| error.to_string())?;
        Ok(Self { lines, _ends })
    }

    /// Looks after a session from now on.
    pub(super) fn keep(&self, session: Session) -> Session {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(session.line());
        session
    }
}

fn look_after(lines: &Lines) {
    let open: Vec<Arc<Mutex<Line>>> = {
        let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.retain(|line| line.strong_count() > 0);
        lines.iter().filter_map(Weak::upgrade).collect()
    };
    for line in open {
        match line.try_lock() {
            Ok(mut line) => line.look(),
            Err(TryLockError::Poisoned(line)) => line.into_inner().look(),
            // Somebody calls, and reads what comes.
            Err(TryLockError::WouldBlock) => {}
        }
    }
}
