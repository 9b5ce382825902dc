//! A closed table of units. Letters alone are symbols, never units, unless they stand inside `\text{}`.

use dashu_ratio::RBig;

use super::expr::Expr;

/// What a unit measures, as exponents of these bases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Length,
    Mass,
    Time,
    Money,
    Angle,
    Data,
    Temperature,
    Energy,
    Charge,
    Amount,
}

const BASES: usize = 10;

/// Spellings, what they measure, to which power, and how many of the base unit one is, as a fraction.
type Entry = (&'static [&'static str], Base, i8, (i64, u64));

const TABLE: &[Entry] = &[
    (&["m", "meter", "meters", "metre", "metres"], Base::Length, 1, (1, 1)),
    (&["km", "kilometer", "kilometers", "kilometre", "kilometres"], Base::Length, 1, (1000, 1)),
    (&["dm", "decimeter", "decimeters"], Base::Length, 1, (1, 10)),
    (&["cm", "centimeter", "centimeters", "centimetre", "centimetres"], Base::Length, 1, (1, 100)),
    (&["mm", "millimeter", "millimeters", "millimetre", "millimetres"], Base::Length, 1, (1, 1000)),
    (&["in", "inch", "inches"], Base::Length, 1, (254, 10000)),
    (&["ft", "foot", "feet"], Base::Length, 1, (3048, 10000)),
    (&["yd", "yard", "yards"], Base::Length, 1, (9144, 10000)),
    (&["mi", "mile", "miles"], Base::Length, 1, (1_609_344, 1000)),
    (&["l", "liter", "liters", "litre", "litres"], Base::Length, 3, (1, 1000)),
    (&["ml", "milliliter", "milliliters", "millilitre", "millilitres"], Base::Length, 3, (1, 1_000_000)),
    (&["ha", "hectare", "hectares"], Base::Length, 2, (10000, 1)),
    (&["kg", "kilogram", "kilograms", "kilo", "kilos"], Base::Mass, 1, (1, 1)),
    (&["g", "gram", "grams"], Base::Mass, 1, (1, 1000)),
    (&["mg", "milligram", "milligrams"], Base::Mass, 1, (1, 1_000_000)),
    (&["lb", "lbs", "pound", "pounds"], Base::Mass, 1, (45_359_237, 100_000_000)),
    (&["oz", "ounce", "ounces"], Base::Mass, 1, (45_359_237, 1_600_000_000)),
    (&["ton", "tons", "tonne", "tonnes"], Base::Mass, 1, (1000, 1)),
    (&["s", "sec", "secs", "second", "seconds"], Base::Time, 1, (1, 1)),
    (&["ms", "millisecond", "milliseconds"], Base::Time, 1, (1, 1000)),
    (&["min", "mins", "minute", "minutes"], Base::Time, 1, (60, 1)),
    (&["h", "hr", "hrs", "hour", "hours"], Base::Time, 1, (3600, 1)),
    (&["d", "day", "days"], Base::Time, 1, (86400, 1)),
    (&["week", "weeks"], Base::Time, 1, (604_800, 1)),
    (&["month", "months"], Base::Time, 1, (2_629_746, 1)),
    (&["yr", "yrs", "year", "years"], Base::Time, 1, (31_556_952, 1)),
    (&["$", "dollar", "dollars", "usd"], Base::Money, 1, (1, 1)),
    (&["¢", "cent", "cents"], Base::Money, 1, (1, 100)),
    (&["°", "deg", "degree", "degrees"], Base::Angle, 1, (1, 1)),
    (&["byte", "bytes"], Base::Data, 1, (8, 1)),
    (&["bit", "bits"], Base::Data, 1, (1, 1)),
    (&["kb", "kilobyte", "kilobytes"], Base::Data, 1, (8000, 1)),
    (&["mb", "megabyte", "megabytes"], Base::Data, 1, (8_000_000, 1)),
    (&["gb", "gigabyte", "gigabytes"], Base::Data, 1, (8_000_000_000, 1)),
    (&["k", "kelvin", "kelvins"], Base::Temperature, 1, (1, 1)),
    (&["j", "joule", "joules"], Base::Energy, 1, (1, 1)),
    (&["kj", "kilojoule", "kilojoules"], Base::Energy, 1, (1000, 1)),
    (&["coulomb", "coulombs"], Base::Charge, 1, (1, 1)),
    (&["mol", "mole", "moles"], Base::Amount, 1, (1, 1)),
];

/// Abbreviations of a quotient of units.
const QUOTIENTS: &[(&str, &str)] =
    &[("mph", "mi/h"), ("kph", "km/h"), ("kmh", "km/h"), ("fps", "ft/s"), ("mps", "m/s")];

const PERCENT: &[&str] = &["percent", "pct", "percentage", "percents"];

const EUROS: &[&str] = &["euro", "euros", "eur"];

/// Words behind a unit that do not change it.
const ADVERBS: &[&str] = &[
    "ago",
    "later",
    "old",
    "long",
    "tall",
    "wide",
    "high",
    "deep",
    "away",
    "apart",
    "left",
    "each",
    "altogether",
    "in total",
    "from now",
    "in all",
];

/// Words that change or doubt the number before them.
const QUALIFIERS: &[&str] = &[
    "or",
    "not",
    "no",
    "never",
    "is",
    "isn't",
    "wrong",
    "incorrect",
    "false",
    "maybe",
    "perhaps",
    "but",
    "except",
    "if",
    "unless",
    "either",
    "plus",
    "minus",
    "half",
];

/// The unit of a quantity.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Unit {
    Percent,
    /// Dimensions, and how many of the base unit one is.
    Known([i8; BASES], RBig),
    /// The base that a number is written in.
    Base(String),
    /// A word that is in no table, such as `apples`.
    Other(String),
}

impl Unit {
    pub(crate) fn degree() -> Self {
        Self::of("°")
    }

    /// The unit of a sum of money. Dollars have cents; other currencies are names.
    pub(crate) fn currency(name: &str) -> Self {
        Self::of(name)
    }

    /// A unit of the table.
    fn of(name: &str) -> Self {
        Self::product(name).unwrap_or_else(|| Self::Other(name.into()))
    }

    /// Whether `word` alone names a unit even outside `\text{}`.
    pub(crate) fn is_word(word: &str) -> bool {
        let lower = word.to_ascii_lowercase();
        let known = [PERCENT, EUROS].iter().any(|words| words.contains(&lower.as_str()))
            || QUOTIENTS.iter().any(|(short, _)| *short == lower);
        word.len() > 1 && lower != "in" && (known || entry(&lower).is_some())
    }

    /// The unit that `text` describes: `cm`, `square meters`, `m/s^2`, `km per hour`, `apples`. Words that say more
    /// about the number than what it counts, as `or so` and `is wrong` do, are none.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let lower = text.trim().trim_end_matches(['.', ',']).to_lowercase();
        if PERCENT.contains(&lower.as_str()) {
            return Some(Self::Percent);
        }
        if EUROS.contains(&lower.as_str()) {
            return Some(Self::currency("euro"));
        }
        let lower = without_adverbs(&lower);
        let spelled = QUOTIENTS.iter().find(|(short, _)| *short == lower).map_or(lower, |(_, long)| long);
        Self::product(spelled).or_else(|| counts_things(lower).then(|| Self::Other(singular(lower))))
    }

    fn product(text: &str) -> Option<Self> {
        let spaced = text
            .replace('/', " per ")
            .replace(['{', '}'], "")
            .replace(['*', '·', '(', ')'], " ")
            .replace("sq.", "square");
        let (mut dimensions, mut factor, mut sign, mut power) = ([0; BASES], RBig::ONE, 1i8, 1i8);
        let mut found = false;
        for word in spaced.split_whitespace() {
            match word {
                "per" => sign = -1,
                "square" | "sq" => power = 2,
                "cubic" | "cu" => power = 3,
                _ => {
                    let (name, exponent) = with_exponent(word)?;
                    let (_, base, degree, (above, below)) = entry(name)?;
                    let exponent = exponent.checked_mul(sign)?.checked_mul(power)?;
                    let dimension = &mut dimensions[*base as usize];
                    *dimension = degree.checked_mul(exponent)?.checked_add(*dimension)?;
                    factor *= RBig::from_parts((*above).into(), (*below).into()).pow(isize::from(exponent));
                    (found, power) = (true, 1);
                }
            }
        }
        found.then_some(Self::Known(dimensions, factor))
    }

    /// The unit that a product of single letters and their powers spells: `m`, `m^2`, `m/s^2`.
    pub(crate) fn spelled(factors: &[Expr]) -> Option<Self> {
        let mut spelled = String::new();
        for factor in factors {
            let (letter, exponent) = match factor {
                Expr::Symbol(letter) => (letter, 1.into()),
                Expr::Power(pair) => match (&pair.0, &pair.1) {
                    (Expr::Symbol(letter), Expr::Number(exponent)) => (letter, exponent.value.clone()),
                    (Expr::Power(inner), Expr::Number(outer)) => match (&inner.0, &inner.1) {
                        (Expr::Symbol(letter), Expr::Number(exponent)) => (letter, &exponent.value * &outer.value),
                        _ => return None,
                    },
                    _ => return None,
                },
                _ => return None,
            };
            spelled.push_str(&format!("{letter}^{exponent} "));
        }
        Self::product(&spelled)
    }

    /// Whether it is in the table.
    pub(crate) fn is_known(&self) -> bool {
        matches!(self, Self::Known(..))
    }

    pub(crate) fn is_base(&self) -> bool {
        matches!(self, Self::Base(_))
    }

    /// What to multiply a number in `self` by to have it in `other`; `None` where they measure different things.
    pub(crate) fn conversion(&self, other: &Self) -> Option<RBig> {
        match (self, other) {
            (Self::Known(a, x), Self::Known(b, y)) => (a == b).then(|| x / y),
            _ => (self == other).then_some(RBig::ONE),
        }
    }
}

/// `hours` of `hours ago`: words that say when or which way do not change what is measured.
fn without_adverbs(text: &str) -> &str {
    let mut text = text;
    while let Some(rest) = ADVERBS.iter().find_map(|word| text.strip_suffix(word)?.strip_suffix(' ')) {
        text = rest.trim_end();
    }
    text
}

/// Whether a text can be the name of things, in words and powers of words.
fn counts_things(text: &str) -> bool {
    let sign = |c: char| c.is_alphabetic() || c.is_whitespace() || "-'./^".contains(c);
    let mut before = ' ';
    let letters = text.chars().all(|c| {
        let exponent = c.is_ascii_digit() && "^-".contains(before);
        before = c;
        sign(c) || exponent
    });
    letters && !text.split_whitespace().any(|word| QUALIFIERS.contains(&word))
}

fn entry(name: &str) -> Option<&'static Entry> {
    TABLE.iter().find(|(names, ..)| names.contains(&name))
}

/// `m^2`, `m²` and `m2` as `m` and 2.
fn with_exponent(word: &str) -> Option<(&str, i8)> {
    let name = word.trim_end_matches(|c: char| c.is_ascii_digit() || "^-²³".contains(c));
    let exponent = match word[name.len()..].trim_start_matches('^') {
        "" => 1,
        "²" => 2,
        "³" => 3,
        digits => digits.parse().ok()?,
    };
    (-9..=9).contains(&exponent).then_some((name, exponent))
}

/// `apples` as `apple`, so that a number of things may be one.
fn singular(words: &str) -> String {
    let joined = words.split_whitespace().collect::<Vec<_>>().join(" ");
    joined.strip_suffix('s').map(str::to_string).unwrap_or(joined)
}
