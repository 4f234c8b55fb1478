//! The JSON Schema of a stream's lines, made from the types that read them.

use schemars::{
    JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema,
    transform::RecursiveTransform,
};
use serde_json::Value;

use crate::event::{
    Event,
    start::SCHEMA_VERSION,
    values::{HexFlags, Ts},
    wait::Share,
};

/// The schema of one line, whatever its type is (JSON Schema, 2020-12). It allows fields that it does not
/// know, as a newer fork-trace may write them.
#[must_use]
pub fn schema() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with_transform(RecursiveTransform(as_lines_are_written));
    let mut schema = settings.into_generator().into_root_schema_for::<Event>();
    schema.insert(
        "title".to_owned(),
        format!("a line of fork-trace, version {SCHEMA_VERSION}").into(),
    );
    schema.to_value()
}

/// The words of a doc comment without its links, which lead nowhere outside of the source.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once("[`") {
        let (name, after) = link.split_once("`]").unwrap_or((link, ""));
        plain.push_str(&format!("{before}`{name}`"));
        let target = after.strip_prefix('(').and_then(|target| target.split_once(')'));
        rest = target.map_or(after, |(_, after)| after);
    }
    plain + rest
}

/// Takes `null` out of what a value may be, for what is not known is absent in a line, and links out of what
/// is said of it.
fn as_lines_are_written(schema: &mut Schema) {
    for name in ["type", "anyOf"] {
        let Some(Value::Array(choices)) = schema.get_mut(name) else { continue };
        choices.retain(|choice| *choice != "null" && choice["type"] != "null");
        // One type is written without brackets; one of any stays in its list.
        if name == "type" && choices.len() == 1 {
            let only = choices.remove(0);
            schema.insert(name.to_owned(), only);
        }
    }
    // Serde takes an absent value for these; a line never has them.
    if schema.get("default") == Some(&Value::Null) {
        schema.remove("default");
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = without_links(text);
    }
}

macro_rules! schemas {
    ($($of:ty, $name:literal: $schema:tt)*) => {
        $(impl JsonSchema for $of {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }

            fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        })*
    };
}

schemas! {
    Ts, "Ts": {
        "type": "string",
        "format": "date-time",
        "description": "A moment of the realtime clock: RFC 3339, in UTC and with nine digits of the second."
    }
    HexFlags, "HexFlags": {
        "type": "string",
        "pattern": "^0x[0-9a-f]+$",
        "description": "A flags word in hexadecimal."
    }
    Share, "Share": {
        "type": "number",
        "minimum": 0,
        "maximum": 1,
        "description": "A share of a whole, in thousandths."
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_null_and_each_type_of_line_is_there() {
        let schema = schema();
        let text = schema.to_string();
        assert!(!text.contains("null"), "{text}");
        for name in [
            "start",
            "fork",
            "stage",
            "vfork_done",
            "exec",
            "exit",
            "stuck",
            "loss",
            "warning",
            "summary",
        ] {
            assert!(text.contains(&format!(r#""const":"{name}""#)), "{name}");
        }
    }

    #[test]
    fn words_have_no_links() {
        assert_eq!(without_links("a [`b`](c::d) e [`f`], [g]"), "a `b` e `f`, [g]");
        assert_eq!(without_links("[`a"), "`a`");
        assert!(!schema().to_string().contains("[`"));
    }

    #[test]
    fn a_field_of_a_stage_is_told_with_its_words() {
        let text = schema().to_string();
        assert!(text.contains("time not on a CPU; absent means none"), "{text}");
    }
}
