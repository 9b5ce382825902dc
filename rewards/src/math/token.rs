//! The words of the language of answers, and the tables from LaTeX commands and plain words to them.

use super::expr::{Constant, Function, Number};
use super::value::Relation;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Token {
    Number(Number),
    /// A number in another base is digits, `_`, base; kept as written.
    Digits(String),
    Symbol(String),
    /// Several letters that are not mathematics.
    Word(String),
    /// The content of `\text{}`.
    Text(String),
    Constant(Constant),
    Function(Function),
    /// `\log`, whose base may follow.
    Log,
    Frac,
    Binomial,
    Choose,
    /// `\over`: all that stands before it in its group, over all that stands behind it.
    Stacked,
    Root,
    /// A word such as `million`, as a power of ten.
    Magnitude(i64),
    Plus,
    Minus,
    PlusMinus,
    MinusPlus,
    Times,
    Over,
    Power,
    Subscript,
    Factorial,
    Prime,
    Bar,
    Mid,
    Comma,
    Semicolon,
    And,
    Or,
    Colon,
    Percent,
    Degree,
    /// The name of a currency.
    Currency(&'static str),
    Open(Bracket),
    Close(Bracket),
    Relation(Relation),
    Union,
    Intersection,
    Without,
    Empty,
    Reals,
    /// `\begin{...matrix}` and the like.
    Begin,
    End,
    Cell,
    Row,
    /// A mark over what follows, part of its name.
    Accent(&'static str),
    Modulus,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bracket {
    Round,
    Square,
    Brace,
    /// `{}` without backslash: invisible.
    Group,
    Angle,
    /// A square bracket that looks away from what it holds: `]a, b[`.
    Outward,
    Floor,
    Ceil,
}

/// What a command without its backslash is; `None` for one that prints as a symbol of its own.
pub(crate) fn command(name: &str) -> Option<Token> {
    Some(match name {
        "frac" | "dfrac" | "tfrac" | "cfrac" | "nicefrac" | "sfrac" => Token::Frac,
        "binom" | "dbinom" | "tbinom" => Token::Binomial,
        "choose" => Token::Choose,
        "over" => Token::Stacked,
        "sqrt" => Token::Root,
        "pm" => Token::PlusMinus,
        "mp" => Token::MinusPlus,
        "times" | "cdot" | "ast" | "cdotp" => Token::Times,
        "div" => Token::Over,
        "circ" | "degree" => Token::Degree,
        "mid" => Token::Mid,
        "vert" | "lvert" | "rvert" | "Vert" | "lVert" | "rVert" | "|" => Token::Bar,
        "cup" | "bigcup" => Token::Union,
        "cap" | "bigcap" => Token::Intersection,
        "setminus" | "backslash" => Token::Without,
        "emptyset" | "varnothing" => Token::Empty,
        "infty" => Token::Constant(Constant::Infinity),
        "pi" => Token::Constant(Constant::Pi),
        "lor" | "vee" => Token::Or,
        "land" | "wedge" => Token::And,
        "prime" => Token::Prime,
        "colon" => Token::Colon,
        "log" | "lg" => Token::Log,
        "pmod" | "bmod" | "mod" => Token::Modulus,
        "%" => Token::Percent,
        "\\" | "newline" | "cr" => Token::Row,
        _ => {
            let relation = || relation(name).map(Token::Relation);
            return bracket(name).or_else(relation).or_else(|| function(name).map(Token::Function));
        }
    })
}

/// Brackets, and marks over what follows.
fn bracket(name: &str) -> Option<Token> {
    Some(match name {
        "overline" | "bar" => Token::Accent("bar"),
        "vec" | "overrightarrow" => Token::Accent("vec"),
        "hat" | "widehat" => Token::Accent("hat"),
        "tilde" | "widetilde" => Token::Accent("tilde"),
        "dot" => Token::Accent("dot"),
        "lfloor" => Token::Open(Bracket::Floor),
        "rfloor" => Token::Close(Bracket::Floor),
        "lceil" => Token::Open(Bracket::Ceil),
        "rceil" => Token::Close(Bracket::Ceil),
        "langle" => Token::Open(Bracket::Angle),
        "rangle" => Token::Close(Bracket::Angle),
        "{" | "lbrace" => Token::Open(Bracket::Brace),
        "}" | "rbrace" => Token::Close(Bracket::Brace),
        "lbrack" => Token::Open(Bracket::Square),
        "rbrack" => Token::Close(Bracket::Square),
        _ => return None,
    })
}

fn relation(name: &str) -> Option<Relation> {
    Some(match name {
        "le" | "leq" | "leqslant" | "leqq" => Relation::LessEqual,
        "ge" | "geq" | "geqslant" | "geqq" => Relation::GreaterEqual,
        "lt" => Relation::Less,
        "gt" => Relation::Greater,
        "ne" | "neq" => Relation::NotEqual,
        "approx" | "simeq" | "thickapprox" | "sim" => Relation::About,
        "in" => Relation::In,
        "notin" => Relation::Other("not in"),
        "equiv" => Relation::Other("congruent"),
        "cong" => Relation::Other("isomorphic"),
        "subset" => Relation::Other("subset"),
        "subseteq" => Relation::Other("subset or equal"),
        "parallel" => Relation::Other("parallel"),
        "perp" => Relation::Other("perpendicular"),
        "to" | "rightarrow" | "mapsto" => Relation::Other("to"),
        "implies" | "Rightarrow" => Relation::Other("implies"),
        "iff" | "Leftrightarrow" => Relation::Other("if and only if"),
        _ => return None,
    })
}

/// Functions by name, for commands and for plain words.
pub(crate) fn function(name: &str) -> Option<Function> {
    Some(match name {
        "sin" => Function::Sin,
        "cos" => Function::Cos,
        "tan" | "tg" => Function::Tan,
        "cot" | "ctg" => Function::Cot,
        "sec" => Function::Sec,
        "csc" | "cosec" => Function::Csc,
        "arcsin" | "asin" => Function::Asin,
        "arccos" | "acos" => Function::Acos,
        "arctan" | "atan" => Function::Atan,
        "sinh" => Function::Sinh,
        "cosh" => Function::Cosh,
        "tanh" => Function::Tanh,
        "exp" => Function::Exp,
        "ln" => Function::Ln,
        "abs" => Function::Abs,
        "floor" => Function::Floor,
        "ceil" => Function::Ceil,
        "Re" => Function::Re,
        "Im" => Function::Im,
        "max" => Function::Pending("max"),
        "min" => Function::Pending("min"),
        "gcd" => Function::Pending("gcd"),
        "lcm" => Function::Pending("lcm"),
        "sum" => Function::Pending("sum"),
        "prod" => Function::Pending("product"),
        "int" | "iint" | "iiint" | "oint" => Function::Pending("integral"),
        "lim" | "limsup" | "liminf" => Function::Pending("limit"),
        "sup" => Function::Pending("supremum"),
        "inf" => Function::Pending("infimum"),
        "det" => Function::Pending("determinant"),
        _ => return None,
    })
}

/// What a run of letters outside `\text{}` is, when it is not a product of symbols.
pub(crate) fn word(run: &str) -> Option<Token> {
    Some(match run {
        "sqrt" => Token::Root,
        "pi" | "Pi" | "PI" => Token::Constant(Constant::Pi),
        "inf" | "infinity" | "Infinity" | "oo" => Token::Constant(Constant::Infinity),
        "and" => Token::And,
        "or" => Token::Or,
        "log" => Token::Log,
        "mod" => Token::Modulus,
        "choose" => Token::Choose,
        "nCr" => Token::Symbol("C".into()),
        "nPr" => Token::Symbol("P".into()),
        "deg" | "degree" | "degrees" => Token::Degree,
        "theta" | "alpha" | "beta" | "gamma" | "lambda" | "phi" | "mu" | "omega" | "delta" => Token::Symbol(run.into()),
        "Re" | "Im" | "inf " | "sup" | "det" => return None,
        _ => return function(run).map(Token::Function),
    })
}

/// Whether short letters, in lower case, are a word and no product of symbols.
pub(crate) fn is_word(run: &str) -> bool {
    matches!(
        run,
        "ago" | "yes" | "no" | "not" | "all" | "any" | "odd" | "one" | "two" | "six" | "ten" | "the" | "is" | "are"
    )
}

/// The power of ten that a word multiplies by.
pub(crate) fn magnitude(word: &str) -> Option<i64> {
    Some(match word {
        "hundred" => 2,
        "thousand" => 3,
        "million" => 6,
        "billion" => 9,
        "trillion" => 12,
        _ => return None,
    })
}

/// Commands that only space, size or group, sorted.
#[rustfmt::skip] // which would give each word a line
const LAYOUT: [&str; 67] = [
    " ", "!", "(", ")", ",", ":", ";", ">", "Big", "Bigg", "Bigl", "Bigr", "Huge", "LARGE", "Large", "[", "]",
    "allowbreak", "because", "bf", "big", "bigg", "biggl", "biggr", "bigl", "bigr", "bm", "boldsymbol", "boxed",
    "cdots", "displaystyle", "dots", "dotsc", "enspace", "ensuremath", "fbox", "hfill", "hline", "huge", "it", "large",
    "ldots", "left", "limits", "mathbf", "mathbin", "mathcal", "mathfrak", "mathit", "mathord", "mathscr", "mathsf",
    "mathtt", "middle", "nolimits", "normalsize", "qquad", "quad", "right", "rm", "scriptstyle", "small", "textstyle",
    "therefore", "thinspace", "tiny", "underline",
];

/// Whether a command only spaces, sizes or groups.
pub(crate) fn is_layout(name: &str) -> bool {
    LAYOUT.binary_search(&name).is_ok()
}

/// Whether a command only sizes the bracket behind it, which then still stands right behind what is before.
pub(crate) fn is_size(name: &str) -> bool {
    ["left", "right", "middle", "big", "Big"].iter().any(|size| name.starts_with(size))
}

/// Commands whose argument is words, sorted.
#[rustfmt::skip] // which would give each word a line
const TEXT: [&str; 17] = [
    "emph", "hbox", "mathop", "mathrm", "mbox", "operatorname", "operatorname*", "rm", "text", "textbf", "textit",
    "textnormal", "textrm", "textsf", "texttt", "textup", "unit",
];

/// Whether the argument of a command is words.
pub(crate) fn is_text(name: &str) -> bool {
    TEXT.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted() {
        assert!(LAYOUT.is_sorted() && TEXT.is_sorted());
    }
}
