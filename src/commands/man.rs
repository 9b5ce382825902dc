//! `reckon man`: the manual, a page for each subcommand.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::Cli;
use crate::disk::write_file;
use crate::output::{print, say};

/// Arguments of `reckon man`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Folder to write `reckon.1` and a page for each subcommand into, such as `~/.local/share/man/man1`; without it,
    /// the first page is printed (`reckon man | man -l -`).
    #[arg(long)]
    out: Option<PathBuf>,
}

pub(super) fn run(args: &Args) -> Result<()> {
    let mut program = Cli::command().disable_help_subcommand(true);
    // Gives each subcommand its whole name, by which its page is called.
    program.build();
    let Some(folder) = &args.out else {
        let text = page(&program)?;
        return print(format_args!("{}", String::from_utf8_lossy(&text)));
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut pages = Vec::new();
    collect(&program, &mut pages);
    for (name, command) in &pages {
        write_file(&folder.join(format!("{name}.1")), &page(command)?)?;
    }
    say!("wrote {} pages into {}", pages.len(), folder.display())
}

/// A command and those below it, by the names of their pages.
fn collect<'a>(command: &'a Command, pages: &mut Vec<(String, &'a Command)>) {
    let name = command.get_display_name().unwrap_or(command.get_name());
    pages.push((name.to_owned(), command));
    command.get_subcommands().filter(|below| !below.is_hide_set()).for_each(|below| collect(below, pages));
}

fn page(command: &Command) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(command.clone()).render(&mut text).context("cannot write a page of the manual")?;
    Ok(text)
}
