//! The serde deserializer over a [`Tree`], which keeps the path of keys for errors.

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess, Visitor,
};

use super::fault::{Fault, Problem, found};
use super::tree::{Origin, Tree, Value};

/// A tree as serde reads it.
pub(super) struct Reader<'de>(pub(super) &'de Tree);

impl<'de> Deserializer<'de> for Reader<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match &self.0.value {
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
        match (&self.0.value, &self.0.origin) {
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
        match &self.0.value {
            Value::Text(name) => visitor.visit_enum(IntoDeserializer::<Fault>::into_deserializer(name.as_str())),
            Value::Table(entries) if entries.len() == 1 => visitor.visit_enum(Variant(&entries[0])),
            _ => {
                let wanted = format!("one of {}", known.join(", "));
                Err(Problem::Unfit { found: found(self.0.unexpected()), wanted }.fault())
            }
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct seq tuple
        tuple_struct map struct identifier ignored_any
    }
}

struct Entries<'de> {
    rest: std::slice::Iter<'de, (String, Tree)>,
    value: Option<&'de (String, Tree)>,
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
        seed.deserialize(Reader(node)).map_err(|fault| fault.under(key))
    }
}

struct Items<'de>(std::iter::Enumerate<std::slice::Iter<'de, Tree>>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Fault> {
        let item = self.0.next();
        item.map(|(i, node)| seed.deserialize(Reader(node)).map_err(|fault| fault.under(&i.to_string()))).transpose()
    }
}

/// An enum value with content: a table of one key, the name of the variant.
struct Variant<'de>(&'de (String, Tree));

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
        seed.deserialize(Reader(&self.0.1)).map_err(|fault| fault.under(&self.0.0))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Fault> {
        Reader(&self.0.1).deserialize_any(visitor).map_err(|fault| fault.under(&self.0.0))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], visitor: V) -> Result<V::Value, Fault> {
        Reader(&self.0.1).deserialize_any(visitor).map_err(|fault| fault.under(&self.0.0))
    }
}
