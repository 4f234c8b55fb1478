//! What OTLP's messages of all signals have: attributes, the resource, the scope, and times.

use jiff::Timestamp;

use crate::{event::start::HostInfo, output::protobuf::Message};

/// Fields of an attribute, and of its value.
mod attribute {
    pub(super) const KEY: u32 = 1;
    pub(super) const VALUE: u32 = 2;
    pub(super) const INT: u32 = 3;
}

/// Fields of a resource and of a scope.
mod resource {
    pub(super) const ATTRIBUTES: u32 = 1;
    pub(super) const NAME: u32 = 1;
    pub(super) const VERSION: u32 = 2;
}

/// The field of a value that is a text.
pub(super) const STRING: u32 = 1;

/// What measured.
const SCOPE: &str = "fork-trace";

/// Adds an attribute that is a text.
pub(super) fn text(to: &mut Message, field: u32, key: &str, value: &str) {
    to.message(field, |to| {
        to.raw_text(attribute::KEY, key);
        to.message(attribute::VALUE, |to| to.raw_text(STRING, value));
    });
}

/// Adds an attribute that is a number.
pub(super) fn int(to: &mut Message, field: u32, key: &str, value: u64) {
    to.message(field, |to| {
        to.raw_text(attribute::KEY, key);
        to.message(attribute::VALUE, |to| to.number(attribute::INT, value));
    });
}

/// The host, as a resource.
pub(super) fn resource(host: &HostInfo) -> Message {
    // As the conventions call them.
    let arch = match host.arch.as_str() {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut to = Message::default();
    for (key, value) in [
        ("service.name", SCOPE),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("host.name", &host.name),
        ("host.arch", arch),
        ("os.type", "linux"),
        ("os.version", &host.kernel),
    ] {
        text(&mut to, resource::ATTRIBUTES, key, value);
    }
    to
}

/// Adds who measured.
pub(super) fn scope(to: &mut Message) {
    to.raw_text(resource::NAME, SCOPE);
    to.raw_text(resource::VERSION, env!("CARGO_PKG_VERSION"));
}

/// Nanoseconds since 1970.
pub(super) fn unix_ns(at: Timestamp) -> u64 {
    u64::try_from(at.as_nanosecond()).unwrap_or_default()
}
