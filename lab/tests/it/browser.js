// Clicks through a report as a reader would, and leaves what it found in the page, for lab/tests/it/browser.rs.
(async function () {
  const pause = (ms = 60) => new Promise(done => setTimeout(done, ms));
  const one = selector => document.querySelector(selector), all = selector => [...document.querySelectorAll(selector)];
  const outcome = { opened_ms: Math.round(window.opened), errors: window.errors, checks: {} };
  const check = (name, holds) => { outcome.checks[name] = Boolean(holds); };
  const until = async (what, ms = 4000) => { for (let t = 0; t < ms && !what(); t += 50) await pause(50); return what(); };
  const set = async (control, value) => {
    control.value = value;
    control.dispatchEvent(new Event("change", { bubbles: true }));
    await pause();
  };
  const tab = async name => { one(`#tab-${name}`).click(); await pause(); };
  try {
    check("the overview has a chart that is drawn", await until(() => one("#chart-accuracy canvas")));
    check("the overview has the figures", one("#summary").textContent.includes("held-out accuracy"));
    check("all arms are in the legend", all(".arm").length === 5);

    // A click on a point of a curve.
    const over = one("#chart-accuracy .u-over"), box = over.getBoundingClientRect();
    const at = { bubbles: true, clientX: box.left + box.width * 0.97, clientY: box.top + box.height * 0.3 };
    over.dispatchEvent(new MouseEvent("mouseenter", at));
    over.dispatchEvent(new MouseEvent("mousemove", at));
    await pause(120);
    check("the tip tells of the step", /^step \d+/.test(one("#tip").textContent));
    for (const kind of ["mousedown", "mouseup", "click"]) over.dispatchEvent(new MouseEvent(kind, at));
    await pause(120);
    check("a point leads to its rollouts", one("#tab-rollouts").getAttribute("aria-selected") === "true" && all(".text").length > 1);
    check("the link says where", location.hash.includes("tab=") && location.hash.includes("step="));

    // Tokens, filters, marks.
    const token = one(".body span[style]");
    token.dispatchEvent(new MouseEvent("mousemove", { bubbles: true, clientX: 50, clientY: 50 }));
    check("a token has its probability", /probability  [\d.]+/.test(one("#tip").textContent) && /entropy/.test(one("#tip").textContent));
    check("words of reflection are marked", all(".hit").some(mark => "wait".includes(mark.textContent)));
    const before = all(".text").length;
    await set(one("select[name=group]"), "-1");
    const everything = all(".text").length;
    check("all groups of a step are more than one", everything > before);
    await set(one("select[name=verdict]"), "wrong");
    const wrong = all(".text").length;
    check("a filter by verdict leaves those alone", wrong < everything && all(".text").every(text => text.classList.contains("wrong")));
    await set(one("input[name=words]"), "no such word");
    check("a filter by words can leave none", all(".text").length === 0 && /^0 of/.test(one("#shown").textContent));
    all(".bar button").find(button => button.textContent === "Clear").click();
    await pause();
    await set(one("input[name=rmin]"), "0.5");
    const rewarded = all(".text").length;
    await set(one("input[name=nmax]"), "1");
    check("filters by reward and length", rewarded > 0 && rewarded < everything && all(".text").length === 0);

    // The difference of a problem between two steps.
    await tab("problems");
    check("a problem is compared between two steps", all(".two .text").length === 2 && all("del").length + all("ins").length > 0);
    const first = one(".two .text header span").textContent;
    const steps = [...one("select[name=from-step]").options].map(option => option.value);
    await set(one("select[name=from-step]"), steps[1]);
    check("another step can be chosen", one(".two .text header span").textContent !== first && location.hash.includes("a="));

    for (const name of ["overview", "curves", "rollouts", "problems", "figures", "config"]) await tab(name);
    check("the config is there", one("pre").textContent.length > 0);
    await tab("figures");
    check("figures have intervals", /\[-?[\d.]+, [\d.]+\]/.test(one("#main").textContent));

    // A link opens what it says; one that says nonsense opens the overview.
    location.hash = '#tab="rollouts"&verdict="right"&run=1';
    await pause(150);
    check("a link opens its view", one("select[name=verdict]").value === "right" && all(".text").every(text => text.classList.contains("right")));
    location.hash = '#tab=7&run="x"&hidden=3&nonsense&theme="blue"';
    await pause(150);
    check("a link that says nonsense opens the overview", one("#tab-overview").getAttribute("aria-selected") === "true");
    const light = document.documentElement.dataset.theme;
    one("#theme").click();
    check("light and dark", document.documentElement.dataset.theme !== light);
    all(".arm")[1].click();
    await pause(100);
    check("an arm can be hidden", all(".arm")[1].getAttribute("aria-pressed") === "false");
    location.hash = "";
    await pause(150);
    check("without a hash everything is as at first", all(".arm").every(arm => arm.getAttribute("aria-pressed") === "true"));
    await tab("curves");
    const bare = () => all(".chart").filter(chart => !chart.querySelector("canvas")).map(chart => chart.id);
    check("every chart is drawn", await until(() => bare().length === 0));
    outcome.bare = bare();
  } catch (error) {
    outcome.errors.push(String(error.stack || error));
  }
  outcome.requests = performance.getEntriesByType("resource").map(entry => entry.name);
  const left = document.createElement("pre");
  left.id = "outcome";
  left.textContent = JSON.stringify(outcome);
  document.body.replaceChildren(left);
})();
