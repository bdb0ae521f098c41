//! Inputs that are short and ask for much: depth, repetition, references to references.

use k3s_vm::{
    k3s::{Kubeconfig, api::parse_nodes, release::stable_channel},
    project::{Config, Record},
    qemu::firmware,
};

/// Each of them is refused at once, and not by the end of the stack or of memory.
#[test]
fn deep_and_endless_texts() {
    let laughs: String = (1..40)
        .map(|n| {
            format!(
                "a{n}: &a{n} [{}]\n",
                vec![format!("*a{}", n - 1); 9].join(",")
            )
        })
        .collect();
    let laughs = format!("a0: &a0 lol\n{laughs}clusters: *a39\n");
    let itself = "clusters: &a\n- cluster: *a\n".to_owned();
    let deep = [
        "[",
        "{\"a\":",
        "- ",
        "a:\n ",
        "{a: ",
        "a.",
        "[[",
        "a = [",
        "a = {b = ",
        "&a ",
    ]
    .map(|piece| piece.repeat(100_000));
    let long = ["a", "\"", "1", "'", "# ", "\\", "é"].map(|piece| piece.repeat(1 << 20));
    for input in [laughs, itself].iter().chain(&deep).chain(&long) {
        let start: String = input.chars().take(20).collect();
        assert!(
            Config::parse(input).is_err() || input.starts_with('#'),
            "{start}"
        );
        assert!(Record::parse(input).is_err(), "{start}");
        assert!(Kubeconfig::parse(input).is_err(), "{start}");
        assert!(stable_channel(input).is_err(), "{start}");
        assert!(parse_nodes(input.as_bytes()).is_err(), "{start}");
        assert!(firmware::usable(input).is_none(), "{start}");
    }
}
