//! The plan of the code, held: imports run only to lower rooms, and no files import each other in a circle.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use syn::visit::Visit;

use crate::support::{program, repository};

/// The rooms from high to low; those on one floor do not know each other.
const FLOORS: [&[&str]; 5] = [
    &["cli"],
    &["machine"],
    &["qemu", "image", "seed", "guest", "k3s"],
    &["project"],
    &["base"],
];

/// The rooms of `machine`, from low to high.
const MACHINE: [&str; 14] = [
    "error",
    "model",
    "control",
    "cache",
    "guest_config",
    "access",
    "launch",
    "memory",
    "template",
    "recover",
    "snapshots",
    "lifecycle",
    "upgrade",
    "report",
];

#[test]
fn imports_run_only_to_lower_rooms() {
    let floor = |module: &Module| {
        let floor = FLOORS.iter().position(|rooms| rooms.contains(&&*module[0]));
        floor.unwrap_or_else(|| panic!("{module:?} is in no room"))
    };
    let room = |module: &Module| MACHINE.iter().position(|&room| module[1] == room);
    let imports = imports();
    assert!(imports.len() > 150, "{} files are seen", imports.len());
    for (file, imported) in &imports {
        for other in imported {
            if file[0] != other[0] {
                assert!(floor(file) < floor(other), "{file:?} imports {other:?}");
            } else if file[0] == "machine" && file[1] != other[1] {
                assert!(room(file) > room(other), "{file:?} imports {other:?}");
            }
        }
    }
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut rest = imports();
    // What imports nothing that is left, or is imported by nothing that is left, is in no circle.
    loop {
        let before = rest.len();
        let imported: BTreeSet<Module> = rest.values().flatten().cloned().collect();
        let names: BTreeSet<Module> = rest.keys().cloned().collect();
        rest.retain(|file, others| {
            imported.contains(file) && others.iter().any(|other| names.contains(other))
        });
        if rest.len() == before {
            break;
        }
    }
    for others in rest.values_mut() {
        others.retain(|other| other != &Module::new());
    }
    assert!(rest.is_empty(), "{rest:#?}");
}

/// A module's path below the crate, like `["machine", "launch", "plan"]`.
type Module = Vec<String>;

/// What a source file names of the crate, outside its tests.
#[derive(Default)]
struct Names {
    module: Module,
    /// Absolute paths.
    paths: BTreeSet<Module>,
    /// What a name in scope stands for.
    aliases: BTreeMap<String, Module>,
    /// What a `mod.rs` hands on.
    exports: BTreeMap<String, Module>,
}

impl Names {
    fn absolute(&self, path: &[String]) -> Option<Module> {
        let mut base = match path.first()?.as_str() {
            "crate" => Module::new(),
            "self" | "super" => self.module.clone(),
            name => {
                let alias = self.aliases.get(name)?;
                return Some([alias, &path[1..]].concat());
            }
        };
        let mut rest = path;
        while let Some((first, others)) = rest.split_first() {
            match first.as_str() {
                "crate" | "self" => {}
                "super" => drop(base.pop()),
                _ => break,
            }
            rest = others;
        }
        base.extend_from_slice(rest);
        Some(base)
    }

    fn take_use(&mut self, tree: &syn::UseTree, before: &Module, exported: bool) {
        let with = |name: &syn::Ident| [before.as_slice(), &[name.to_string()]].concat();
        let (path, name) = match tree {
            syn::UseTree::Path(it) => return self.take_use(&it.tree, &with(&it.ident), exported),
            syn::UseTree::Group(it) => {
                return it
                    .items
                    .iter()
                    .for_each(|tree| self.take_use(tree, before, exported));
            }
            syn::UseTree::Glob(_) => (before.clone(), String::new()),
            syn::UseTree::Name(it) if it.ident == "self" => {
                (before.clone(), before.last().cloned().unwrap_or_default())
            }
            syn::UseTree::Name(it) => (with(&it.ident), it.ident.to_string()),
            syn::UseTree::Rename(it) => (with(&it.ident), it.rename.to_string()),
        };
        let own_child = exported && !["crate", "self", "super"].contains(&path[0].as_str());
        let absolute = if own_child {
            Some([self.module.as_slice(), &path].concat())
        } else {
            self.absolute(&path)
        };
        let Some(absolute) = absolute else { return };
        if exported {
            // A file exports its own macros under their own names.
            if absolute != [self.module.as_slice(), std::slice::from_ref(&name)].concat() {
                self.exports.insert(name, absolute);
            }
        } else {
            self.paths.insert(absolute.clone());
            self.aliases.insert(name, absolute);
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .parse_args::<syn::Ident>()
                .is_ok_and(|it| it == "test")
    })
}

impl Visit<'_> for Names {
    fn visit_item_mod(&mut self, item: &syn::ItemMod) {
        if !is_test(&item.attrs) {
            syn::visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &syn::ItemUse) {
        let exported = !matches!(item.vis, syn::Visibility::Inherited);
        self.take_use(&item.tree, &Module::new(), exported);
    }

    fn visit_path(&mut self, path: &syn::Path) {
        let segments = path.segments.iter().map(|it| it.ident.to_string());
        let segments: Vec<_> = segments.collect();
        if let Some(absolute) = self.absolute(&segments) {
            self.paths.insert(absolute);
        }
        syn::visit::visit_path(self, path);
    }
}

/// Each file with logic in it, and the files of the crate that it knows.
fn imports() -> BTreeMap<Module, BTreeSet<Module>> {
    let mut files = BTreeMap::new();
    for (path, text) in sources(&repository("src")) {
        let path = Path::new(&path).strip_prefix(repository("src"));
        let path = path.expect("below src").with_extension("");
        let module: Module = path.iter().map(|it| it.to_string_lossy().into()).collect();
        if module == ["main"] || module.ends_with(&["tests".to_owned()]) {
            continue;
        }
        let is_room = ["mod", "lib"].contains(&module.last().map_or("", String::as_str));
        let module = module[..module.len() - usize::from(is_room)].to_vec();
        let file = syn::parse_file(&text).expect("Rust");
        let mut names = Names {
            module: module.clone(),
            ..Names::default()
        };
        // Imports first, for paths begin with what they name.
        for item in &file.items {
            if let syn::Item::Use(item) = item {
                names.visit_item_use(item);
            }
        }
        names.visit_file(&file);
        files.insert(module, names);
    }
    let known = |names: &Names| -> BTreeSet<Module> {
        let resolved = names.paths.iter().filter_map(|path| resolve(&files, path));
        resolved.filter(|other| *other != names.module).collect()
    };
    let logic = files.iter().filter(|(_, names)| names.exports.is_empty());
    logic
        .map(|(module, names)| (module.clone(), known(names)))
        .filter(|(module, _)| !module.is_empty())
        .collect()
}

/// The file in which something is, through what a `mod.rs` hands on.
fn resolve(files: &BTreeMap<Module, Names>, path: &[String]) -> Option<Module> {
    let length = (1..=path.len())
        .rev()
        .find(|&it| files.contains_key(&path[..it]))?;
    let exports = &files[&path[..length]].exports;
    match path.get(length).and_then(|name| exports.get(name)) {
        Some(exported) => resolve(files, &[exported, &path[length + 1..]].concat()),
        None => Some(path[..length].to_vec()),
    }
}

/// A URL may have a password in it: for people there is `base::address::shown`.
#[test]
fn urls_are_shown_without_logins() {
    for room in ["image", "k3s", "machine", "cli"] {
        for (path, text) in sources(&repository("src").join(room)) {
            for shown in ["rl.to_string()", "rl.as_str()", "%url", "%job.url"] {
                let own_text = text.split("#[cfg(test)]").next().unwrap_or_default();
                let shows = own_text.contains(shown) && !path.contains("/tests");
                assert!(!shows, "{path} has {shown:?}");
            }
        }
    }
}

fn sources(directory: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory).expect("a room").flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push((
                path.display().to_string(),
                fs::read_to_string(&path).expect("readable"),
            ));
        }
    }
    all
}

#[test]
fn the_top_level_has_only_agreed_files() {
    let listed = std::process::Command::new("git")
        .args(["ls-files"])
        .current_dir(repository(""))
        .output()
        .expect("git runs");
    let agreed = [
        "Cargo.toml",
        "Cargo.lock",
        "src",
        "firmware",
        "tests",
        "README.md",
        ".gitignore",
        ".ci",
    ];
    for file in String::from_utf8_lossy(&listed.stdout).lines() {
        let top = file.split('/').next().unwrap_or_default();
        assert!(agreed.contains(&top), "{file}");
    }
}

#[test]
fn only_the_c_library_is_linked() {
    let listed = std::process::Command::new("ldd")
        .arg(program())
        .output()
        .expect("ldd runs");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    for line in listed.lines() {
        let own = ["linux-vdso.so", "libc.so", "libm.so", "ld-linux"];
        assert!(own.iter().any(|it| line.contains(it)), "{listed}");
    }
    assert!(listed.contains("libc.so"), "{listed}");
}
