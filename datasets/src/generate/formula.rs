//! Statements about who is a knight, as formulas: drawn at random, valued under an assignment, and told in English.

use crate::Counted;

/// A statement about people, who are numbered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Formula {
    /// `person` is a knight, or with `false` a knave.
    Is(usize, bool),
    /// Two statements joined.
    Join(Connective, Box<[Formula; 2]>),
}

/// How two statements are joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connective {
    And,
    Or,
    If,
    Iff,
}

const CONNECTIVES: [Connective; 4] = [Connective::And, Connective::Or, Connective::If, Connective::Iff];

impl Formula {
    /// A statement with `joins` connectives about some of `people`.
    pub(crate) fn draw(people: usize, joins: usize, random: &mut Counted) -> Self {
        if joins == 0 {
            return Self::Is(random.below(people), random.below(2) == 0);
        }
        let connective = CONNECTIVES[random.below(CONNECTIVES.len())];
        let left = random.below(joins);
        let mut side = |joins| Self::draw(people, joins, random);
        let sides = [side(left), side(joins - 1 - left)];
        // "Ann is a knight and Ann is a knight" says nothing that one half would not.
        if sides[0] == sides[1] {
            return Self::draw(people, joins, random);
        }
        Self::Join(connective, Box::new(sides))
    }

    /// Whether it is true where bit `i` of `knights` says that person `i` is a knight.
    pub(crate) fn holds(&self, knights: u32) -> bool {
        match self {
            Self::Is(person, knight) => (knights >> person & 1 == 1) == *knight,
            Self::Join(connective, sides) => {
                let (a, b) = (sides[0].holds(knights), sides[1].holds(knights));
                match connective {
                    Connective::And => a && b,
                    Connective::Or => a || b,
                    Connective::If => !a || b,
                    Connective::Iff => a == b,
                }
            }
        }
    }

    /// The statement in English, without a capital at the start; joined parts of a joined statement stand in brackets.
    pub(crate) fn tell(&self, names: &[&str]) -> String {
        let part = |formula: &Self| match formula {
            Self::Is(..) => formula.tell(names),
            Self::Join(..) => format!("({})", formula.tell(names)),
        };
        match self {
            Self::Is(person, knight) => format!("{} is a {}", names[*person], identity(*knight)),
            Self::Join(connective, sides) => {
                let [a, b] = [part(&sides[0]), part(&sides[1])];
                match connective {
                    Connective::And => format!("{a} and {b}"),
                    Connective::Or => format!("{a} or {b}"),
                    Connective::If => format!("if {a} then {b}"),
                    Connective::Iff => format!("{a} if and only if {b}"),
                }
            }
        }
    }
}

/// The word for a person.
pub(crate) fn identity(knight: bool) -> &'static str {
    if knight { "knight" } else { "knave" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_means_what_it_tells() {
        let is = |person, knight| Formula::Is(person, knight);
        let join = |connective, a, b| Formula::Join(connective, Box::new([a, b]));
        // The truth under: both knaves, only Ann a knight, only Bob, both.
        for (formula, told, truth) in [
            (is(0, true), "Ann is a knight", [false, true, false, true]),
            (is(1, false), "Bob is a knave", [true, true, false, false]),
            (
                join(Connective::And, is(0, true), is(1, true)),
                "Ann is a knight and Bob is a knight",
                [false, false, false, true],
            ),
            (
                join(Connective::Or, is(0, true), is(1, true)),
                "Ann is a knight or Bob is a knight",
                [false, true, true, true],
            ),
            (
                join(Connective::If, is(0, true), is(1, true)),
                "if Ann is a knight then Bob is a knight",
                [true, false, true, true],
            ),
            (
                join(Connective::Iff, is(0, true), join(Connective::And, is(1, true), is(0, false))),
                "Ann is a knight if and only if (Bob is a knight and Ann is a knave)",
                [true, false, false, false],
            ),
        ] {
            assert_eq!(formula.tell(&["Ann", "Bob"]), told);
            assert_eq!([0, 1, 2, 3].map(|knights| formula.holds(knights)), truth, "{told}");
        }
    }
}
