//! Turns TOML text and `--set a.b=c` overrides into a typed value, and every mistake into a sentence with a way out.
//!
//! The text becomes a tree whose nodes remember where they were written; serde then reads the type from that tree, so an
//! error knows its dotted path, its line or its `--set` argument, and the nearest key that would have been right.
//! Which keys exist is the business of the type: it is expected to carry `#[serde(deny_unknown_fields)]`.
//! The file is long because tree, errors and the serde deserializer between them are of no use apart.

use std::fmt::{self, Display};

use anyhow::{Result, anyhow, bail};
use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, VariantAccess, Visitor,
};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

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
/// let error = strict::load::<Sampling>("temprature = 1.0", "config.toml", &[]).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     r#"unknown key "temprature" in config.toml line 1: did you mean "temperature"?"#
/// );
/// ```
pub fn load<T: DeserializeOwned>(text: &str, source: &str, sets: &[String]) -> Result<T> {
    let mut tree = parse(text, source)?;
    for set in sets {
        apply(&mut tree, set)?;
    }
    T::deserialize(&tree).map_err(|fault| anyhow!(fault.explain(&tree, source)))
}

/// The word of `known` that `word` was most likely meant to be, if one is close enough to be worth asking about.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_lowercase().replace('-', "_");
    let word = plain(word);
    let scored = known.into_iter().map(|candidate| (strsim::jaro_winkler(&word, &plain(candidate)), candidate));
    scored.filter(|(score, _)| *score >= 0.75).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// A value of the document with the place where it was written.
struct Node {
    value: Value,
    origin: Origin,
}

enum Value {
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    /// In the order of the document.
    Table(Vec<(String, Node)>),
}

#[derive(Clone)]
enum Origin {
    /// The whole document, which is also where a missing key is missing from.
    Document,
    /// A line of the file, counted from 1.
    Line(usize),
    /// The `--set` argument, whole.
    Set(String),
}

impl Origin {
    fn describe(&self, source: &str) -> String {
        match self {
            Self::Document => source.to_owned(),
            Self::Line(line) => format!("{source} line {line}"),
            Self::Set(argument) => format!("--set {argument}"),
        }
    }
}

impl Node {
    fn child(&self, key: &str) -> Option<&Self> {
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
    fn search(&self, wanted: &dyn Fn(&str, &Self) -> bool) -> Option<Vec<String>> {
        let children = self.children();
        if let Some((name, _)) = children.iter().find(|(name, node)| wanted(name, node)) {
            return Some(vec![name.clone()]);
        }
        children.iter().find_map(|(name, node)| {
            let below = node.search(wanted)?;
            Some([vec![name.clone()], below].concat())
        })
    }

    fn unexpected(&self) -> Unexpected<'_> {
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

fn parse(text: &str, source: &str) -> Result<Node> {
    let table = DeTable::parse(text).map_err(|error| {
        let place = error.span().map(|span| format!(" line {}", line_of(text, span.start))).unwrap_or_default();
        anyhow!("{source}{place} is not TOML: {}", error.message())
    })?;
    let value = table_value(table.get_ref(), &|at| Origin::Line(line_of(text, at)))
        .map_err(|(at, message)| anyhow!("{source} line {}: {message}", line_of(text, at)))?;
    Ok(Node { value, origin: Origin::Document })
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|byte| **byte == b'\n').count()
}

/// A byte offset into the text and what is wrong there.
type Misread = (usize, String);

fn table_value(table: &DeTable<'_>, origin: &dyn Fn(usize) -> Origin) -> Result<Value, Misread> {
    let entries = table.iter().map(|(key, value)| {
        let node = Node { value: tree_value(value, origin)?, origin: origin(key.span().start) };
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
                .map(|item| Ok(Node { value: tree_value(item, origin)?, origin: origin(item.span().start) }));
            Value::List(nodes.collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => table_value(table, origin)?,
    })
}

/// Puts one `a.b=c` into the tree, making the tables on the way.
fn apply(tree: &mut Node, set: &str) -> Result<()> {
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
    *node = Node { value: set_value(text.trim(), &origin), origin };
    Ok(())
}

/// The child of `node` under `key`, made if a table lacks it; an error is the end of a sentence about `node`.
fn enter<'a>(node: &'a mut Node, key: &str, origin: &Origin) -> Result<&'a mut Node, String> {
    match &mut node.value {
        Value::Table(entries) => {
            let index = entries.iter().position(|(name, _)| name == key).unwrap_or(entries.len());
            if index == entries.len() {
                entries.push((key.to_owned(), Node { value: Value::Table(Vec::new()), origin: origin.clone() }));
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

/// What serde found wrong, with the keys from the inside out.
#[derive(Debug)]
struct Fault {
    path: Vec<String>,
    problem: Problem,
}

#[derive(Debug)]
enum Problem {
    UnknownKey { key: String, known: &'static [&'static str] },
    UnknownVariant { name: String, known: &'static [&'static str] },
    MissingKey(&'static str),
    Unfit { found: String, wanted: String },
    Other(String),
}

impl Problem {
    fn fault(self) -> Fault {
        Fault { path: Vec::new(), problem: self }
    }
}

impl Fault {
    fn under(mut self, key: &str) -> Self {
        self.path.push(key.to_owned());
        self
    }

    /// The sentence for the user; `tree` tells where the faulty key was written.
    fn explain(mut self, tree: &Node, source: &str) -> String {
        self.path.reverse();
        let path = complete(self.path, &self.problem, tree);
        let (key, place) = (path.join("."), origin_of(tree, &path).describe(source));
        let subject = if key.is_empty() { place } else { format!("{key:?} in {place}") };
        match self.problem {
            Problem::UnknownKey { key, known } => format!("unknown key {subject}: {}", suggest(&key, known, "keys")),
            Problem::UnknownVariant { name, known } => {
                format!("unknown value {name:?} for {subject}: {}", suggest(&name, known, "values"))
            }
            Problem::MissingKey(_) => format!("missing key {subject}: add it, or pass --set {key}=..."),
            Problem::Unfit { found, wanted } => format!("wrong value for {subject}: {found} where {wanted} is wanted"),
            Problem::Other(message) => format!("wrong value for {subject}: {message}"),
        }
    }
}

/// Extends the path that serde walked by the key at fault.
///
/// Inside tagged enums serde reads from a copy without keys, so the path may end early; the document is searched then.
fn complete(path: Vec<String>, problem: &Problem, tree: &Node) -> Vec<String> {
    let node = path.iter().try_fold(tree, |node, key| node.child(key));
    let rest = match problem {
        Problem::UnknownKey { key, .. } => {
            Some(node.and_then(|node| node.search(&|name, _| name == key)).unwrap_or_else(|| vec![key.clone()]))
        }
        Problem::MissingKey(key) => Some(vec![(*key).to_owned()]),
        Problem::UnknownVariant { name, .. } => {
            node.and_then(|node| node.search(&|_, child| matches!(&child.value, Value::Text(text) if text == name)))
        }
        Problem::Unfit { .. } | Problem::Other(_) => None,
    };
    [path, rest.unwrap_or_default()].concat()
}

/// Where the last node on `path` that exists was written.
fn origin_of<'a>(tree: &'a Node, path: &[String]) -> &'a Origin {
    let mut node = tree;
    for key in path {
        match node.child(key) {
            Some(child) => node = child,
            None => break,
        }
    }
    &node.origin
}

fn suggest(word: &str, known: &[&str], what: &str) -> String {
    match nearest(word, known.iter().copied()) {
        Some(candidate) => format!("did you mean {candidate:?}?"),
        None if known.is_empty() => format!("there are no {what} here"),
        None => format!("the known {what} are {}", known.join(", ")),
    }
}

/// serde's name of a Rust type in words that a person who writes TOML uses.
fn in_words(expected: &dyn Expected) -> String {
    let name = expected.to_string();
    match name.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number of at least 0".to_owned(),
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number".to_owned(),
        "f32" | "f64" => "a number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        "a nonzero usize" | "a nonzero u32" | "a nonzero u64" => "a whole number of at least 1".to_owned(),
        "a sequence" => "an array".to_owned(),
        "a map" => "a table".to_owned(),
        _ => match name.strip_prefix("struct ") {
            Some(_) => "a table".to_owned(),
            None => name,
        },
    }
}

fn found(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Bool(value) => format!("{value}"),
        Unexpected::Signed(value) => format!("{value}"),
        Unexpected::Unsigned(value) => format!("{value}"),
        Unexpected::Float(value) => format!("{value:?}"),
        Unexpected::Str(value) => format!("the string {value:?}"),
        Unexpected::Seq => "an array".to_owned(),
        Unexpected::Map => "a table".to_owned(),
        other => other.to_string(),
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.problem)
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: Display>(message: T) -> Self {
        Problem::Other(message.to_string()).fault()
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Problem::Unfit { found: found(unexpected), wanted: in_words(expected) }.fault()
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Problem::UnknownKey { key: field.to_owned(), known: expected }.fault()
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Problem::UnknownVariant { name: variant.to_owned(), known: expected }.fault()
    }

    fn missing_field(field: &'static str) -> Self {
        Problem::MissingKey(field).fault()
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match (i64::try_from(*value), u64::try_from(*value)) {
                (Ok(small), _) => visitor.visit_i64(small),
                (_, Ok(large)) => visitor.visit_u64(large),
                _ => visitor.visit_i128(*value),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_borrowed_str(value),
            Value::List(items) => visitor.visit_seq(Items(items.iter().enumerate())),
            Value::Table(entries) => visitor.visit_map(Entries { rest: entries.iter(), value: None }),
        }
    }

    /// `--set name=7` means the string where a string is wanted.
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match (&self.value, &self.origin) {
            (Value::Bool(_) | Value::Integer(_) | Value::Float(_), Origin::Set(argument)) => {
                visitor.visit_str(argument.split_once('=').map_or("", |(_, text)| text.trim()))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Fault> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        known: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match &self.value {
            Value::Text(name) => visitor.visit_enum(IntoDeserializer::<Fault>::into_deserializer(name.as_str())),
            Value::Table(entries) if entries.len() == 1 => visitor.visit_enum(Variant(&entries[0])),
            _ => {
                let wanted = format!("one of {}", known.join(", "));
                Err(Problem::Unfit { found: found(self.unexpected()), wanted }.fault())
            }
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, (String, Node)>,
    value: Option<&'de (String, Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Fault> {
        self.value = self.rest.next();
        let key = self.value.map(|(key, _)| seed.deserialize(StrDeserializer::<Fault>::new(key)));
        key.transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let (key, node) = self.value.ok_or_else(|| de::Error::custom("a value was read before its key"))?;
        seed.deserialize(node).map_err(|fault| fault.under(key))
    }
}

struct Items<'de>(std::iter::Enumerate<std::slice::Iter<'de, Node>>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let item = self.0.next();
        item.map(|(i, node)| seed.deserialize(node).map_err(|fault| fault.under(&i.to_string()))).transpose()
    }
}

/// An enum value with content: a table of one key, the name of the variant.
struct Variant<'de>(&'de (String, Node));

impl<'de> EnumAccess<'de> for Variant<'de> {
    type Error = Fault;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Fault> {
        Ok((seed.deserialize(StrDeserializer::<Fault>::new(&self.0.0))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'de> {
    type Error = Fault;

    fn unit_variant(self) -> Result<(), Fault> {
        Err(Problem::Other(format!("{:?} takes no settings: write it as a string", self.0.0)).fault())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Fault> {
        seed.deserialize(&self.0.1).map_err(|fault| fault.under(&self.0.0))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        self.0.1.deserialize_any(visitor).map_err(|fault| fault.under(&self.0.0))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        self.0.1.deserialize_any(visitor).map_err(|fault| fault.under(&self.0.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        name: Option<String>,
        #[serde(default)]
        seed: u64,
        #[serde(default)]
        rollout: Rollout,
        #[serde(default)]
        verifiers: Vec<Verifier>,
        #[serde(default)]
        advantage: Advantage,
        #[serde(default)]
        schedule: Option<Schedule>,
    }

    #[derive(Deserialize, Debug, PartialEq, Default)]
    #[serde(deny_unknown_fields, default)]
    struct Rollout {
        group_size: usize,
        temperature: f64,
        stop: Vec<String>,
        greedy: bool,
    }

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Verifier {
        kind: String,
        #[serde(default)]
        weight: f64,
    }

    #[derive(Deserialize, Debug, PartialEq, Default)]
    #[serde(rename_all = "snake_case", deny_unknown_fields)]
    enum Advantage {
        #[default]
        Grpo,
        DrGrpo,
        Clipped {
            limit: f64,
        },
    }

    #[derive(Deserialize, Debug, PartialEq)]
    #[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
    enum Schedule {
        Constant { warmup: usize },
        Cosine { floor: f64 },
    }

    fn read(text: &str, sets: &[&str]) -> Result<Config> {
        let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
        load(text, "config.toml", &sets)
    }

    fn check_error(text: &str, sets: &[&str], expected: &str) {
        assert_eq!(read(text, sets).unwrap_err().to_string(), expected, "for {text:?} with {sets:?}");
    }

    const RUN: &str = "name = 'demo'\n\n[rollout]\ngroup_size = 1_6\nstop = ['a', 'b']\n\n\
                       [[verifiers]]\nkind = 'math'\n\n[[verifiers]]\nkind = 'format'\nweight = 1\n";

    #[test]
    fn a_full_document_is_read() {
        let config = read(RUN, &[]).unwrap();
        assert_eq!(config.name.as_deref(), Some("demo"));
        assert_eq!((config.rollout.group_size, config.rollout.stop.len()), (16, 2));
        assert_eq!((config.verifiers[1].kind.as_str(), config.verifiers[1].weight), ("format", 1.0));
        let config = read("seed = 0xff\nadvantage = {clipped = {limit = 1_0.5}}\n", &[]).unwrap();
        assert_eq!((config.seed, config.advantage), (255, Advantage::Clipped { limit: 10.5 }));
        let config = read("schedule = {kind = 'cosine', floor = -1e-3}", &[]).unwrap();
        assert_eq!(config.schedule, Some(Schedule::Cosine { floor: -1e-3 }));
        assert_eq!(read("seed = 18446744073709551615", &[]).unwrap().seed, u64::MAX);
    }

    #[test]
    fn an_unknown_key_names_its_path_its_line_and_the_nearest_key() {
        let near = |path: &str, line: usize, key: &str| {
            format!("unknown key {path:?} in config.toml line {line}: did you mean {key:?}?")
        };
        check_error("\n[rollout]\n\ngroup_sise = 1", &[], &near("rollout.group_sise", 4, "group_size"));
        check_error("rollout.group-size = 1", &[], &near("rollout.group-size", 1, "group_size"));
        check_error("rollout = {temprature = 1}", &[], &near("rollout.temprature", 1, "temperature"));
        check_error("seed = 1\n[rolout]\nx = 1", &[], &near("rolout", 2, "rollout"));
        check_error("[[verifiers]]\nkind = 'a'\nwieght = 1", &[], &near("verifiers.0.wieght", 3, "weight"));
        check_error(
            "[advantage.clipped]\nlimt = 1",
            &[],
            "unknown key \"advantage.clipped.limt\" in config.toml line 2: did you mean \"limit\"?",
        );
        check_error("[schedule]\nkind = 'constant'\nwarmpu = 1", &[], &near("schedule.warmpu", 3, "warmup"));
        check_error(
            "[rollout]\nzzz = 1",
            &[],
            "unknown key \"rollout.zzz\" in config.toml line 2: the known keys are group_size, temperature, stop, greedy",
        );
    }

    #[test]
    fn an_unknown_choice_names_the_nearest_one() {
        check_error(
            "advantage = 'dr_grop'",
            &[],
            "unknown value \"dr_grop\" for \"advantage\" in config.toml line 1: did you mean \"dr_grpo\"?",
        );
        check_error(
            "[schedule]\nkind = 'cosin'",
            &[],
            "unknown value \"cosin\" for \"schedule.kind\" in config.toml line 2: did you mean \"cosine\"?",
        );
        check_error(
            "advantage = 3",
            &[],
            "wrong value for \"advantage\" in config.toml line 1: 3 where one of grpo, dr_grpo, clipped is wanted",
        );
    }

    #[test]
    fn a_wrong_type_names_the_key_the_value_and_what_is_wanted() {
        let wrong = |rest: &str| format!("wrong value for {rest} is wanted");
        let whole = "where a whole number of at least 0";
        for (text, rest) in [
            (
                "[rollout]\ngroup_size = 'eight'",
                format!("\"rollout.group_size\" in config.toml line 2: the string \"eight\" {whole}"),
            ),
            ("seed = -1", format!("\"seed\" in config.toml line 1: -1 {whole}")),
            ("seed = 1.0", format!("\"seed\" in config.toml line 1: 1.0 {whole}")),
            ("rollout.greedy = 1", "\"rollout.greedy\" in config.toml line 1: 1 where true or false".to_owned()),
            ("rollout.stop = [\n'a',\n2]", "\"rollout.stop.1\" in config.toml line 3: 2 where a string".to_owned()),
            ("name = 7", "\"name\" in config.toml line 1: 7 where a string".to_owned()),
            ("rollout = 7", "\"rollout\" in config.toml line 1: 7 where a table".to_owned()),
            ("verifiers = 'a'", "\"verifiers\" in config.toml line 1: the string \"a\" where an array".to_owned()),
        ] {
            check_error(text, &[], &wrong(&rest));
        }
    }

    #[test]
    fn a_missing_key_says_how_to_give_it() {
        check_error(
            "\n[[verifiers]]\nweight = 1",
            &[],
            "missing key \"verifiers.0.kind\" in config.toml line 2: add it, or pass --set verifiers.0.kind=...",
        );
    }

    #[test]
    fn text_that_is_not_toml_names_its_line() {
        let message = read("seed = 1\nname = \n", &[]).unwrap_err().to_string();
        assert!(message.starts_with("config.toml line 2 is not TOML: "), "{message}");
        let message = read("seed = 1\nseed = 2\n", &[]).unwrap_err().to_string();
        assert!(message.starts_with("config.toml line 2 is not TOML: duplicate key"), "{message}");
    }

    #[test]
    fn overrides_reach_tables_arrays_and_missing_keys() {
        let sets = [
            "rollout.group_size=4",
            "verifiers.0.weight = 0.5",
            "rollout.stop=['x']",
            "advantage=dr_grpo",
            "seed=1",
            "seed=2",
        ];
        let config = read(RUN, &sets).unwrap();
        assert_eq!((config.rollout.group_size, config.verifiers[0].weight, config.seed), (4, 0.5, 2));
        assert_eq!((config.rollout.stop, config.advantage), (vec!["x".to_owned()], Advantage::DrGrpo));
        assert_eq!(read("", &["rollout.temperature=1e-1"]).unwrap().rollout.temperature, 0.1);
        assert_eq!(read("", &["rollout.stop=[]"]).unwrap().rollout.stop.len(), 0);
    }

    #[test]
    fn an_override_of_a_string_needs_no_quotes() {
        for (set, name) in [
            ("name=demo run", "demo run"),
            ("name='quoted'", "quoted"),
            ("name=7", "7"),
            ("name=1e3", "1e3"),
            ("name=true", "true"),
            ("name=", ""),
            ("name=a=b", "a=b"),
            ("name=./models/x", "./models/x"),
            ("name=2026-01-01", "2026-01-01"),
            ("name=1\nseed = 3", "1\nseed = 3"),
        ] {
            assert_eq!(read("", &[set]).unwrap().name.as_deref(), Some(name), "for {set:?}");
        }
    }

    #[test]
    fn a_wrong_override_is_named() {
        let check = |set: &str, expected: &str| check_error(RUN, &[set], expected);
        check(
            "rollout.group_sise=4",
            "unknown key \"rollout.group_sise\" in --set rollout.group_sise=4: did you mean \"group_size\"?",
        );
        check(
            "seed=many",
            "wrong value for \"seed\" in --set seed=many: the string \"many\" where a whole number of at least 0 is wanted",
        );
        check("seed", "--set seed has no value: write it as --set key=value");
        check(".seed=1", "--set .seed=1 has an empty key: write it as --set table.key=value");
        check(
            "verifiers.2.weight=1",
            "--set verifiers.2.weight=1 cannot be applied: \"verifiers\" is an array with the entries 0 to 1, not \"2\"",
        );
        check(
            "name.x=1",
            "--set name.x=1 cannot be applied: \"name\" is a single value, not a table, so it has no key \"x\"",
        );
    }
}
