//! What the host tells the helper: arguments that say which part it plays, and a frame on standard input before the
//! program's own input.

use std::io::{self, Read};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Level, Limits};

/// The first argument of a helper.
pub(super) const MARKER: &str = "__sandbox";

/// What the helper does before it becomes the program.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) level: Level,
    pub(super) limits: Limits,
    pub(super) readable: Vec<PathBuf>,
    /// An empty folder that the host removes afterwards.
    pub(super) folder: PathBuf,
    pub(super) files: Vec<(String, String)>,
    /// Empty for a probe.
    pub(super) argv: Vec<String>,
    /// Whether `argv` is a prepared interpreter, which keeps its rights to take them from each process it forks, and
    /// is told whether these need user ids of their own.
    pub(super) serves: bool,
}

impl Job {
    /// Its length in 8 bytes, little-endian, and JSON.
    pub(super) fn frame(&self) -> io::Result<Vec<u8>> {
        Ok(framed(&serde_json::to_vec(self)?))
    }

    /// Reads a frame and not a byte more: what follows is the program's.
    pub(super) fn read(mut input: impl Read) -> io::Result<Self> {
        let mut length = [0; 8];
        input.read_exact(&mut length)?;
        let mut json = vec![0; u64::from_le_bytes(length) as usize];
        input.read_exact(&mut json)?;
        Ok(serde_json::from_slice(&json)?)
    }
}

/// Behind its length in 8 bytes, little-endian.
pub(super) fn framed(json: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes()[..], json].concat()
}

/// Follows the nonce on standard output when the program is about to start.
pub(super) const READY: u8 = b'\n';
/// Follows the nonce when the helper failed; then comes why. The program never knows the nonce, so cannot forge this.
pub(super) const FAILED: u8 = b'!';
