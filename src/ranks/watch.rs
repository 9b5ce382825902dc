//! Who watches that all ranks live: each has a connection to the first, over which both say every second that they are
//! there. A rank that is gone, silent or has failed ends all of them at once, whatever they are doing, with one line.
//!
//! The end comes from a thread beside the work, because the work may wait for hours on a rank that will never answer.
//! Checkpoints stand it: they appear whole or not at all.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::output::note;
use crate::parallel::lock;

/// The pause between two signs of life.
const BEAT: Duration = Duration::from_secs(1);

/// A rank that gave none for so long is given up: its machine hangs, or the network to it is gone.
const SILENCE: Duration = Duration::from_secs(20);

/// A sign of life; a rank that is done; one that failed, with its reason behind.
const ALIVE: u8 = 0;
const DONE: u8 = 1;
const FAILED: u8 = 2;

#[derive(Debug)]
pub(super) struct Watch {
    shared: Arc<Shared>,
    readers: Mutex<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    rank: usize,
    links: Vec<Link>,
    /// Whether somebody has begun to end all ranks: the first one prints why.
    ending: AtomicBool,
}

/// The connection to another rank.
#[derive(Debug)]
struct Link {
    to: usize,
    stream: TcpStream,
    /// Whether this side has said its last word.
    closed: Mutex<bool>,
}

impl Link {
    /// Says a word, unless the last one is said. Whether it arrived is the other side's silence to tell.
    fn say(&self, word: &[u8], last: bool) {
        let mut closed = lock(&self.closed);
        if !*closed {
            let _ = (&self.stream).write_all(word);
            *closed = last;
        }
    }

    /// The next word of the other side.
    fn hear(&self) -> std::io::Result<(u8, String)> {
        let mut word = [0];
        (&self.stream).read_exact(&mut word)?;
        let mut text = Vec::new();
        if word[0] == FAILED {
            let mut length = [0; 4];
            (&self.stream).read_exact(&mut length)?;
            text = vec![0; u32::from_le_bytes(length).min(1 << 20) as usize];
            (&self.stream).read_exact(&mut text)?;
        }
        Ok((word[0], String::from_utf8_lossy(&text).into_owned()))
    }
}

fn failed(message: &str) -> Vec<u8> {
    [&[FAILED][..], &(message.len() as u32).to_le_bytes(), message.as_bytes()].concat()
}

impl Watch {
    /// Watches the ranks behind `links`: all others from the first one, and that one from each of them.
    pub(super) fn begin(rank: usize, links: Vec<(usize, TcpStream)>) -> Result<Self> {
        let link = |(to, stream): (usize, TcpStream)| {
            stream.set_read_timeout(Some(SILENCE))?;
            stream.set_write_timeout(Some(SILENCE))?;
            Ok(Link { to, stream, closed: Mutex::new(false) })
        };
        let links = links.into_iter().map(link).collect::<Result<Vec<Link>>>()?;
        let shared = Arc::new(Shared { rank, links, ending: AtomicBool::new(false) });
        let mut readers = Vec::new();
        for index in 0..shared.links.len() {
            let shared = shared.clone();
            readers.push(std::thread::Builder::new().name("watch".into()).spawn(move || shared.listen(index))?);
        }
        let beating = Arc::downgrade(&shared);
        std::thread::Builder::new().name("beat".into()).spawn(move || {
            while let Some(shared) = beating.upgrade() {
                shared.links.iter().for_each(|link| link.say(&[ALIVE], false));
                drop(shared);
                std::thread::sleep(BEAT);
            }
        })?;
        Ok(Self { shared, readers: Mutex::new(readers) })
    }

    /// Tells all ranks that this one has failed. The first rank's caller prints the message; that of another one is
    /// sent to the first, which ends all.
    pub(super) fn fail(&self, message: &str) {
        let Shared { rank, links, ending } = &*self.shared;
        if *rank == 0 {
            if ending.swap(true, Ordering::Relaxed) {
                return self.await_end(SILENCE);
            }
            return links.iter().for_each(|link| link.say(&failed(""), true));
        }
        links.iter().for_each(|link| link.say(&failed(message), true));
        self.await_end(SILENCE);
    }

    /// Waits for the end of this process, at most so long.
    pub(super) fn await_end(&self, most: Duration) {
        let start = Instant::now();
        while start.elapsed() < most {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Says that this rank is done, and waits until all are.
    pub(super) fn end(&self) {
        let done = || self.shared.links.iter().for_each(|link| link.say(&[DONE], true));
        if self.shared.rank != 0 {
            done();
        }
        for reader in std::mem::take(&mut *lock(&self.readers)) {
            // A reader that panicked has nothing more to say.
            let _ = reader.join();
        }
        if self.shared.rank == 0 {
            done();
        }
    }
}

impl Shared {
    /// Hears what the rank behind a link says until it is done, or until something has happened that ends all.
    fn listen(&self, index: usize) {
        let link = &self.links[index];
        loop {
            let why = match link.hear() {
                Ok((ALIVE, _)) => continue,
                Ok((DONE, _)) => return,
                Ok((_, text)) if self.rank == 0 => format!("rank {}: {text}", link.to),
                // The first rank prints.
                Ok(_) => String::new(),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => format!(
                    "rank {} has given no sign of life for {} s: is its machine there? go on with --resume",
                    link.to,
                    SILENCE.as_secs()
                ),
                Err(_) => format!("rank {} is gone, so the run ends on all; go on with --resume", link.to),
            };
            return self.end_all(&why);
        }
    }

    /// Ends this process, and from the first rank all of them.
    fn end_all(&self, why: &str) {
        if self.ending.swap(true, Ordering::Relaxed) {
            return;
        }
        self.links.iter().for_each(|link| link.say(&failed(""), true));
        // Without the first rank, the second one speaks for all.
        if !why.is_empty() && self.rank <= 1 {
            note!("error: {why}");
        }
        // The thread that works may wait for a rank that will never answer.
        std::process::exit(1);
    }
}
