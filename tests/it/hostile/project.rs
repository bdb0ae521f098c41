//! What lies in a project, where anybody's editor and anybody's git may have been at it.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use k3s_vm::{
    base::Name,
    guest::KeyPair,
    k3s::Kubeconfig,
    project::{Config, Record, Suspended},
};

use super::{storm::Storm, text};

#[test]
fn config() {
    Storm::of("config").on(text(|toml| {
        let Ok(config) = Config::parse(toml) else {
            return false;
        };
        let written = config.merged_into("").expect("a new file takes it");
        assert_eq!(Config::parse(&written).as_ref(), Ok(&config), "{written}");
        let kept = config.merged_into(toml).expect("it is TOML");
        assert_eq!(Config::parse(&kept), Ok(config), "{kept}");
        true
    }));
}

#[test]
fn record() {
    Storm::of("record").on(text(|json| {
        let Ok(record) = Record::parse(json) else {
            return false;
        };
        assert_eq!(
            Record::parse(&serde_json::to_string(&record).expect("text")),
            Ok(record)
        );
        true
    }));
}

#[test]
fn suspended() {
    Storm::of("suspended").on(text(|json| {
        let Ok(suspended) = Suspended::parse(json) else {
            return false;
        };
        assert_eq!(
            Suspended::parse(&serde_json::to_string(&suspended).expect("text")),
            Ok(suspended)
        );
        true
    }));
}

#[test]
fn kubeconfig() {
    let name: Name = "k3s-shop-1a2b3c".parse().expect("sound");
    Storm::of("kubeconfig").on(text(|yaml| {
        let Ok(kubeconfig) = Kubeconfig::parse(yaml) else {
            return false;
        };
        let written = kubeconfig.to_yaml().expect("written");
        let again = Kubeconfig::parse(&written);
        assert_eq!(again.ok().as_ref(), Some(&kubeconfig), "{written}");
        let _ = kubeconfig.credentials();
        let ours = kubeconfig.for_host(&name, 6443, Path::new("/p"));
        assert!(ours.is_err() || ours.is_ok_and(|ours| ours.belongs_to(&name)));
        true
    }));
}

/// As text, and as what is inside the text. The key is a new one: none is in the repository.
#[test]
fn ssh_key() {
    let pem = KeyPair::generate("k3s-vm").and_then(|key| key.to_pem());
    let pem = pem.expect("made");
    let inside: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let inside = BASE64.decode(inside).expect("base64");
    let of_inside = |input: &[u8]| {
        let body = BASE64.encode(input);
        let lines: Vec<&str> = (0..body.len())
            .step_by(70)
            .map(|at| &body[at..body.len().min(at + 70)])
            .collect();
        format!(
            "-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n-----END OPENSSH PRIVATE KEY-----\n",
            lines.join("\n")
        )
    };
    Storm::of("ssh-key")
        .and(pem.as_bytes())
        .and(inside)
        .on(|input| {
            let as_text = KeyPair::parse(&String::from_utf8_lossy(input));
            let read = as_text.or_else(|_| KeyPair::parse(&of_inside(input)));
            let Ok(key) = read else {
                return false;
            };
            // A key of another kind, or with a passphrase, is read and is of no use; what can be shown reads back.
            let (Ok(pem), Ok(line)) = (key.to_pem(), key.public_line()) else {
                return true;
            };
            let again = KeyPair::parse(&pem).expect("what was written is read");
            assert_eq!(again.public_line().ok(), Some(line));
            true
        });
}
