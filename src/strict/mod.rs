//! Turns TOML text and `--set a.b=c` overrides into a typed value, and every mistake into a sentence with a way out.
//!
//! The text becomes a [`Tree`] whose nodes remember where they were written; serde then reads the type from that tree, so
//! an error knows its dotted path, its line or its `--set` argument, and the nearest key that would have been right.
//! Which keys exist is the business of the type: it is expected to carry `#[serde(deny_unknown_fields)]`.

mod fault;
mod read;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use tree::Tree;

/// What a document is read into.
pub trait Document: DeserializeOwned {
    /// Lays under the document what its own keys lie on top of, before it is read.
    fn lay_under(_: &mut Tree) -> Result<()> {
        Ok(())
    }

    /// Gives the values that follow from others, or from the machine, once it is read.
    fn resolve(&mut self) {}
}

/// Reads a `T` from TOML `text`, after the overrides in `sets`, each of the form `a.b=c`.
///
/// `source` is the name of the file, for messages. In an override, arrays are entered by index (`verifiers.0.weight=2`),
/// the value is read as TOML where it is TOML, and is a string otherwise; the last override of a key holds.
///
/// ```
/// # use reckon::strict;
/// #[derive(serde::Deserialize, Debug)]
/// #[serde(deny_unknown_fields)]
/// struct Sampling {
///     #[allow(dead_code)]
///     temperature: f64,
/// }
/// impl strict::Document for Sampling {}
/// let error = strict::load::<Sampling>("temprature = 1.0", "config.toml", &[]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#"unknown key "temprature" in config.toml line 1: did you mean "temperature"?"#
/// );
/// ```
pub fn load<T: Document>(text: &str, source: &str, sets: &[String]) -> Result<T> {
    let mut tree = Tree::parse(text, source, sets)?;
    T::lay_under(&mut tree)?;
    let mut value: T = read_as(&tree, source)?;
    value.resolve();
    Ok(value)
}

/// Reads a `T` from a document as it is.
pub fn read_as<T: DeserializeOwned>(tree: &Tree, source: &str) -> Result<T> {
    T::deserialize(read::Reader(tree)).map_err(|fault| anyhow!(fault.explain(tree, source)))
}

/// A value as TOML, which reads back as itself. By way of a table: toml's writer of text would be compiled once more for
/// every type in it.
pub fn print(value: &impl Serialize) -> Result<String> {
    Ok(toml::Table::try_from(value)?.to_string())
}

/// Every value of a document under its dotted key, as TOML writes it.
pub fn flat(value: &impl Serialize) -> Result<BTreeMap<String, String>> {
    fn visit(key: String, value: &toml::Value, found: &mut BTreeMap<String, String>) {
        let below = |name: &str| if key.is_empty() { name.to_owned() } else { format!("{key}.{name}") };
        match value {
            toml::Value::Table(table) => table.iter().for_each(|(name, value)| visit(below(name), value, found)),
            toml::Value::Array(items) if items.iter().any(toml::Value::is_table) => {
                items.iter().enumerate().for_each(|(index, value)| visit(below(&index.to_string()), value, found));
            }
            other => drop(found.insert(key, other.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    visit(String::new(), &toml::Value::Table(toml::Table::try_from(value)?), &mut found);
    Ok(found)
}

/// The word of `known` that `word` was most likely meant to be, if one is close enough to be worth asking about.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let scored = known.into_iter().map(|candidate| (strsim::jaro_winkler(&word, &plain(candidate)), candidate));
    scored.filter(|(score, _)| *score >= 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}
