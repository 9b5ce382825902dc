//! Finds `\boxed{}` in a text, in one pass, whatever the braces do.

/// Boxes nearer than this are one list, in bytes between them.
const NEAR: usize = 10;
/// As [`NEAR`], where a comma, semicolon, `and` or `or` stands between.
const JOINED: usize = 70;

/// The content of the last box; of the last several where they stand together, joined by commas, so that two answers
/// side by side are two answers.
pub(crate) fn last_boxes(text: &str) -> Option<String> {
    let boxes = outermost(text);
    let last = boxes.last()?;
    let mut contents = vec![last.content];
    let mut start = last.start;
    for earlier in boxes.iter().rev().skip(1) {
        if !together(&text[earlier.end.min(start)..start]) {
            break;
        }
        if !contents.contains(&earlier.content) {
            contents.push(earlier.content);
        }
        start = earlier.start;
    }
    contents.reverse();
    let percent = if contents.len() == 1 { percent_behind(&text[last.end..]) } else { "" };
    Some(contents.join(" , ") + percent)
}

struct Boxed<'a> {
    start: usize,
    end: usize,
    content: &'a str,
}

fn outermost(text: &str) -> Vec<Boxed<'_>> {
    let closing = closing_braces(text);
    let named = |name: &'static str| text.match_indices(name).map(|(start, name)| (start, start + name.len()));
    let mut names: Vec<(usize, usize)> = named("\\boxed").chain(named("\\fbox")).collect();
    names.sort_unstable();
    let mut outer: Vec<Boxed> = Vec::new();
    for (start, end) in names {
        if outer.last().is_none_or(|last| start >= last.end) {
            outer.extend(content(text, start, end, &closing));
        }
    }
    outer
}

/// The box whose name ends at `at`: braces, or one word without them. An unclosed one ends with its line.
fn content<'a>(text: &'a str, start: usize, at: usize, closing: &[(usize, usize)]) -> Option<Boxed<'a>> {
    let inside = at + text[at..].len() - text[at..].trim_start_matches(' ').len();
    if !text[inside..].starts_with('{') {
        let word =
            text[inside..].split(|c: char| c.is_whitespace() || c == '$').next().filter(|word| !word.is_empty())?;
        return word.starts_with(|c: char| c.is_ascii_digit() || c == '-').then_some(Boxed {
            start,
            end: inside + word.len(),
            content: word,
        });
    }
    let end = closing.binary_search_by_key(&inside, |pair| pair.0).ok().map(|index| closing[index].1);
    let close = end.unwrap_or_else(|| text[inside..].find('\n').map_or(text.len(), |line| inside + line));
    Some(Boxed { start, end: close + usize::from(end.is_some()), content: &text[inside + 1..close] })
}

/// Every opening brace with its closing one, by opening; escaped braces are text.
fn closing_braces(text: &str) -> Vec<(usize, usize)> {
    let (mut open, mut pairs, mut escaped) = (Vec::new(), Vec::new(), false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'{' if !escaped => open.push(at),
            b'}' if !escaped => pairs.extend(open.pop().map(|start| (start, at))),
            _ => {}
        }
        escaped = byte == b'\\' && !escaped;
    }
    pairs.sort_unstable();
    pairs
}

fn together(between: &str) -> bool {
    let mut words = between.split(|c: char| !c.is_alphabetic());
    let joined = between.contains([',', ';']) || words.any(|word| matches!(word, "and" | "or"));
    between.len() < NEAR || (between.len() < JOINED && joined)
}

/// A percent sign or word right behind a box belongs to it.
fn percent_behind(text: &str) -> &'static str {
    let text = text.trim_start_matches(['$', ' ']);
    let text = text.strip_prefix("\\)").unwrap_or(text).trim_start();
    if ["%", "\\%", "percent", "pct"].iter().any(|sign| text.starts_with(sign)) { "\\%" } else { "" }
}
