//! `reckon completions` and `reckon man`: every shell has a script, every subcommand a page.

use std::process::Command;

use crate::program::{succeeds, text};

#[test]
fn every_shell_gets_a_script_that_knows_the_subcommands() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = succeeds(&["completions", shell]);
        for word in ["pipeline", "verify", "resume"] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
    // Where there is a bash, it takes the script and completes with it.
    let script = succeeds(&["completions", "bash"]);
    let asked = "\nCOMP_WORDS=(reckon ver) COMP_CWORD=1\n_reckon reckon ver reckon\necho \"${COMPREPLY[*]}\"";
    if let Ok(said) = Command::new("bash").args(["-c", &(script + asked)]).output() {
        assert_eq!(String::from_utf8_lossy(&said.stdout).trim(), "verify", "{said:?}");
    }
}

#[test]
fn every_subcommand_has_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("man1");
    let said = succeeds(&["man", "--out", text(&out)]);
    let pages: Vec<String> =
        std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(said.contains(&format!("wrote {} pages", pages.len())), "{said}");
    for (page, word) in [
        ("reckon.1", "pipeline"),
        ("reckon-train.1", "resume"),
        ("reckon-verify.1", "audit"),
        ("reckon-verify-score.1", "kind"),
    ] {
        let written = std::fs::read_to_string(out.join(page)).unwrap();
        assert!(written.contains(".TH reckon") && written.contains(word), "{page}: {written}");
    }
    assert_eq!(succeeds(&["man"]), std::fs::read_to_string(out.join("reckon.1")).unwrap());
}
