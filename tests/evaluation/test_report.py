"""The report opens from disk in a browser, whole, without a request and without running anything."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from sobolev import Surrogate
from sobolev.datasets import DarcyRecipe, Manifest, OperatorDataModule, generate
from sobolev.evaluation import report
from sobolev.evaluation.comparison import evaluate, fields_at
from sobolev.evaluation.judged import evaluate_run
from sobolev.evaluation.record import Evaluation
from sobolev.evaluation.rollouts import roll_out, whole_window
from sobolev.grids.variables import Variable
from sobolev.operators import FNO

pytestmark = pytest.mark.draws

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)  # fmt: skip
in_a_browser = pytest.mark.skipif(
    BROWSER is None, reason="needs a browser: apt-get install chromium"
)
HOSTILE = '"><script>document.title = "owned"</script><img src=x onerror=alert(1)> $\\frac{$'


class Page(HTMLParser):
    """Tags with their attributes, in order."""

    def __init__(self, text):
        super().__init__()
        self.tags = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def of(self, *names):
        return [attributes for tag, attributes in self.tags if tag in names]


def surrogate_of(data, boundary="periodic", named=None):
    """An untrained surrogate; ``named`` takes the place of the variables' names."""
    module = OperatorDataModule(data)
    modes = (3,) * module.grid.ndim
    operator = FNO(
        module.in_channels, module.out_channels, modes=modes, width=4, depth=1, boundary=boundary
    )
    return Surrogate(
        operator, module.grid, named or module.inputs, named or module.outputs,
        module.statistics | {v.name: (0.0, 1.0) for v in named or ()}, {"data": module.provenance},
    ).eval()  # fmt: skip


def opened(file: Path, profile: Path) -> str:
    """What becomes of a page in a browser that reaches no host."""
    command = [
        BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
        "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=8000", "--dump-dom", file.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


@pytest.fixture(scope="module")
def darcy_report(tmp_path_factory):
    """A report with everything that fields have: two resolutions, certificates, a training curve."""
    home = tmp_path_factory.mktemp("report")
    data = generate(
        DarcyRecipe(solver_resolution=33), home / "data", {"train": 8, "test": 4}, resolution=17, progress=False
    )  # fmt: skip
    surrogate = surrogate_of(data, boundary="dirichlet")
    surrogate.record(training={"seconds": 60.0, "epochs": 2})
    surrogate.record(protocol="one map, no time")
    surrogate.save(home / "run" / "surrogate")
    rows = "epoch,step,train/loss,valid/relative_l2\n0,1,0.9,0.8\n1,2,0.5,0.4\n"
    (home / "run" / "metrics.csv").write_text(rows)
    (home / "run" / "config.yaml").write_text("seed_everything: 0\n")
    evaluate_run(home / "run", data, [17, 33])
    return home / "run" / "evaluation" / "report.html"


@pytest.mark.slow
def test_every_number_has_its_place_and_nothing_comes_from_elsewhere(darcy_report):
    text = darcy_report.read_text()
    assert len(text) < 3e6
    page = Page(text)
    named = {a["id"] for a in page.of("h2")}
    assert named == {
        "errors", "fields", "scales", "training", "certificates", "costs", "again",
    }  # fmt: skip
    assert {a["href"] for a in page.of("a")} == {f"#{name}" for name in named}
    assert not page.of("script", "link", "iframe", "object", "embed", "base", "form")
    assert all(a["src"].startswith("data:image/") and a["alt"] for a in page.of("img"))
    assert not re.search(r"url\(|@import", text)
    policy = next(a for a in page.of("meta") if "http-equiv" in a)["content"]
    assert policy.startswith("default-src 'none'")
    found = json.loads((darcy_report.parent / "evaluation.json").read_text())
    shown = re.sub(r"<[^>]+>", " ", text)
    for score in found["scores"]:
        assert f"{score['relative_l2']:#.3g}" in shown
    for measure in found["measures"].values():
        assert measure["definition"] in shown
    assert "one map, no time" in shown
    assert "guaranteed upper bound" in shown
    assert found["certificates"]["holds"] == 4
    assert "seed_everything: 0" in shown


@pytest.mark.slow
@in_a_browser
def test_a_browser_shows_every_picture_and_asks_nobody(darcy_report, tmp_path):
    """In a copy that is allowed one script: what has been decoded, drawn and asked for."""
    text = darcy_report.read_text()
    opening = text.replace("<details>", "<details open>")
    allowed, count = re.subn(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", opening)
    assert count == 1
    probe = """<pre id="probe"></pre><script>addEventListener("load", () => {
      const images = [...document.images].map(i => [i.naturalWidth, i.getBoundingClientRect().width]);
      const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
      const asked = performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith("data:"));
      const broken = [...document.querySelectorAll("nav a")].filter(a => !document.querySelector(a.hash)).length;
      document.getElementById("probe").textContent = JSON.stringify({images, wide, asked, broken});
    })</script></body>"""
    copy = tmp_path / "copy.html"
    copy.write_text(allowed.replace("</body>", probe))
    dom = opened(copy, tmp_path / "profile")
    seen = json.loads(re.search(r'<pre id="probe">(.*?)</pre>', dom)[1])
    assert len(seen["images"]) == 11
    assert all(natural > 100 and width > 100 for natural, width in seen["images"])
    assert seen["asked"] == []
    assert seen["broken"] == 0
    assert seen["wide"] <= 0  # tables scroll by themselves, the page does not
    assert len(Page(dom).of("table")) == len(Page(text).of("table")) > 5


@pytest.fixture(scope="module")
def hostile(flow_data):
    """A report whose every word comes from somebody who wants to run something."""
    named = [Variable(HOSTILE, HOSTILE, HOSTILE)]
    honest, surrogate = surrogate_of(flow_data), surrogate_of(flow_data, named=named)
    surrogate.operator.load_state_dict(honest.operator.state_dict())
    manifest = replace(
        Manifest.read(flow_data), title=HOSTILE, equation=HOSTILE, measure=HOSTILE, time_units=HOSTILE, preset=HOSTILE
    )  # fmt: skip
    score, comparison = evaluate(honest, flow_data, 16)
    rolled = roll_out(honest, fields_at(flow_data, 16, "test", whole_window(honest, manifest)))
    rolled = replace(rolled, surrogate=surrogate, time_units=HOSTILE)
    drawn = {**surrogate.provenance["data"], "recipe": {"class": HOSTILE}, "path": HOSTILE}
    surrogate.record(
        protocol=HOSTILE, training={"optimizer": HOSTILE}, data=drawn, **{HOSTILE: [HOSTILE]}
    )
    path = Path(HOSTILE)
    evaluation = Evaluation(
        surrogate, path, path, HOSTILE, manifest, f"sobolev evaluate {HOSTILE}",
        [replace(score, relative_l2_of={HOSTILE: 0.1})], {(16, 16): replace(comparison, surrogate=surrogate)}, rolled,
        None, HOSTILE, None, None, HOSTILE,
    )  # fmt: skip
    return report.render(evaluation, evaluation.to_json(), report.figures(evaluation))


@pytest.mark.slow
def test_names_from_strangers_are_text(hostile):
    page = Page(hostile)
    assert not page.of("script")
    assert all(set(a) == {"class", "src", "alt"} for a in page.of("img"))
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


@pytest.mark.slow
@in_a_browser
def test_a_browser_runs_nothing_of_them(hostile, tmp_path):
    file = tmp_path / "report.html"
    image = '<img src="http://example.org/x.png" onerror="document.title = 1">'
    escapes = f'<body><script>document.title = "owned"</script>{image}'
    file.write_text(hostile.replace("<body>", escapes, 1))  # had the escaping failed
    dom = opened(file, tmp_path / "profile")
    title = re.search(r"<title>(.*?)</title>", dom, flags=re.S)[1]
    assert title.startswith("FNO · ")
    assert "owned" in title  # as text
    assert len(Page(dom).of("script")) == 1
