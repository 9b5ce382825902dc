//! Knights and knaves: knights tell the truth, knaves lie; who is which follows from what each says. Exactly one
//! assignment fits: every one is tried. What a statement is, is the business of `formula`.

use serde_json::{Value, json};

use super::formula::{Formula, identity};
use super::{Generated, Task, check_range, info, pick};
use crate::{Counted, Error, Example, table};

/// Puzzles of knights and knaves, seeded.
pub type Knights = Generated<KnightsConfig>;

table! {
    /// Which puzzles to make.
    pub struct KnightsConfig {
        /// Fewest people, at least 2.
        pub people_min: usize = 3,
        /// Most people, at most 12.
        pub people_max: usize = 5,
        /// Most connectives (and, or, if, if and only if) of a statement, at most 8.
        pub joins_max: usize = 2,
        /// Share of all puzzles that are held out.
        pub held_out: f64 = 0.1,
    }
}

/// Names to take from, as many as there can be people.
const NAMES: [&str; 16] = [
    "Ada", "Ben", "Cleo", "Dora", "Emil", "Fay", "Gus", "Hana", "Ivo", "Jade", "Kurt", "Lena", "Max", "Nora", "Otto",
    "Pia",
];

/// People, what each says, and who of them are knights.
#[derive(Debug, Clone)]
pub struct Puzzle {
    /// Places in [`NAMES`].
    names: Vec<usize>,
    statements: Vec<Formula>,
    /// Bit `i` says whether person `i` is a knight.
    knights: u32,
}

impl Puzzle {
    /// Whether `knights` agrees with every statement: a knight's holds, a knave's does not.
    fn fits(&self, knights: u32) -> bool {
        let mut statements = self.statements.iter().enumerate();
        statements.all(|(speaker, statement)| statement.holds(knights) == (knights >> speaker & 1 == 1))
    }

    fn names(&self) -> Vec<&'static str> {
        self.names.iter().map(|&name| NAMES[name]).collect()
    }

    fn question(&self) -> String {
        let names = self.names();
        let mut text = format!(
            "On an island everyone is either a knight, who always tells the truth, or a knave, who always lies. \
             You meet {}.",
            list(&names)
        );
        for (name, statement) in names.iter().zip(&self.statements) {
            text += &format!(" {name} says: \"{}.\"", capital(&statement.tell(&names)));
        }
        text + " Who is a knight and who is a knave?"
    }
}

/// `Ann, Bob and Cleo`.
fn list(names: &[&str]) -> String {
    match names {
        [all @ .., last] if !all.is_empty() => format!("{} and {last}", all.join(", ")),
        _ => names.concat(),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

impl Task for KnightsConfig {
    type Problem = Puzzle;
    const NAME: &'static str = "knights";
    const STREAM: u64 = 0x4b4b;

    fn validate(&self) -> Result<(), Error> {
        check_range("people", self.people_min, self.people_max, 2..=12)?;
        match self.joins_max {
            0..=8 => Ok(()),
            other => Err(Error::Config(format!("joins_max = {other}: a number in 0..=8 is needed"))),
        }
    }

    fn held_out(&self) -> f64 {
        self.held_out
    }

    fn describe(&self) -> String {
        let Self { people_min, people_max, joins_max, .. } = self;
        format!("{people_min} to {people_max} people with statements of at most {joins_max} connectives")
    }

    fn draw(&self, random: &mut Counted) -> Option<Puzzle> {
        let people = pick(random, self.people_min as i64, self.people_max as i64) as usize;
        let mut names: Vec<usize> = (0..NAMES.len()).collect();
        random.shuffle(&mut names);
        names.truncate(people);
        let knights = random.below(1 << people) as u32;
        let statements = (0..people).map(|speaker| {
            // Of any two statements that contradict each other one suits the speaker, so few draws are needed.
            let honest = knights >> speaker & 1 == 1;
            (0..64).find_map(|_| {
                let joins = random.below(self.joins_max + 1);
                Some(Formula::draw(people, joins, random)).filter(|statement| statement.holds(knights) == honest)
            })
        });
        let puzzle = Puzzle { names, statements: statements.collect::<Option<_>>()?, knights };
        let mut others = (0..1u32 << people).filter(|&other| other != knights);
        (!others.any(|other| puzzle.fits(other))).then_some(puzzle)
    }

    fn key(&self, problem: &Puzzle) -> Vec<u64> {
        problem.question().bytes().map(u64::from).collect()
    }

    fn example(&self, id: String, problem: &Puzzle) -> Example {
        let people = problem.names().into_iter().enumerate();
        let people: Vec<(&str, &str)> =
            people.map(|(i, name)| (name, identity(problem.knights >> i & 1 == 1))).collect();
        let lines = people.iter().enumerate().map(|(i, (name, word))| format!("({}) {name} is a {word}", i + 1));
        let solution: serde_json::Map<String, Value> =
            people.iter().map(|(name, word)| ((*name).to_owned(), json!(word))).collect();
        Example {
            id,
            question: problem.question(),
            answer: lines.collect::<Vec<_>>().join("\n").into(),
            messages: Vec::new(),
            info: info([("people", json!(people.len())), ("solution", Value::Object(solution))]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Dataset, Split};

    #[test]
    fn exactly_the_answer_fits_what_is_said() {
        for (people_min, people_max, joins_max) in [(2, 2, 1), (3, 5, 2), (7, 8, 4)] {
            let config = KnightsConfig { people_min, people_max, joins_max, held_out: 0.1 };
            let source = Knights::new(config, 1, Split::Train).unwrap();
            for index in 0..50 {
                let (puzzle, example) = (source.problem(index), source.get(index));
                let people = puzzle.names.len();
                let fitting: Vec<u32> = (0..1 << people).filter(|&knights| puzzle.fits(knights)).collect();
                assert_eq!(fitting, [puzzle.knights], "{}", example.question);
                assert!((people_min..=people_max).contains(&people) && example.answer.lines().count() == people);
                for (i, line) in example.answer.lines().enumerate() {
                    let word = if puzzle.knights >> i & 1 == 1 { "knight" } else { "knave" };
                    assert_eq!(line, format!("({}) {} is a {word}", i + 1, NAMES[puzzle.names[i]]));
                    assert_eq!(example.info["solution"][NAMES[puzzle.names[i]]], word);
                }
            }
        }
    }

    #[test]
    fn a_puzzle_reads_as_a_story() {
        let puzzle =
            Puzzle { names: vec![0, 1], statements: vec![Formula::Is(1, false), Formula::Is(0, false)], knights: 1 };
        assert!(
            puzzle
                .question()
                .contains("You meet Ada and Ben. Ada says: \"Ben is a knave.\" Ben says: \"Ada is a knave.\"")
        );
        // Either of the two may be the knight: such a puzzle is never given.
        assert!(puzzle.fits(1) && puzzle.fits(2) && !puzzle.fits(0) && !puzzle.fits(3));
    }

    #[test]
    fn settings_that_cannot_work_are_refused_by_value() {
        let base = KnightsConfig::default;
        for (config, expected) in [
            (KnightsConfig { people_min: 1, ..base() }, "people_min..=people_max = 1..=5"),
            (KnightsConfig { joins_max: 9, ..base() }, "joins_max = 9"),
        ] {
            let message = Knights::new(config, 0, Split::Train).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }
}
