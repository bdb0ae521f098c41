//! What comes from elsewhere and is read by this program: a storm of inputs for each parser, no panic, and what was
//! accepted is the same when it is written and read again.
//!
//! `cargo test --test it hostile -- --nocapture` counts them.

mod bombs;
mod host;
mod project;
mod storm;
mod words;
mod world;

/// A line for those who watch.
#[expect(clippy::print_stdout, reason = "`--nocapture` shows the counts")]
fn say(line: &str) {
    println!("{line}");
}

/// A parser of text: what is not UTF-8 is refused before it.
fn text(parser: impl Fn(&str) -> bool + Sync) -> impl Fn(&[u8]) -> bool + Sync {
    move |input| std::str::from_utf8(input).is_ok_and(&parser)
}
