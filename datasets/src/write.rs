//! Rows to a Parquet file: a column for every name, of texts, integers, numbers, truth values or conversations, as the
//! values are; what is none of these is text of JSON. Every value may be absent.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use parquet::basic::{Compression, LogicalType, Repetition, Type as Physical, ZstdLevel};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{Type, TypePtr};
use serde_json::{Map, Value};

type Row = Map<String, Value>;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Number,
    Truth,
    /// Lists of messages of `role` and `content`.
    Messages,
    Json,
}

/// Writes rows.
///
/// # Errors
/// Those of the file.
pub fn write_parquet(file: impl Write + Send, rows: &[Row]) -> Result<(), ParquetError> {
    let mut names: Vec<&String> = Vec::new();
    let mut known = BTreeSet::new();
    rows.iter().flat_map(Map::keys).filter(|name| known.insert(*name)).for_each(|name| names.push(name));
    let columns: Vec<(&String, Kind)> = names.into_iter().map(|name| (name, Kind::of(rows, name))).collect();
    let fields = columns.iter().map(|(name, kind)| kind.field(name)).collect::<Result<Vec<_>, _>>()?;
    let schema = Arc::new(Type::group_type_builder("rows").with_fields(fields).build()?);
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(ZstdLevel::default())).build();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties))?;
    let mut group = writer.next_row_group()?;
    for (name, kind) in columns {
        let values: Vec<Option<&Value>> = rows.iter().map(|row| row.get(name).filter(|v| !v.is_null())).collect();
        let parts: &[Option<&str>] = if kind == Kind::Messages { &[Some("role"), Some("content")] } else { &[None] };
        for part in parts {
            let Some(mut column) = group.next_column()? else { break };
            kind.write(column.untyped(), &values, *part)?;
            column.close()?;
        }
    }
    group.close()?;
    writer.close().map(drop)
}

impl Kind {
    /// What fits all values under a name.
    fn of(rows: &[Row], name: &str) -> Self {
        let mut values = rows.iter().filter_map(|row| row.get(name)).filter(|value| !value.is_null()).peekable();
        let fits = |kind: &Self, value: &Value| match kind {
            Self::Text => value.is_string(),
            Self::Integer => value.as_i64().is_some(),
            Self::Number => value.is_number(),
            Self::Truth => value.is_boolean(),
            Self::Messages => is_conversation(value),
            Self::Json => true,
        };
        let mut kinds = vec![Self::Text, Self::Integer, Self::Number, Self::Truth, Self::Messages];
        if values.peek().is_none() {
            return Self::Text;
        }
        values.for_each(|value| kinds.retain(|kind| fits(kind, value)));
        kinds.first().copied().unwrap_or(Self::Json)
    }

    fn field(self, name: &str) -> Result<TypePtr, ParquetError> {
        let plain = |name: &str, physical, logical, repetition| {
            let builder = Type::primitive_type_builder(name, physical).with_repetition(repetition);
            builder.with_logical_type(logical).build().map(Arc::new)
        };
        let optional = |physical, logical| plain(name, physical, logical, Repetition::OPTIONAL);
        match self {
            Self::Text => optional(Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Self::Json => optional(Physical::BYTE_ARRAY, Some(LogicalType::Json)),
            Self::Integer => optional(Physical::INT64, None),
            Self::Number => optional(Physical::DOUBLE, None),
            Self::Truth => optional(Physical::BOOLEAN, None),
            Self::Messages => {
                let text = |name| plain(name, Physical::BYTE_ARRAY, Some(LogicalType::String), Repetition::REQUIRED);
                let group = |name: &str, fields, repetition, logical| {
                    let builder = Type::group_type_builder(name).with_fields(fields).with_repetition(repetition);
                    builder.with_logical_type(logical).build().map(Arc::new)
                };
                let element = group("element", vec![text("role")?, text("content")?], Repetition::REQUIRED, None)?;
                let list = group("list", vec![element], Repetition::REPEATED, None)?;
                group(name, vec![list], Repetition::OPTIONAL, Some(LogicalType::List))
            }
        }
    }

    /// Writes the values of a column, or what is called `part` of their messages.
    fn write(
        self,
        column: &mut ColumnWriter,
        values: &[Option<&Value>],
        part: Option<&str>,
    ) -> Result<(), ParquetError> {
        let there = || values.iter().flatten();
        let levels: Vec<i16> = values.iter().map(|value| i16::from(value.is_some())).collect();
        match column {
            ColumnWriter::ByteArrayColumnWriter(column) if self == Self::Messages => {
                let (mut texts, mut levels, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
                for value in values {
                    let messages = value.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
                    if messages.is_empty() {
                        levels.push(0);
                        repeated.push(0);
                    }
                    for (index, message) in messages.iter().enumerate() {
                        texts.push(ByteArray::from(message[part.unwrap_or_default()].as_str().unwrap_or_default()));
                        levels.push(2);
                        repeated.push(i16::from(index > 0));
                    }
                }
                column.write_batch(&texts, Some(&levels), Some(&repeated))
            }
            ColumnWriter::ByteArrayColumnWriter(column) => {
                let text = |value: &&Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                let texts: Vec<ByteArray> = there().map(|value| ByteArray::from(text(value).as_str())).collect();
                column.write_batch(&texts, Some(&levels), None)
            }
            ColumnWriter::Int64ColumnWriter(column) => {
                let numbers: Vec<i64> = there().filter_map(|value| value.as_i64()).collect();
                column.write_batch(&numbers, Some(&levels), None)
            }
            ColumnWriter::DoubleColumnWriter(column) => {
                let numbers: Vec<f64> = there().map(|value| value.as_f64().unwrap_or(f64::NAN)).collect();
                column.write_batch(&numbers, Some(&levels), None)
            }
            ColumnWriter::BoolColumnWriter(column) => {
                let truths: Vec<bool> = there().filter_map(|value| value.as_bool()).collect();
                column.write_batch(&truths, Some(&levels), None)
            }
            _ => Err(ParquetError::General("a column of a kind that is not written".into())),
        }
        .map(drop)
    }
}

/// Whether a value is a list of messages that hold nothing but two texts.
fn is_conversation(value: &Value) -> bool {
    let is_message = |message: &Value| {
        message.as_object().is_some_and(|message| message.len() == 2)
            && message["role"].is_string()
            && message["content"].is_string()
    };
    value.as_array().is_some_and(|messages| !messages.is_empty() && messages.iter().all(is_message))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::read_rows;

    #[test]
    fn what_is_written_is_read_again() {
        let message = |role: &str, content: &str| json!({ "role": role, "content": content });
        let rows = [
            json!({ "prompt": [message("user", "1+1?"), message("assistant", "It is")], "completion": "2", "n": 1,
                "reward": 0.5, "right": true, "answer": ["2", "two"], "odd": null }),
            json!({ "prompt": [message("user", "é")], "completion": "", "n": -3, "right": false, "answer": 4 }),
            json!({ "completion": "x", "reward": 2, "n": 7 }),
        ];
        let rows: Vec<Row> = rows.iter().map(|row| row.as_object().unwrap().clone()).collect();
        let path = std::env::temp_dir().join(format!("reckon-written-{}.parquet", std::process::id()));
        write_parquet(std::fs::File::create(&path).unwrap(), &rows).unwrap();
        let mut found = Vec::new();
        read_rows(&path, &mut |row| {
            found.push(row.columns);
            Ok(())
        })
        .unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(found.len(), 3);
        for (found, row) in found.iter().zip(&rows) {
            for name in ["prompt", "completion", "n", "right", "odd"] {
                assert_eq!(found[name], row.get(name).cloned().unwrap_or(Value::Null), "{name}");
            }
            let reward = row.get("reward").and_then(Value::as_f64);
            assert_eq!(found["reward"].as_f64(), reward);
            let answer = row.get("answer").map(|answer| json!(answer.to_string())).unwrap_or(Value::Null);
            assert_eq!(found["answer"], answer, "what fits no kind is text of JSON");
        }
    }
}
