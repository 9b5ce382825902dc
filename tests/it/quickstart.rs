//! The documents hold: `docs/quickstart.md` is followed to the letter (its files are written, its commands run in order, and the
//! output that it shows comes, but for the figures), and the paths that the front pages name are there.

use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A fenced block: what stands behind the opening fence, and the lines up to the closing one.
struct Block {
    language: String,
    file: Option<String>,
    text: String,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in page.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(info) => {
                let mut words = info.split(' ').map(str::to_owned);
                let language = words.next().unwrap_or_default();
                blocks.push(Block { language, file: words.next(), text: String::new() });
                open = true;
            }
            None if open => blocks.last_mut().unwrap().text += &format!("{line}\n"),
            None => {}
        }
    }
    blocks
}

/// The output of commands on both streams, once all have ended well.
fn run(commands: &str, folder: &Path) -> String {
    let programs = Path::new(env!("CARGO_BIN_EXE_reckon")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let script = format!("exec 2>&1\n{commands}");
    let output = Command::new("sh").args(["-ec", &script]).env("PATH", path).current_dir(folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{commands}{text}");
    text
}

/// A line without its figures and its spacing.
fn outline(line: &str) -> String {
    let words: Vec<String> =
        line.split_whitespace().map(|word| word.replace(|c: char| c.is_ascii_digit(), "0")).collect();
    let mut outline = words.join(" ");
    while outline.contains("00") {
        outline = outline.replace("00", "0");
    }
    outline
}

#[test]
fn every_command_of_the_quickstart_works_and_shows_what_the_page_shows() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(ROOT, folder.path().join("reckon")).unwrap();
    let mine = folder.path().join("mine");
    std::fs::create_dir(&mine).unwrap();
    let page = std::fs::read_to_string(Path::new(ROOT).join("docs/quickstart.md")).unwrap();
    let (mut shown, mut commands) = (String::new(), 0);
    for block in blocks(&page) {
        match (block.language.as_str(), block.file) {
            ("sh", None) => {
                shown = run(&block.text, &mine);
                commands += block.text.lines().count();
            }
            ("text", None) => {
                let lines: Vec<String> = shown.lines().map(outline).collect();
                for line in block.text.lines() {
                    assert!(lines.contains(&outline(line)), "{line:?} is not in the output:\n{shown}");
                }
            }
            (_, Some(file)) => std::fs::write(mine.join(file), block.text).unwrap(),
            (language, None) => panic!("a block of {language:?} is neither a command nor a file"),
        }
    }
    assert!(commands > 8, "{commands} commands were found");
    let records = reckon::metrics::read(&mine.join("run/metrics.jsonl")).unwrap();
    let rewards: Vec<f64> = records.iter().filter_map(|record| record.get("reward/mean")).collect();
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    assert!(mean(&rewards[20..]) > mean(&rewards[..10]) + 0.1, "nothing was learned: {rewards:?}");
}

/// The first word of each line of the README's tree, and whatever looks like a path between backticks.
fn paths(page: &str) -> Vec<String> {
    let tree = page.split("## The tree").nth(1).unwrap_or_default().lines();
    let tree = tree.filter(|line| line.contains("   ")).filter_map(|line| line.split([' ', ',']).next());
    let quoted = page.split('`').skip(1).step_by(2);
    let is_path = |text: &&str| {
        let known = ["rs", "md", "toml", "cu", "h", "svg", "py", "jsonl"].map(|ending| format!(".{ending}"));
        let ends = text.ends_with('/') || known.iter().any(|ending| text.ends_with(ending));
        text.trim_end_matches('/').contains('/')
            && ends
            && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
    };
    tree.chain(quoted).filter(is_path).map(str::to_owned).collect()
}

#[test]
fn every_path_that_the_front_pages_name_is_there() {
    let mut missing = Vec::new();
    for page in
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/gpu.md", "docs/quickstart.md", "docs/status.md"]
    {
        let named = paths(&std::fs::read_to_string(Path::new(ROOT).join(page)).unwrap());
        // What a run or a build makes is not there.
        let named = named
            .into_iter()
            .filter(|path| !["runs/", "rollouts/", "target/", "run/"].iter().any(|made| path.starts_with(made)));
        let exists =
            |path: &str| ["", "src/", "docs/"].iter().any(|root| Path::new(ROOT).join(root).join(path).exists());
        missing.extend(named.filter(|path| !exists(path)).map(|path| format!("{path} in {page}")));
    }
    assert!(missing.is_empty(), "{missing:?}");
}
