//! The JSON Schema of a stream's lines, made from the types that read them.

use schemars::{
    JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings, json_schema,
    transform::RecursiveTransform,
};
use serde_json::Value;

use crate::event::{
    Event,
    compare::Printed,
    start::SCHEMA_VERSION,
    values::{HexFlags, Ts},
    wait::Share,
};

/// The schema of one line, whatever its type is, and of what `replay --against` prints (JSON Schema, 2020-12). It allows fields that it does not
/// know, as a newer fork-trace may write them.
#[must_use]
pub fn schema() -> Value {
    let settings =
        SchemaSettings::draft2020_12().with_transform(RecursiveTransform(as_lines_are_written));
    let mut generator = settings.into_generator();
    let printed = generator.subschema_for::<Printed>();
    let mut schema = generator.into_root_schema_for::<Event>();
    if let Some(Value::Array(choices)) = schema.get_mut("oneOf") {
        choices.push(printed.to_value());
    }
    schema.insert(
        "title".to_owned(),
        format!("a line of fork-trace, version {SCHEMA_VERSION}").into(),
    );
    schema.to_value()
}

/// A field of a line, or a value that it may have, with the words of the schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Where it stands: the type of the line, then the fields with dots between them, `[]` after a list.
    pub path: String,
    /// The value, where it is one of a field's.
    pub value: Option<String>,
    /// What it means.
    pub what: String,
}

/// Every field and every value of a field that is told in words, in the order of the schema.
#[must_use]
pub fn described() -> Vec<Described> {
    let schema = schema();
    let mut found = Vec::new();
    for line in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
        // The type of the line stands beside the reference to the rest, or behind it.
        let behind = line.get("properties").is_none().then(|| referred(&schema, line)).flatten();
        let line = behind.unwrap_or(line);
        let kind = line.pointer("/properties/type/const").and_then(Value::as_str);
        let kind = kind.unwrap_or_default();
        let what = text(line);
        found.push(Described { path: "type".to_owned(), value: Some(kind.to_owned()), what });
        describe(&schema, line, kind, &mut found);
    }
    found
}

/// The definition that a schema refers to.
fn referred<'a>(root: &'a Value, schema: &Value) -> Option<&'a Value> {
    root.pointer(schema.get("$ref")?.as_str()?.strip_prefix('#')?)
}

fn text(schema: &Value) -> String {
    schema["description"].as_str().unwrap_or_default().to_owned()
}

/// Adds what `schema`, which stands at `path`, is made of. Types of lines do not hold themselves, so this ends.
fn describe(root: &Value, schema: &Value, path: &str, found: &mut Vec<Described>) {
    if !schema.is_object() {
        return;
    }
    if let Some(definition) = referred(root, schema) {
        describe(root, definition, path, found);
    }
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if name == "type" {
            continue;
        }
        let path = format!("{path}.{name}");
        found.push(Described { path: path.clone(), value: None, what: text(field) });
        describe(root, field, &path, found);
    }
    describe(root, &schema["items"], &format!("{path}[]"), found);
    describe(root, &schema["additionalProperties"], &format!("{path}[]"), found);
    for choice in ["oneOf", "anyOf", "allOf"] {
        for one in schema[choice].as_array().into_iter().flatten() {
            if let Some(value) = one["const"].as_str() {
                let value = Some(value.to_owned());
                found.push(Described { path: path.to_owned(), value, what: text(one) });
            }
            describe(root, one, path, found);
        }
    }
    for value in schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        let value = Some(value.to_owned());
        found.push(Described { path: path.to_owned(), value, what: text(schema) });
    }
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
            "compare",
        ] {
            assert!(text.contains(&format!(r#""const":"{name}""#)), "{name}");
        }
    }

    #[test]
    fn every_field_and_value_is_told_in_words() {
        let all = described();
        let silent: Vec<_> = all.iter().filter(|one| one.what.is_empty()).collect();
        assert!(silent.is_empty(), "{silent:#?}");
        let what = |path: &str, value: Option<&str>| {
            let mut ones =
                all.iter().filter(|one| one.path == path && one.value.as_deref() == value);
            ones.next().map(|one| one.what.as_str())
        };
        assert!(what("fork.total_ns", None).is_some());
        assert!(
            what("fork.stages[].precision", Some("bounded")).unwrap().contains("two named marks")
        );
        assert!(what("type", Some("vfork_done")).is_some());
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
