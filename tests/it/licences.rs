//! What this program is built of may be passed on: each crate's licence, as the crate declares it.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

use crate::support::repository;

/// Licences that ask for no more than that they are named.
const FREE: [&str; 11] = [
    "0BSD",
    "Apache-2.0",
    "BSD-3-Clause",
    "CC0-1.0",
    "ISC",
    "LLVM-exception",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

#[test]
fn every_licence_is_allowed() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked"])
        .arg("--filter-platform=x86_64-unknown-linux-gnu")
        .current_dir(repository(""))
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for package in packages {
        let licence = package["license"].as_str().unwrap_or("none declared");
        assert!(is_free(licence), "{}: {licence}", package["name"]);
        *counts.entry(licence.to_owned()).or_default() += 1;
    }
    assert!(packages.len() > 200, "all of them: {}", packages.len());
    for (licence, count) in counts {
        say(&format!("  {count:>4}  {licence}"));
    }
}

/// Whether an SPDX expression can be met: all of one alternative. The older `/` means OR.
fn is_free(licence: &str) -> bool {
    let spaced = licence
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (met, rest) = any_of(&words);
    met && rest.is_empty()
}

fn any_of<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = all_of(words);
    while let ["OR", more @ ..] = rest {
        let (also, after) = all_of(more);
        (met, rest) = (met || also, after);
    }
    (met, rest)
}

fn all_of<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    let (mut met, mut rest) = one(words);
    while let ["AND" | "WITH", more @ ..] = rest {
        let (also, after) = one(more);
        (met, rest) = (met && also, after);
    }
    (met, rest)
}

fn one<'a>(words: &'a [&'a str]) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => match any_of(inner) {
            (met, [")", rest @ ..]) => (met, rest),
            (_, rest) => (false, rest),
        },
        [name, rest @ ..] => (FREE.contains(name), rest),
        [] => (false, words),
    }
}

#[test]
fn or_and_and_of_licence_expressions() {
    for free in [
        "MIT",
        "GPL-3.0 OR MIT",
        "GPL-2.0/MIT",
        "(MIT OR GPL-3.0) AND ISC",
    ] {
        assert!(is_free(free), "{free}");
    }
    for bound in [
        "",
        "none declared",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "(MIT",
        "(MIT OR ISC) AND GPL-3.0",
    ] {
        assert!(!is_free(bound), "{bound}");
    }
}

#[expect(clippy::print_stdout, reason = "`--nocapture` shows the licences")]
fn say(line: &str) {
    println!("{line}");
}
