//! Each command of the README works as it stands there.

