//! The names and literals in a stream of tokens.
//!
//! Tokens are read instead of a syntax tree, so that what stands in a macro's arguments, in a
//! `macro_rules!` body or in an attribute is found like everything else. Comments and docs are left
//! out.

use proc_macro2::{Delimiter, Group, Ident, TokenStream, TokenTree};
use syn::Lit;

/// What stands behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// `!` and arguments: a macro is called.
    Macro,
    /// Arguments: a function is called.
    Arguments,
    /// Anything else.
    Other,
}

/// A name in the source: one word, or a path. A `use` tree is one path for each of its leaves.
#[derive(Clone, Debug)]
pub(super) struct Name {
    /// The words between `::`; the last may be `*`.
    pub(super) words: Vec<String>,
    /// What it is called from here on, if `as` renames it.
    pub(super) alias: Option<String>,
    /// The line of its last word, from 1.
    pub(super) line: usize,
    /// What stands behind it.
    pub(super) followed: Followed,
    /// The modules within the file that it stands in.
    pub(super) within: Vec<String>,
}

/// A string, byte string or C string.
#[derive(Debug)]
pub(super) struct Text {
    /// What it says, without quotes and escapes.
    pub(super) value: String,
    /// The line it begins in, from 1.
    pub(super) line: usize,
}

/// Everything that was found.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order of the source.
    pub(super) names: Vec<Name>,
    /// In the order of the source.
    pub(super) texts: Vec<Text>,
}

impl Found {
    /// Adds what is in `tokens`, which stand in the modules `within`.
    pub(super) fn add(&mut self, tokens: TokenStream, within: &[String]) {
        let tokens = tokens.into_iter().collect::<Vec<_>>();
        let mut rest = tokens.as_slice();
        while let Some((first, tail)) = rest.split_first() {
            rest = match (first, tail) {
                // An attribute that is documentation: `#[doc = ""]`, `#![doc = ""]`.
                (TokenTree::Punct(hash), [TokenTree::Group(group), after @ ..])
                    if hash.as_char() == '#' && begins(group, "doc") =>
                {
                    after
                }
                (TokenTree::Punct(hash), [bang, TokenTree::Group(group), after @ ..])
                    if hash.as_char() == '#' && is(bang, '!') && begins(group, "doc") =>
                {
                    after
                }
                // `pub(in PATH)` says who sees an item; it imports nothing.
                (TokenTree::Ident(word), [TokenTree::Group(group), after @ ..])
                    if word == "pub" && begins(group, "in") =>
                {
                    after
                }
                // `..`, `->` and `=>` are one token to a reader.
                (one, [two, after @ ..])
                    if is(one, '.') && is(two, '.')
                        || (is(one, '-') || is(one, '=')) && is(two, '>') =>
                {
                    after
                }
                // `.field`, `.method()`.
                (dot, [TokenTree::Ident(_), after @ ..]) if is(dot, '.') => after,
                // `fn name`.
                (TokenTree::Ident(word), [TokenTree::Ident(_), after @ ..]) if word == "fn" => {
                    after
                }
                // `<T>::name`.
                (end, [one, two, TokenTree::Ident(_), after @ ..])
                    if is(end, '>') && is(one, ':') && is(two, ':') =>
                {
                    after
                }
                (TokenTree::Ident(_), _) => self.path(&[], rest, within),
                (TokenTree::Literal(literal), _) => {
                    self.text(Lit::new(literal.clone()));
                    tail
                }
                (TokenTree::Group(group), _) => {
                    self.add(group.stream(), within);
                    tail
                }
                _ => tail,
            };
        }
    }

    /// Adds the path or `use` tree that `tokens` begin with, below the words `prefix`; returns the
    /// tokens behind it.
    fn path<'a>(
        &mut self,
        prefix: &[String],
        tokens: &'a [TokenTree],
        within: &[String],
    ) -> &'a [TokenTree] {
        let mut words = prefix.to_vec();
        let mut line = 0;
        let mut rest = tokens;
        loop {
            match rest {
                [TokenTree::Ident(word), tail @ ..] => {
                    words.push(word.to_string());
                    line = line_of(word);
                    rest = tail;
                }
                [TokenTree::Punct(star), tail @ ..] if star.as_char() == '*' => {
                    words.push("*".to_owned());
                    line = star.span().start().line;
                    rest = tail;
                }
                [TokenTree::Group(group), tail @ ..] if group.delimiter() == Delimiter::Brace => {
                    let leaves = group.stream().into_iter().collect::<Vec<_>>();
                    for leaf in leaves.split(|token| is(token, ',')) {
                        self.path(&words, leaf, within);
                    }
                    return tail;
                }
                _ => break,
            }
            match rest {
                [one, two, next, ..] if is(one, ':') && is(two, ':') && goes_on(next) => {
                    rest = rest.get(2..).unwrap_or_default();
                }
                _ => break,
            }
        }
        if words.len() == prefix.len() {
            return rest;
        }
        let alias = match rest {
            [TokenTree::Ident(word), TokenTree::Ident(alias), ..] if word == "as" => {
                Some(alias.to_string())
            }
            _ => None,
        };
        let followed = match rest {
            [bang, TokenTree::Group(_), ..] if is(bang, '!') => Followed::Macro,
            [TokenTree::Group(group), ..] if group.delimiter() == Delimiter::Parenthesis => {
                Followed::Arguments
            }
            _ => Followed::Other,
        };
        self.names.push(Name { words, alias, line, followed, within: within.to_vec() });
        rest
    }

    /// Adds a literal, if it is text.
    fn text(&mut self, literal: Lit) {
        let line = literal.span().start().line;
        let value = match literal {
            Lit::Str(text) => text.value(),
            Lit::ByteStr(text) => String::from_utf8_lossy(&text.value()).into_owned(),
            Lit::CStr(text) => text.value().to_string_lossy().into_owned(),
            _ => return,
        };
        self.texts.push(Text { value, line });
    }
}

/// The line of a word, from 1.
fn line_of(word: &Ident) -> usize {
    word.span().start().line
}

/// Whether this is that punctuation.
fn is(token: &TokenTree, wanted: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == wanted)
}

/// Whether the first token in the brackets is this word.
fn begins(group: &Group, wanted: &str) -> bool {
    let first = group.stream().into_iter().next();
    matches!(first, Some(TokenTree::Ident(word)) if word == wanted)
}

/// Whether a path goes on with this token behind `::`.
fn goes_on(token: &TokenTree) -> bool {
    match token {
        TokenTree::Ident(_) => true,
        TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
        TokenTree::Punct(punct) => punct.as_char() == '*',
        TokenTree::Literal(_) => false,
    }
}
