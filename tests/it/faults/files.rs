//! What is asked for contradicts what is there, or what is there is damaged or somebody else's.

use std::fs;

use super::scene::Scene;
use crate::support::{dead_image, names};

#[test]
fn flags_that_contradict_the_machine() {
    let scene = Scene::new();
    scene.finished(".kube/config".as_ref());
    let record = fs::read(scene.file("record.json")).expect("there");
    let config = fs::read(scene.file("config")).expect("there");
    let other = dead_image(&scene.env.path("other.img"))
        .display()
        .to_string();
    let image = scene.image.display().to_string();
    for (flags, made, asked) in [
        (
            ["--disk", "10GiB"],
            "a disk of 20GiB",
            "10GiB is asked for now",
        ),
        (
            ["--image", &other],
            &format!("the image {image}"),
            &format!("{other} is asked for now"),
        ),
        (
            ["--firmware", "uefi"],
            "firmware bios",
            "uefi is asked for now",
        ),
        (
            ["--k3s-version", "v1.2.3+k3s1"],
            "k3s v1.33.5+k3s1",
            "v1.2.3+k3s1 is asked for now",
        ),
    ] {
        let words = [
            "this project's machine was made with",
            made,
            asked,
            "k3s-vm reset && k3s-vm setup",
        ];
        let fault = format!("another {} than the machine was made with", flags[0]);
        scene.fails(&fault, scene.setup(&flags), 2, &words);
    }
    for verb in [&["stop"][..], &["start"], &["setup"], &["reset", "--yes"]] {
        let mut named = if verb == ["setup"] {
            scene.setup(&[])
        } else {
            scene.env.command(verb)
        };
        named.env("VM_NAME", "another");
        let words = [
            "made with the name k3s-project-",
            "another is asked for now",
            "hint: ",
        ];
        scene.fails(&format!("VM_NAME, {}", verb.join(" ")), named, 2, &words);
    }
    let mut named = scene.setup(&[]);
    named.env("VM_NAME", "No Name");
    scene.fails(
        "VM_NAME that is none",
        named,
        1,
        &["VM_NAME: \"No Name\" is no machine name", "unset VM_NAME"],
    );
    assert_eq!(
        fs::read(scene.file("record.json")).expect("there"),
        record,
        "nothing was changed"
    );
    assert_eq!(
        fs::read(scene.file("config")).expect("there"),
        config,
        "nothing was changed"
    );
    scene.goes_on(scene.setup(&[]));
}

#[test]
fn a_torn_record() {
    let scene = Scene::new();
    for torn in ["", "{", "{\"schema\": 99}", "null"] {
        scene.stopped();
        fs::write(scene.file("record.json"), torn).expect("torn");
        for verb in [
            &["start"][..],
            &["stop"],
            &["status"],
            &["kubectl", "get", "nodes"],
        ] {
            let words = [
                "k3s-vm/record.json is no record of a machine: ",
                "k3s-vm reset && k3s-vm setup",
            ];
            let fault = format!("a record of {torn:?}, {}", verb.join(" "));
            scene.fails(&fault, scene.env.command(verb), 1, &words);
        }
        scene.env.ok(&["reset", "--yes"]);
        assert_eq!(names(&scene.file("")), [".gitignore", "config", "lock"]);
    }
    scene.goes_on(scene.setup(&[]));
}

/// Whatever is wrong with the record, the QEMU that runs is ended with the machine.
#[test]
fn a_torn_record_of_a_running_machine() {
    let scene = Scene::new();
    let setup = scene.booting();
    setup.signal(rustix::process::Signal::KILL);
    drop(setup);
    fs::write(scene.file("record.json"), "{").expect("torn");
    scene.env.ok(&["reset", "--yes"]);
    scene.nothing_runs();
}

#[test]
fn nonsense_in_the_config() {
    let scene = Scene::new();
    scene.stopped();
    let config = scene.file("config");
    let sound = fs::read(&config).expect("there");
    for (text, words) in [
        (
            "# mine\ncpus = 2\nmemroy = \"4GiB\"\n",
            ["line 3", "memroy"],
        ),
        ("cpus = 0\n", ["line 1", "0 CPUs are not possible: 1 to 64"]),
        ("cpus = 2\nmemory = \"lots\"\n", ["line 2", "\"lots\""]),
        ("cpus = \n", ["line 1", "cpus ="]),
        (
            "timeout = \"soon\"\n",
            ["line 1", "\"soon\" is no length of time"],
        ),
    ] {
        fs::write(&config, text).expect("written");
        for verb in ["setup", "start", "status"] {
            let command = if verb == "setup" {
                scene.setup(&[])
            } else {
                scene.env.command(&[verb])
            };
            let words = [
                "k3s-vm/config: ",
                words[0],
                words[1],
                "mend the line, or move the file away: mv ",
            ];
            scene.fails(&format!("a config of {text:?}, {verb}"), command, 1, &words);
        }
        assert_eq!(
            fs::read_to_string(&config).expect("there"),
            text,
            "it stays the user's"
        );
    }
    fs::write(&config, sound).expect("mended");
    scene.goes_on(scene.env.command(&["start"]));
}

#[test]
fn a_kubeconfig_of_somebody_else() {
    let scene = Scene::new();
    let path = scene.env.project.join(".kube/config");
    fs::create_dir(scene.env.project.join(".kube")).expect("created");
    let theirs = "apiVersion: v1\nkind: Config\ncurrent-context: production\nclusters: []\ncontexts: []\nusers: []\n";
    for text in [theirs, "not even YAML: ["] {
        fs::write(&path, text).expect("written");
        let mv = format!("mv {0} {0}.bak", path.display());
        let words = [
            ".kube/config is there already and is not of the machine k3s-project-",
            &mv,
            "--kubeconfig PATH",
        ];
        scene.fails("a foreign kubeconfig", scene.setup(&[]), 1, &words);
        assert_eq!(
            names(&scene.env.cache),
            Vec::<String>::new(),
            "before anything was fetched"
        );
        scene.env.ok(&["reset", "--yes"]);
        assert_eq!(
            fs::read_to_string(&path).expect("there"),
            text,
            "nobody touches it"
        );
    }
    let own = scene.env.path("home/.kube/config").display().to_string();
    let words = [
        &own,
        "is your own kubeconfig, which k3s-vm does not touch",
        "--kubeconfig PATH",
    ];
    scene.fails(
        "~/.kube/config",
        scene.setup(&["--kubeconfig", &own]),
        1,
        &words,
    );
    fs::remove_file(&path).expect("moved away");
    scene.goes_on(scene.setup(&[]));
}
