//! The shape of the source, as ARCHITECTURE.md promises it: no circle of imports between the rooms of `src/`, nor between
//! the files of `src/model`; short files and short functions; pages that fit an editor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Most lines of a file, and of a function.
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 60;

type Graph = BTreeMap<String, BTreeSet<String>>;

/// Every Rust file below `folder`, with its path from there.
fn sources(folder: &str) -> Vec<(PathBuf, String)> {
    fn visit(folder: &Path, root: &Path, all: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                visit(&path, root, all);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                all.push((path.strip_prefix(root).unwrap().to_owned(), text));
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut all = Vec::new();
    visit(&root, &root, &mut all);
    all.sort();
    all
}

/// The module path of a file: `model/cpu/mod.rs` is `[model, cpu]`.
fn module_of(path: &Path) -> Vec<String> {
    let mut module: Vec<String> =
        path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if module.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        module.pop();
    }
    module
}

/// The code of a file without comments and without its tests.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every path that a `use` of this file names, braces unfolded, from the root of the crate.
fn imports(module: &[String], code: &str) -> Vec<Vec<String>> {
    let mut paths = Vec::new();
    for statement in code.split("use ").skip(1) {
        let Some(statement) = statement.split(';').next() else { continue };
        unfold(&statement.split_whitespace().collect::<String>(), &mut Vec::new(), &mut paths);
    }
    let absolute = paths.into_iter().filter_map(|path: Vec<String>| {
        let supers = path.iter().take_while(|part| *part == "super").count();
        match path.first()?.as_str() {
            "crate" => Some(path[1..].to_vec()),
            "super" if supers <= module.len() => Some([&module[..module.len() - supers], &path[supers..]].concat()),
            // A child of this very module.
            first if first.starts_with(char::is_lowercase) => Some([module, &path].concat()),
            _ => None,
        }
    });
    absolute.collect()
}

/// `a::{b, c::d}` to `a::b` and `a::c::d`.
fn unfold(text: &str, prefix: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    let (head, rest) = text.split_once("::{").map_or((text, None), |(head, rest)| (head, rest.strip_suffix('}')));
    let parts = head.split("as").next().unwrap_or_default().split("::");
    let length = prefix.len();
    prefix.extend(parts.map(str::to_owned));
    match rest {
        None => paths.push(prefix.clone()),
        Some(rest) => {
            let (mut depth, mut start) = (0, 0);
            for (at, c) in rest.char_indices().chain([(rest.len(), ',')]) {
                match c {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        if start < at {
                            unfold(&rest[start..at], prefix, paths);
                        }
                        start = at + 1;
                    }
                    _ => {}
                }
            }
        }
    }
    prefix.truncate(length);
}

/// Nodes that import each other, directly or by way of others.
fn circle(graph: &Graph) -> Option<Vec<String>> {
    fn visit(node: &str, graph: &Graph, way: &mut Vec<String>, done: &mut BTreeSet<String>) -> Option<Vec<String>> {
        if let Some(start) = way.iter().position(|known| known == node) {
            return Some(way[start..].to_vec());
        }
        if !done.insert(node.to_owned()) {
            return None;
        }
        way.push(node.to_owned());
        let found = graph.get(node).into_iter().flatten().find_map(|next| visit(next, graph, way, done));
        way.pop();
        found
    }
    let mut done = BTreeSet::new();
    graph.keys().find_map(|node| visit(node, graph, &mut Vec::new(), &mut done))
}

#[test]
fn no_room_of_the_source_imports_one_that_imports_it() {
    let files = sources("src");
    let rooms: BTreeSet<String> = files.iter().filter_map(|(path, _)| module_of(path).first().cloned()).collect();
    let mut graph = Graph::new();
    for (path, text) in &files {
        let (module, code) = (module_of(path), code(text));
        let Some(room) = module.first() else { continue };
        let mut named: BTreeSet<String> =
            imports(&module, &code).into_iter().filter_map(|p| p.into_iter().next()).collect();
        // Paths that are written out where they are used.
        named.extend(
            code.split("crate::")
                .skip(1)
                .map(|rest| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>()),
        );
        let edges = graph.entry(room.clone()).or_default();
        edges.extend(named.into_iter().filter(|name| rooms.contains(name) && name != room));
    }
    assert!(graph.len() > 15 && graph["train"].contains("grpo"), "the imports are read");
    assert_eq!(circle(&graph), None, "these import each other");
}

#[test]
fn no_file_of_the_model_imports_one_that_imports_it() {
    let files: Vec<(Vec<String>, String)> =
        sources("src").iter().map(|(path, text)| (module_of(path), code(text))).collect();
    let modules: BTreeSet<&Vec<String>> = files.iter().map(|(module, _)| module).collect();
    // Names that `model/mod.rs` passes on, with where they are from.
    let root = vec!["model".to_owned()];
    let passed_on: BTreeMap<String, Vec<String>> = files
        .iter()
        .filter(|(module, _)| *module == root)
        .flat_map(|(module, code)| imports(module, code))
        .filter_map(|path| Some((path.last()?.clone(), path)))
        .collect();
    let mut graph = Graph::new();
    for (module, code) in files.iter().filter(|(module, _)| module.len() > 1 && module[0] == "model") {
        let edges = graph.entry(module.join("::")).or_default();
        for mut path in imports(module, code).into_iter().filter(|path| path[0] == "model") {
            if path.len() == 2 && !modules.contains(&path) {
                path = passed_on.get(&path[1]).cloned().unwrap_or(path);
            }
            let file = (2..=path.len()).rev().map(|n| path[..n].to_vec()).find(|path| modules.contains(path));
            // A child sees what its parent has, which is not another file's business.
            if let Some(file) =
                file.filter(|file| file != module && !module.starts_with(file) && !file.starts_with(module))
            {
                edges.insert(file.join("::"));
            }
        }
    }
    assert!(graph.len() > 15 && graph["model::cpu::decoder"].contains("model::layout"), "the imports are read");
    assert_eq!(circle(&graph), None, "these import each other");
}

#[test]
fn files_and_functions_are_short() {
    for folder in ["src", "lab/src", "lab/tests", "ops/src", "rewards/src", "datasets/src", "python/src", "tests"] {
        for (path, text) in sources(folder) {
            let place = format!("{folder}/{}", path.display());
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.len() <= FILE_LINES, "{place} has {} lines", lines.len());
            for (start, line) in lines.iter().enumerate() {
                let (indent, rest) = line.split_at(line.len() - line.trim_start().len());
                let is_function = rest.split("fn ").next().is_some_and(|before| {
                    before.len() < rest.len()
                        && before
                            .split_whitespace()
                            .all(|word| ["pub", "pub(crate)", "pub(super)", "const", "async", "unsafe"].contains(&word))
                });
                // One without a body, as traits declare it, ends in a semicolon.
                let opens = lines[start..].iter().find(|line| line.ends_with(['{', ';', '}']));
                if is_function && opens.is_some_and(|line| line.ends_with('{')) {
                    let end = lines[start..].iter().position(|line| *line == format!("{indent}}}")).unwrap_or(0);
                    assert!(end < FUNCTION_LINES, "{place}:{}: a function of {} lines", start + 1, end + 1);
                }
            }
        }
    }
}

#[test]
fn the_lab_knows_none_of_our_crates() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/lab/Cargo.toml")).unwrap();
    assert!(manifest.contains("reckon-lab"), "the manifest is read");
    for other in ["reckon-rl", "reckon-ops", "reckon-rewards", "reckon-datasets"] {
        assert!(!manifest.contains(other), "{other}");
    }
}

#[test]
fn the_python_module_links_nothing_of_the_trainer() {
    let manifest = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/python/Cargo.toml")).unwrap();
    assert!(manifest.contains("reckon-rewards"), "the manifest is read");
    for other in ["reckon-rl", "reckon-ops", "reckon-lab", "candle", "tokenizers"] {
        assert!(!manifest.contains(other), "{other}");
    }
}

#[test]
fn scripts_and_styles_of_the_page_are_short() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/lab/assets");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let mut count = 0;
    for path in files {
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= 250, "{} has {lines} lines", path.display());
        count += 1;
    }
    assert!(count >= 9, "the scripts are found");
}

/// The pages that people read, but the two logs, and the reference that `reckon config` prints.
fn pages() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let entries = |folder: &str| -> Vec<PathBuf> {
        std::fs::read_dir(root.join(folder)).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let pages = [entries(""), entries("docs")].concat().into_iter();
    let of_folders = [entries(""), entries("examples")].concat().into_iter().map(|folder| folder.join("README.md"));
    let is_page = |path: &PathBuf| {
        let others = ["docs/log.md", "docs/config.md", "CHANGELOG.md"].iter().any(|other| path.ends_with(other));
        path.extension().is_some_and(|extension| extension == "md") && path.is_file() && !others
    };
    pages.chain(of_folders).filter(is_page).collect()
}

#[test]
fn lines_of_prose_fit_120_columns() {
    let pages = pages();
    assert!(pages.len() > 30, "the pages are found");
    for page in pages {
        let (text, mut in_code) = (std::fs::read_to_string(&page).unwrap(), false);
        for (number, line) in text.lines().enumerate() {
            in_code ^= line.trim_start().starts_with("```");
            // What stands in backticks is not broken.
            let can_be_broken = line.split('`').step_by(2).any(|prose| prose.trim().contains(' '));
            let is_prose = !in_code && !line.trim_start().starts_with('|') && can_be_broken;
            let columns = line.chars().count();
            assert!(!is_prose || columns <= 120, "{}:{}: {columns} columns", page.display(), number + 1);
        }
    }
}
