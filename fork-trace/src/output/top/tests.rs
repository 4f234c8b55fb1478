//! What is folded, drawn and asked for by keys.
