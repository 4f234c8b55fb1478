//! Every output: a format a file behind [`sink::Sink`], opened and fed by `outputs`.
//!
//! A sink knows events and its writer, nothing else.

pub mod files;
pub mod formats;
pub mod json;
pub mod notes;
pub mod options;
pub mod outputs;
pub mod sink;
pub mod text;
pub mod told;
mod writer;
