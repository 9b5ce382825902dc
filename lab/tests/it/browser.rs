//! The page in Chromium, clicked through by `browser.js`. A machine without Chromium says so and passes.

use std::path::Path;
use std::process::{Command, Stdio};

use reckon_lab::arms::Study;
use reckon_lab::report::{Options, Report};
use serde_json::Value;

use crate::made_up::{Size, experiment};

/// Stands before everything else: what goes wrong is kept, and when the page is drawn.
const WATCH: &str = r#"<script>
window.errors = [];
window.addEventListener("error", event => window.errors.push(String(event.message || event.target.src)), true);
window.addEventListener("unhandledrejection", event => window.errors.push(String(event.reason)));
document.addEventListener("securitypolicyviolation", event => window.errors.push("request: " + event.blockedURI));
// Whether a chart is in view depends on frames, which a browser on a busy machine may leave out: here every one is.
window.IntersectionObserver = class {
  constructor(seen) { this.seen = seen; }
  observe(target) { setTimeout(() => this.seen([{ isIntersecting: true, target }])); }
  disconnect() {}
};
for (const kind of ["error", "warn"]) console[kind] = (...parts) => window.errors.push(parts.join(" "));
</script>"#;
const DRAWN: &str = "<script>window.opened = performance.now();</script>";

/// A Chromium of this machine.
fn chromium() -> Option<&'static str> {
    let runs = |name: &&str| {
        Command::new(name)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|s| s.success())
    };
    ["chromium", "chromium-browser", "google-chrome"].into_iter().find(runs)
}

/// What the page's own script leaves of `page`, and what the browser printed.
fn visit(browser: &str, folder: &Path, page: &str) -> (Value, String) {
    let path = folder.join("page.html");
    let script = format!("{DRAWN}<script>{}</script></body>", include_str!("browser.js"));
    let page = page.replacen("<head>", &format!("<head>{WATCH}"), 1).replace("</body>", &script);
    std::fs::write(&path, page).unwrap();
    let output = Command::new(browser)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .args(["--enable-logging=stderr", "--window-size=1400,900", "--virtual-time-budget=60000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}", path.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout).into_owned();
    let found = dom.split("<pre id=\"outcome\">").nth(1).and_then(|rest| rest.split("</pre>").next());
    let found = found.unwrap_or_else(|| panic!("the script left nothing: {dom:.3000}"));
    let found = found.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    (serde_json::from_str(&found).unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_reader_clicks_through_the_page_without_an_error_and_without_a_request() {
    let Some(browser) = chromium() else {
        return eprintln!("skipped: there is no Chromium on this machine");
    };
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    experiment(&runs, Size { seeds: 2, steps: 60, groups: 5, group_size: 6, problems: 40 });
    let mut study = Study::read(&[runs.display().to_string()]).unwrap();
    let report = Report::of(&mut study, &Options { meaning: &|_| None, live: false }).unwrap();
    let (found, printed) = visit(browser, folder.path(), &report.page());
    let failed: Vec<&String> = found["checks"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(_, holds)| **holds != true)
        .map(|(name, _)| name)
        .collect();
    assert!(failed.is_empty(), "these do not hold: {failed:?}; {found}");
    assert_eq!(found["checks"].as_object().unwrap().len(), 22, "all of them were made: {found}");
    assert_eq!(found["errors"], serde_json::json!([]));
    assert_eq!(found["requests"], serde_json::json!([]));
    // What the browser itself says of the page's console; its own chatter is no matter of the page.
    let console: Vec<&str> = printed.lines().filter(|line| line.contains(":CONSOLE")).collect();
    assert!(console.is_empty(), "{console:?}");
}
