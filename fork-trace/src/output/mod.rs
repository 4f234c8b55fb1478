//! Every output: a format a file behind [`sink::Sink`], opened and fed by `outputs`.
//!
//! A sink knows events and its writer, nothing else.

#[cfg(feature = "otlp")]
mod attributes;
mod capabilities;
pub mod compress;
pub mod files;
pub mod folded;
pub mod formats;
pub mod json;
pub mod metrics;
pub mod notes;
pub mod options;
#[cfg(feature = "otlp")]
pub mod otlp;
pub mod outputs;
pub mod perfetto;
mod protobuf;
pub mod recorder;
pub mod sink;
mod target;
pub mod text;
pub mod told;
pub mod top;
mod writer;
