use crate::k3s::kubeconfig_edit::*;

/// As users keep it: comments, other indents, things that k3s-vm does not know.
const THEIRS: &str = "\
# work
apiVersion: v1
clusters:
# the office
- cluster: {server: https://10.0.0.1:6443, insecure-skip-tls-verify: yes}
  name: office   # never delete
- name: lab
  cluster:
    server: 'https://lab:6443'

# people
users:
  - name: office
    user:
      exec:
        command: aws
        args: [\"eks\", '0123']
        env:
        - name: A
          value: \"yes\"
contexts: []  # none yet
current-context: office
kind: Config
preferences: {}
";

fn name() -> Name {
    "k3s-shop-1a2b3c".parse().expect("sound")
}

fn ours(port: u16) -> Kubeconfig {
    let guest = "apiVersion: v1\nkind: Config\ncurrent-context: d\nclusters:\n- name: d\n  cluster:\n    \
        server: x\n    certificate-authority-data: Q0E=\nusers:\n- name: d\n  user:\n    \
        client-certificate-data: Q0VSVA==\n    client-key-data: S0VZ\ncontexts:\n- name: d\n  context:\n    \
        cluster: d\n    user: d\n";
    let guest = Kubeconfig::parse(guest).expect("sound");
    let project = std::path::Path::new("/p/a # shop");
    guest.for_host(&name(), port, project).expect("complete")
}

#[test]
fn other_entries_are_unchanged() {
    let merged = with(&ours(16443), &name(), THEIRS).expect("merged");
    let lost: Vec<&str> = THEIRS
        .lines()
        .filter(|line| !merged.contains(line) && !line.starts_with("contexts"))
        .collect();
    assert_eq!(lost, Vec::<&str>::new(), "{merged}");
    insta::assert_snapshot!(merged);
    assert_eq!(current(&merged).as_deref(), Some("office"));
    let known = machines(&merged);
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].project, Some("/p/a # shop".into()));
    // Again, with another port: no second entry.
    let first = "clusters:\n# the office\n";
    let moved = apart_and_first(&merged, first);
    assert_ne!(moved, merged);
    assert_eq!(with(&ours(16443), &name(), &moved).expect("there"), moved);
    let again = with(&ours(7000), &name(), &merged).expect("merged");
    assert_eq!(again, merged.replace("16443", "7000"));
    let (apart, was_current) = without(name().as_str(), &again).expect("taken out");
    assert!(!was_current);
    assert_eq!(apart, THEIRS.replace("[]  # none yet", "[]"));
    let (same, _) = without(name().as_str(), &apart).expect("nothing to do");
    assert_eq!(same, apart);
}

/// With our cluster as the first one.
fn apart_and_first(merged: &str, first: &str) -> String {
    let cluster: Vec<&str> = merged
        .lines()
        .skip_while(|it| !it.contains("Q0E="))
        .take(3)
        .collect();
    let cluster = format!("- cluster:\n{}\n", cluster.join("\n"));
    let without = merged.replacen(&cluster, "", 1);
    without.replacen(first, &format!("{first}{cluster}"), 1)
}

#[test]
fn an_empty_one_gets_no_current_context() {
    for empty in ["", "\n", "# mine\n", "{}", "apiVersion: v1\nclusters: null"] {
        let merged = with(&ours(16443), &name(), empty).expect("merged");
        assert_eq!(current(&merged), None, "{merged}");
        assert_eq!(machines(&merged).len(), 1, "{merged}");
        assert!(merged.starts_with("# mine") || !empty.contains('#'));
        let (apart, _) = without(name().as_str(), &merged).expect("taken out");
        assert!(machines(&apart).is_empty(), "{apart}");
        assert!(!apart.contains(name().as_str()), "{apart}");
    }
}

#[test]
fn the_namespace_is_kept() {
    let merged = with(&ours(16443), &name(), THEIRS).expect("merged");
    let chosen = merged
        .replace(
            "current-context: office",
            "current-context: k3s-shop-1a2b3c",
        )
        .replace(
            "    user: k3s-shop-1a2b3c\n",
            "    user: k3s-shop-1a2b3c\n    namespace: till\n",
        );
    let again = with(&ours(7000), &name(), &chosen).expect("merged");
    assert!(again.contains("namespace: till"), "{again}");
    assert_eq!(current(&again).as_deref(), Some(name().as_str()));
    let (apart, was_current) = without(name().as_str(), &again).expect("taken out");
    assert!(was_current);
    assert_eq!(current(&apart), None);
}

#[test]
fn foreign_entries_are_an_error() {
    let theirs = |text: &str| with(&ours(16443), &name(), text).expect_err(text);
    for (what, text) in [
        (
            "cluster",
            "clusters:\n- name: k3s-shop-1a2b3c\n  cluster:\n    server: https://10.0.0.1\n",
        ),
        (
            "user",
            "users:\n- name: k3s-shop-1a2b3c\n  user: {token: t}\n",
        ),
        (
            "context",
            "contexts:\n- name: k3s-shop-1a2b3c\n  context: {cluster: a, user: b}\n",
        ),
    ] {
        let error = theirs(text);
        assert_eq!(
            error.to_string(),
            format!("its {what} k3s-shop-1a2b3c does not belong to this VM")
        );
        assert_eq!(without(name().as_str(), text).expect_err("theirs"), error);
    }
    for text in [
        "[1]",
        "a text",
        "clusters: 7\n",
        "clusters:\n- 7\n",
        "{",
        "users: x: y",
    ] {
        assert!(matches!(theirs(text), MergeError::Malformed(_)), "{text}");
    }
    for text in [
        "clusters: [{name: a, cluster: {server: b}}]\n",
        "\"clusters\":\n- name: a\n  cluster: {server: b}\n",
        "x: &a [1]\nclusters: *a\n",
        "---\napiVersion: v1\n...\n",
    ] {
        let error = theirs(text);
        assert!(!error.to_string().is_empty(), "{text}");
    }
}

#[test]
fn json_keeps_its_bytes() {
    let cluster = r#"{"name":"office","cluster":{"server":"https://10.0.0.1"}}"#;
    for theirs in [
        format!(
            "{{\"kind\": \"Config\", \"clusters\":[{cluster}],\"users\":[],\"contexts\": null,\"x\":1.50}}"
        ),
        format!(
            "{{\n    \"z\" : [1,2],\n    \"clusters\": [\n        {cluster}\n    ],\n\n    \"a\": \"\\u00e9\"\n}}\n"
        ),
        format!("{{\n\t\"current-context\": \"office\",\n\t\"clusters\": [ {cluster} ]\n}}"),
    ] {
        let merged = with(&ours(16443), &name(), &theirs).expect("merged");
        assert!(merged.contains(cluster), "{merged}");
        for part in [
            "1.50",
            "\"z\" : [1,2],",
            "\\u00e9",
            "\"current-context\": \"office\"",
        ] {
            assert_eq!(merged.contains(part), theirs.contains(part), "{merged}");
        }
        assert_eq!(machines(&merged).len(), 1, "{merged}");
        assert_eq!(merged.ends_with('\n'), theirs.ends_with('\n'));
        let again = with(&ours(7000), &name(), &merged).expect("merged");
        assert_eq!(again, merged.replace("16443", "7000"));
        let (apart, _) = without(name().as_str(), &again).expect("taken out");
        assert!(
            apart.contains(cluster) && machines(&apart).is_empty(),
            "{apart}"
        );
    }
}
