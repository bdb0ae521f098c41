//! A suspended VM that cannot be resumed now: nothing is lost, and it is resumed when the cause is gone.

use std::{fs, net::TcpListener};

use serde_json::json;

use super::{
    outdated::rewrite,
    sandbox::{Sandbox, in_other_mounts, program},
    table::record_running_fault,
};
use crate::support::free_port;

#[test]
fn causes_that_prevent_a_resume() {
    let sandbox = Sandbox::new();
    sandbox.suspended();
    let config = fs::read_to_string(sandbox.file("config")).expect("there");

    let other = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = other.local_addr().expect("bound").port();
    fs::write(
        sandbox.file("config"),
        format!("{config}api_port = {port}\n"),
    )
    .expect("written");
    let words = ["on 127.0.0.1 is in use by another program"];
    let fault = "the chosen port is taken, start of a suspended VM";
    sandbox.fails(fault, sandbox.resume(), 1, &words);
    drop(other);
    fs::write(sandbox.file("config"), &config).expect("written");

    let poor = "echo 'MemTotal: 500000 kB' >../meminfo; mount --bind ../meminfo /proc/meminfo; exec \"$@\"";
    let start = in_other_mounts(&sandbox, &sandbox.resume(), poor);
    let words = ["cannot give the VM 1GiB of memory: the host has"];
    sandbox.fails(
        "too little memory, start of a suspended VM",
        start,
        1,
        &words,
    );

    let limited = "case \"$*\" in *-incoming*) exec prlimit --as=1900000000 qemu-system-x86_64 \"$@\";; esac\n\
        exec qemu-system-x86_64 \"$@\"";
    let path = sandbox.env.programs.to_string_lossy().into_owned();
    let mut programs = program(
        &sandbox,
        "qemu-system-x86_64",
        &format!("PATH='{path}'\n{limited}"),
    );
    programs.push(format!(":{path}"));
    let mut start = sandbox.resume();
    start.env("PATH", programs);
    let words = ["QEMU ended at once", "annot allocate memory"];
    sandbox.fails(
        "QEMU gets no memory, start of a suspended VM",
        start,
        1,
        &words,
    );

    let image = sandbox.env.path("cache/images");
    fs::rename(&image, sandbox.env.path("away")).expect("moved");
    let words = ["the VM's base image", "is missing"];
    sandbox.fails(
        "a base image that is gone, start of a suspended VM",
        sandbox.resume(),
        1,
        &words,
    );
    fs::rename(sandbox.env.path("away"), &image).expect("moved back");

    assert!(sandbox.is_suspended());
    let ended = sandbox.resumes_from_memory(sandbox.resume());
    record_running_fault(&sandbox, "nobody answers in a guest that goes on", &ended);
}

#[test]
fn kvm_that_is_temporarily_missing() {
    let sandbox = Sandbox::new();
    sandbox.suspended();
    rewrite(&sandbox, |json| {
        json["memory"]["origin"]["arguments"][1] = json!("-enable-kvm")
    });
    let config = fs::read_to_string(sandbox.file("config")).expect("there");
    let config = config.replace("accel = \"tcg\"", "accel = \"auto\"");
    fs::write(sandbox.file("config"), config).expect("written");
    let script = "mkdir -p ../dev; touch ../dev/null; mount --bind /dev/null ../dev/null; mount --rbind ../dev /dev; exec \"$@\"";
    let mut start = in_other_mounts(&sandbox, &sandbox.resume(), script);
    start.env("K3S_VM_TRUSTED_PATHS", "/");
    let words = [
        "the VM was suspended under KVM, and now /dev/kvm is missing",
        "k3s-vm stop --power-off && k3s-vm start",
    ];
    sandbox.fails("suspended under KVM, which is gone", start, 1, &words);
    assert!(sandbox.is_suspended());
}

#[test]
fn a_port_that_is_in_use_meanwhile() {
    let sandbox = Sandbox::new();
    sandbox.suspended();
    let own = free_port();
    sandbox.had_port(own.number);
    let other = TcpListener::bind(("127.0.0.1", own.number)).expect("it is free");
    let ended = sandbox.resumes_from_memory(sandbox.resume());
    record_running_fault(
        &sandbox,
        "the last port is taken, start of a suspended VM",
        &ended,
    );
    let status = sandbox.status();
    let now = status["process"]["api_port"].as_u64().expect("a port");
    assert_ne!(now, u64::from(own.number));
    let kubeconfig = fs::read_to_string(sandbox.env.project.join(".kube/config")).expect("there");
    assert!(kubeconfig.contains(&format!("https://127.0.0.1:{now}")));
    drop(other);
}
