//! What a program prints: results on standard output, and remarks on standard error.
//!
//! A reader of results who goes away, as `head` does, ends a listing ([`Closed`]), and a disk that is full is an error;
//! remarks are a courtesy, which nothing ends for want of. How far a long piece of work has come is
//! [`progress`](crate::progress)'s.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write, stderr, stdout};

use anyhow::{Context, Result};

/// Nobody reads standard output any more. A program ends quietly with it.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct Closed;

/// Prints results.
pub fn print(text: Arguments) -> Result<()> {
    let mut out = stdout().lock();
    match out.write_fmt(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
        outcome => outcome.context("cannot write to standard output"),
    }
}

/// Prints a remark, if anybody reads it.
pub fn remark(text: Arguments) {
    let _ = writeln!(stderr(), "{text}");
}

/// Prints a line of results; the value is to be returned where it is an error.
macro_rules! say {
    () => { $crate::output::print(format_args!("\n")) };
    ($format:literal $($rest:tt)*) => { $crate::output::print(format_args!("{}\n", format_args!($format $($rest)*))) };
}

/// Prints a line of remarks.
macro_rules! note {
    ($($text:tt)*) => { $crate::output::remark(format_args!($($text)*)) };
}

pub(crate) use {note, say};
