//! Tells whether a text is in a language. IFEval asks langdetect, whose answers change from call to call unless it is
//! seeded, and takes a text that it cannot tell for a pass; here a text without letters of the language is a fail.

use serde::Deserialize;
use whatlang::{Detector, Lang};

/// IFEval's 30 languages under their ISO 639-1 codes.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(try_from = "String")]
pub(super) enum Tongue {
    /// One that the detector knows.
    Known(Lang),
    /// One that it does not.
    Swahili,
}

const CODES: [(&str, Lang); 30] = [
    ("en", Lang::Eng),
    ("es", Lang::Spa),
    ("pt", Lang::Por),
    ("ar", Lang::Ara),
    ("hi", Lang::Hin),
    ("fr", Lang::Fra),
    ("ru", Lang::Rus),
    ("de", Lang::Deu),
    ("ja", Lang::Jpn),
    ("it", Lang::Ita),
    ("bn", Lang::Ben),
    ("uk", Lang::Ukr),
    ("th", Lang::Tha),
    ("ur", Lang::Urd),
    ("ta", Lang::Tam),
    ("te", Lang::Tel),
    ("bg", Lang::Bul),
    ("ko", Lang::Kor),
    ("pl", Lang::Pol),
    ("he", Lang::Heb),
    ("fa", Lang::Pes),
    ("vi", Lang::Vie),
    ("ne", Lang::Nep),
    ("kn", Lang::Kan),
    ("mr", Lang::Mar),
    ("gu", Lang::Guj),
    ("pa", Lang::Pan),
    ("ml", Lang::Mal),
    ("fi", Lang::Fin),
    ("zh", Lang::Cmn),
];

/// Words of which Swahili is never short, and which few other languages have.
const SWAHILI: [&str; 16] =
    ["na", "ya", "wa", "kwa", "ni", "katika", "za", "la", "kuwa", "cha", "hii", "vya", "pia", "yake", "hiyo", "kama"];

impl TryFrom<String> for Tongue {
    type Error = String;

    fn try_from(code: String) -> Result<Self, String> {
        if code == "sw" {
            return Ok(Self::Swahili);
        }
        let known = CODES.iter().find(|(known, _)| *known == code).map(|(_, lang)| Self::Known(*lang));
        known.ok_or_else(|| {
            let codes: Vec<&str> = CODES.iter().map(|(code, _)| *code).collect();
            format!("language `{code}` is none of sw, {}", codes.join(", "))
        })
    }
}

impl Tongue {
    pub(super) fn english() -> Self {
        Self::Known(Lang::Eng)
    }

    /// Whether `text` is in this language as far as can be told. Where the detector is not sure, as in a line of few
    /// words, a text in the right script is English, and is another language if it looks more like that than English.
    pub(super) fn is_spoken_in(self, text: &str) -> bool {
        let lang = match self {
            Self::Known(lang) => lang,
            Self::Swahili => return is_swahili(text),
        };
        let Some(found) = whatlang::detect(text) else { return false };
        let nearest = || Detector::with_allowlist(vec![lang, Lang::Eng]).detect_lang(text);
        let likely = || found.script().langs().contains(&lang) && (lang == Lang::Eng || nearest() == Some(lang));
        found.lang() == lang || (!found.is_reliable() && likely())
    }
}

/// At least one word in ten is one of the commonest.
fn is_swahili(text: &str) -> bool {
    let text = text.to_lowercase();
    let words: Vec<&str> = crate::words::words(&text).collect();
    let common = words.iter().filter(|word| SWAHILI.contains(word)).count();
    common > 0 && common * 10 >= words.len()
}
