//! A table of a config, written once: [`table!`](crate::table!) makes of it the struct, its defaults, what `reckon config`
//! prints of each key, and the check of its ranges. Reading TOML is left to whoever holds the text.

use std::fmt::{self, Display};

use serde::de::{self, DeserializeOwned, Deserializer, Visitor};

/// A struct that was written with [`table!`](crate::table!).
pub trait Table {
    /// What the table is about: its doc comment.
    const ABOUT: &'static str;

    /// Its keys, in order.
    fn keys() -> Vec<Key>;

    /// Key by key, the range of those that have one, with their value as a number and as text.
    fn ranged(&self) -> Vec<Option<(Range, f64, String)>>;

    /// Refuses the first value outside its range, by the path of its key; `path` is what stands before the key.
    fn check(&self, path: &str) -> Result<(), String> {
        for (key, ranged) in Self::keys().into_iter().zip(self.ranged()) {
            if let Some((range, _, text)) = ranged.filter(|(range, value, _)| !range.contains(*value)) {
                return Err(format!("{path}{} = {text}: it must be {range}. {}", key.name, key.doc));
            }
        }
        Ok(())
    }
}

/// A key of a table, for people.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its doc comment, in one line.
    pub doc: &'static str,
    /// Where its value lies.
    pub range: Option<Range>,
    /// The words that its value is one of; empty for other values.
    pub choices: &'static [&'static str],
}

/// Where a number lies. None of them holds an infinity or NaN.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Range {
    /// From this number on.
    AtLeast(f64),
    /// From beyond this number on.
    Above(f64),
    /// From 0 to 1.
    Share,
    /// From beyond 0 to 1.
    PositiveShare,
}

impl Range {
    /// Whether a number lies in it.
    pub fn contains(self, value: f64) -> bool {
        value.is_finite()
            && match self {
                Self::AtLeast(least) => value >= least,
                Self::Above(bound) => value > bound,
                Self::Share => (0.0..=1.0).contains(&value),
                Self::PositiveShare => value > 0.0 && value <= 1.0,
            }
    }
}

impl Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, "at least {least}"),
            Self::Above(bound) => write!(f, "above {bound}"),
            Self::Share => f.write_str("in [0, 1]"),
            Self::PositiveShare => f.write_str("in (0, 1]"),
        }
    }
}

/// Defines a table of a config: a public struct that refuses unknown keys. Either every key has a default, or none has;
/// then serde's attributes say which may be absent. `=>` gives a number its [`Range`].
///
/// ```
/// use reckon_datasets::{Range::AtLeast, Table, table};
/// table! {
///     /// What is kept on disk.
///     pub struct Save {
///         /// Steps between checkpoints.
///         pub every: u64 = 25 => AtLeast(1.0),
///         /// Checkpoints kept.
///         pub keep_last: usize = 2,
///     }
/// }
/// assert_eq!(Save::default().every, 25);
/// let wrong = Save { every: 0, keep_last: 2 };
/// assert_eq!(wrong.check("save.").unwrap_err(), "save.every = 0: it must be at least 1. Steps between checkpoints.");
/// ```
#[macro_export]
macro_rules! table {
    ($(#[doc = $about:literal])* pub struct $name:ident {$(
        $(#[doc = $doc:literal])* $(#[serde $serde:tt])*
        pub $key:ident: $type:ty = $default:expr $(=> $range:expr)?,
    )*}) => {
        $crate::table! {
            $(#[doc = $about])* #[serde(default)] pub struct $name {$(
                $(#[doc = $doc])* $(#[serde $serde])* pub $key: $type $(=> $range)?,
            )*}
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }
    };
    ($(#[doc = $about:literal])* $(#[serde $all:tt])? pub struct $name:ident {$(
        $(#[doc = $doc:literal])* $(#[serde $serde:tt])* pub $key:ident: $type:ty $(=> $range:expr)?,
    )*}) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        $(#[serde $all])?
        pub struct $name {$(
            $(#[doc = $doc])* $(#[serde $serde])* pub $key: $type,
        )*}

        impl $crate::Table for $name {
            const ABOUT: &'static str = concat!($($about),*);

            fn keys() -> Vec<$crate::Key> {
                vec![$($crate::Key {
                    name: stringify!($key),
                    doc: concat!($($doc),*).trim_start(),
                    range: None$(.or(Some($range)))?,
                    choices: $crate::choices::<$type>(),
                }),*]
            }

            fn ranged(&self) -> Vec<Option<($crate::Range, f64, String)>> {
                vec![$(None$(.or(Some(($range, self.$key as f64, self.$key.to_string()))))?),*]
            }
        }
    };
}

/// The words that a value of type `T` is one of, as serde knows them; none if it is another kind of value.
pub fn choices<T: DeserializeOwned>() -> &'static [&'static str] {
    T::deserialize(Asked).err().map_or(&[], |Choices(words)| words)
}

/// Holds no value, and fails with the words that would have been taken.
struct Asked;

#[derive(Debug)]
struct Choices(&'static [&'static str]);

impl Display for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Choices {}

impl de::Error for Choices {
    fn custom<T: Display>(_: T) -> Self {
        Self(&[])
    }
}

impl<'de> Deserializer<'de> for Asked {
    type Error = Choices;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Choices> {
        Err(Choices(&[]))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Choices> {
        visitor.visit_some(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        words: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Choices> {
        Err(Choices(words))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
