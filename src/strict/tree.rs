//! A TOML document as a tree whose nodes know where they were written, with overrides put in and defaults laid under.
//! Reading a type from it is left to `read`.

use anyhow::{Result, anyhow, bail};
use serde::de::Unexpected;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A value of a document with the place where it was written; the values in it are trees again.
pub struct Tree {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

pub(super) enum Value {
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Tree>),
    /// In the order of the document.
    Table(Vec<(String, Tree)>),
}

#[derive(Clone)]
pub(super) enum Origin {
    /// The whole document, which is also where a missing key is missing from.
    Document,
    /// A line of the file, counted from 1.
    Line(usize),
    /// The `--set` argument, whole.
    Set(String),
}

impl Origin {
    pub(super) fn describe(&self, source: &str) -> String {
        match self {
            Self::Document => source.to_owned(),
            Self::Line(line) => format!("{source} line {line}"),
            Self::Set(argument) => format!("--set {argument}"),
        }
    }
}

impl Tree {
    /// A document with overrides, as [`super::load`] takes them.
    pub fn parse(text: &str, source: &str, sets: &[String]) -> Result<Self> {
        let table = DeTable::parse(text).map_err(|error| {
            let place = error.span().map(|span| format!(" line {}", line_of(text, span.start))).unwrap_or_default();
            anyhow!("{source}{place} is not TOML: {}", error.message())
        })?;
        let value = table_value(table.get_ref(), &|at| Origin::Line(line_of(text, at)))
            .map_err(|(at, message)| anyhow!("{source} line {}: {message}", line_of(text, at)))?;
        let mut tree = Self { value, origin: Origin::Document };
        sets.iter().try_for_each(|set| apply(&mut tree, set))?;
        Ok(tree)
    }

    fn at(&self, path: &str) -> Option<&Self> {
        path.split('.').try_fold(self, |node, key| node.child(key))
    }

    /// Whether there is a value at a dotted path.
    pub fn has(&self, path: &str) -> bool {
        self.at(path).is_some()
    }

    /// The string, or `true` or `false`, at a dotted path.
    pub fn word(&self, path: &str) -> Option<String> {
        match &self.at(path)?.value {
            Value::Text(text) => Some(text.clone()),
            Value::Bool(value) => Some(value.to_string()),
            _ => None,
        }
    }

    /// Takes an entry out of a table.
    pub fn take(&mut self, key: &str) -> Option<Self> {
        let Value::Table(entries) = &mut self.value else { return None };
        let index = entries.iter().position(|(name, _)| name == key)?;
        Some(entries.remove(index).1)
    }

    /// Adds to the table `key` what `under` has and it lacks. It is made where it is not there.
    pub fn lay_under(&mut self, key: &str, under: Self) {
        let (Ok(Self { value: Value::Table(own), .. }), Value::Table(entries)) =
            (enter(self, key, &Origin::Document), under.value)
        else {
            return;
        };
        for (name, node) in entries {
            if own.iter().all(|(known, _)| *known != name) {
                own.push((name, node));
            }
        }
    }

    pub(super) fn child(&self, key: &str) -> Option<&Self> {
        match &self.value {
            Value::Table(entries) => entries.iter().find(|(name, _)| name == key).map(|(_, node)| node),
            Value::List(items) => key.parse::<usize>().ok().and_then(|index| items.get(index)),
            _ => None,
        }
    }

    /// Children with the names they have in a dotted path.
    fn children(&self) -> Vec<(String, &Self)> {
        match &self.value {
            Value::Table(entries) => entries.iter().map(|(name, node)| (name.clone(), node)).collect(),
            Value::List(items) => items.iter().enumerate().map(|(i, node)| (i.to_string(), node)).collect(),
            _ => Vec::new(),
        }
    }

    /// The path to the first node below this one, nearest levels first, that `wanted` accepts by name and content.
    pub(super) fn search(&self, wanted: &dyn Fn(&str, &Self) -> bool) -> Option<Vec<String>> {
        let children = self.children();
        if let Some((name, _)) = children.iter().find(|(name, node)| wanted(name, node)) {
            return Some(vec![name.clone()]);
        }
        children.iter().find_map(|(name, node)| {
            let below = node.search(wanted)?;
            Some([vec![name.clone()], below].concat())
        })
    }

    pub(super) fn unexpected(&self) -> Unexpected<'_> {
        match &self.value {
            Value::Bool(value) => Unexpected::Bool(*value),
            Value::Integer(value) => i64::try_from(*value).map_or(Unexpected::Other("integer"), Unexpected::Signed),
            Value::Float(value) => Unexpected::Float(*value),
            Value::Text(value) => Unexpected::Str(value),
            Value::List(_) => Unexpected::Seq,
            Value::Table(_) => Unexpected::Map,
        }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

/// A byte offset into the text and what is wrong there.
type Misread = (usize, String);

fn table_value(table: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin) -> Result<Value, Misread> {
    let entries = table.iter().map(|(key, value)| {
        let node = Tree { value: tree_value(value, origin)?, origin: origin(key.span().start) };
        Ok((key.get_ref().to_string(), node))
    });
    Ok(Value::Table(entries.collect::<Result<_, _>>()?))
}

fn tree_value(value: &Spanned<DeValue<'_>>, origin: &dyn Fn(usize) -> Origin) -> Result<Value, Misread> {
    let at = value.span().start;
    Ok(match value.get_ref() {
        DeValue::Boolean(value) => Value::Bool(*value),
        DeValue::Integer(digits) => {
            let parsed = i128::from_str_radix(digits.as_str(), digits.radix());
            Value::Integer(parsed.map_err(|_| (at, format!("integer {} is too large", digits.as_str())))?)
        }
        DeValue::Float(digits) => {
            let parsed = digits.as_str().parse();
            Value::Float(parsed.map_err(|_| (at, format!("{} is not a number", digits.as_str())))?)
        }
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(items) => {
            let nodes = items
                .iter()
                .map(|item| Ok(Tree { value: tree_value(item, origin)?, origin: origin(item.span().start) }));
            Value::List(nodes.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => table_value(table, origin)?,
    })
}

/// Puts one `a.b=c` into the tree, making the tables on the way.
fn apply(tree: &mut Tree, set: &str) -> Result<()> {
    let Some((path, text)) = set.split_once('=') else {
        bail!("--set {set} has no value: write it as --set key=value");
    };
    let keys: Vec<&str> = path.split('.').map(str::trim).collect();
    if keys.iter().any(|key| key.is_empty()) {
        bail!("--set {set} has an empty key: write it as --set table.key=value");
    }
    let origin = Origin::Set(set.to_owned());
    let mut node = tree;
    for (depth, key) in keys.iter().enumerate() {
        node = enter(node, key, &origin)
            .map_err(|problem| anyhow!("--set {set} cannot be applied: {:?} {problem}", keys[..depth].join(".")))?;
    }
    *node = Tree { value: set_value(text.trim(), &origin), origin };
    Ok(())
}

/// The child of `node` under `key`, made if a table lacks it; an error is the end of a sentence about `node`.
fn enter<'a>(node: &'a mut Tree, key: &str, origin: &Origin) -> Result<&'a mut Tree, String> {
    match &mut node.value {
        Value::Table(entries) => {
            let index = entries.iter().position(|(name, _)| name == key).unwrap_or(entries.len());
            if index == entries.len() {
                entries.push((key.to_owned(), Tree { value: Value::Table(Vec::new()), origin: origin.clone() }));
            }
            Ok(&mut entries[index].1)
        }
        Value::List(items) => {
            let count = items.len();
            let item = key.parse::<usize>().ok().and_then(|index| items.get_mut(index));
            item.ok_or_else(|| match count {
                0 => format!("is an empty array, so it has no entry {key:?}: set the whole array"),
                _ => format!("is an array with the entries 0 to {}, not {key:?}", count - 1),
            })
        }
        _ => Err(format!("is a single value, not a table, so it has no key {key:?}")),
    }
}

/// The value of an override: TOML if `text` is exactly one TOML value, else the text itself.
fn set_value(text: &str, origin: &Origin) -> Value {
    let document = format!("value = {text}");
    let parsed = DeTable::parse(&document).ok().filter(|table| table.get_ref().len() == 1);
    let entry = parsed.as_ref().and_then(|table| table.get_ref().get("value"));
    entry.and_then(|value| tree_value(value, &|_| origin.clone()).ok()).unwrap_or_else(|| Value::Text(text.to_owned()))
}
