//! Values on the command line: what is wanted of one is said in the words of a config, and a number below 0 is a number,
//! no option.

#[cfg(feature = "serve")]
use std::net::SocketAddr;
use std::str::FromStr;

use clap::Command;
use reckon_datasets::Range;

/// A whole number from `least` on.
pub(super) fn whole<T: TryFrom<u64>>(least: u64) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|&number| number >= least).and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("it must be a whole number of at least {least}"))
    }
}

/// A number of a range.
pub(super) fn real<T: FromStr + Copy + Into<f64>>(range: Range) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|&number: &T| range.contains(number.into()));
        number.ok_or_else(|| format!("it must be a number {range}"))
    }
}

/// Where to listen.
#[cfg(feature = "serve")]
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it must be an address of numbers and a port, such as 127.0.0.1:8000".to_owned())
}

/// A command, and those below it, that takes `-1` behind an option for the option's value.
pub(super) fn with_negative_numbers(command: Command) -> Command {
    command.mut_args(|arg| arg.allow_negative_numbers(true)).mut_subcommands(with_negative_numbers)
}
