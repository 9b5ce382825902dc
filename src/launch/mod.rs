//! What a cluster is asked for: a run on several ranks as a script of Slurm or a manifest of Kubernetes. Texts alone:
//! nothing here speaks to a cluster, or reads what a config says.

mod kubernetes;
mod slurm;

pub use kubernetes::jobset;
pub use slurm::sbatch;

/// A run to be launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// What the cluster calls it.
    pub name: String,
    /// Arguments of `reckon train` that begin it, without its folder.
    pub begin: Vec<String>,
    /// Its folder, on a file system that all machines see; where it has begun, it is resumed.
    pub run: String,
    /// Ranks on each machine.
    pub ranks_per_node: usize,
    /// Machines.
    pub nodes: usize,
    /// Threads of a rank.
    pub threads: usize,
    /// Whether each rank computes on a card of its own.
    pub cards: bool,
    /// The program.
    pub program: String,
}

/// Seconds in which a run that is told to stop finishes its step and saves.
pub const LEAD_S: u64 = 300;

/// A word as a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn words(words: &[String]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_would_read_more_into_them() {
        for (word, expected) in [
            ("config.toml", "config.toml"),
            ("optim.lr=1e-4", "optim.lr=1e-4"),
            ("a b", "'a b'"),
            ("$HOME", "'$HOME'"),
            ("it's", r"'it'\''s'"),
            ("", "''"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn what_a_shell_reads_back_is_what_was_meant() {
        let names = ["plain", "a b", "$(false)", "it's", "`x`", "\"", "a\\b", "*", "a;b", "#"];
        let line = format!("printf '%s\\n' {}", words(&names.map(str::to_owned)));
        let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        assert_eq!(String::from_utf8(output.stdout).unwrap(), names.join("\n") + "\n");
    }
}
