//! Reads assignments. The reference is split at its marks; an answer is read with the names and values of the
//! reference as the only words, so that a hedge, a second thought or a stranger is noticed rather than skipped.
//!
//! ```text
//! answer = [lead] {item}          item = [marker] (names link value | value ":" names)
//! names  = name {("," | "and" | "&") name}         marker = "(1)" | "1." | "-" | "*" ...
//! link   = "is" | "are" | ":" | "=" | "->" ...     value  = ["a" | "an" | "the"] word ["s"]
//! ```

/// Why an answer is no assignment of a value to every name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It holds something that is not an assignment.
    Unparsed(&'static str),
    /// It is understood, and cannot be right.
    Wrong(&'static str),
}

/// Phrases that may lead up to the first assignment, each after those that it begins.
const LEADS: [&str; 9] = [
    "the final answer is",
    "the answer is",
    "the solution is",
    "final answer",
    "therefore",
    "solution",
    "answer",
    "thus",
    "so",
];
/// What may stand between a name and its value, each after those that it begins.
const LINKS: [&str; 15] = ["must be", "is", "are", "be", "was", "=>", "->", "→", "⇒", ":", "=", "|", "–", "—", "-"];
const ARTICLES: [&str; 5] = ["a", "an", "the", "both", "all"];
const JOINS: [&str; 3] = ["and", "&", ","];

/// Names and values in lower case, as a reference text writes them: `(1) Ann is a knight` gives `("ann", "knight")`.
pub(super) fn read_reference(text: &str) -> Option<Vec<(String, String)>> {
    let text = plain(text);
    let items = text.split(['\n', ',', ';']).flat_map(|part| part.split(". ")).map(trimmed);
    items.filter(|item| !item.is_empty()).map(pair).collect()
}

/// Without white space, a leading `and`, list marks and a final stop.
fn trimmed(item: &str) -> &str {
    let item = item.trim();
    let item = item.strip_prefix("and ").unwrap_or(item).trim_start();
    let item = after_marker(item).unwrap_or(item);
    item.trim_end_matches('.').trim()
}

fn pair(item: &str) -> Option<(String, String)> {
    let at = |link: &&str| {
        let worded = link.starts_with(char::is_alphabetic);
        let found = if worded { item.find(&format!(" {link} ")).map(|at| at + 1) } else { item.find(*link) };
        found.map(|at| (at, link.len()))
    };
    let (at, length) = LINKS.iter().filter_map(at).min_by_key(|(at, length)| (*at, usize::MAX - length))?;
    let (name, value) = (item[..at].trim(), item[at + length..].trim());
    let value = ARTICLES.iter().find_map(|article| value.strip_prefix(article)?.strip_prefix(' ')).unwrap_or(value);
    (!name.is_empty() && !value.is_empty()).then(|| (name.to_owned(), value.trim().to_owned()))
}

/// Lower case, without the marks of bold, code and mathematics.
fn plain(text: &str) -> String {
    text.to_lowercase().replace(['*', '`', '$', '_'], " ")
}

/// What follows a list mark: `(1)`, `1.`, `1)`, `-`, `•`, `|`.
fn after_marker(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix(['-', '•', '–', '|', '#']) {
        return Some(rest.trim_start());
    }
    let inner = text.strip_prefix('(').unwrap_or(text);
    let rest = inner.trim_start_matches(|c: char| c.is_ascii_digit());
    if rest.len() == inner.len() {
        return None;
    }
    let closed = if inner.len() < text.len() { rest.strip_prefix(')') } else { rest.strip_prefix(['.', ')']) };
    closed.map(str::trim_start)
}

/// The names and values of one puzzle.
pub(super) struct Vocabulary {
    names: Vec<String>,
    values: Vec<String>,
    solution: Vec<usize>,
}

impl Vocabulary {
    /// Names of the reference; its values, and `more` of them.
    pub(super) fn new(reference: &[(String, String)], more: &[String]) -> Self {
        let mut values: Vec<String> = Vec::new();
        let all = reference.iter().map(|(_, value)| plain(value));
        for value in all.chain(more.iter().map(|value| plain(value))).map(|value| squeezed(&value)) {
            if !values.contains(&value) {
                values.push(value);
            }
        }
        let index = |value: &str| values.iter().position(|v| *v == squeezed(&plain(value)));
        let solution = reference.iter().filter_map(|(_, value)| index(value)).collect();
        Self { names: reference.iter().map(|(name, _)| squeezed(&plain(name))).collect(), values, solution }
    }

    /// The right value of each name.
    pub(super) fn solution(&self) -> &[usize] {
        &self.solution
    }

    /// `ann=knight, bob=knave`.
    pub(super) fn show(&self, values: &[usize]) -> String {
        let pairs = self.names.iter().zip(values).map(|(name, &value)| format!("{name}={}", self.values[value]));
        pairs.collect::<Vec<_>>().join(", ")
    }

    /// Reads pairs that are apart already.
    pub(super) fn read_pairs(&self, pairs: &[(String, String)]) -> Result<Vec<usize>, Fault> {
        let mut given = vec![None; self.names.len()];
        for (name, value) in pairs {
            let (name, value) = (squeezed(&plain(name)), squeezed(&plain(value)));
            let name = self.names.iter().position(|n| *n == name).ok_or(Fault::Wrong("names a stranger"))?;
            let value = self.values.iter().position(|v| *v == value);
            give(&mut given, name, value.ok_or(Fault::Wrong("gives a value that does not exist"))?)?;
        }
        complete(given)
    }

    /// Reads prose, lists and tables.
    pub(super) fn read_text(&self, text: &str) -> Result<Vec<usize>, Fault> {
        let text = plain(text);
        let mut reader = Reader { rest: &text };
        reader.lead();
        let mut given = vec![None; self.names.len()];
        while reader.skip_separators() {
            let (names, value) =
                self.item(&mut reader).ok_or(Fault::Unparsed("holds more than one assignment for each name"))?;
            for name in names {
                give(&mut given, name, value)?;
            }
        }
        complete(given)
    }

    /// One item, with its list mark or without: a name may itself be a number.
    fn item(&self, reader: &mut Reader) -> Option<(Vec<usize>, usize)> {
        let start = reader.rest;
        let mut from = |rest| {
            reader.rest = rest;
            let start = reader.rest;
            self.by_name(reader).or_else(|| {
                reader.rest = start;
                self.by_value(reader)
            })
        };
        from(start).or_else(|| from(after_marker(start)?))
    }

    /// `ann and bob are knaves`, `ann (knave)`.
    fn by_name(&self, reader: &mut Reader) -> Option<(Vec<usize>, usize)> {
        let names = self.names(reader)?;
        let bracket = reader.mark("(");
        if !bracket {
            reader.one_of(&LINKS)?;
            // `ann is: a knave`
            reader.mark(":");
        }
        reader.one_of(&ARTICLES);
        let value = reader.word_of(&self.values, true)?;
        (!bracket || reader.mark(")")).then_some((names, value))
    }

    /// `knaves: ann, bob`.
    fn by_value(&self, reader: &mut Reader) -> Option<(Vec<usize>, usize)> {
        let value = reader.word_of(&self.values, true)?;
        if !(reader.mark(":") || reader.mark("=")) {
            return None;
        }
        Some((self.names(reader)?, value))
    }

    fn names(&self, reader: &mut Reader) -> Option<Vec<usize>> {
        let mut names = vec![reader.word_of(&self.names, false)?];
        loop {
            let before = reader.rest;
            while reader.one_of(&JOINS).is_some() {}
            match reader.word_of(&self.names, false) {
                Some(name) if reader.rest.len() < before.len() => names.push(name),
                _ => {
                    reader.rest = before;
                    return Some(names);
                }
            }
        }
    }
}

fn squeezed(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn give(given: &mut [Option<usize>], name: usize, value: usize) -> Result<(), Fault> {
    match given[name].replace(value) {
        None => Ok(()),
        Some(old) if old == value => Err(Fault::Wrong("gives a name its value twice")),
        Some(_) => Err(Fault::Wrong("contradicts itself")),
    }
}

fn complete(given: Vec<Option<usize>>) -> Result<Vec<usize>, Fault> {
    if given.iter().all(Option::is_none) {
        return Err(Fault::Unparsed("assigns nothing"));
    }
    given.into_iter().collect::<Option<_>>().ok_or(Fault::Wrong("leaves a name without a value"))
}

/// What is left of an answer in lower case.
struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    /// Consumes a phrase such as `the answer is:`.
    fn lead(&mut self) {
        if self.one_of(&LEADS).is_some() {
            let _ = self.mark(":") || self.mark(",");
        }
    }

    /// Consumes what may stand between items; whether anything is left.
    fn skip_separators(&mut self) -> bool {
        loop {
            self.rest = self.rest.trim_start_matches(|c: char| c.is_whitespace() || ",;.|".contains(c));
            if !self.word("and") && !self.mark("&") && !self.rule() {
                return !self.rest.is_empty();
            }
        }
    }

    /// Consumes a line of a table that only separates: `---`.
    fn rule(&mut self) -> bool {
        let rest = self.rest.trim_start_matches(['-', ':', '|', ' ']);
        let separates = self.rest.starts_with("---") && (rest.is_empty() || rest.starts_with('\n'));
        if separates {
            self.rest = rest;
        }
        separates
    }

    /// Consumes `mark` behind white space.
    fn mark(&mut self, mark: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(mark);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Consumes `word` behind white space, where it ends there.
    fn word(&mut self, word: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(word).filter(|rest| !rest.starts_with(continues));
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Consumes the first of `words` that stands here: a mark, or a word that ends.
    fn one_of(&mut self, words: &[&str]) -> Option<()> {
        words
            .iter()
            .any(|word| if word.ends_with(char::is_alphabetic) { self.word(word) } else { self.mark(word) })
            .then_some(())
    }

    /// Consumes the longest of `words` that stands here, in the plural too if `plural`, and says which it is.
    fn word_of(&mut self, words: &[String], plural: bool) -> Option<usize> {
        let text = self.rest.trim_start();
        let fits = |word: &String| {
            let rest = text.strip_prefix(word.as_str())?;
            let ended = |rest: &&str| !rest.starts_with(continues);
            Some(rest).filter(ended).or_else(|| rest.strip_prefix('s').filter(|_| plural).filter(ended))
        };
        let found = words.iter().enumerate().filter_map(|(index, word)| Some((fits(word)?, index)));
        let (rest, index) = found.min_by_key(|(rest, _)| rest.len())?;
        self.rest = rest;
        Some(index)
    }
}

/// Whether `c` goes on a word: `ann` does not stand in `anna` or `ann's`.
fn continues(c: char) -> bool {
    c.is_alphanumeric() || c == '\'' || c == '’'
}
