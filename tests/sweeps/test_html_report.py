from imgclf.core.files import write_csv
from imgclf.sweeps.html_report import write_sweep_report
from tests.evaluation.page import Page

COLUMNS = (
    *("rank", "job", "status", "overrides", "model", "seed", "n", "val/accuracy mean", "val/accuracy", "test/accuracy"),
    *("train/seconds", "error"),
)
ROWS = [
    (1, "0", "ok", "model=<script> seed=1", "<script>", 1, 2, 0.85, 0.8, 0.7, 1.5, ""),
    (1, "1", "ok", "model=<script> seed=2", "<script>", 2, 2, 0.85, 0.9, 0.8, 2.5, ""),
    ("", "2", "failed", "model=b seed=1", "b", 1, 0, "", "", "", "", "a & <b>"),
    ("", "", "not run", "model=c seed=1", "c", 1, 0, "", "", "", "", ""),
]


def test_a_sweep_s_page_ranks_and_leads_to_the_reports_of_its_jobs(tmp_path):
    write_csv(tmp_path / "summary.csv", COLUMNS, ROWS)
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "report.html").write_text("its report")
    text = write_sweep_report(tmp_path, "val/accuracy").read_text()
    page = Page(text)
    for part in ("0.8500 ± 0.0707", "0.7500 ± 0.0707", "2.0 ± 0.7", "<script>", "a & <b>", "1 of 4 jobs failed"):
        assert part in page.text
    assert {"script", "b"}.isdisjoint(tag for tag, _ in page.tags)
    assert page.addresses() == ["data:,", "./0/report.html"]
    assert "How to repeat it" not in page.text


def test_a_sweep_without_a_result_has_a_page_too(tmp_path):
    write_csv(tmp_path / "summary.csv", COLUMNS, ROWS[2:])
    assert "No job has a result" in write_sweep_report(tmp_path, "val/accuracy").read_text()


def test_train_leaves_it_and_names_it(train, tmp_path):
    options = ("data=digits", "model=mlp", "model.hidden=[8],[4]", "logger=none", "hydra.sweep.dir=sweep")
    result = train("-m", *options).ok()
    assert result.out.split()[-2:] == ["report:", "sweep/report.html"]
    page = Page((tmp_path / "sweep" / "report.html").read_text())
    links = [address for address in page.addresses() if not address.startswith("data:")]
    assert sorted(links) == ["./0/report.html", "./1/report.html"]
    assert all((tmp_path / "sweep" / link).is_file() for link in links)
    job = Page((tmp_path / "sweep" / "1" / "report.html").read_text()).text.partition("How to repeat it")[2]
    assert "'model.hidden=[4]'" in job.partition("config.yaml")[0]
    assert "-m" not in job.partition("With the same")[0].split()
