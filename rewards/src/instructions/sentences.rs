//! Counts sentences by rule. IFEval counts them with Punkt, a model trained on newspapers; a rule can be read, gives
//! the same count everywhere, and agrees on text that is punctuated the usual way.

/// Words that a full stop abbreviates, in lower case and without their own last stop.
const ABBREVIATIONS: [&str; 42] = [
    "mr", "mrs", "ms", "dr", "prof", "rev", "gen", "sen", "rep", "gov", "capt", "col", "lt", "sgt", "st", "jr", "sr",
    "vs", "etc", "e.g", "i.e", "cf", "al", "inc", "ltd", "co", "corp", "dept", "fig", "vol", "jan", "feb", "aug",
    "sept", "oct", "nov", "dec", "a.m", "p.m", "u.s", "u.k", "ph.d",
];

/// Sentences end at `.`, `!`, `?` or an ellipsis before white space or the end, with quotes and brackets that close
/// behind it; at `。`, `！` and `？` anywhere. A stop behind an abbreviation or an initial ends none. What is left
/// behind the last end is a sentence.
pub(super) fn count_sentences(text: &str) -> usize {
    let mut count = 0;
    let mut rest = text.trim();
    while !rest.is_empty() {
        rest = rest[first_end(rest)..].trim_start();
        count += 1;
    }
    count
}

/// Where the first sentence of `text` ends.
fn first_end(text: &str) -> usize {
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if !is_end(c) {
            continue;
        }
        let mut last = (at, c);
        while let Some(next) = chars.next_if(|(_, c)| is_end(*c) || closes(*c)) {
            last = next;
        }
        let end = last.0 + last.1.len_utf8();
        let apart = chars.peek().is_none_or(|(_, c)| c.is_whitespace());
        let single = c == '.' && end == at + 1;
        if full_width(c) || (apart && !(single && abbreviates(&text[..at]))) {
            return end;
        }
    }
    text.len()
}

/// Whether the stop behind `before` belongs to its last word.
fn abbreviates(before: &str) -> bool {
    let word = before.rsplit(|c: char| c.is_whitespace() || "([\"'“".contains(c)).next().unwrap_or_default();
    let mut chars = word.chars();
    let initial = chars.next().is_some_and(char::is_uppercase) && chars.next().is_none() && word != "I";
    initial || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

fn is_end(c: char) -> bool {
    ".!?…".contains(c) || full_width(c)
}

fn full_width(c: char) -> bool {
    "。！？".contains(c)
}

fn closes(c: char) -> bool {
    "\"'”’)]}»*_」』".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_end_at_marks_that_stand_apart() {
        for (text, expected) in [
            ("", 0),
            ("no mark", 1),
            ("One. Two! Three?", 3),
            ("One. Two", 2),
            ("Dr. A. Smith paid $3.50 for it at 5 p.m. on Oct. 3.", 1),
            ("He said \"Stop!\" Then (he left.) And so on...", 3),
            ("Really?! Yes.", 2),
            ("See e.g. example.com for more. Thanks", 2),
            ("So do I. And you.", 2),
            ("你好。再见！", 2),
            ("A line\nwithout a stop\n\nand another.", 1),
            ("...", 1),
        ] {
            assert_eq!(count_sentences(text), expected, "{text}");
        }
    }
}
