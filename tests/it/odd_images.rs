//! Images with something in them that stands in a node's way: a working node, or an error that names it. systemd's
//! credentials put it into the tests' own guest, by a unit that runs before all of ours. They take turns.
//! On real guests; `cargo test --test it odd_images -- --nocapture`.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};

use crate::{
    shared::Qemu,
    support::{all, has_its_turn, turn},
    transcript::{Story, chapter, found},
};

/// What an image does early in its boot, and what is said of it.
const REFUSED: [(&str, &str); 4] = [
    (
        // By the kernel, since a remount by mount(8) is refused while anything is open for writing.
        "echo u >/proc/sysrq-trigger; for i in $(seq 100); do [ -w /usr ] || break; sleep 0.1; done",
        "the guest cannot use this image: its root file system is read-only",
    ),
    (
        "echo [Service] >/etc/systemd/system/k3s.service",
        "the guest cannot use this image: it brings a Kubernetes of its own (k3s.service)",
    ),
    (
        "mount --bind /dev/null /usr/bin/tar",
        "the guest cannot use this image: it lacks tar",
    ),
    (
        // The start of local-fs.target that is under way knows nothing of the new line; another one joins it and does.
        "echo LABEL=none /srv ext4 defaults 0 2 >>/etc/fstab; systemctl daemon-reload; \
         systemctl start --no-block local-fs.target",
        "the guest cannot use this image: its /etc/fstab names LABEL=none for /srv, which is not there",
    ),
];

#[test]
fn an_image_that_cannot_become_a_node() {
    if !has_its_turn(0, 2) {
        return;
    }
    let this = turn() / 2 % REFUSED.len();
    for (index, (early, reason)) in REFUSED.into_iter().enumerate() {
        if index != this && !all() {
            found(&format!("another run tries: {early}"));
            continue;
        }
        chapter(early);
        let story = Story::begin("odd").with_changed_qemu(&doing(early));
        let flags = Qemu::Host.flags(&story);
        story
            .run(&format!("k3s-vm setup {flags}"))
            .exits(1)
            .says(reason)
            .never_says("installed");
    }
}

#[test]
fn an_image_whose_clock_is_years_off() {
    if !has_its_turn(1, 2) {
        return;
    }
    let story = Story::begin("early").with_changed_qemu(&doing("date --set 2041-01-01"));
    let flags = Qemu::Host.flags(&story);
    story.run(&format!("k3s-vm setup {flags}")).succeeds();
    story.knows_the_time();
    story
        .run("k3s-vm kubectl get nodes")
        .succeeds()
        .says(" Ready ");
}

/// The change of a QEMU whose guest runs `early` in its first boot.
pub(crate) fn doing(early: &str) -> String {
    let unit = format!(
        "[Unit]\nDefaultDependencies=no\nAfter=systemd-remount-fs.service\n\
         Before=k3s-vm-first-boot.service\n[Service]\nType=oneshot\nExecStart=/bin/sh -c '{}'\n",
        early.replace('$', "$$")
    );
    let wanted = "[Unit]\nWants=odd-image.service\n";
    let credentials = [
        ("systemd.extra-unit.odd-image.service", unit.as_str()),
        ("systemd.unit-dropin.local-fs.target", wanted),
    ];
    let options = credentials.map(|(name, content)| {
        let content = BASE64.encode(content);
        format!("-smbios type=11,value=io.systemd.credential.binary:{name}={content}")
    });
    // Only where a guest boots with the credentials of a first boot.
    format!(
        "[[ $* != *k3s-vm-first-boot* ]] || set -- \"$@\" {}",
        options.join(" ")
    )
}
