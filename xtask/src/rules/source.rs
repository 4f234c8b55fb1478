//! One source file, as the rules see it: its names, its texts, its modules and its length. Tests in
//! it are left out.

use proc_macro2::Span;
use quote::ToTokens as _;
use syn::{
    Attribute, ImplItem, Item, Meta, Token, TraitItem, punctuated::Punctuated,
    spanned::Spanned as _,
};

use super::tokens::Found;

/// A module that is declared here and is a file of its own.
#[derive(Debug)]
pub(super) struct Declared {
    /// Its path from this file's module.
    pub(super) path: Vec<String>,
    /// It is compiled for tests only.
    pub(super) test: bool,
}

/// One file.
#[derive(Debug)]
pub(super) struct Source {
    /// Its names and texts.
    pub(super) found: Found,
    /// The modules that it declares.
    pub(super) declared: Vec<Declared>,
    /// How many lines it has, without a module of tests at its end.
    pub(super) lines: usize,
    /// All of it is compiled for tests only.
    pub(super) test: bool,
}

impl Source {
    /// Reads a file's text. The error says where it is no Rust.
    pub(super) fn parse(text: &str) -> syn::Result<Self> {
        let file = syn::parse_file(text)?;
        let mut source = Self {
            found: Found::default(),
            declared: Vec::new(),
            lines: length(text, &file.items),
            test: is_test(&file.attrs),
        };
        source.items(file.items, &[]);
        Ok(source)
    }

    /// Takes in the items of the module `within`.
    fn items(&mut self, items: Vec<Item>, within: &[String]) {
        for item in items {
            let test = is_test(attributes(&item));
            match item {
                Item::Mod(module) if module.content.is_none() => {
                    let path = [within, &[module.ident.to_string()]].concat();
                    self.declared.push(Declared { path, test });
                }
                _ if test => {}
                Item::Mod(module) => {
                    let path = [within, &[module.ident.to_string()]].concat();
                    let (_, items) = module.content.unwrap_or_default();
                    self.items(items, &path);
                }
                Item::Impl(mut block) => {
                    block.items.retain(|item| !is_test(attributes_in_impl(item)));
                    self.found.add(block.into_token_stream(), within);
                }
                Item::Trait(mut block) => {
                    block.items.retain(|item| !is_test(attributes_in_trait(item)));
                    self.found.add(block.into_token_stream(), within);
                }
                other => self.found.add(other.into_token_stream(), within),
            }
        }
    }
}

/// How many lines a file has, without a module of tests at its end and the empty lines before that.
fn length(text: &str, items: &[Item]) -> usize {
    let tests =
        items.last().filter(|last| matches!(last, Item::Mod(_)) && is_test(attributes(last)));
    let all = text.lines().count();
    let before = tests.map_or(all, |tests| {
        let first = attributes(tests).iter().map(|attribute| line(attribute.span())).min();
        first.unwrap_or_else(|| line(tests.span())).saturating_sub(1)
    });
    let kept = text.lines().take(before).collect::<Vec<_>>();
    kept.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1)
}

/// The line where a span begins, from 1.
fn line(span: Span) -> usize {
    span.start().line
}

/// Whether these attributes keep an item for tests: `#[test]`, `#[cfg(test)]`, `#[cfg(all(test, …))]`.
fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        Meta::List(list) if list.path.is_ident("cfg") => {
            list.parse_args::<Meta>().is_ok_and(|condition| needs_test(&condition))
        }
        meta => meta.path().is_ident("test"),
    })
}

/// Whether a condition of `cfg` holds in tests only.
fn needs_test(condition: &Meta) -> bool {
    match condition {
        Meta::List(list) if list.path.is_ident("all") => list
            .parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated)
            .is_ok_and(|all| all.iter().any(needs_test)),
        Meta::Path(path) => path.is_ident("test"),
        _ => false,
    }
}

/// An item's attributes.
fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::ExternCrate(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::ForeignMod(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::TraitAlias(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The attributes of an item in an `impl` block.
fn attributes_in_impl(item: &ImplItem) -> &[Attribute] {
    match item {
        ImplItem::Const(item) => &item.attrs,
        ImplItem::Fn(item) => &item.attrs,
        ImplItem::Macro(item) => &item.attrs,
        ImplItem::Type(item) => &item.attrs,
        _ => &[],
    }
}

/// The attributes of an item in a trait.
fn attributes_in_trait(item: &TraitItem) -> &[Attribute] {
    match item {
        TraitItem::Const(item) => &item.attrs,
        TraitItem::Fn(item) => &item.attrs,
        TraitItem::Macro(item) => &item.attrs,
        TraitItem::Type(item) => &item.attrs,
        _ => &[],
    }
}
